"""The coroutines behind the context's operations: ask, wait, convert, try again."""

import asyncio
from typing import Any

from msgspec import Struct

from durable_worker.protocol.commands import ScheduleStep, StartChild, WaitSignal
from durable_worker.protocol.names import event_signal
from durable_worker.protocol.payload import PayloadDecoder, encode_payload
from durable_worker.protocol.retry import delay_before_next, may_retry
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.replay.definitions import Retry, StepDefinition
from durable_worker.replay.failures import error_of
from durable_worker.replay.operations import LocalStep, Location, Requested
from durable_worker.replay.turn import Replay


class SignalWait(Struct, frozen=True):
    """What a body waits for: a signal of this name, or an event that fits this subject.

    `limit` in seconds. The signal of an event also tells which wait it is for.
    """

    subject: str
    limit: float | None
    decoder: PayloadDecoder[Any]
    is_event: bool = False


async def call_step(
    replay: Replay,
    token: int,
    name: str,
    value: object,
    *,
    partition: str,
    retry: Retry | None,
    decoder: PayloadDecoder[Any],
    location: Location,
) -> Any:
    """One call, or on an operator that cannot retry: call, timer, call ... until it succeeds."""
    journal = replay.journal
    if journal.is_sealed:
        await replay.waiting.begin(token)
    journal.started(token)
    options = None if retry is None or retry.attempts == 1 else retry.options()
    delegated = options if replay.honours_retry else None
    attempt = 1
    while True:
        seq = journal.take_seq()
        event = replay.waiting.settled(seq, HistoryKind.CALL, name)
        if event is None:
            request = None
            if seq not in journal.events:
                payload = encode_payload(value, what=f"the input of step {name!r}")
                request = ScheduleStep(
                    seq=seq, name=name, group=partition, input=payload, retry=delegated
                )
            event = await replay.waiting.wait_unsettled(
                Requested(seq, HistoryKind.CALL, name, location, request=request)
            )
        if event.error is None:
            return decoder.decode(event.output, what=f"the output of step {name!r}")
        if delegated is not None or not may_retry(options, event.error, attempt=attempt):
            raise error_of(event, name)
        assert options is not None
        delay = delay_before_next(options, attempt=attempt, key=f"{replay.run_id}:{seq}")
        await asyncio.sleep(delay / 1000)
        attempt += 1


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
    operation = LocalStep(
        seq, HistoryKind.STEP, name, location, definition=definition, input=payload
    )
    event = await replay.waiting.wait(operation)
    if event.error is not None:
        raise error_of(event, name)
    return definition.output_decoder.decode(event.output, what=f"the output of local step {name!r}")


async def wait_signal(replay: Replay, token: int, wait: SignalWait, *, location: Location) -> Any:
    await replay.waiting.begin(token)
    operation = replay.waiting.lost_wait(wait.subject)
    if operation is None:
        seq = replay.journal.take_seq()
        name = event_signal(wait.subject, replay.run_id, seq) if wait.is_event else wait.subject
        request = WaitSignal(seq=seq, signal=name)
        operation = Requested(
            seq, HistoryKind.SIGNAL, name, location, request=request, subject=wait.subject
        )
    if wait.limit is None:
        event = await replay.waiting.wait(operation)
    else:
        async with asyncio.timeout(wait.limit):
            event = await replay.waiting.wait(operation)
    return wait.decoder.decode(event.output, what=f"the payload of signal {operation.name!r}")


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
