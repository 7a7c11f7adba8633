"""Good messages that bad ones are made of: the protocol's own, and a few that meet a live run."""

from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Any

import msgspec
from aiormq import spec
from msgspec import Raw
from msgspec.structs import replace
from pamqp.header import ContentHeader

from durable_worker.protocol.codec import STEP_RESULT, WORKFLOW_DECISION
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.inputs import (
    AnyInput,
    CancelRequested,
    ChildEnded,
    DecisionReceived,
    ResultReceived,
    SignalMatched,
    SignalSent,
    StartRun,
    StepPoisoned,
    TimerDue,
    TurnPoisoned,
    encode_input,
)
from durable_worker.stores.records import CheckpointStatus, Parent, RunState
from durable_worker.stores.views import run_detail
from tests.conformance.protocol.corpus import MESSAGES, every_fixture
from tests.conformance.stores.samples import FULL_CHECKPOINT, FULL_RUN

RUN, WORKFLOW, CALL = "run-1", "checkout", "charge"
"""Names that a worker and an operator under test know."""

FULL_CHECKPOINTS = (
    FULL_CHECKPOINT,
    replace(FULL_CHECKPOINT, seq=5, status=CheckpointStatus.COMPLETED, kind=HistoryKind.STEP),
)


@cache
def message_seeds() -> list[bytes]:
    """Which message it is, then its body; what is refused by the specification, too."""
    return [
        bytes([MESSAGES.index(message)]) + path.read_bytes()
        for verdict in ("valid", "invalid")
        for message, path in every_fixture(verdict)
    ]


@cache
def worker_seeds() -> list[bytes]:
    """A byte for the type, one for the protocol and the message id, then the body of a task."""
    tasks: list[dict[str, Any]] = [
        {"runId": RUN, "seq": 0, "name": CALL, "stepId": f"{RUN}:0", "group": CALL, "attempt": 1,
         "input": {"amount": 1}, "context": {"tenant": "a"}, "traceparent": "00-a-b-01"},
        {"taskId": f"{RUN}#1", "runId": RUN, "workflow": WORKFLOW, "workflowVersion": "1",
         "input": 1, "history": [], "group": WORKFLOW, "attempt": 1},
        {"taskId": f"{RUN}#2", "runId": RUN, "workflow": WORKFLOW, "workflowVersion": "1",
         "history": [{"seq": 0, "kind": "call", "name": CALL, "output": 1},
                     {"seq": 1, "kind": "signal", "output": {"by": "a"}}],
         "pendingSignals": [{"seq": 2, "signal": "s", "payload": 1}], "group": WORKFLOW,
         "attempt": 1, "capabilities": ["call-retry", "cancel-turns"], "cancel": True},
    ]  # fmt: skip
    return [bytes([index % 3, 0]) + msgspec.json.encode(task) for index, task in enumerate(tasks)]


@cache
def live_seeds() -> list[bytes]:
    """A byte for the queue, one for what surrounds the body, then the body."""
    error = {"message": "m", "code": "c", "retryable": True, "stack": "s", "details": {"a": 1}}
    event = {"at": 1, "level": "info", "message": "m", "data": {"a": 1}, "subId": "s"}
    result = {"runId": RUN, "seq": 0, "stepId": f"{RUN}:0", "status": "failed", "error": error,
              "startedAt": 5, "events": [event]}  # fmt: skip
    recorded = {"kind": "recordStep", "seq": 4, "name": "n", "output": 1, "startedAt": 1,
                "finishedAt": 2, "events": [event]}  # fmt: skip
    retry = {"attempts": 3, "initialMs": 1, "factor": 2.0, "maxMs": 9, "jitter": 0.5}
    commands = [
        recorded,
        {"kind": "call", "seq": 5, "name": CALL, "group": "default", "input": 1, "retry": retry},
        {"kind": "sleep", "seq": 6, "ms": 1000},
        {"kind": "waitSignal", "seq": 7, "signal": "s"},
        {"kind": "startChild", "seq": 8, "workflow": "child", "input": 1},
    ]
    decision = {"taskId": f"{RUN}#2", "runId": RUN, "status": "continue", "commands": commands}
    start = {"tenant": "default", "workflow": WORKFLOW, "input": 1, "runId": "run-9",
             "tags": ["a"], "searchAttributes": {"a": 1}}  # fmt: skip
    step_event = {"runId": RUN, "seq": 0, "name": CALL, "phase": "running", "startedAt": 1,
                  "events": [event]}  # fmt: skip
    bodies: list[tuple[int, Any]] = [
        (0, result),
        (0, {**result, "status": "completed", "output": {"a": [1, 2]}}),
        (1, decision),
        (1, {**decision, "status": "completed", "output": 1}),
        (2, step_event),
        (3, start),
        (5, result),
        (5, decision),
    ]
    asked: list[dict[str, Any]] = [
        {"kind": "getRunDetail", "runId": RUN},
        {"kind": "listRuns", "query": {"workflow": WORKFLOW, "tag": "a", "limit": 5, "offset": 0,
                                       "statuses": ["running"], "status": "running"}},
        {"kind": "runFacets", "query": {}},
        {"kind": "workerHealth"},
        {"kind": "waitingFor", "runIds": [RUN]},
        {"kind": "signal", "signal": "s", "payload": {"a": 1}},
        {"kind": "redispatch", "runId": RUN},
        {"kind": "cancel", "runId": "run-9", "opts": {"compensate": True}},
        {"kind": "retryWithInput", "runId": RUN, "input": 1},
    ]  # fmt: skip
    bodies += [
        (4, {"requestId": f"q{number}", "tenant": "default", "body": body})
        for number, body in enumerate(asked)
    ]
    return [bytes([queue, 0]) + msgspec.json.encode(body) for queue, body in bodies]


@cache
def operator_seeds() -> list[bytes]:
    """Also the protocol's own, as broadcasts."""
    return [
        *live_seeds(),
        *(bytes([6 + MESSAGES.index(m), 0]) + p.read_bytes() for m, p in every_fixture("valid")),
    ]


@cache
def payload_seeds() -> list[bytes]:
    return [
        b'{"a":[1,2.5,"x",null,true],"b":{"c":"\\u00e9"}}',
        b'{"$durable":{"v":1,"context":{"tenant":"acme"},"value":{"amount":420}}}',
        b'{"$durable":{"v":1,"salt":"r","codec":[{"zlib":{"size":9}}],"data":"eJw="}}',
        b'{"$durable":{"v":1,"salt":"r","codec":[{"hmac-sha256":{"key":"k","tag":"eA=="}}],'
        b'"ref":{"key":"a/b","size":3,"sha256":"00"}}}',
        b'"2024-01-01T00:00:00Z"',
        b"12345678901234567890",
    ]


@cache
def input_seeds() -> list[bytes]:
    answers = [seed[2:] for seed in live_seeds() if seed[0] in (0, 1)]
    inputs: list[AnyInput] = [
        StartRun(run_id="r", workflow="w", input=Raw(b"1"), parent=Parent("p", 1), tags=("a",)),
        TimerDue(run_id="r", seq=1),
        SignalMatched(run_id="r", seq=1, payload=Raw(b"1")),
        CancelRequested(run_id="r", is_final=True),
        ChildEnded(run_id="r", seq=1, status=RunStatus.FAILED, error=Failure(message="no")),
        StepPoisoned(run_id="r", seq=1, reason="no", attempt=1, is_suspicion=True),
        TurnPoisoned(run_id="r", task_id="t", reason="no"),
        SignalSent(signal_id="s", name="n", payload=Raw(b"{}")),
        *(
            ResultReceived(run_id="r", result=STEP_RESULT.decode(each), attempt=1)
            for each in answers
            if b'"stepId"' in each
        ),
        *(
            DecisionReceived(run_id="r", decision=WORKFLOW_DECISION.decode(each))
            for each in answers
            if b'"commands"' in each
        ),
    ]
    return [encode_input(each) for each in inputs]


@cache
def detail_seeds() -> list[bytes]:
    return [msgspec.json.encode(run_detail(RunState(FULL_RUN, FULL_CHECKPOINTS)))]


@cache
def properties_seeds() -> list[bytes]:
    """Content headers as RabbitMQ sends them."""
    at = datetime(2024, 1, 1, tzinfo=UTC)
    headers: dict[str, Any] = {
        "durable-protocol": 1, "durable-error": "because", "x-delivery-count": 3, "at": at,
        "x-first-death-reason": "delivery_limit", "x-first-death-queue": "q",
        "x-death": [{"count": 1, "reason": "rejected", "time": at, "routing-keys": ["a"]}],
        "d": Decimal("1.5"), "f": 0.5, "n": None, "t": True, "b": bytearray(b"\xff"), "big": 2**40,
    }  # fmt: skip
    full = spec.Basic.Properties(
        content_type="application/json", headers=headers, delivery_mode=2, priority=1,
        correlation_id="c", reply_to="r", expiration="35000", message_id="run-1:0:1",
        timestamp=at, message_type="step-result", user_id="u", app_id="a",
    )  # fmt: skip
    bare = spec.Basic.Properties(headers={"durable-protocol": "1"}, message_type="who")
    return [ContentHeader(body_size=2, properties=each).marshal() for each in (full, bare)]


@cache
def cli_seeds() -> list[bytes]:
    """Arguments, separated by NUL."""
    lines = (
        ["run", "app:worker", "--broker", "amqp://u:p@h:5672/v%2Fx", "--concurrency", "5"],
        ["run", "app:worker", "--grace", "1.5", "--prefix", "p", "--log-format", "json"],
        ["start", "w", "--input", '{"a":1}', "--id", "r", "--context", "k=v", "--context", "a=b"],
        ["runs", "--status", "failed", "--limit", "3", "--json", "--tenant", "t"],
        ["signal", "s", "--payload", "[1]", "--db", "x.db"],
        ["operator", "--database", "sqlite:///x.db"],
        ["cancel", "r", "--now"],
    )
    return ["\0".join(each).encode() for each in lines]
