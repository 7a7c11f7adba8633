"""Opens a client with an application, keeps it open, and closes it with the application."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta

import structlog

from durable_worker.client import Client
from durable_worker.errors import DurableError

log = structlog.stdlib.get_logger("durable_worker.asgi")

DEFAULT_PATIENCE = timedelta(seconds=3)

_FIRST_RETRY_SECONDS = 1.0
_LAST_RETRY_SECONDS = 30.0


class ClientUnavailableError(DurableError):
    """The application has no client right now. `failure`: what stopped the last one, if any."""

    code = "client-unavailable"

    def __init__(self, reason: str, *, failure: DurableError | None = None) -> None:
        super().__init__(f"durable runs cannot be reached: {reason}")
        self.failure = failure


class AppClient:
    """One client for one application process; call it to get the client, as `Depends(durable)`
    does.

    `opening` makes what gives a client when it is entered: an `Embedded`, a `broker_client(...)`, a
    context manager of yours. It is called again if that ends with a `DurableError`, after 1 to 30
    seconds.

    Start-up waits for the client for `patience`, then goes on without: while a broker is away, the
    application serves, and a call raises `ClientUnavailableError`. What fails within `patience`
    (bad credentials, a damaged database) fails the start-up.
    """

    def __init__(
        self,
        opening: Callable[[], AbstractAsyncContextManager[Client]],
        *,
        patience: timedelta = DEFAULT_PATIENCE,
    ) -> None:
        self._opening = opening
        self._patience = patience
        self._client: Client | None = None
        self._failure: DurableError | None = None
        self._stop: asyncio.Event | None = None

    def __call__(self) -> Client:
        """Raises `ClientUnavailableError`."""
        if self._client is None:
            raise ClientUnavailableError(self._reason(), failure=self._failure)
        return self._client

    def _reason(self) -> str:
        if self._failure is not None:
            return f"{self._failure}; the client is opened again in a moment"
        if self._stop is None or self._stop.is_set():
            return "the application is not running; was `lifespan` given to it?"
        return "the client is not connected yet"

    @asynccontextmanager
    async def lifespan(self, _app: object = None, /) -> AsyncGenerator[None]:
        """For the `lifespan` of an application; within your own as `async with
        durable.lifespan(app)`. Can be entered again once it was left."""
        settled, stop = asyncio.Event(), self._new_stop()
        failure: Exception | None
        async with asyncio.TaskGroup() as group:
            holding = group.create_task(self._hold(settled, stop))
            failure = await self._first_outcome(settled)
            try:
                if failure is None:
                    yield
            except Exception as error:
                failure = error  # raised below, where the group does not wrap it
            finally:
                stop.set()
                if self._client is None:
                    holding.cancel()
        if failure is not None:
            raise failure

    def _new_stop(self) -> asyncio.Event:
        self._failure, self._stop = None, asyncio.Event()
        return self._stop

    async def _first_outcome(self, settled: asyncio.Event) -> DurableError | None:
        try:
            async with asyncio.timeout(self._patience.total_seconds()):
                await settled.wait()
        except TimeoutError:
            log.warning("client_not_open_yet", waited_seconds=self._patience.total_seconds())
        return self._failure

    async def _hold(self, settled: asyncio.Event, stop: asyncio.Event) -> None:
        pause = _FIRST_RETRY_SECONDS
        while not stop.is_set():
            try:
                async with self._opening() as client:
                    self._client, self._failure = client, None
                    pause = _FIRST_RETRY_SECONDS
                    settled.set()
                    log.info("client_open")
                    try:
                        await stop.wait()
                    finally:
                        self._client = None
            except DurableError as error:
                self._failure = error
                settled.set()
                log.error("client_failed", error=str(error), retry_in_seconds=pause)
                if stop.is_set():
                    return
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LAST_RETRY_SECONDS)
