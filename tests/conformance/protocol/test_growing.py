"""A reader that remembers reads every turn as one that does not."""

import json
from collections.abc import Sequence
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_worker.errors import ProtocolError
from durable_worker.protocol.codec import WORKFLOW_TASK
from durable_worker.protocol.growing import History, TurnReader
from durable_worker.protocol.payload_envelope import MARK
from durable_worker.protocol.tasks import WorkflowTask

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(max_size=6)
    | st.sampled_from(['"history":[', '],"history":[{', '\\"', "\u0000", "ключ", "\ud83d\ude00"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["history", "input", "seq", "$durable", "k"]), inner)
    ),
    max_leaves=6,
)
events = st.lists(
    st.fixed_dictionaries(
        {"kind": st.sampled_from(["call", "step", "timer", "signal", "child"])},
        optional={
            "name": st.text(max_size=4),
            "output": values,
            "error": st.fixed_dictionaries({"message": st.text(max_size=4)}),
        },
    ),
    max_size=8,
)
rests = st.fixed_dictionaries(
    {"group": st.text(max_size=3), "attempt": st.integers(1, 3)},
    optional={
        "pendingSignals": st.just([{"seq": 99, "signal": "s", "payload": {"history": []}}]),
        "capabilities": st.just(["call-retry"]),
        "priority": st.integers(0, 9),
        "unknown": values,
    },
)


class Turn(msgspec.Struct):
    task_id: str
    run_id: str
    input: object
    history: list[dict[str, object]]
    rest: dict[str, object]

    def members(self) -> list[tuple[str, object]]:
        return [
            ("taskId", self.task_id),
            ("runId", self.run_id),
            ("workflow", "w"),
            ("workflowVersion", "1"),
            *([] if self.input is None else [("input", self.input)]),
            ("history", self.history),
            *self.rest.items(),
        ]


def text_of(members: Sequence[tuple[str, object]], chance: Random | None = None) -> bytes:
    """JSON; with `chance` in one of the ways in which it may be written."""
    is_ascii = chance is not None and chance.random() < 0.5
    gap = " " if chance is not None and chance.random() < 0.5 else ""
    parts = [
        json.dumps(key)
        + f"{gap}:{gap}"
        + json.dumps(value, ensure_ascii=is_ascii, separators=(f",{gap}", f":{gap}"))
        for key, value in members
    ]
    return ("{" + f"{gap},".join(parts) + "}").encode("utf-8", "surrogatepass")


def outcome(read: object, body: bytes) -> WorkflowTask | str:
    try:
        return read(body)  # type: ignore[operator,no-any-return]
    except ProtocolError as error:
        return str(error)


@st.composite
def runs(draw: st.DrawFn) -> list[bytes]:  # noqa: PLR0912 - one for each mishap
    """Turns of one run or two: mostly its history grows, now and then anything happens."""
    chance = Random(draw(st.integers(0, 2**32)))
    every = [{"seq": seq, **each} for seq, each in enumerate(draw(events))]
    value, rest = draw(values), draw(rests)
    bodies: list[bytes] = []
    length = 0
    for number in range(draw(st.integers(2, 7))):
        length = min(len(every), length + chance.randrange(3))
        history = list(every[:length])
        turn = Turn(f"t{number}", "r", value, history, rest)
        members = turn.members()
        match draw(st.integers(0, 24)):
            case 0:
                chance.shuffle(members)
            case 1:
                members.append(chance.choice(members))  # a key twice, the same
            case 2:
                members.append(("history", every[:1]))
            case 3:
                members.insert(4, ("history", []))
            case 4:
                members.append(("input", "another"))
            case 5 if history:
                history.pop(chance.randrange(len(history)))
            case 6 if history:
                history[chance.randrange(len(history))]["output"] = draw(values)
            case 7:
                members = Turn(f"t{number}", "q", value, history, rest).members()
            case 8:
                members.append(("runId", "another"))
            case 9:
                members = Turn(f"t{number}", "r", draw(values), history, draw(rests)).members()
            case 10:
                history.append({"seq": -1})
            case 11:
                members.append(("workflow", "another"))
            case _:
                pass
        body = text_of(members, chance if draw(st.integers(0, 9)) == 0 else None)
        match draw(st.integers(0, 19)):
            case 0:
                body = body[: chance.randrange(len(body))]
            case 1:
                at = chance.randrange(len(body))
                body = body[:at] + bytes([chance.randrange(256)]) + body[at + 1 :]
            case 2:
                body = body.replace(b'"history"', b'"h\\u0069story"', 1)
            case 3:
                body = body.replace(b"}]", b"},]", 1)
            case 4:
                body += chance.choice([b" ", b"}", b"x"])
            case _:
                pass
        bodies.append(body)
    return bodies


@given(bodies=runs())
def test_a_reader_that_remembers_reads_each_turn_as_one_that_does_not(bodies: list[bytes]) -> None:
    reader = TurnReader(limit=2)
    for body in bodies:
        read = outcome(reader.read, body)
        assert read == outcome(WORKFLOW_TASK.decode, body)
        if isinstance(read, str):
            continue
        if isinstance(read.history, History):
            assert read.history.may_hold_envelopes or MARK not in body
        reader.keep(read)


def grown(*lengths: int, input: object = None) -> list[bytes]:
    history: list[dict[str, object]] = [
        {"seq": seq, "kind": "call", "name": "s", "output": 'a "quoted\\" line\n'}
        for seq in range(max(lengths))
    ]
    rest: dict[str, object] = {"group": "w", "priority": 1, "attempt": 1}
    turns = [Turn(f"task-{n}", "r", input, history[:n], rest) for n in lengths]
    return [text_of(turn.members()) for turn in turns]


def goes_on(reader: TurnReader, bodies: list[bytes]) -> list[bool]:
    """Which of the turns were read on from the one before."""
    told: list[bool] = []
    before = None
    for body in bodies:
        task = reader.read(body)
        assert task == WORKFLOW_TASK.decode(body)
        told.append(task.history is before)
        before = task.history
        reader.keep(task)
    return told


@pytest.mark.parametrize("input", [None, 7, "text \\", {"history": [1]}, [{"input": {}}]])
def test_what_was_read_before_is_not_read_again(input: object) -> None:
    bodies = grown(0, 1, 3, 3, 9, input=input)
    assert goes_on(TurnReader(limit=1), bodies) == [False, True, True, True, True]


def test_turns_as_msgspec_and_as_json_stringify_write_them_go_on_from_one_another() -> None:
    for body in grown(2, input={"a": [1.5, None]}):
        assert msgspec.json.encode(WORKFLOW_TASK.decode(body)).startswith(
            body[: body.index(b'],"group"')]
        )


@pytest.mark.parametrize("key", ["taskId", "runId", "history"])
def test_turns_that_say_something_twice_are_read_as_a_whole(key: str) -> None:
    history: list[dict[str, object]] = [{"seq": seq, "kind": "timer"} for seq in range(4)]
    said_twice: dict[str, object] = {"taskId": "t", "runId": "r", "history": []}
    rest: dict[str, object] = {"group": "w", "attempt": 1, key: said_twice[key]}
    turns = [Turn(f"task-{n}", "r", None, history[:n], rest) for n in (1, 2, 4)]
    bodies = [text_of(turn.members()) for turn in turns]
    assert goes_on(TurnReader(limit=1), bodies) == [False, False, False]


def test_a_history_that_does_not_go_on_from_the_last_is_read_as_a_whole() -> None:
    assert goes_on(TurnReader(limit=1), grown(3, 2, 4)) == [False, False, True]


def test_a_turn_that_is_still_worked_on_keeps_its_history_as_it_is() -> None:
    reader = TurnReader(limit=1)
    first, second = (reader.read(body) for body in grown(3, 4))
    assert (len(first.history), len(second.history)) == (3, 4)


def test_what_is_kept_of_a_run_is_gone_once_its_last_turn_was_read() -> None:
    reader = TurnReader(limit=1)
    reader.keep(reader.read(grown(3)[0]))
    assert reader.kept_bytes > 0
    reader.read(grown(4)[0])
    assert reader.kept_bytes == 0


def test_the_runs_that_were_read_last_are_kept() -> None:
    reader = TurnReader(limit=2)
    turns = [
        text_of(Turn("t", run, None, [], {"group": "w", "attempt": 1}).members()) for run in "abca"
    ]
    sizes: list[int] = []
    for body in turns:
        reader.keep(reader.read(body))
        sizes.append(reader.kept_bytes)
    assert sizes == [sizes[0], 2 * sizes[0], 2 * sizes[0], 2 * sizes[0]]


def test_without_a_limit_nothing_is_kept() -> None:
    reader = TurnReader(limit=0)
    assert goes_on(reader, grown(1, 2)) == [False, False]
    assert reader.kept_bytes == 0


def since(task_id: str, task: WorkflowTask, known: set[int]) -> dict[str, object]:
    """The turn as one that tells only what is new."""
    members = msgspec.json.decode(msgspec.json.encode(task))
    members.pop("input", None)
    members["since"] = task_id
    members["history"] = [each for each in members["history"] if each["seq"] not in known]
    return members  # type: ignore[no-any-return]


def ordered(task: WorkflowTask) -> WorkflowTask:
    history = sorted(task.history, key=lambda event: event.seq)
    return msgspec.structs.replace(task, history=history)


@given(events=events, value=values, rest=rests, seed=st.integers(0, 2**32))
def test_turns_that_tell_what_is_new_are_read_as_those_that_tell_everything(
    events: list[dict[str, object]], value: object, rest: dict[str, object], seed: int
) -> None:
    chance, reader = Random(seed), TurnReader(limit=2)
    every = [{"seq": seq, **each} for seq, each in enumerate(events)]
    history: list[dict[str, object]] = []
    base, known = "", set[int]()
    for number in range(8):
        for each in chance.sample(every, min(len(every), chance.randrange(3))):
            every.remove(each)
            history.append(each)
        history.sort(key=lambda each: int(str(each["seq"])))
        turn = Turn(f"t{number}", "r", value, history, rest)
        try:
            whole = WORKFLOW_TASK.decode(text_of(turn.members()))
        except ProtocolError:
            return
        if base and chance.random() < 0.7:
            told = since(base, whole, known)
            if chance.random() < 0.5:
                told = {key: told.pop(key) for key in ("taskId", "runId", "since")} | told
            read = reader.read(text_of([*told.items()]))
        else:
            read = reader.read(text_of(turn.members()))
        assert ordered(read) == whole
        if chance.random() < 0.9:
            reader.keep(read)
            base, known = whole.task_id, {each.seq for each in whole.history}
        else:
            reader.read(text_of(turn.members()))  # whatever was kept is gone
            base = ""


@pytest.mark.parametrize("kept", ["another turn", "another run", "nothing"])
def test_a_turn_that_adds_to_what_is_not_kept_is_read_as_it_is(kept: str) -> None:
    reader = TurnReader(limit=3)
    first, second, third = (WORKFLOW_TASK.decode(body) for body in grown(1, 2, 3))
    match kept:
        case "another turn":
            reader.keep(reader.read(grown(1)[0]))
        case "another run":
            reader.keep(
                reader.read(msgspec.json.encode(msgspec.structs.replace(second, run_id="q")))
            )
        case _:
            pass
    body = msgspec.json.encode(since("another", third, {0, 1}))
    before = reader.kept_bytes
    assert reader.read(body) == WORKFLOW_TASK.decode(body)
    assert reader.read(body).since == "another"
    assert reader.kept_bytes == before
    assert first.since is None


def test_without_a_limit_a_turn_that_tells_what_is_new_is_read_as_it_is() -> None:
    reader = TurnReader(limit=0)
    first, second = grown(1, 2)
    reader.keep(reader.read(first))
    task = WORKFLOW_TASK.decode(second)
    assert reader.read(msgspec.json.encode(since("task-1", task, {0}))).since == "task-1"


def test_a_history_that_was_told_in_parts_is_read_whole_again_when_it_comes_whole() -> None:
    reader = TurnReader(limit=1)
    first, second, third = grown(1, 2, 3)
    reader.keep(reader.read(first))
    task = WORKFLOW_TASK.decode(second)
    added = reader.read(msgspec.json.encode(since("task-1", task, {0})))
    assert added == task
    reader.keep(added)
    assert reader.read(third) == WORKFLOW_TASK.decode(third)
