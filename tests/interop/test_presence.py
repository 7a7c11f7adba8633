"""Which workers the operator sees, and what it does where none can take the work."""

from functools import partial

import pytest
from anyio.to_thread import run_sync

from durable_worker.protocol.names import Names
from durable_worker.version import VERSION
from tests.interop.control import Control, ControlError, until
from tests.interop.peer import Peer
from tests.interop.processes import House

pytestmark = [pytest.mark.anyio, pytest.mark.broker]


def test_a_python_worker_is_listed_with_its_live_status(control: Control) -> None:
    (health,) = [each for each in control.ask("GET", "/health") if each["group"] == "py.add"]

    (worker,) = health["liveWorkers"]
    status = worker["status"]
    assert status["runtime"] == "python"
    assert status["concurrency"] == {"mode": "fixed", "limit": 100}
    assert status["inFlight"] == 0
    assert status["rssBytes"] > 1_000_000


def test_a_python_worker_is_described_with_its_version_and_what_it_serves(
    control: Control,
) -> None:
    (found,) = [d for d in control.ask("GET", "/descriptors") if d["runtime"] == "python"]

    assert found["sdk"] == {"name": "durable-worker", "version": VERSION}
    assert found["protocol"] == {"version": 1, "range": [1, 1]}
    assert "py.sum" in found["workflows"]
    assert "py.add" in found["steps"]


def test_a_worker_that_stops_is_not_listed_any_more(house: House) -> None:
    control = house.start_operator()
    worker = house.start_worker()
    control.wait_for_groups("py.add")

    worker.stop()

    def is_gone() -> bool | None:
        return "py.add" not in control.live_groups() or None

    until(is_gone, lambda: f"{control.live_groups()}", seconds=5)


def test_a_python_workflow_that_no_worker_serves_cannot_be_started(house: House) -> None:
    control = house.start_operator()

    with pytest.raises(ControlError, match=r"workflow py\.sum is not registered"):
        control.start("py.sum", {"a": 1, "b": 1})


def test_operator_and_worker_of_one_namespace_find_each_other(house: House) -> None:
    control = house.start_operator(NAMESPACE="staging")
    house.start_worker("--namespace", "staging")
    house.start_worker("--namespace", "production")
    control.wait_for_groups("py.sum", "py.add")

    assert control.output(control.start("py.sum", {"a": 1, "b": 1})) == 4
    (group,) = [each for each in control.ask("GET", "/health") if each["group"] == "py.add"]
    assert len(group["liveWorkers"]) == 1


def test_an_operator_that_starts_later_knows_the_workers_that_are_there(house: House) -> None:
    house.start_operator()
    house.start_worker()
    house.control.wait_for_groups("py.sum")
    house.operator.stop()

    control = house.start_operator()

    assert control.output(control.start("py.sum", {"a": 1, "b": 1})) == 4


async def test_a_run_is_blocked_until_a_capable_worker_appears(shared_house: House) -> None:
    control, names = shared_house.control, Names(prefix=shared_house.prefix)
    async with Peer(shared_house.url, names) as peer:
        await peer.announce("weak", ["gpu.render"])
        await run_sync(control.wait_for_groups, "gpu.render")
        run_id = await run_sync(partial(control.one_step, "gpu.render", 1, requires=["gpu"]))
        blocked = await run_sync(partial(control.wait, run_id, status=("blocked",)))
        assert blocked.run is not None
        assert blocked.run.error is not None
        assert blocked.run.error.code == "capability.unavailable"
        (event, *_) = await run_sync(control.engine_events, run_id, "run.blocked")
        assert event["diagnostics"]["missingCapabilities"] == ["gpu"]

        await peer.announce("strong", ["gpu.render"], capabilities=["gpu"])
        await peer.take(names.tasks("gpu.render"))
        result = {"runId": run_id, "seq": 0, "stepId": f"{run_id}:0", "status": "completed"}
        await peer.send(names.results, "step-result", result | {"output": "rendered"})

        assert await run_sync(control.output, run_id) == "rendered"
