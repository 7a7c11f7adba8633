"""The command line: every command, argument and option, parsed by Typer into `options`.

Nothing is performed here, so `--help` and a mistyped option cost no adapter.
"""

import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from durable_worker.cli import checks, connections, db, dead, issuing, reviving, simulations
from durable_worker.cli.databases import dev_database
from durable_worker.cli.options import (
    DATABASE_FILE_VARIABLE,
    DATABASE_VARIABLE,
    DEFAULT_CONCURRENCY,
    DEFAULT_GRACE,
    DEFAULT_RENEW_AFTER,
    DEV_DATABASE,
    LONGEST_GRACE,
    LONGEST_RENEWAL,
    OPERATOR_DATABASE,
    SHORTEST_RENEWAL,
    TENANT_KEYS_VARIABLE,
    AnyOptions,
    BrokerOptions,
    Cancel,
    Dev,
    ListRuns,
    LogFormat,
    Operate,
    Query,
    Run,
    Show,
    Signal,
    Start,
)
from durable_worker.cli.parameters import (
    Broker,
    Checks,
    CodecTarget,
    Database,
    Debug,
    Format,
    Json,
    Namespace,
    Partition,
    Prefix,
    RunId,
    SomeBroker,
    Target,
    Tenant,
)
from durable_worker.cli.parameters import place_of as _place
from durable_worker.cli.parameters import some_text as _text
from durable_worker.errors import UsageError
from durable_worker.protocol.base import MAX_INTEGER
from durable_worker.protocol.names import DEFAULT_PREFIX
from durable_worker.protocol.runs import RunStatus
from durable_worker.version import VERSION

PROGRAM = "durable-worker"

app = typer.Typer(
    name=PROGRAM,
    help="Durable workflows in plain async Python.",
    add_completion=False,
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def parse(arguments: Sequence[str]) -> AnyOptions | int:
    """The command to perform; an exit code if there is none, because help was asked for.

    Raises `UsageError`.
    """
    try:
        parsed: AnyOptions | int | None = app(
            list(arguments), prog_name=PROGRAM, standalone_mode=False
        )
    except typer.TyperException as error:
        command = getattr(getattr(error, "ctx", None), "command_path", PROGRAM)
        raise UsageError(
            f"{error.format_message().rstrip('.')}. `{command} --help` says what there is."
        ) from error
    return 0 if parsed is None else parsed


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"{PROGRAM} {VERSION}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _program(  # pyright: ignore[reportUnusedFunction]
    context: typer.Context,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("run")
def _run(  # pyright: ignore[reportUnusedFunction]
    target: Target,
    *,
    broker: Broker = None,
    concurrency: Annotated[
        int, typer.Option(min=1, metavar="N", help="Steps and turns at a time.")
    ] = DEFAULT_CONCURRENCY,
    partition: Partition = None,
    namespace: Namespace = None,
    prefix: Prefix = DEFAULT_PREFIX,
    log_format: Format = LogFormat.CONSOLE,
    grace: Annotated[
        float,
        typer.Option(
            min=0,
            max=LONGEST_GRACE.total_seconds(),
            metavar="SECONDS",
            help="Time to finish what runs on a stop.",
        ),
    ] = DEFAULT_GRACE.total_seconds(),
    renew_after: Annotated[
        float,
        typer.Option(
            min=SHORTEST_RENEWAL.total_seconds(),
            max=LONGEST_RENEWAL.total_seconds(),
            metavar="SECONDS",
            help="Age at which a message that is still worked on is renewed at the broker: "
            "less than half of its consumer_timeout.",
        ),
    ] = DEFAULT_RENEW_AFTER.total_seconds(),
    determinism: Checks = None,
    debug: Debug = False,
) -> Run:
    """Serve the steps and workflows of a Worker on RabbitMQ."""
    return Run(
        target=target,
        broker=BrokerOptions(broker, prefix, namespace),
        concurrency=concurrency,
        partition=partition,
        grace=timedelta(seconds=grace),
        renew_after=timedelta(seconds=renew_after),
        determinism=determinism,
        log_format=log_format,
        debug=debug,
    )


@app.command("dev")
def _dev(  # pyright: ignore[reportUnusedFunction]
    target: Target,
    *,
    database: Annotated[
        str | None,
        typer.Option(
            "--db",
            metavar="PATH|URL",
            help=f"Database file, postgresql://USER@HOST/DATABASE or "
            f"mysql://USER@HOST/DATABASE. Default: {DEV_DATABASE}",
            show_default=False,
        ),
    ] = None,
    is_not_reloading: Annotated[
        bool, typer.Option("--no-reload", help="Do not restart when source files change.")
    ] = False,
    determinism: Checks = None,
    max_message_bytes: connections.MaxMessage = None,
    log_format: Format = LogFormat.CONSOLE,
    debug: Debug = False,
) -> Dev:
    """Everything in one process: operator and worker, no broker, state in a SQLite file."""
    return Dev(
        target=target,
        database=dev_database(database),
        is_reloading=not is_not_reloading,
        max_message_bytes=max_message_bytes,
        determinism=determinism,
        log_format=log_format,
        debug=debug,
    )


@app.command("operator")
def _operator(  # pyright: ignore[reportUnusedFunction]
    *,
    broker: Broker = None,
    database: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="A path, sqlite:///PATH, postgresql://USER@HOST/DATABASE or "
            "mysql://USER@HOST/DATABASE. Default: "
            f"${DATABASE_VARIABLE} or what is in the file ${DATABASE_FILE_VARIABLE}, else "
            f"{OPERATOR_DATABASE}",
            show_default=False,
        ),
    ] = None,
    tenant_keys: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Take starts and requests only with a tenant token that a key in this file has "
            f"signed. Default: ${TENANT_KEYS_VARIABLE}.",
        ),
    ] = None,
    partition: Partition = None,
    namespace: Namespace = None,
    prefix: Prefix = DEFAULT_PREFIX,
    log_format: Format = LogFormat.CONSOLE,
    debug: Debug = False,
) -> Operate:
    """Run the operator: it owns the state of all runs and hands tasks to the workers."""
    return Operate(
        database=database,
        broker=BrokerOptions(broker, prefix, namespace),
        tenant_keys=tenant_keys,
        partition=partition,
        log_format=log_format,
        debug=debug,
    )


@app.command("start")
def _start(  # pyright: ignore[reportUnusedFunction]
    workflow: Annotated[
        str,
        typer.Argument(metavar="WORKFLOW", help="Name of the workflow.", callback=_text),
    ],
    *,
    input: Annotated[str | None, typer.Option(metavar="JSON", help="Its input.")] = None,
    run_id: Annotated[
        str | None,
        typer.Option(
            "--id",
            metavar="ID",
            help="Id of the run; starting it twice is harmless.",
            callback=_text,
        ),
    ] = None,
    is_waiting: Annotated[
        bool, typer.Option("--wait", help="Wait for the end and print the output as JSON.")
    ] = False,
    context: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Text that reaches each step of the run. Can be given several times.",
        ),
    ] = None,
    codec: CodecTarget = None,
    database: Database = None,
    broker: SomeBroker = None,
    tenant: Tenant = None,
    namespace: Namespace = None,
    prefix: Prefix = DEFAULT_PREFIX,
    debug: Debug = False,
) -> Start:
    """Start a run."""
    return Start(
        place=_place(database, broker, prefix, namespace, tenant),
        workflow=workflow,
        input=input,
        run_id=run_id,
        is_waiting=is_waiting,
        context=tuple(context or ()),
        codec=codec,
        debug=debug,
    )


@app.command("runs")
def _runs(  # pyright: ignore[reportUnusedFunction]
    *,
    status: Annotated[RunStatus | None, typer.Option(help="Only runs in this status.")] = None,
    workflow: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only runs of this workflow.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="With this search attribute (JSON, else text); repeatable."
        ),
    ] = None,
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
) -> ListRuns:
    """List runs, newest first."""
    return ListRuns(
        place=_place(database, broker, prefix, namespace, tenant),
        status=status,
        workflow=workflow,
        where=tuple(where or ()),
        limit=limit,
        is_json=is_json,
        debug=debug,
    )


@app.command("show")
def _show(  # pyright: ignore[reportUnusedFunction]
    run_id: RunId,
    *,
    is_json: Json = False,
    codec: CodecTarget = None,
    database: Database = None,
    broker: SomeBroker = None,
    tenant: Tenant = None,
    namespace: Namespace = None,
    prefix: Prefix = DEFAULT_PREFIX,
    debug: Debug = False,
) -> Show:
    """Show one run: its state, and each step with attempts and duration."""
    place = _place(database, broker, prefix, namespace, tenant)
    return Show(place=place, run_id=run_id, is_json=is_json, codec=codec, debug=debug)


@app.command("signal")
def _signal(  # pyright: ignore[reportUnusedFunction]
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the signal.", callback=_text)
    ],
    *,
    payload: Annotated[str | None, typer.Option(metavar="JSON", help="What it carries.")] = None,
    codec: CodecTarget = None,
    database: Database = None,
    broker: SomeBroker = None,
    tenant: Tenant = None,
    namespace: Namespace = None,
    prefix: Prefix = DEFAULT_PREFIX,
    debug: Debug = False,
) -> Signal:
    """Send a signal to the run that waits for it, or that will."""
    place = _place(database, broker, prefix, namespace, tenant)
    return Signal(place=place, name=name, payload=payload, codec=codec, debug=debug)


@app.command("query")
def _query(  # pyright: ignore[reportUnusedFunction]
    run_id: RunId,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to ask for.", callback=_text)],
    *,
    codec: CodecTarget = None,
    database: Database = None,
    broker: SomeBroker = None,
    tenant: Tenant = None,
    namespace: Namespace = None,
    prefix: Prefix = DEFAULT_PREFIX,
    debug: Debug = False,
) -> Query:
    """Print what a run answers to a query, as JSON."""
    place = _place(database, broker, prefix, namespace, tenant)
    return Query(place=place, run_id=run_id, name=name, codec=codec, debug=debug)


@app.command("cancel")
def _cancel(  # pyright: ignore[reportUnusedFunction]
    run_id: RunId,
    *,
    is_final: Annotated[
        bool, typer.Option("--now", help="End it at once: its body is not told, nothing is undone.")
    ] = False,
    database: Database = None,
    broker: SomeBroker = None,
    tenant: Tenant = None,
    namespace: Namespace = None,
    prefix: Prefix = DEFAULT_PREFIX,
    debug: Debug = False,
) -> Cancel:
    """Cancel a run, its running steps and its children; its body undoes what it has done."""
    place = _place(database, broker, prefix, namespace, tenant)
    return Cancel(place=place, run_id=run_id, is_final=is_final, debug=debug)


reviving.add_to(app)
app.command("replay")(checks.replay)
app.command("simulate")(simulations.simulate)
app.command("check")(checks.check)
app.add_typer(dead.app, name="dead")
app.add_typer(db.app, name="db")
app.command("token")(issuing.token)
connections.add_to(app)
