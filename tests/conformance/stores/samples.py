"""Rows for tests."""

from typing import Any

from msgspec import Raw

from durable_worker.protocol.commands import RetryOptions
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.results import EventLevel, StepEvent
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.base import Batch, Lease, Owner, Store
from durable_worker.stores.records import Checkpoint, CheckpointStatus, Parent, Run

ME = Owner("operator-1", "here", "machine-1", 1, "1")
NOW = 1_700_000_000_000
TTL = 10_000

FULL_RUN = Run(
    id="run-ü",
    workflow="checkout",
    version="1",
    namespace="default",
    partition="eu",
    status=RunStatus.FAILED,
    input=Raw(b'{"a":  [1, 2.50, "\\u00fc"]}'),
    output=Raw(b"null"),
    error=Failure(message="no", code="c", retryable=False, stack="s", details=Raw(b'{"x":1}')),
    parent=Parent("parent", 7),
    tags=("a", "b"),
    search_attributes=Raw(b'{"customer":"c-1"}'),
    created_at=NOW,
    updated_at=NOW + 5,
    turn_no=3,
    task_id="run-ü#3",
    is_dirty=True,
    recoveries=2,
    ordered=5,
)

FULL_CHECKPOINT = Checkpoint(
    run_id="run-ü",
    seq=4,
    kind=HistoryKind.CALL,
    name="payments.charge",
    status=CheckpointStatus.PENDING,
    input=Raw(b"[1]"),
    output=Raw(b'"x"'),
    error=Failure(message="once"),
    attempt=3,
    retry=RetryOptions(attempts=5, jitter=0.25, non_retryable=["fatal"]),
    partition="eu",
    fires_at=NOW + 100,
    enqueued_at=NOW,
    started_at=NOW + 1,
    finished_at=NOW + 2,
    events=(StepEvent(at=1, level=EventLevel.INFO, message="hi", data=Raw(b"{}")),),
    parallel_group="p",
    recoveries=1,
    order=6,
)


def a_run(run_id: str, **changes: Any) -> Run:
    fields: dict[str, Any] = {
        "id": run_id,
        "workflow": "w",
        "version": "1",
        "namespace": "default",
        "status": RunStatus.RUNNING,
        "created_at": NOW,
        "updated_at": NOW,
        **changes,
    }
    return Run(**fields)


def a_checkpoint(run_id: str, seq: int, **changes: Any) -> Checkpoint:
    fields: dict[str, Any] = {
        "run_id": run_id,
        "seq": seq,
        "kind": HistoryKind.CALL,
        "name": "step",
        "status": CheckpointStatus.PENDING,
        "enqueued_at": NOW,
        **changes,
    }
    return Checkpoint(**fields)


async def lease_of(store: Store, owner: Owner = ME, *, now: int = NOW) -> int:
    lease = await store.acquire_lease(owner, now=now, ttl=TTL)
    assert isinstance(lease, Lease)
    return lease.token


async def keep(store: Store, *rows: Run | Checkpoint) -> int:
    """Commit these rows under a lease of its own; returns its token."""
    token = await lease_of(store, now=NOW)
    await store.commit(
        Batch(
            runs=[each for each in rows if isinstance(each, Run)],
            checkpoints=[each for each in rows if isinstance(each, Checkpoint)],
        ),
        token,
    )
    return token
