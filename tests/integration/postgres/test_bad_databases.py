"""Every way in which a database cannot be used is one sentence that says what to do."""

import asyncio
import secrets
from collections.abc import Iterator

import asyncpg
import pytest

from durable_worker.errors import StoreError, StoreUnavailableError
from durable_worker.protocol.runs import RunQuery
from durable_worker.stores.address import PostgresAddress, parse_address
from durable_worker.stores.base import Batch, Lease
from durable_worker.stores.migrations.upgrading import Upgrade, upgrade
from durable_worker.stores.postgres import PostgresStore, database
from durable_worker.stores.queries import load_script
from tests.conformance.stores.samples import ME, NOW, TTL, a_checkpoint, a_run, lease_of
from tests.database import Postgres, PostgresServer, new_schema
from tests.database.schemas import made_schema
from tests.integration.cli.programs import Program

pytestmark = pytest.mark.anyio


@pytest.fixture
def schema(on_private: Postgres) -> Iterator[PostgresAddress]:
    with made_schema(on_private) as address:
        yield address


@pytest.fixture
def role(on_private: Postgres, schema: PostgresAddress) -> Iterator[str]:
    """A role that may do all with the schema."""
    name = f"someone_{secrets.token_hex(4)}"
    on_private.execute(
        f"CREATE ROLE {name} LOGIN PASSWORD 'right';"
        f"GRANT USAGE ON SCHEMA {schema.schema} TO {name};"
        f"GRANT ALL ON ALL TABLES IN SCHEMA {schema.schema} TO {name}"
    )
    yield name
    on_private.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def as_role(address: PostgresAddress, name: str) -> PostgresAddress:
    return parse_address(address.url.replace("//postgres@", f"//{name}@"))


async def refusal(address: PostgresAddress) -> str:
    with pytest.raises(StoreError) as caught:
        async with PostgresStore(address):
            pass
    assert "secret" not in str(caught.value)
    return str(caught.value)


async def unavailable(address: PostgresAddress) -> str:
    with pytest.raises(StoreUnavailableError) as caught:
        async with PostgresStore(address):
            pass
    assert "secret" not in str(caught.value)
    return str(caught.value)


async def test_a_server_that_is_not_there() -> None:
    told = await unavailable(parse_address("postgresql://u:secret@127.0.0.1:1/d"))
    assert "postgresql://u@127.0.0.1:1/d?schema=durable_worker cannot be reached" in told
    assert "Is the server running" in told


async def test_a_host_that_does_not_exist() -> None:
    assert "cannot be reached" in await unavailable(
        parse_address("postgresql://u:secret@no-such-host.invalid/d")
    )


async def test_something_that_is_no_postgresql() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"AMQP\x00\x00\x09\x01")
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        told = await refusal(parse_address(f"postgresql://u:secret@127.0.0.1:{port}/d"))
    assert f"127.0.0.1:{port}/d" in told


async def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "CONNECT_SECONDS", 0.3)
    silent = asyncio.Event()

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await silent.wait()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        told = await unavailable(parse_address(f"postgresql://u@127.0.0.1:{port}/d"))
        silent.set()
    assert "did not answer in time" in told


async def test_a_database_that_does_not_exist(private: PostgresServer) -> None:
    told = await refusal(parse_address(private.url("nosuch")))
    assert "/nosuch?schema=durable_worker does not exist; create it (`createdb`)" in told


async def test_a_user_that_does_not_exist(private: PostgresServer) -> None:
    told = await refusal(parse_address(private.url(user="nobody_at_all")))
    assert "does not let this user in" in told


async def test_a_wrong_password(
    private: PostgresServer, on_private: Postgres, schema: PostgresAddress, role: str
) -> None:
    rules = private.home / "data" / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f"host all {role} 127.0.0.1/32 scram-sha-256\n{before}")
    on_private.execute("SELECT pg_reload_conf()")
    try:
        told = await refusal(as_role(schema, f"{role}:secret"))
        assert "refuses the password; correct the one in the URL" in told
        async with PostgresStore(as_role(schema, f"{role}:right")) as store:
            await lease_of(store)
    finally:
        rules.write_text(before)
        on_private.execute("SELECT pg_reload_conf()")


async def test_a_user_without_rights_on_the_schema(
    on_private: Postgres, schema: PostgresAddress, role: str
) -> None:
    on_private.execute(f"REVOKE USAGE ON SCHEMA {schema.schema} FROM {role}")
    told = await refusal(as_role(schema, role))
    assert f"denies user {role!r} its schema" in told
    assert f"GRANT USAGE ON SCHEMA {schema.schema}" in told


async def test_a_user_without_rights_on_a_table(
    on_private: Postgres, schema: PostgresAddress, role: str
) -> None:
    on_private.execute(f"REVOKE INSERT ON {schema.schema}.runs FROM {role}")
    async with PostgresStore(as_role(schema, role)) as store:
        token = await lease_of(store)
        with pytest.raises(StoreError, match=r"denies this user something; let the owner .* runs"):
            await store.commit(Batch(runs=[a_run("a")]), token)


async def test_a_read_only_database(
    on_private: Postgres, schema: PostgresAddress, role: str
) -> None:
    on_private.execute(f"ALTER ROLE {role} SET default_transaction_read_only = on")
    async with PostgresStore(as_role(schema, role)) as store:
        assert await store.load("a") is None
        with pytest.raises(StoreError, match=r"is read-only: a replica, or .* URL of the primary"):
            await lease_of(store)


async def test_a_server_without_a_connection_left(
    on_private: Postgres, schema: PostgresAddress, role: str
) -> None:
    on_private.execute(f"ALTER ROLE {role} CONNECTION LIMIT 0")
    assert "has no connection left" in await unavailable(as_role(schema, role))


async def test_a_schema_without_tables(on_private: Postgres) -> None:
    told = await refusal(parse_address(on_private.at(new_schema())))
    assert "has no tables of durable-worker yet; `durable-worker db upgrade URL` creates" in told


async def test_a_newer_and_an_older_schema(on_private: Postgres, schema: PostgresAddress) -> None:
    on_private.execute(f"UPDATE {schema.schema}.schema_version SET version_num = '0099'")
    told = await refusal(schema)
    assert "has schema version 99, this release of durable-worker knows version 2: upgrade" in told
    on_private.execute(f"UPDATE {schema.schema}.schema_version SET version_num = '0000'")
    told = await refusal(schema)
    assert "schema version 0" in told
    assert "stop the operators of the older release, then `durable-worker db upgrade URL`" in told


async def test_runs_of_the_first_version_go_on_after_an_upgrade(on_private: Postgres) -> None:
    name = new_schema()
    on_private.execute(
        f"CREATE SCHEMA {name}; SET search_path = {name}; {load_script('postgres', 'schema_1')};"
        "CREATE TABLE schema_version (version_num VARCHAR(32) PRIMARY KEY);"
        "INSERT INTO schema_version VALUES ('0001');"
        "INSERT INTO runs VALUES ('a', 'w', '1', 'default', NULL, 'suspended', NULL, NULL, NULL,"
        " NULL, NULL, '{}', NULL, 1, 1, 1, NULL, false, 0, 7, 0);"
        "INSERT INTO checkpoints (run_id, seq, kind, name, status, attempt, enqueued_at,"
        " recoveries) SELECT 'a', n, 'call', 'step', 'completed', 1, 1, 0"
        " FROM generate_series(0, 2) AS n"
    )
    address = parse_address(on_private.at(name))
    assert await upgrade(address) == Upgrade(1, 2)
    async with PostgresStore(address) as store:
        outcome = await store.join(ME, now=NOW, ttl=TTL)
        assert isinstance(outcome, Lease)
        known = (await store.load_newer({"a": 0}))["a"].state
        assert (known.revision, sorted(known.checkpoints)) == (7, [0, 1, 2])
        changed = Batch(
            runs=[known.run], checkpoints=[a_checkpoint("a", 3)], expected=[("a", known.revision)]
        )
        await store.commit(changed, outcome.token)
        newer = (await store.load_newer({"a": 7}))["a"]
        assert (newer.since, newer.state.revision, sorted(newer.state.checkpoints)) == (7, 8, [3])
        assert [run.id for run in await store.list_runs(RunQuery())] == ["a"]
    on_private.execute(f"DROP SCHEMA {name} CASCADE")


async def test_a_newer_schema_is_not_upgraded(
    on_private: Postgres, schema: PostgresAddress
) -> None:
    on_private.execute(f"UPDATE {schema.schema}.schema_version SET version_num = '0099'")
    with pytest.raises(StoreError, match="knows version 2: upgrade durable-worker"):
        await upgrade(schema)


async def test_a_database_that_an_older_release_works_on_is_not_upgraded_under_it(
    on_private: Postgres, schema: PostgresAddress
) -> None:
    on_private.execute(
        f"SET search_path = {schema.schema}; UPDATE schema_version SET version_num = '0000'; "
        f"UPDATE lease SET host = 'there', machine = 'm', pid = 7, is_released = false, "
        f"expires_at = {2**53}"
    )
    with pytest.raises(StoreError, match=r"\(process 7 on there\): stop that one first"):
        await upgrade(schema)


async def test_tables_of_something_else_are_left_alone(on_private: Postgres) -> None:
    name = new_schema()
    on_private.execute(f"CREATE SCHEMA {name}; CREATE TABLE {name}.signals (theirs INT)")
    address = parse_address(on_private.at(name))
    with pytest.raises(StoreError, match=r"tables of something else.*schema=NAME.*signals"):
        await upgrade(address)
    connection = await asyncpg.connect(address.dsn)
    tables = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace($1)", name
    )
    await connection.execute(f"DROP SCHEMA {name} CASCADE")
    await connection.close()
    assert [row[0] for row in tables] == ["signals"]


async def test_who_may_not_create_a_schema_is_told_so(
    on_private: Postgres, schema: PostgresAddress, role: str
) -> None:
    address = as_role(parse_address(on_private.at(new_schema())), role)
    with pytest.raises(StoreError, match="denies this user something"):
        await upgrade(address)


async def test_upgrades_at_the_same_time_create_the_tables_once(on_private: Postgres) -> None:
    address = parse_address(on_private.at(new_schema()))
    done = await asyncio.gather(*(upgrade(address) for _ in range(3)))
    assert sorted(done, key=lambda each: each.before or 0) == [
        Upgrade(None, 2),
        Upgrade(2, 2),
        Upgrade(2, 2),
    ]
    on_private.execute(f"DROP SCHEMA {address.schema} CASCADE")


def test_the_command_line_tells_versions_and_upgrades(
    on_private: Postgres, program: Program
) -> None:
    url = on_private.at(new_schema())
    schema = parse_address(url).schema
    try:
        missing = program.run("db", "check", url)
        assert (missing.returncode, missing.stdout) == (1, "")
        assert "has no tables of durable-worker yet" in missing.stderr
        told = program.run("db", "upgrade", url)
        assert (told.returncode, told.stderr) == (
            0,
            f"{url} now has the tables of schema version 2\n",
        )
        file = program.directory / "url"
        file.write_text(f"{url}\n")
        environment = {"DURABLE_DATABASE_URL_FILE": str(file)}
        told = program.run("db", "check", env=environment)
        assert told.returncode == 0
        assert "has schema version 2, as this release" in told.stderr
        on_private.execute(f"UPDATE {schema}.schema_version SET version_num = '0003'")
        newer = program.run("db", "check", env=environment)
        assert newer.returncode == 1
        assert "has schema version 3, this release of durable-worker knows 2" in newer.stderr
        operator = program.run("runs", "--db", url)
        assert operator.returncode == 1
        assert "upgrade durable-worker, or use another database or schema" in operator.stderr
    finally:
        on_private.execute(f"DROP SCHEMA {schema} CASCADE")


def test_passwords_are_not_told(program: Program) -> None:
    for words in (
        ["runs", "--db", "postgresql://u:secret@127.0.0.1:1/d"],
        ["db", "check", "postgresql://u:secret@127.0.0.1:1/d", "--debug"],
        ["db", "upgrade", "postgresql://u:secret@127.0.0.1:1/d"],
        ["runs", "--db", "postgresql://u:secret@127.0.0.1:1/d?sslmode=bogus"],
    ):
        done = program.run(*words)
        assert done.returncode == 1
        assert "secret" not in done.stdout + done.stderr
