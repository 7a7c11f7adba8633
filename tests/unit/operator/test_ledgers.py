"""The history of a run as bytes, however it came about."""

from random import Random
from typing import SupportsIndex

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from durable_worker.operator.ledgers import Addition, Ledger, encode_event
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.records import Checkpoint, CheckpointStatus, Run, RunState

RUN = Run(
    id="r",
    workflow="w",
    version="1",
    namespace="default",
    status=RunStatus.RUNNING,
    created_at=0,
    updated_at=0,
)

checkpoints = st.builds(
    Checkpoint,
    run_id=st.just("r"),
    seq=st.integers(0, 8),
    kind=st.just(HistoryKind.CALL),
    name=st.just("s"),
    status=st.sampled_from(CheckpointStatus),
    output=st.integers(0, 10**6).map(lambda each: Raw(b"%d" % each)),
    enqueued_at=st.just(0),
)
changes = st.lists(
    st.tuples(
        st.lists(checkpoints, max_size=4),
        st.lists(st.integers(0, 8), max_size=2),
        st.booleans(),
    ),
    max_size=12,
)


def history_of(ledger: Ledger) -> bytes:
    return bytes(ledger.history())


@given(changes)
def test_history_holds_what_has_ended_in_order_of_seq_whatever_came_first(
    changes: list[tuple[list[Checkpoint], list[int], bool]],
) -> None:
    ledger = Ledger(RunState(RUN))
    for changed, withdrawn, is_sent in changes:
        ledger.absorb(None, changed, withdrawn)
        if is_sent:
            history_of(ledger)
        ended = [
            ledger.state.checkpoints[seq]
            for seq in sorted(ledger.state.checkpoints)
            if ledger.state.checkpoints[seq].is_history
        ]
        again = Ledger(RunState(RUN, ledger.state.checkpoints.values()))
        assert again.weight == ledger.weight
        assert history_of(again) == b"".join(encode_event(each) + b"," for each in ended)
    assert history_of(ledger) == history_of(Ledger(ledger.state))
    array = b"[" + history_of(ledger)[:-1] + b"]"
    assert [each["seq"] for each in msgspec.json.decode(array)] == sorted(
        seq for seq, each in ledger.state.checkpoints.items() if each.is_history
    )


@given(changes, st.randoms(use_true_random=False))
def test_what_a_worker_keeps_and_what_it_is_told_are_the_history(
    changes: list[tuple[list[Checkpoint], list[int], bool]], chance: Random
) -> None:
    ledger = Ledger(RunState(RUN))
    kept: dict[str, dict[int, bytes]] = {}
    for number, (changed, withdrawn, is_known) in enumerate(changes):
        ledger.absorb(None, changed, withdrawn)
        if chance.random() < 0.5:
            ledger.kept_by("worker", f"turn-{number - chance.randrange(1, 3)}")
        if chance.random() < 0.3:
            continue
        history = {
            seq: encode_event(each)
            for seq, each in ledger.state.checkpoints.items()
            if each.is_history
        }
        addition = ledger.sending(f"turn-{number}", is_known=is_known)
        if addition is not None:
            added = {msgspec.json.decode(each)["seq"]: each for each in addition.events}
            assert addition.keeper == "worker"
            assert [*added] == sorted(added)
            assert not added.keys() & kept[addition.since].keys()
            assert kept[addition.since] | added == history
        if is_known:
            kept[f"turn-{number}"] = history


def test_a_turn_of_which_there_are_copies_is_no_base_for_the_next() -> None:
    ledger = Ledger(RunState(RUN))
    for is_known, is_told_apart in ((True, True), (False, False)):
        assert ledger.sending("turn-1", is_known=is_known) is None
        ledger.kept_by("worker", "turn-1")
        assert (ledger.sending("turn-2", is_known=True) is not None) is is_told_apart


def test_what_one_worker_was_told_is_told_it_once() -> None:
    ledger = Ledger(RunState(RUN))
    ledger.sending("turn-1", is_known=True)
    ledger.kept_by("worker", "turn-1")
    assert ledger.sending("turn-2", is_known=True) == Addition("turn-1", "worker", [])
    assert ledger.sending("turn-2", is_known=False) is None


class Moving(list[int]):
    """Counts what is moved because something before it goes."""

    moved = 0

    def __delitem__(self, at: SupportsIndex | slice) -> None:
        assert not isinstance(at, slice)
        self.moved += len(self) - at.__index__() - 1
        super().__delitem__(at)


def test_a_history_that_goes_as_a_whole_goes_without_moving_what_is_left_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger = Ledger(RunState(RUN))
    ledger.absorb(None, [completed(seq) for seq in range(1_000)])
    history_of(ledger)
    moving = Moving(range(1_000))
    monkeypatch.setattr(ledger, "_seqs", moving)
    ledger.absorb(None, [completed(1_000)], range(1_000))
    assert moving.moved == 0
    assert history_of(ledger) == encode_event(completed(1_000)) + b","


def completed(seq: int) -> Checkpoint:
    return Checkpoint(
        run_id="r",
        seq=seq,
        kind=HistoryKind.CALL,
        name="s",
        status=CheckpointStatus.COMPLETED,
        enqueued_at=0,
    )
