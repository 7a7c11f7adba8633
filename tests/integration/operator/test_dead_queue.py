"""What the broker gave up on because operators died beside it is as good as any other message."""

import asyncio

import pytest
from msgspec import UNSET, json

from durable_worker.protocol.codec import MessageType, encode
from durable_worker.protocol.commands import WorkflowDecision
from durable_worker.protocol.names import Names
from durable_worker.protocol.runs import RunQuery, RunStatus, StartRun
from durable_worker.protocol.tasks import WorkflowTask
from durable_worker.stores.base import Store
from durable_worker.transports.base import (
    DEATH_HEADER,
    DELIVERY_LIMIT,
    DELIVERY_LIMIT_REASON,
    Delivery,
    Envelope,
)
from durable_worker.transports.memory import MemoryTransport
from tests.integration.operator.scripted import ScriptedWorker, call, complete, operating, proceed
from tests.integration.operator.waiting import eventually

pytestmark = pytest.mark.anyio
GIVEN_UP = {DEATH_HEADER: DELIVERY_LIMIT_REASON}


def start(run_id: str, tenant: str = "default") -> bytes:
    return encode(StartRun(tenant=tenant, workflow="w", run_id=run_id, input=UNSET))


async def test_a_start_that_the_broker_gave_up_on_is_carried_out(
    names: Names, store: Store, transport: MemoryTransport
) -> None:
    worker = ScriptedWorker(
        transport, names, workflows={"w": lambda task: complete(task, 1)}, steps={}
    )
    async with operating(store, transport, names) as operator, worker.serving():
        await transport.declare([names.dead])
        given_up = Envelope(MessageType.START_RUN, start("r"), "r", headers=GIVEN_UP)
        await transport.send(names.dead, given_up)

        async def has_begun() -> bool:
            return bool(await operator.list(RunQuery()))

        await eventually(has_begun)
        assert (await operator.wait("r")).status is RunStatus.COMPLETED
    assert await store.dead_letters(limit=10) == []


async def test_one_that_nobody_can_read_is_kept_with_the_dead_letters_once(
    names: Names, store: Store, transport: MemoryTransport
) -> None:
    async with operating(store, transport, names):
        await transport.declare([names.dead])
        unreadable = Envelope(MessageType.START_RUN, b"{", "r", headers=GIVEN_UP)
        await transport.send(names.dead, unreadable)

        async def is_kept() -> bool:
            return len(await store.dead_letters(limit=10)) == 1

        await eventually(is_kept)
        await eventually(lambda: transport.depth(names.dead) == 0)


@pytest.mark.parametrize(("run_id", "tenant"), [("r" * 300, "default"), ("r", "t" * 300)])
async def test_ids_that_no_message_could_carry_are_refused_at_the_door(
    names: Names, store: Store, transport: MemoryTransport, run_id: str, tenant: str
) -> None:
    async with operating(store, transport, names) as operator:
        body = start(run_id, tenant)
        await transport.declare([names.start_run])
        await transport.send(names.start_run, Envelope(MessageType.START_RUN, body, "m"))

        async def is_kept() -> bool:
            return len(await store.dead_letters(limit=10)) == 1

        await eventually(is_kept)
        assert list(await operator.list(RunQuery())) == []
    (letter,) = await store.dead_letters(limit=10)
    assert "is longer than 160 bytes" in letter.reason
    whole = await store.dead_letter(letter.id)
    assert whole is not None
    assert json.decode(whole.body)["workflow"] == "w"


async def test_a_step_that_is_given_back_for_ever_fails_on_every_transport(
    names: Names, store: Store, transport: MemoryTransport
) -> None:
    given_back: list[asyncio.Task[None]] = []

    def give_back(delivery: Delivery) -> None:
        given_back.append(asyncio.create_task(delivery.release()))

    def turn(task: WorkflowTask) -> WorkflowDecision:
        if task.history:
            return complete(task, task.history[0].error)
        return proceed(task, call(0, "s"))

    worker = ScriptedWorker(transport, names, workflows={"w": turn}, steps={})
    async with operating(store, transport, names) as operator, worker.serving():
        taking = await transport.consume([names.tasks("s")], give_back, prefetch=10)
        await operator.start("w", UNSET, run_id="r")
        run = await operator.wait("r")
        await taking.stop()
    assert json.decode(bytes(run.output))["code"] == "poison"
    assert len(given_back) == 3 * (DELIVERY_LIMIT + 1)
