"""Serve a worker on a transport until told to stop, then drain."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import structlog

from durable_worker.clock import Chance, Clock, SystemChance, SystemClock
from durable_worker.errors import BrokerRefusedError, ProtocolError
from durable_worker.protocol import codec
from durable_worker.protocol.base import PROTOCOL_VERSION
from durable_worker.protocol.control import CancelRun, CancelSteps
from durable_worker.protocol.descriptor import Lifecycle, WorkerDescriptor
from durable_worker.protocol.growing import TurnReader
from durable_worker.protocol.names import Names
from durable_worker.protocol.tasks import StepTask, WorkflowTask
from durable_worker.transports.base import Delivery, Envelope, Subscription, Transport
from durable_worker.worker.answers import Answers
from durable_worker.worker.attempts import Attempts
from durable_worker.worker.crew import Crew
from durable_worker.worker.determinism.checks import checks_for
from durable_worker.worker.determinism.policy import Determinism, stated_or
from durable_worker.worker.edge import WorkerEdge
from durable_worker.worker.live import LiveReports
from durable_worker.worker.local_steps import LocalSteps
from durable_worker.worker.loop_watch import LoopWatch
from durable_worker.worker.operators import OperatorWatch
from durable_worker.worker.options import WorkerOptions
from durable_worker.worker.own_turns import OwnTurns
from durable_worker.worker.posting import Posting, WorkCrew
from durable_worker.worker.presence import BEAT_EVERY, Presence
from durable_worker.worker.quarantine import Quarantine
from durable_worker.worker.recorded import RecordedSteps
from durable_worker.worker.registry import Worker
from durable_worker.worker.renewal import Renewals
from durable_worker.worker.steps import StepRunner
from durable_worker.worker.turn_tasks import TurnTasks
from durable_worker.worker.turns import TurnRunner

if TYPE_CHECKING:
    from durable_worker.worker.refusals import Refusals

log = structlog.get_logger("durable_worker.worker")

_STEP_TASK = codec.MessageType.STEP_TASK.value

TURNS_PREFETCH = 100
"""Turns of kept runs that are here at one time; those beyond do not wait long, but come whole."""

LAST_WORDS = timedelta(seconds=5)
"""How long answers that are ready may take to reach the broker once the worker has to end."""


class WorkerService:
    """Use once: `serve` returns after `request_stop` and the drain."""

    def __init__(
        self,
        worker: Worker,
        transport: Transport,
        *,
        names: Names,
        options: WorkerOptions | None = None,
        clock: Clock | None = None,
        chance: Chance | None = None,
    ) -> None:
        worker.check()
        self._options = options or WorkerOptions()
        self._worker = worker
        self._transport = transport
        self._names = names
        self._clock = clock or SystemClock()
        self._chance = chance or SystemChance()
        self._presence = Presence(
            worker,
            concurrency=self._options.concurrency,
            partition=self._options.partition,
            namespace=names.namespace,
            clock=self._clock,
            chance=self._chance,
        )
        self._checks = checks_for(
            worker,
            self._options.determinism or stated_or(Determinism.WARN),
            shadow=self._options.shadow,
            partition=self._options.partition,
        )
        self._answers = Answers(transport, names, chance=self._chance)
        self._edge = WorkerEdge(worker)
        self._reader = TurnReader(limit=self._options.kept_runs)
        self._quarantine = Quarantine(self._chance)
        self._operators = OperatorWatch(
            transport, names, partition=self._options.partition, place=self._options.place
        )
        self._announce = anyio.Event()
        self._stop = anyio.Event()
        self._hurry = anyio.Event()
        self._refusals: Refusals | None = None

    @property
    def tokens(self) -> list[str]:
        return self._presence.tokens

    @property
    def descriptor(self) -> WorkerDescriptor:
        return self._presence.descriptor

    def request_stop(self, *, hurry: bool = False) -> None:
        """Take nothing more and let running steps finish; with `hurry`, cancel them instead."""
        self._stop.set()
        if hurry:
            self._hurry.set()

    async def serve(self) -> None:
        """Run until `request_stop`. Raises `BrokerRefusedError` if the broker refuses this worker.

        Steps that are still running after the grace period are cancelled; their messages, and those
        not started yet, go back to their queues.
        """
        self._live = LiveReports(
            self._transport,
            self._names,
            instance_id=self._presence.instance_id,
            seal=self._edge.seal_progress,
            clock=self._clock,
        )
        self._crew: WorkCrew = Crew()
        attempts = Attempts(
            self._worker,
            live=self._live,
            concurrency=self._options.concurrency,
            clock=self._clock,
        )
        self._steps = StepRunner(
            self._worker,
            crew=self._crew,
            attempts=attempts,
            answers=self._answers,
            recorded=RecordedSteps(
                self._transport,
                self._names,
                chance=self._chance,
                token=self._options.token,
            ),
            live=self._live,
            presence=self._presence,
            concurrency=self._options.concurrency,
            edge=self._edge,
            quarantine=self._quarantine,
            clock=self._clock,
        )
        local_steps = LocalSteps(
            attempts,
            answers=self._answers,
            edge=self._edge,
            clock=self._clock,
            crew=self._crew,
        )
        self._turns = TurnRunner(
            self._worker,
            run_locally=local_steps.run,
            partition=self._options.partition,
            kept=self._options.kept_runs,
            checks=self._checks,
            clock=self._clock,
        )
        self._own_turns = OwnTurns(
            self._transport,
            self._names,
            instance_id=self._presence.instance_id,
            accept=self._accept,
            prefetch=max(self._options.concurrency, TURNS_PREFETCH),
            from_bytes=self._options.deltas_from_bytes,
        )
        self._turn_tasks = TurnTasks(
            self._worker,
            self._turns,
            reader=self._reader,
            answers=self._answers,
            edge=self._edge,
            live=self._live,
            quarantine=self._quarantine,
            own_turns=self._own_turns,
            crew=self._crew,
            is_stopping=self._stop.is_set,
        )
        if not await self._connected():
            return
        try:
            await self._work()
        except BaseExceptionGroup as group:
            refused, _ = group.split(BrokerRefusedError)
            if refused is not None:
                raise _first_of(refused) from None
            raise
        finally:
            self._turns.close()
            if self._refusals is not None:
                self._refusals.close()

    async def _work(self) -> None:
        async with anyio.create_task_group() as background:
            background.start_soon(LoopWatch(self._worker, self._options.blocked_after).run)
            background.start_soon(self._live.run)
            background.start_soon(self._checks.serve)
            background.start_soon(Renewals(self._open, after=self._options.renew_after).run)
            background.start_soon(self._crew.watch)
            async with self._crew:
                subscriptions = await self._subscribe_unless_stopped()
                background.start_soon(self._be_present)
                background.start_soon(self._operators.run)
                background.start_soon(self._own_turns.run)
                await self._stop.wait()
                await self._own_turns.stop()
                for subscription in subscriptions:
                    await subscription.stop()
                await self._drain()
            background.cancel_scope.cancel()

    async def _subscribe_unless_stopped(self) -> list[Subscription]:
        opening = asyncio.ensure_future(self._subscribe())
        stopping = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait([opening, stopping], return_when=asyncio.FIRST_COMPLETED)
            return opening.result() if opening.done() else []
        finally:
            for task in (opening, stopping):
                task.cancel()
            await asyncio.wait([opening, stopping])

    async def _connected(self) -> bool:
        """Wait for the broker; False if told to stop before."""
        refusal: BrokerRefusedError | None = None
        async with anyio.create_task_group() as group:

            async def give_up_on_stop() -> None:
                await self._stop.wait()
                group.cancel_scope.cancel()

            group.start_soon(give_up_on_stop)
            try:
                await self._transport.wait_connected()
            except BrokerRefusedError as error:
                refusal = error
            group.cancel_scope.cancel()
        if refusal is not None:
            raise refusal
        return not self._stop.is_set()

    def _accept(self, delivery: Delivery) -> None:
        if not self._crew.is_ending:  # else the broker takes it back with the connection
            self._crew.start(self._handle, delivery, name=delivery.queue)

    async def _subscribe(self) -> list[Subscription]:
        transport, names = self._transport, self._names
        queues = [names.tasks(token) for token in self._presence.tokens]
        # The first task may run while the rest is still being set up; its answer waits for that.
        async with asyncio.TaskGroup() as opening:
            opening.create_task(self._answers.open())
            tasks = opening.create_task(
                transport.consume(queues, self._accept, prefetch=self._options.concurrency)
            )
            control = opening.create_task(transport.listen(names.control, self._on_control))
            workers = opening.create_task(transport.listen(names.workers, self._on_workers))
        return [tasks.result(), workers.result(), control.result()]

    async def _drain(self) -> None:
        log.info("draining", running=self._steps.in_flight)
        await self._transport.broadcast(self._names.workers, self._beat(Lifecycle.DRAINING))
        self._steps.give_back_waiting()
        async with anyio.create_task_group() as waiting:

            async def give_up() -> None:
                with anyio.move_on_after(self._options.grace.total_seconds()):
                    await self._hurry.wait()
                self._crew.is_ending = True
                self._steps.give_back_all()
                await anyio.sleep(LAST_WORDS.total_seconds())
                waiting.cancel_scope.cancel()

            waiting.start_soon(give_up)
            # The stop may have come before this was done, and what runs waits for it.
            waiting.start_soon(self._answers.open)
            await self._crew.idle()
            waiting.cancel_scope.cancel()
        await self._transport.broadcast(self._names.workers, self._beat(Lifecycle.STOPPED))

    # Deliveries

    def _open(self) -> Iterator[Delivery]:
        """All that are not answered yet."""
        for subject in self._crew.subjects:
            if isinstance(subject, Posting):
                yield from subject.deliveries
            else:
                yield subject
        yield from self._steps.joined

    async def _handle(self, delivery: Delivery) -> None:
        try:
            try:
                envelope = delivery.envelope
                if envelope.protocol != PROTOCOL_VERSION:
                    _check_protocol(envelope)
                if envelope.type == _STEP_TASK:
                    task: StepTask | WorkflowTask = codec.STEP_TASK.decode(envelope.body)
                else:
                    task = self._reader.task_in(envelope.body, message_type=envelope.type)
            except ProtocolError as error:
                await self._refuse(delivery, error)
                return
            if isinstance(task, StepTask):
                await self._steps.handle(task, delivery)
            else:
                await self._turn_tasks.handle(task, delivery)
        except Exception:  # a defect of ours: it must cost neither the worker nor the message
            log.exception("delivery_not_handled", queue=delivery.queue)
            await delivery.release()
        except asyncio.CancelledError:
            if self._crew.is_ending:
                raise
            # A cancellation of another kind is a defect, too.
            log.exception("delivery_not_handled", queue=delivery.queue)
            await delivery.release()

    async def _refuse(self, delivery: Delivery, error: ProtocolError) -> None:
        if self._refusals is None:
            # Seldom needed: it need not delay the first message.
            from durable_worker.worker.refusals import Refusals

            self._refusals = Refusals(self._answers)
        await self._refusals.refuse(delivery, error)

    # Broadcasts

    def _on_control(self, envelope: Envelope) -> None:
        try:
            message = codec.CONTROL.decode(envelope.body)
        except ProtocolError as error:
            log.warning("control_message_ignored", reason=str(error))
            return
        if isinstance(message, CancelRun):
            self._steps.cancel_run(message.run_id, message.seqs)
        elif isinstance(message, CancelSteps):
            self._steps.give_up(message.run_id, message.steps)

    def _on_workers(self, envelope: Envelope) -> None:
        if envelope.type == codec.MessageType.WHO:
            self._announce.set()
            self._operators.on_who(envelope)

    async def _be_present(self) -> None:
        workers = self._names.workers
        while True:
            self._announce = anyio.Event()
            await self._transport.broadcast(workers, self._presence.announcement())
            await self._transport.broadcast(workers, self._beat(Lifecycle.UP))
            while True:
                with anyio.move_on_after(BEAT_EVERY.total_seconds()):
                    await self._announce.wait()
                    break
                await self._transport.broadcast(workers, self._beat(Lifecycle.UP))

    def _beat(self, lifecycle: Lifecycle) -> Envelope:
        return self._presence.beat(lifecycle, in_flight=self._steps.in_flight)


def _check_protocol(envelope: Envelope) -> None:
    """Raises `ProtocolError`."""
    if envelope.protocol not in (None, PROTOCOL_VERSION):
        raise ProtocolError(
            envelope.type or "task",
            f"protocol {envelope.protocol} is not supported, this worker speaks {PROTOCOL_VERSION}",
        )


def _first_of(group: BaseExceptionGroup[BrokerRefusedError]) -> BrokerRefusedError:
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first
