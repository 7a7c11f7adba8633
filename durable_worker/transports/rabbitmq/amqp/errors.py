"""What a channel or a connection ends with, whichever client is below."""

from typing import Final

FRAME_ERROR: Final = 501
SYNTAX_ERROR: Final = 502
CHANNEL_ERROR: Final = 504
UNEXPECTED_FRAME: Final = 505
ACCESS_REFUSED: Final = 403
NOT_FOUND: Final = 404
RESOURCE_LOCKED: Final = 405
PRECONDITION_FAILED: Final = 406


class AmqpError(Exception):
    """Base of all of them."""


class ChannelClosedError(AmqpError):
    """The broker has closed the channel, and says why."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text

    def __str__(self) -> str:
        return self.text


class ConnectionClosedError(AmqpError):
    """The broker has closed the connection, and says why."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text

    def __str__(self) -> str:
        return self.text


class PeerError(AmqpError):
    """The broker has sent what no broker sends, and we have closed the connection."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text

    def __str__(self) -> str:
        return f"the broker sent what cannot be understood: {self.text}"


class GoneError(AmqpError):
    """The channel or the connection is gone without a word of the broker's."""


class LoginRefusedError(AmqpError):
    """Wrong user name or password."""


class NoMechanismError(AmqpError):
    """The broker offers no way to log in that this client has."""


class ReturnedError(AmqpError):
    """A mandatory message fits no queue."""


class RejectedError(AmqpError):
    """The broker did not take responsibility for a message."""
