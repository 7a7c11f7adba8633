"""The command that issues tokens, parsed into `options`."""

from pathlib import Path
from typing import Annotated

import typer

from durable_worker.cli.durations import duration_of
from durable_worker.cli.options import TENANT_KEYS_VARIABLE, Token
from durable_worker.cli.parameters import Debug, some_text
from durable_worker.errors import UsageError
from durable_worker.protocol.tokens import READS


def token(
    *,
    tenant: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Whose runs it is good for.", callback=some_text),
    ] = None,
    is_worker: Annotated[
        bool,
        typer.Option(
            "--worker", help="For a worker: good for looking at a run of any tenant, nothing else."
        ),
    ] = False,
    keys: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=f"Key file. Default: ${TENANT_KEYS_VARIABLE}."),
    ] = None,
    expires: Annotated[
        str, typer.Option(metavar="DURATION", help="How long it is good: 90s, 15m, 1h, 30d.")
    ],
    is_reading: Annotated[
        bool, typer.Option("--read-only", help="It starts, signals and cancels nothing.")
    ] = False,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND",
            help="Only this: start, or a kind of request. Can be given several times.",
        ),
    ] = None,
    debug: Debug = False,
) -> Token:
    """Issue a tenant token, for an operator that runs with --tenant-keys."""
    if (tenant is None) is not is_worker:
        raise UsageError("a token is for a tenant (--tenant NAME) or for a worker (--worker).")
    allowed = [*(READS if is_reading else ()), *(allow or ())]
    if is_worker and allowed:
        raise UsageError("what a worker's token allows is fixed: leave out --read-only and --allow")
    return Token(
        keys=keys,
        tenant=tenant,
        expires=duration_of(expires),
        allow=tuple(allowed) or None,
        debug=debug,
    )
