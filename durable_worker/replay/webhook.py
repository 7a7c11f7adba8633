"""A wait whose name is known before anything waits."""

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

from durable_worker.protocol.commands import WaitSignal
from durable_worker.protocol.names import webhook_signal
from durable_worker.protocol.payload import PayloadDecoder
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind
from durable_worker.replay.arguments import Timeout, caller, limit_of
from durable_worker.replay.operations import Location, Requested
from durable_worker.replay.turn import Replay

T = TypeVar("T")


class Webhook(Generic[T]):
    """A signal of this run alone. Hand `token` to whoever shall call back, then await the webhook.

    It is outstanding from its creation on, awaited or not: so the operator knows the token before
    any step that was given it runs, and the rule that decides what an idle point delivers
    (protocol/README.md, "Markers") holds for it as for any other operation. Nobody waits for the
    future itself but through a shield, so a wait that is given up leaves it as it is.
    """

    def __init__(self, replay: Replay, *, decoder: PayloadDecoder[T], location: Location) -> None:
        self._replay = replay
        self._decoder = decoder
        seq = replay.journal.take_seq()
        self.token = webhook_signal(replay.run_id, seq)
        request = WaitSignal(seq=seq, signal=self.token)
        self._called_back = replay.waiting.open(
            Requested(seq, HistoryKind.SIGNAL, self.token, location, request=request)
        )

    def wait(self, *, timeout: Timeout = None) -> Coroutine[Any, Any, T]:
        """The payload of the callback; any number of waits get the same.

        Raises `TimeoutError` once `timeout` (seconds if a number) is over; a later wait still gets
        a callback that comes late.
        """
        return self._operation(timeout, caller())

    def __await__(self) -> Generator[Any, Any, T]:
        return self._operation(None, caller()).__await__()

    def _operation(self, timeout: Timeout, location: Location) -> Coroutine[Any, Any, T]:
        journal = self._replay.journal
        token = journal.next_token()
        coroutine = self._wait(token, limit_of(timeout))
        journal.called(token, coroutine, "webhook().wait", "", location)
        return coroutine

    async def _wait(self, token: int, limit: float | None) -> T:
        await self._replay.waiting.begin(token)
        async with asyncio.timeout(limit):
            event: HistoryEvent = await asyncio.shield(self._called_back)
        return self._decoder.decode(event.output, what=f"the payload of webhook {self.token!r}")
