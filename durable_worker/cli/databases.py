"""Which database is meant."""

import os
from pathlib import Path
from urllib.parse import urlsplit

from durable_worker.cli.options import (
    DATABASE_FILE_VARIABLE,
    DATABASE_VARIABLE,
    DEV_DATABASE,
    DEV_DATABASE_VARIABLE,
    OPERATOR_DATABASE,
)
from durable_worker.errors import UsageError
from durable_worker.stores.address import Address, parse_database


def operators_database(stated: str | None) -> Address:
    """That of the command line, else of the environment, else a file here. Raises `UsageError`."""
    if stated is not None:
        return parse_database(stated)
    return stated_database() or OPERATOR_DATABASE


def dev_database(stated: str | None) -> Address:
    """That of the command line, else the one that the parent process names."""
    text = stated if stated is not None else os.environ.get(DEV_DATABASE_VARIABLE)
    return DEV_DATABASE if text is None else parse_database(text)


def named_database(stated: str | None) -> Address:
    """That of the command line or of the environment. Raises `UsageError` if there is none."""
    found = stated_database() if stated is None else parse_database(stated)
    if found is None:
        raise UsageError(
            f"which database? Name a path, sqlite:///PATH, postgresql://USER@HOST/DATABASE or "
            f"mysql://USER@HOST/DATABASE, or set {DATABASE_VARIABLE} or {DATABASE_FILE_VARIABLE}."
        )
    return found


def stated_database() -> Address | None:
    """That of the environment. Raises `UsageError` if it names two."""
    text, file = os.environ.get(DATABASE_VARIABLE), os.environ.get(DATABASE_FILE_VARIABLE)
    if text and file:
        raise UsageError(
            f"{DATABASE_VARIABLE} and {DATABASE_FILE_VARIABLE} are both set, and neither wins: "
            f"unset the one that you do not mean."
        )
    if file:
        text = _text_in(Path(file))
    return parse_database(text) if text else None


def _text_in(path: Path) -> str:
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise UsageError(f"the file of {DATABASE_FILE_VARIABLE}, {path}: {reason}.") from None
    if not text:
        raise UsageError(f"the file of {DATABASE_FILE_VARIABLE}, {path}, is empty.")
    return text


def risks_of_database(stated: str | None) -> dict[str, str]:
    """What others could see, as the command line has it: names and sentences."""
    if stated is None or "://" not in stated or urlsplit(stated).password is None:
        return {}
    return {
        "database_password_on_command_line": (
            f"The password in the database URL can be read by everybody who can list the processes "
            f"of this machine. Put the URL into a file, and the path of that into "
            f"{DATABASE_FILE_VARIABLE}."
        )
    }
