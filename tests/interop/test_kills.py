"""Worker, operator and broker die while runs are in flight: nothing lost, nothing repeated."""

from collections import Counter
from pathlib import Path

import pytest

from tests.broker import BrokerNode
from tests.interop.control import TERMINAL, Control, until
from tests.interop.journal import check_journal, read_journal
from tests.interop.processes import House

pytestmark = pytest.mark.broker

GROUPS = ("py.work", "py.small", "py.mixed", "py.slow-turn", "ts.work")
EXPECTED = {"ts.mixed": [0, 1, 2, 3], "py.mixed": [0, 1, 2, 3, 4, 5]}


def start_mixed(control: Control, count: int, *, since: int = 0) -> list[str]:
    """So many runs, numbered from `since`, every other one of a TypeScript workflow."""
    workflows = [("ts.mixed", "py.mixed")[n % 2] for n in range(count)]
    names = [f"{workflow[:2]}{n}" for n, workflow in enumerate(workflows, since)]
    for workflow, name in zip(workflows, names, strict=True):
        control.start(workflow, name, run_id=name)
    return names


def wait_for_all(control: Control, runs: list[str], *, seconds: float) -> None:
    """Every run completed, with the output that it would have had without any kill."""

    def are_terminal() -> bool | None:
        statuses = control.statuses()
        return all(statuses[run] in TERMINAL for run in runs) or None

    def state() -> str:
        statuses = control.statuses()
        stuck = [control.look(run) for run in runs if statuses[run] not in TERMINAL]
        return f"{Counter(statuses[run] for run in runs)}, for example {stuck[:2]}"

    until(are_terminal, state, seconds=seconds)
    outcomes = [control.outcome(run) for run in runs]
    assert [each for each in outcomes if each.output != EXPECTED[each.workflow]] == []


def wait_until_started(house: House, key: str) -> None:
    def has_started() -> bool | None:
        entries = read_journal(house.journal)
        return any(e.what == "start" and e.attempt.startswith(key) for e in entries) or None

    until(has_started, lambda: f"{key} did not start")


def wait_until_completed(control: Control, count: int) -> None:
    def are_enough() -> bool | None:
        return Counter(control.statuses().values())["completed"] >= count or None

    until(are_enough, lambda: f"{Counter(control.statuses().values())}", seconds=60)


def test_a_step_whose_worker_is_killed_runs_on_the_next_worker(house: House) -> None:
    control = house.start_operator()
    worker = house.start_telling_worker()
    control.wait_for_groups(*GROUPS)
    run_id = control.one_step("py.work", {"run": "x", "number": 9})
    wait_until_started(house, run_id)

    killed = worker.kill()
    house.start_telling_worker()

    assert control.output(run_id) == 9
    check_journal(house.journal, killed={killed})


def test_a_turn_whose_worker_is_killed_is_decided_by_the_next_worker(house: House) -> None:
    control = house.start_operator()
    worker = house.start_telling_worker()
    control.wait_for_groups(*GROUPS)
    run_id = control.start("py.slow-turn", "x")
    wait_until_started(house, run_id)

    killed = worker.kill()
    house.start_telling_worker()

    assert control.output(run_id) == 9
    check_journal(house.journal, killed={killed})


def test_runs_complete_while_their_workers_are_killed_again_and_again(house: House) -> None:
    control = house.start_operator()
    workers = [house.start_telling_worker() for _ in range(2)]
    control.wait_for_groups(*GROUPS)
    runs = start_mixed(control, 60)
    killed: set[int] = set()

    for number in range(4):
        wait_until_completed(control, 20 * (number + 1))
        killed.add(workers.pop(0).kill())
        workers.append(house.start_telling_worker())

    wait_for_all(control, runs, seconds=60)
    check_journal(house.journal, killed=killed)


def test_two_hundred_runs_complete_by_themselves_after_the_operator_was_killed(
    house: House,
) -> None:
    control = house.start_operator()
    house.start_telling_worker()
    control.wait_for_groups(*GROUPS)
    runs = start_mixed(control, 200)
    wait_until_completed(control, 40)

    killed = house.operator.kill()
    control = house.start_operator()

    wait_for_all(control, runs, seconds=120)
    check_journal(house.journal, killed={killed})


def test_runs_complete_while_the_operator_is_killed_again_and_again(house: House) -> None:
    control = house.start_operator()
    house.start_telling_worker()
    control.wait_for_groups(*GROUPS)
    runs = start_mixed(control, 60)
    killed: set[int] = set()

    for number in range(3):
        wait_until_completed(control, 12 * (number + 1))
        killed.add(house.operator.kill())
        control = house.start_operator()

    wait_for_all(control, runs, seconds=120)
    check_journal(house.journal, killed=killed)


def test_one_of_two_operators_on_one_store_finishes_the_runs_of_the_one_that_was_killed(
    house: House,
) -> None:
    first = house.start_operator()
    killed = house.operator
    second = house.start_operator()
    house.start_telling_worker()
    for control in (first, second):
        control.wait_for_groups(*GROUPS)
    runs = start_mixed(first, 20)
    runs += start_mixed(second, 20, since=20)
    wait_until_completed(second, 8)

    pid = killed.kill()

    wait_for_all(second, runs, seconds=60)
    check_journal(house.journal, killed={pid})


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_runs_complete_after_the_broker_was_away(
    operator_main: Path, broker_node: BrokerNode, prefix: str, tmp_path: Path, how: str
) -> None:
    with House(operator_main, broker_node.url(), prefix, tmp_path) as house:
        control = house.start_operator()
        house.start_telling_worker()
        control.wait_for_groups(*GROUPS)
        runs = start_mixed(control, 60)
        wait_until_completed(control, 10)

        broker_node.stop() if how == "stopped" else broker_node.kill()
        broker_node.start()

        wait_for_all(control, runs, seconds=90)
        check_journal(house.journal, killed=set())
