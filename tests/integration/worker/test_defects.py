"""A defect in the worker itself gives the message back and leaves the worker serving."""

import asyncio
from datetime import timedelta

import pytest

from durable_worker import Worker, WorkflowContext
from durable_worker.protocol.names import Names
from durable_worker.transports.memory import MemoryTransport
from durable_worker.worker import quarantine
from durable_worker.worker.turns import TurnRunner
from tests.integration.worker.desk import eventually, serving

NAMES = Names()


@pytest.fixture(autouse=True)
def _suspects_in_quick_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that comes back again and again would wait for half a second each time."""
    monkeypatch.setattr(quarantine, "SHUFFLE", timedelta(milliseconds=10))


@pytest.mark.anyio
async def test_a_turn_that_breaks_the_worker_goes_back_until_the_broker_gives_up_on_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = Worker()

    @worker.step("fine")
    async def fine() -> int:
        return 1

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext) -> None: ...

    async def broken(self: TurnRunner, task: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(TurnRunner, "decide", broken)
    async with (
        MemoryTransport(names=NAMES) as transport,
        serving(worker, transport, NAMES) as desk,
    ):
        turn = await desk.send_turn("flow")
        dead = await desk.dead()
        await desk.send_step("fine")
        result = await desk.result()
    assert dead.message_id in (None, turn.task_id)
    assert bytes(result.output) == b"1"


class Interrupted(Exception):
    pass


@pytest.mark.anyio
async def test_a_worker_that_is_cancelled_while_a_message_goes_round_and_round_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker, times = Worker(), list[int]()

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext) -> None: ...

    async def broken(self: TurnRunner, task: object) -> None:
        times.append(1)
        raise RuntimeError("a defect")

    monkeypatch.setattr(TurnRunner, "decide", broken)

    async def serve() -> None:
        async with (
            MemoryTransport(names=NAMES) as transport,
            serving(worker, transport, NAMES) as desk,
        ):
            await desk.send_turn("flow")
            await eventually(lambda: len(times) > 4)
            raise Interrupted

    serving_for_a_while = asyncio.ensure_future(serve())
    done, _ = await asyncio.wait([serving_for_a_while], timeout=60)
    assert done, "its tasks are still there"
    error = serving_for_a_while.exception()
    assert isinstance(error, ExceptionGroup)
    assert error.subgroup(Interrupted) is not None
