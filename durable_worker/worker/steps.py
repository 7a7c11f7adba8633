"""Run steps: at most `concurrency` at a time, each (step, attempt) once per process."""

from collections import OrderedDict
from collections.abc import Callable, Collection
from enum import Enum

import anyio
import structlog
from msgspec import UNSET, Struct, UnsetType, field

from durable_worker.clock import Clock
from durable_worker.edge.errors import SealError
from durable_worker.errors import RegistrationError
from durable_worker.protocol.base import Millis, Payload
from durable_worker.protocol.commands import RecordStep
from durable_worker.protocol.control import Heartbeat
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.names import step_id
from durable_worker.protocol.results import ResultStatus, StepPhase, StepResult, WorkflowStepEvent
from durable_worker.protocol.retry import delay_before_next, may_retry
from durable_worker.protocol.tasks import StepTask, WorkflowTask
from durable_worker.replay.definitions import StepDefinition, names_of
from durable_worker.replay.failures import failure_of
from durable_worker.replay.opened import context_of
from durable_worker.replay.operations import LocalStep
from durable_worker.transports.base import HELD_HEADER, RESENT_HEADER, Delivery
from durable_worker.worker.answers import Answers
from durable_worker.worker.edge import WorkerEdge, seal_failed, with_context
from durable_worker.worker.invoke import invoke
from durable_worker.worker.live import LiveReports
from durable_worker.worker.presence import Presence
from durable_worker.worker.quarantine import Quarantine
from durable_worker.worker.recorded import RecordedSteps
from durable_worker.worker.registry import Worker
from durable_worker.worker.step_context import StepContext

log = structlog.get_logger("durable_worker.worker")

REMEMBERED = 2_000
"""Finished attempts whose results are kept, to answer a redelivery without running again."""

REMEMBERED_BYTES = 32 * 1024 * 1024
"""Bytes of output in those results at the most."""

Key = tuple[str, int]


class _Unfinished(Enum):
    """Why an attempt has no result of this process."""

    GIVEN_BACK = "given back"
    RECORDED = "recorded"


class _Execution(Struct):
    """One attempt in this process, and every delivery that asked for it."""

    deliveries: list[Delivery]
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    has_started: bool = False


class StepRunner:
    def __init__(
        self,
        worker: Worker,
        *,
        answers: Answers,
        recorded: RecordedSteps,
        live: LiveReports,
        presence: Presence,
        concurrency: int,
        edge: WorkerEdge,
        quarantine: Quarantine,
        clock: Clock,
    ) -> None:
        self._worker = worker
        self._answers = answers
        self._recorded = recorded
        self._live = live
        self._presence = presence
        self._edge = edge
        self._quarantine = quarantine
        self._clock = clock
        self._slots = anyio.CapacityLimiter(concurrency)
        self._threads = anyio.CapacityLimiter(concurrency)
        self._executions: dict[Key, _Execution] = {}
        self._contexts: dict[str, dict[StepContext, None]] = {}
        self._finished: OrderedDict[Key, StepResult] = OrderedDict()
        self._finished_bytes = 0
        self._cancelled: OrderedDict[tuple[str, int | None], None] = OrderedDict()
        self._is_ending = False

    async def handle(self, task: StepTask, delivery: Delivery) -> None:
        """Run the step, publish its result, acknowledge. A cancelled run gives the message back.

        A failed attempt that is sent as new is run anew: so operators try a failed run again.
        """
        key = (task.step_id, task.attempt)
        known = self._finished.get(key)
        if known is not None and (known.error is None or may_repeat(delivery)):
            await self._answers.result(known, attempt=task.attempt)
            await delivery.ack()
            return
        running = self._executions.get(key)
        if running is not None:
            running.deliveries.append(delivery)
            return
        execution = self._executions[key] = _Execution([delivery])
        try:
            result = await self._run(task, execution)
            if isinstance(result, StepResult):
                self._remember(key, result)
                await self._answers.result(result, attempt=task.attempt)
        except BaseException:
            for each in execution.deliveries[1:]:  # the first is the caller's to give back
                await each.release()
            raise
        finally:
            del self._executions[key]
        for each in execution.deliveries:
            await (each.release() if result is _Unfinished.GIVEN_BACK else each.ack())

    async def run_local(self, task: WorkflowTask, operation: LocalStep) -> RecordStep:
        """Run a local step, with its own retry policy, inside the turn that asked for it."""
        definition = operation.definition
        assert definition is not None
        started_at = self._clock.now()
        event = WorkflowStepEvent(
            run_id=task.run_id,
            seq=operation.seq,
            name=definition.name,
            phase=StepPhase.RUNNING,
            started_at=started_at,
        )
        await self._tell(event)
        attempt = 1
        while True:
            local = with_context(
                _local_task(task, operation, definition, attempt), context_of(task)
            )
            context = self._context(local)
            returned = await self._invoke(definition, local, context, lambda: self._is_ending)
            options = definition.retry.options() if definition.retry else None
            if not isinstance(returned, Failure) or not may_retry(
                options, returned, attempt=attempt
            ):
                break
            assert options is not None
            delay = delay_before_next(options, attempt=attempt, key=local.step_id)
            await anyio.sleep(delay / 1000)
            attempt += 1
        return await self._record(event, returned, context)

    async def _record(
        self, started: WorkflowStepEvent, returned: Payload | Failure, context: StepContext
    ) -> RecordStep:
        output, error = _split(returned)
        record = RecordStep(
            seq=started.seq,
            name=started.name,
            started_at=started.started_at,
            finished_at=self._clock.now(),
            events=context.final_events(),
            output=output,
            error=error,
        )
        phase = StepPhase.FAILED if isinstance(returned, Failure) else StepPhase.COMPLETED
        await self._tell(
            WorkflowStepEvent(
                run_id=started.run_id,
                seq=started.seq,
                name=started.name,
                phase=phase,
                started_at=started.started_at,
                finished_at=record.finished_at,
                output=output,
                error=error,
            )
        )
        return record

    async def _tell(self, event: WorkflowStepEvent) -> None:
        try:
            sealed = await self._edge.seal_step_event(event)
        except SealError as error:
            # For display only; the decision says why it could not be recorded.
            log.debug("step_event_lost", run_id=event.run_id, seq=event.seq, reason=str(error))
            return
        await self._answers.step_event(sealed)

    def cancel_run(self, run_id: str, seqs: Collection[int] | None = None) -> None:
        """Tell the run's steps (only those at `seqs`) that run here, or are on their way here."""
        for seq in (None,) if seqs is None else seqs:
            self._cancelled[run_id, seq] = None
            if len(self._cancelled) > REMEMBERED:
                self._cancelled.popitem(last=False)
        for context in self._contexts.get(run_id, ()):
            if seqs is None or context.seq in seqs:
                context.cancel()

    def give_back_waiting(self) -> None:
        """Hand messages whose step has not started yet back to their queues."""
        for execution in self._executions.values():
            if not execution.has_started:
                execution.scope.cancel()

    def give_back_all(self) -> None:
        """Cancel what is running and hand its messages back."""
        self._is_ending = True
        for execution in self._executions.values():
            execution.scope.cancel()

    @property
    def in_flight(self) -> int:
        return sum(execution.has_started for execution in self._executions.values())

    # Inside

    async def _run(self, task: StepTask, execution: _Execution) -> "StepResult | _Unfinished":
        definition = self._worker.steps.get(task.name)
        if definition is None:
            return _result(
                task, _unknown_step(self._worker, task.name), started_at=self._clock.now()
            )
        is_repeated = may_repeat(execution.deliveries[0])
        held = (task.step_id, task.attempt)
        if is_repeated or self._quarantine.is_closed or not self._slots.available_tokens:
            # Held here, though not running yet: an operator must not take it for lost.
            self._live.started(held, _heartbeat(task))
        try:
            with execution.scope:
                async with self._quarantine.admission(execution.deliveries[0]), self._slots:
                    if is_repeated and await self._recorded.holds(task):
                        return _Unfinished.RECORDED
                    self._live.ended(held)
                    return await self._start(definition, task, execution)
        finally:
            self._live.ended(held)
        return _Unfinished.GIVEN_BACK

    async def _start(
        self, definition: StepDefinition, task: StepTask, execution: _Execution
    ) -> StepResult:
        execution.has_started = True
        self._presence.in_flight += 1
        try:
            return await self._execute(definition, task, execution.scope)
        finally:
            self._presence.in_flight -= 1

    async def _execute(
        self, definition: StepDefinition, task: StepTask, scope: anyio.CancelScope
    ) -> StepResult:
        if self._edge.may_be_sealed(task):
            opened = await self._open(task)
            if isinstance(opened, Failure):
                return _result(task, opened, started_at=self._clock.now())
            task = opened
        context = self._context(task)
        started_at, started = self._clock.now(), self._clock.monotonic()
        log.debug("step_started", run_id=task.run_id, step=task.name, attempt=task.attempt)
        returned = await self._invoke(definition, task, context, lambda: scope.cancel_called)
        seconds = self._clock.monotonic() - started
        self._presence.finished(seconds)
        result = _result(task, returned, started_at=started_at, context=context)
        details = {"run_id": task.run_id, "step": task.name, "attempt": task.attempt}
        if result.error is None:
            log.info("step_completed", **details, seconds=round(seconds, 3))
        else:
            log.warning("step_failed", **details, error=result.error.message)
        return await self._sealed(task, result)

    async def _open(self, task: StepTask) -> StepTask | Failure:
        opening = object()
        self._live.started(opening, _heartbeat(task))  # fetching it may take its time
        try:
            return await self._edge.open_step(task)
        except SealError as error:
            log.warning("step_not_opened", run_id=task.run_id, step=task.name, reason=str(error))
            return seal_failed(error)
        finally:
            self._live.ended(opening)

    async def _sealed(self, task: StepTask, result: StepResult) -> StepResult:
        try:
            return await self._edge.seal_result(result)
        except SealError as error:
            log.warning("step_not_sealed", run_id=task.run_id, step=task.name, reason=str(error))
            assert result.started_at is not None
            return _result(task, seal_failed(error), started_at=result.started_at)

    async def _invoke(
        self,
        definition: StepDefinition,
        task: StepTask,
        context: StepContext,
        is_given_up: Callable[[], bool],
    ) -> Payload | Failure:
        contexts = self._contexts.setdefault(task.run_id, {})
        contexts[context] = None
        self._live.started(context, _heartbeat(task))
        try:
            return await invoke(
                definition,
                task.input,
                context,
                threads=self._threads,
                is_given_up=is_given_up,
                interception=self._worker.interception,
            )
        finally:
            self._live.ended(context)
            contexts.pop(context, None)
            if not contexts:
                self._contexts.pop(task.run_id, None)

    def _context(self, task: StepTask) -> StepContext:
        context = StepContext(
            run_id=task.run_id,
            seq=task.seq,
            name=task.name,
            step_id=task.step_id,
            attempt=task.attempt,
            reporter=self._live,
            now=self._clock.now,
            traceparent=task.traceparent,
            context=task.context,
        )
        if not self._cancelled.keys().isdisjoint(((task.run_id, None), (task.run_id, task.seq))):
            context.cancel()
        return context

    def _remember(self, key: Key, result: StepResult) -> None:
        self._finished[key] = result
        self._finished_bytes += _size(result)
        while len(self._finished) > REMEMBERED or self._finished_bytes > REMEMBERED_BYTES:
            self._finished_bytes -= _size(self._finished.popitem(last=False)[1])


def may_repeat(delivery: Delivery) -> bool:
    """Whether another process may have run this already."""
    headers = delivery.envelope.headers
    return delivery.delivery_count > 0 or RESENT_HEADER in headers or HELD_HEADER in headers


def _size(result: StepResult) -> int:
    return 0 if isinstance(result.output, UnsetType) else len(result.output)


def _local_task(
    task: WorkflowTask, operation: LocalStep, definition: StepDefinition, attempt: int
) -> StepTask:
    return StepTask(
        run_id=task.run_id,
        seq=operation.seq,
        name=definition.name,
        step_id=step_id(task.run_id, operation.seq),
        group=task.group,
        input=operation.input,
        attempt=attempt,
        traceparent=task.traceparent,
    )


def _heartbeat(task: StepTask) -> Heartbeat:
    return Heartbeat(run_id=task.run_id, seq=task.seq, step_id=task.step_id, group=task.group)


def _result(
    task: StepTask,
    returned: Payload | Failure,
    *,
    started_at: Millis,
    context: StepContext | None = None,
) -> StepResult:
    output, error = _split(returned)
    return StepResult(
        run_id=task.run_id,
        seq=task.seq,
        step_id=task.step_id,
        status=(ResultStatus.FAILED if isinstance(returned, Failure) else ResultStatus.COMPLETED),
        started_at=started_at,
        events=context.final_events() if context else None,
        output=output,
        error=error,
    )


def _split(returned: Payload | Failure) -> tuple[Payload, Failure | None]:
    return (UNSET, returned) if isinstance(returned, Failure) else (returned, None)


def _unknown_step(worker: Worker, name: str) -> Failure:
    return failure_of(
        RegistrationError(
            f"step {name!r} is not registered on this worker, which has "
            f"{names_of(worker.steps.values())}"
        ),
        retryable=False,
    )
