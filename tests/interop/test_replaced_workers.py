"""A worker is killed in the middle of everything, and one with changed code takes its runs over."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker import new_prefix
from tests.interop.bodies import CODE
from tests.interop.control import Control, Run, until
from tests.interop.journal import Entry, read_journal
from tests.interop.processes import BODIES, House

pytestmark = pytest.mark.broker

OLD = ("begin", "work")
NEW = ("begin", "check", "work", "report")


def start(control: Control, body: str, key: str, more: object = None) -> None:
    control.start("b.run", {"body": body, "key": key, "more": more}, run_id=key)


@pytest.fixture(scope="module")
def killed() -> set[int]:
    """Filled by `shared_house`."""
    return set()


@pytest.fixture(scope="module")
def shared_house(
    operator_main: Path, broker_url: str, tmp_path_factory: pytest.TempPathFactory, killed: set[int]
) -> Iterator[House]:
    """The runs that the tests look at were begun by a worker that is dead."""
    folder = tmp_path_factory.mktemp("replaced")
    with House(operator_main, broker_url, new_prefix(), folder) as house:
        control = house.start_operator()
        old = house.start_telling_worker(BODIES)
        control.wait_for_groups("b.run", "b.act", "b.undo")
        for name in ("early", "late"):
            start(control, "patches", name)
        start(control, "values", "values")
        for token in ("early before", "late before", "values"):
            control.wait_for_waiter(token)
        control.signal("late before")
        control.wait_for_waiter("late after")
        start(control, "undone", "undone", ["first", "slow", "last"])
        until(lambda: calls_of(house, "undo undone slow") or None, lambda: "nothing is undone")

        killed.add(old.kill())
        house.start_telling_worker(BODIES, **{CODE: "new"})
        control.signal("late poke")  # a turn before the wait is over
        until(lambda: has_seen_poke(control, "late") or None, lambda: "no turn")
        for token in ("values", "early before", "late after"):
            control.signal(token)
        yield house


def has_seen_poke(control: Control, run_id: str) -> bool:
    """Whether the body, which listens at seq 1, has got a signal there."""
    checkpoints = control.look(run_id).checkpoints
    return any(each.name == "durable:delivered" and 1 in each.output for each in checkpoints)


def calls_of(house: House, key: str) -> list[str]:
    return [each.attempt for each in entries_of(house, "call") if each.attempt.startswith(key)]


def entries_of(house: House, what: str) -> list[Entry]:
    return [each for each in read_journal(house.journal) if each.what == what]


def test_compensating_goes_on_where_the_killed_worker_was(
    shared_house: House, control: Control, killed: set[int]
) -> None:
    run = control.outcome("undone")

    assert run.status == "failed"
    assert run.error is not None
    assert (run.error.code, run.error.message) == ("undone", "nothing of it")
    undone = calls_of(shared_house, "undo undone")
    assert list(dict.fromkeys(undone)) == [
        f"undo undone {name}" for name in ("last", "slow", "first")
    ]
    assert undone.count("undo undone slow") == 2
    assert len(undone) == 4
    slow = [each for each in entries_of(shared_house, "call") if "undone slow" in each.attempt]
    assert [each.pid in killed for each in slow] == [True, True, False]


def test_values_decided_before_the_kill_are_the_same_after_it(
    shared_house: House, control: Control
) -> None:
    output = control.output("values")

    passages = [
        each for each in entries_of(shared_house, "passage") if each.attempt.startswith("values")
    ]
    assert len({each.pid for each in passages}) == 2
    assert {each.attempt for each in passages} == {f"values {output}"}
    assert output["pid"] == passages[0].pid
    assert output["effect"] == [f"no setting in {passages[0].pid}", "no-setting"]
    assert output["broken"] == ["call 1 of values broken", "still-broken"]
    assert [each.attempt for each in entries_of(shared_house, "effect")] == ["values"]
    assert calls_of(shared_house, "values local") == ["values local"]


def test_a_run_takes_the_new_way_only_if_it_had_not_come_to_the_change(
    shared_house: House, control: Control
) -> None:
    control.wait_for_waiter("early after")
    control.signal("early after")

    assert control.output("early") == [f"did early {each}" for each in NEW]
    assert control.output("late") == [f"did late {each}" for each in OLD]
    assert calls_of(shared_house, "late") == [f"late {each}" for each in OLD]
    patches = [each for each in control.look("early").checkpoints if "patch" in each.name]
    assert [(each.name, each.output) for each in patches] == [
        ("patch:check", True),
        ("patch:report", True),
    ]


def test_a_run_that_starts_on_the_new_code_takes_the_new_way(control: Control, prefix: str) -> None:
    start(control, "patches", prefix)
    for when in ("before", "after"):
        control.signal(f"{prefix} {when}")

    run: Run = control.outcome(prefix)
    assert run.output == [f"did {prefix} {each}" for each in NEW]
