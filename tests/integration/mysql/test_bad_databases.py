"""Every way in which a database cannot be used is one sentence that says what to do."""

import asyncio
import secrets
import sys
from collections.abc import Iterator

import pytest
from asyncmy.errors import OperationalError

from durable_worker.errors import StoreError, StoreFullError, StoreUnavailableError, UsageError
from durable_worker.stores.address import MysqlAddress, parse_mysql_address
from durable_worker.stores.base import Batch
from durable_worker.stores.migrations.scripts import Upgrade
from durable_worker.stores.migrations.upgrading_mysql import upgrade
from durable_worker.stores.mysql import MysqlStore, connection
from durable_worker.stores.mysql.errors import translated_errors
from durable_worker.stores.opening import store_at
from durable_worker.stores.records import OutboxRow
from tests.conformance.stores.samples import a_run, lease_of
from tests.database import MariadbServer, Mysql
from tests.database.mysql import new_empty_database
from tests.integration.cli.programs import Program

pytestmark = pytest.mark.anyio


@pytest.fixture
def user(on_private: Mysql, private_database: MysqlAddress) -> Iterator[str]:
    """Who may do all with the tables."""
    name = f"someone_{secrets.token_hex(4)}"
    on_private.execute(
        f"CREATE USER {name} IDENTIFIED BY 'right';"
        f"GRANT ALL ON {private_database.database}.* TO {name}"
    )
    yield name
    on_private.execute(f"DROP USER {name}")


def as_user(address: MysqlAddress, name: str) -> MysqlAddress:
    return parse_mysql_address(address.url.replace("//root@", f"//{name}:right@"))


async def refusal(address: MysqlAddress) -> str:
    with pytest.raises(StoreError) as caught:
        async with MysqlStore(address):
            pass
    assert "secret" not in str(caught.value)
    return str(caught.value)


async def unavailable(address: MysqlAddress) -> str:
    with pytest.raises(StoreUnavailableError) as caught:
        async with MysqlStore(address):
            pass
    assert "secret" not in str(caught.value)
    return str(caught.value)


async def test_a_server_that_is_not_there() -> None:
    told = await unavailable(parse_mysql_address("mysql://u:secret@127.0.0.1:1/d"))
    assert "mysql://u@127.0.0.1:1/d cannot be reached: " in told
    assert "Is the server running" in told


async def test_a_host_that_does_not_exist() -> None:
    assert "cannot be reached" in await unavailable(
        parse_mysql_address("mysql://u:secret@no-such-host.invalid/d")
    )


@pytest.mark.parametrize("greeting", [b"AMQP\x00\x00\x09\x01", b"\x05\x00\x00\x00\x0axy\x00z", b""])
async def test_something_that_is_no_mysql(greeting: bytes) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        told = await refusal(parse_mysql_address(f"mysql://u:secret@127.0.0.1:{port}/d"))
    assert f"127.0.0.1:{port}/d" in told


async def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.3)
    silent = asyncio.Event()

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await silent.wait()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        told = await unavailable(parse_mysql_address(f"mysql://u@127.0.0.1:{port}/d"))
        silent.set()
    assert "did not answer in time" in told


async def test_a_database_that_does_not_exist(private: MariadbServer) -> None:
    told = await refusal(parse_mysql_address(private.url("nosuch")))
    assert "/nosuch does not exist; create it (CREATE DATABASE)" in told


async def test_a_user_that_does_not_exist(private: MariadbServer) -> None:
    told = await refusal(parse_mysql_address(private.url(user="nobody_at_all")))
    assert "does not let this user in; correct user and password in the URL" in told


async def test_a_wrong_password(private_database: MysqlAddress, user: str) -> None:
    wrong = parse_mysql_address(private_database.url.replace("//root@", f"//{user}:secret@"))
    assert "does not let this user in" in await refusal(wrong)
    async with MysqlStore(as_user(private_database, user)) as store:
        await lease_of(store)


async def test_a_user_without_rights_on_the_database(
    on_private: Mysql, private_database: MysqlAddress, user: str
) -> None:
    on_private.execute(f"REVOKE ALL ON {private_database.database}.* FROM {user}")
    assert "does not let this user in" in await refusal(as_user(private_database, user))


async def test_a_user_without_rights_on_a_table(
    on_private: Mysql, private_database: MysqlAddress, user: str
) -> None:
    on_private.execute(
        f"REVOKE ALL ON {private_database.database}.* FROM {user};"
        f"GRANT SELECT ON {private_database.database}.* TO {user};"
        f"GRANT UPDATE ON {private_database.database}.durable_lease TO {user}"
    )
    async with MysqlStore(as_user(private_database, user)) as store:
        token = await lease_of(store)
        with pytest.raises(StoreError, match=r"denies this user something.*GRANT.*durable_runs"):
            await store.commit(Batch(runs=[a_run("a")]), token)


async def test_a_read_only_server(
    on_private: Mysql, private_database: MysqlAddress, user: str
) -> None:
    on_private.execute("SET GLOBAL read_only = 1")
    try:
        async with MysqlStore(as_user(private_database, user)) as store:
            assert await store.load("a") is None
            with pytest.raises(StoreError, match=r"is read-only: a replica, .* of the primary"):
                await lease_of(store)
    finally:
        on_private.execute("SET GLOBAL read_only = 0")


async def test_a_server_without_a_connection_left(
    on_private: Mysql, private_database: MysqlAddress, user: str
) -> None:
    on_private.execute(f"ALTER USER {user} WITH MAX_USER_CONNECTIONS 1")
    address = as_user(private_database, user)
    async with MysqlStore(address):
        assert "has no connection left; raise max_connections" in await unavailable(address)


async def test_a_database_without_tables(on_private: Mysql) -> None:
    with new_empty_database(on_private) as address:
        told = await refusal(address)
    assert "has no tables of durable-worker yet; `durable-worker db upgrade URL` creates" in told


def set_version(server: Mysql, address: MysqlAddress, version: str) -> None:
    server.execute(
        f"UPDATE {address.database}.durable_schema_version SET version_num = '{version}'"
    )


async def test_a_newer_and_an_older_schema(
    on_private: Mysql, private_database: MysqlAddress
) -> None:
    set_version(on_private, private_database, "0099")
    told = await refusal(private_database)
    assert "has schema version 99, this release of durable-worker knows version 1: upgrade" in told
    set_version(on_private, private_database, "0000")
    told = await refusal(private_database)
    assert "schema version 0" in told
    assert "stop the operators of the older release, then `durable-worker db upgrade URL`" in told


async def test_a_newer_schema_is_not_upgraded(
    on_private: Mysql, private_database: MysqlAddress
) -> None:
    set_version(on_private, private_database, "0099")
    with pytest.raises(StoreError, match="knows version 1: upgrade durable-worker"):
        await upgrade(private_database)


async def test_a_database_that_an_older_release_works_on_is_not_upgraded_under_it(
    on_private: Mysql, private_database: MysqlAddress
) -> None:
    set_version(on_private, private_database, "0000")
    on_private.execute(
        f"UPDATE {private_database.database}.durable_lease SET host = 'there', machine = 'm', "
        f"pid = 7, is_released = 0, expires_at = {2**53}"
    )
    with pytest.raises(StoreError, match=r"\(process 7 on there\): stop that one first"):
        await upgrade(private_database)


async def test_tables_of_something_else_are_left_alone(on_private: Mysql) -> None:
    with new_empty_database(on_private) as address:
        on_private.execute(f"CREATE TABLE {address.database}.durable_signals (theirs INT)")
        with pytest.raises(StoreError, match=r"tables of something else \(durable_signals\)"):
            await upgrade(address)
        tables = on_private.execute(f"SHOW TABLES FROM {address.database}")
    assert [row[0] for row in tables] == [b"durable_signals"]


async def test_an_upgrade_that_was_interrupted_is_finished_by_the_next(on_private: Mysql) -> None:
    with new_empty_database(on_private) as address:
        assert await upgrade(address) == Upgrade(None, 1)
        on_private.execute(
            f"USE {address.database}; DELETE FROM durable_schema_version; "
            f"DROP TABLE durable_dead_letters, durable_inbox_head"
        )
        assert "has no tables of durable-worker yet" in await refusal(address)
        assert await upgrade(address) == Upgrade(None, 1)
        async with MysqlStore(address) as store:
            await store.commit(Batch(runs=[a_run("a")]), await lease_of(store))
            assert await store.dead_letters(limit=1) == []


async def test_who_may_not_create_tables_is_told_so(on_private: Mysql, user: str) -> None:
    with new_empty_database(on_private) as address:
        on_private.execute(f"GRANT SELECT ON {address.database}.* TO {user}")
        with pytest.raises(StoreError, match="denies this user something"):
            await upgrade(as_user(address, user))


async def test_upgrades_at_the_same_time_create_the_tables_once(on_private: Mysql) -> None:
    with new_empty_database(on_private) as address:
        done = await asyncio.gather(*(upgrade(address) for _ in range(3)))
    assert sorted(done, key=lambda each: each.before or 0) == [
        Upgrade(None, 1),
        Upgrade(1, 1),
        Upgrade(1, 1),
    ]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (1021, "Disk full (/tmp/x); waiting for someone to free some space"),
        (3, "Error writing file '/tmp/x' (Errcode: 28 \"No space left on device\")"),
        (1030, "Got error 28 from storage engine"),
    ],
)
def test_a_disk_without_space_is_told_as_such(code: int, told: str) -> None:
    address = parse_mysql_address("mysql://u@h/d")
    with pytest.raises(StoreFullError, match="nothing was written"), translated_errors(address):
        raise OperationalError(code, told)


async def test_a_table_that_may_not_grow_refuses_the_commit_as_a_whole(
    on_private: Mysql, private_database: MysqlAddress
) -> None:
    # The server says of a table in memory what it says of one on a full disk.
    on_private.execute(
        f"SET SESSION max_heap_table_size = 65536; USE {private_database.database}; "
        f"ALTER TABLE durable_outbox ENGINE = MEMORY"
    )
    owed = [OutboxRow(f"r{number}#1", f"r{number}") for number in range(500)]
    async with MysqlStore(private_database) as store:
        token = await lease_of(store)
        with pytest.raises(StoreFullError, match="is full; nothing was written"):
            await store.commit(Batch(runs=[a_run("a")], outbox_added=owed), token)
        assert await store.load("a") is None
        await store.commit(Batch(runs=[a_run("a")]), token)
        assert await store.load("a") is not None


@pytest.mark.parametrize(
    ("url", "driver", "extra"),
    [("mariadb://u@h/d", "asyncmy", "mysql"), ("postgresql://u@h/d", "asyncpg", "postgres")],
)
def test_a_driver_that_is_not_installed_is_named_with_its_extra(
    url: str, driver: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises(UsageError) as told:
        store_at(url)
    assert f"needs the package {driver}: pip install 'durable-worker[{extra}]'" in str(told.value)


def test_the_command_line_tells_versions_and_upgrades(on_private: Mysql, program: Program) -> None:
    with new_empty_database(on_private) as address:
        url = address.url
        missing = program.run("db", "check", url)
        assert (missing.returncode, missing.stdout) == (1, "")
        assert "has no tables of durable-worker yet" in missing.stderr
        told = program.run("db", "upgrade", url)
        assert (told.returncode, told.stderr) == (
            0,
            f"{url} now has the tables of schema version 1\n",
        )
        again = program.run("db", "upgrade", url)
        assert "has schema version 1 already; there was nothing to do" in again.stderr
        file = program.directory / "url"
        file.write_text(f"{url}\n")
        environment = {"DURABLE_DATABASE_URL_FILE": str(file)}
        told = program.run("db", "check", env=environment)
        assert told.returncode == 0
        assert "has schema version 1, as this release" in told.stderr
        set_version(on_private, address, "0002")
        newer = program.run("db", "check", env=environment)
        assert newer.returncode == 1
        assert "has schema version 2, this release of durable-worker knows 1" in newer.stderr
        asked = program.run("runs", "--db", url)
        assert asked.returncode == 1
        assert "upgrade durable-worker, or use another database" in asked.stderr


def test_passwords_are_not_told(program: Program) -> None:
    for words in (
        ["runs", "--db", "mysql://u:secret@127.0.0.1:1/d"],
        ["db", "check", "mariadb://u:secret@127.0.0.1:1/d", "--debug"],
        ["db", "upgrade", "mysql://u:secret@127.0.0.1:1/d"],
        ["runs", "--db", "mysql://u:secret@127.0.0.1:1/d?ssl-mode=bogus"],
        ["runs", "--db", "mysql://u:secret@127.0.0.1:1"],
    ):
        done = program.run(*words)
        assert done.returncode in (1, 2)
        assert "secret" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mysql://u@h", "it names no database"),
        ("mysql://u@h/a/b", "it names no database"),
        ("mysql://h/d", "it names no user"),
        ("mysql://u@h:port/d", "its host and port cannot be read"),
        ("mysql://u@h/d#x", "a '#' in a user name or password is written %23"),
        ("mysql://u@h/d?schema=x", "it sets 'schema'; known are ssl-mode"),
        ("mysql://u@h/d?ssl-mode=maybe", "its ssl-mode is none of disabled, required"),
        ("mysql://u@h/d?socket=a&socket=b", "it sets 'socket' twice"),
    ],
)
def test_what_is_wrong_with_a_url_is_told(url: str, reason: str) -> None:
    with pytest.raises(UsageError) as told:
        parse_mysql_address(url)
    assert reason in str(told.value)


def test_a_url_says_how_to_connect() -> None:
    found = parse_mysql_address(
        "mariadb://me:p%40ss%23@db.example:3307/app?ssl_mode=VERIFY_IDENTITY&ssl-ca=/ca.pem"
    )
    assert (found.host, found.port, found.user, found.password) == (
        "db.example",
        3307,
        "me",
        "p@ss#",
    )
    assert (found.database, found.ssl_mode, found.ssl_ca) == ("app", "verify-identity", "/ca.pem")
    assert str(found) == "mariadb://me@db.example:3307/app"
    assert "p@ss" not in repr(found)
    assert parse_mysql_address("mysql://me@h/d?ssl-ca=/ca.pem").ssl_mode == "verify-ca"
