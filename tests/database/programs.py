"""Where PostgreSQL's programs are on this machine, and how to get them."""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.servers import found_or_installed

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
    """Raises `ServerUnavailableError` (`port` is where none answered)."""
    return found_or_installed(
        find_programs, package="postgresql", missing=NO_DATABASE.format(port=port)
    )


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
