"""A fleet that requires signatures, and somebody with the right to publish and without a key."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest
import structlog
from msgspec.structs import replace

from durable_worker.errors import RequestRefusedError
from durable_worker.operator.service import OperatorService
from durable_worker.protocol.base import SIGNATURE_HEADER, UNVERIFIED_HEADER
from durable_worker.protocol.codec import MessageType, encode
from durable_worker.protocol.commands import DecisionStatus, WorkflowDecision
from durable_worker.protocol.control import CancelRun
from durable_worker.protocol.keys import Keyring
from durable_worker.protocol.names import Names
from durable_worker.protocol.payload import plain_json
from durable_worker.protocol.results import ResultStatus, StepResult
from durable_worker.protocol.runs import RunStatus, StartRun
from durable_worker.protocol.signatures import Flaw, Place, Signatures
from durable_worker.protocol.tasks import StepTask
from durable_worker.stores.dead_letters import DeadLetters
from durable_worker.stores.memory import MemoryStore
from durable_worker.transports.base import (
    DEATH_HEADER,
    DELIVERY_LIMIT_REASON,
    ERROR_HEADER,
    RESENT_HEADER,
    Envelope,
    Transport,
)
from durable_worker.transports.signing import SigningTransport
from tests.integration.operator.conftest import NewTransport, transport_of
from tests.integration.operator.scripted import ScriptedWorker, answer, json, operating, sequence
from tests.integration.operator.waiting import eventually

pytestmark = pytest.mark.anyio

RING = Keyring({"k1": bytes(range(32))})
OTHERS = Keyring({"k1": bytes(32)})


@pytest.fixture
def names(prefix: str) -> Names:
    return Names(prefix=prefix)


@dataclass
class Fleet:
    """An operator and a worker whose step waits until it may go on."""

    names: Names
    operator: OperatorService
    at_operator: SigningTransport
    at_worker: SigningTransport
    intruder: Transport
    store: MemoryStore
    worker: ScriptedWorker
    may_go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def begun(self) -> StepTask:
        """The task of a run whose step waits."""
        await self.operator.start("seq", json(None), run_id="r")
        await eventually(lambda: len(self.worker.tasks) == 1)
        return self.worker.tasks[0]

    async def intrude(self, queue: str, envelope: Envelope) -> None:
        await self.intruder.declare([queue])
        await self.intruder.send(queue, envelope)

    async def letters(self, count: int) -> list[str]:
        """The reasons of the dead letters, once there are so many."""

        async def are_kept() -> bool:
            return len(await self.store.dead_letters(limit=100)) >= count

        await eventually(are_kept)
        return [each.reason for each in await self.store.dead_letters(limit=100)]

    async def ends_well(self) -> None:
        self.may_go_on.set()
        run = await self.operator.wait("r")
        assert (run.status, plain_json(run.output)) == (RunStatus.COMPLETED, [7])


@pytest.fixture
async def fleet(new_transport: NewTransport, names: Names) -> AsyncIterator[Fleet]:
    async with opened(new_transport, names) as fleet:
        yield fleet


@asynccontextmanager
async def opened(
    new_transport: NewTransport, names: Names, *, worker_ring: Keyring = RING
) -> AsyncIterator[Fleet]:
    store = MemoryStore()

    async def step(task: StepTask) -> StepResult:
        await fleet.may_go_on.wait()
        return answer(task, 7)

    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        at_operator = SigningTransport(transport_of(new_transport()), RING, names=names)
        at_worker = SigningTransport(transport_of(new_transport()), worker_ring, names=names)
        intruder = await enter(new_transport())
        await enter(store)
        for each in (at_operator, at_worker):
            await enter(each)
        worker = ScriptedWorker(at_worker, names, {"seq": sequence("pay")}, {"pay": step})
        operator = await enter(operating(store, at_operator, names))
        fleet = Fleet(names, operator, at_operator, at_worker, intruder, store, worker)
        await enter(worker.serving())
        yield fleet
        fleet.may_go_on.set()


def result_of(task: StepTask, output: object) -> StepResult:
    return StepResult(
        run_id=task.run_id,
        seq=task.seq,
        step_id=task.step_id,
        status=ResultStatus.COMPLETED,
        output=json(output),
    )


async def test_a_run_goes_from_start_to_end(fleet: Fleet) -> None:
    await fleet.begun()
    await fleet.ends_well()
    assert fleet.at_operator.refused == fleet.at_worker.refused == {}


async def test_answers_and_starts_that_nobody_signed_become_dead_letters_and_change_nothing(
    fleet: Fleet,
) -> None:
    task = await fleet.begun()
    names = fleet.names
    forged = result_of(task, "forged")
    ended = WorkflowDecision(
        task_id=fleet.worker.turns[0].task_id,
        run_id="r",
        status=DecisionStatus.COMPLETED,
        commands=[],
    )
    start = StartRun(tenant="default", workflow="seq", run_id="intruder's")
    wrong = {SIGNATURE_HEADER: f"v1:k1:{'A' * 43}:{names.results}"}
    await fleet.intrude(names.results, Envelope(MessageType.STEP_RESULT, encode(forged), "r:0:1"))
    await fleet.intrude(
        names.results, Envelope(MessageType.STEP_RESULT, encode(forged), "r:0:2", headers=wrong)
    )
    await fleet.intrude(names.decisions, Envelope(MessageType.WORKFLOW_DECISION, encode(ended)))
    await fleet.intrude(names.start_run, Envelope(MessageType.START_RUN, encode(start)))
    reasons = await fleet.letters(4)
    assert sorted(reasons) == sorted(
        [
            f"on queue {names.results!r} its signature is missing",
            f"on queue {names.results!r} its signature does not belong to this message",
            f"on queue {names.decisions!r} its signature is missing",
            f"on queue {names.start_run!r} its signature is missing",
        ]
    )
    assert await fleet.store.load("intruder's") is None
    await fleet.ends_well()


async def test_tasks_that_nobody_signed_do_not_run(fleet: Fleet) -> None:
    task = await fleet.begun()
    other = replace(task, run_id="r2", step_id="r2:0")
    queue = fleet.names.tasks("pay")
    await fleet.intrude(queue, Envelope(MessageType.STEP_TASK, encode(other), "r2:0:1"))
    assert await fleet.letters(1) == [f"on queue {queue!r} its signature is missing"]
    assert fleet.worker.tasks == [task]
    await fleet.ends_well()


async def test_dead_letters_that_nobody_signed_fail_no_run_however_many_they_are(
    fleet: Fleet,
) -> None:
    task = await fleet.begun()
    body, turn = encode(task), fleet.worker.turns[0]
    written: list[Envelope] = []
    for number in range(20):
        headers = {ERROR_HEADER: f"made up {number}"}
        written += [
            Envelope(MessageType.STEP_TASK, body, f"r:0:{number}", headers=headers),
            Envelope(None, b'{"runId":"r","seq":0}', f"{number}", headers=headers),
            Envelope(
                MessageType.STEP_TASK,
                body,
                f"r:0:1#{number}",
                headers={DEATH_HEADER: DELIVERY_LIMIT_REASON, RESENT_HEADER: "9"},
            ),
            Envelope(MessageType.WORKFLOW_TASK, encode(turn), f"t{number}", headers=headers),
            Envelope(
                MessageType.STEP_RESULT,
                encode(result_of(task, "forged")),
                f"r:0:1!{number}",
                headers={DEATH_HEADER: DELIVERY_LIMIT_REASON},
            ),
        ]
    for each in written:
        await fleet.intrude(fleet.names.dead, each)
    await fleet.letters(100)
    for letter in await fleet.store.dead_letters(limit=100):
        assert letter.headers[UNVERIFIED_HEADER] == "its signature is missing"
    letters = DeadLetters(fleet.store, namespace="default")
    for each in await letters.page(limit=100):
        assert each.status == "kept"
        with pytest.raises(RequestRefusedError, match="would sign it in the name of the operator"):
            await letters.request(each.id)
    assert len(fleet.worker.tasks) == len(fleet.worker.turns) == 1
    await fleet.ends_well()


async def test_a_task_that_was_caught_and_is_laid_on_the_dead_queue_fails_no_run(
    fleet: Fleet,
) -> None:
    """Its signature holds: so it is sent once more, as after the death of a worker."""
    signed = Envelope(MessageType.STEP_TASK, encode(await fleet.begun()), "r:0:1")
    header = _signature_for(fleet, signed, fleet.names.tasks("pay"))
    for number in range(30):
        reason = DELIVERY_LIMIT_REASON if number % 2 else "rejected"
        headers = {SIGNATURE_HEADER: header, DEATH_HEADER: reason, ERROR_HEADER: "made up"}
        await fleet.intrude(fleet.names.dead, replace(signed, headers=headers))
    await eventually(lambda: len(fleet.worker.tasks) == 2)
    await fleet.letters(1)
    await fleet.ends_well()
    assert fleet.at_operator.refused == {}


def _signature_for(fleet: Fleet, envelope: Envelope, queue: str) -> str:
    """As the operator signs it."""
    return Signatures(RING, dead=fleet.names.dead).sign(envelope, Place(queue))


async def test_a_message_that_was_caught_serves_on_no_other_queue_and_under_no_other_id(
    fleet: Fleet,
) -> None:
    task = await fleet.begun()
    names = fleet.names
    envelope = Envelope(MessageType.STEP_TASK, encode(task), "r:0:1")
    header = {SIGNATURE_HEADER: _signature_for(fleet, envelope, names.tasks("refund"))}
    for moved in (
        replace(envelope, headers=header),
        replace(envelope, headers=header, message_id="r:0:2"),
        replace(envelope, headers={**header, RESENT_HEADER: "1"}),
        replace(envelope, headers=header, type=MessageType.WORKFLOW_TASK),
    ):
        await fleet.intrude(names.tasks("pay"), moved)
    where = f"on queue {names.tasks('pay')!r} its signature"
    assert {*await fleet.letters(3)} == {f"{where} was made for another queue or exchange"}
    assert fleet.worker.tasks == [task]
    await fleet.ends_well()


async def test_broadcasts_that_nobody_signed_are_dropped_counted_and_told_of_once(
    fleet: Fleet,
) -> None:
    await fleet.begun()
    control = fleet.names.control
    cancel = Envelope(MessageType.CONTROL, encode(CancelRun(run_id="r")))
    with structlog.testing.capture_logs() as lines:
        for _ in range(5):
            await fleet.intruder.broadcast(control, cancel)
        await eventually(lambda: fleet.at_worker.refused[control, Flaw.MISSING] == 5)
    assert fleet.worker.cancelled == set()
    told = [each for each in lines if each["event"] == "signature_refused"]
    assert len(told) == 2  # one at the operator, one at the worker
    assert (told[0]["place"], told[0]["reason"]) == (control, "its signature is missing")
    await fleet.ends_well()


async def test_a_worker_with_another_key_gets_and_changes_nothing(
    new_transport: NewTransport, names: Names
) -> None:
    async with opened(new_transport, names, worker_ring=OTHERS) as fleet:
        await fleet.operator.start("seq", json(None), run_id="r")

        async def is_refused() -> bool:
            """Its announcement, so that the run has nobody to go to."""
            await fleet.worker.announce()
            return fleet.at_operator.refused[names.workers, Flaw.FORGED] >= 1

        await eventually(is_refused)
        detail = await fleet.operator.detail("r")
        assert (detail.run.status, fleet.worker.turns) == (RunStatus.PENDING, [])
