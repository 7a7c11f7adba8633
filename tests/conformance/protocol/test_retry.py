"""The arithmetic of retries (protocol/README.md, "Extensions")."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_worker.protocol.commands import RetryOptions
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.retry import delay_before_next, may_retry
from tests.conformance.protocol.corpus import LAW
from tests.conformance.protocol.generated import structs_of, texts

policies = structs_of(RetryOptions)
attempts = st.integers(1, 5_000)


@LAW
@given(policies, attempts, texts)
def test_a_delay_is_never_negative_and_exceeds_the_maximum_by_the_jitter_at_most(
    options: RetryOptions, attempt: int, key: str
) -> None:
    delay = delay_before_next(options, attempt=attempt, key=key)
    assert 0 <= delay <= options.max_ms * (1 + options.jitter) + 1


@LAW
@given(policies, attempts, texts)
def test_a_delay_depends_on_policy_attempt_and_key_alone(
    options: RetryOptions, attempt: int, key: str
) -> None:
    first = delay_before_next(options, attempt=attempt, key=key)
    assert delay_before_next(options, attempt=attempt, key=key) == first


@LAW
@given(policies, attempts, texts, texts)
def test_without_jitter_delays_grow_up_to_the_maximum_whatever_the_key(
    options: RetryOptions, attempt: int, key: str, other: str
) -> None:
    steady = RetryOptions(
        attempts=options.attempts,
        initial_ms=options.initial_ms,
        factor=options.factor,
        max_ms=options.max_ms,
    )
    delay = delay_before_next(steady, attempt=attempt, key=key)
    assert delay == delay_before_next(steady, attempt=attempt, key=other)
    assert delay <= delay_before_next(steady, attempt=attempt + 1, key=key) <= steady.max_ms


@LAW
@given(policies, attempts, texts)
def test_jitter_moves_a_delay_by_its_fraction_at_most(
    options: RetryOptions, attempt: int, key: str
) -> None:
    steady = RetryOptions(
        attempts=options.attempts,
        initial_ms=options.initial_ms,
        factor=options.factor,
        max_ms=options.max_ms,
    )
    base = delay_before_next(steady, attempt=attempt, key=key)
    moved = delay_before_next(options, attempt=attempt, key=key)
    assert abs(moved - base) <= base * options.jitter + 2


def test_the_default_policy_doubles_from_one_second_to_one_minute() -> None:
    options = RetryOptions(attempts=10)
    delays = [delay_before_next(options, attempt=n, key="r:1") for n in range(1, 9)]
    assert delays == [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]


def test_a_policy_that_starts_at_zero_never_waits() -> None:
    options = RetryOptions(attempts=10, initial_ms=0, factor=10.0)
    assert {delay_before_next(options, attempt=n, key="k") for n in (1, 2, 5_000)} == {0}


def test_jitter_spreads_runs_that_failed_together() -> None:
    options = RetryOptions(attempts=3, jitter=0.5)
    delays = {delay_before_next(options, attempt=1, key=f"run-{n}:1") for n in range(200)}
    assert len(delays) > 150
    assert min(delays) < 700
    assert max(delays) > 1_300


POLICY = RetryOptions(attempts=3, non_retryable=["declined"])


@pytest.mark.parametrize(
    ("options", "failure", "attempt", "expected"),
    [
        (None, Failure(message="m"), 1, False),
        (POLICY, Failure(message="m"), 1, True),
        (POLICY, Failure(message="m"), 2, True),
        (POLICY, Failure(message="m"), 3, False),
        (POLICY, Failure(message="m"), 4, False),
        (POLICY, Failure(message="m", retryable=True), 2, True),
        (POLICY, Failure(message="m", retryable=False), 1, False),
        (POLICY, Failure(message="m", code="declined"), 1, False),
        (POLICY, Failure(message="m", code="declined", retryable=True), 1, False),
        (POLICY, Failure(message="m", code="timeout"), 1, True),
        (RetryOptions(attempts=1), Failure(message="m"), 1, False),
    ],
)
def test_an_attempt_has_a_successor_only_where_the_policy_and_the_failure_allow_it(
    options: RetryOptions | None, failure: Failure, attempt: int, expected: bool
) -> None:
    assert may_retry(options, failure, attempt=attempt) is expected
