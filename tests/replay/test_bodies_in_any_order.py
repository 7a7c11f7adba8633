"""Whatever the order, grouping and repetition of results: one outcome, and no step twice."""

from collections import Counter
from collections.abc import Sequence
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from msgspec import json

from durable_worker.protocol.commands import DecisionStatus, StartTimer
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.replay.operations import (
    CALL_RETRY,
    CALL_TIMEOUT,
    CANCEL_STEPS,
    CANCEL_TURNS,
    DELIVERED,
    DURABLE_TIMERS,
    ORDERED_HISTORY,
)
from tests.replay.bodies import (
    COMBINATIONS,
    LEAVES,
    Combine,
    Do,
    Node,
    before_the_patches,
    worker_for,
)
from tests.replay.driving import drive
from tests.replay.model import ModelOperator, full_turn


def bodies(leaves: Sequence[str], combinations: Sequence[str]) -> st.SearchStrategy[Node]:
    return st.recursive(
        st.builds(Do, st.sampled_from(leaves), st.integers(0, 3)),
        lambda children: st.builds(
            Combine,
            st.sampled_from(combinations),
            st.lists(children, min_size=1, max_size=4).map(tuple),
        ),
        max_leaves=10,
    )


nodes = bodies(LEAVES, COMBINATIONS)
patched_nodes = bodies(
    ("step", "timed", "unused-hook", "replaced", "inserted", "removed"),
    ("sequence", "sequence", "gather", "race", "timeout"),
)
undone_nodes = bodies(
    ("step", "failing", "undone", "undone", "impatient"),
    ("sequence", "gather", "race", "timeout", "saga", "group"),
)


impatient_nodes = bodies(
    ("step", "impatient", "impatient", "sleep", "timed"),
    ("sequence", "sequence", "gather", "race", "timeout", "saga"),
)

in_order = [CALL_RETRY, CANCEL_STEPS, DURABLE_TIMERS, CANCEL_TURNS, ORDERED_HISTORY]
with_timeouts = [*in_order, CALL_TIMEOUT]
operators = st.builds(
    lambda capabilities: ModelOperator(capabilities=capabilities),
    st.sampled_from([None, in_order, [ORDERED_HISTORY], with_timeouts, [CALL_TIMEOUT]]),
)


@given(node=nodes, seed=st.integers(0, 2**32), operator=operators)
def test_a_kept_body_decides_exactly_what_a_replay_from_the_top_decides(
    node: Node, seed: int, operator: ModelOperator
) -> None:
    drive(worker_for(node), operator, Random(seed))
    assert operator.final is not None
    assert operator.final.status is DecisionStatus.COMPLETED, operator.final.error


@given(node=nodes, seed=st.integers(0, 2**32), operator=operators)
def test_the_recorded_history_of_an_ended_run_replays_to_the_same_output(
    node: Node, seed: int, operator: ModelOperator
) -> None:
    worker = worker_for(node)
    chance = Random(seed)
    drive(worker, operator, chance)
    assert operator.final is not None
    for seq in list(operator.pending):
        operator.resolve(seq, "late")  # results that came after the end
    again = full_turn(worker, operator.task(), now_ms=operator.now_ms + 5_000)
    assert (again.status, again.error) == (DecisionStatus.COMPLETED, None)
    assert bytes(again.output) == bytes(operator.final.output)


@given(node=nodes, seed=st.integers(0, 2**32), operator=operators)
def test_every_step_is_asked_for_under_one_seq_and_keeps_its_name(
    node: Node, seed: int, operator: ModelOperator
) -> None:
    names: dict[int, str] = {}
    per_turn: list[Counter[int]] = []
    for encoded in drive(worker_for(node), operator, Random(seed)):
        decision = json.decode(encoded)
        per_turn.append(Counter(command["seq"] for command in decision["commands"]))
        for event in operator.history.values():
            names.setdefault(event.seq, event.name or event.kind)
            assert names[event.seq] == (event.name or event.kind)
    assert all(count == 1 for turn in per_turn for count in turn.values())


@given(node=nodes, seed=st.integers(0, 2**32))
def test_a_history_in_order_needs_no_markers(node: Node, seed: int) -> None:
    operator = ModelOperator(capabilities=in_order)
    drive(worker_for(node), operator, Random(seed))
    assert DELIVERED not in {each.name for each in operator.history.values()}


@given(node=patched_nodes, seed=st.integers(0, 2**32), operator=operators)
def test_runs_of_the_old_code_end_on_patched_code_wherever_they_are(
    node: Node, seed: int, operator: ModelOperator
) -> None:
    drive(worker_for(before_the_patches(node)), operator, Random(seed), deploy=worker_for(node))
    assert operator.final is not None
    assert operator.final.status is DecisionStatus.COMPLETED, operator.final.error


@given(node=impatient_nodes, seed=st.integers(0, 2**32), begins_with=st.booleans())
def test_a_run_goes_on_whether_its_operator_begins_or_ceases_to_give_up_attempts(
    node: Node, seed: int, begins_with: bool
) -> None:
    worker = worker_for(node)
    operator = ModelOperator(capabilities=with_timeouts if begins_with else in_order)
    drive(worker, operator, Random(seed), offers=[in_order, with_timeouts])
    assert operator.final is not None
    assert operator.final.status is DecisionStatus.COMPLETED, operator.final.error
    for capabilities in (in_order, with_timeouts):
        operator.capabilities = capabilities
        again = full_turn(worker, operator.task(), now_ms=operator.now_ms)
        assert (again.status, again.output) == (DecisionStatus.COMPLETED, operator.final.output)


@given(node=undone_nodes, seed=st.integers(0, 2**32), operator=operators)
def test_a_body_that_fails_calls_each_compensation_once(
    node: Node, seed: int, operator: ModelOperator
) -> None:
    drive(worker_for(node, fails=True), operator, Random(seed))
    assert operator.final is not None
    assert operator.final.error is not None
    assert "step 'failing-last' failed [Nope]" in operator.final.error.message
    waited_for = [getattr(command, "name", "") for command in operator.pending.values()]
    assert not [name for name in waited_for if name.startswith("undone-")]
    calls = [each for each in operator.history.values() if each.kind is HistoryKind.CALL]
    undone = [each for each in calls if (each.name or "").startswith("undone-")]
    assert len([each for each in calls if each.name == "undo-step"]) == len(undone)


@given(
    node=nodes,
    seed=st.integers(0, 2**32),
    capabilities=st.sampled_from([None, [CALL_RETRY, DURABLE_TIMERS, CANCEL_TURNS], in_order]),
)
def test_a_cancelled_body_decides_the_same_kept_and_from_the_top_and_ends(
    node: Node, seed: int, capabilities: list[str] | None
) -> None:
    worker, operator = worker_for(node), ModelOperator(capabilities=capabilities)
    drive(worker, operator, Random(seed), is_cancelled=True)
    assert operator.final is not None
    ends = (DecisionStatus.CANCELLED, DecisionStatus.COMPLETED)
    assert operator.final.status in ends, operator.final.error
    for seq in list(operator.pending):
        operator.resolve(seq, "late")  # results that came after the end
    again = full_turn(worker, operator.task(), now_ms=operator.now_ms + 5_000)
    assert (again.status, again.error) == (operator.final.status, operator.final.error)
    assert again.output == operator.final.output


@given(node=undone_nodes, seed=st.integers(0, 2**32), operator=operators)
def test_a_body_that_is_cancelled_calls_each_compensation_once(
    node: Node, seed: int, operator: ModelOperator
) -> None:
    drive(worker_for(node), operator, Random(seed), is_cancelled=True)
    assert operator.final is not None
    if operator.final.status is DecisionStatus.COMPLETED:
        return  # it was cancelled too late
    assert operator.final.status is DecisionStatus.CANCELLED
    waited_for = [getattr(command, "name", "") for command in operator.pending.values()]
    assert not [name for name in waited_for if name.startswith("undone-")]
    calls = [each for each in operator.history.values() if each.kind is HistoryKind.CALL]
    undone = [each for each in calls if (each.name or "").startswith("undone-")]
    assert len([each for each in calls if each.name == "undo-step"]) == len(undone)


def test_a_timer_keeps_its_deadline_while_results_arrive_beside_it() -> None:
    worker = worker_for(
        Combine("gather", (Do("sleep", 59), Combine("sequence", (Do("step", 0), Do("step", 1)))))
    )
    operator = ModelOperator(now_ms=0)
    first = full_turn(worker, operator.task(), now_ms=0)
    operator.apply(first)
    assert [c.ms for c in first.commands if isinstance(c, StartTimer)] == [60_000]
    operator.now_ms = 25_000
    operator.resolve(1, "one")
    second = full_turn(worker, operator.task(), now_ms=25_000)
    assert [c.ms for c in second.commands if isinstance(c, StartTimer)] == [35_000]
