"""Bytes to structs: what lies on a task queue, and what a broken message still names."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_worker.errors import ProtocolError
from durable_worker.protocol.codec import Addressee, MessageType, addressee_of, decode_task
from durable_worker.protocol.tasks import StepTask, WorkflowTask
from tests.conformance.protocol.corpus import CODECS, LAW, MESSAGES, to_bytes
from tests.conformance.protocol.generated import json_values

STEP = {"runId": "r", "seq": 1, "name": "s", "stepId": "r:1", "group": "s", "attempt": 1}
TURN = {
    "taskId": "t",
    "runId": "r",
    "workflow": "w",
    "workflowVersion": "1",
    "history": [],
    "group": "w",
    "attempt": 1,
}


@pytest.mark.parametrize("message_type", [None, MessageType.STEP_TASK])
def test_a_step_task_is_known_by_its_type_or_its_shape(message_type: str | None) -> None:
    assert isinstance(decode_task(to_bytes(STEP), message_type=message_type), StepTask)


@pytest.mark.parametrize("message_type", [None, MessageType.WORKFLOW_TASK])
def test_a_turn_is_known_by_its_type_or_its_shape(message_type: str | None) -> None:
    assert isinstance(decode_task(to_bytes(TURN), message_type=message_type), WorkflowTask)
    spaced = json.dumps(TURN, indent=4).encode()
    assert isinstance(decode_task(spaced, message_type=message_type), WorkflowTask)


def test_a_type_that_does_not_belong_on_a_task_queue_is_refused_whatever_the_body_looks_like() -> (
    None
):
    with pytest.raises(ProtocolError, match="does not belong"):
        decode_task(to_bytes(STEP), message_type="something-else")


def test_a_body_that_fits_both_shapes_is_a_turn_unless_its_type_says_otherwise() -> None:
    both = to_bytes(STEP | TURN)
    assert isinstance(decode_task(both), WorkflowTask)
    assert isinstance(decode_task(both, message_type=MessageType.STEP_TASK), StepTask)


@pytest.mark.parametrize(
    "extra",
    [{"workflow": "w"}, {"history": []}, {"workflow": 1, "history": []},
     {"workflow": "w", "history": {}}, {"workflow": None, "history": None}],
)  # fmt: skip
def test_only_a_string_and_a_list_together_make_a_turn(extra: dict[str, Any]) -> None:
    assert isinstance(decode_task(to_bytes(STEP | extra)), StepTask)


def test_the_type_wins_over_the_shape_and_the_error_names_the_message() -> None:
    with pytest.raises(ProtocolError, match="workflow-task") as refused:
        decode_task(to_bytes(STEP), message_type=MessageType.WORKFLOW_TASK)
    assert refused.value.message_type == "workflow-task"
    assert "taskId" in refused.value.reason


BROKEN_BODIES = [b"", b" ", b"{", b"nope", b'{"runId": "r"', b"\xff\xfe", b'{"runId":"\xff"}',
                 b"[" * 20_000, b"{}{}", b'{"runId":"\\ud800"}', b'{"seq":1e999}']  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("body", BROKEN_BODIES, ids=range(len(BROKEN_BODIES)))
def test_what_is_not_json_is_a_protocol_error(message: str, body: bytes) -> None:
    with pytest.raises(ProtocolError):
        CODECS[message].decode(body)
    with pytest.raises(ProtocolError):
        decode_task(body)


@LAW
@given(st.binary(max_size=200) | json_values.map(to_bytes))
def test_no_body_whatever_raises_anything_but_a_protocol_error(body: bytes) -> None:
    addressee_of(body)
    for message in MESSAGES:
        with contextlib.suppress(ProtocolError):
            CODECS[message].decode(body)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"runId": "r", "seq": 3, "stepId": "r:3"}, Addressee(run_id="r", seq=3, step_id="r:3")),
        ({"runId": "r", "seq": 3}, Addressee(run_id="r", seq=3, step_id="r:3")),
        ({"runId": "r", "seq": 3, "stepId": 9}, Addressee(run_id="r", seq=3, step_id="r:3")),
        ({"runId": "r", "seq": 0, "attempt": 0}, Addressee(run_id="r", seq=0, step_id="r:0")),
        ({"runId": "r", "taskId": "t"}, Addressee(run_id="r", task_id="t")),
        ({"runId": "r", "taskId": "t", "seq": 1}, Addressee(run_id="r", task_id="t")),
        ({"runId": "r", "taskId": "", "seq": 1}, Addressee(run_id="r", seq=1, step_id="r:1")),
        ({"runId": "r"}, None),
        ({"runId": "r", "seq": -1}, Addressee(run_id="r", seq=-1, step_id="r:-1")),
        ({"runId": "r", "seq": True}, None),
        ({"runId": "r", "seq": "1"}, None),
        ({"runId": "", "seq": 1}, None),
        ({"runId": 1, "seq": 1}, None),
        ({"seq": 1}, None),
        ({}, None),
        ([], None),
        (None, None),
    ],
)
def test_a_broken_message_is_attributed_to_the_step_or_turn_that_it_still_names(
    body: Any, expected: Addressee | None
) -> None:
    assert addressee_of(to_bytes(body)) == expected


@pytest.mark.parametrize("body", BROKEN_BODIES, ids=range(len(BROKEN_BODIES)))
def test_what_is_not_json_names_nobody(body: bytes) -> None:
    assert addressee_of(body) is None
