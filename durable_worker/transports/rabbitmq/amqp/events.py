"""What bytes from the broker mean."""

from msgspec import Struct
from pamqp.base import Frame

from durable_worker.transports.rabbitmq.amqp.properties import Properties


class Message(Struct, frozen=True, gc=False):
    """A message for a consumer. `tag` is what it is answered by, on its own channel."""

    channel: int
    consumer: bytes
    tag: int
    properties: Properties
    body: bytes


class Confirmed(Struct, frozen=True, gc=False):
    """The broker has answered for a published message, or for all up to it."""

    channel: int
    tag: int
    multiple: bool
    is_taken: bool


class Returned(Struct, frozen=True):
    """A mandatory message that fits no queue; its `Confirmed` follows."""

    channel: int
    exchange: str
    routing_key: str
    properties: Properties
    body: bytes


class Answer(Struct, frozen=True):
    """The reply to the earliest request on the channel that has none."""

    channel: int
    method: Frame


class ConsumerEnded(Struct, frozen=True):
    channel: int
    consumer: str


class Flow(Struct, frozen=True):
    """Whether the broker wants messages on this channel."""

    channel: int
    is_active: bool


class ChannelClosed(Struct, frozen=True):
    """By the broker. It is free for another use."""

    channel: int
    code: int
    text: str


class ChannelEnded(Struct, frozen=True):
    """The broker has agreed that it is closed, and has dropped what was asked for on it."""

    channel: int


class Opened(Struct, frozen=True):
    """The handshake is done."""


class Blocked(Struct, frozen=True):
    reason: str


class Unblocked(Struct, frozen=True):
    pass


class LoginFailed(Struct, frozen=True):
    """`is_offered`: whether the broker knows the way in which this client logs in at all."""

    is_offered: bool


class ConnectionClosed(Struct, frozen=True):
    """By the broker."""

    code: int
    text: str


class Ended(Struct, frozen=True):
    """The broker has agreed that the connection is closed."""


class Broken(Struct, frozen=True):
    """The broker has sent what cannot be; we have closed the connection."""

    code: int
    text: str


OfConnection = Opened | Blocked | Unblocked | LoginFailed | ConnectionClosed | Ended | Broken

OfChannel = Confirmed | Returned | Answer | ConsumerEnded | Flow | ChannelClosed | ChannelEnded

Event = Message | OfChannel | OfConnection
