"""What a Python body publishes and waits for, as the NestJS engine's own methods see it."""

import pytest

from tests.interop.control import Control, until

pytestmark = pytest.mark.broker


def test_the_latest_published_value_of_a_run_can_be_read(control: Control, prefix: str) -> None:
    run_id = control.start("py.reports", prefix)
    control.wait_for_waiter(prefix)
    assert control.published(run_id, "progress") == {"done": 1, "of": 2}

    control.signal(prefix)
    control.wait_for_waiter(f"{prefix}:end")
    assert control.published(run_id, "progress") == {"done": 2, "of": 2}

    control.signal(f"{prefix}:end")
    assert control.output(run_id) == "reported"
    assert control.published(run_id, "progress") == {"done": 2, "of": 2}


def test_a_webhook_is_called_back_under_the_token_that_the_body_gave_away(
    control: Control,
) -> None:
    run_id = control.start("py.called-back")
    token = until(lambda: control.published(run_id, "token"), lambda: f"{control.look(run_id)}")
    control.wait_for_waiter(token)

    assert token.startswith(f"wh:{run_id}:")
    assert control.ask("POST", f"/webhook/{token}", {"paid": True}) == {"delivered": True}
    assert control.output(run_id) == {"token": token, "payload": {"paid": True}}


def test_an_update_reaches_the_run_that_waits_for_it(control: Control) -> None:
    run_id = control.start("py.updated")
    control.wait_for_waiter(f"update:{run_id}:address")

    body = {"runId": run_id, "name": "address", "arg": {"city": "Ulm"}}
    assert control.ask("POST", "/update", body)["accepted"] is True
    assert control.output(run_id) == {"city": "Ulm"}


def test_an_update_that_comes_before_the_wait_is_kept_for_it(control: Control) -> None:
    run_id = control.start("py.updated")
    control.ask("POST", "/update", {"runId": run_id, "name": "address", "arg": 1})

    assert control.output(run_id) == 1


def test_an_event_reaches_only_the_runs_whose_match_it_meets(control: Control, prefix: str) -> None:
    mine = control.start("py.subscriber", f"{prefix}-1")
    other = control.start("py.subscriber", f"{prefix}-2")
    control.wait_for_waiter_of(mine)
    control.wait_for_waiter_of(other)

    first = {"order": f"{prefix}-1", "amount": 7}
    assert control.publish("order paid", first) == 1
    assert control.output(mine) == first

    status = control.look(other).run
    assert status is not None
    assert status.status == "suspended"
    second = {"order": f"{prefix}-2", "amount": 8}
    assert control.publish("order paid", second) == 1
    assert control.output(other) == second
