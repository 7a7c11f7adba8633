"""Who a worker is: its descriptor, the descriptor's hash, and what two peers can do together."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from durable_worker.protocol.base import (
    MAX_INTEGER,
    PROTOCOL_VERSION,
    Count,
    Message,
    Millis,
    Name,
)

V1_CAPABILITIES = frozenset(
    [
        "saga",
        "signals",
        "search-attributes",
        "priority",
        "entities",
        "child-workflows",
        "singleton",
        "schedules",
        "continue-as-new",
        "queries",
        "cancellation",
    ]
)
"""What a peer that announces no capability list is taken to have."""


class Runtime(StrEnum):
    NODE = "node"
    PYTHON = "python"


class Sdk(Message, frozen=True, kw_only=True):
    name: Name
    version: str


ProtocolVersion = Annotated[int, Meta(ge=1, le=MAX_INTEGER)]


class ProtocolRange(Message, frozen=True, kw_only=True):
    """The version spoken by default, and the inclusive range that is understood."""

    version: ProtocolVersion
    range: tuple[ProtocolVersion, ProtocolVersion]

    def overlaps(self, other: "ProtocolRange") -> bool:
        """Whether there is a version that both understand."""
        return max(self.range[0], other.range[0]) <= min(self.range[1], other.range[1])


LEGACY_PROTOCOL = ProtocolRange(version=1, range=(1, 1))
OUR_PROTOCOL = ProtocolRange(version=PROTOCOL_VERSION, range=(PROTOCOL_VERSION, PROTOCOL_VERSION))


class Registration(Message, frozen=True, kw_only=True):
    name: Name
    version: str | None = None
    group: str | None = None
    requires: list[str] | None = None
    origin: str | None = None


class WorkerDescriptor(Message, frozen=True, kw_only=True):
    """What one worker process runs. Announce only what this process can run."""

    instance_id: Name
    runtime: Runtime
    sdk: Sdk
    protocol: ProtocolRange | None = None
    capabilities: list[str] | None = None
    workflows: list[str]
    steps: list[str]
    registrations: list[Registration] | None = None
    partition: str | None = None
    namespace: str | None = None
    started_at: Millis


class ConcurrencyMode(StrEnum):
    FIXED = "fixed"
    ADAPTIVE = "adaptive"


class Concurrency(Message, frozen=True, kw_only=True):
    mode: ConcurrencyMode
    limit: Count
    min: Count | None = None
    max: Count | None = None


class AdjustReason(StrEnum):
    RAM_CEILING = "ram_ceiling"
    CPU_CEILING = "cpu_ceiling"
    BACKPRESSURE = "backpressure"
    GROW = "grow"
    SHRINK = "shrink"


class Adjustment(Message, frozen=True, kw_only=True):
    at: Millis
    from_: Count = msgspec.field(name="from")
    to: Count
    reason: AdjustReason


class WorkerStatus(Message, frozen=True, kw_only=True):
    """Live load of one worker. Percentages are 0..100, `p95_ms` covers recent steps."""

    runtime: Runtime
    concurrency: Concurrency
    in_flight: Count
    rss_bytes: Count | None = None
    rss_limit_bytes: Count | None = None
    rss_pct: float | None = None
    cpu_pct: float | None = None
    throughput_per_min: float | None = None
    p95_ms: float | None = None
    last_adjust: Adjustment | None = None


class Lifecycle(StrEnum):
    UP = "up"
    DRAINING = "draining"
    STOPPED = "stopped"


DescriptorHash = Annotated[str, Meta(pattern="^[0-9a-f]{16}$", min_length=16, max_length=16)]


class WorkerBeat(Message, frozen=True, kw_only=True):
    """Sent every 10 s; a peer is gone after 35 s. `groups` are the routing tokens it serves."""

    instance_id: Name
    groups: list[str]
    ts: Millis
    lifecycle: Lifecycle
    status: WorkerStatus | None = None
    descriptor_hash: DescriptorHash | None = None


class WorkerAnnouncement(Message, frozen=True, kw_only=True):
    """The descriptor, on start, on change, and in answer to `Who`."""

    groups: list[str]
    descriptor: WorkerDescriptor


class Who(Message, frozen=True, kw_only=True):
    """An operator asks every worker to announce itself, and may tell what it speaks."""

    sender: Name = msgspec.field(name="from")
    protocol: ProtocolRange | None = None


def descriptor_hash(descriptor: WorkerDescriptor) -> str:
    """64-bit FNV-1a over the descriptor's canonical JSON, as 16 hex digits.

    Canonical form and folding: protocol/README.md, "Descriptor hash".
    """
    canonical: dict[str, Any] = {
        "instanceId": descriptor.instance_id,
        "runtime": descriptor.runtime,
        "sdk": {"name": descriptor.sdk.name, "version": descriptor.sdk.version},
        "protocol": _protocol_json(descriptor.protocol),
        "capabilities": _sorted_set(descriptor.capabilities),
        "workflows": _sorted_set(descriptor.workflows),
        "steps": _sorted_set(descriptor.steps),
    }
    if descriptor.registrations is not None:
        canonical["registrations"] = _registrations_json(descriptor.registrations)
    canonical["partition"] = descriptor.partition
    canonical["namespace"] = descriptor.namespace
    canonical["startedAt"] = descriptor.started_at
    return f"{_fnv1a_64(_compact(canonical).decode()):016x}"


def _protocol_json(protocol: ProtocolRange | None) -> Any:
    if protocol is None:
        return None
    return {"version": protocol.version, "range": list(protocol.range)}


def _sorted_set(items: Iterable[str] | None) -> list[str] | None:
    # JavaScript peers sort by UTF-16 code units, not by code points.
    return None if items is None else sorted(set(items), key=_utf16)


def _registrations_json(registrations: list[Registration]) -> list[Any]:
    distinct = {
        _compact(
            {
                "name": r.name,
                "version": r.version,
                "group": r.group,
                "requires": _sorted_set(r.requires),
                "origin": r.origin,
            }
        )
        for r in registrations
    }
    return [msgspec.Raw(text) for text in sorted(distinct, key=lambda text: _utf16(text.decode()))]


def _compact(value: Any) -> bytes:
    return msgspec.json.encode(value)


def _utf16(text: str) -> bytes:
    return text.encode("utf-16-be", "surrogatepass")


def _fnv1a_64(text: str) -> int:
    hashed = 0xCBF29CE484222325
    units = text.encode("utf-16-le", "surrogatepass")
    # One multiplication for each UTF-16 code unit, not for each byte: that is the wire's variant.
    for low, high in zip(units[::2], units[1::2], strict=True):
        hashed = ((hashed ^ low ^ high) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return hashed


class Compatibility(StrEnum):
    COMPATIBLE = "compatible"
    DEGRADED = "degraded"
    INCOMPATIBLE = "incompatible"


class Agreement(Message, frozen=True, kw_only=True):
    """Outcome of a handshake; `version` is the protocol to speak, None if incompatible."""

    compatibility: Compatibility
    version: int | None = None
    missing: list[str] | None = None
    reason: str | None = None


def negotiate(
    ours: WorkerDescriptor, theirs: WorkerDescriptor, *, required: Iterable[str] = ()
) -> Agreement:
    """What `ours` and `theirs` can do together (protocol/README.md, "Handshake").

    `required` are capabilities that the dispatching side cannot do without on `theirs`.
    """
    our_protocol = ours.protocol or LEGACY_PROTOCOL
    their_protocol = theirs.protocol or LEGACY_PROTOCOL
    our_range, their_range = our_protocol.range, their_protocol.range
    if not our_protocol.overlaps(their_protocol):
        return Agreement(
            compatibility=Compatibility.INCOMPATIBLE,
            reason=f"protocol {list(our_range)} and {list(their_range)} do not overlap",
        )
    version = min(our_range[1], their_range[1])
    theirs_can, ours_can = capabilities_of(theirs), capabilities_of(ours)
    missing = sorted((set(required) - theirs_can) | (theirs_can ^ ours_can))
    if missing:
        return Agreement(
            compatibility=Compatibility.DEGRADED,
            version=version,
            missing=missing,
            reason=f"not on both sides: {', '.join(missing)}",
        )
    return Agreement(compatibility=Compatibility.COMPATIBLE, version=version)


def capabilities_of(descriptor: WorkerDescriptor) -> frozenset[str]:
    if descriptor.capabilities is None:
        return V1_CAPABILITIES
    return frozenset(descriptor.capabilities)
