"""How clients set runs going again that have stopped, whichever way they go to the operator."""

from datetime import timedelta
from functools import partial
from pathlib import Path

import anyio
import pytest

from durable_worker.client import Client, store_client
from durable_worker.errors import NotStoppedError, RunFailedError, RunNotFoundError, StartWaitsError
from durable_worker.protocol.runs import RunStatus
from durable_worker.stores.inputs import TurnRedriven
from durable_worker.stores.sqlite import SqliteStore
from tests.conformance.clients.app import (
    asking,
    break_down,
    charging,
    doubling,
    failing_of_itself,
    forgetful,
    mend,
    resting,
)
from tests.conformance.stores.samples import a_run, keep
from tests.integration.operator.waiting import eventually

pytestmark = pytest.mark.anyio

SOON = timedelta(seconds=30)


async def test_who_waits_for_a_result_hears_that_the_run_is_parked(client: Client) -> None:
    break_down("r1")
    handle = await client.start(forgetful, run_id="r1")
    with pytest.raises(RunFailedError) as parked:
        await handle.result(timeout=SOON, or_parked=True)
    assert (parked.value.status, parked.value.code) == ("blocked", "stuck")
    # Who comes later hears it, too.
    with pytest.raises(RunFailedError):
        await handle.result(timeout=SOON, or_parked=True)


@pytest.mark.parametrize("way", ["retry", "resume"])
async def test_a_parked_run_goes_on_at_once_for_whoever_asks(client: Client, way: str) -> None:
    break_down("r1")
    handle = await client.start(forgetful, run_id="r1")
    with pytest.raises(RunFailedError):
        await handle.result(timeout=SOON, or_parked=True)
    mend("r1")
    await (handle.retry() if way == "retry" else handle.resume())
    with anyio.fail_after(8):  # sooner than it would by itself
        assert await handle.result() == "mended"


async def test_a_failed_step_is_tried_again_with_its_next_attempt(client: Client) -> None:
    break_down("r1")
    handle = await client.start(charging, 5, run_id="r1")
    with pytest.raises(RunFailedError, match="no money"):
        await handle.result(timeout=SOON)
    await handle.retry()
    with pytest.raises(RunFailedError, match="no money"):
        await handle.result(timeout=SOON)
    assert (await handle.detail()).timeline[0].attempts == 2
    mend("r1")
    await handle.retry()
    assert await handle.result(timeout=SOON) == "5 at attempt 3"


async def test_a_body_that_has_failed_gets_another_turn(client: Client) -> None:
    break_down("r1")
    handle = await client.start(failing_of_itself, run_id="r1")
    with pytest.raises(RunFailedError, match="a defect"):
        await handle.result(timeout=SOON)
    mend("r1")
    await handle.retry()
    assert await handle.result(timeout=SOON) == "42"


async def test_a_run_that_rests_at_a_breakpoint_goes_on(client: Client) -> None:
    handle = await client.start(resting, run_id="r1")
    await eventually(partial(_has_timeline, client))
    await handle.resume()
    assert await handle.result(timeout=SOON) == "rested"


async def test_what_a_run_waits_for_is_sent_again(client: Client) -> None:
    handle = await client.start(asking, "q-1", run_id="r1")
    await eventually(partial(_has_timeline, client))
    await handle.redispatch()
    await handle.signal("q-1", 3)
    assert await handle.result(timeout=SOON) == 3


async def test_what_has_not_stopped_is_refused_with_what_to_do(client: Client) -> None:
    handle = await client.start(asking, "q-1", run_id="r1")
    await eventually(partial(_has_timeline, client))
    with pytest.raises(NotStoppedError, match=r"has not failed.*durable-worker redispatch r1"):
        await handle.retry()
    with pytest.raises(NotStoppedError, match=r"rests at no breakpoint.*durable-worker retry r1"):
        await handle.resume()
    done = await client.start(doubling, 1, run_id="r2")
    await done.result(timeout=SOON)
    with pytest.raises(NotStoppedError, match="is completed, and stays so"):
        await done.retry()
    for ask in (client.retry, client.resume, client.redispatch):
        with pytest.raises(RunNotFoundError):
            await ask("nosuch")


async def test_what_no_operator_takes_up_is_recorded_for_the_next(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "x.db") as store:
        await keep(store, a_run("r1", status=RunStatus.FAILED))
        instant = timedelta(milliseconds=20)
        async with store_client(SqliteStore(tmp_path / "x.db"), timeout=instant) as client:
            await client.retry("r1")
            assert not await client.is_taken_up(within=instant)
        (recorded,) = await store.inbox(after=0, limit=9)
        assert recorded.input == TurnRedriven(run_id="r1", task_id="r1#0")


async def _has_timeline(client: Client) -> bool:
    try:
        return bool((await client.detail("r1")).timeline)
    except (RunNotFoundError, StartWaitsError):
        return False
