"""TypeScript workflows on the NestJS operator call steps of a Python worker."""

import pytest

from tests.interop.control import Control, Event
from tests.interop.journal import read_journal
from tests.interop.processes import House

pytestmark = pytest.mark.broker

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
CONTEXT = {"tenantId": "acme", "userRef": {"type": "user", "id": "7"}}


def attempts_of(house: House, step_id: str) -> list[str]:
    entries = read_journal(house.journal)
    return [e.attempt for e in entries if e.what == "start" and e.attempt.startswith(step_id)]


def test_a_python_step_gives_its_output_to_a_typescript_workflow(control: Control) -> None:
    assert control.output(control.one_step("py.add", {"a": 2, "b": 3})) == 5


def test_a_failed_step_is_tried_again_under_the_same_id_by_the_operators_policy(
    shared_house: House, control: Control
) -> None:
    run_id = control.one_step("py.flaky", 2, retries=3, backoff="fixed", backoffMs=50)

    assert control.output(run_id) == {"attempt": 3, "stepId": f"{run_id}:0"}
    assert attempts_of(shared_house, run_id) == [f"{run_id}:0:{n}" for n in (1, 2, 3)]
    assert control.look(run_id).checkpoint("py.flaky").attempts == 3


def test_a_step_that_fails_at_every_allowed_attempt_fails_the_run(
    shared_house: House, control: Control
) -> None:
    run_id = control.one_step("py.flaky", 9, retries=2, backoffMs=10)

    run = control.outcome(run_id)
    assert run.status == "failed"
    assert run.error is not None
    assert run.error.message == "attempt 2 did not get through"
    assert attempts_of(shared_house, run_id) == [f"{run_id}:0:1", f"{run_id}:0:2"]


def test_a_fatal_error_fails_the_step_at_once_with_its_message_code_and_details(
    shared_house: House, control: Control
) -> None:
    run_id = control.one_step("py.fatal", "4000", retries=5, backoffMs=10)

    snapshot = control.wait(run_id)
    assert snapshot.run is not None
    assert snapshot.run.status == "failed"
    assert snapshot.run.error is not None
    assert snapshot.run.error.message == "card 4000 was declined"
    failure = snapshot.checkpoint("py.fatal").error
    assert failure is not None
    assert (failure.code, failure.retryable) == ("declined", False)
    assert failure.details == {"card": "4000"}
    assert attempts_of(shared_house, run_id) == [f"{run_id}:0:1"]


def test_an_input_that_does_not_fit_the_annotation_fails_the_step_without_a_retry(
    control: Control,
) -> None:
    run_id = control.one_step("py.add", {"a": "two", "b": 3}, retries=5)

    checkpoint = control.wait(run_id).checkpoint("py.add")
    assert checkpoint.status == "failed"
    assert checkpoint.attempts == 1
    assert checkpoint.error is not None
    assert (checkpoint.error.code, checkpoint.error.retryable) == ("payload", False)


def test_what_a_step_says_is_in_the_operators_timeline(control: Control) -> None:
    run_id = control.one_step("py.talkative", 3)

    assert control.output(run_id) == 3
    assert control.look(run_id).checkpoint("py.talkative").events == [
        Event(level="info", message="reading", data={"rows": 3}),
        Event(level="info", message="started", process="upload"),
        Event(level="info", message="compress", process="upload", phase="compress"),
        Event(level="info", message="done", process="upload", phase="compress", status="ok"),
        Event(level="warn", message="slow disk"),
    ]


def test_what_a_step_says_is_streamed_while_it_runs(control: Control) -> None:
    run_id = control.one_step("py.talkative", 3)

    control.output(run_id)
    streamed = control.engine_events(run_id, "step.progress")
    messages = [each["event"]["message"] for each in streamed]
    assert messages == ["reading", "started", "compress", "done", "slow disk"]


def test_a_step_is_told_the_trace_and_the_context_of_its_caller(control: Control) -> None:
    told = control.output(control.one_step("py.told"))

    assert told == {"traceparent": TRACEPARENT, "context": CONTEXT}


def test_heartbeats_keep_a_step_alive_for_longer_than_its_timeout(
    shared_house: House, control: Control
) -> None:
    work = {"seconds": 7.0, "beat_every": 0.5}
    run_id = control.one_step("py.slow", work, timeoutMs=2_000, retries=3)

    assert control.output(run_id) == 1
    assert attempts_of(shared_house, run_id) == [f"{run_id}:0:1"]


def test_a_step_that_falls_silent_is_tried_again_after_its_timeout(control: Control) -> None:
    run_id = control.one_step("py.falls-silent", 4.5, timeoutMs=1_500, retries=2)

    assert control.output(run_id) == 2
    assert control.look(run_id).checkpoint("py.falls-silent").attempts == 2


def test_a_step_that_falls_silent_at_its_last_attempt_fails_the_run(control: Control) -> None:
    run_id = control.one_step("py.falls-silent", 4.5, timeoutMs=1_000)

    run = control.outcome(run_id)
    assert run.status == "failed"
    assert run.error is not None
    assert f"{run_id}:0" in run.error.message
