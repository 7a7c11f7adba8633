"""Any transport, with every message signed and checked (protocol/README.md, "Signatures")."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import StrEnum
from types import TracebackType
from typing import Self
from uuid import uuid4

import structlog
from msgspec.structs import replace

from durable_worker.errors import PayloadTooLargeError, TransportError
from durable_worker.protocol.base import SIGNATURE_HEADER, UNVERIFIED_HEADER
from durable_worker.protocol.keys import Keyring
from durable_worker.protocol.names import Names
from durable_worker.protocol.signatures import Flaw, Place, Signatures, read_signature
from durable_worker.transports.base import (
    DEATH_HEADER,
    DELIVERY_LIMIT_REASON,
    Delivery,
    Envelope,
    Subscription,
    Transport,
)
from durable_worker.transports.dead_letters import dead_letter
from durable_worker.transports.topics import matches_topic

log = structlog.get_logger("durable_worker.signing")

RETRY_SECONDS = 1.0

_KEPT_BYTES = 1_000
"""Of a message that is too large to be sent on."""

_DEATH_QUEUE_HEADER = "x-first-death-queue"

_REFUSED_HEADER = "durable-refused-signature"
"""What a refused message was signed with, for people."""


class SigningMode(StrEnum):
    """`SIGN` takes everything and only tells what `REQUIRE` would refuse: for the way there."""

    SIGN = "sign"
    REQUIRE = "require"


class SigningTransport:
    """Signs what is sent, and hands on only what a holder of a key has sent to this very place.

    What does not prove that goes from a work queue to the dead queue; a broadcast is dropped. A
    letter on the dead queue is handed on all the same, with `UNVERIFIED_HEADER`: whoever reads it
    must not act on it. `refused` counts by queue or exchange and flaw. Entering it enters
    `transport`; give each user an instance of its own. Raises `RegistrationError` for keys that
    cannot sign.
    """

    def __init__(
        self,
        transport: Transport,
        ring: Keyring,
        *,
        names: Names,
        mode: SigningMode = SigningMode.REQUIRE,
    ) -> None:
        self._inner = transport
        self._signatures = Signatures(ring, dead=names.dead)
        self._dead = names.dead
        self._is_required = mode is SigningMode.REQUIRE
        self._to_bury: asyncio.Queue[tuple[Delivery, Flaw]] = asyncio.Queue()
        self._group = asyncio.TaskGroup()
        self._burying: asyncio.Task[None] | None = None
        self.refused: Counter[tuple[str, Flaw]] = Counter()

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        self._burying = self._group.create_task(self._bury_all())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        try:
            if self._burying is not None:
                self._burying.cancel()
            # An error of the caller's passes as it is; only a cancellation may be the group's own.
            if isinstance(error, asyncio.CancelledError):
                await self._group.__aexit__(kind, error, trace)
            else:
                await self._group.__aexit__(None, None, None)
        finally:
            await self._inner.__aexit__(kind, error, trace)

    @property
    def is_durable(self) -> bool:
        return self._inner.is_durable

    async def wait_connected(self) -> None:
        await self._inner.wait_connected()

    async def declare(self, queues: Sequence[str]) -> None:
        await self._inner.declare(queues)

    async def consumers(self, queue: str) -> int:
        return await self._inner.consumers(queue)

    async def send(self, queue: str, envelope: Envelope) -> None:
        await self._inner.send(queue, self._signed(envelope, Place(queue)))

    async def broadcast(self, exchange: str, envelope: Envelope, *, topic: str = "") -> None:
        signed = self._signed(envelope, Place(exchange, topic))
        await self._inner.broadcast(exchange, signed, topic=topic)

    async def consume(
        self, queues: Sequence[str], handler: Callable[[Delivery], None], *, prefetch: int
    ) -> Subscription:
        def take(delivery: Delivery) -> None:
            envelope = delivery.envelope
            flaw = self._signatures.flaw_in(envelope, Place(delivery.queue))
            if flaw is not None:
                self._note(delivery.queue, envelope, flaw)
            if flaw is None and delivery.queue == self._dead:
                handler(_Opened(delivery, self._letter(envelope)))
            elif flaw is None or not self._is_required:
                handler(_Opened(delivery, _plain(envelope)))
            elif delivery.queue == self._dead:
                handler(_Opened(delivery, _unverified(envelope, flaw)))
            else:
                self._to_bury.put_nowait((delivery, flaw))

        return await self._inner.consume(queues, take, prefetch=prefetch)

    async def listen(
        self, exchange: str, handler: Callable[[Envelope], None], *, topic: str = "#"
    ) -> Subscription:
        def hear(envelope: Envelope) -> None:
            flaw = self._flaw_in_broadcast(envelope, exchange, topic)
            if flaw is not None:
                self._note(exchange, envelope, flaw)
            if flaw is None or not self._is_required:
                handler(_plain(envelope))

        return await self._inner.listen(exchange, hear, topic=topic)

    def _signed(self, envelope: Envelope, place: Place) -> Envelope:
        if envelope.message_id is None:
            # A library would give it one when it is too late to sign it.
            envelope = replace(envelope, message_id=uuid4().hex)
        headers = {**envelope.headers}
        headers.pop(UNVERIFIED_HEADER, None)
        headers[SIGNATURE_HEADER] = self._signatures.sign(envelope, place)
        return replace(envelope, headers=headers)

    def _flaw_in_broadcast(self, envelope: Envelope, exchange: str, pattern: str) -> Flaw | None:
        """A listener is not told the topic of a message, so its signature says it."""
        signature = read_signature(envelope.headers)
        if isinstance(signature, Flaw):
            return signature
        topic = signature.place.removeprefix(f"{exchange}/")
        if topic == signature.place or not matches_topic(pattern, topic):
            return Flaw.ELSEWHERE
        return self._signatures.flaw_in(envelope, Place(exchange, topic))

    def _letter(self, envelope: Envelope) -> Envelope:
        """A letter that was signed for another queue is one that the broker gave up on, at most:
        its sender has never called it dead, and anybody can write the broker's headers."""
        letter = _plain(envelope)
        signature = read_signature(envelope.headers)
        if isinstance(signature, Flaw) or signature.place == self._dead:
            return letter
        headers = {**letter.headers, DEATH_HEADER: DELIVERY_LIMIT_REASON}
        headers[_DEATH_QUEUE_HEADER] = signature.place
        return replace(letter, headers=headers)

    def _note(self, place: str, envelope: Envelope, flaw: Flaw) -> None:
        """One line for each kind: whoever floods a queue must not flood the log."""
        self.refused[place, flaw] += 1
        if self.refused[place, flaw] > 1:
            return
        if self._is_required:
            log.warning(
                "signature_refused",
                place=place,
                type=envelope.type,
                reason=f"its signature {flaw}",
                hint="what comes here from now on with the same flaw is refused without a line; "
                "if a process of yours sent it, give it the keys that the others have",
            )
        else:
            log.warning(
                "signature_not_required_yet",
                place=place,
                type=envelope.type,
                reason=f"its signature {flaw}",
                hint="it is taken all the same, since signatures are not required here yet",
            )

    async def _bury_all(self) -> None:
        while True:
            delivery, flaw = await self._to_bury.get()
            await self._bury(delivery, flaw)

    async def _bury(self, delivery: Delivery, flaw: Flaw) -> None:
        """Nobody shall act on this letter: it is not signed by us, and what it has been signed with
        may hold for the queue that it was caught on."""
        headers = {**delivery.envelope.headers}
        if SIGNATURE_HEADER in headers:
            headers[_REFUSED_HEADER] = headers.pop(SIGNATURE_HEADER)
        reason = f"on queue {delivery.queue!r} its signature {flaw}"
        letter = dead_letter(replace(delivery.envelope, headers=headers), reason)
        while True:
            try:
                await self._inner.declare([self._dead])
                await self._inner.send(self._dead, letter)
                break
            except PayloadTooLargeError:
                size = len(letter.body)
                told = f"{reason} (the first {_KEPT_BYTES:,} of {size:,} bytes are kept)"
                letter = dead_letter(replace(letter, body=letter.body[:_KEPT_BYTES]), told)
            except TransportError as error:
                log.warning("dead_letter_not_sent", error=str(error))
                await asyncio.sleep(RETRY_SECONDS)
        with suppress(TransportError):
            await delivery.ack()


def _plain(envelope: Envelope) -> Envelope:
    """Without what only concerns the signature."""
    headers = {**envelope.headers}
    headers.pop(SIGNATURE_HEADER, None)
    headers.pop(UNVERIFIED_HEADER, None)
    return replace(envelope, headers=headers)


def _unverified(envelope: Envelope, flaw: Flaw) -> Envelope:
    """As it came, signature included, for whoever looks into it."""
    headers = {**envelope.headers, UNVERIFIED_HEADER: f"its signature {flaw}"}
    return replace(envelope, headers=headers)


class _Opened:
    """A delivery whose signature has been looked at."""

    __slots__ = ("_inner", "envelope")

    def __init__(self, inner: Delivery, envelope: Envelope) -> None:
        self._inner = inner
        self.envelope = envelope

    @property
    def queue(self) -> str:
        return self._inner.queue

    @property
    def delivery_count(self) -> int:
        return self._inner.delivery_count

    async def ack(self) -> None:
        await self._inner.ack()

    def ack_now(self) -> None:
        self._inner.ack_now()

    async def release(self) -> None:
        await self._inner.release()

    async def renew(self) -> None:
        await self._inner.renew()
