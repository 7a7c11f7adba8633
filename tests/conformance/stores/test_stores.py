from dataclasses import replace as changed
from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from durable_worker.errors import LeaseLostError, StaleRunsError
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.runs import RunQuery, RunStatus
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.base import Batch, InboxRow, Lease, LeaseHolder, RunCursor, Store
from durable_worker.stores.inputs import CancelRequested, SignalSent, StartRun, encode_input
from durable_worker.stores.records import (
    CheckpointStatus,
    DeadLetter,
    DueTimer,
    Facets,
    OutboxRow,
    OutStep,
    OutTurn,
    PendingWork,
    RunState,
    SignalRecord,
    Waiter,
)
from tests.conformance.stores.samples import (
    FULL_CHECKPOINT,
    FULL_RUN,
    ME,
    NOW,
    TTL,
    a_checkpoint,
    a_run,
    keep,
    lease_of,
)

pytestmark = pytest.mark.anyio

OTHER = changed(ME, instance_id="operator-2", machine="machine-2")


async def test_a_run_and_its_checkpoints_come_back_as_they_were_committed(store: Store) -> None:
    second = a_checkpoint(FULL_RUN.id, 0, status=CheckpointStatus.COMPLETED)
    await keep(store, FULL_RUN, FULL_CHECKPOINT, second)
    assert await store.load(FULL_RUN.id) == RunState(FULL_RUN, [second, FULL_CHECKPOINT])


async def test_a_commit_replaces_rows_with_the_same_key(store: Store) -> None:
    token = await keep(store, FULL_RUN, FULL_CHECKPOINT)
    run = a_run(FULL_RUN.id, status=RunStatus.COMPLETED, output=Raw(b"1"))
    checkpoint = a_checkpoint(FULL_RUN.id, 4, status=CheckpointStatus.FAILED)
    await store.commit(Batch(runs=[run], checkpoints=[checkpoint]), token)
    assert await store.load(FULL_RUN.id) == RunState(run, [checkpoint])


async def test_what_rests_on_a_run_that_is_not_there_is_refused_if_it_is(store: Store) -> None:
    token = await lease_of(store)
    first = a_run("it's \x00 é")
    signal = SignalRecord(id="s", namespace="default", name="n", received_at=NOW)
    await store.commit(Batch(runs=[first], expected=[(first.id, 0)]), token)
    again = replace(first, workflow="another")
    for batch in (
        Batch(runs=[again, a_run("b")], expected=[("b", 0), (first.id, 0)], signals=[signal]),
        Batch(signals=[signal], expected=[(first.id, 0)]),
    ):
        with pytest.raises(StaleRunsError):
            await store.commit(batch, token)
    assert await store.load_many([first.id, "b"]) == {first.id: RunState(first)}
    assert await store.signal("s") is None
    await store.commit(Batch(runs=[again], expected=[("c", 0)]), token)
    assert await store.load(first.id) == RunState(again)


async def test_unknown_runs_are_absent(store: Store) -> None:
    await keep(store, a_run("a"))
    assert await store.load("b") is None
    assert set(await store.load_many(["a", "b"])) == {"a"}


async def test_the_lease_has_one_holder_at_a_time(store: Store) -> None:
    first = await store.acquire_lease(ME, now=NOW, ttl=TTL)
    second = await store.acquire_lease(OTHER, now=NOW + 1, ttl=TTL)
    assert first == Lease(1, is_takeover=False)
    # The holder's process is on another machine, so only time can tell that it is gone.
    assert second == LeaseHolder(ME, NOW + TTL)


async def test_an_expired_lease_is_taken_over_and_fences_the_old_holder(store: Store) -> None:
    old = await lease_of(store)
    taken = await store.acquire_lease(OTHER, now=NOW + TTL, ttl=TTL)
    assert taken == Lease(old + 1, is_takeover=True)
    with pytest.raises(LeaseLostError):
        await store.commit(Batch(runs=[a_run("a")]), old)
    with pytest.raises(LeaseLostError):
        await store.renew_lease(old, now=NOW, ttl=TTL)
    assert await store.load("a") is None


async def test_a_renewed_lease_lasts_longer(store: Store) -> None:
    token = await lease_of(store)
    await store.renew_lease(token, now=NOW + TTL - 1, ttl=TTL)
    assert isinstance(await store.acquire_lease(OTHER, now=NOW + TTL, ttl=TTL), LeaseHolder)


async def test_a_released_lease_is_free_at_once_and_not_a_takeover(store: Store) -> None:
    token = await lease_of(store)
    await store.release_lease(token)
    assert await store.acquire_lease(OTHER, now=NOW, ttl=TTL) == Lease(token + 1, is_takeover=False)
    with pytest.raises(LeaseLostError):
        await store.commit(Batch(runs=[a_run("a")]), token)


async def test_releasing_a_lost_lease_changes_nothing(store: Store) -> None:
    old = await lease_of(store)
    new = await lease_of(store, OTHER, now=NOW + TTL)
    await store.release_lease(old)
    await store.commit(Batch(runs=[a_run("a")]), new)


async def test_due_timers_come_earliest_first_and_only_pending_ones(store: Store) -> None:
    timer = HistoryKind.TIMER
    await keep(
        store,
        a_run("a"),
        a_checkpoint("a", 0, kind=timer, fires_at=NOW + 30),
        a_checkpoint("a", 1, kind=timer, fires_at=NOW + 10),
        a_checkpoint("a", 2, kind=timer, fires_at=NOW + 5, status=CheckpointStatus.COMPLETED),
        a_checkpoint("a", 3, fires_at=NOW + 20),
        a_checkpoint("a", 4),
    )
    assert await store.due_timers(NOW + 20, limit=9) == [
        DueTimer("a", 1, NOW + 10),
        DueTimer("a", 3, NOW + 20),
    ]
    assert await store.due_timers(NOW + 99, limit=1) == [DueTimer("a", 1, NOW + 10)]
    assert await store.next_timer() == NOW + 10
    assert await store.next_wakes(["a", "b"]) == {"a": NOW + 10}


async def test_no_timer_no_next_one(store: Store) -> None:
    assert await store.next_timer() is None
    assert await store.due_timers(NOW, limit=9) == []


async def test_waiters_are_told_by_namespace_and_name_oldest_first(store: Store) -> None:
    signal = HistoryKind.SIGNAL
    await keep(
        store,
        a_run("a"),
        a_run("b"),
        a_run("c", namespace="other"),
        a_checkpoint("a", 0, kind=signal, name="go", enqueued_at=NOW + 2),
        a_checkpoint("b", 0, kind=signal, name="go", enqueued_at=NOW + 1),
        a_checkpoint("b", 1, kind=signal, name="stop"),
        a_checkpoint("b", 2, kind=signal, name="go", status=CheckpointStatus.COMPLETED),
        a_checkpoint("c", 0, kind=signal, name="go", enqueued_at=NOW),
        a_checkpoint("a", 1, name="go"),
    )
    assert await store.waiters("default", "go", limit=9) == [Waiter("b", 0), Waiter("a", 0)]
    assert await store.waiters("default", "go", limit=1) == [Waiter("b", 0)]
    assert await store.waiters("other", "go", limit=9) == [Waiter("c", 0)]


async def test_signals_are_buffered_until_consumed_and_forgotten_later(store: Store) -> None:
    token = await lease_of(store)
    first = SignalRecord(id="s1", namespace="default", name="go", received_at=NOW + 1)
    second = SignalRecord(
        id="s2", namespace="default", name="go", payload=Raw(b"[1]"), received_at=NOW
    )
    await store.commit(Batch(signals=[first, second]), token)
    assert await store.buffered_signals("default", "go", limit=9) == [second, first]
    consumed = replace(second, consumed_at=NOW + 2)
    await store.commit(Batch(signals=[consumed]), token)
    assert await store.buffered_signals("default", "go", limit=9) == [first]
    assert await store.signal("s2") == consumed
    await store.forget_signals(token, consumed_before=NOW + 2)
    assert await store.signal("s2") == consumed
    await store.forget_signals(token, consumed_before=NOW + 3)
    assert await store.signal("s2") is None
    assert await store.signal("s1") == first


async def test_the_outbox_holds_what_was_added_and_not_removed(store: Store) -> None:
    token = await lease_of(store)
    turn, step = OutboxRow("a#1", "a"), OutboxRow("a:0:2", "a", 0, 2)
    await store.commit(Batch(outbox_added=[turn, step]), token)
    assert await store.outbox() == [turn, step]
    await store.commit(Batch(outbox_removed=["a#1", "unknown"]), token)
    assert await store.outbox() == [step]


async def test_pending_work_is_turns_out_and_attempts_out(store: Store) -> None:
    await keep(
        store,
        a_run("a", task_id="a#1"),
        a_run("b"),
        a_run("c", status=RunStatus.COMPLETED),
        a_checkpoint("a", 0, attempt=2, recoveries=1),
        a_checkpoint("a", 1, fires_at=NOW, error=Failure(message="tried again at that time")),
        a_checkpoint("a", 2, kind=HistoryKind.CHILD),
        a_checkpoint("a", 3, fires_at=NOW),
        a_checkpoint("b", 0, status=CheckpointStatus.FAILED),
    )
    assert await store.pending_work() == PendingWork(
        turns=(OutTurn("a", "a#1"),), steps=(OutStep("a", 0, 2, 1), OutStep("a", 3, 1, 0))
    )


async def test_runs_without_a_worker_are_found_by_workflow_oldest_first(store: Store) -> None:
    pending = {"status": RunStatus.PENDING, "version": None}
    young, old = a_run("y", **pending, created_at=NOW + 1), a_run("z", **pending)
    await keep(
        store,
        young,
        old,
        a_run("a"),
        a_run("b", **pending, workflow="v"),
        a_run("c", version=None, status=RunStatus.CANCELLED),
    )
    assert await store.unserved_runs("w", limit=9) == [old, young]
    assert await store.unserved_runs("w", limit=1) == [old]
    assert await store.unserved_workflows() == ["v", "w"]


async def test_submitted_inputs_come_in_order_and_go_with_the_commit(store: Store) -> None:
    inputs = [
        StartRun(run_id="a", workflow="w", input=Raw(b'{"x": 1}'), tags=("t",)),
        SignalSent(signal_id="s", name="go"),
    ]
    first, second = [await store.submit(each) for each in inputs]
    rows = await store.inbox(after=0, limit=9)
    assert rows == [
        InboxRow(first, inputs[0], encode_input(inputs[0])),
        InboxRow(second, inputs[1], encode_input(inputs[1])),
    ]
    assert [row.id for row in await store.inbox(after=first, limit=9)] == [second]
    assert [row.id for row in await store.inbox(after=0, limit=1)] == [first]
    token = await lease_of(store)
    later = CancelRequested(run_id="b")
    await store.commit(Batch(inbox_removed=[first], inbox_added=[later]), token)
    assert [row.input for row in await store.inbox(after=0, limit=9)] == [inputs[1], later]


async def test_a_submission_is_news(store: Store) -> None:
    await store.has_news()
    await store.submit(CancelRequested(run_id="a"))
    assert await store.has_news()


async def test_runs_are_listed_newest_first_by_every_filter(store: Store) -> None:
    one = a_run("1", tags=("x",), created_at=NOW + 1)
    two = a_run("2", workflow="v", created_at=NOW + 2, namespace="other")
    three = a_run("3", status=RunStatus.COMPLETED, tags=("x", "y"), created_at=NOW + 2)
    await keep(store, one, two, three)

    async def ids(**query: object) -> list[str]:
        return [run.id for run in await store.list_runs(RunQuery(**query))]  # type: ignore[arg-type]

    assert await ids() == ["3", "2", "1"]
    assert await ids(workflow="w") == ["3", "1"]
    assert await ids(status=RunStatus.COMPLETED) == ["3"]
    assert await ids(statuses=[RunStatus.COMPLETED, RunStatus.RUNNING]) == ["3", "2", "1"]
    assert await ids(statuses=[]) == []
    assert await ids(tag="x") == ["3", "1"]
    assert await ids(tag="y", workflow="v") == []
    assert await ids(namespace="") == ["3", "1"]
    assert await ids(namespace="other") == ["2"]
    assert await ids(limit=1, offset=1) == ["2"]
    assert await ids(limit=2**70, offset=2**70) == []


async def test_a_listing_goes_on_behind_a_run_whatever_has_come_before_it(store: Store) -> None:
    runs = [a_run(name, created_at=at) for name, at in (("a", 1), ("c", 2), ("b", 2), ("d", 3))]
    await keep(store, *runs)

    async def ids(after: RunCursor, **query: object) -> list[str]:
        found = await store.list_runs(RunQuery(**query), after=after)  # type: ignore[arg-type]
        return [run.id for run in found]

    assert await ids(RunCursor(3, "d")) == ["c", "b", "a"]
    assert await ids(RunCursor(2, "c"), limit=1) == ["b"]
    assert await ids(RunCursor(2, "bb"), workflow="w") == ["b", "a"]
    assert await ids(RunCursor(1, "a")) == []


async def test_facets_count_by_status_and_workflow(store: Store) -> None:
    await keep(
        store,
        a_run("1"),
        a_run("2", workflow="v"),
        a_run("3", status=RunStatus.DEAD),
        a_run("4", namespace="other"),
    )
    assert await store.facets(RunQuery(namespace="default")) == Facets(
        {"running": 2, "dead": 1}, {"w": 2, "v": 1}
    )


async def test_dead_letters_are_kept_as_they_came_newest_first(store: Store) -> None:
    token = await lease_of(store)
    old = DeadLetter(
        id="1", received_at=NOW, reason="bad", body=b"\xff\x00", headers={"a": "b"}, protocol=None
    )
    new = DeadLetter(
        id="2",
        received_at=NOW + 1,
        type="step-task",
        message_id="m",
        reason="worse",
        body=b"12",
        queue="q",
        protocol=2,
        namespace="acme",
        run_id="r",
        seq=-3,
        task_id="r#1",
        size=2,
        last_seq=7,
        redriven_at=NOW + 2,
        redrives=3,
    )
    await store.commit(Batch(dead_letters=[old, new]), token)
    assert await store.dead_letters(limit=9) == [replace(new, body=b""), replace(old, body=b"")]
    assert await store.dead_letters(limit=1) == [replace(new, body=b"")]
    assert [await store.dead_letter(each.id) for each in (old, new)] == [old, new]
    assert await store.dead_letter("3") is None


def a_letter(letter_id: str, **changes: Any) -> DeadLetter:
    fields = {"received_at": NOW, "reason": "bad", "body": b"", **changes}
    return DeadLetter(id=letter_id, **fields)


async def ids_of(store: Store, *, limit: int = 9, **filters: str) -> list[str]:
    return [each.id for each in await store.dead_letters(limit=limit, **filters)]


async def test_dead_letters_are_listed_by_tenant_by_run_and_page_by_page(store: Store) -> None:
    token = await lease_of(store)
    letters = [
        a_letter("a", run_id="r"),
        a_letter("b", namespace="acme", run_id="r"),
        a_letter("c"),
        a_letter("d", received_at=NOW - 1, run_id="s"),
    ]
    await store.commit(Batch(dead_letters=letters), token)
    assert await ids_of(store) == ["c", "b", "a", "d"]
    assert await ids_of(store, namespace="acme") == ["b"]
    assert await ids_of(store, run_id="r", namespace="default") == ["a"]
    assert await ids_of(store, limit=2, after="c") == ["b", "a"]
    assert await ids_of(store, after="d") == []
    assert await ids_of(store, after="unheard-of") == []


async def test_a_dead_letter_that_comes_again_replaces_the_one_before(store: Store) -> None:
    token = await lease_of(store)
    await store.commit(Batch(dead_letters=[a_letter("a", redriven_at=NOW)]), token)
    again = a_letter("a", received_at=NOW + 1, redrives=1)
    await store.commit(Batch(dead_letters=[again]), token)
    assert await store.dead_letters(limit=9) == [again]


async def test_dead_letters_are_forgotten_by_age_and_by_count_under_the_lease_only(
    store: Store,
) -> None:
    token = await lease_of(store)
    letters = [a_letter(str(age), received_at=NOW - age) for age in range(6)]
    await store.commit(Batch(dead_letters=letters), token)
    assert await store.forget_dead_letters(token, received_before=NOW - 4, kept=9) == 1
    assert await store.forget_dead_letters(token, received_before=NOW - 4, kept=9) == 0
    assert await store.forget_dead_letters(token, received_before=0, kept=2) == 3
    assert await ids_of(store) == ["0", "1"]
    await store.release_lease(token)
    await lease_of(store)
    with pytest.raises(LeaseLostError):
        await store.forget_dead_letters(token, received_before=NOW + 1, kept=0)
    assert await ids_of(store) == ["0", "1"]


async def test_a_commit_removes_checkpoints_before_it_writes_others(store: Store) -> None:
    token = await keep(store, a_run("a"), *(a_checkpoint("a", seq) for seq in range(3)))
    again = a_checkpoint("a", 1, name="another")
    batch = Batch(checkpoints=[again], checkpoints_removed=[("a", 1), ("a", 2), ("b", 0)])
    await store.commit(batch, token)
    assert await store.load("a") == RunState(a_run("a"), [a_checkpoint("a", 0), again])


async def test_a_run_is_found_by_the_tags_that_it_has_and_by_no_others(store: Store) -> None:
    odd = ('a"', '"a', "a\nb", "a", "b'\\", ",")
    token = await keep(store, a_run("old", tags=("a", "gone")), a_run("odd", tags=odd))
    await store.commit(Batch(runs=[a_run("old", tags=("new",))]), token)
    for tag in odd:
        assert [each.id for each in await store.list_runs(RunQuery(tag=tag))] == ["odd"]
        assert await store.facets(RunQuery(tag=tag)) == Facets({"running": 1}, {"w": 1})
    for tag in ("gone", '"a"', "b", "", "\n", "%"):
        assert await store.list_runs(RunQuery(tag=tag)) == []
        assert await store.facets(RunQuery(tag=tag)) == Facets()
    assert [each.id for each in await store.list_runs(RunQuery(tag="new"))] == ["old"]
