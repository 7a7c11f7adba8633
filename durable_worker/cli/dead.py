"""The commands about dead letters, parsed into `options`."""

from typing import Annotated

import typer

from durable_worker.cli.options import ListDead, RedriveDead, ShowDead
from durable_worker.cli.parameters import (
    CodecTarget,
    Database,
    Debug,
    Json,
    Namespace,
    Prefix,
    SomeBroker,
    Tenant,
    place_of,
    some_text,
)
from durable_worker.errors import UsageError
from durable_worker.protocol.base import MAX_INTEGER
from durable_worker.protocol.names import DEFAULT_PREFIX

app = typer.Typer(
    help="Messages that nobody could handle: list, show, and send them again.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

OfRun = Annotated[
    str | None,
    typer.Option("--run", metavar="RUN", help="Only letters of this run.", callback=some_text),
]


@app.command("list")
def _list(  # pyright: ignore[reportUnusedFunction]
    *,
    run_id: OfRun = None,
    limit: Annotated[
        int,
        typer.Option(min=1, max=MAX_INTEGER, metavar="N", help="At most so many, newest first."),
    ] = 20,
    is_json: Json = False,
    database: Database = None,
    broker: SomeBroker = None,
    tenant: Tenant = None,
    namespace: Namespace = None,
    prefix: Prefix = DEFAULT_PREFIX,
    debug: Debug = False,
) -> ListDead:
    """List dead letters, newest first."""
    place = place_of(database, broker, prefix, namespace, tenant)
    return ListDead(place=place, limit=limit, run_id=run_id, is_json=is_json, debug=debug)


@app.command("show")
def _show(  # pyright: ignore[reportUnusedFunction]
    letter_id: Annotated[
        str, typer.Argument(metavar="ID", help="Id of the letter.", callback=some_text)
    ],
    *,
    is_json: Json = False,
    codec: CodecTarget = None,
    database: Database = None,
    broker: SomeBroker = None,
    tenant: Tenant = None,
    namespace: Namespace = None,
    prefix: Prefix = DEFAULT_PREFIX,
    debug: Debug = False,
) -> ShowDead:
    """Show one dead letter: why it died, what it is about, its headers and its body."""
    place = place_of(database, broker, prefix, namespace, tenant)
    return ShowDead(place=place, letter_id=letter_id, is_json=is_json, codec=codec, debug=debug)


@app.command("redrive")
def _redrive(  # pyright: ignore[reportUnusedFunction]
    letter_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of letters.")
    ] = None,
    *,
    is_all: Annotated[
        bool, typer.Option("--all", help="All that something failed of, or that were not read.")
    ] = False,
    run_id: OfRun = None,
    database: Database = None,
    broker: SomeBroker = None,
    tenant: Tenant = None,
    namespace: Namespace = None,
    prefix: Prefix = DEFAULT_PREFIX,
    debug: Debug = False,
) -> RedriveDead:
    """Have done again what letters are about; runs that failed because of them go on."""
    if is_all == bool(letter_ids):
        raise UsageError("name the letters, or say --all: one of the two")
    if run_id is not None and not is_all:
        raise UsageError("--run goes with --all")
    return RedriveDead(
        place=place_of(database, broker, prefix, namespace, tenant),
        letter_ids=tuple(dict.fromkeys(letter_ids or ())),
        run_id=run_id,
        debug=debug,
    )
