"""The commands about the operator's database as a whole, parsed into `options`."""

from pathlib import Path
from typing import Annotated

import typer

from durable_worker.cli.options import (
    DATABASE_FILE_VARIABLE,
    DATABASE_VARIABLE,
    CheckDb,
    ExportDb,
    ImportDb,
    UpgradeDb,
)
from durable_worker.cli.parameters import Debug

app = typer.Typer(
    help="The operator's database: create or upgrade its tables, and move what is in it.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Which = Annotated[
    str | None,
    typer.Argument(
        metavar="DATABASE",
        help=f"A path, sqlite:///PATH, postgresql://USER@HOST/DATABASE or "
        f"mysql://USER@HOST/DATABASE. Default: "
        f"${DATABASE_VARIABLE} or what is in the file ${DATABASE_FILE_VARIABLE}.",
        show_default=False,
    ),
]


@app.command("upgrade")
def _upgrade(  # pyright: ignore[reportUnusedFunction]
    database: Which = None, *, debug: Debug = False
) -> UpgradeDb:
    """Create the tables, or bring them to the version of this release."""
    return UpgradeDb(database=database, debug=debug)


@app.command("check")
def _check(  # pyright: ignore[reportUnusedFunction]
    database: Which = None, *, debug: Debug = False
) -> CheckDb:
    """Tell the version of the tables, and what to do; exit code 1 if there is something to do."""
    return CheckDb(database=database, debug=debug)


@app.command("export")
def _export(  # pyright: ignore[reportUnusedFunction]
    database: Which = None,
    *,
    file: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="A new file. Default: standard output."
        ),
    ] = None,
    debug: Debug = False,
) -> ExportDb:
    """Write everything as JSON Lines: runs with their histories, and what waits around them."""
    return ExportDb(database=database, file=file, debug=debug)


@app.command("import")
def _import(  # pyright: ignore[reportUnusedFunction]
    database: Which = None,
    *,
    file: Annotated[
        Path | None,
        typer.Option("--input", "-i", metavar="FILE", help="Default: standard input."),
    ] = None,
    is_merging: Annotated[
        bool,
        typer.Option(
            "--merge",
            help="Into a database that holds something already; runs with the same id are "
            "replaced.",
        ),
    ] = False,
    debug: Debug = False,
) -> ImportDb:
    """Read what `export` wrote into a database, of whichever kind; no operator may work on it."""
    return ImportDb(database=database, file=file, is_merging=is_merging, debug=debug)
