"""Steps that nobody waits for any more are stopped: attempt by attempt."""

from collections.abc import AsyncIterator

import anyio
import pytest

from durable_worker import StepContext, Worker
from durable_worker.protocol.names import Names
from durable_worker.transports.memory import MemoryTransport
from tests.integration.worker.desk import Desk, eventually, serving

pytestmark = pytest.mark.anyio
NAMES = Names()


class Waiting:
    """A step that waits for `gate`, and its worker."""

    def __init__(self) -> None:
        self.worker = Worker()
        self.gate = anyio.Event()
        self.begun: list[int] = []
        self.is_begun = anyio.Event()

        @self.worker.step("wait")
        async def wait(_: None, ctx: StepContext) -> str:
            self.begun.append(ctx.attempt)
            self.is_begun.set()
            await self.gate.wait()
            return "done"

        @self.worker.step("other")
        async def other() -> None: ...


@pytest.fixture
async def transport() -> AsyncIterator[MemoryTransport]:
    async with MemoryTransport(names=NAMES) as opened:
        yield opened


async def outcome(desk: Desk) -> str | None:
    result = await desk.result()
    return result.error.code if result.error is not None else bytes(result.output).decode()


async def test_an_attempt_that_was_given_up_does_not_begin_and_a_later_one_does(
    transport: MemoryTransport,
) -> None:
    waiting = Waiting()
    waiting.gate.set()
    async with serving(waiting.worker, transport, NAMES) as desk:
        await eventually(lambda: desk.workers)
        await desk.give_up("run-1", {4: 2})
        await desk.give_up("run-1", {4: 1})
        outcomes: list[str | None] = []
        for attempt in (1, 2, 3):
            await desk.send_step("wait", seq=4, attempt=attempt)
            outcomes.append(await outcome(desk))
    assert (outcomes, waiting.begun) == (["cancelled", "cancelled", '"done"'], [3])


async def test_an_attempt_that_runs_is_stopped(transport: MemoryTransport) -> None:
    waiting = Waiting()
    async with serving(waiting.worker, transport, NAMES) as desk:
        await desk.send_step("wait", seq=4)
        await waiting.is_begun.wait()
        await desk.give_up("run-1", {3: 1, 4: 1})
        assert await outcome(desk) == "cancelled"


async def test_a_later_attempt_that_runs_goes_on(transport: MemoryTransport) -> None:
    waiting = Waiting()
    async with serving(waiting.worker, transport, NAMES) as desk:
        await desk.send_step("wait", seq=4, attempt=2)
        await waiting.is_begun.wait()
        await desk.give_up("run-1", {4: 1, 5: 1})
        await desk.send_step("other", seq=5)
        assert await outcome(desk) == "cancelled"
        waiting.gate.set()
        assert await outcome(desk) == '"done"'
