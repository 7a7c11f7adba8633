"""Runs that their code has failed: whoever comes with other code, or asks, sets them going."""

import pytest
from msgspec.structs import replace

from durable_worker.protocol.commands import WorkflowDecision
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.names import Names
from durable_worker.protocol.payload import plain_json
from durable_worker.protocol.runs import AnyRequest, ContinueRun, RetryRun, RunStatus
from durable_worker.protocol.tasks import HistoryKind, WorkflowTask
from durable_worker.stores.base import Batch, Lease, Owner, Store
from durable_worker.stores.records import PARKED_SEQ, Checkpoint, CheckpointStatus, Run
from durable_worker.transports.memory import MemoryTransport
from tests.integration.operator.scripted import ScriptedWorker, complete, fail, json, operating
from tests.integration.operator.test_wire import Asker
from tests.integration.operator.waiting import eventually

pytestmark = pytest.mark.anyio

LONG_AGO, FAR_AWAY = 1_000, 4_000_000_000_000


@pytest.mark.parametrize("body", [RetryRun(run_id="r"), ContinueRun(run_id="r")])
async def test_a_blocked_run_is_tried_again_when_somebody_asks_for_it(
    store: Store, transport: MemoryTransport, names: Names, body: AnyRequest
) -> None:
    turns: list[str] = []

    def mended_meanwhile(task: WorkflowTask) -> WorkflowDecision:
        turns.append(task.task_id)
        if len(turns) == 1:
            return replace(fail(task, "it does not fit"), park=True)
        return complete(task, turns)

    asker = Asker(transport, names)
    worker = ScriptedWorker(transport, names, {"w": mended_meanwhile})
    async with operating(store, transport, names) as operator, worker.serving(), asker.listening():
        await operator.start("w", json(None), run_id="r")

        async def is_blocked() -> bool:
            return (await operator.detail("r")).run.status is RunStatus.BLOCKED

        await eventually(is_blocked)
        detail = await operator.detail("r")
        assert detail.run.error is not None
        assert detail.run.error.message == "it does not fit"
        assert [(each.seq, each.name, each.status) for each in detail.timeline] == [
            (-1, "parked", "pending")
        ]
        assert not (await asker.ask(body, tenant="acme")).ok
        assert await asker.data(body) == {"runId": "r"}
        assert plain_json((await operator.wait("r")).output) == ["r#1", "r#2"]
        again = await asker.ask(body)
        assert again.error is not None
        assert again.error.code == "not-stopped"


async def test_a_worker_that_is_new_gets_the_blocked_runs_of_its_workflows(
    store: Store, transport: MemoryTransport, names: Names
) -> None:
    run = Run(
        id="r",
        workflow="w",
        version="1",
        namespace="default",
        status=RunStatus.BLOCKED,
        error=Failure(message="it does not fit"),
        created_at=LONG_AGO,
        updated_at=LONG_AGO,
        turn_no=1,
    )
    timer = Checkpoint(
        run_id="r",
        seq=PARKED_SEQ,
        kind=HistoryKind.TIMER,
        name="parked",
        status=CheckpointStatus.PENDING,
        fires_at=FAR_AWAY,
        enqueued_at=LONG_AGO,
    )
    lease = await store.acquire_lease(Owner("before", "h", "m", 1), now=LONG_AGO, ttl=1_000)
    assert isinstance(lease, Lease)
    await store.commit(Batch(runs=[run], checkpoints=[timer]), lease.token)
    await store.release_lease(lease.token)
    worker = ScriptedWorker(transport, names, {"w": lambda task: complete(task, task.task_id)})
    async with operating(store, transport, names) as operator, worker.serving():
        assert plain_json((await operator.wait("r")).output) == "r#2"
