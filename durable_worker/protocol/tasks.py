"""Operator to worker: one step to run, or one turn to replay."""

from enum import StrEnum
from typing import Any

from msgspec import UNSET

from durable_worker.protocol.base import (
    Attempt,
    Count,
    Integer,
    Message,
    Name,
    Payload,
    Seq,
    StepSeq,
)
from durable_worker.protocol.failure import Failure


class StepTask(Message, frozen=True, kw_only=True, gc=False):
    """One attempt at one step. `step_id` is the key under which peers drop duplicates."""

    run_id: Name
    seq: StepSeq
    name: Name
    step_id: Name
    group: str
    input: Payload = UNSET
    attempt: Attempt
    traceparent: str | None = None
    context: dict[str, Any] | None = None
    transport: str | None = None
    priority: Integer | None = None


class HistoryKind(StrEnum):
    STEP = "step"
    CALL = "call"
    TIMER = "timer"
    SIGNAL = "signal"
    CHILD = "child"


class HistoryEvent(Message, frozen=True, kw_only=True, gc=False):
    """A resolved operation. `kind="step"` is one that ran inside a turn and was recorded.

    `order`: which of the run's operations it was to be resolved, from 1; recorded ones have none.
    """

    seq: Seq
    kind: HistoryKind
    name: str | None = None
    output: Payload = UNSET
    error: Failure | None = None
    order: Count | None = None


class PendingSignal(Message, frozen=True, kw_only=True):
    """A signal that has reached its wait but is not in history yet."""

    seq: Seq
    signal: Name
    payload: Payload = UNSET


class WorkflowTask(Message, frozen=True, kw_only=True):
    """One turn: replay `workflow` over `history` and answer with a decision for `task_id`.

    `capabilities` is what the operator understands beyond the five v1 commands
    (protocol/README.md, "Operator capabilities"); a v1 operator leaves it out. `cancel`: the run
    was cancelled, the body is to be told ("Cancel turns"). `seen`: what the last applied decision
    said in `ordered` ("Ordered history"). `since`: an earlier turn; `history` is what that one did
    not have, and `input` is left out ("History deltas").
    """

    task_id: Name
    run_id: Name
    workflow: Name
    workflow_version: str
    input: Payload = UNSET
    history: list[HistoryEvent]
    pending_signals: list[PendingSignal] | None = None
    group: str
    transport: str | None = None
    traceparent: str | None = None
    priority: Integer | None = None
    attempt: Attempt
    capabilities: list[str] | None = None
    cancel: bool | None = None
    seen: Count | None = None
    since: Name | None = None
