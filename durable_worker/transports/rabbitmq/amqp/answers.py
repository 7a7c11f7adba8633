"""Which messages of a channel are unanswered, and the fewest answers that say so."""

from collections import deque

from durable_worker.transports.rabbitmq.amqp.frames import ack_frame


class Answers:
    """Gathers acknowledgements. One may stand for all messages up to it, where each of them has
    been answered."""

    __slots__ = ("_acked", "_channel", "_open", "_order")

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self._order: deque[int] = deque()
        self._open: set[int] = set()
        self._acked: set[int] = set()

    @property
    def has_news(self) -> bool:
        return bool(self._acked)

    def came(self, tag: int) -> None:
        """A message that wants an answer."""
        self._order.append(tag)
        self._open.add(tag)

    def ack(self, tag: int) -> bool:
        """Whether it was unanswered; it goes out with the next `frames`."""
        if tag not in self._open:
            return False
        self._open.discard(tag)
        self._acked.add(tag)
        return True

    def nack(self, tag: int) -> bool:
        """Whether it was unanswered. The caller says so to the broker, at once."""
        if tag not in self._open:
            return False
        self._open.discard(tag)
        return True

    def frames(self) -> list[bytes]:
        """What says all that was acknowledged since."""
        order, still_open, acked = self._order, self._open, self._acked
        last, count = 0, 0
        while order and order[0] not in still_open:
            tag = order.popleft()
            if tag in acked:
                acked.discard(tag)
                last = tag
                count += 1
        frames = [ack_frame(self._channel, last, multiple=count > 1)] if count else []
        frames += [ack_frame(self._channel, tag, multiple=False) for tag in sorted(acked)]
        acked.clear()
        return frames
