"""An operator that dies is replaced by the others within its lease, wherever it ran."""

import asyncio
import time
from datetime import timedelta

import pytest
from msgspec import Raw

from durable_worker.errors import LeaseLostError
from durable_worker.operator.service import OperatorService
from durable_worker.protocol.names import Names
from durable_worker.stores.address import PostgresAddress
from durable_worker.stores.base import Batch, Owner
from durable_worker.stores.postgres import PostgresStore
from durable_worker.stores.records import OutboxRow
from durable_worker.transports.rabbitmq import RabbitTransport
from tests.conformance.stores.samples import a_run
from tests.integration.operators.stage import OPTIONS, operating
from tests.integration.operators.test_together import done, steps_of, worker

pytestmark = [pytest.mark.anyio, pytest.mark.broker]

ELSEWHERE = Owner("operator-x", "elsewhere", "another machine", 1, "1")


async def test_what_an_operator_on_a_lost_machine_owed_is_sent_within_its_lease(
    schema: PostgresAddress, broker_url: str, prefix: str
) -> None:
    done.clear()
    async with (
        PostgresStore(schema) as lost,
        operating(2, worker, schema=schema, url=broker_url, prefix=prefix) as stage,
    ):
        first, _ = stage.operators
        # Both operate, and know which version there is.
        await first.start("many.wide", Raw(b'"r0"'), run_id="r0")
        version = (await asyncio.wait_for(first.wait("r0"), 30)).workflow_version
        ttl = OPTIONS.lease_ttl
        token = (await lost.join(ELSEWHERE, now=0, ttl=ttl // timedelta(milliseconds=1))).token  # type: ignore[union-attr]
        run = a_run(
            "r1",
            workflow="many.wide",
            version=version,
            input=Raw(b'"r1"'),
            task_id="r1#1",
            turn_no=1,
        )
        began = time.monotonic()
        owed = [OutboxRow("r1#1", "r1")]
        await lost.commit(Batch(runs=[run], outbox_added=owed, expected=[("r1", 0)]), token)
        await asyncio.wait_for(first.wait("r1"), 30)
        assert time.monotonic() - began < ttl.total_seconds() + 2
        assert [done[step] for step in steps_of("r1")] == [1] * 11
        with pytest.raises(LeaseLostError):
            await lost.renew_lease(token, now=0, ttl=1000)


async def test_an_operator_that_the_others_gave_up_stops(
    schema: PostgresAddress, broker_url: str, prefix: str
) -> None:
    names = Names(prefix=prefix)
    async with (
        PostgresStore(schema) as store,
        PostgresStore(schema) as other,
        RabbitTransport(broker_url, names=names) as transport,
    ):
        service = OperatorService(store, transport, names=names, options=OPTIONS)
        serving = asyncio.ensure_future(service.serve())
        await service.start("many.wide", Raw(b'"r"'), run_id="r")
        await other.release_lease(store._token)
        with pytest.raises(LeaseLostError, match="start it again"):
            await asyncio.wait_for(serving, 30)
