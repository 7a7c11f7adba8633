"""What a client promises, whichever way it goes to the operator."""

from contextlib import aclosing
from datetime import timedelta
from functools import partial
from itertools import pairwise

import anyio
import pytest
from msgspec import Raw

from durable_worker import RegistrationError
from durable_worker.client import Client
from durable_worker.errors import (
    NoOperatorError,
    PayloadError,
    QueryFailedError,
    RequestRefusedError,
    RunCancelledError,
    RunEndedError,
    RunExistsError,
    RunFailedError,
    RunNotFoundError,
    StartWaitsError,
)
from durable_worker.protocol.failure import GIVEN_UP
from durable_worker.protocol.runs import RunQuery, RunStatus
from durable_worker.stores import listings
from tests.conformance.clients.app import (
    asking,
    attending,
    doubling,
    filed,
    impatient,
    laps,
    parent_of_laps,
    reporting,
    stages,
    stopped,
)
from tests.integration.operator.waiting import eventually

pytestmark = pytest.mark.anyio

SOON = timedelta(seconds=30)


async def test_a_run_id_that_is_taken_gives_the_run_that_has_it_by_default(client: Client) -> None:
    first = await client.start(doubling, 1, run_id="r1")
    second = await client.start(doubling, 5, run_id="r1", reuse="return")
    assert await first.result(timeout=SOON) == await second.result(timeout=SOON) == 2


async def test_a_start_that_rejects_taken_ids_succeeds_once(client: Client) -> None:
    handle = await client.start(doubling, 1, run_id="r1", reuse="reject")
    assert (handle.run_id, await handle.result(timeout=SOON)) == ("r1", 2)
    with pytest.raises(RunExistsError, match="run 'r1' exists already") as caught:
        await client.start(doubling, 2, run_id="r1", reuse="reject")
    assert caught.value.run_id == "r1"
    assert [each.id for each in await client.list()] == ["r1"]


async def test_of_many_starts_at_once_that_reject_one_succeeds(client: Client) -> None:
    outcomes: list[bool] = []

    async def start(value: int) -> None:
        try:
            await client.start(doubling, value, run_id="r1", reuse="reject")
        except RunExistsError:
            outcomes.append(False)
        else:
            outcomes.append(True)

    async with anyio.create_task_group() as group:
        for value in range(8):
            group.start_soon(start, value)
    assert sorted(outcomes) == [False] * 7 + [True]


async def test_a_run_is_terminated_by_the_one_that_takes_its_place(client: Client) -> None:
    old = await client.start(attending, run_id="r1", reuse="reject")
    handles = [await client.start(attending, run_id="r1", reuse="terminate") for _ in range(3)]
    last = await client.start(doubling, 4, run_id="r1", reuse="terminate")
    assert [each.run_id for each in [old, *handles, last]] == ["r1", "r1~2", "r1~3", "r1~4", "r1~5"]
    assert await last.result(timeout=SOON) == 8
    for each, successor in pairwise([old, *handles, last]):
        with pytest.raises(RunCancelledError, match=successor.run_id) as caught:
            await each.result(timeout=SOON)
        assert (caught.value.status, caught.value.code) == ("cancelled", "replaced")
    # One that has ended by itself stays as it is.
    again = await client.start(doubling, 5, run_id="r1", reuse="terminate")
    assert (again.run_id, await again.result(timeout=SOON)) == ("r1~6", 10)
    assert await last.result(timeout=SOON) == 8


async def test_termination_without_a_predecessor_is_a_plain_start(client: Client) -> None:
    handle = await client.start(doubling, 1, run_id="r1", reuse="terminate")
    assert (handle.run_id, await handle.result(timeout=SOON)) == ("r1", 2)


async def test_a_run_that_goes_on_as_new_is_one_run_to_its_clients(client: Client) -> None:
    handle = await client.start(
        laps, {"seen": [], "enough": [6]}, run_id="r1", tags=["round"], context={"tenant": "acme"}
    )
    for number in range(1, 7):
        await handle.update("next", number)
    assert sorted(await handle.result(timeout=SOON)) == [2, 4, 6, 8, 10, 12]
    detail = await client.detail("r1")
    assert (detail.run.tags, detail.run.status) == (["round"], RunStatus.COMPLETED)
    first = detail.timeline[0]
    assert (first.name, first.output) == ("durable:continued", Raw(b"2"))
    assert len(detail.timeline) == 5
    assert [each.id for each in await client.list()] == ["r1"]


async def test_a_parent_gets_what_its_child_ends_with_however_often_it_went_on(
    client: Client,
) -> None:
    handle = await client.start(parent_of_laps, {"seen": [], "enough": [4]})
    with anyio.fail_after(30):
        while True:
            try:
                child = await client.query(handle.run_id, "child", returns=str)
                break
            except (QueryFailedError, RunNotFoundError, StartWaitsError):
                await anyio.sleep(0.02)
    for number in range(1, 5):
        await client.signal(f"update:{child}:next", number)
    assert sorted(await handle.result(timeout=SOON)) == [2, 4, 6, 8]


async def test_a_cancellation_reaches_a_run_that_has_gone_on_as_new(client: Client) -> None:
    handle = await client.start(laps, {"seen": [], "enough": [9]}, run_id="r1")
    for number in range(1, 4):
        await handle.update("next", number)
    await handle.cancel()
    with pytest.raises(RunCancelledError):
        await handle.result(timeout=SOON)


async def test_a_step_whose_wait_was_cancelled_is_stopped_where_it_runs(client: Client) -> None:
    stopped.clear()
    handle = await client.start(impatient, run_id="r1")
    await eventually(lambda: stopped == ["r1"])
    _, step, *_ = (await handle.detail()).timeline
    assert (step.name, step.status, step.error) == ("patient", "failed", GIVEN_UP)
    await handle.signal("go-r1")
    assert await handle.result(timeout=SOON) == "given up"


async def test_runs_are_found_by_what_they_were_started_with_and_what_they_set(
    client: Client,
) -> None:
    for run_id, customer in (("r1", "ada"), ("r2", "bob"), ("r3", "ada")):
        told = {"note": "new", "region": "eu"}
        await client.start(filed, customer, run_id=run_id, search_attributes=told)

    async def found(**asked: object) -> list[str]:
        return sorted(each.id for each in await client.list(RunQuery(search_attributes=asked)))

    async def all_wait() -> bool:
        return await found(stage="waiting") == ["r1", "r2", "r3"]

    await eventually(all_wait)
    assert await found(customer="ada") == ["r1", "r3"]
    assert await found(customer="ada", region="eu", stage="waiting") == ["r1", "r3"]
    assert await found(note="new") == []
    await client.handle("r3").update("close")
    await client.handle("r3").wait(timeout=SOON)
    assert await found(customer="ada", stage="waiting") == ["r1"]
    assert await found(stage="closed") == ["r3"]
    by_pages = client.runs(RunQuery(search_attributes={"region": "eu"}, limit=1))
    assert sorted([each.id async for each in by_pages]) == ["r1", "r2", "r3"]
    run = (await client.detail("r3")).run
    assert run.search_attributes == {"region": "eu", "customer": "ada", "stage": "closed"}
    with pytest.raises(RequestRefusedError, match="not found by dict under 'customer'"):
        await found(customer={"first": "ada"})


async def test_a_list_by_attributes_begins_and_ends_where_it_was_asked_to(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listings, "MOST_ON_A_PAGE", 2)
    for number in range(6):
        told = {"lot": 1}
        handle = await client.start(doubling, 1, run_id=f"r{number}", search_attributes=told)
        await handle.wait(timeout=SOON)

    async def listed(limit: int | None, offset: int | None) -> list[str]:
        query = RunQuery(search_attributes={"lot": 1}, limit=limit, offset=offset)
        return [each.id for each in await client.list(query)]

    assert await listed(None, None) == ["r5", "r4", "r3", "r2", "r1", "r0"]
    assert await listed(3, None) == ["r5", "r4", "r3"]
    assert await listed(3, 1) == ["r4", "r3", "r2"]
    assert await listed(1, 5) == ["r0"]
    assert await listed(2, 6) == []


async def test_tags_and_search_attributes_stay_with_the_run(client: Client) -> None:
    told = {"customer": "c-1", "items": 2}
    queued = await client.start(doubling, 1, tags=["a", "b"], search_attributes=told)
    answered = await client.start(
        doubling, 1, run_id="r2", reuse="reject", tags=["a"], search_attributes=told
    )
    for handle, tags in ((queued, ["a", "b"]), (answered, ["a"])):
        run = await handle.wait(timeout=SOON)
        assert (run.tags, run.search_attributes) == (tags, told)
    with pytest.raises(PayloadError, match="search attributes"):
        await client.start(doubling, 1, search_attributes={"x": object()})


async def test_pages_are_complete_and_stable_while_runs_start(client: Client) -> None:
    for number in range(7):
        await (await client.start(doubling, number, run_id=f"r{number}", tags=["old"])).result()
    query = RunQuery(limit=3)
    page = await client.page(query)
    seen = [each.id for each in page.runs]
    while page.next is not None:
        await (await client.start(doubling, 0)).result()
        page = await client.page(query, after=page.next)
        seen += [each.id for each in page.runs]
    assert sorted(seen) == [f"r{number}" for number in range(7)]
    assert [each.id async for each in client.runs(RunQuery(limit=2, tag="old"))] == seen
    assert [each async for each in client.runs(RunQuery(workflow="asking"))] == []


async def test_a_page_whose_end_is_the_end_of_the_list_has_no_next(client: Client) -> None:
    await (await client.start(doubling, 1, run_id="r1")).result(timeout=SOON)
    page = await client.page(RunQuery(limit=1))
    assert ([each.id for each in page.runs], page.next) == (["r1"], None)


@pytest.mark.parametrize(
    "cursor", ["nonsense", "12", "12:", "-1:r", "1" * 30 + ":r", "9" * 16 + ":r"]
)
async def test_what_is_no_cursor_is_refused(client: Client, cursor: str) -> None:
    with pytest.raises(RequestRefusedError, match="no cursor") as caught:
        await client.page(after=cursor)
    assert caught.value.code == "bad-cursor"


async def test_a_run_is_found_by_id_and_read_as_its_workflow_says(client: Client) -> None:
    await (await client.start(doubling, 21, run_id="r1")).wait(timeout=SOON)
    assert await (await client.get("r1", doubling)).result() == 42
    assert await client.handle("r1", doubling).result() == 42
    with pytest.raises(RegistrationError, match="'r1' is one of 'doubling', not of 'asking'"):
        await client.get("r1", asking)
    with pytest.raises(RunNotFoundError):
        await client.get("nosuch")


async def test_a_handle_signals_and_updates_its_run(client: Client) -> None:
    asked = await client.start(asking, "q-1")
    await asked.signal("q-1", 5, signal_id="s1")
    assert await asked.result(timeout=SOON) == 5

    staged = await client.start(stages, 1)
    other = await client.start(stages, 1)
    await staged.update("next", 500)
    with anyio.fail_after(SOON.total_seconds()):
        while True:
            try:
                assert "not valid" in await staged.query("update-rejected:next", returns=str)
                break
            except (QueryFailedError, NoOperatorError):
                await anyio.sleep(0.02)
    await staged.update("next", 4)
    assert await staged.result(timeout=SOON) == 8
    assert (await other.detail()).run.status is not RunStatus.COMPLETED
    await other.cancel()


async def test_a_signal_that_is_sent_many_times_at_once_counts_once(client: Client) -> None:
    asked = [await client.start(asking, "q-1") for _ in range(2)]
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(partial(client.signal, "q-1", 5, signal_id="s1"))
    await client.signal("q-1", 7, signal_id="s2")
    assert sorted([await each.result(timeout=SOON) for each in asked]) == [5, 7]


async def test_what_comes_after_the_end_of_a_run_is_an_error(client: Client) -> None:
    handle = await client.start(doubling, 1, run_id="r1")
    await handle.wait(timeout=SOON)
    for send in (handle.signal, handle.update):
        with pytest.raises(RunEndedError, match="'r1' is completed") as caught:
            await send("x")
        assert caught.value.status == "completed"
    with pytest.raises(RunNotFoundError):
        await client.handle("nosuch").signal("x")


async def test_a_cancelled_run_is_told_from_a_failed_one(client: Client) -> None:
    cancelled = await client.start(asking, "never")
    assert await client.is_taken_up()
    await cancelled.cancel()
    with pytest.raises(RunCancelledError):
        await cancelled.result(timeout=SOON)
    failed = await client.start(doubling, -1)
    with pytest.raises(RunFailedError) as caught:
        await failed.result(timeout=SOON)
    assert not isinstance(caught.value, RunCancelledError)


async def test_events_come_as_they_happen_and_end_with_the_run(client: Client) -> None:
    handle = await client.start(stages, 2)
    seen: list[tuple[str, int | None, object]] = []
    async with aclosing(handle.events(history=True)) as events:
        with anyio.fail_after(SOON.total_seconds()):
            async for event in events:
                if event.type == "run.suspended":
                    continue
                seen.append((event.type, event.seq, event.read()))
                steps = sum(kind == "step.completed" for kind, _, _ in seen)
                if event.type == "run.started" or (event.type == "step.completed" and steps < 2):
                    await handle.update("next", 10 + steps)
    assert seen == [
        ("run.started", None, None),
        ("step.completed", seen[1][1], 20),
        ("step.completed", seen[2][1], 22),
        ("run.completed", None, 42),
    ]


async def test_the_history_of_an_ended_run_is_told_and_then_its_end(client: Client) -> None:
    handle = await client.start(doubling, -1, run_id="r1")
    await handle.wait(timeout=SOON)
    told = [event async for event in handle.events(history=True)]
    assert [(each.type, each.status) for each in told] == [
        ("run.started", None),
        ("step.failed", None),
        ("run.failed", "failed"),
    ]
    assert told[1].error is not None
    assert (told[1].error.code, told[1].name) == ("negative", "double")
    assert [event.type async for event in handle.events()] == ["run.failed"]


async def test_events_without_history_begin_now(client: Client) -> None:
    handle = await client.start(stages, 2)
    await handle.update("next", 1)
    with anyio.fail_after(SOON.total_seconds()):
        async for event in handle.events(history=True):
            if event.type == "step.completed":
                break
        types: list[str] = []
        async with aclosing(handle.events()) as events:
            first = anyio.Event()

            async def feed() -> None:
                await first.wait()
                await handle.update("next", 2)

            async with anyio.create_task_group() as group:
                group.start_soon(feed)
                first.set()
                types += [event.type async for event in events if event.type != "run.suspended"]
    assert types[-2:] == ["step.completed", "run.completed"]


async def test_a_reader_that_is_too_slow_misses_nothing_that_is_history(client: Client) -> None:
    handle = await client.start(stages, 6)
    with anyio.fail_after(SOON.total_seconds()):
        told: list[object] = []
        async with aclosing(handle.events(history=True, most_waiting=1)) as events:
            async for event in events:
                if not told:
                    for number in range(6):
                        await handle.update("next", number)
                    await handle.wait()
                told.append((event.type, event.read()))
    steps = sorted(value for kind, value in told if kind == "step.completed")  # type: ignore[misc]
    assert steps == [0, 2, 4, 6, 8, 10]
    assert told[-1] == ("run.completed", 30)


async def test_events_of_an_unknown_run_are_an_error(client: Client) -> None:
    with pytest.raises(RunNotFoundError):
        async for _ in client.events("nosuch"):
            pass


async def test_what_a_running_step_reports_is_heard_while_it_runs(
    client: Client, request: pytest.FixtureRequest
) -> None:
    if "database" in request.node.callspec.id:
        pytest.skip("a database tells of nothing that is not recorded")
    handle = await client.start(reporting, 3)
    lines: list[str] = []
    with anyio.fail_after(SOON.total_seconds()):
        async with aclosing(handle.events(history=True)) as events:
            async for event in events:
                if event.type == "run.suspended" and not lines:
                    await handle.update("go", update_id="once")
                if event.report is not None:
                    lines.append(event.report.message)
                    assert event.as_json()["report"] == {"level": "info", "message": lines[-1]}
                if len(lines) == 3:
                    await handle.cancel(compensate=False)
                    break
    assert lines == ["line 0", "line 1", "line 2"]
