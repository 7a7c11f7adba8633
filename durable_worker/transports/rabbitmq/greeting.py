"""The first byte that a broker sends: of an AMQP frame, or of TLS where none is spoken here."""

import asyncio
from typing import Any, Final

_TLS_ALERT: Final = b"\x15"


class TlsSpokenError(ConnectionError):
    """The other side answers in TLS. What it says would pass for the head of a frame of 128 KiB,
    whose end never comes."""


def is_tls(data: bytes) -> bool:
    """Whether a stream that begins like this is of TLS."""
    return data.startswith(_TLS_ALERT)


def expect_amqp(reader: asyncio.StreamReader) -> None:
    """Let the first read fail with `TlsSpokenError` if it meets TLS; later ones cost nothing."""
    stream: Any = reader
    readexactly = reader.readexactly

    async def first(size: int) -> bytes:
        del stream.readexactly
        data = await readexactly(size)
        if is_tls(data):
            raise TlsSpokenError
        return data

    stream.readexactly = first
