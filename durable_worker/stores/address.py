"""How a database is named: a file of SQLite, or a schema of a PostgreSQL database."""

import re
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from durable_worker.errors import UsageError

DEFAULT_SCHEMA = "durable_worker"

_SQLITE = "sqlite:///"
_POSTGRES = ("postgresql://", "postgres://")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


@dataclass(frozen=True, slots=True)
class PostgresAddress:
    """`dsn` is for the driver and may hold a password; `safe`, and `str()`, are for people."""

    dsn: str = field(repr=False)
    schema: str
    safe: str

    def __str__(self) -> str:
        return self.safe

    @property
    def url(self) -> str:
        """What was parsed, with the password if there was one."""
        separator = "&" if "?" in self.dsn else "?"
        return f"{self.dsn}{separator}schema={self.schema}"


Address = Path | PostgresAddress


def parse_database(database: str | PathLike[str]) -> Address:
    """The file that a path or `sqlite:///path` means, or what a PostgreSQL URL means.

    Raises `UsageError`, without repeating a password.
    """
    if not isinstance(database, str):
        return Path(database)
    if database.startswith(_POSTGRES):
        return parse_address(database)
    if database.startswith(_SQLITE):
        path = database[len(_SQLITE) :]
    elif "://" in database or database.startswith(("sqlite:", "postgres:", "postgresql:")):
        raise UsageError(
            f"the database {database.partition(':')[0]!r} cannot be used. Expected a path or "
            f"sqlite:///PATH (sqlite:////PATH if it is absolute) for SQLite, or "
            f"postgresql://USER@HOST:PORT/DATABASE."
        )
    else:
        path = database
    if not path:
        raise UsageError("the database URL names no file; expected sqlite:///PATH or a path.")
    return Path(path)


def parse_address(url: str) -> PostgresAddress:
    """Raises `UsageError`, without repeating a password."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise _unusable(f"it is not a URL ({error})") from None
    if not url.startswith(_POSTGRES):
        raise _unusable(f"its scheme is {parts.scheme!r}")
    if parts.fragment:
        raise _unusable("a '#' in a user name or password is written %23")
    settings = parse_qsl(parts.query, keep_blank_values=True)
    schemas = [value for name, value in settings if name == "schema"]
    if len(schemas) > 1:
        raise _unusable("it names more than one schema")
    schema = schemas[0] if schemas else DEFAULT_SCHEMA
    if not _IDENTIFIER.fullmatch(schema) or schema.startswith("pg_"):
        raise _unusable(f"{schema!r} cannot be the name of a schema of ours (letters, digits, _)")
    rest = urlencode([each for each in settings if each[0] != "schema"], quote_via=quote)
    user, _, hosts = parts.netloc.rpartition("@")
    user = user.partition(":")[0]
    return PostgresAddress(
        dsn=urlunsplit(parts._replace(query=rest)),
        schema=schema,
        safe=f"{parts.scheme}://{user}{'@' if user else ''}{hosts}{parts.path}?schema={schema}",
    )


def _unusable(reason: str) -> UsageError:
    return UsageError(
        f"the PostgreSQL URL cannot be used: {reason}. Expected "
        f"postgresql://USER@HOST:PORT/DATABASE, with ?schema=NAME if it is not {DEFAULT_SCHEMA}."
    )
