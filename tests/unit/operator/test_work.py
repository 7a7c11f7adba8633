"""What becomes of inputs that one transaction takes."""

import itertools

import pytest

from durable_worker.operator.context import WorkContext
from durable_worker.operator.ledgers import Ledgers
from durable_worker.operator.messages import step_row
from durable_worker.operator.transitions.effects import Limits
from durable_worker.operator.work import UnitOfWork
from durable_worker.protocol.names import Names
from durable_worker.stores.base import Batch, Lease, Owner
from durable_worker.stores.memory import MemoryStore
from tests.unit.operator.samples import NOW, pending, result, suspended

pytestmark = pytest.mark.anyio

OWED = step_row("r", 0, 1)
OWNER = Owner("operator-1", "here", "machine-1", 1, "1")
INPUTS = (OWED, result(0))


@pytest.mark.parametrize(
    "inputs", list(itertools.permutations(INPUTS)), ids=["owed-first", "owed-last"]
)
async def test_what_was_owed_is_forgotten_with_the_answer_that_makes_it_moot(
    inputs: tuple[object, ...],
) -> None:
    async with MemoryStore() as store:
        lease = await store.acquire_lease(OWNER, now=NOW, ttl=9_000)
        assert isinstance(lease, Lease)
        before = Batch(runs=(suspended(),), checkpoints=(pending(0),), outbox_added=(OWED,))
        await store.commit(before, lease.token)
        work = UnitOfWork(
            WorkContext(
                store, Ledgers(store, capacity=9), Names(), Limits(), lambda *_: None, True
            ),
            now=NOW,
        )
        await work.prepare([result(0)])
        for each in inputs:
            if each is OWED:
                await work.resend(OWED)
            else:
                await work.apply(result(0))
        batch, done = work.finish(sent=(), inbox=())
        await store.commit(batch, lease.token)
        assert [row.key for row in await store.outbox()] == ["r#2"]
        assert [each.row.key for each in done.outgoing] == ["r#2"]
