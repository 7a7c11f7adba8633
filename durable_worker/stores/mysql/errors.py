"""What the driver and the server complain about, as sentences."""

import ssl
from collections.abc import Generator
from contextlib import contextmanager

from asyncmy.errors import MySQLError

from durable_worker.errors import (
    DurableError,
    PayloadError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)
from durable_worker.stores.address import MysqlAddress

_DENIED = "denies this user something; let its owner GRANT it"
_READ_ONLY = "is read-only: a replica, or read_only is on; give the URL of the primary"
_NO_CONNECTION = "has no connection left; raise max_connections, or let fewer programs connect"
_NO_ENTRY = "does not let this user in; correct user and password in the URL, or GRANT it"
_ENDED = "was shut down, or has ended the connection"

_REASONS = {
    1044: _NO_ENTRY,
    1045: _NO_ENTRY,
    1698: _NO_ENTRY,
    1130: _NO_ENTRY,
    1049: "does not exist; create it (CREATE DATABASE), or correct its name",
    1142: _DENIED,
    1143: _DENIED,
    1227: _DENIED,
    1370: _DENIED,
    1290: _READ_ONLY,
    1792: _READ_ONLY,
    1836: _READ_ONLY,
    1050: "holds tables of something else; give the URL of another database",
    1146: "lacks a table; `durable-worker db check` says what to do",
    1054: "lacks a column; `durable-worker db check` says what to do",
    1176: "lacks an index; `durable-worker db check` says what to do",
}
_UNAVAILABLE = {
    1040: _NO_CONNECTION,
    1203: _NO_CONNECTION,
    1226: _NO_CONNECTION,
    1205: "is locked by another transaction",
    1213: "was interrupted by another transaction",
    1020: "was interrupted by another transaction",
    1047: "is not ready to be asked; its cluster has no quorum",
    1053: _ENDED,
    1077: _ENDED,
    1079: _ENDED,
    1317: _ENDED,
    1927: _ENDED,
    4031: _ENDED,
    1969: "cancelled a statement that took too long",
    3024: "cancelled a statement that took too long",
    1129: "blocks this host after too many failed connections; FLUSH HOSTS on the server",
}
"""Over when the server, or whoever holds the lock, has got over it."""

_UNSTORABLE = frozenset({1105, 1118, 1153, 1264, 1301, 1366, 1406, 1690, 3140})
"""Errors that lie in what is to be stored, and that no repetition cures."""

_FULL = frozenset({1021, 1114})
_NO_SPACE = ("errno: 28", "errcode: 28", "error 28", "error: 28", "no space left")

_CONFLICTS = frozenset({1020, 1205, 1213})
"""Another transaction was faster, or holds what this one needs."""

_UNCERTAIN = frozenset({1053, 1077, 1079, 1180, 1317, 1927, 4031})
"""Errors after which a transaction may have taken effect."""

_NOT_NULL = 1048
"""What a condition in a statement of ours raises that does not hold."""


def code_of(error: BaseException | None) -> int | None:
    """The number of a server's error; None for what the driver or the network says."""
    if isinstance(error, MySQLError) and error.args and isinstance(error.args[0], int):
        code = error.args[0]
        return code if code > 0 and not 2000 <= code < 3000 else None
    return None


def is_certain(error: BaseException | None) -> bool:
    """Whether the transaction that failed has certainly changed nothing."""
    code = code_of(error)
    return code is not None and code not in _UNCERTAIN


def is_conflict(error: BaseException | None) -> bool:
    return code_of(error) in _CONFLICTS


def is_unfulfilled(error: BaseException | None) -> bool:
    """Whether the lease was not held that a transaction begins with."""
    return code_of(error) == _NOT_NULL and "is_released" in str(error)


def is_stale(error: BaseException | None) -> bool:
    """Whether there is a run that a transaction expects not to be."""
    return code_of(error) == _NOT_NULL and "expires_at" in str(error)


@contextmanager
def translated_errors(address: MysqlAddress) -> Generator[None, None, None]:
    try:
        yield
    except MySQLError as error:
        raise _of_server(error, address) from error
    except UnicodeError as error:
        raise PayloadError(f"something that {_named(address)} cannot store", str(error)) from error
    except TimeoutError as error:
        raise StoreUnavailableError(f"{_named(address)} did not answer in time") from error
    except OSError as error:
        raise _unreachable(error.strerror or str(error), address) from error


def _named(address: MysqlAddress) -> str:
    return f"the database {address.safe}"


def _of_server(error: MySQLError, address: MysqlAddress) -> DurableError:
    code, told = code_of(error), str(error.args[-1] if error.args else error)
    if code is None:
        return _of_driver(error, told, address)
    if code in _FULL or any(each in told.lower() for each in _NO_SPACE):
        return StoreFullError(
            f"the disk of {_named(address)} is full; nothing was written. Free some space there"
        )
    if code in _UNSTORABLE:
        return PayloadError(f"something that {_named(address)} cannot store", told)
    if reason := _UNAVAILABLE.get(code):
        return StoreUnavailableError(f"{_named(address)} {reason} ({told})")
    reason = _REASONS.get(code, "refused an operation")
    return StoreError(f"{_named(address)} {reason} ({told})")


def _of_driver(error: MySQLError, told: str, address: MysqlAddress) -> DurableError:
    cause = error.__cause__
    if isinstance(cause, TimeoutError):
        return StoreUnavailableError(f"{_named(address)} did not answer in time")
    if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
        return StoreError(
            f"{_named(address)} cannot be talked to by TLS ({cause}). Does the server offer it, is "
            f"ssl-ca its authority, and is the host one that its certificate names?"
        )
    if isinstance(cause, OSError):
        return _unreachable(cause.strerror or str(cause), address)
    if error.args and error.args[0] in (2059, 2061):
        return StoreError(f"{_named(address)} asks for a way to log in that is not known ({told})")
    return StoreUnavailableError(f"the connection to {_named(address)} was lost ({told})")


def _unreachable(reason: str, address: MysqlAddress) -> StoreUnavailableError:
    return StoreUnavailableError(
        f"{_named(address)} cannot be reached: {reason}. Is the server running, and are host and "
        f"port right?"
    )
