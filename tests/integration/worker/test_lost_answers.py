"""An answer that the broker did not take is sent again; until then its task stays open."""

import anyio
import pytest
from msgspec import Raw, structs

from durable_worker import Worker, WorkflowContext
from durable_worker.errors import ConnectionLostError, TransportError, UnroutableError
from durable_worker.protocol import codec
from durable_worker.protocol.codec import MessageType
from durable_worker.protocol.commands import DecisionStatus
from durable_worker.protocol.names import Names
from durable_worker.protocol.tasks import StepTask
from durable_worker.transports.base import Envelope, Told
from durable_worker.transports.memory import MemoryTransport
from tests.integration.worker.desk import eventually, serving

NAMES = Names()
TASK = StepTask(
    run_id="posted",
    seq=0,
    name="charge",
    step_id="posted:0",
    group="charge",
    attempt=1,
    input=Raw(b"1"),
)


class Forgetful(MemoryTransport):
    """Loses what is posted, and says so when it is asked to."""

    def __init__(self) -> None:
        super().__init__(names=NAMES)
        self.lost: list[tuple[str, Told]] = []

    def post(self, queue: str, envelope: Envelope, told: Told) -> bool:
        self.lost.append((queue, told))
        return True

    def say(self, error: TransportError | None) -> None:
        lost, self.lost = self.lost, []
        for _, told in lost:
            told(error)


def worker() -> Worker:
    made = Worker()

    @made.step("charge")
    async def charge(amount: int) -> int:
        return amount + 1

    @made.workflow("flow")
    async def flow(ctx: WorkflowContext) -> int:
        return 7

    return made


@pytest.mark.anyio
@pytest.mark.parametrize(
    "error", [ConnectionLostError("it is gone"), UnroutableError(NAMES.results)], ids=repr
)
async def test_a_lost_answer_is_sent_again_and_its_task_is_open_until_then(
    error: TransportError,
) -> None:
    tasks = NAMES.tasks("charge"), NAMES.tasks("flow")
    async with Forgetful() as transport, serving(worker(), transport, NAMES) as desk:
        await desk.send_step("charge", 1)
        turn = await desk.send_turn("flow")
        await eventually(lambda: len(transport.lost) == 2)
        assert [transport.depth(queue) for queue in tasks] == [1, 1]
        transport.say(error)
        result, decision = await desk.result(), await desk.decision()
        await eventually(lambda: [transport.depth(queue) for queue in tasks] == [0, 0])
    assert bytes(result.output) == b"2"
    assert (decision.task_id, decision.status) == (turn.task_id, DecisionStatus.COMPLETED)


@pytest.mark.anyio
async def test_a_task_that_comes_again_while_its_answer_is_on_its_way_is_not_run_again() -> None:
    queue = NAMES.tasks("charge")
    async with Forgetful() as transport, serving(worker(), transport, NAMES) as desk:
        task = await desk.send_step("charge", 1)
        await eventually(lambda: len(transport.lost) == 1)
        await desk.send_step("charge", 5, seq=task.seq)
        result = await desk.result()
        await eventually(lambda: transport.depth(queue) == 1)
        transport.say(None)
        await eventually(lambda: transport.depth(queue) == 0)
    assert (result.step_id, bytes(result.output)) == (task.step_id, b"2")


@pytest.mark.anyio
async def test_an_attempt_that_is_asked_for_anew_runs_though_its_failure_is_still_on_its_way() -> (
    None
):
    made, outcomes, queue = worker(), ["fails", "goes well"], NAMES.tasks("shaky")

    @made.step("shaky")
    async def shaky() -> str:
        if (outcome := outcomes.pop(0)) == "fails":
            raise ValueError(outcome)
        return outcome

    async with Forgetful() as transport, serving(made, transport, NAMES) as desk:
        task = await desk.send_step("shaky")
        await eventually(lambda: len(transport.lost) == 1)
        await desk.send_step("shaky", seq=task.seq)
        await eventually(lambda: len(transport.lost) == 2)
        failure, success = transport.lost
        failure[1](None)
        await eventually(lambda: transport.depth(queue) == 1)
        await desk.send_step("shaky", seq=task.seq)  # is answered at once
        assert bytes((await desk.result()).output) == b'"goes well"'
        success[1](None)
        await eventually(lambda: transport.depth(queue) == 0)


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["charge", "unheard-of"])
async def test_a_drain_waits_for_answers_that_are_on_their_way_and_for_what_runs(name: str) -> None:
    made, started, gate = worker(), anyio.Event(), anyio.Event()

    @made.step("slow")
    async def slow() -> str:
        started.set()
        await gate.wait()
        return "done"

    queue = NAMES.tasks("charge")
    async with Forgetful() as transport, serving(made, transport, NAMES) as desk:
        await transport.send(queue, step_task(name))
        await eventually(lambda: len(transport.lost) == 1)
        await desk.send_step("slow")
        await started.wait()
        desk.service.request_stop()
        await eventually(lambda: any(b"draining" in each.body for each in desk.workers))
        gate.set()
        await eventually(lambda: len(transport.lost) == 2)
        transport.say(ConnectionLostError("it is gone"))
        results = [await desk.result() for _ in range(2)]
        await eventually(lambda: transport.depth(queue) == 0)
    outputs = {each.run_id: bytes(each.output) for each in results if each.error is None}
    assert outputs["run-1"] == b'"done"'
    assert ("posted" in outputs) == (name == "charge")


def step_task(name: str) -> Envelope:
    task = structs.replace(TASK, name=name)
    return Envelope(MessageType.STEP_TASK, codec.encode(task), f"{task.step_id}:1")
