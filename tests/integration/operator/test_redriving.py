"""Dead letters that are sent again: what a run that had failed because of them makes of it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest
from msgspec import Raw
from msgspec.structs import replace

from durable_worker.client import Client, broker_client, store_client
from durable_worker.errors import RequestRefusedError
from durable_worker.operator.letters import letter_row
from durable_worker.operator.options import OperatorOptions
from durable_worker.protocol.codec import MessageType, encode
from durable_worker.protocol.commands import WorkflowDecision
from durable_worker.protocol.names import Names
from durable_worker.protocol.runs import RunStatus, StartRun
from durable_worker.protocol.tasks import HistoryKind, WorkflowTask
from durable_worker.stores.base import Batch, Lease, Owner, Store
from durable_worker.stores.records import Checkpoint, CheckpointStatus, DeadLetter, Run
from durable_worker.transports.base import (
    ERROR_HEADER,
    ERROR_QUEUE_HEADER,
    RESENT_HEADER,
    Envelope,
)
from durable_worker.transports.memory import MemoryTransport
from tests.integration.operator.conftest import DurableMemory
from tests.integration.operator.scripted import (
    complete,
    operating,
)
from tests.integration.operator.stage import (
    BURIED,
    Stage,
    beside_operator,
    charging,
    playing,
    result_of,
)
from tests.integration.operator.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
async def stage(store: Store, transport: MemoryTransport, names: Names) -> AsyncIterator[Stage]:
    async with playing(store, transport, names) as stage:
        yield stage


async def test_a_run_that_failed_with_its_step_goes_on_with_the_next_attempt(stage: Stage) -> None:
    await stage.client.start("charging", run_id="r")
    await stage.bury(await stage.tasks.get())
    await stage.failed("r")
    (letter,) = await stage.letters()
    assert (letter.status, letter.name, letter.seq, letter.attempt) == (
        "failed-step",
        "charge",
        0,
        1,
    )
    error = (await stage.client.detail("r")).run.error
    assert error is not None
    assert f"dead show {letter.id}" in error.message

    redriven = await stage.client.redrive(letter.id)
    assert (redriven.status, redriven.redrives) == ("redriven", 1)
    again = await stage.tasks.get()
    assert again.envelope.message_id == "r:0:2"
    assert RESENT_HEADER not in again.envelope.headers
    late = Envelope(MessageType.STEP_RESULT, result_of(again, "late").body, "r:0:1")
    await stage.transport.send(stage.names.results, late)
    await stage.answered(again, "paid")
    assert await stage.output("r") == "paid"
    assert [each.status for each in await stage.letters()] == ["redriven"]


async def test_two_that_redrive_at_once_have_it_done_once(stage: Stage) -> None:
    await stage.client.start("charging", run_id="r")
    await stage.bury(await stage.tasks.get())
    await stage.failed("r")
    (letter,) = await stage.letters()
    both = await asyncio.gather(*(stage.client.redrive(letter.id) for _ in range(2)))
    assert [each.redrives for each in both] == [1, 1]
    await stage.answered(await stage.tasks.get(), "paid")
    assert await stage.output("r") == "paid"
    assert stage.tasks.empty()


async def test_what_fails_again_is_a_letter_of_its_own_that_can_be_redriven_too(
    stage: Stage,
) -> None:
    await stage.client.start("charging", run_id="r")
    await stage.bury(await stage.tasks.get())
    await stage.failed("r")
    (first,) = await stage.letters()
    await stage.client.redrive(first.id)
    await stage.bury(await stage.tasks.get())
    second, _ = await stage.letters(count=2)
    assert second.id != first.id

    async def has_failed() -> bool:
        return (await stage.client.detail("r")).run.status is RunStatus.FAILED

    await eventually(has_failed)
    await stage.client.redrive(second.id)
    await stage.answered(await stage.tasks.get(), "paid")
    assert await stage.output("r") == "paid"


async def test_a_run_that_has_gone_on_since_is_left_alone_and_it_is_said_why(stage: Stage) -> None:
    await stage.client.start("forgiving", run_id="r")
    await stage.bury(await stage.tasks.get())
    assert await stage.output("r") == "refunded"
    (letter,) = await stage.letters()
    with pytest.raises(RequestRefusedError, match="is completed, and stays so") as caught:
        await stage.client.redrive(letter.id)
    assert caught.value.code == "redrive-refused"
    assert stage.tasks.empty()
    assert [each.status for each in await stage.letters()] == ["failed-step"]


async def test_a_result_that_was_not_read_comes_again_and_the_step_does_not_run_twice(
    stage: Stage,
) -> None:
    await stage.client.start("charging", run_id="r")
    task = await stage.tasks.get()
    result = result_of(task, "paid")
    dead = Envelope(result.type, result.body, result.message_id, headers=BURIED)
    await stage.transport.send(stage.names.dead, dead)
    await task.ack()
    await stage.failed("r")
    (letter,) = await stage.letters()
    assert (letter.status, letter.queue) == ("failed-step", stage.names.results)
    await stage.client.redrive(letter.id)
    assert await stage.output("r") == "paid"
    assert stage.tasks.empty()


@pytest.mark.parametrize("kind", [MessageType.WORKFLOW_TASK, MessageType.WORKFLOW_DECISION])
async def test_a_run_that_died_with_a_turn_goes_on(stage: Stage, kind: MessageType) -> None:
    sending: list[asyncio.Task[None]] = []

    def die(task: WorkflowTask) -> WorkflowDecision:
        """The turn that has the result dies with its worker, or its answer does."""
        if not task.history:
            return charging(task)
        is_turn = kind is MessageType.WORKFLOW_TASK
        body = encode(task if is_turn else complete(task, "decided"))
        dead = Envelope(kind, body, task.task_id, headers=BURIED)
        sending.append(asyncio.create_task(stage.transport.send(stage.names.dead, dead)))
        # Answers a turn that nobody awaits, so it is dropped.
        return replace(complete(task, "dropped"), task_id="r#0")

    stage.worker.workflows = {"charging": die}
    await stage.client.start("charging", run_id="r")
    await stage.answered(await stage.tasks.get(), "paid")
    await stage.failed("r")
    await asyncio.gather(*sending)
    (letter,) = await stage.letters()
    assert (letter.status, letter.task_id) == ("failed-run", "r#2")
    stage.worker.workflows = {"charging": charging}
    await stage.client.redrive(letter.id)
    expected = "paid" if kind is MessageType.WORKFLOW_TASK else "decided"
    assert await stage.output("r") == expected


async def test_a_start_is_sent_again_as_it_was_and_opens_anew_if_it_fails_again(
    stage: Stage,
) -> None:
    body = encode(StartRun(tenant="default", workflow="charging", run_id="r"))
    unknown = Envelope(MessageType.START_RUN, body, "r", protocol=2, headers={"trace": "t"})
    await stage.transport.send(stage.names.start_run, unknown)
    (letter,) = await stage.letters()
    assert (letter.status, letter.queue) == ("kept", stage.names.start_run)
    await stage.client.redrive(letter.id)

    async def is_open_again() -> bool:
        (found,) = await stage.client.dead_letters()
        return found.redriven_at is None

    await eventually(is_open_again)
    whole = await stage.client.dead_letter(letter.id)
    assert (whole.redrives, whole.status) == (1, "kept")
    assert set(whole.headers or {}) == {"trace", ERROR_HEADER, ERROR_QUEUE_HEADER}


async def test_a_start_that_can_be_read_by_now_begins_its_run(stage: Stage) -> None:
    body = encode(StartRun(tenant="default", workflow="charging", run_id="r"))
    buried = Envelope(MessageType.START_RUN, body, "r", headers=BURIED)
    await stage.transport.send(stage.names.dead, buried)
    (letter,) = await stage.letters()
    await stage.client.redrive(letter.id)
    await stage.answered(await stage.tasks.get(), "paid")
    assert await stage.output("r") == "paid"


async def test_a_letter_belongs_to_the_tenant_of_its_run(stage: Stage) -> None:
    async def is_refused(ask: Callable[[str], Awaitable[object]], letter_id: str) -> None:
        with pytest.raises(RequestRefusedError) as caught:
            await ask(letter_id)
        assert caught.value.code == "dead-letter-not-found"

    acme = broker_client(stage.transport, names=stage.names, tenant="acme")
    beside = store_client(beside_operator(stage.store), tenant="acme")
    async with acme, beside:
        await acme.start("charging", run_id="r")
        await stage.bury(await stage.tasks.get())
        # What it says of itself does not count: anybody can write it.
        forged = encode(StartRun(tenant="acme", workflow="w", run_id="x"))
        dead = Envelope(MessageType.START_RUN, forged, "x", headers=BURIED)
        await stage.transport.send(stage.names.dead, dead)
        (theirs,) = await stage.letters()
        assert theirs.message_id == "x"
        await eventually(lambda: _has_letters(acme))
        (own,) = await acme.dead_letters()
        assert (own.run_id, own.namespace) == ("r", "acme")
        assert [each.id for each in await beside.dead_letters()] == [own.id]
        for ask in (stage.client.dead_letter, stage.client.redrive):
            await is_refused(ask, own.id)
        for client in (acme, beside):
            for ask in (client.dead_letter, client.redrive):
                await is_refused(ask, theirs.id)
        await acme.redrive(own.id)
        await stage.answered(await stage.tasks.get(), "paid")

        async def is_over() -> bool:
            return (await acme.detail("r")).run.status is RunStatus.COMPLETED

        await eventually(is_over)


async def _has_letters(client: Client) -> bool:
    return bool(await client.dead_letters())


async def test_whoever_shares_the_database_can_redrive_too(stage: Stage) -> None:
    await stage.client.start("charging", run_id="r")
    await stage.bury(await stage.tasks.get())
    await stage.failed("r")
    async with store_client(beside_operator(stage.store)) as client:
        (letter,) = await client.dead_letters(run_id="r")
        await client.redrive(letter.id)
        await stage.answered(await stage.tasks.get(), "paid")
        assert await stage.output("r") == "paid"
        assert (await client.dead_letter(letter.id)).status == "redriven"


async def test_a_redriven_message_that_was_not_sent_before_a_crash_is_sent_by_the_next_operator(
    store: Store, names: Names
) -> None:
    body = encode(StartRun(tenant="default", workflow="charging", run_id="r"))
    letter = DeadLetter(
        id="l",
        received_at=time.time_ns() // 1_000_000,
        type=MessageType.START_RUN,
        message_id="r",
        reason="no",
        body=body,
        redriven_at=2,
        redrives=1,
    )
    lease = await store.acquire_lease(Owner("x", "h", "m", 1), now=0, ttl=1)
    assert isinstance(lease, Lease)
    await store.commit(
        Batch(dead_letters=[letter], outbox_added=[letter_row("l"), letter_row("gone")]),
        lease.token,
    )
    await store.release_lease(lease.token)
    async with DurableMemory(names=names) as transport, playing(store, transport, names) as stage:
        await stage.answered(await stage.tasks.get(), "paid")
        assert await stage.output("r") == "paid"

        async def is_settled() -> bool:
            return await store.outbox() == []

        await eventually(is_settled)


@pytest.mark.parametrize("is_turn", [False, True])
async def test_what_died_with_operator_and_transport_leaves_a_letter_too(
    store: Store, names: Names, is_turn: bool
) -> None:
    run = Run(
        id="r",
        workflow="charging",
        version="1",
        namespace="default",
        status=RunStatus.RUNNING if is_turn else RunStatus.SUSPENDED,
        created_at=1,
        updated_at=1,
        turn_no=1,
        task_id="r#1" if is_turn else None,
    )
    charge = Checkpoint(
        run_id="r",
        seq=0,
        kind=HistoryKind.CALL,
        name="charge",
        status=CheckpointStatus.PENDING,
        input=Raw(b"5"),
        enqueued_at=1,
    )
    # A lease that is never let go of: its holder has died.
    lease = await store.acquire_lease(Owner("x", "h", "m", 1), now=0, ttl=1)
    assert isinstance(lease, Lease)
    await store.commit(Batch(runs=[run], checkpoints=[] if is_turn else [charge]), lease.token)
    options = OperatorOptions(recoveries=0)
    async with (
        MemoryTransport(names=names) as transport,
        playing(store, transport, names, options=options) as stage,
    ):
        await stage.failed("r")
        error = (await stage.client.detail("r")).run.error
        assert error is not None
        assert "dead list" in error.message
        (letter,) = await stage.letters()
        assert letter.status == ("failed-run" if is_turn else "failed-step")
        assert letter.type == (MessageType.WORKFLOW_TASK if is_turn else MessageType.STEP_TASK)
        await stage.client.redrive(letter.id)
        await stage.answered(await stage.tasks.get(), "paid")
        assert await stage.output("r") == "paid"


async def test_old_letters_and_those_that_are_too_many_are_forgotten(
    store: Store, transport: MemoryTransport, names: Names
) -> None:
    now = 1_700_000_000_000
    letters = [
        DeadLetter(id=str(number), received_at=now - number, reason="no", body=b"")
        for number in range(5)
    ]
    lease = await store.acquire_lease(Owner("x", "h", "m", 1), now=0, ttl=1)
    assert isinstance(lease, Lease)
    await store.commit(Batch(dead_letters=letters), lease.token)
    await store.release_lease(lease.token)
    options = OperatorOptions(dead_letters_kept=3, dead_letter_age=timedelta(days=100_000))

    async def are_left(*ids: str) -> None:
        async def is_so() -> bool:
            return [each.id for each in await store.dead_letters(limit=9)] == list(ids)

        await eventually(is_so)

    async with operating(store, transport, names, options=options):
        await are_left("0", "1", "2")
    async with operating(store, transport, names):
        await are_left()
