"""Ids that sort by time."""

from uuid import RFC_4122, UUID

from hypothesis import given
from hypothesis import strategies as st

from durable_worker.clock import ordered_id

times = st.integers(0, 2**48 - 1)


@given(st.uuids(), st.uuids(), times, times)
def test_an_ordered_id_is_a_uuid_that_sorts_by_its_time(
    one: UUID, other: UUID, now: int, later: int
) -> None:
    made = ordered_id(one, now=now)
    assert (made.version, made.variant) == (7, RFC_4122)
    if now < later:
        assert str(made) < str(ordered_id(other, now=later))


@given(st.uuids(version=4), st.uuids(version=4), times)
def test_ids_of_one_time_differ_as_their_chances_do(one: UUID, other: UUID, now: int) -> None:
    assert (ordered_id(one, now=now) == ordered_id(other, now=now)) == (
        (one.int >> 116, one.int & (1 << 62) - 1) == (other.int >> 116, other.int & (1 << 62) - 1)
    )
