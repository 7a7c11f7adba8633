"""Whether a consumer that seems to stand gets what it should, by what looks at its queue find.

A broker can lose a consumer without a word. One way that was seen on RabbitMQ 3.10: a quorum queue
is deleted and made anew at once; the channel takes its consumer over to the new queue, which from
then on hands out messages that are never sent. Neither the count of consumers nor that of messages
tells of it.
"""

from enum import Enum

from durable_worker.transports.rabbitmq.lanes import QueueState

STARVED_LOOKS = 2
"""Looks in a row that find messages waiting although none comes."""

FIRST_IDLE_LOOKS = 3
LAST_IDLE_LOOKS = 12


class Verdict(Enum):
    SOUND = "sound"
    FORGOTTEN = "the broker has forgotten the consumer"
    STARVED = "messages wait, and none of them comes to the consumer"
    STALE = "idle"
    """Nothing has come for a while. Most likely there was nothing; a new consumer makes sure."""


class Vigil:
    """Over the consumers of one queue, one after the other.

    An idle consumer is replaced soon after its last message, then ever more seldom: most idle ones
    are sound, and there may be many.
    """

    def __init__(self) -> None:
        self._starved = 0
        self._idle = 0
        self._patience: int = FIRST_IDLE_LOOKS

    def judge(self, queue: QueueState, *, has_come: bool, has_room: bool) -> Verdict:
        """`has_come`: anything since the last look; `has_room`: whether anything may come."""
        if has_come:
            self._starved, self._idle, self._patience = 0, 0, FIRST_IDLE_LOOKS
        if queue.consumers == 0:
            return Verdict.FORGOTTEN
        if has_come or not has_room:
            return Verdict.SOUND
        self._idle += 1
        self._starved = self._starved + 1 if queue.waiting else 0
        if self._starved == STARVED_LOOKS:
            self._starved = self._idle = 0
            return Verdict.STARVED
        if self._idle == self._patience:
            self._idle, self._patience = 0, min(2 * self._patience, LAST_IDLE_LOOKS)
            return Verdict.STALE
        return Verdict.SOUND
