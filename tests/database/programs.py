"""Where PostgreSQL's programs are on this machine, and how to get them."""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.broker.programs import install_package
from tests.database.faults import DatabaseUnavailableError

NO_DATABASE = (
    "no PostgreSQL answers on port {port} and none is installed. Install one (Debian, Ubuntu: "
    "`sudo apt-get install postgresql`; macOS: `brew install postgresql`), or set "
    "DURABLE_TEST_POSTGRES_URL=postgresql://user@host/database to use another one."
)


@dataclass(frozen=True, slots=True)
class Programs:
    initdb: str
    postgres: str


def find_programs() -> Programs | None:
    """Of the newest version that has them all."""
    for folder in _folders():
        programs = Programs(str(folder / "initdb"), str(folder / "postgres"))
        if all(os.access(each, os.X_OK) for each in (programs.initdb, programs.postgres)):
            return programs
    initdb, postgres = shutil.which("initdb"), shutil.which("postgres")
    return Programs(initdb, postgres) if initdb and postgres else None


def require_programs(port: int) -> Programs:
    """Find PostgreSQL, or install it where that is possible without asking anybody.

    Raises `DatabaseUnavailableError` (`port` is where none answered).
    """
    if programs := find_programs():
        return programs
    if os.geteuid() == 0 and shutil.which("apt-get"):
        problem = install_package("postgresql", is_there=lambda: find_programs() is not None)
        if programs := find_programs():
            return programs
        raise DatabaseUnavailableError(
            f"there is no PostgreSQL to test against, and it cannot be installed: {problem}"
        )
    raise DatabaseUnavailableError(NO_DATABASE.format(port=port))


def _folders() -> list[Path]:
    found = [
        *Path("/usr/lib/postgresql").glob("*/bin"),
        *Path("/usr").glob("pgsql-*/bin"),
        *Path("/opt/homebrew/opt").glob("postgresql*/bin"),
        *Path("/usr/local").glob("pgsql/bin"),
    ]
    return sorted(found, key=_version_in, reverse=True)


def _version_in(folder: Path) -> float:
    number = re.search(r"\d+(\.\d+)?", folder.parent.name)
    return float(number[0]) if number else 0.0
