"""A thread sends heartbeats over a connection that the event loop writes to: no frame is torn."""

import asyncio
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from durable_worker.transports.rabbitmq.pulse import Pulse
from durable_worker.transports.rabbitmq.sockets import Sockets
from durable_worker.transports.rabbitmq.wire import HEARTBEAT
from tests.broker.tls import Authority

HEADER = b"AMQP\x00\x00\x09\x01"
END = b"\xce"
HEARTBEAT_FRAME = (8, 0, b"")
RESTLESS = 0.003
"""Seconds between two heartbeats that were agreed on: a look every millisecond."""

Frame = tuple[int, int, bytes]


class Peer:
    """Takes one connection and reads from it, slowly and in odd pieces, until it is closed."""

    def __init__(self, random: Random, *, context: ssl.SSLContext | None) -> None:
        self._random = random
        self._context = context
        self._server = socket.create_server(("127.0.0.1", 0))
        # A small window: what is written piles up on the other side.
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        self.received = bytearray()
        self.has_begun = threading.Event()
        self.may_read = threading.Event()
        self.may_read.set()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.getsockname()[1])

    def join(self) -> list[Frame]:
        """Wait for the end; the frames that came, each of them checked."""
        self._thread.join()
        self._server.close()
        return frames_in(bytes(self.received))

    def _serve(self) -> None:
        connection, _ = self._server.accept()
        if self._context is not None:
            connection = self._context.wrap_socket(connection, server_side=True)
        with connection, suppress(ConnectionResetError):
            while chunk := connection.recv(self._random.choice([1, 7, 100, 5_000, 60_000])):
                self.received += chunk
                self.has_begun.set()
                self.may_read.wait()
                if self._random.random() < 0.1:
                    time.sleep(0.001)


def frames_in(stream: bytes, *, is_cut: bool = False) -> list[Frame]:
    """The frames of a stream, the last of which may not have come as a whole if it `is_cut`."""
    assert stream.startswith(HEADER)
    found: list[Frame] = []
    position = len(HEADER)
    while position + (7 if is_cut else 0) < len(stream):
        kind, channel, size = struct.unpack_from(">BHI", stream, position)
        end = position + 7 + size
        assert kind in (1, 2, 3, 8), f"no frame begins at {position}"
        if is_cut and end >= len(stream):
            break
        assert stream[end : end + 1] == END, f"the frame at {position} does not end at {end}"
        found.append((kind, channel, stream[position + 7 : end]))
        position = end + 1
    return found


def written(frame: Frame) -> bytes:
    kind, channel, body = frame
    return struct.pack(">BHI", kind, channel, len(body)) + body + END


@pytest.fixture(params=["plain", "tls"])
def contexts(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[ssl.SSLContext | None, ssl.SSLContext | None]]:
    """Of the server and of the client."""
    if request.param == "plain":
        yield None, None
        return
    authority = Authority(tmp_path)
    certificate = authority.server()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate.cert_file, certificate.key_file)
    yield server, ssl.create_default_context(cafile=authority.ca_file)


async def opened(
    peer: Peer, client: ssl.SSLContext | None, pulse: Pulse
) -> tuple[Sockets, asyncio.StreamReader, asyncio.StreamWriter]:
    sockets = Sockets(pulse=pulse)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(loop=loop)
    transport, protocol = await sockets.connect(
        "localhost",
        peer.port,
        lambda: asyncio.StreamReaderProtocol(reader, loop=loop),
        context=client,
    )
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    writer.write(HEADER)
    await asyncio.to_thread(peer.has_begun.wait)
    return sockets, reader, writer


@pytest.mark.parametrize("seed", range(4))
async def test_heartbeats_stand_between_frames_however_fast_they_come_and_slow_the_peer_is(
    seed: int, contexts: tuple[ssl.SSLContext | None, ssl.SSLContext | None]
) -> None:
    random = Random(seed)
    server, client = contexts
    peer, pulse = Peer(random, context=server), Pulse()
    sockets, _, writer = await opened(peer, client, pulse)
    sockets.keep_alive(heartbeat=RESTLESS)
    frames: list[Frame] = []
    for n in range(150):
        size = random.choice([0, 1, 20, 500, 20_000, 131_000])
        burst = [(3, n, random.randbytes(size)) for _ in range(random.randint(1, 3))]
        frames += burst
        writer.write(b"".join(map(written, burst)))
        chance = random.random()
        if chance < 0.15:
            time.sleep(0.01)  # noqa: ASYNC251 - the loop is to be blocked
        elif chance < 0.5:
            await asyncio.sleep(0)
        elif chance < 0.7:
            await writer.drain()
    await writer.drain()
    pulse.stop()
    writer.close()
    await writer.wait_closed()
    arrived = await asyncio.to_thread(peer.join)
    assert [frame for frame in arrived if frame[0] != 8] == frames
    heartbeats = [n for n, frame in enumerate(arrived) if frame[0] == 8]
    assert {arrived[n] for n in heartbeats} == {HEARTBEAT_FRAME}
    assert heartbeats[0] < len(arrived) // 2


async def test_a_frame_that_was_half_written_when_the_loop_was_blocked_is_completed(
    contexts: tuple[ssl.SSLContext | None, ssl.SSLContext | None],
) -> None:
    server, client = contexts
    peer, pulse = Peer(Random(1), context=server), Pulse()
    sockets, _, writer = await opened(peer, client, pulse)
    peer.may_read.clear()
    frames: list[Frame] = [(3, n, bytes([n]) * 131_000) for n in range(80)]
    writer.write(b"".join(map(written, frames)))
    await asyncio.sleep(0.05)
    if client is None:  # under TLS only the layer below could tell
        assert writer.transport.get_write_buffer_size() > 0
    sockets.keep_alive(heartbeat=RESTLESS)
    peer.may_read.set()

    deadline = time.monotonic() + 30
    while HEARTBEAT not in peer.received[-20:]:  # and all the time the loop stands still
        assert time.monotonic() < deadline
        time.sleep(0.005)  # noqa: ASYNC251
    came = frames_in(bytes(peer.received), is_cut=True)
    assert [frame for frame in came if frame[0] != 8] == frames

    frames.append((3, 1, b"after"))
    writer.write(written(frames[-1]))
    await writer.drain()
    pulse.stop()
    writer.close()
    await writer.wait_closed()
    arrived = await asyncio.to_thread(peer.join)
    assert [frame for frame in arrived if frame[0] != 8] == frames


async def test_nothing_is_sent_into_a_connection_that_was_closed() -> None:
    peer, pulse = Peer(Random(1), context=None), Pulse()
    sockets, _, writer = await opened(peer, None, pulse)
    sockets.keep_alive(heartbeat=RESTLESS)
    writer.close()
    await writer.wait_closed()
    with socket.socket() as successor, socket.create_server(("127.0.0.1", 0)) as other:
        # The new connection has the number that the closed one had.
        successor.connect(other.getsockname())
        accepted, _ = other.accept()
        with accepted:
            await asyncio.sleep(0.05)
            accepted.setblocking(False)
            with pytest.raises(BlockingIOError):
                accepted.recv(1)
    pulse.stop()
    await asyncio.to_thread(peer.join)


async def test_the_thread_of_heartbeats_ends_with_its_transport() -> None:
    peer, pulse = Peer(Random(1), context=None), Pulse()
    sockets, _, writer = await opened(peer, None, pulse)
    sockets.keep_alive(heartbeat=10)
    assert "durable-worker-pulse" in {thread.name for thread in threading.enumerate()}
    pulse.stop()
    assert "durable-worker-pulse" not in {thread.name for thread in threading.enumerate()}
    writer.close()
    await writer.wait_closed()
    await asyncio.to_thread(peer.join)
