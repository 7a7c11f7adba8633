"""Opens the socket of a connection, and keeps it within reach."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from ssl import SSLContext
from typing import Any, TypeVar

from durable_worker.transports.rabbitmq.pulse import Pulse
from durable_worker.transports.rabbitmq.wire import Wire

P = TypeVar("P", bound=asyncio.BaseProtocol)


class Sockets:
    """Makes the socket of one connection.

    A connection whose peer is silent must be cut, not asked; and one whose own process is busy must
    not fall silent, so a thread sends heartbeats through it.
    """

    def __init__(self, *, pulse: Pulse) -> None:
        self._pulse = pulse
        self._wire: Wire | None = None
        self._transport: asyncio.Transport | None = None
        self._is_tls = False

    async def connect(
        self, host: str, port: int, protocol: Callable[[], P], *, context: SSLContext | None
    ) -> tuple[asyncio.Transport, P]:
        """Raises `OSError`s, those of TLS among them."""
        self._is_tls = context is not None
        if context is not None:
            from durable_worker.transports.rabbitmq.sealing import Sealing

            context.sslobject_class = Sealing
        self._wire = await _connected(host, port)
        loop = asyncio.get_running_loop()
        self._transport, made = await loop.create_connection(
            protocol, sock=self._wire, ssl=context, server_hostname=host if context else None
        )
        return self._transport, made

    def keep_alive(self, *, heartbeat: float) -> None:
        """From now on, after the handshake, send heartbeats whatever the event loop does."""
        wire, transport = self._wire, self._transport
        if wire is None or transport is None or not wire.is_in_use:
            return  # an event loop that writes to the file itself: two writers would meet there
        if self._is_tls:
            from durable_worker.transports.rabbitmq.sealing import Sealing

            sealing = transport.get_extra_info("ssl_object")
            if not isinstance(sealing, Sealing):
                return
            wire.seal_with(sealing)
        self._pulse.keep(wire, heartbeat=heartbeat)

    def end(self) -> None:
        """No heartbeats any more."""
        if self._wire is not None:
            self._pulse.drop(self._wire)

    def has_unread(self) -> bool:
        return self._wire is not None and self._wire.has_unread()

    def cut(self) -> None:
        if self._transport is not None:
            self._transport.abort()


async def _connected(host: str, port: int) -> Wire:
    """Try one address of the host after the other. Raises `OSError`."""
    failures: list[OSError] = []
    for family, kind, proto, _, address in await _resolved(host, port):
        wire = Wire(family, kind, proto)
        try:
            await asyncio.get_running_loop().sock_connect(wire, address)
        except OSError as error:
            failures.append(error)
            wire.close()
        except BaseException:
            wire.close()
            raise
        else:
            return wire
    if len({str(failure) for failure in failures}) == 1:
        raise failures[0]
    raise OSError(f"no address of {host} answers: {'; '.join(map(str, failures))}")


async def _resolved(host: str, port: int) -> Sequence[tuple[int, int, int, str, Any]]:
    try:
        # Nothing to ask anybody about an address that is written in digits.
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        loop = asyncio.get_running_loop()
        return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
