"""Workflows of one language run workflows of the other as their children."""

import pytest

from tests.interop.control import Control

pytestmark = pytest.mark.broker


def test_a_python_workflow_runs_a_typescript_child(control: Control) -> None:
    run_id = control.start("py.parent", 20)

    assert control.output(run_id) == 41
    assert control.output(f"{run_id}.child.0") == 40


def test_a_typescript_workflow_runs_a_python_child(control: Control) -> None:
    child = {"workflow": "py.child", "input": {"a": 1, "b": 2}}

    assert control.output(control.start("ts.parent", child)) == {"output": 3}


def test_a_python_workflow_catches_the_failure_of_its_typescript_child(control: Control) -> None:
    caught = control.output(control.start("py.catches-child", "c-7"))

    assert "no such customer: c-7" in caught["message"]


def test_a_typescript_workflow_catches_the_failure_of_its_python_child(control: Control) -> None:
    child = {"workflow": "py.failing-child", "input": "4000"}

    caught = control.output(control.start("ts.parent", child))
    assert "card 4000 was declined" in caught["caught"]
