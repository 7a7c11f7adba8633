"""Dead letters: what became of them, and what sending one again does to its run. Pure."""

from base64 import b64encode
from enum import StrEnum

import msgspec
from msgspec import Struct

from durable_worker.errors import ProtocolError
from durable_worker.protocol.base import UNVERIFIED_HEADER
from durable_worker.protocol.codec import MessageType
from durable_worker.protocol.letters import DeadLetterRecord
from durable_worker.protocol.names import CANCELLED_MARKER, attempt_in, step_id
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.inputs import (
    POISON,
    AnyInput,
    StepRedriven,
    TurnRedriven,
    decode_input,
)
from durable_worker.stores.records import (
    INBOX,
    Checkpoint,
    CheckpointStatus,
    DeadLetter,
    Run,
    RunState,
    turn_id,
)
from durable_worker.stores.views import iso_time

LOST = "dead-letter"
"""Failure code of a run whose turn was lost too often."""

_FATAL = frozenset({POISON, LOST, ProtocolError.code})
"""Codes of failures that stand for a message: of operators, and of workers that cannot read it."""

HARMLESS = frozenset({MessageType.STEP_EVENT, MessageType.START_RUN, MessageType.RUN_REQUEST})
"""Messages without which every step and turn still comes to its end."""

_ADDRESSED = frozenset({*HARMLESS, MessageType.STEP_RESULT, MessageType.WORKFLOW_DECISION})
"""Messages whose type tells the queue that they belong to."""

_REPEATABLE = (
    "durable:delivered",
    "durable:deadlines",
    "durable:timeouts",
    "event:",
    "now#",
    "patch:",
)
"""Starts of the names of recorded steps that a body records anew, and that had no effect."""


class LetterStatus(StrEnum):
    """`KEPT`: nothing failed because of it, as far as the operator knows. `SENT_AGAIN`: its step
    goes on. `SETTLED`: what it was about has come to its end, or gone on, without it."""

    KEPT = "kept"
    SENT_AGAIN = "sent-again"
    FAILED_STEP = "failed-step"
    FAILED_RUN = "failed-run"
    SETTLED = "settled"
    REDRIVEN = "redriven"


class Redrive(Struct, frozen=True):
    """`input` is what happens to the run; `is_sent`: the message goes out again, as it was."""

    input: AnyInput | None = None
    is_sent: bool = False


class Refusal(Struct, frozen=True):
    """Why a letter cannot be sent again, in a sentence that says what to do instead."""

    reason: str


def status_of(letter: DeadLetter, state: RunState | None) -> LetterStatus:
    """`state`: of the run that the letter names, if there is one."""
    if letter.redriven_at is not None:
        return LetterStatus.REDRIVEN
    if state is None or not _concerns_run(letter):
        return LetterStatus.KEPT
    if letter.task_id is not None:
        is_fatal = _has_ended_run(letter, state.run)
        return LetterStatus.FAILED_RUN if is_fatal else LetterStatus.SETTLED
    call = _call_of(letter, state)
    if call is None:
        return LetterStatus.KEPT
    if call.is_pending and _is_current(letter, call):
        return LetterStatus.SENT_AGAIN
    return LetterStatus.FAILED_STEP if _has_failed(letter, call) else LetterStatus.SETTLED


def redrive_of(letter: DeadLetter, state: RunState | None) -> Redrive | Refusal:
    """What sends the letter again. It must have its body, and not be sent again already."""
    if UNVERIFIED_HEADER in letter.headers:
        return Refusal(
            f"nobody knows who sent it ({letter.headers[UNVERIFIED_HEADER]}), and sending it again "
            f"would sign it in the name of the operator. Have its sender send it, with a key"
        )
    if letter.queue == INBOX:
        return _input_again(letter)
    if _concerns_run(letter):
        if state is None:
            return Refusal(f"there is no run {letter.run_id!r} that it could concern")
        if letter.task_id is not None:
            return _turn_again(letter, state)
        return _step_again(letter, state)
    if letter.queue is None and letter.type not in _ADDRESSED:
        return Refusal("nothing tells from which queue it came")
    return Redrive(is_sent=True)


def _concerns_run(letter: DeadLetter) -> bool:
    if letter.run_id is None or letter.type in HARMLESS or UNVERIFIED_HEADER in letter.headers:
        return False
    return letter.seq is not None or letter.task_id is not None


def _input_again(letter: DeadLetter) -> Redrive | Refusal:
    try:
        return Redrive(decode_input(letter.body))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Refusal(
            "this release of durable-worker cannot read it either; redrive it with the release "
            "that wrote it, or a newer one"
        )


# Steps


def attempt_of(letter: DeadLetter) -> int | None:
    if letter.run_id is None or letter.seq is None:
        return None
    return attempt_in(letter.message_id, step=step_id(letter.run_id, letter.seq))


def _call_of(letter: DeadLetter, state: RunState) -> Checkpoint | None:
    call = None if letter.seq is None else state.checkpoints.get(letter.seq)
    return call if call is not None and call.kind is HistoryKind.CALL else None


def _is_current(letter: DeadLetter, call: Checkpoint) -> bool:
    return attempt_of(letter) in (None, call.attempt)


def _has_failed(letter: DeadLetter, call: Checkpoint) -> bool:
    if call.status is not CheckpointStatus.FAILED or call.error is None:
        return False
    # A worker that cannot read a task does not know the attempt either, and says 1.
    is_unread = call.error.code == ProtocolError.code
    return call.error.code in _FATAL and (is_unread or _is_current(letter, call))


def _step_again(letter: DeadLetter, state: RunState) -> Redrive | Refusal:
    call, is_answer = _call_of(letter, state), letter.type == MessageType.STEP_RESULT
    if call is None:
        return Refusal(f"run {state.run.id!r} has called no step at seq {letter.seq}")
    step = f"step {call.name!r} (seq {call.seq}) of run {state.run.id!r}"
    if call.is_pending and _is_current(letter, call):
        if is_answer:
            return Redrive(is_sent=True)
        return Refusal(f"{step} goes on by itself: the operator has sent it again already")
    if not _has_failed(letter, call):
        return Refusal(f"{step} did not fail because of it: it is {call.status.value}")
    hindrance = what_hinders(state, call, last_seq=letter.last_seq)
    if hindrance is not None:
        return Refusal(hindrance)
    again = StepRedriven(
        run_id=state.run.id,
        seq=call.seq,
        attempt=call.attempt,
        keeps_attempt=is_answer,
        last_seq=letter.last_seq,
    )
    return Redrive(again, is_sent=is_answer)


def asked_since(state: RunState, failed: Checkpoint, *, last_seq: int | None) -> list[Checkpoint]:
    """What the body asked for after this call had failed, as far as that can be told.

    Rather too much than too little: the turn that was out at that moment may not have known.
    """
    return [
        each
        for each in state.checkpoints.values()
        if each.seq != failed.seq and _is_since(each, failed, last_seq)
    ]


def _is_since(other: Checkpoint, failed: Checkpoint, last_seq: int | None) -> bool:
    if last_seq is not None:
        if other.seq > last_seq:
            return True
        if other.enqueued_at == failed.enqueued_at:
            return False  # asked for in one turn; it may have failed within the same millisecond
    return failed.finished_at is not None and other.enqueued_at >= failed.finished_at


def what_hinders(state: RunState, failed: Checkpoint, *, last_seq: int | None) -> str | None:
    """Why the call cannot be tried again as if it had not failed; None if it can."""
    hindrance = hindrance_of(state.run)
    if hindrance is not None:
        return hindrance.reason
    later = sorted(asked_since(state, failed, last_seq=last_seq), key=lambda each: each.seq)
    for each in later:
        if not _is_repeatable(each):
            return (
                f"its run has gone on since the step failed: it has asked for {_described(each)}. "
                f"Start a new run"
            )
    if later and later[0].seq < _last_of(state, {each.seq for each in later}):
        return (
            "the times of its history are out of order, so it cannot be told what the run did "
            "after the step had failed. Start a new run"
        )
    return None


def _last_of(state: RunState, except_for: set[int]) -> int:
    return max((seq for seq in state.checkpoints if seq not in except_for), default=-1)


def _is_repeatable(checkpoint: Checkpoint) -> bool:
    return checkpoint.kind is HistoryKind.STEP and checkpoint.name.startswith(_REPEATABLE)


def _described(checkpoint: Checkpoint) -> str:
    where = f"(seq {checkpoint.seq})"
    match checkpoint.kind:
        case HistoryKind.STEP if checkpoint.name == CANCELLED_MARKER:
            return f"nothing more, since it was cancelled {where}"
        case HistoryKind.CALL | HistoryKind.STEP:
            return f"step {checkpoint.name!r} {where}"
        case HistoryKind.TIMER:
            return f"a timer {where}"
        case HistoryKind.SIGNAL:
            return f"signal {checkpoint.name!r} {where}"
        case HistoryKind.CHILD:
            return f"a child run of {checkpoint.name!r} {where}"


def hindrance_of(run: Run) -> Refusal | None:
    """Why a run stays as it has ended."""
    if run.status in (RunStatus.COMPLETED, RunStatus.CANCELLED):
        return Refusal(f"run {run.id!r} is {run.status.value}, and stays so. Start a new run")
    if run.status.is_terminal and run.parent is not None:
        return Refusal(
            f"run {run.id!r} is a child that has ended, and its parent {run.parent.run_id!r} "
            f"has been told so. Start the parent anew"
        )
    return None


# Turns


def _has_ended_run(letter: DeadLetter, run: Run) -> bool:
    return (
        run.status in (RunStatus.DEAD, RunStatus.FAILED)
        and letter.task_id == turn_id(run.id, run.turn_no)
        and run.error is not None
        and run.error.code in _FATAL
    )


def _turn_again(letter: DeadLetter, state: RunState) -> Redrive | Refusal:
    run, is_answer = state.run, letter.type == MessageType.WORKFLOW_DECISION
    assert letter.task_id is not None
    if is_answer and run.task_id == letter.task_id:
        return Redrive(is_sent=True)
    if not _has_ended_run(letter, run):
        return Refusal(f"run {run.id!r} did not end because of it: it is {run.status.value}")
    hindrance = hindrance_of(run)
    if hindrance is not None:
        return hindrance
    again = TurnRedriven(
        run_id=run.id,
        task_id=letter.task_id,
        keeps_turn=is_answer,
        is_cancelling=_is_cancel_turn(letter.body),
    )
    return Redrive(again, is_sent=is_answer)


class _Turn(Struct):
    cancel: bool | None = None


def _is_cancel_turn(body: bytes) -> bool:
    try:
        return msgspec.json.decode(body, type=_Turn).cancel is True
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False


# As told


def letter_record(
    letter: DeadLetter, state: RunState | None, *, is_whole: bool = False
) -> DeadLetterRecord:
    """`is_whole`: with headers and body."""
    return DeadLetterRecord(
        id=letter.id,
        received_at=iso_time(letter.received_at),
        reason=letter.reason,
        status=status_of(letter, state).value,
        size=letter.size,
        type=letter.type,
        message_id=letter.message_id,
        queue=letter.queue,
        namespace=letter.namespace,
        run_id=letter.run_id,
        seq=letter.seq,
        task_id=letter.task_id,
        attempt=attempt_of(letter),
        name=_name_of(letter, state),
        redriven_at=None if letter.redriven_at is None else iso_time(letter.redriven_at),
        redrives=letter.redrives or None,
        headers=letter.headers if is_whole else None,
        body=b64encode(letter.body).decode() if is_whole else None,
    )


def _name_of(letter: DeadLetter, state: RunState | None) -> str | None:
    if state is None:
        return None
    call = _call_of(letter, state)
    return state.run.workflow if call is None else call.name
