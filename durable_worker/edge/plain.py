"""What stands between the values of a process and the wire, and the one that seals nothing."""

from typing import Protocol

from msgspec import Raw

from durable_worker.edge.errors import PayloadSealedError, PayloadTamperedError
from durable_worker.protocol.base import Payload
from durable_worker.protocol.payload_envelope import (
    EnvelopeError,
    EnvelopeVersionError,
    Opened,
    PayloadEnvelope,
    described,
    read_envelope,
    wrapped,
)


class Codec(Protocol):
    """Seals payloads, and opens them. `protects`: nothing that it has sealed can be read in transit
    or changed unnoticed. `demands_seals`: it refuses what came unprotected."""

    @property
    def protects(self) -> bool: ...
    @property
    def demands_seals(self) -> bool: ...

    async def seal(self, payload: Payload, *, salt: str, context: Raw | None = None) -> Payload:
        """The payload in an envelope, or as it is; the same bytes for the same arguments.

        Payloads of one `salt` that are equal look equal. Raises `SealError`.
        """
        ...

    async def open(self, payload: Payload, *, what: str) -> Opened:
        """The inverse; `what` names the payload in errors. Raises `SealError`."""
        ...


class PlainCodec:
    """Only knows contexts, and values that look like an envelope themselves."""

    protects = False
    demands_seals = False

    async def seal(
        self,
        payload: Payload,
        *,
        salt: str,  # noqa: ARG002
        context: Raw | None = None,
    ) -> Payload:
        return wrapped(payload, context)

    async def open(self, payload: Payload, *, what: str) -> Opened:
        envelope = envelope_of(payload, what)
        if envelope is None:
            return Opened(payload)
        if envelope.is_sealed:
            raise PayloadSealedError(
                f"is {described(payload)}, and this process has no codec; give its Worker or "
                f"Client the PayloadCodec of whoever sealed it",
                what=what,
            )
        return content_of(envelope)


PLAIN = PlainCodec()


def envelope_of(payload: Payload, what: str) -> PayloadEnvelope | None:
    """As `read_envelope`. Raises `PayloadTamperedError` that names the payload, and
    `PayloadSealedError` for an envelope of another version."""
    try:
        return read_envelope(payload)
    except EnvelopeVersionError as error:
        raise PayloadSealedError(
            f"is in an envelope {error}; update durable-worker here", what=what
        ) from error
    except EnvelopeError as error:
        damaged = PayloadTamperedError(f"its envelope cannot be read, {error}")
        damaged.what = what
        raise damaged from error


def content_of(envelope: PayloadEnvelope) -> Opened:
    context = envelope.context
    return Opened(envelope.value, context if isinstance(context, Raw) else None)
