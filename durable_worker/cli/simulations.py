"""The command that runs a workflow under simulated faults, parsed into `options`."""

from typing import Annotated

import typer

from durable_worker.cli.options import Simulate
from durable_worker.cli.parameters import Debug, Json, Target

_PAIR = "NAME=JSON"


def simulate(
    target: Target,
    *,
    workflow: Annotated[str, typer.Option(metavar="NAME", help="The workflow to run.")],
    input: Annotated[
        str | None, typer.Option("--input", metavar="JSON", help="Its input. Default: null.")
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, metavar="N", help="How many worlds, from seed 0.")
    ] = 1_000,
    seed: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Only this seed, and tell what happens in it."),
    ] = None,
    stub: Annotated[
        list[str] | None,
        typer.Option(metavar=_PAIR, help="What a step returns, instead of being run."),
    ] = None,
    real: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A step that may be run, many times over; all: every one."
        ),
    ] = None,
    signal: Annotated[
        list[str] | None,
        typer.Option(metavar=_PAIR, help="A signal that is sent at the beginning."),
    ] = None,
    faults: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND", help="Only faults of this kind. Default: all kinds."),
    ] = None,
    any_end: Annotated[
        bool,
        typer.Option("--any-end", help="Runs need not end as they do without faults."),
    ] = False,
    processes: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Default: one for each processor."),
    ] = None,
    is_json: Json = False,
    debug: Debug = False,
) -> Simulate:
    """Run a workflow in many simulated worlds with crashes, lost connections and torn transactions;
    exit code 1 if it ends otherwise in one of them."""
    return Simulate(
        target=target,
        workflow=workflow,
        input=input,
        seeds=seeds,
        seed=seed,
        stubs=tuple(stub or ()),
        real=tuple(real or ()),
        signals=tuple(signal or ()),
        faults=tuple(faults or ()),
        any_end=any_end,
        processes=processes,
        is_json=is_json,
        debug=debug,
    )
