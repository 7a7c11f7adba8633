"""Workers that speak another protocol, or announce themselves in a way nobody understands."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import structlog
from msgspec import json

from durable_worker.clock import SystemClock
from durable_worker.operator.presence import Presence
from durable_worker.operator.registry import Registry
from durable_worker.operator.strangers import Strangers
from durable_worker.protocol.codec import MessageType
from durable_worker.protocol.descriptor import ProtocolRange, Runtime, Sdk, WorkerDescriptor
from durable_worker.protocol.names import Names
from durable_worker.stores.memory import MemoryStore
from durable_worker.transports.base import Envelope
from durable_worker.transports.memory import MemoryTransport

DESCRIPTOR = WorkerDescriptor(
    instance_id="w-1",
    runtime=Runtime.NODE,
    sdk=Sdk(name="their-sdk", version="7.1"),
    protocol=ProtocolRange(version=3, range=(2, 3)),
    workflows=[],
    steps=["s"],
    started_at=0,
)
COMPATIBLE = [None, ProtocolRange(version=1, range=(1, 1)), ProtocolRange(version=2, range=(1, 2))]

Lines = list[Any]


class Now:
    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def lines() -> Iterator[Lines]:
    with structlog.testing.capture_logs() as captured:
        yield captured


@pytest.mark.parametrize("protocol", COMPATIBLE)
def test_a_worker_whose_range_overlaps_is_no_stranger(
    protocol: ProtocolRange | None, lines: Lines
) -> None:
    descriptor = msgspec.structs.replace(DESCRIPTOR, protocol=protocol)
    assert not Strangers(Now()).met(descriptor)
    assert lines == []


def test_a_worker_whose_range_does_not_overlap_is_named_with_both_ranges(lines: Lines) -> None:
    assert Strangers(Now()).met(DESCRIPTOR)
    assert lines == [
        {
            "event": "worker_incompatible",
            "log_level": "warning",
            "worker": "w-1",
            "sdk": "their-sdk 7.1",
            "worker_range": [2, 3],
            "operator_range": [1, 1],
            "hint": "it gets no tasks until this operator is updated to a version whose range "
            "overlaps",
        }
    ]


def test_a_stranger_is_told_at_most_once_a_minute_and_named_once(lines: Lines) -> None:
    now = Now()
    strangers = Strangers(now)
    other = msgspec.structs.replace(DESCRIPTOR, instance_id="w-2")
    met: list[bool] = []
    for later in (0.0, 0.0, 59.9, 0.1, 30.0):
        now.seconds += later
        met.append(strangers.met(DESCRIPTOR))
    assert met == [True, False, False, True, False]
    assert strangers.met(other)
    assert [line["worker"] for line in lines] == ["w-1", "w-2"]


def test_what_is_remembered_of_strangers_has_a_bound(
    monkeypatch: pytest.MonkeyPatch, lines: Lines
) -> None:
    monkeypatch.setattr("durable_worker.operator.strangers._REMEMBERED", 2)
    strangers = Strangers(Now())
    for name in ("a", "b", "c", "a"):
        assert strangers.met(msgspec.structs.replace(DESCRIPTOR, instance_id=name))
    assert not strangers.met(msgspec.structs.replace(DESCRIPTOR, instance_id="c"))


BEAT = {"instanceId": "w-1", "groups": ["s"], "ts": 1, "lifecycle": "up"}
ANNOUNCEMENT = {"groups": ["s"], "descriptor": json.decode(json.encode(DESCRIPTOR))}


def without(message: dict[str, Any], *paths: str) -> dict[str, Any]:
    copied: dict[str, Any] = json.decode(json.encode(message))
    for path in paths:
        *parents, key = path.split(".")
        inner = copied
        for parent in parents:
            inner = inner[parent]
        del inner[key]
    return copied


@pytest.fixture
async def presence() -> Presence:
    names, clock = Names(), SystemClock()
    return Presence(
        MemoryStore(),
        MemoryTransport(names=names),
        names=names,
        registry=Registry(clock.monotonic),
        clock=clock,
        instance_id="op-1",
        offer=lambda _: None,
    )


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("message_type", "message", "worker", "missing", "reason"),
    [
        ("worker-beat", without(BEAT, "ts", "groups"), "w-1", ["groups", "ts"], "`groups`"),
        ("worker-beat", without(BEAT, "instanceId"), None, ["instanceId"], "`instanceId`"),
        ("worker-beat", {**BEAT, "lifecycle": "odd"}, "w-1", [], "`$.lifecycle`"),
        (
            "worker-descriptor",
            without(ANNOUNCEMENT, "descriptor.steps", "descriptor.sdk.version", "groups"),
            "w-1",
            ["groups", "descriptor.sdk.version", "descriptor.steps"],
            "missing required field",
        ),
        ("worker-descriptor", {**BEAT, "descriptor": None}, None, ["descriptor"], "descriptor"),
        ("worker-descriptor", {"groups": [], "descriptor": 5}, None, [], "$.descriptor"),
        ("worker-descriptor", [], None, [], "object"),
    ],
)
async def test_a_message_that_is_not_understood_is_told_with_its_sender_and_what_it_lacks(
    presence: Presence,
    lines: Lines,
    *,
    message_type: str,
    message: Any,
    worker: str | None,
    missing: list[str],
    reason: str,
) -> None:
    for _ in range(3):
        presence.on_message(Envelope(MessageType(message_type), json.encode(message)))
    assert len(lines) == 1
    line = lines[0]
    assert (line["event"], line["log_level"]) == ("worker_message_malformed", "warning")
    assert (line["worker"], line["type"], line["missing"]) == (worker, message_type, missing)
    assert reason in line["reason"]


@pytest.mark.anyio
async def test_bytes_that_are_no_json_are_told_and_do_no_harm(
    presence: Presence, lines: Lines
) -> None:
    presence.on_message(Envelope(MessageType.WORKER_BEAT, b"\xff{"))
    presence.on_message(Envelope(MessageType.WORKER_BEAT, json.encode(BEAT)))
    assert [line["worker"] for line in lines] == [None]
