"""One SQLite connection in a thread of its own, and its errors as sentences."""

import asyncio
import errno
import os
import sqlite3
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar, cast

from durable_worker.errors import StoreError, StoreFullError
from durable_worker.stores.base import Owner
from durable_worker.stores.processes import is_gone
from durable_worker.stores.queries import load_script, load_statements
from durable_worker.stores.sqlite.statements import CACHED_STATEMENTS

SCHEMA_VERSION = 3
BUSY_TIMEOUT_SECONDS = 5.0

_setup = load_statements("sqlite", "lease")

T = TypeVar("T")


class Connection:
    """Runs functions on its connection, one after the other, off the event loop.

    SQLite connections belong to one thread. `StoreError` is all that leaves it.
    """

    def __init__(self, path: Path, *, thread: str) -> None:
        self._path = path
        self._thread = Thread(target=self._work_off, name=thread, daemon=True)
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._is_open = False
        self._database: sqlite3.Connection | None = None

    async def open(self) -> None:
        self._thread.start()
        self._is_open = True
        try:
            await self._submit(self._connect)
        except BaseException:
            self._end()
            raise

    async def close(self) -> None:
        if self._is_open:
            try:
                await self._submit(self._disconnect)
            finally:
                self._end()
            self._thread.join()

    def _end(self) -> None:
        self._is_open = False
        self._work.put(None)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._submit(lambda: self._guarded(work))

    async def _submit(self, work: Callable[[], T]) -> T:
        if not self._is_open:
            raise self._closed()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def settle(value: T | None, error: BaseException | None) -> None:
            if done.cancelled():
                return
            if error is None:
                done.set_result(cast("T", value))
            else:
                done.set_exception(error)

        def carry_out() -> None:
            if done.cancelled():
                return
            value, failure = None, None
            try:
                value = work()
            except BaseException as error:  # whatever it is, it is the caller's
                failure = error
            with suppress(RuntimeError):  # nobody waits any more: the loop is closed
                loop.call_soon_threadsafe(settle, value, failure)

        self._work.put(carry_out)
        return await done

    def _work_off(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            del work

    def _closed(self) -> StoreError:
        return StoreError(f"the database {str(self._path)!r} is closed")

    def _guarded(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._database is None:
            raise self._closed()
        with translated_errors(self._path):
            return work(self._database)

    def _connect(self) -> None:
        with translated_errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(
                self._path,
                timeout=BUSY_TIMEOUT_SECONDS,
                isolation_level=None,
                cached_statements=CACHED_STATEMENTS,
            )
            try:
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = FULL")
                _prepare_schema(database, self._path)
            except BaseException:
                database.close()
                raise
            self._database = database

    def _disconnect(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None


@contextmanager
def transaction(database: sqlite3.Connection) -> Generator[None, None, None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def _prepare_schema(database: sqlite3.Connection, path: Path) -> None:
    if not database.execute(_setup["has_schema"]).fetchone()[0]:
        with transaction(database):
            # Another process may have been first.
            if not database.execute(_setup["has_schema"]).fetchone()[0]:
                _create_schema(database, path)
    version = _version_of(database)
    if version < SCHEMA_VERSION:
        with transaction(database):
            _upgrade(database, path)
    elif version > SCHEMA_VERSION:
        raise StoreError(
            f"the database {str(path)!r} has schema version {version}, this release of "
            f"durable-worker knows version {SCHEMA_VERSION}: upgrade durable-worker, or use "
            f"another database"
        )


def _version_of(database: sqlite3.Connection) -> int:
    return int(database.execute(_setup["schema_version"]).fetchone()[0])


def _upgrade(database: sqlite3.Connection, path: Path) -> None:
    version = _version_of(database)  # another process may have been first
    if version < SCHEMA_VERSION and _is_operated(database):
        raise StoreError(
            f"the database {str(path)!r} has schema version {version}, and an operator of an older "
            f"release works on it: stop that one first, then it is upgraded to version "
            f"{SCHEMA_VERSION} when it is opened"
        )
    for number in range(version + 1, SCHEMA_VERSION + 1):
        _execute_script(database, f"upgrade_{number}")


def _is_operated(database: sqlite3.Connection) -> bool:
    row = database.execute(_setup["get_lease"]).fetchone()
    if row is None or row[7]:
        return False
    return bool(row[6] > time.time() * 1000) and not is_gone(Owner(*row[1:6]))


def _execute_script(database: sqlite3.Connection, name: str) -> None:
    for statement in load_script("sqlite", name).split(";"):
        if statement.strip():
            database.execute(statement)


def _create_schema(database: sqlite3.Connection, path: Path) -> None:
    if not database.execute(_setup["is_empty"]).fetchone()[0]:
        raise StoreError(
            f"the database {str(path)!r} holds tables of something else; use a file of its own"
        )
    _execute_script(database, "schema")


@contextmanager
def translated_errors(path: Path) -> Generator[None, None, None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _as_store_error(error, path) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(path) from error
        raise StoreError(f"the database {str(path)!r} cannot be opened: {error}") from error


_REASONS = {
    "SQLITE_BUSY": "is locked by another process that does not let go of it",
    "SQLITE_LOCKED": "is locked by another process that does not let go of it",
    "SQLITE_CORRUPT": "is damaged; restore a backup, or move the file away to start afresh",
    "SQLITE_NOTADB": "is not a SQLite database; use another file",
    "SQLITE_READONLY": "cannot be written: the file or its directory is read-only for this user",
    "SQLITE_PERM": "cannot be written: the file or its directory is read-only for this user",
    "SQLITE_CANTOPEN": "cannot be opened: it is a directory, or this user may not access it",
    "SQLITE_IOERR": "cannot be read or written: the disk reports an error",
}


def _as_store_error(error: sqlite3.Error, path: Path) -> StoreError:
    # Only errors that SQLite itself reports have a name.
    name: str = getattr(error, "sqlite_errorname", "")
    if name == "SQLITE_FULL" or (name.startswith("SQLITE_IOERR") and _has_no_space(path)):
        return _full(path)
    kind = "_".join(name.split("_")[:2])
    reason = _REASONS.get(kind, "refused an operation")
    return StoreError(f"the database {str(path)!r} {reason} ({error})")


def _has_no_space(path: Path) -> bool:
    try:
        return os.statvfs(path.parent).f_bavail == 0
    except OSError:
        return False


def _full(path: Path) -> StoreFullError:
    return StoreFullError(
        f"the disk that holds the database {str(path)!r} is full; nothing was written. Free some "
        f"space there"
    )
