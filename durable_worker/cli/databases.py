"""How a database is named."""

from pathlib import Path

from durable_worker.errors import UsageError

_SQLITE = "sqlite:///"


def database_path(database: str) -> Path:
    """The file that `sqlite:///path` or a plain path means. Raises `UsageError`."""
    if database.startswith(_SQLITE):
        path = database[len(_SQLITE) :]
    elif "://" in database or database.startswith("sqlite:"):
        raise UsageError(
            f"the database {database.partition(':')[0]!r} cannot be used: the operator keeps its "
            f"state in SQLite. Expected sqlite:///PATH (sqlite:////PATH if it is absolute) or a "
            f"path."
        )
    else:
        path = database
    if not path:
        raise UsageError("the database URL names no file; expected sqlite:///PATH or a path.")
    return Path(path)
