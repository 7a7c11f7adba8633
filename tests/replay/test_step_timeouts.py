"""How long a body waits for a step, and what it does when nothing comes."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec import UNSET, Raw

from durable_worker import (
    RegistrationError,
    Retry,
    StepFailedError,
    StepTimeoutError,
    Worker,
    WorkflowContext,
)
from durable_worker.protocol.commands import (
    DecisionStatus,
    RecordStep,
    RetryOptions,
    ScheduleStep,
    StartTimer,
)
from durable_worker.protocol.failure import Failure
from durable_worker.replay.operations import (
    CALL_RETRY,
    CALL_TIMEOUT,
    DEADLINES,
    DURABLE_TIMERS,
    ORDERED_HISTORY,
    TIMEOUTS,
)
from tests.replay.model import ModelOperator, turn

TWO_TRIES = Retry(attempts=2, initial=timedelta(seconds=5), jitter=0)


async def patient_once(ctx: WorkflowContext) -> str:
    try:
        return str(await ctx.step("slow", timeout=timedelta(minutes=1)))
    except StepTimeoutError as error:
        return f"{isinstance(error, TimeoutError)} {isinstance(error, StepFailedError)} {error}"


async def patient_twice(ctx: WorkflowContext) -> str:
    return str(await ctx.step("slow", timeout=60, retries=TWO_TRIES))


def test_a_timeout_is_a_timer_beside_the_call() -> None:
    commands = turn(patient_once, ModelOperator()).commands
    assert commands[:2] == [
        ScheduleStep(seq=0, name="slow", group="default"),
        StartTimer(seq=1, ms=60_000),
    ]
    assert [each.name for each in commands[2:] if isinstance(each, RecordStep)] == [DEADLINES]


def test_a_result_in_time_is_the_output() -> None:
    operator = ModelOperator()
    turn(patient_once, operator)
    operator.resolve(0, "made it")
    assert bytes(turn(patient_once, operator).output) == b'"made it"'


def test_a_step_without_result_in_time_fails_and_a_late_result_changes_nothing() -> None:
    operator = ModelOperator()
    turn(patient_once, operator)
    operator.resolve(1)
    final = turn(patient_once, operator)
    expected = b"\"True True step 'slow' failed [timeout]: no result came within 60 s\""
    assert bytes(final.output) == expected
    operator.resolve(0, "late")
    assert bytes(turn(patient_once, operator).output) == expected


@pytest.mark.parametrize("capabilities", [None, [CALL_RETRY, DURABLE_TIMERS]])
def test_a_timed_out_attempt_is_tried_again_at_a_new_seq(capabilities: list[str] | None) -> None:
    operator = ModelOperator(capabilities=capabilities)
    first = turn(patient_twice, operator).commands
    assert [each.retry for each in first if isinstance(each, ScheduleStep)] == [None]
    operator.resolve(1)
    backoff = turn(patient_twice, operator).commands
    (timer,) = [each for each in backoff if isinstance(each, StartTimer)]
    assert timer.ms == 5_000
    operator.resolve(timer.seq)
    again = turn(patient_twice, operator).commands
    (call,) = [each for each in again if isinstance(each, ScheduleStep)]
    assert call.seq > timer.seq
    operator.resolve(0, "late result of the first attempt")
    assert turn(patient_twice, operator).status is DecisionStatus.CONTINUE
    operator.resolve(call.seq, "second attempt")
    assert bytes(turn(patient_twice, operator).output) == b'"second attempt"'


def test_after_the_last_attempt_the_run_fails_with_a_code_of_its_own() -> None:
    operator = ModelOperator()
    while operator.final is None:
        turn(patient_twice, operator)
        for seq, command in sorted(operator.pending.items()):
            if isinstance(command, StartTimer):
                operator.resolve(seq)
    assert operator.final.error is not None
    assert operator.final.error.code == "timeout"
    assert sum(isinstance(each, ScheduleStep) for each in operator.pending.values()) == 2


def test_a_failure_before_the_timeout_is_the_steps_own() -> None:
    operator = ModelOperator()
    turn(patient_once, operator)
    operator.resolve(0, error=Failure(message="no", code="Nope"))
    error = turn(patient_once, operator).error
    assert error is not None
    assert error.code == "Nope"


@pytest.mark.parametrize("ruled_out", [TimeoutError, StepTimeoutError, "timeout"])
def test_timeouts_can_be_ruled_out_of_retries(ruled_out: Any) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        return await ctx.step(
            "slow", timeout=1, retries=Retry(attempts=3, non_retryable=(ruled_out,))
        )

    operator = ModelOperator()
    turn(body, operator)
    operator.resolve(1)
    assert turn(body, operator).status is DecisionStatus.FAILED


def test_the_decorators_timeout_holds_unless_the_call_states_another() -> None:
    worker = Worker()

    @worker.step("slow", timeout=30)
    async def slow() -> str: ...

    async def body(ctx: WorkflowContext) -> Any:
        await ctx.step(slow)
        return await ctx.step(slow, timeout=timedelta(seconds=2))

    operator = ModelOperator()
    first = turn(body, operator, worker=worker).commands
    assert [each.ms for each in first if isinstance(each, StartTimer)] == [30_000]
    operator.resolve(0, "done")
    second = turn(body, operator, worker=worker).commands
    assert [each.ms for each in second if isinstance(each, StartTimer)] == [2_000]


@pytest.mark.parametrize("timeout", [0, -1, timedelta(0), float("nan")])
def test_a_timeout_that_leaves_no_time_is_refused(timeout: Any) -> None:
    async def body(ctx: WorkflowContext) -> None:
        with pytest.raises(RegistrationError, match="must be positive"):
            ctx.step("slow", timeout=timeout)

    assert turn(body, ModelOperator()).output is UNSET
    with pytest.raises(RegistrationError, match="must be positive"):
        Worker().step("slow", timeout=timeout)


GIVES_UP = [CALL_RETRY, CALL_TIMEOUT, DURABLE_TIMERS, ORDERED_HISTORY]
KEEPS_TIME = [CALL_RETRY, DURABLE_TIMERS, ORDERED_HISTORY]


def marker(seq: int, output: bytes) -> RecordStep:
    return RecordStep(seq=seq, name=TIMEOUTS, output=Raw(output))


def limited(seq: int, retry: RetryOptions) -> ScheduleStep:
    return ScheduleStep(seq=seq, name="slow", group="default", retry=retry)


def test_an_operator_that_gives_up_attempts_is_told_how_long_they_may_take() -> None:
    operator = ModelOperator(capabilities=GIVES_UP)
    policy = RetryOptions(attempts=2, initial_ms=5_000, timeout_ms=60_000)
    assert turn(patient_twice, operator).commands == [marker(0, b"true"), limited(1, policy)]
    operator.resolve(1, "the second attempt's")
    final = turn(patient_twice, operator)
    assert (final.commands, bytes(final.output)) == ([], b'"the second attempt\'s"')


def test_what_an_operator_has_given_up_is_a_timeout_in_the_body() -> None:
    operator = ModelOperator(capabilities=GIVES_UP)
    turn(patient_once, operator)
    operator.resolve(1, error=Failure(message="no result came within 60 s", code="timeout"))
    expected = b"\"True True step 'slow' failed [timeout]: no result came within 60 s\""
    assert bytes(turn(patient_once, operator).output) == expected


def test_another_failure_of_what_an_operator_may_give_up_is_the_steps_own() -> None:
    operator = ModelOperator(capabilities=GIVES_UP)
    turn(patient_once, operator)
    operator.resolve(1, error=Failure(message="no", code="Nope"))
    error = turn(patient_once, operator).error
    assert error is not None
    assert error.code == "Nope"


@pytest.mark.parametrize("ruled_out", [TimeoutError, StepTimeoutError, "timeout"])
def test_an_operator_that_gives_up_attempts_is_told_that_timeouts_are_final(ruled_out: Any) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        policy = Retry(attempts=3, non_retryable=(ruled_out, ValueError))
        return await ctx.step("slow", timeout=1, retries=policy)

    (_, call) = turn(body, ModelOperator(capabilities=GIVES_UP)).commands
    assert isinstance(call, ScheduleStep)
    assert call.retry is not None
    assert {"timeout", "ValueError"} <= {*(call.retry.non_retryable or ())}


async def one_by_one(ctx: WorkflowContext) -> list[str]:
    return [str(await ctx.step("slow", timeout=60)) for _ in range(3)]


def test_that_an_operator_gives_up_attempts_is_recorded_where_it_begins_and_ends() -> None:
    once = RetryOptions(attempts=1, timeout_ms=60_000)
    operator = ModelOperator(capabilities=KEEPS_TIME)
    assert turn(one_by_one, operator).commands == [
        ScheduleStep(seq=0, name="slow", group="default"),
        StartTimer(seq=1, ms=60_000),
    ]
    operator.capabilities = GIVES_UP
    assert turn(one_by_one, operator).commands == [
        ScheduleStep(seq=0, name="slow", group="default"),
        StartTimer(seq=1, ms=60_000),
    ]
    operator.resolve(0, "first")
    assert turn(one_by_one, operator).commands == [marker(2, b"true"), limited(3, once)]
    operator.capabilities = KEEPS_TIME
    assert turn(one_by_one, operator).commands == [limited(3, RetryOptions(attempts=1))]
    operator.resolve(3, "second")
    assert turn(one_by_one, operator).commands == [
        marker(4, b"false"),
        ScheduleStep(seq=5, name="slow", group="default"),
        StartTimer(seq=6, ms=60_000),
    ]
    operator.capabilities = GIVES_UP
    operator.resolve(5, "third")
    assert bytes(turn(one_by_one, operator).output) == b'["first","second","third"]'


def test_the_body_itself_gives_up_attempts_at_what_is_to_be_undone() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        return await ctx.step("slow", timeout=60, compensate="undo")

    assert turn(body, ModelOperator(capabilities=GIVES_UP)).commands == [
        ScheduleStep(seq=0, name="slow", group="default"),
        StartTimer(seq=1, ms=60_000),
    ]
