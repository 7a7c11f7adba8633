"""A database that is not there yet is waited for, as a broker is."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

import structlog

from durable_worker.cli.durations import in_words
from durable_worker.errors import StoreUnavailableError
from durable_worker.stores.base import Store

_RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0)

log = structlog.get_logger("durable_worker.store")


@asynccontextmanager
async def opened(store: Store) -> AsyncGenerator[None]:
    """Raises `StoreError` for what waiting does not cure."""
    async with AsyncExitStack() as stack:
        attempt = 0
        while True:
            try:
                await stack.enter_async_context(store)
                break
            except StoreUnavailableError as error:
                pause = _RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)]
                attempt += 1
                log.warning(
                    "database_unavailable",
                    attempt=attempt,
                    retry_in=in_words(timedelta(seconds=pause)),
                    reason=str(error),
                )
            await asyncio.sleep(pause)
        if attempt:
            log.info("database_available")
        yield
