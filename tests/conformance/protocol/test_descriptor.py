"""Descriptor hash and negotiation (protocol/README.md, "Handshake")."""

import json
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_worker.protocol.descriptor import (
    V1_CAPABILITIES,
    Agreement,
    Compatibility,
    ProtocolRange,
    Runtime,
    Sdk,
    WorkerDescriptor,
    capabilities_of,
    descriptor_hash,
    negotiate,
)
from tests.conformance.protocol.corpus import LAW, descriptor_fixture, expected_hashes
from tests.conformance.protocol.generated import structs_of


def _descriptor(
    *, range_: tuple[int, int] | None = (1, 1), capabilities: list[str] | None = None
) -> WorkerDescriptor:
    return WorkerDescriptor(
        instance_id="w-1",
        runtime=Runtime.PYTHON,
        sdk=Sdk(name="test", version="1"),
        protocol=None if range_ is None else ProtocolRange(version=range_[0], range=range_),
        capabilities=capabilities,
        workflows=[],
        steps=[],
        started_at=0,
    )


def _read(name: str) -> WorkerDescriptor:
    return msgspec.json.decode(descriptor_fixture(name), type=WorkerDescriptor)


@pytest.mark.parametrize(("name", "expected"), expected_hashes().items())
def test_a_golden_descriptor_has_its_published_hash(name: str, expected: str) -> None:
    assert descriptor_hash(_read(name)) == expected


def test_the_published_hashes_are_those_that_every_peer_knows() -> None:
    hashes = expected_hashes()
    assert hashes["descriptor.json"] == "44c6793c8eb7089f"
    assert hashes["descriptor-registrations.json"] == "8923307c940a5dde"


def test_the_status_fixture_names_the_hash_of_the_descriptor_fixture() -> None:
    status = json.loads(descriptor_fixture("heartbeat-status.json"))
    assert status["descriptorHash"] == expected_hashes()["descriptor.json"]


def _hash_as_specified(descriptor: WorkerDescriptor) -> str:
    """The specification once more, word by word and without the code under test."""

    def sorted_set(items: list[str] | None) -> list[str] | None:
        return None if items is None else sorted(set(items), key=lambda s: s.encode("utf-16-be"))

    def compact(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    fields: dict[str, Any] = {
        "instanceId": descriptor.instance_id,
        "runtime": str(descriptor.runtime),
        "sdk": {"name": descriptor.sdk.name, "version": descriptor.sdk.version},
        "protocol": None,
        "capabilities": sorted_set(descriptor.capabilities),
        "workflows": sorted_set(descriptor.workflows),
        "steps": sorted_set(descriptor.steps),
    }
    if descriptor.protocol is not None:
        low, high = descriptor.protocol.range
        fields["protocol"] = {"version": descriptor.protocol.version, "range": [low, high]}
    if descriptor.registrations is not None:
        texts = [
            compact(
                {
                    "name": entry.name,
                    "version": entry.version,
                    "group": entry.group,
                    "requires": sorted_set(entry.requires),
                    "origin": entry.origin,
                }
            )
            for entry in descriptor.registrations
        ]
        fields["registrations"] = [json.loads(text) for text in sorted_set(texts) or []]
    fields["partition"] = descriptor.partition
    fields["namespace"] = descriptor.namespace
    fields["startedAt"] = descriptor.started_at
    state = 0xCBF29CE484222325
    units = compact(fields).encode("utf-16-le")
    for at in range(0, len(units), 2):
        unit = units[at] | units[at + 1] << 8
        state ^= unit & 0xFF
        state ^= unit >> 8
        state = state * 0x100000001B3 % 2**64
    return format(state, "016x")


@LAW
@given(structs_of(WorkerDescriptor))
def test_the_hash_of_any_descriptor_is_the_one_that_the_specification_defines(
    descriptor: WorkerDescriptor,
) -> None:
    assert descriptor_hash(descriptor) == _hash_as_specified(descriptor)


@LAW
@given(structs_of(WorkerDescriptor), st.randoms(use_true_random=False))
def test_the_hash_does_not_depend_on_order_or_repetition(
    descriptor: WorkerDescriptor, random: Random
) -> None:
    def shuffled(items: list[Any]) -> list[Any]:
        return random.sample(items + items, 2 * len(items))

    changed = msgspec.structs.replace(
        descriptor,
        workflows=shuffled(descriptor.workflows),
        steps=shuffled(descriptor.steps),
        capabilities=descriptor.capabilities and shuffled(descriptor.capabilities),
        registrations=descriptor.registrations and shuffled(descriptor.registrations),
    )
    assert descriptor_hash(changed) == descriptor_hash(descriptor)


def test_absent_lists_and_empty_lists_hash_differently() -> None:
    assert descriptor_hash(_descriptor()) != descriptor_hash(_descriptor(capabilities=[]))
    plain = _descriptor()
    announced = msgspec.structs.replace(plain, registrations=[])
    assert descriptor_hash(plain) != descriptor_hash(announced)


ALL = sorted(V1_CAPABILITIES)
OK, DEGRADED, NO = Compatibility.COMPATIBLE, Compatibility.DEGRADED, Compatibility.INCOMPATIBLE


@pytest.mark.parametrize(
    ("ours", "theirs", "required", "expected"),
    [
        # two peers from before the handshake
        ((None, None), (None, None), [], (OK, 1, None)),
        # a list that spells out the baseline equals an absent list
        ((None, None), ((1, 1), ALL), [], (OK, 1, None)),
        # the common version is the lower of the two upper ends
        (((1, 3), None), ((1, 2), None), [], (OK, 2, None)),
        (((2, 3), None), ((1, 2), None), [], (OK, 2, None)),
        # ranges that do not meet
        (((2, 3), None), ((1, 1), None), [], (NO, None, None)),
        (((1, 1), None), ((2, 2), None), ["saga"], (NO, None, None)),
        (((2, 2), None), (None, None), [], (NO, None, None)),
        # an empty list means none
        (((1, 1), ["saga"]), ((1, 1), []), [], (DEGRADED, 1, ["saga"])),
        # asymmetry in either direction
        (((1, 1), ["a"]), ((1, 1), ["b"]), [], (DEGRADED, 1, ["a", "b"])),
        # a required capability that both lack
        (((1, 1), ["a"]), ((1, 1), ["a"]), ["gpu"], (DEGRADED, 1, ["gpu"])),
        (((1, 1), ["a", "gpu"]), ((1, 1), ["gpu", "a"]), ["gpu"], (OK, 1, None)),
    ],
)
def test_negotiation_follows_the_table_of_the_specification(
    ours: tuple[Any, Any],
    theirs: tuple[Any, Any],
    required: list[str],
    expected: tuple[Compatibility, int | None, list[str] | None],
) -> None:
    agreement = negotiate(
        _descriptor(range_=ours[0], capabilities=ours[1]),
        _descriptor(range_=theirs[0], capabilities=theirs[1]),
        required=required,
    )
    assert (agreement.compatibility, agreement.version, agreement.missing) == expected
    assert (agreement.reason is None) == (agreement.compatibility is OK)


@LAW
@given(structs_of(WorkerDescriptor), structs_of(WorkerDescriptor))
def test_negotiation_without_requirements_gives_both_sides_the_same_outcome(
    ours: WorkerDescriptor, theirs: WorkerDescriptor
) -> None:
    def essence(agreement: Agreement) -> tuple[Any, ...]:
        return agreement.compatibility, agreement.version, agreement.missing

    assert essence(negotiate(ours, theirs)) == essence(negotiate(theirs, ours))


def test_an_absent_capability_list_means_the_v1_baseline() -> None:
    assert capabilities_of(_descriptor()) == V1_CAPABILITIES
    assert capabilities_of(_descriptor(capabilities=[])) == frozenset()
