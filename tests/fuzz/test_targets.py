"""Every way in survives what is in the corpus, and what is made up on the spot."""

from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pamqp.frame import unmarshal
from pamqp.header import ContentHeader

from durable_worker.transports.rabbitmq.amqp.content import read_header
from durable_worker.transports.rabbitmq.frames import own_properties
from tests.fuzz.mutation import mutated
from tests.fuzz.properties import envelope_of
from tests.fuzz.seeds import properties_seeds
from tests.fuzz.targets import TARGETS, Target

NAMES = sorted(TARGETS)
FEW = {"cli": 25, "worker": 40, "operator": 40, "operator-on-disk": 15, "detail": 40}
KEPT = [(name, path) for name in NAMES for path in TARGETS[name].kept()]


def budget(name: str) -> settings:
    return settings(
        max_examples=FEW.get(name, 100),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.parametrize("name", NAMES)
def test_good_messages_and_the_kept_corpus_are_handled(name: str) -> None:
    target = TARGETS[name]
    for seed in target.seeds():
        target.run(seed)


@pytest.mark.parametrize(("name", "path"), KEPT, ids=[f"{name}-{path.name}" for name, path in KEPT])
def test_what_once_broke_something_or_reached_far_is_handled(name: str, path: Path) -> None:
    TARGETS[name].run(path.read_bytes())


@pytest.mark.parametrize("name", NAMES)
def test_good_messages_with_a_few_places_spoiled_are_handled(name: str) -> None:
    target = TARGETS[name]

    @budget(name)
    @given(seed=st.sampled_from(target.seeds()), entropy=st.integers(0, 2**64 - 1))
    def handled(seed: bytes, entropy: int) -> None:
        target.run(spoiled(target, seed, Random(entropy)))

    handled()


@pytest.mark.parametrize("name", NAMES)
def test_any_bytes_are_handled(name: str) -> None:
    target = TARGETS[name]

    @budget(name)
    @given(st.binary(max_size=200))
    def handled(data: bytes) -> None:
        target.run(data)

    handled()


def spoiled(target: Target, seed: bytes, random: Random) -> bytes:
    head = bytearray(seed[: target.head])
    if head and random.random() < 0.2:
        head[random.randrange(len(head))] = random.randrange(256)
    return bytes(head) + mutated(seed[target.head :], random)


def test_properties_that_the_library_can_read_are_read_as_it_does() -> None:
    for data in properties_seeds():
        frame = b"\x02\0\1" + len(data).to_bytes(4, "big") + data + b"\xce"
        header = unmarshal(frame)[2]
        assert isinstance(header, ContentHeader)
        size, ours = read_header(data)
        assert size == header.body_size
        assert ours == own_properties(header.properties)
        assert envelope_of(ours) == envelope_of(own_properties(header.properties))
