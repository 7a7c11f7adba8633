"""A served worker gets a message that may be anything, and goes on serving."""

import asyncio
from collections.abc import Callable
from typing import Any

from msgspec import Raw, json

from durable_worker import Worker, WorkflowContext
from durable_worker.protocol.codec import (
    STEP_RESULT,
    WORKFLOW_DECISION,
    MessageType,
    addressee_of,
    encode,
)
from durable_worker.protocol.names import Names
from durable_worker.protocol.tasks import StepTask
from durable_worker.transports.base import ERROR_HEADER, Delivery, Envelope
from durable_worker.transports.memory import MemoryTransport
from durable_worker.worker.determinism.policy import Determinism
from durable_worker.worker.options import WorkerOptions
from durable_worker.worker.service import WorkerService
from tests.conformance.protocol.corpus import MESSAGES
from tests.fuzz.houses import House
from tests.fuzz.seeds import CALL, RUN, WORKFLOW

NAMES = Names()
_TYPES = (MessageType.STEP_TASK, MessageType.WORKFLOW_TASK, None, "", "who", "x" * 60)
_BROADCASTS = (NAMES.control, NAMES.workers, NAMES.run_reply)
_WAYS: tuple[tuple[int | None, str | None], ...] = (
    (1, "m"), (None, None), (9, "m" * 255), (0, ""),
)  # fmt: skip
_LONGEST_REASON = 2_000


def a_worker() -> Worker:
    worker = Worker()

    @worker.step(CALL)
    async def charge(value: Any = None) -> Any:
        return value

    @worker.workflow(WORKFLOW)
    async def checkout(ctx: WorkflowContext, value: Any = None) -> Any:
        charged = await charge(value)
        told = await ctx.wait_signal("s")
        return [charged, told]

    return worker


class WorkerHouse(House):
    """A worker, and all that it publishes."""

    def __init__(self) -> None:
        self.answers: list[Envelope] = []
        self.dead: list[Envelope] = []
        self.good = 0
        super().__init__()

    async def live(self) -> None:
        async with MemoryTransport(names=NAMES, max_message_bytes=2**40) as transport:
            self.transport = transport
            await transport.consume([NAMES.results], self._taking(self.answers), prefetch=100)
            await transport.consume([NAMES.decisions], self._taking(self.answers), prefetch=100)
            await transport.consume([NAMES.dead], self._taking(self.dead), prefetch=100)
            service = WorkerService(
                a_worker(),
                transport,
                names=NAMES,
                options=WorkerOptions(determinism=Determinism.OFF),
            )
            serving = asyncio.create_task(service.serve())
            self.queues = [NAMES.tasks(token) for token in service.tokens]
            for queue in self.queues:
                await self.consumed(queue)
            self.is_open.set()
            await self.until_closed(serving)
            service.request_stop()
            await serving

    def _taking(self, kept: list[Envelope]) -> Callable[[Delivery], None]:
        def take(delivery: Delivery) -> None:
            kept.append(delivery.envelope)
            self.start(delivery.ack())

        return take

    async def receive(self, data: bytes) -> None:
        kind, way, body = data[0], data[1], data[2:]
        protocol, message_id = _WAYS[way % len(_WAYS)]
        if kind % 16 >= 12:
            exchange = _BROADCASTS[kind % len(_BROADCASTS)]
            told = (*MESSAGES, "", None)[way % (len(MESSAGES) + 2)]
            await self.transport.broadcast(exchange, Envelope(told, body, message_id))
        else:
            stated = _TYPES[kind % len(_TYPES)]
            await self._task(Envelope(stated, body, message_id, protocol))
        await self._serves_a_good_one()

    async def _task(self, envelope: Envelope) -> None:
        self.answers.clear()
        self.dead.clear()
        queue = self.queues[len(envelope.body) % len(self.queues)]
        await self.transport.send(queue, envelope)
        await self.nothing_left(queue, NAMES.results, NAMES.decisions, NAMES.dead)
        if self.dead:
            (letter,) = self.dead
            assert (letter.type, letter.body) == (envelope.type, envelope.body)
            assert 0 < len(letter.headers[ERROR_HEADER]) < _LONGEST_REASON
            assert len(self.answers) == (addressee_of(envelope.body) is not None)
            for each in self.answers:
                assert json.decode(each.body)["status"] == "failed"
        else:
            (answer,) = self.answers
            is_turn = answer.type == MessageType.WORKFLOW_DECISION
            (WORKFLOW_DECISION if is_turn else STEP_RESULT).decode(answer.body)

    async def _serves_a_good_one(self) -> None:
        self.good += 1
        self.answers.clear()
        task = StepTask(
            run_id=RUN,
            seq=self.good,
            name=CALL,
            step_id=f"good:{self.good}",
            group=CALL,
            input=Raw(b"1"),
            attempt=1,
        )
        queue = NAMES.tasks(CALL)
        await self.transport.send(queue, Envelope(MessageType.STEP_TASK, encode(task), "good"))
        await self.nothing_left(queue, NAMES.results)
        assert [bytes(STEP_RESULT.decode(each.body).output) for each in self.answers] == [b"1"]  # type: ignore[arg-type]


_house: WorkerHouse | None = None


def handle_as_worker(data: bytes) -> None:
    """A byte for the type or the broadcast, one for protocol and message id, then the body."""
    global _house  # noqa: PLW0603 - one worker serves all inputs of a process
    if _house is None:
        _house = WorkerHouse()
    _house.give(data.ljust(2, b"\0"))


def close() -> None:
    global _house  # noqa: PLW0603
    if _house is not None:
        _house.close()
        _house = None
