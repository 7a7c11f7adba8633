"""What an operator's process says and does when its database cannot be used, at the start and under
load: it goes on by itself, or ends with a sentence that says what to do."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg
import pytest

from durable_worker.client import Client, broker_client
from durable_worker.protocol.names import Names
from durable_worker.protocol.runs import RunQuery, RunStatus
from durable_worker.stores.address import PostgresAddress, parse_address
from durable_worker.stores.postgres import PostgresStore
from durable_worker.transports.rabbitmq import RabbitTransport
from tests.database import Postgres, PostgresServer
from tests.database.schemas import made_schema
from tests.integration.cli.programs import Program, Serving

pytestmark = [pytest.mark.anyio, pytest.mark.broker]

RUNS, STEPS = 40, 5

APP = """
from pathlib import Path

from durable_worker import Worker, WorkflowContext

worker = Worker()


@worker.step("count")
async def count(name: str) -> str:
    with Path("counted").open("a") as file:
        file.write(f"{name}\\n")
    return name


@worker.workflow("counting")
async def counting(ctx: WorkflowContext, run: str) -> list[str]:
    return [await ctx.step(count, f"{run}:{number}") for number in range(5)]
"""


class Deployed:
    """An operator and a worker as processes, and a client."""

    def __init__(self, program: Program, operator: Serving, client: Client) -> None:
        self.program = program
        self.operator = operator
        self.client = client

    def counted(self) -> list[str]:
        path = self.program.directory / "counted"
        return path.read_text().splitlines() if path.exists() else []

    async def begun(self, steps: int) -> None:
        async with asyncio.timeout(30):
            while len(self.counted()) < steps:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@asynccontextmanager
async def deployed(
    schema: PostgresAddress, url: str, prefix: str, directory: Path
) -> AsyncIterator[Deployed]:
    program = Program(directory)
    program.write("app.py", APP)
    names = Names(prefix=prefix)
    place = ("--broker", url, "--prefix", prefix)
    with (
        program.serving("operator", *place, "--database", schema.url) as operator,
        program.serving("run", "app:worker", *place) as worker,
    ):
        await asyncio.to_thread(operator.wait_for, "lease_acquired")
        async with broker_client(RabbitTransport(url, names=names), names=names) as client:
            yield Deployed(program, operator, client)
        for each in (worker, operator):
            each.signal(signal.SIGTERM)
        assert await asyncio.to_thread(operator.ended) == 0


async def under_load(
    to: Deployed, schema: PostgresAddress, trouble: Callable[[], Awaitable[None]]
) -> None:
    """Trouble, while runs are on the way; then each has ended, with every step of it recorded."""
    handles = [
        await to.client.start("counting", f"r{n}", run_id=f"r{n}", returns=list[str])
        for n in range(RUNS)
    ]
    await to.begun(RUNS)
    await trouble()
    async with asyncio.timeout(60):
        outputs = [await each.result() for each in handles]
    assert outputs == [[f"r{n}:{step}" for step in range(STEPS)] for n in range(RUNS)]
    assert set(to.counted()) == {f"r{n}:{step}" for n in range(RUNS) for step in range(STEPS)}
    async with PostgresStore(schema) as store:
        runs = await store.list_runs(RunQuery(status=RunStatus.COMPLETED))
        states = await store.load_many([run.id for run in runs])
        assert [len(state.checkpoints) for state in states.values()] == [STEPS] * RUNS


@pytest.mark.parametrize("end", [PostgresServer.stop, PostgresServer.kill])
async def test_an_operator_goes_on_when_its_database_is_back(
    end: Callable[[PostgresServer], None],
    postgres_server: PostgresServer,
    broker_url: str,
    prefix: str,
    tmp_path: Path,
) -> None:
    async def away() -> None:
        await asyncio.to_thread(end, postgres_server)
        await asyncio.sleep(1)
        await asyncio.to_thread(postgres_server.start)

    with made_schema(Postgres(postgres_server.url())) as schema:
        async with deployed(schema, broker_url, prefix, tmp_path) as to:
            await under_load(to, schema, away)
            told = await asyncio.to_thread(to.operator.wait_for, "store_write_failed")
        assert f"127.0.0.1:{postgres_server.port}/postgres" in told
        assert "gives_up_in_seconds=" in told


async def test_an_operator_goes_on_when_its_database_may_be_written_again(
    postgres_server: PostgresServer, broker_url: str, prefix: str, tmp_path: Path
) -> None:
    async def read_only() -> None:
        await set_read_only(postgres_server, is_so=True)
        await asyncio.sleep(1)
        await set_read_only(postgres_server, is_so=False)

    with made_schema(Postgres(postgres_server.url())) as schema:
        async with deployed(schema, broker_url, prefix, tmp_path) as to:
            await under_load(to, schema, read_only)
            told = await asyncio.to_thread(to.operator.wait_for, "store_write_failed")
        assert "is read-only: a replica, or default_transaction_read_only is on" in told


async def set_read_only(server: PostgresServer, *, is_so: bool) -> None:
    connection = await asyncpg.connect(server.url())
    try:
        await connection.execute("SET default_transaction_read_only = off")
        value = "on" if is_so else "off"
        await connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()


@pytest.fixture
def schema(on_private: Postgres) -> Iterator[PostgresAddress]:
    with made_schema(on_private) as address:
        yield address


@contextmanager
def read_only_role(server: Postgres, schema: str) -> Iterator[str]:
    server.execute(
        f"CREATE ROLE reader LOGIN; GRANT USAGE ON SCHEMA {schema} TO reader;"
        f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO reader;"
        f"ALTER ROLE reader SET default_transaction_read_only = on"
    )
    try:
        yield "reader"
    finally:
        server.execute("DROP OWNED BY reader; DROP ROLE reader")


def last_words(program: Program, address: PostgresAddress, url: str, prefix: str) -> str:
    """Of an operator that ends by itself, with exit code 1."""
    words = ("operator", "--database", address.url, "--broker", url, "--prefix", prefix)
    with program.serving(*words) as operator:
        operator.wait_for_end()
        assert operator.ended() == 1
        return "\n".join(operator.said)


def test_an_operator_of_a_read_only_database_says_so_and_ends(
    program: Program, on_private: Postgres, schema: PostgresAddress, broker_url: str, prefix: str
) -> None:
    with read_only_role(on_private, schema.schema) as role:
        address = parse_address(schema.url.replace("//postgres@", f"//{role}@"))
        told = last_words(program, address, broker_url, prefix)
    assert "is read-only: a replica, or default_transaction_read_only is on" in told
    assert "give the URL of the primary" in told
    assert "Traceback" not in told


def test_an_operator_refuses_a_schema_that_is_not_its_own_with_what_to_do(
    program: Program, on_private: Postgres, schema: PostgresAddress, broker_url: str, prefix: str
) -> None:
    on_private.execute(f"UPDATE {schema.schema}.schema_version SET version_num = '0099'")
    told = last_words(program, schema, broker_url, prefix)
    assert "has schema version 99" in told
    assert "upgrade durable-worker, or use another database or schema" in told
    on_private.execute(f"UPDATE {schema.schema}.schema_version SET version_num = '0001'")
    told = last_words(program, schema, broker_url, prefix)
    assert "stop the operators of the older release, then `durable-worker db upgrade URL`" in told
    assert "Traceback" not in told
