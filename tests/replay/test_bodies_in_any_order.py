"""Whatever the order, grouping and repetition of results: one outcome, and no step twice."""

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from msgspec import json

from durable_worker import Worker
from durable_worker.protocol.commands import DecisionStatus, ScheduleStep, StartTimer
from durable_worker.protocol.failure import Failure
from durable_worker.replay.turn import Replay
from tests.replay.model import (
    Combine,
    Do,
    ModelOperator,
    Node,
    full_turn,
    new_replay,
    take_turn,
    worker_for,
)

LEAVES = (
    *("step", "step", "failing", "sleep", "signal", "timed", "child", "now", "local", "effect"),
    *("publish", "event", "hook", "unused-hook"),
)
COMBINATIONS = ("sequence", "gather", "race", "group", "completed", "timeout")

leaves = st.builds(Do, st.sampled_from(LEAVES), st.integers(0, 3))
nodes: st.SearchStrategy[Node] = st.recursive(
    leaves,
    lambda children: st.builds(
        Combine,
        st.sampled_from(COMBINATIONS),
        st.lists(children, min_size=1, max_size=4).map(tuple),
    ),
    max_leaves=10,
)


def drive(worker: Worker, operator: ModelOperator, chance: Random) -> list[bytes]:
    """Run to the end with turns split, repeated, dropped and half applied; return the decisions.

    Every turn is decided twice: from the top, and by the body kept from earlier turns.
    """
    kept: Replay | None = None
    decisions: list[bytes] = []
    for _ in range(400):
        task = operator.task()
        full = full_turn(worker, task, now_ms=operator.now_ms)
        if kept is not None and kept.can_continue(task):
            sticky = take_turn(kept, task, now_ms=operator.now_ms)
        else:
            if kept is not None:
                kept.dispose()
            kept = new_replay(worker, task)
            sticky = take_turn(kept, task, now_ms=operator.now_ms)
        assert json.encode(sticky) == json.encode(full)
        decisions.append(json.encode(full))
        if full.status is not DecisionStatus.CONTINUE:
            kept.dispose()
            operator.apply(full)
            return decisions
        fate = chance.random()
        if fate < 0.1:
            continue  # the decision was dropped: the same turn comes again
        if fate < 0.2:
            operator.apply(full, only_first=chance.randrange(len(full.commands) + 1))
            continue  # the operator died between two commands
        operator.apply(full)
        waiting = sorted(operator.pending)
        assert waiting, "suspended with nothing that could ever come"
        for seq in chance.sample(waiting, chance.randint(1, min(3, len(waiting)))):
            command = operator.pending[seq]
            if isinstance(command, ScheduleStep) and command.name.startswith("failing"):
                operator.resolve(seq, error=Failure(message="no", code="Nope", retryable=False))
            else:
                operator.resolve(seq, f"{type(command).__name__}@{seq}")
    raise AssertionError("the run did not end within 400 turns")


@given(node=nodes, seed=st.integers(0, 2**32))
def test_a_kept_body_decides_exactly_what_a_replay_from_the_top_decides(
    node: Node, seed: int
) -> None:
    operator = ModelOperator()
    drive(worker_for(node), operator, Random(seed))
    assert operator.final is not None
    assert operator.final.status is DecisionStatus.COMPLETED, operator.final.error


@given(node=nodes, seed=st.integers(0, 2**32))
def test_the_recorded_history_of_an_ended_run_replays_to_the_same_output(
    node: Node, seed: int
) -> None:
    worker = worker_for(node)
    operator = ModelOperator()
    chance = Random(seed)
    drive(worker, operator, chance)
    assert operator.final is not None
    for seq in list(operator.pending):
        operator.resolve(seq, "late")  # results that came after the end
    again = full_turn(worker, operator.task(), now_ms=operator.now_ms + 5_000)
    assert (again.status, again.error) == (DecisionStatus.COMPLETED, None)
    assert bytes(again.output) == bytes(operator.final.output)


@given(node=nodes, seed=st.integers(0, 2**32))
def test_every_step_is_asked_for_under_one_seq_and_keeps_its_name(node: Node, seed: int) -> None:
    names: dict[int, str] = {}
    per_turn: list[Counter[int]] = []
    operator = ModelOperator()
    for encoded in drive(worker_for(node), operator, Random(seed)):
        decision = json.decode(encoded)
        per_turn.append(Counter(command["seq"] for command in decision["commands"]))
        for event in operator.history.values():
            names.setdefault(event.seq, event.name or event.kind)
            assert names[event.seq] == (event.name or event.kind)
    assert all(count == 1 for turn in per_turn for count in turn.values())


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
