"""Events of a run as server-sent events, for `EventSource` in a browser."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import timedelta

import msgspec

from durable_worker.client import RunEvent

KEEP_ALIVE = timedelta(seconds=15)

_COMMENT = b": keep-alive\n\n"


async def server_sent_events(
    events: AsyncGenerator[RunEvent], *, keep_alive: timedelta = KEEP_ALIVE
) -> AsyncGenerator[bytes]:
    """The body of a response of type `text/event-stream`: one event each, `event` its type, `data`
    the JSON of `RunEvent.as_json()`; where nothing happens, a comment, so that proxies keep the
    connection open. Closes `events` at its end.

    Browsers connect again at the end of a response: close the `EventSource` when an event with a
    `status` comes.
    """
    coming = asyncio.ensure_future(anext(events))
    try:
        while True:
            done, _ = await asyncio.wait([coming], timeout=keep_alive.total_seconds())
            if not done:
                yield _COMMENT
                continue
            try:
                event = coming.result()
            except StopAsyncIteration:
                return
            yield _encoded(event)
            coming = asyncio.ensure_future(anext(events))
    finally:
        coming.cancel()
        await asyncio.wait([coming])
        await events.aclose()


def _encoded(event: RunEvent) -> bytes:
    # JSON holds no line breaks, so each field is one line.
    return b"event: %s\ndata: %s\n\n" % (event.type.encode(), msgspec.json.encode(event.as_json()))
