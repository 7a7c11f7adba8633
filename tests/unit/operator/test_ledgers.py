"""The history of a run as bytes, however it came about."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from durable_worker.operator.ledgers import Ledger, encode_event
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
