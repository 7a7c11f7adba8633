"""Where the runs are that a command is about."""

from contextlib import AbstractAsyncContextManager
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from durable_worker.cli.broker import is_stated, message_limit
from durable_worker.cli.options import (
    BROKER_FILE_VARIABLE,
    BROKER_VARIABLE,
    DEV_DATABASE,
    BrokerOptions,
    Place,
)
from durable_worker.client import Client
from durable_worker.edge.plain import Codec
from durable_worker.errors import UsageError


class _AtBroker(Protocol):
    def open_client(
        self, broker: BrokerOptions, tenant: str, codec: Codec | None
    ) -> AbstractAsyncContextManager[Client]: ...


class _AtDatabase(Protocol):
    def open_client(
        self, path: Path, tenant: str, codec: Codec | None, *, max_message_bytes: int | None
    ) -> AbstractAsyncContextManager[Client]: ...


class _Codecs(Protocol):
    def load_codec(self, target: str) -> Codec: ...


def open_client(
    place: Place, *, codec: "Codec | str | None" = None
) -> AbstractAsyncContextManager[Client]:
    """A client for the place; its adapter is imported only now. Raises `UsageError`.

    `codec` is a PayloadCodec, or where one is.
    """
    opener: Codec | None = None
    if not isinstance(codec, str):
        opener = codec
    else:
        codecs = cast("_Codecs", import_module("durable_worker.cli.codecs"))
        opener = codecs.load_codec(codec)
    if place.database is None and is_stated(place.broker):
        at_broker = cast("_AtBroker", import_module("durable_worker.cli.at_broker"))
        return at_broker.open_client(place.broker, place.effective_tenant, opener)
    path = place.database or DEV_DATABASE
    if place.database is None and not path.exists():
        raise UsageError(
            f"where are the runs? There is no {path} here, neither {BROKER_VARIABLE} nor "
            f"{BROKER_FILE_VARIABLE} is set, and neither --db PATH nor --broker URL was given. "
            f"`durable-worker dev TARGET` starts a local one."
        )
    at_database = cast("_AtDatabase", import_module("durable_worker.cli.at_database"))
    limit = message_limit(place.broker.connecting.max_message_bytes)
    return at_database.open_client(path, place.effective_tenant, opener, max_message_bytes=limit)


def what_to_start(place: Place) -> str:
    """The command that brings an operator to this place."""
    if place.database is None and is_stated(place.broker):
        return "`durable-worker operator`"
    path = place.database or DEV_DATABASE
    option = "" if path == DEV_DATABASE else f" --db {path}"
    return f"`durable-worker dev TARGET{option}`"
