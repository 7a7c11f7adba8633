"""Where the runs are that a command is about."""

from contextlib import AbstractAsyncContextManager
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from durable_worker.cli.broker import is_stated, message_limit
from durable_worker.cli.databases import stated_database
from durable_worker.cli.options import (
    BROKER_FILE_VARIABLE,
    BROKER_VARIABLE,
    DATABASE_FILE_VARIABLE,
    DATABASE_VARIABLE,
    DEV_DATABASE,
    BrokerOptions,
    Place,
)
from durable_worker.client import Client
from durable_worker.edge.plain import Codec
from durable_worker.errors import UsageError
from durable_worker.stores.address import Address


class _AtBroker(Protocol):
    def open_client(
        self, broker: BrokerOptions, tenant: str, codec: Codec | None
    ) -> AbstractAsyncContextManager[Client]: ...


class _AtDatabase(Protocol):
    def open_client(
        self, where: Address, tenant: str, codec: Codec | None, *, max_message_bytes: int | None
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
    where = place.database or stated_database()
    if where is None and not DEV_DATABASE.exists():
        raise UsageError(
            f"where are the runs? There is no {DEV_DATABASE} here, none of {BROKER_VARIABLE}, "
            f"{BROKER_FILE_VARIABLE}, {DATABASE_VARIABLE} and {DATABASE_FILE_VARIABLE} is set, and "
            f"neither --db PATH nor --broker URL was given. `durable-worker dev TARGET` starts a "
            f"local one."
        )
    at_database = cast("_AtDatabase", import_module("durable_worker.cli.at_database"))
    limit = message_limit(place.broker.connecting.max_message_bytes)
    return at_database.open_client(
        where or DEV_DATABASE, place.effective_tenant, opener, max_message_bytes=limit
    )


def what_to_start(place: Place) -> str:
    """The command that brings an operator to this place."""
    if place.database is None and is_stated(place.broker):
        return "`durable-worker operator`"
    where = place.database or stated_database() or DEV_DATABASE
    if not isinstance(where, Path):
        return "`durable-worker operator`"
    option = "" if where == DEV_DATABASE else f" --db {where}"
    return f"`durable-worker dev TARGET{option}`"
