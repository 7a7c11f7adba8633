"""Schemas and structs accept the same messages: generated from either side, and mutated."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_worker.protocol import codec
from durable_worker.protocol.commands import WorkflowDecision
from durable_worker.protocol.control import AnyControl, Heartbeat
from durable_worker.protocol.descriptor import Who, WorkerAnnouncement, WorkerBeat
from durable_worker.protocol.letters import DeadLetterRecord
from durable_worker.protocol.results import StepResult, WorkflowStepEvent
from durable_worker.protocol.runs import RunDetail, RunReply, RunRequest, StartRun, TenantEvent
from durable_worker.protocol.tasks import StepTask, WorkflowTask
from tests.conformance.protocol.corpus import (
    CODECS,
    LAW,
    MESSAGES,
    encoded,
    fixtures,
    is_accepted_by_schema,
    is_accepted_by_struct,
    to_bytes,
    validator_of,
)
from tests.conformance.protocol.generated import messages_of_schema, structs_of

TYPES: dict[str, Any] = {
    "control": AnyControl,
    "heartbeat": Heartbeat,
    "run-reply": RunReply,
    "run-request": RunRequest,
    "start-run": StartRun,
    "step-event": WorkflowStepEvent,
    "step-result": StepResult,
    "step-task": StepTask,
    "tenant-event": TenantEvent,
    "who": Who,
    "worker-beat": WorkerBeat,
    "worker-descriptor": WorkerAnnouncement,
    "workflow-decision": WorkflowDecision,
    "workflow-task": WorkflowTask,
}

type_of_message = pytest.mark.parametrize("message", MESSAGES)

REPLACEMENTS: list[Any] = [
    None, True, False, -1, 0, 1, 1.5, 2**53, "", "x", [], [None], [1], ["x"], {}, {"kind": "call"},
]  # fmt: skip


@type_of_message
def test_what_the_schema_generates_is_read_by_the_struct(message: str) -> None:
    @LAW
    @given(messages_of_schema(message))
    def law(value: Any) -> None:
        struct = CODECS[message].decode(to_bytes(value))
        rewritten = encoded(struct)
        validator_of(message).validate(rewritten)
        assert encoded(CODECS[message].decode(to_bytes(rewritten))) == rewritten

    law()


@type_of_message
def test_what_the_struct_writes_is_accepted_by_the_schema_and_read_back_equal(
    message: str,
) -> None:
    @LAW
    @given(structs_of(TYPES[message]))
    def law(struct: Any) -> None:
        body = codec.encode(struct)
        validator_of(message).validate(json.loads(body))
        assert CODECS[message].decode(body) == struct

    law()


@type_of_message
def test_one_mutation_of_a_valid_fixture_gets_one_verdict(message: str) -> None:
    seen: set[tuple[Any, ...]] = set()
    for fixture in fixtures("valid", message):
        original = json.loads(fixture.read_bytes())
        for path in _paths(original):
            if (kind := _kind_of_place(original, path)) in seen:
                continue
            seen.add(kind)
            for mutated in _mutations(original, path):
                _assert_one_verdict(message, mutated)


@type_of_message
def test_two_mutations_of_a_valid_fixture_get_one_verdict(message: str) -> None:
    originals = [json.loads(path.read_bytes()) for path in fixtures("valid", message)]

    @LAW
    @given(st.data())
    def law(data: st.DataObject) -> None:
        value = data.draw(st.sampled_from(originals))
        for _ in range(2):
            if paths := list(_paths(value)):
                path = data.draw(st.sampled_from(paths))
                value = data.draw(st.sampled_from(list(_mutations(value, path))))
        _assert_one_verdict(message, value)

    law()


def _assert_one_verdict(message: str, value: Any) -> None:
    by_schema = is_accepted_by_schema(message, value)
    by_struct = is_accepted_by_struct(message, value)
    assert by_schema == by_struct, f"schema: {by_schema}, struct: {by_struct}: {value}"


def _paths(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    match node:
        case dict():
            places: list[Any] = list(node)
        case list():
            places = list(range(len(node)))
        case _:
            places = []
    for place in places:
        yield (*path, place)
        yield from _paths(node[place], (*path, place))


def _kind_of_place(document: Any, path: tuple[Any, ...]) -> tuple[Any, ...]:
    """Places of one kind are governed by one rule: same keys on the way, same tags."""
    words: list[Any] = []
    node = document
    for place in path:
        tag = str(node.get("kind")) if isinstance(node, dict) else ""
        words += [tag, "[]" if isinstance(place, int) else place]
        node = node[place]
    return tuple(words)


def _mutations(document: Any, path: tuple[Any, ...]) -> Iterator[Any]:
    for replacement in REPLACEMENTS:
        mutated = copy.deepcopy(document)
        _parent(mutated, path)[path[-1]] = replacement
        yield mutated
    mutated = copy.deepcopy(document)
    del _parent(mutated, path)[path[-1]]
    yield mutated


def _parent(document: Any, path: tuple[Any, ...]) -> Any:
    for place in path[:-1]:
        document = document[place]
    return document


@LAW
@given(structs_of(RunDetail))
def test_the_detail_of_a_run_that_the_struct_writes_is_accepted_by_its_schema(
    detail: RunDetail,
) -> None:
    body = codec.encode(detail)
    validator_of("run-detail").validate(json.loads(body))
    assert msgspec.json.decode(body, type=RunDetail) == detail


@LAW
@given(messages_of_schema("run-detail"))
def test_the_detail_of_a_run_that_the_schema_generates_is_read_by_the_struct(value: Any) -> None:
    detail = msgspec.json.decode(to_bytes(value), type=RunDetail)
    validator_of("run-detail").validate(encoded(detail))


@LAW
@given(structs_of(DeadLetterRecord))
def test_a_dead_letter_that_the_struct_writes_is_accepted_by_its_schema(
    letter: DeadLetterRecord,
) -> None:
    body = codec.encode(letter)
    validator_of("dead-letter").validate(json.loads(body))
    assert msgspec.json.decode(body, type=DeadLetterRecord) == letter


@LAW
@given(messages_of_schema("dead-letter"))
def test_a_dead_letter_that_the_schema_generates_is_read_by_the_struct(value: Any) -> None:
    letter = msgspec.json.decode(to_bytes(value), type=DeadLetterRecord)
    validator_of("dead-letter").validate(encoded(letter))
