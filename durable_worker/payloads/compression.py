"""Stage `zlib`."""

import zlib

from durable_worker.edge.errors import PayloadTamperedError, PayloadTooBigError
from durable_worker.protocol.payload_envelope import Parameters

DEFAULT_MINIMUM = 1024
DEFAULT_MAX_SIZE = 64 * 1024 * 1024


class Compress:
    """Compresses payloads of `minimum` bytes and more, if that makes them smaller.

    Refuses to open what would have more than `max_size` bytes. Put it before `Encrypt`: ciphertext
    does not compress.
    """

    name = "zlib"
    protects = False

    def __init__(
        self,
        *,
        minimum: int = DEFAULT_MINIMUM,
        level: int = 6,
        max_size: int = DEFAULT_MAX_SIZE,
    ) -> None:
        self._minimum = minimum
        self._level = level
        self._max_size = max_size

    def seal(self, data: bytes, associated: bytes) -> tuple[bytes, Parameters] | None:  # noqa: ARG002
        if len(data) < self._minimum:
            return None
        compressed = zlib.compress(data, self._level)
        return (compressed, {"size": len(data)}) if len(compressed) < len(data) else None

    def open(self, data: bytes, parameters: Parameters, associated: bytes) -> bytes:  # noqa: ARG002
        size = parameters.get("size")
        if not isinstance(size, int) or size < 0:
            raise PayloadTamperedError("the size before compression is missing")
        if size > self._max_size:
            raise PayloadTooBigError(size=size, limit=self._max_size)
        stream = zlib.decompressobj()
        try:
            opened = stream.decompress(data, size + 1)
        except zlib.error as error:
            raise PayloadTamperedError(f"it cannot be decompressed, {error}") from error
        if len(opened) != size or not stream.eof or stream.unused_data:
            raise PayloadTamperedError("it does not decompress to the size that it states")
        return opened
