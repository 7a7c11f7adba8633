"""Large payloads go to a store, and only a reference travels."""

import hashlib
import re
from typing import Protocol
from urllib.parse import quote

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random

from durable_worker.edge.errors import BlobStoreError, PayloadTamperedError, PayloadTooBigError
from durable_worker.payloads.compression import DEFAULT_MAX_SIZE
from durable_worker.protocol.payload_envelope import BlobReference

DEFAULT_THRESHOLD = 128 * 1024
ATTEMPTS = 4
LONGEST_FOLDER = 200

_is_key = re.compile(r"(?!\.)[A-Za-z0-9_.~%-]{1,200}/[0-9a-f]{64}").fullmatch


class BlobStore(Protocol):
    """Bytes under keys of the form `<folder>/<sha256 of the bytes>`, both safe as file names.

    What is under a key never changes. Nothing here deletes: a folder belongs to one run (or signal)
    and may go when that run is over and nobody wants to look at it any more.
    """

    async def put(self, key: str, data: bytes) -> None:
        """Durable, and whole for every reader, when this returns. Raises `BlobStoreError`."""
        ...

    async def get(self, key: str, *, limit: int) -> bytes:
        """At most `limit` bytes of it. Raises `BlobMissingError`, `BlobStoreError`."""
        ...


class ClaimCheck:
    """Puts what has `threshold` bytes or more, once sealed, into `store`.

    Refuses to fetch more than `max_size` bytes. A store that fails is tried a few times.
    """

    def __init__(
        self,
        store: BlobStore,
        *,
        threshold: int = DEFAULT_THRESHOLD,
        max_size: int = DEFAULT_MAX_SIZE,
    ) -> None:
        self.threshold = threshold
        self._store = store
        self._max_size = max_size

    async def put(self, data: bytes, *, salt: str) -> BlobReference:
        digest = hashlib.sha256(data).hexdigest()
        key = f"{folder_of(salt)}/{digest}"
        async for attempt in _attempts():
            with attempt:
                await self._store.put(key, data)
        return BlobReference(key=key, size=len(data), sha256=digest)

    async def get(self, reference: BlobReference) -> bytes:
        """Raises `BlobMissingError`, `BlobStoreError`, `PayloadTamperedError`."""
        key, size = reference.key, reference.size
        if _is_key(key) is None or not key.endswith(f"/{reference.sha256}"):
            raise PayloadTamperedError(f"{key!r} is not a key of a stored payload")
        if size > self._max_size:
            raise PayloadTooBigError(size=size, limit=self._max_size)
        data = b""
        async for attempt in _attempts():
            with attempt:
                data = await self._store.get(key, limit=size + 1)
        if len(data) != size or hashlib.sha256(data).hexdigest() != reference.sha256:
            raise PayloadTamperedError(f"what is stored as {key!r} is not what was stored there")
        return data


def folder_of(salt: str) -> str:
    """A file name for any run id; that of a short one can be read."""
    name = quote(salt, safe="")
    if name.startswith("."):
        name = f"%2E{name[1:]}"
    return (
        name if 0 < len(name) <= LONGEST_FOLDER else f"~{hashlib.sha256(salt.encode()).hexdigest()}"
    )


def _attempts() -> AsyncRetrying:
    return AsyncRetrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random(0.1, 1),
        retry=retry_if_exception_type(BlobStoreError),
        reraise=True,
    )
