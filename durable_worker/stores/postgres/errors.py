"""What the driver and the server complain about, as sentences."""

from collections.abc import Generator
from contextlib import contextmanager

import asyncpg

from durable_worker.errors import (
    DurableError,
    PayloadError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)
from durable_worker.stores.address import PostgresAddress

_REASONS = {
    "28P01": "refuses the password; correct the one in the URL, in PGPASSWORD or in ~/.pgpass",
    "28": "does not let this user in; correct the user, or pg_hba.conf on the server",
    "3D000": "does not exist; create it (`createdb`), or correct its name",
    "25006": (
        "is read-only: a replica, or default_transaction_read_only is on; give the URL of the "
        "primary (with several hosts: ?target_session_attrs=read-write)"
    ),
    "42501": "denies this user something; let the owner of the schema GRANT it",
    "42P07": "holds tables of something else in this schema; give ?schema=NAME of another one",
    "42P01": "lacks a table; `durable-worker db check` says what to do",
    "42703": "lacks a column; `durable-worker db check` says what to do",
    "42704": "lacks a type; `durable-worker db check` says what to do",
    "53300": "has no connection left; raise max_connections, or let fewer programs connect",
    "57P03": "is starting up or shutting down",
    "57P01": "was shut down",
    "57P02": "has crashed",
    "57014": "cancelled a statement that took too long",
    "40": "was interrupted by another transaction",
    "55": "is locked by another transaction",
}
_UNSTORABLE = ("22", "54")
"""Classes of errors that lie in what is to be stored, and that no repetition cures."""

_PASSING = ("08", "53300", "57P")
"""Classes of errors that are over when the server is there again."""

_FASTER = ("40001", "40P01", "23505")

_UNCERTAIN = ("08", "40003", "57")
"""Classes of errors after which a transaction may have taken effect."""


def is_certain(error: BaseException) -> bool:
    """Whether the statement that failed has certainly changed nothing."""
    if isinstance(error, asyncpg.PostgresError):
        return not (error.sqlstate or "08").startswith(_UNCERTAIN)
    return isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError)


def is_conflict(error: BaseException | None) -> bool:
    """Whether another transaction was faster, with a row or a lock."""
    return isinstance(error, asyncpg.PostgresError) and (error.sqlstate or "").startswith(_FASTER)


@contextmanager
def translated_errors(address: PostgresAddress) -> Generator[None, None, None]:
    try:
        yield
    except asyncpg.PostgresError as error:
        raise _of_server(error, address) from error
    except (asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise _of_driver(error, address) from error
    except TimeoutError as error:
        raise StoreUnavailableError(f"{_named(address)} did not answer in time") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreUnavailableError(
            f"{_named(address)} cannot be reached: {reason}. Is the server running, and are host "
            f"and port right?"
        ) from error


def _named(address: PostgresAddress) -> str:
    return f"the database {address.safe}"


def _of_server(error: asyncpg.PostgresError, address: PostgresAddress) -> DurableError:
    state = error.sqlstate or ""
    told = str(error).strip() or type(error).__name__
    if state == "53100":
        return StoreFullError(
            f"the disk of {_named(address)} is full; nothing was written. Free some space there"
        )
    if state.startswith(_UNSTORABLE):
        return PayloadError(f"something that {_named(address)} cannot store", told)
    if state.startswith("08") or not state:
        return StoreUnavailableError(f"the connection to {_named(address)} was lost ({told})")
    reason = _REASONS.get(state) or _REASONS.get(state[:2]) or "refused an operation"
    kind = StoreUnavailableError if state.startswith(_PASSING) else StoreError
    return kind(f"{_named(address)} {reason} ({told})")


def _of_driver(error: Exception, address: PostgresAddress) -> DurableError:
    told = str(error).strip() or type(error).__name__
    if isinstance(error, asyncpg.exceptions.TargetServerAttributeNotMatched):
        return StoreError(f"{_named(address)}: no host is of the kind that was asked for ({told})")
    if isinstance(error, asyncpg.exceptions.ClientConfigurationError):
        return StoreError(f"{_named(address)} cannot be connected to as the URL says ({told})")
    if isinstance(error, ValueError):
        return PayloadError(f"something that {_named(address)} cannot store", told)
    if told.startswith("pool is"):
        return StoreError(f"{_named(address)} is closed ({told})")
    return StoreUnavailableError(f"the connection to {_named(address)} was lost ({told})")
