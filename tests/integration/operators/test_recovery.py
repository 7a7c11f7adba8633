"""An operator that dies is replaced by the others within its lease, wherever it ran."""

import asyncio
import time
from datetime import timedelta

import asyncpg
import pytest
from msgspec import Raw

from durable_worker.clock import SystemClock
from durable_worker.errors import LeaseLostError
from durable_worker.operator.service import OperatorService
from durable_worker.protocol.names import Names
from durable_worker.stores.address import PostgresAddress
from durable_worker.stores.base import Batch, Lease, Owner
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


async def test_an_operator_that_the_others_gave_up_goes_on_under_another_token(
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
        await service.start("many.wide", Raw(b'"a"'), run_id="a")
        given_up = store._token
        await other.release_lease(given_up)
        # What it takes in next finds that out; nothing of it is lost.
        await asyncio.gather(
            *(service.start("many.wide", Raw(b'"r"'), run_id=f"r{number}") for number in range(20))
        )
        assert store._token > given_up
        assert len(await other.load_many([f"r{number}" for number in range(20)])) == 20
        with pytest.raises(LeaseLostError):
            await other.commit(Batch(runs=[a_run("b")], expected=[("b", 0)]), given_up)
        assert not serving.done()
        service.request_stop()
        await asyncio.wait_for(serving, 30)
        assert await members_of(schema) == []


async def test_an_idle_operator_that_was_given_up_is_a_member_again_within_its_lease(
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
        await service.start("many.wide", Raw(b'"a"'), run_id="a")
        given_up = store._token
        await other.release_lease(given_up)
        async with asyncio.timeout(30):
            while not await members_of(schema):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert await members_of(schema) == [store._token]
        service.request_stop()
        await asyncio.wait_for(serving, 30)


async def test_who_was_given_up_ends_where_somebody_holds_the_database_alone(
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
        await service.start("many.wide", Raw(b'"a"'), run_id="a")
        await other.release_lease(store._token)
        hour = 3_600_000
        lease = await other.acquire_lease(ELSEWHERE, now=SystemClock().now(), ttl=hour)
        assert isinstance(lease, Lease)
        with pytest.raises(LeaseLostError, match="holds it alone"):
            await asyncio.wait_for(serving, 30)


async def members_of(schema: PostgresAddress) -> list[int]:
    connection = await asyncpg.connect(schema.dsn)
    try:
        rows = await connection.fetch(f"SELECT token FROM {schema.schema}.members")
        return [row[0] for row in rows]
    finally:
        await connection.close()
