"""Arguments and options that several commands share."""

from typing import Annotated

import typer

from durable_worker.cli.options import (
    BROKER_FILE_VARIABLE,
    BROKER_VARIABLE,
    DATABASE_FILE_VARIABLE,
    DATABASE_VARIABLE,
    DEFAULT_BROKER,
    DEV_DATABASE,
    BrokerOptions,
    LogFormat,
    Place,
)
from durable_worker.errors import UsageError
from durable_worker.stores.address import parse_database
from durable_worker.worker.determinism.policy import DETERMINISM_VARIABLE, Determinism

Target = Annotated[
    str,
    typer.Argument(
        metavar="TARGET", help="Where the Worker is: module:attribute or path/to/file.py:attribute."
    ),
]
Broker = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help=f"RabbitMQ. Default: ${BROKER_VARIABLE} or what is in the file "
        f"${BROKER_FILE_VARIABLE}, else {DEFAULT_BROKER}",
        show_default=False,
    ),
]
SomeBroker = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help=f"RabbitMQ. Default: ${BROKER_VARIABLE} or what is in the file "
        f"${BROKER_FILE_VARIABLE}.",
    ),
]
Prefix = Annotated[str, typer.Option(metavar="NAME", help="Start of every queue name.")]
Namespace = Annotated[str | None, typer.Option(metavar="NAME", help="Isolates runs and queues.")]
Partition = Annotated[str | None, typer.Option(metavar="NAME", help="Isolates task queues.")]
Format = Annotated[LogFormat, typer.Option(help="How log lines look.")]
Checks = Annotated[
    Determinism | None,
    typer.Option(
        help="What to do about workflow bodies that a replay could not repeat. Default: "
        f"${DETERMINISM_VARIABLE}, else `run` warns and `dev` raises.",
        show_default=False,
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug lines.")]
Database = Annotated[
    str | None,
    typer.Option(
        "--db",
        metavar="PATH|URL",
        help=f"Database: a file, postgresql://USER@HOST/DATABASE or "
        f"mysql://USER@HOST/DATABASE. Default, if no broker is "
        f"given: ${DATABASE_VARIABLE} or what is in the file ${DATABASE_FILE_VARIABLE}, else "
        f"{DEV_DATABASE} if it exists.",
        show_default=False,
    ),
]
Tenant = Annotated[
    str | None, typer.Option(metavar="NAME", help="Whose runs. Default: the namespace.")
]
CodecTarget = Annotated[
    str | None,
    typer.Option("--codec", metavar="TARGET", help="A PayloadCodec to use: module:attribute."),
]
Json = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]


def some_text(value: str | None) -> str | None:
    """A name or an id, which is not empty and can be written down."""
    if value == "":
        raise typer.BadParameter("it is empty")
    try:
        (value or "").encode()
    except UnicodeEncodeError:
        raise typer.BadParameter("it is not UTF-8 text") from None
    return value


RunId = Annotated[str, typer.Argument(metavar="RUN", help="Id of the run.", callback=some_text)]


def place_of(
    database: str | None,
    broker: str | None,
    prefix: str,
    namespace: str | None,
    tenant: str | None,
) -> Place:
    if database is not None and broker is not None:
        raise UsageError("--db and --broker exclude each other: runs are in one place or the other")
    where = None if database is None else parse_database(database)
    return Place(database=where, broker=BrokerOptions(broker, prefix, namespace), tenant=tenant)
