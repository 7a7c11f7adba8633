"""Three operators on one PostgreSQL, which die, stand still for longer than their lease, and come
back, while runs of every kind are on the way."""

import asyncio
import signal
from pathlib import Path
from random import Random

import pytest

from durable_worker.stores.address import PostgresAddress
from tests.chaos.audit.rules import audit
from tests.chaos.deployment import Deployment
from tests.chaos.fleet import Member
from tests.chaos.plan import seed_or
from tests.chaos.reading import Schema, members_of

pytestmark = pytest.mark.broker

LEASE_SECONDS = 15.0


async def test_whatever_becomes_of_operators_no_run_is_lost_or_recorded_twice(
    tmp_path: Path, broker_url: str, prefix: str, schema: PostgresAddress
) -> None:
    seed = seed_or(Random().randrange(1, 2**31))
    print(f"CHAOS_SEED={seed}")
    random = Random(seed)
    database = Schema(schema.url, schema.dsn, schema.schema)
    async with Deployment(
        tmp_path, broker_url, prefix, "--concurrency", "8", database=database, operators=3
    ) as deployed:
        for _ in range(2):
            deployed.add_worker()
        operators = deployed.fleet.of("operator")
        async with deployed.load.running():
            await deployed.load.more_ended(6)
            for member in random.sample(operators, 3):
                await kill(deployed, member)
            await stand_still(deployed, random.choice(operators), database)
            for member in random.sample(operators, 2):
                async with deployed.fault("kill", member):
                    member.signal(signal.SIGKILL)
            await deployed.load.more_ended(6)
            assert await deployed.fleet.stop(operators[0]) == 0
            await deployed.load.more_ended(6)
            await deployed.load.settled()
        assert audit(await deployed.finish()) == []


async def kill(deployed: Deployment, member: Member) -> None:
    async with deployed.fault("kill", member):
        member.signal(signal.SIGKILL)
    await deployed.load.more_ended(3)


async def stand_still(deployed: Deployment, member: Member, database: Schema) -> None:
    """Until the others have given it up; then it goes on, finds that it may not write, and becomes
    a member again."""
    await deployed.fleet.said(member, '"event":"lease_acquired"')
    born, pid = member.born, member.pid
    async with deployed.fault("stop", member), asyncio.timeout(6 * LEASE_SECONDS):
        member.signal(signal.SIGSTOP)
        while pid in await asyncio.to_thread(members_of, database):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        await deployed.load.more_ended(6)
        member.signal(signal.SIGCONT)
        await deployed.fleet.said(member, '"event":"membership_regained"')
    await deployed.load.more_ended(6)
    assert (member.born, member.pid) == (born, pid)
    assert pid in await asyncio.to_thread(members_of, database)
