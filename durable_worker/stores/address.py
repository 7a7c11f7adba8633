"""How a database is named: a file of SQLite, a schema of PostgreSQL, a database of MariaDB."""

import re
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from durable_worker.errors import UsageError

DEFAULT_SCHEMA = "durable_worker"
DEFAULT_MYSQL_PORT = 3306

_SQLITE = "sqlite:///"
_POSTGRES = ("postgresql://", "postgres://")
_MYSQL = ("mysql://", "mariadb://")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_MYSQL_SETTINGS = ("ssl-mode", "ssl-ca", "ssl-cert", "ssl-key", "socket")
_SSL_MODES = ("disabled", "required", "verify-ca", "verify-identity")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class MysqlAddress:
    """Of a database on MariaDB or MySQL. `url` is what was parsed and may hold a password; `safe`,
    and `str()`, are for people.

    `ssl_mode` as the command-line clients know it: disabled, required, verify-ca, verify-identity.
    """

    url: str = field(repr=False)
    safe: str
    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str
    socket: str | None = None
    ssl_mode: str = "disabled"
    ssl_ca: str | None = None
    ssl_cert: str | None = None
    ssl_key: str | None = None

    def __str__(self) -> str:
        return self.safe


ServerAddress = PostgresAddress | MysqlAddress
Address = Path | ServerAddress


def parse_database(database: str | PathLike[str]) -> Address:
    """The file that a path or `sqlite:///path` means, or what the URL of a server means.

    Raises `UsageError`, without repeating a password.
    """
    if not isinstance(database, str):
        return Path(database)
    if database.startswith(_POSTGRES):
        return parse_address(database)
    if database.startswith(_MYSQL):
        return parse_mysql_address(database)
    if database.startswith(_SQLITE):
        path = database[len(_SQLITE) :]
    elif "://" in database or database.startswith(
        ("sqlite:", "postgres:", "postgresql:", "mysql:", "mariadb:")
    ):
        raise UsageError(
            f"the database {database.partition(':')[0]!r} cannot be used. Expected a path or "
            f"sqlite:///PATH (sqlite:////PATH if it is absolute) for SQLite, "
            f"postgresql://USER@HOST:PORT/DATABASE or mysql://USER@HOST:PORT/DATABASE."
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


def parse_mysql_address(url: str) -> MysqlAddress:
    """Raises `UsageError`, without repeating a password."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "localhost", parts.port or DEFAULT_MYSQL_PORT
    except ValueError:
        raise _unusable_mysql("its host and port cannot be read") from None
    if not url.startswith(_MYSQL):
        raise _unusable_mysql(f"its scheme is {parts.scheme!r}")
    if parts.fragment:
        raise _unusable_mysql("a '#' in a user name or password is written %23")
    database = unquote(parts.path[1:])
    if not database or "/" in database:
        raise _unusable_mysql("it names no database")
    if not parts.username:
        raise _unusable_mysql("it names no user")
    settings = _mysql_settings(parts.query)
    return MysqlAddress(
        url=url,
        safe=f"{parts.scheme}://{parts.netloc.rpartition('@')[0].partition(':')[0]}"
        f"@{parts.netloc.rpartition('@')[2]}{parts.path}",
        host=host,
        port=port,
        user=unquote(parts.username),
        password=unquote(parts.password or ""),
        database=database,
        socket=settings.get("socket"),
        ssl_mode=settings.get("ssl-mode", "verify-ca" if "ssl-ca" in settings else "disabled"),
        ssl_ca=settings.get("ssl-ca"),
        ssl_cert=settings.get("ssl-cert"),
        ssl_key=settings.get("ssl-key"),
    )


def _mysql_settings(query: str) -> dict[str, str]:
    settings: dict[str, str] = {}
    for written, value in parse_qsl(query, keep_blank_values=True):
        name = written.replace("_", "-")
        if name not in _MYSQL_SETTINGS:
            raise _unusable_mysql(f"it sets {written!r}; known are {', '.join(_MYSQL_SETTINGS)}")
        if name in settings:
            raise _unusable_mysql(f"it sets {written!r} twice")
        settings[name] = value.lower().replace("_", "-") if name == "ssl-mode" else value
    if settings.get("ssl-mode", "disabled") not in _SSL_MODES:
        raise _unusable_mysql(f"its ssl-mode is none of {', '.join(_SSL_MODES)}")
    return settings


def _unusable_mysql(reason: str) -> UsageError:
    return UsageError(
        f"the MariaDB or MySQL URL cannot be used: {reason}. Expected "
        f"mysql://USER@HOST:PORT/DATABASE."
    )
