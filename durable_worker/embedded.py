"""Operator, worker and transport in one process, state in a SQLite file: nothing to install."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from os import PathLike
from types import TracebackType
from typing import cast

from msgspec import structs

from durable_worker.client import Client
from durable_worker.errors import DurableError
from durable_worker.operator.options import OperatorOptions
from durable_worker.operator.service import OperatorService
from durable_worker.own_operator import OwnOperatorPort
from durable_worker.protocol.names import Names
from durable_worker.stores.address import ServerAddress
from durable_worker.stores.base import Store
from durable_worker.stores.memory import MemoryStore
from durable_worker.stores.opening import store_at
from durable_worker.transports.base import DEFAULT_MAX_MESSAGE_BYTES
from durable_worker.transports.memory import MemoryTransport
from durable_worker.worker.determinism.policy import determinism_here
from durable_worker.worker.options import WorkerOptions
from durable_worker.worker.registry import Worker
from durable_worker.worker.service import WorkerService

DEFAULT_GRACE = timedelta(seconds=5)


class Embedded:
    """Runs a worker's workflows in this process; entering it gives a client for them.

    The client has the worker's codec. `database` is a file or a PostgreSQL URL, which any number of
    processes may read while one operates it; without it nothing outlives the process. On leaving,
    running steps get the grace period of `options` (5 s by default), then they are cancelled; the
    next process runs them again.

    `max_message_bytes` bounds inputs, results, signals and decisions, as a broker would.

    In tests and in development (`determinism_here`) bodies that a replay could not repeat fail
    their runs, unless `options` says otherwise; every turn is then replayed twice.

    Leaving raises `StoreError` and its kin if the database failed meanwhile. Use once.
    """

    def __init__(
        self,
        worker: Worker,
        *,
        database: str | PathLike[str] | ServerAddress | None = None,
        options: WorkerOptions | None = None,
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
    ) -> None:
        names = Names()
        self._store: Store = MemoryStore() if database is None else store_at(database)
        self._transport = MemoryTransport(names=names, max_message_bytes=max_message_bytes)
        self._operator = OperatorService(
            self._store,
            self._transport,
            names=names,
            options=OperatorOptions(tells_events=False),
        )
        self._service = WorkerService(
            worker,
            self._transport,
            names=names,
            options=_with_determinism(options or WorkerOptions(grace=DEFAULT_GRACE)),
        )
        port = OwnOperatorPort(self._operator, max_message_bytes=max_message_bytes)
        self._client = Client(port, directory=worker, codec=worker.codec)
        self._lifetime: AbstractAsyncContextManager[Client] | None = None

    async def __aenter__(self) -> Client:
        self._lifetime = self._live()
        return await self._lifetime.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> bool | None:
        if self._lifetime is None:
            return None
        return await self._lifetime.__aexit__(kind, error, trace)

    def hurry(self) -> None:
        """Cancel running steps now instead of after the grace period."""
        self._service.request_stop(hurry=True)

    @asynccontextmanager
    async def _live(self) -> AsyncGenerator[Client]:
        async with self._store, self._transport:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._operator.serve())
                    working = group.create_task(self._service.serve())
                    try:
                        yield self._client
                    finally:
                        # The worker first: the operator is there for its last answers.
                        self._service.request_stop()
                        await asyncio.wait([working])
                        self._operator.request_stop()
            except BaseExceptionGroup as failures:
                raise _first(failures) from None


def _with_determinism(options: WorkerOptions) -> WorkerOptions:
    if options.determinism is not None:
        return options
    return structs.replace(options, determinism=determinism_here())


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that was foreseen, if one is among them."""
    causes = [
        _first(cast("BaseExceptionGroup[BaseException]", each))
        if isinstance(each, BaseExceptionGroup)
        else each
        for each in failures.exceptions
    ]
    return next((each for each in causes if isinstance(each, DurableError)), causes[0])
