"""The socket that the event loop and the thread of heartbeats share, under a stingy kernel."""

import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_worker.transports.rabbitmq.sealing import Sealing
from durable_worker.transports.rabbitmq.wire import HEARTBEAT, Wire
from tests.broker.tls import Authority

if TYPE_CHECKING:
    from typing_extensions import Buffer

FRAME = b"\x03\x00\x01\x00\x00\x00\x05hello\xce"


class StingyWire(Wire):
    """Takes as many bytes as it is told to, then no more for the moment."""

    room = 0

    def __init__(self) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_STREAM)
        self.taken = b""

    def _put(self, data: "Buffer", flags: int = 0) -> int:
        if not self.room:
            raise BlockingIOError
        taken = bytes(data)[: self.room]
        count = len(taken)
        self.taken += taken
        self.room -= count
        return count


class Loop:
    """What asyncio's transport does with its socket, in the two ways that it has had."""

    def __init__(self, wire: Wire, *, gathers: bool) -> None:
        self._wire = wire
        self._gathers = gathers
        self._buffers: list[memoryview] = []

    @property
    def is_done(self) -> bool:
        return not self._buffers

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        if not self._buffers:
            with suppress(BlockingIOError):
                rest = rest[self._wire.send(data) :]
        if rest:
            self._buffers.append(rest)

    def on_writable(self) -> None:
        if not self._buffers:
            return
        try:
            if self._gathers:
                taken = self._wire.sendmsg(self._buffers)
            else:
                taken = self._wire.send(bytearray(b"".join(self._buffers)))
        except BlockingIOError:
            return
        while taken:
            first = self._buffers.pop(0)
            if taken < len(first):
                self._buffers.insert(0, first[taken:])
                return
            taken -= len(first)


ACTIONS = st.one_of(
    st.just("beat"),
    st.just("ready"),
    st.integers(1, 4).map(lambda frames: FRAME * frames),
    st.integers(1, 40),
)


@given(actions=st.lists(ACTIONS, max_size=60), gathers=st.booleans())
def test_frames_leave_whole_and_in_order_whatever_the_kernel_takes(
    actions: list[str | bytes | int], gathers: bool
) -> None:
    with StingyWire() as wire:
        loop = Loop(wire, gathers=gathers)
        frames = 0
        for action in actions:
            match action:
                case "beat":
                    wire.beat_if_silent()
                case "ready":
                    loop.on_writable()
                case bytes(data):
                    frames += data.count(FRAME)
                    loop.write(data)
                case int(bytes_more):
                    wire.room += bytes_more
                case _:
                    raise AssertionError(action)
        wire.room = 1_000_000
        while not loop.is_done:
            loop.on_writable()
        wire.beat_if_silent()
        wire.beat_if_silent()
    assert wire.taken.endswith(HEARTBEAT)
    assert wire.taken.count(FRAME) == frames
    assert not wire.taken.replace(FRAME, b"").replace(HEARTBEAT, b"")


def test_a_heartbeat_goes_out_only_where_nothing_else_has() -> None:
    with StingyWire() as wire:
        wire.room = 1_000
        wire.send(FRAME)
        wire.beat_if_silent()
        assert wire.taken == FRAME
        wire.beat_if_silent()
        assert wire.taken == FRAME + HEARTBEAT


def test_a_write_that_tls_could_not_take_leaves_its_frame_open() -> None:
    context = ssl.create_default_context()
    context.sslobject_class = Sealing
    outgoing = ssl.MemoryBIO()
    sealing = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    assert isinstance(sealing, Sealing)
    with pytest.raises(ssl.SSLWantReadError):
        sealing.write(FRAME)
    assert not sealing.is_between_frames
    assert sealing.produced == outgoing.pending > 0


def test_under_tls_no_heartbeat_goes_into_an_open_frame_or_past_a_record(tmp_path: Path) -> None:
    client, to_server = shaken_hands(Authority(tmp_path))
    with StingyWire() as wire:
        wire.seal_with(client)
        wire.room = 1_000_000

        def has_beaten() -> bool:
            before = len(wire.taken)
            wire.beat_if_silent()
            wire.beat_if_silent()
            return len(wire.taken) > before

        wire.send(bytes(client.produced))  # in place of the handshake, which has left
        client.is_between_frames = False
        assert not has_beaten()
        client.write(FRAME)
        assert client.is_between_frames
        assert not has_beaten()
        wire.send(to_server.read())
        assert has_beaten()


def shaken_hands(authority: Authority) -> tuple[Sealing, ssl.MemoryBIO]:
    """The client's side after a handshake, and what it has to send."""
    certificate = authority.server()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(certificate.cert_file, certificate.key_file)
    client_context = ssl.create_default_context(cafile=authority.ca_file)
    client_context.sslobject_class = Sealing
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname="localhost")
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    assert isinstance(client, Sealing)
    for each in (client, server, client, server):
        with suppress(ssl.SSLWantReadError):
            each.do_handshake()
    return client, to_server
