"""Run steps: at most `concurrency` at a time, each (step, attempt) once per process."""

import asyncio
from collections.abc import Collection, Iterable, Iterator
from enum import Enum
from functools import partial

import structlog
from msgspec import Struct

from durable_worker.clock import Clock
from durable_worker.edge.errors import SealError
from durable_worker.errors import RegistrationError
from durable_worker.protocol.base import Millis
from durable_worker.protocol.control import GivenUp
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.results import ResultStatus, StepEvent, StepResult
from durable_worker.protocol.tasks import StepTask
from durable_worker.replay.definitions import StepDefinition, names_of
from durable_worker.replay.failures import failure_of
from durable_worker.transports.base import HELD_HEADER, RESENT_HEADER, Delivery
from durable_worker.worker.answers import Answers
from durable_worker.worker.attempts import Attempts
from durable_worker.worker.edge import WorkerEdge, seal_failed
from durable_worker.worker.finished import FinishedAttempts, Key
from durable_worker.worker.invoke import Returned, outcome_of
from durable_worker.worker.live import LiveReports
from durable_worker.worker.posting import Posting, WorkCrew
from durable_worker.worker.presence import Presence
from durable_worker.worker.quarantine import Quarantine
from durable_worker.worker.recorded import RecordedSteps
from durable_worker.worker.registry import Worker
from durable_worker.worker.slots import Slots
from durable_worker.worker.step_lines import StepLines

log = structlog.get_logger("durable_worker.worker")


class _Unfinished(Enum):
    """Why an attempt has no result of this process."""

    GIVEN_BACK = "given back"
    RECORDED = "recorded"


class _Execution(Struct, eq=False):
    """One attempt in this process, and every delivery that asked for it; the crew works on the
    first one."""

    deliveries: list[Delivery]
    is_over: bool = False
    is_running: bool = False
    is_given_back: bool = False
    is_posted: bool = False
    has_failed: bool = False


class StepRunner:
    def __init__(
        self,
        worker: Worker,
        *,
        crew: WorkCrew,
        attempts: Attempts,
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
        self._crew = crew
        self._attempts = attempts
        self._answers = answers
        self._recorded = recorded
        self._live = live
        self._presence = presence
        self._edge = edge
        self._quarantine = quarantine
        self._clock = clock
        self._slots = Slots(concurrency)
        self._executions: dict[Key, _Execution] = {}
        self._finished = FinishedAttempts()
        self._lines = StepLines()

    async def handle(self, task: StepTask, delivery: Delivery) -> None:
        """Run the step, publish its result, acknowledge. A cancelled run gives the message back.

        A failed attempt that is sent as new is run anew: so operators try a failed run again,
        perhaps before the broker has confirmed the failure.
        """
        key = (task.step_id, task.attempt)
        known = self._finished.get(key)
        if known is not None and (known.error is None or may_repeat(delivery)):
            await self._answers.result(known, attempt=task.attempt)
            await delivery.ack()
            return
        running = self._executions.get(key)
        if running is not None and not running.has_failed:
            running.deliveries.append(delivery)
            return
        execution = self._executions[key] = _Execution([delivery])
        try:
            result = await self._run(task, execution)
            if isinstance(result, StepResult):
                execution.has_failed = result.error is not None
                self._finished.put(key, result)
                if self._post(result, key, execution):
                    return
                await self._answers.result(result, attempt=task.attempt)
        except BaseException:
            for each in execution.deliveries[1:]:  # the first is the caller's to give back
                await each.release()
            raise
        finally:
            if not execution.is_posted:
                self._forget(key, execution)
        for each in execution.deliveries:
            await (each.release() if result is _Unfinished.GIVEN_BACK else each.ack())

    def cancel_run(self, run_id: str, seqs: Collection[int] | None = None) -> None:
        """The run is cancelled: tell its steps (only those at `seqs`), here or on their way."""
        self._attempts.cancel_run(run_id, seqs)

    def give_up(self, run_id: str, steps: Iterable[GivenUp]) -> None:
        """Stop attempts that nobody waits for any more, here or on their way here."""
        self._attempts.give_up(run_id, steps)

    def give_back_waiting(self) -> None:
        """Hand messages whose step has not started yet back to their queues."""
        for execution in self._executions.values():
            if not execution.is_running:
                self._give_back(execution)

    def give_back_all(self) -> None:
        """Cancel what is running and hand its messages back."""
        for execution in self._executions.values():
            self._give_back(execution)

    @property
    def joined(self) -> Iterator[Delivery]:
        """Deliveries that wait for what runs for another one."""
        for execution in self._executions.values():
            yield from execution.deliveries[1:]

    @property
    def in_flight(self) -> int:
        return sum(execution.is_running for execution in self._executions.values())

    # Inside

    def _post(self, result: StepResult, key: Key, execution: _Execution) -> bool:
        again = partial(self._answers.result, result, attempt=key[1])
        end = partial(self._forget, key, execution)
        posting = Posting(self._crew, execution.deliveries, again, end)
        if not self._answers.post_result(result, attempt=key[1], told=posting.told):
            return False
        execution.is_posted = True
        self._crew.expect(posting)
        return True

    def _forget(self, key: Key, execution: _Execution) -> None:
        if self._executions.get(key) is execution:  # it may run anew already
            del self._executions[key]

    def _give_back(self, execution: _Execution) -> None:
        execution.is_given_back = True
        if not execution.is_over:
            self._crew.cancel(execution.deliveries[0])

    async def _run(self, task: StepTask, execution: _Execution) -> "StepResult | _Unfinished":
        definition = self._worker.steps.get(task.name)
        quarantine, slots = self._quarantine, self._slots
        try:
            if definition is None:
                unknown = _unknown_step(self._worker, task.name)
                return _result(task, unknown, started_at=self._clock.now())
            is_repeated = may_repeat(execution.deliveries[0])
            if is_repeated or quarantine.is_closed or not slots.free:
                return await self._run_once_free(definition, task, execution)
            quarantine.enter_now()
            slots.take_now()
            try:
                execution.is_running = True
                return await self._execute(definition, task, execution)
            finally:
                slots.leave()
                quarantine.leave()
        except asyncio.CancelledError:
            if not execution.is_given_back:
                raise
            task_of_it = asyncio.current_task()
            assert task_of_it is not None
            task_of_it.uncancel()
            return _Unfinished.GIVEN_BACK
        finally:
            execution.is_over = True
            execution.is_running = False

    async def _run_once_free(
        self, definition: StepDefinition, task: StepTask, execution: _Execution
    ) -> "StepResult | _Unfinished":
        first = execution.deliveries[0]
        # Held here, though not running yet: an operator must not take it for lost.
        self._live.started(execution, task)
        try:
            async with self._quarantine.admission(first):
                await self._slots.take()
                try:
                    if may_repeat(first) and await self._recorded.holds(task):
                        return _Unfinished.RECORDED
                    self._live.ended(execution)
                    execution.is_running = True
                    return await self._execute(definition, task, execution)
                finally:
                    self._slots.leave()
        finally:
            self._live.ended(execution)

    async def _execute(
        self, definition: StepDefinition, task: StepTask, execution: _Execution
    ) -> StepResult:
        if self._edge.may_be_sealed(task, execution.deliveries[0].envelope.body):
            opened = await self._open(task)
            if isinstance(opened, Failure):
                return _result(task, opened, started_at=self._clock.now())
            task = opened
        crew, monotonic = self._crew, self._clock.monotonic
        started_at, started = self._clock.now(), monotonic()
        self._lines.started(task)
        returned, context = await self._attempts.run(
            definition, task, is_given_up=lambda: execution.is_given_back or crew.is_ending
        )
        ended = monotonic()
        self._presence.finished((ended, ended - started))
        result = _result(task, returned, started_at=started_at, events=context.final_events())
        self._lines.ended(task, ended - started, result.error)
        return await self._sealed(task, result) if self._edge.has_to_seal(result) else result

    async def _open(self, task: StepTask) -> StepTask | Failure:
        opening = object()
        self._live.started(opening, task)  # fetching it may take its time
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


def may_repeat(delivery: Delivery) -> bool:
    """Whether another process may have run this already."""
    if delivery.delivery_count > 0:
        return True
    headers = delivery.envelope.headers
    return bool(headers) and (RESENT_HEADER in headers or HELD_HEADER in headers)


def _result(
    task: StepTask,
    returned: Returned,
    *,
    started_at: Millis,
    events: list[StepEvent] | None = None,
) -> StepResult:
    output, error = outcome_of(returned)
    return StepResult(
        run_id=task.run_id,
        seq=task.seq,
        step_id=task.step_id,
        status=ResultStatus.COMPLETED if error is None else ResultStatus.FAILED,
        started_at=started_at,
        events=events,
        output=output,
        error=error,
    )


def _unknown_step(worker: Worker, name: str) -> Failure:
    return failure_of(
        RegistrationError(
            f"step {name!r} is not registered on this worker, which has "
            f"{names_of(worker.steps.values())}"
        ),
        retryable=False,
    )
