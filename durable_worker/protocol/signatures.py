"""Signed messages (protocol/README.md, "Signatures")."""

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from durable_worker.protocol.base import SIGNATURE_HEADER, TOKEN_HEADER
from durable_worker.protocol.keys import Keyring, check_signing_ring

_VERSION = "v1"
_DOMAIN = b"durable-signature v1"
_RESENT = "durable-resent"
_ERROR, _ERROR_QUEUE = "durable-error", "durable-error-queue"
_DEATH = "x-first-death-reason"


class Signable(Protocol):
    """A message as the binding carries it."""

    @property
    def type(self) -> str | None: ...
    @property
    def body(self) -> bytes: ...
    @property
    def message_id(self) -> str | None: ...
    @property
    def protocol(self) -> int | None: ...
    @property
    def headers(self) -> Mapping[str, str]: ...


class Place(Struct, frozen=True):
    """Where a message goes: a work queue, or with a topic an exchange."""

    name: str
    topic: str | None = None

    @property
    def text(self) -> str:
        return self.name if self.topic is None else f"{self.name}/{self.topic}"


class Flaw(StrEnum):
    """Why a signature does not hold. The value completes the sentence "its signature ..."."""

    MISSING = "is missing"
    MALFORMED = "cannot be read"
    UNKNOWN_KEY = "was made with a key that is not known here"
    ELSEWHERE = "was made for another queue or exchange"
    FORGED = "does not belong to this message"


class Signature(Struct, frozen=True):
    """The header `durable-signature`: who signed, and for which place."""

    key_id: str
    mac: str
    place: str

    @property
    def header(self) -> str:
        return f"{_VERSION}:{self.key_id}:{self.mac}:{self.place}"


def read_signature(headers: Mapping[str, str]) -> Signature | Flaw:
    text = headers.get(SIGNATURE_HEADER)
    if text is None:
        return Flaw.MISSING
    version, *parts = text.split(":", 3)
    if version != _VERSION or len(parts) != 3:
        return Flaw.MALFORMED
    return Signature(*parts)


class Signatures:
    """Makes and checks signatures of one deployment, whose dead queue is `dead`.

    Raises `RegistrationError` for keys that are too short or have an id that cannot travel.
    """

    def __init__(self, ring: Keyring, *, dead: str) -> None:
        check_signing_ring(ring)
        self._ring = ring
        self._dead = dead
        self._prefix = dead.removesuffix("dead")

    def sign(self, message: Signable, place: Place) -> str:
        """The header's value."""
        key_id = self._ring.current
        key = self._ring.find(key_id)
        assert key is not None
        mac = self._mac(key, key_id, message, place)
        return Signature(key_id, mac, place.text).header

    def flaw_in(self, message: Signable, place: Place) -> Flaw | None:
        """What is wrong with a message that has come to `place`; None: a key holder sent it there.

        A message on the dead queue may also be signed for the queue that it came from.
        """
        signature = read_signature(message.headers)
        if isinstance(signature, Flaw):
            return signature
        if signature.place != place.text:
            if place != Place(self._dead) or not signature.place.startswith(self._prefix):
                return Flaw.ELSEWHERE
            place = Place(signature.place)
        key = self._ring.find(signature.key_id)
        if key is None:
            return Flaw.UNKNOWN_KEY
        expected = self._mac(key, signature.key_id, message, place)
        is_right = hmac.compare_digest(expected.encode(), _bytes(signature.mac))
        return None if is_right else Flaw.FORGED

    def _mac(self, key: bytes, key_id: str, message: Signable, place: Place) -> str:
        mac = hmac.new(key, digestmod="sha256")
        for part in self._signed_parts(key_id, message, place):
            # With its length first, so that nothing can move from one part to the next.
            mac.update(len(part).to_bytes(8, "big"))
            mac.update(part)
        return urlsafe_b64encode(mac.digest()).rstrip(b"=").decode()

    def _signed_parts(self, key_id: str, message: Signable, place: Place) -> Iterator[bytes]:
        yield _DOMAIN
        yield _bytes(key_id)
        yield b"queue" if place.topic is None else b"exchange"
        yield _bytes(place.name)
        yield _bytes(place.topic or "")
        yield _bytes(message.type or "")
        yield _bytes(message.message_id or "")
        yield b"" if message.protocol is None else str(message.protocol).encode()
        for name in self._covered(message.headers, place):
            yield _bytes(name)
            yield _bytes(message.headers[name])
        yield message.body

    def _covered(self, headers: Mapping[str, str], place: Place) -> Iterator[str]:
        """Headers of ours on which a receiver acts and that the broker leaves alone."""
        # A 0 makes whoever gets it ask first, and nothing else: whoever has a doubt may add it.
        if headers.get(_RESENT, "0") != "0":
            yield _RESENT
        if TOKEN_HEADER in headers:
            yield TOKEN_HEADER
        if place == Place(self._dead):
            # A receiver may add a sentence about a death that the sender has stated.
            reason = _DEATH if _DEATH in headers else _ERROR
            for name in (reason, _ERROR_QUEUE):
                if name in headers:
                    yield name


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
