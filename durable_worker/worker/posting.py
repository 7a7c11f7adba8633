"""Answers that nobody waits for: what they answer is acknowledged once the broker has them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog
from msgspec import Struct

from durable_worker.errors import TransportError
from durable_worker.transports.base import Delivery
from durable_worker.worker.crew import Crew

log = structlog.get_logger("durable_worker.worker")

Again = Callable[..., Awaitable[None]]
"""Sends the answer once more and waits; `after` says why it has not arrived yet."""


class Posting(Struct, eq=False):
    """One answer to all of `deliveries`, which are acknowledged once it has arrived.

    The crew is told to expect it; its end, whichever, is told to `end`.
    """

    crew: "WorkCrew"
    deliveries: Sequence[Delivery]
    again: Again
    end: Callable[[], object] = lambda: None
    error: TransportError | None = None

    def told(self, error: TransportError | None) -> None:
        """The broker has answered for it."""
        if error is None:
            self.end()
            for each in self.deliveries:
                each.ack_now()
        elif not self.crew.is_ending:  # else the broker takes the messages back
            self.error = error
            self.crew.start(_send_again, self, name=self.deliveries[0].queue)
        self.crew.came(self)


WorkCrew = Crew[Delivery | Posting]


async def _send_again(posting: Posting) -> None:
    try:
        await posting.again(after=posting.error)
    except (Exception, asyncio.CancelledError) as error:
        if isinstance(error, asyncio.CancelledError) and posting.crew.is_ending:
            raise
        # A defect, as a cancellation of another kind is: it must cost neither worker nor messages.
        log.exception("delivery_not_handled", queue=posting.deliveries[0].queue)
        for each in posting.deliveries:
            await each.release()
    else:
        for each in posting.deliveries:
            await each.ack()
    finally:
        posting.end()
