"""Workers in the wrong place, messages that nobody can read: it is said, and no run hangs."""

import json
from functools import partial
from typing import Any

import pytest
from anyio.to_thread import run_sync

from durable_worker.protocol.names import Names
from tests.broker import new_prefix
from tests.interop.control import Run, until
from tests.interop.peer import Peer
from tests.interop.processes import House

pytestmark = [pytest.mark.anyio, pytest.mark.broker]

PAIR = {"a": 2, "b": 3}


def advice(house: House, group: str) -> dict[str, Any]:
    """What the operator says about a task that nobody takes."""
    line = house.operator.logged(f'"group":"{group}"')
    said: dict[str, Any] = json.loads(line)
    assert "no_worker_for_group" in said.values()
    return said


def test_the_operator_says_which_group_has_no_worker_while_one_waits_on_another_prefix(
    house: House,
) -> None:
    control = house.start_operator()
    worker = house.start_worker(prefix=new_prefix())
    worker.logged("py.add")

    run_id = control.one_step("py.add", PAIR)

    said = advice(house, "py.add")
    assert not any(group.startswith("py.") for group in said["liveGroups"])
    assert house.prefix in said["next"]
    house.start_worker()
    assert control.output(run_id) == 5


def test_the_operator_says_which_partition_is_served_when_another_one_is_asked_for(
    house: House,
) -> None:
    control = house.start_operator()
    house.start_worker("--partition", "blue")
    control.wait_for_groups("py.add@blue")

    control.one_step("py.add", PAIR)

    assert "py.add@blue" in advice(house, "py.add")["next"]


def test_a_run_of_a_namespace_goes_to_the_workers_of_that_partition(house: House) -> None:
    control = house.start_operator()
    house.start_worker("--partition", "blue")
    control.wait_for_groups("py.fan@blue", "py.add@blue")

    run_id = control.start("py.fan", 2, namespace="blue")

    assert control.output(run_id) == [1, 2]


async def test_a_run_is_blocked_while_the_only_worker_speaks_another_protocol(
    shared_house: House,
) -> None:
    house, control = shared_house, shared_house.control
    async with Peer(house.url, Names(prefix=house.prefix)) as peer:
        future = {"version": 3, "range": [2, 3]}
        await peer.announce("from-the-future", ["py.future"], protocol=future)
        await run_sync(control.wait_for_groups, "py.future")

        run_id = await run_sync(control.one_step, "py.future")

        blocked = await run_sync(partial(control.wait, run_id, status=("blocked",)))
    assert blocked.run is not None
    assert blocked.run.error is not None
    assert blocked.run.error.code == "protocol.incompatible"
    (event, *_) = await run_sync(control.engine_events, run_id, "run.blocked")
    assert event["diagnostics"]["workerRanges"] == [[2, 3]]
    said = json.loads(await run_sync(house.operator.logged, "from-the-future"))
    assert (said["workerSpeaks"], said["operatorSpeaks"]) == ("2 to 3", "1 to 1")


@pytest.mark.parametrize(
    ("queue", "kind", "body"),
    [
        ("results", "step-result", b"{ not json"),
        ("results", "step-result", {"seq": 1, "stepId": "x:1", "status": "completed"}),
        ("results", "step-result", {"runId": "x", "seq": 0, "stepId": "x:0", "status": "maybe"}),
        ("decisions", "workflow-decision", b"\xff\xfe"),
        ("decisions", "workflow-decision", {"runId": "x", "status": "continue", "commands": []}),
        ("decisions", "workflow-decision", []),
    ],
)
async def test_an_answer_that_cannot_be_read_becomes_a_dead_letter_with_its_reason(
    shared_house: House, queue: str, kind: str, body: object
) -> None:
    control, names = shared_house.control, Names(prefix=shared_house.prefix)
    message_id = new_prefix()
    async with Peer(shared_house.url, names) as peer:
        await peer.send(getattr(names, queue), kind, body, message_id=message_id)

    def letter() -> dict[str, Any] | None:
        letters = control.ask("GET", "/dead-letters")
        return next((each for each in letters if each["messageId"] == message_id), None)

    found = await run_sync(lambda: until(letter, lambda: "no dead letter"))
    assert found["type"] == kind
    assert found["headers"]["durable-error"] == found["reason"]
    assert found["reason"]
    run_id = await run_sync(control.one_step, "py.add", PAIR)
    assert await run_sync(control.output, run_id) == 5


async def test_a_result_that_cannot_be_read_fails_the_step_that_it_names(
    shared_house: House, prefix: str
) -> None:
    control, names = shared_house.control, Names(prefix=shared_house.prefix)
    async with Peer(shared_house.url, names) as peer:
        run_id = await run_sync(control.one_step, f"{prefix}.step")
        await peer.take(names.tasks(f"{prefix}.step"))
        result = {"runId": run_id, "seq": 0, "stepId": f"{run_id}:0", "status": "perhaps"}
        await peer.send(names.results, "step-result", result)

    run = await run_sync(control.outcome, run_id)
    assert run.status == "failed"
    assert run.error is not None
    assert run.error.message.startswith("poison message")


async def test_a_step_that_the_worker_cannot_read_fails_its_run(house: House) -> None:
    control = await run_sync(house.start_operator)
    names = Names(prefix=house.prefix)
    async with Peer(house.url, names) as peer:
        run_id = await run_sync(control.one_step, "py.add", PAIR)
        task = json.loads((await peer.take(names.tasks("py.add"))).body)
        del task["name"]
        await peer.send(names.tasks("py.add"), "step-task", task)

        await run_sync(house.start_worker)
        run = await run_sync(control.outcome, run_id)

    assert_unreadable(run)


async def test_a_turn_that_the_worker_cannot_read_fails_its_run(house: House) -> None:
    control = await run_sync(partial(house.start_operator, SILENCE_MS="60000"))
    names = Names(prefix=house.prefix)
    async with Peer(house.url, names) as peer:
        await peer.announce("stand-in", ["py.sum"])
        await run_sync(control.wait_for_groups, "py.sum")
        run_id = await run_sync(control.start, "py.sum", PAIR)
        task = json.loads((await peer.take(names.tasks("py.sum"))).body)
        task["history"] = [{"seq": "first"}]
        await peer.send(names.tasks("py.sum"), "workflow-task", task)

        await run_sync(house.start_worker)
        run = await run_sync(control.outcome, run_id)

    assert_unreadable(run)


def assert_unreadable(run: Run) -> None:
    assert run.status == "failed"
    assert run.error is not None
    assert "not a valid" in run.error.message
