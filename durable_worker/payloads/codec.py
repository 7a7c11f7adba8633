"""Stages and a store, in order, as one codec for workers and clients."""

from collections.abc import Callable
from typing import TypeVar

import msgspec
from anyio import to_thread
from msgspec import Raw

from durable_worker.edge.errors import (
    PayloadNotSealedError,
    PayloadSealedError,
    PayloadTamperedError,
    SealError,
)
from durable_worker.edge.plain import content_of, envelope_of
from durable_worker.errors import RegistrationError
from durable_worker.payloads.claim_check import ClaimCheck
from durable_worker.payloads.stages import Stage, from_base64, to_base64
from durable_worker.protocol.base import Payload
from durable_worker.protocol.payload_envelope import (
    VERSION,
    Opened,
    Parameters,
    PayloadEnvelope,
    Stages,
    is_null,
    wrapped,
    write_envelope,
)

IN_THREAD_FROM = 64 * 1024
"""Bytes from which on work goes to a thread, so that the event loop goes on."""

R = TypeVar("R")

_json = msgspec.json.Decoder(Raw)
_canonical = msgspec.json.Encoder(order="sorted")


class PayloadCodec:
    """Applies `stages` in order, and undoes what was applied in reverse; a `ClaimCheck` comes last.

    If one of the stages protects (`Encrypt`, `Sign`), a payload that lacks any of those is refused,
    unless it is null, or `accept_plain` says otherwise: that is for the time in which a codec is
    introduced. Failures that an operator makes are never sealed and always accepted.

    Raises `RegistrationError` if two stages have one name or the `ClaimCheck` is not the last.
    """

    def __init__(self, *stages: Stage | ClaimCheck, accept_plain: bool = False) -> None:
        self._claims = next((each for each in stages if isinstance(each, ClaimCheck)), None)
        self._stages = [each for each in stages if not isinstance(each, ClaimCheck)]
        self._by_name = {each.name: each for each in self._stages}
        if len(stages) - len(self._by_name) > (self._claims is not None):
            raise RegistrationError("a codec has two stages of one kind")
        if self._claims is not None and stages[-1] is not self._claims:
            raise RegistrationError("a ClaimCheck is the last stage of a codec: it stores the rest")
        protecting = [each.name for each in self._stages if each.protects]
        self.protects = bool(protecting)
        self._demanded = [] if accept_plain else protecting

    @property
    def demands_seals(self) -> bool:
        return bool(self._demanded)

    async def seal(self, payload: Payload, *, salt: str, context: Raw | None = None) -> Payload:
        inner = wrapped(payload, context)
        if not isinstance(inner, Raw) or is_null(inner):
            return inner
        data = bytes(inner)
        stages: Stages = []
        if self._stages:
            data, stages = await _aside(len(data), lambda: self._apply(data, salt))
        claims = self._claims
        if claims is not None and len(data) >= claims.threshold:
            ref = await claims.put(data, salt=salt)
        elif stages:
            ref = None
        else:
            return inner
        return write_envelope(
            PayloadEnvelope(
                v=VERSION,
                salt=salt if stages else None,
                codec=[{name: parameters} for name, parameters in stages] or None,
                data=to_base64(data) if ref is None else None,
                ref=ref,
            )
        )

    async def open(self, payload: Payload, *, what: str) -> Opened:
        envelope = envelope_of(payload, what)
        try:
            if envelope is None or not envelope.is_sealed:
                if self._demanded and not is_null(payload):
                    raise PayloadNotSealedError(self._demanded)
                return Opened(payload) if envelope is None else content_of(envelope)
            value = await self._unsealed(envelope)
        except SealError as error:
            error.what = what
            raise
        inner = envelope_of(value, what)
        if inner is None:
            return Opened(value)
        if inner.is_sealed:
            damaged = PayloadTamperedError("it is sealed twice")
            damaged.what = what
            raise damaged
        return content_of(inner)

    async def _unsealed(self, envelope: PayloadEnvelope) -> Raw:
        present = {name for name, _ in envelope.stages}
        missing = [name for name in self._demanded if name not in present]
        if missing:
            raise PayloadNotSealedError(missing)
        for name in present:
            if name not in self._by_name:
                raise PayloadSealedError(
                    f"is sealed by {name!r}, which the codec of this process lacks; it has "
                    f"{', '.join(map(repr, self._by_name)) or 'no stage'}"
                )
        data = await self._sealed_bytes(envelope)
        sizes = [size for _, each in envelope.stages if isinstance(size := each.get("size"), int)]
        return await _aside(max([len(data), *sizes]), lambda: self._undo(data, envelope))

    async def _sealed_bytes(self, envelope: PayloadEnvelope) -> bytes:
        if envelope.ref is None:
            return from_base64(envelope.data or "")
        if self._claims is None:
            raise PayloadSealedError(
                f"is stored outside the message as {envelope.ref.key!r}, and the codec of this "
                f"process has no ClaimCheck to fetch it"
            )
        return await self._claims.get(envelope.ref)

    def _apply(self, data: bytes, salt: str) -> tuple[bytes, Stages]:
        applied: Stages = []
        for stage in self._stages:
            sealed = _sealed_by(stage, data, _associated(salt, applied))
            if sealed is not None:
                data = sealed[0]
                applied.append((stage.name, sealed[1]))
        return data, applied

    def _undo(self, data: bytes, envelope: PayloadEnvelope) -> Raw:
        stages = envelope.stages
        for count in range(len(stages) - 1, -1, -1):
            name, parameters = stages[count]
            associated = _associated(envelope.salt or "", stages[:count])
            data = _opened_by(self._by_name[name], data, parameters, associated)
        try:
            return Raw(_json.decode(data))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise PayloadTamperedError(f"it does not hold JSON, {error}") from error


def _sealed_by(stage: Stage, data: bytes, associated: bytes) -> tuple[bytes, Parameters] | None:
    try:
        return stage.seal(data, associated)
    except SealError:
        raise
    except Exception as error:  # stages may be user code
        raise SealError(f"cannot be sealed by {stage.name!r}: {error!r}") from error


def _opened_by(stage: Stage, data: bytes, parameters: Parameters, associated: bytes) -> bytes:
    try:
        return stage.open(data, parameters, associated)
    except SealError:
        raise
    except Exception as error:  # stages may be user code
        raise PayloadTamperedError(f"{stage.name!r} cannot undo it, {error!r}") from error


def _associated(salt: str, before: Stages) -> bytes:
    return _canonical.encode([VERSION, salt, [[name, parameters] for name, parameters in before]])


async def _aside(size: int, work: Callable[[], R]) -> R:
    return work() if size < IN_THREAD_FROM else await to_thread.run_sync(work)
