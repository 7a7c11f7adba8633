"""The commands that hold recorded runs against the code, parsed into `options`."""

from typing import Annotated

import typer

from durable_worker.cli.options import Check, Replay
from durable_worker.cli.parameters import (
    Database,
    Debug,
    Json,
    Namespace,
    Prefix,
    SomeBroker,
    Target,
    Tenant,
    place_of,
)
from durable_worker.errors import UsageError
from durable_worker.protocol.names import DEFAULT_PREFIX

_AMQP = ("amqp://", "amqps://")


def replay(
    target: Target,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="JSON that `show --json` prints, or a WorkflowTask; a directory means all *.json "
            "in it, - is standard input.",
        ),
    ],
    *,
    ignores_end: Annotated[
        bool,
        typer.Option(
            "--ignore-output", help="Do not compare the output or failure of a run that has ended."
        ),
    ] = False,
    is_json: Json = False,
    debug: Debug = False,
) -> Replay:
    """Replay recorded runs on today's code; exit code 1 if one no longer fits. Runs no step."""
    return Replay(
        target=target,
        files=tuple(files),
        compares_end=not ignores_end,
        is_json=is_json,
        debug=debug,
    )


def check(
    target: Target,
    *,
    operator: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where the runs are: amqp://... of a broker, or a database (postgresql://..., "
            "mysql://..., sqlite:///PATH or a path). The same as --broker or --db.",
        ),
    ] = None,
    workflow: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only runs of this workflow.")
    ] = None,
    is_json: Json = False,
    database: Database = None,
    broker: SomeBroker = None,
    tenant: Tenant = None,
    namespace: Namespace = None,
    prefix: Prefix = DEFAULT_PREFIX,
    debug: Debug = False,
) -> Check:
    """Replay every open run on new code before it is deployed; exit code 1 if one would break."""
    if operator is not None:
        if database is not None or broker is not None:
            raise UsageError("--operator says where the runs are: leave out --db and --broker")
        database, broker = _either(operator)
    place = place_of(database, broker, prefix, namespace, tenant)
    return Check(place=place, target=target, workflow=workflow, is_json=is_json, debug=debug)


def _either(operator: str) -> tuple[str | None, str | None]:
    return (None, operator) if operator.startswith(_AMQP) else (operator, None)
