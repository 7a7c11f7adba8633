"""What a client says of itself, and how it logs in."""

from typing import Final

from msgspec import Struct
from pamqp import commands

from durable_worker.version import VERSION

MOST_CHANNELS: Final = 65_535
LARGEST_FRAME: Final = 131_072
"""Where the broker has no limit of its own; its default is the same."""

SMALLEST_FRAME: Final = 4_096
"""What every peer must take."""

_CAPABILITIES: Final = {
    "authentication_failure_close": True,
    "basic.nack": True,
    "connection.blocked": True,
    "consumer_cancel_notify": True,
    "publisher_confirms": True,
}


class Login(Struct, frozen=True, kw_only=True):
    """`heartbeat` in seconds; `mechanism` is PLAIN or EXTERNAL; `name` is for people."""

    user: str
    password: str
    vhost: str
    heartbeat: int
    name: str
    mechanism: str = "PLAIN"

    def __repr__(self) -> str:
        return f"Login(user={self.user!r}, vhost={self.vhost!r})"

    @property
    def response(self) -> str:
        return f"\0{self.user}\0{self.password}" if self.mechanism == "PLAIN" else ""


class Limits(Struct, frozen=True):
    """What broker and client agree on."""

    channels: int = MOST_CHANNELS
    frame: int = LARGEST_FRAME


def introduced(login: Login) -> commands.Connection.StartOk:
    return commands.Connection.StartOk(
        client_properties={
            "product": "durable-worker",
            "version": VERSION,
            "platform": "Python",
            "connection_name": login.name,
            "capabilities": {**_CAPABILITIES},
        },
        mechanism=login.mechanism,
        response=login.response,
    )


def agreed(offered: commands.Connection.Tune) -> Limits:
    """Ours are the broker's own; 0 stands for none."""
    frame = offered.frame_max or LARGEST_FRAME
    return Limits(channels=offered.channel_max or MOST_CHANNELS, frame=max(frame, SMALLEST_FRAME))
