"""Python workflows that the NestJS operator drives."""

import pytest

from tests.interop.control import Control, until
from tests.interop.journal import Entry, read_journal
from tests.interop.processes import House

pytestmark = pytest.mark.broker


def entries_of(house: House, key: str) -> list[Entry]:
    return [entry for entry in read_journal(house.journal) if entry.attempt.startswith(key)]


def test_a_python_workflow_calls_steps_of_both_languages(control: Control) -> None:
    assert control.output(control.start("py.sum", {"a": 2, "b": 3})) == 10


def test_fifty_steps_run_beside_each_other_and_answer_in_order(control: Control) -> None:
    assert control.output(control.start("py.fan", 50)) == list(range(1, 51))


def test_a_sleep_lasts_as_long_as_it_was_asked_for(control: Control) -> None:
    slept = control.output(control.start("py.sleeper", 700))

    assert 0.7 <= slept < 5


def test_a_failed_step_is_tried_again_by_the_policy_of_the_workflow(control: Control) -> None:
    run_id = control.start("py.retries", "once")

    step_id = control.output(run_id)
    calls = [each for each in control.look(run_id).checkpoints if each.name == "py.second-try"]
    assert [each.status for each in calls] == ["failed", "completed"]
    assert step_id == calls[1].step_id


def test_a_failed_step_can_be_caught_with_its_code_and_details(control: Control) -> None:
    caught = control.output(control.start("py.catches-step", "4000"))

    assert caught == {
        "message": "card 4000 was declined",
        "code": "declined",
        "details": {"card": "4000"},
    }


def test_a_workflow_that_raises_fails_its_run_with_the_message(control: Control) -> None:
    run = control.outcome(control.start("py.failing-child", "4000"))

    assert run.status == "failed"
    assert run.error is not None
    assert "card 4000 was declined" in run.error.message


def test_a_signal_that_was_sent_before_the_wait_is_delivered(control: Control, prefix: str) -> None:
    run_id = control.start("py.signalled", f"early:{prefix}")
    control.signal(f"early:{prefix}", {"by": "Ann"})

    assert control.output(run_id) == {"by": "Ann"}


def test_a_signal_that_is_sent_during_the_wait_is_delivered(control: Control, prefix: str) -> None:
    run_id = control.start("py.signalled", f"late:{prefix}")
    control.wait_for_waiter(f"late:{prefix}")
    control.signal(f"late:{prefix}", [1, 2])
    assert control.output(run_id) == [1, 2]


def test_a_wait_for_a_signal_ends_when_its_time_is_over(control: Control, prefix: str) -> None:
    assert control.output(control.start("py.patient", f"never:{prefix}")) == "nobody called"


def test_values_decided_once_are_the_same_at_every_replay_from_the_top(house: House) -> None:
    control = house.start_operator()
    house.start_telling_worker(KEPT_RUNS="0")
    control.wait_for_groups("py.stable", "py.add")

    output = control.output(control.start("py.stable", "key"))

    passages = [entry.attempt for entry in entries_of(house, "key ")]
    assert len(passages) >= 5
    assert set(passages) == {f"key {output['token']} {output['now']}"}


def test_a_running_python_step_learns_that_its_run_was_cancelled(
    shared_house: House, control: Control, prefix: str
) -> None:
    def said(what: str) -> bool | None:
        return any(e.what == what for e in entries_of(shared_house, prefix)) or None

    run_id = control.start("py.cancellable", prefix)
    until(lambda: said("start"), lambda: "the step did not start")
    control.ask("POST", "/cancel", {"runId": run_id})

    until(lambda: said("cancelled"), lambda: "the step was not told")
    assert control.outcome(run_id).status == "cancelled"
