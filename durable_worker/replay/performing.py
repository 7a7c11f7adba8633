"""The coroutines behind the context's operations: ask, wait, convert, try again."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from msgspec import UNSET, Struct
from msgspec.structs import replace

from durable_worker.errors import FailureError, StepTimeoutError
from durable_worker.protocol.base import Payload
from durable_worker.protocol.commands import RetryOptions, ScheduleStep, StartChild, WaitSignal
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.names import breakpoint_signal, event_signal
from durable_worker.protocol.payload import PayloadDecoder, encode_payload
from durable_worker.protocol.retry import TIMED_OUT, delay_before_next, may_retry
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind
from durable_worker.replay.definitions import Retry, StepDefinition
from durable_worker.replay.failures import error_of, message_of
from durable_worker.replay.operations import (
    CALL_TIMEOUT,
    LocalStep,
    Location,
    Requested,
    whole_milliseconds,
)
from durable_worker.replay.turn import Replay

_CALL = HistoryKind.CALL


class SignalWait(Struct, frozen=True):
    """What a body waits for: a signal of this name, or an event that fits this subject.

    `limit` in seconds. `match` is that of an event, whose signal also tells which wait it is for.
    What `check` raises on, or says False to, is recorded as `rejected_as`, and the wait goes on.
    """

    subject: str
    limit: float | None
    decoder: PayloadDecoder[Any]
    match: bytes | None = None
    check: Callable[[Any], object] | None = None
    rejected_as: str = ""


class StepCall(Struct):
    """Which step to call, and how. `limit`: seconds for each attempt."""

    name: str
    partition: str
    retry: Retry | None
    limit: float | None
    decoder: PayloadDecoder[Any]
    location: Location
    options: RetryOptions | None = None
    limited: RetryOptions | None = None
    input: str = ""
    output: str = ""

    def __post_init__(self) -> None:
        retry = self.retry
        self.options = None if retry is None or retry.attempts == 1 else retry.options()
        if self.limit is not None:
            self.limited = _limited(self.options, self.limit, retry=retry, name=self.name)
        self.input = f"the input of step {self.name!r}"
        self.output = f"the output of step {self.name!r}"


class Undoing(Protocol):
    """Is told of a step that has succeeded, so that it can be undone.

    `is_wanted` turns False when nothing waits for the step any more: it is not tried again.
    """

    is_wanted: bool

    def done(self, value: Payload, output: Payload) -> None: ...


async def call_step(
    replay: Replay, token: int, call: StepCall, value: object, undoing: Undoing | None = None
) -> Any:
    """One call, or where the operator cannot retry or give up attempts: call, timer, call ... until
    it succeeds.

    It cannot where the step is to be undone either, since history does not tell of an attempt that
    succeeds after it was given up.
    """
    journal, waiting = replay.journal, replay.waiting
    if journal.is_sealed:
        await waiting.begin(token)
    journal.unstarted.pop(token, None)
    name, options = call.name, call.options
    delegated = _delegated(replay, call, undoing)
    limit = call.limit if delegated is None else None
    encoded: Payload = UNSET
    if undoing is not None:
        # What undoes the step gets its input as it was when it was called.
        encoded = encode_payload(value, what=call.input)
    seq = journal.take_seq()
    event = waiting.settled(seq, _CALL, name, call.location) if limit is None else None
    if event is not None and event.error is None and undoing is None:
        return call.decoder.decode(event.output, what=call.output)
    attempt = 1
    while True:
        if event is None:
            known = seq in journal.events
            request = None if known else _request(replay, call, seq, value, delegated=delegated)
            operation = Requested(
                seq, _CALL, name, call.location, request=request, is_undone=undoing is not None
            )
            if limit is None:
                event = await waiting.wait_unsettled(operation)
            else:
                event = await _in_time(replay, operation, limit)
        if event is not None and event.error is None:
            if undoing is not None:
                undoing.done(encoded, event.output)
            return call.decoder.decode(event.output, what=call.output)
        if delegated is not None:
            assert event is not None
            raise _outcome(call, event)
        error = error_of(event, name) if event is not None else _too_late(name, seq, limit)
        if not _may_go_on(call.retry, options, error, event, attempt):
            raise error
        assert options is not None
        delay = delay_before_next(options, attempt=attempt, key=f"{replay.run_id}:{seq}")
        await asyncio.sleep(delay / 1000)
        if undoing is not None and not undoing.is_wanted:
            raise error
        attempt += 1
        seq = journal.take_seq()
        event = waiting.settled(seq, _CALL, name, call.location) if limit is None else None


async def _in_time(replay: Replay, operation: Requested, limit: float) -> HistoryEvent | None:
    """The outcome of one call; None if it has not come within `limit` seconds."""
    try:
        async with asyncio.timeout(limit):
            return await replay.waiting.wait(operation)
    except TimeoutError:
        return None


def _too_late(name: str, seq: int, limit: float | None) -> StepTimeoutError:
    return StepTimeoutError(name, f"no result came within {limit:g} s", seq=seq, code=TIMED_OUT)


def _delegated(replay: Replay, call: StepCall, undoing: Undoing | None) -> RetryOptions | None:
    """What the operator sees to, if it sees to all of it."""
    if call.limit is None:
        return call.options if call.options and replay.honours_retry else None
    return call.limited if undoing is None and replay.limits_attempts() else None


def _outcome(call: StepCall, failed: HistoryEvent) -> FailureError:
    """Of a call whose attempts were the operator's."""
    error = error_of(failed, call.name)
    if call.limit is not None and error.code == TIMED_OUT:
        return StepTimeoutError(call.name, error.message, seq=failed.seq, code=TIMED_OUT)
    return error


def _limited(
    options: RetryOptions | None, limit: float, *, retry: Retry | None, name: str
) -> RetryOptions:
    """What an operator needs to know that gives up attempts by itself."""
    options = options or RetryOptions(attempts=1)
    codes = options.non_retryable
    if retry is not None and retry.rules_out(_too_late(name, 0, limit)):
        codes = [*(codes or ()), TIMED_OUT]
    return replace(options, non_retryable=codes, timeout_ms=whole_milliseconds(limit))


def _request(
    replay: Replay, call: StepCall, seq: int, value: object, *, delegated: RetryOptions | None
) -> ScheduleStep:
    payload = encode_payload(value, what=call.input)
    retry = _understood(replay, delegated)
    return ScheduleStep(seq=seq, name=call.name, group=call.partition, input=payload, retry=retry)


def _understood(replay: Replay, delegated: RetryOptions | None) -> RetryOptions | None:
    """As far as the operator that sent this turn takes it."""
    if delegated is None or delegated.timeout_ms is None:
        return delegated
    if replay.operator_states(CALL_TIMEOUT):
        return delegated
    return replace(delegated, timeout_ms=None) if replay.honours_retry else None


def _may_go_on(
    retry: Retry | None,
    options: RetryOptions | None,
    error: FailureError,
    event: HistoryEvent | None,
    attempt: int,
) -> bool:
    if event is None and retry is not None and retry.rules_out(error):
        return False  # the class of a timeout is known here, that of another failure is not
    failure = Failure(message=error.message, code=error.code, retryable=error.retryable)
    return may_retry(options, failure, attempt=attempt)


async def sleep(replay: Replay, token: int, seconds: float) -> None:
    await replay.waiting.begin(token)
    await asyncio.sleep(seconds)


async def run_local_step(
    replay: Replay, token: int, definition: StepDefinition, value: object, *, location: Location
) -> Any:
    await replay.waiting.begin(token)
    name = definition.name
    payload = encode_payload(value, what=f"the input of local step {name!r}")
    seq = replay.journal.take_seq()
    replay.waiting.has_local_steps = True
    operation = LocalStep(
        seq, HistoryKind.STEP, name, location, definition=definition, input=payload
    )
    event = await replay.waiting.wait(operation)
    if event.error is not None:
        raise error_of(event, name)
    return definition.output_decoder.decode(event.output, what=f"the output of local step {name!r}")


async def wait_signal(replay: Replay, token: int, wait: SignalWait, *, location: Location) -> Any:
    await replay.waiting.begin(token)
    if wait.check is not None:
        return await _wait_until_valid(replay, wait, wait.check, location)
    event = await _next_signal(replay, wait, wait.limit, location)
    return wait.decoder.decode(event.output, what=f"the payload of signal {wait.subject!r}")


async def _wait_until_valid(
    replay: Replay, wait: SignalWait, check: Callable[[Any], object], location: Location
) -> Any:
    async with asyncio.timeout(wait.limit):
        while True:
            event = await _next_signal(replay, wait, None, location)
            try:
                value = wait.decoder.decode(event.output, what="the argument")
                if check(value) is not False:
                    return value
                reason = "the argument is not valid"
            except Exception as error:  # user code, and what does not fit its annotation
                reason = message_of(error)
            why = partial(encode_payload, reason, what="the reason of the rejection")
            replay.record(wait.rejected_as, why)


async def _next_signal(
    replay: Replay, wait: SignalWait, limit: float | None, location: Location
) -> HistoryEvent:
    operation = replay.waiting.lost_wait(wait.subject)
    if operation is None:
        seq = replay.journal.take_seq()
        name = (
            event_signal(wait.subject, replay.run_id, seq)
            if wait.match is not None
            else wait.subject
        )
        request = WaitSignal(seq=seq, signal=name)
        operation = Requested(
            seq, HistoryKind.SIGNAL, name, location, request=request, subject=wait.subject
        )
    async with asyncio.timeout(limit):
        event = await replay.waiting.wait(operation)
    replay.journal.taken.add(event.seq)
    return event


async def run_child(
    replay: Replay,
    token: int,
    name: str,
    value: object,
    *,
    decoder: PayloadDecoder[Any],
    location: Location,
) -> Any:
    await replay.waiting.begin(token)
    payload = encode_payload(value, what=f"the input of child workflow {name!r}")
    seq = replay.journal.take_seq()
    request = StartChild(seq=seq, workflow=name, input=payload)
    event = await replay.waiting.wait(
        Requested(seq, HistoryKind.CHILD, name, location, request=request)
    )
    if event.error is not None:
        raise error_of(event, name)
    return decoder.decode(event.output, what=f"the output of child workflow {name!r}")


async def break_point(replay: Replay, token: int, name: str | None, *, location: Location) -> None:
    await replay.waiting.begin(token)
    seq = replay.journal.take_seq()
    signal = breakpoint_signal(replay.run_id, seq)
    request = WaitSignal(seq=seq, signal=signal)
    shown = f"{signal} ({name})" if name else signal
    await replay.waiting.wait(Requested(seq, HistoryKind.SIGNAL, shown, location, request=request))
