"""Messages that cannot be understood or sent: for whoever runs the broker."""

from durable_worker.errors.base import DurableError

LONGEST_REASON = 500
"""Characters of what is said about a message that cannot be understood."""

LONGEST_TYPE = 40


class ProtocolError(DurableError):
    """A message cannot be understood; `reason` names the field and what was expected.

    It may quote the message, so it is cut off: it is logged, sent in a header and shown.
    """

    code = "malformed"

    def __init__(self, message_type: str, reason: str) -> None:
        message_type = message_type[:LONGEST_TYPE]
        if len(reason) > LONGEST_REASON:
            reason = f"{reason[:LONGEST_REASON]}... ({len(reason):,} characters)"
        super().__init__(f"not a valid {message_type} message: {reason}")
        self.message_type = message_type
        self.reason = reason


class TransportError(DurableError):
    """Base of what goes wrong between this process and the broker."""

    code = "transport"


class ConnectionLostError(TransportError):
    """The broker connection is gone or closed; whether the last publish arrived is unknown."""

    code = "connection-lost"


class BrokerRefusedError(TransportError):
    """The broker answered and refused: bad credentials, unknown vhost, missing permission.

    Retrying cannot help until somebody changes the configuration.
    """

    code = "broker-refused"


class UnroutableError(TransportError):
    """A message was published to a queue that does not exist; the broker returned it."""

    code = "unroutable"

    def __init__(self, queue: str) -> None:
        super().__init__(
            f"queue {queue!r} does not exist, the broker returned the message. Is the receiving "
            f"side on the same prefix, namespace and virtual host?"
        )
        self.queue = queue


class PublishRejectedError(TransportError):
    """The broker refused to take a message (queue full or publish negatively acknowledged)."""

    code = "publish-rejected"


class PayloadTooLargeError(TransportError):
    """A message, or a payload that would become one, is larger than a limit; it was not sent.

    Attributes: `size` and `limit` in bytes, `queue` (None where there is no broker), and whether
    the limit `is_brokers` instead of our own.
    """

    code = "payload-too-large"

    def __init__(
        self,
        *,
        size: int,
        limit: int,
        queue: str | None = None,
        what: str = "the message",
        is_brokers: bool = False,
    ) -> None:
        whose = (
            "max_message_size of the broker"
            if is_brokers
            else "max_message_bytes, --max-message-bytes, DURABLE_MAX_MESSAGE_BYTES"
        )
        target = "" if queue is None else f" for {queue!r}"
        super().__init__(
            f"{what}{target} has {size:,} bytes, the limit is {limit:,} ({whose}). Keep large data "
            f"elsewhere and pass a reference, as ClaimCheck in durable_worker.payloads does, or "
            f"raise the limit for workers, operators, clients and on the broker."
        )
        self.size = size
        self.limit = limit
        self.queue = queue
        self.is_brokers = is_brokers


class UnsendableError(TransportError):
    """A name, or all headers of a message, are longer than a broker can carry; it was not sent.

    Attributes: `field` (what is too long), `size` and `limit` in bytes of UTF-8.
    """

    code = "unsendable"

    def __init__(self, field: str, text: str, *, size: int, limit: int) -> None:
        super().__init__(
            f"the {field} {text[:40]!r}... has {size:,} bytes, the limit is {limit}. Shorten the "
            f"id, the prefix, the namespace or the handler's name that it is made of."
        )
        self.field = field
        self.size = size
        self.limit = limit


class HeadersTooLargeError(UnsendableError):
    """All headers of a message together do not fit into one frame; it was not sent."""

    def __init__(self, queue: str, *, size: int, limit: int) -> None:
        TransportError.__init__(
            self,
            f"the headers of a message for {queue!r} have {size:,} bytes, the limit is {limit:,}. "
            f"Send in its payload what is large: headers are for ids, tokens and the like.",
        )
        self.field = "headers"
        self.size = size
        self.limit = limit
