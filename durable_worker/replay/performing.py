"""The coroutines behind the context's operations: ask, wait, convert, try again."""

import asyncio
from datetime import timedelta
from typing import Any

from durable_worker.protocol.base import Payload
from durable_worker.protocol.commands import ScheduleStep, StartChild, WaitSignal
from durable_worker.protocol.payload import PayloadDecoder, encode_payload
from durable_worker.protocol.retry import delay_before_next, may_retry
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind
from durable_worker.replay.definitions import Retry, StepDefinition
from durable_worker.replay.failures import error_of
from durable_worker.replay.operations import LocalStep, Location, Requested
from durable_worker.replay.turn import Replay


async def call_step(
    replay: Replay,
    name: str,
    value: object,
    *,
    partition: str,
    retry: Retry | None,
    decoder: PayloadDecoder[Any],
    location: Location,
) -> Any:
    """One call, or on an operator that cannot retry: call, timer, call ... until it succeeds."""
    payload = encode_payload(value, what=f"the input of step {name!r}")
    options = None if retry is None or retry.attempts == 1 else retry.options()
    delegated = options if replay.honours_retry else None
    attempt = 1
    while True:
        event = await _call_once(
            replay, name, payload, partition=partition, options=delegated, location=location
        )
        if event.error is None:
            return decoder.decode(event.output, what=f"the output of step {name!r}")
        if delegated is not None or not may_retry(options, event.error, attempt=attempt):
            raise error_of(event, name)
        assert options is not None
        delay = delay_before_next(options, attempt=attempt, key=f"{replay.run_id}:{event.seq}")
        await asyncio.sleep(delay / 1000)
        attempt += 1


async def _call_once(
    replay: Replay,
    name: str,
    payload: Payload,
    *,
    partition: str,
    options: Any,
    location: Location,
) -> HistoryEvent:
    seq = replay.journal.take_seq()
    request = ScheduleStep(seq=seq, name=name, group=partition, input=payload, retry=options)
    return await replay.wait(Requested(seq, HistoryKind.CALL, name, location, request=request))


async def run_local_step(
    replay: Replay, definition: StepDefinition, value: object, *, location: Location
) -> Any:
    name = definition.name
    payload = encode_payload(value, what=f"the input of local step {name!r}")
    seq = replay.journal.take_seq()
    operation = LocalStep(
        seq, HistoryKind.STEP, name, location, definition=definition, input=payload
    )
    event = await replay.wait(operation)
    if event.error is not None:
        raise error_of(event, name)
    return definition.output_decoder.decode(event.output, what=f"the output of local step {name!r}")


async def wait_signal(
    replay: Replay,
    name: str,
    *,
    timeout: timedelta | None,
    decoder: PayloadDecoder[Any],
    location: Location,
) -> Any:
    operation = replay.lost_wait(name)
    if operation is None:
        seq = replay.journal.take_seq()
        request = WaitSignal(seq=seq, signal=name)
        operation = Requested(seq, HistoryKind.SIGNAL, name, location, request=request)
    if timeout is None:
        event = await replay.wait(operation)
    else:
        async with asyncio.timeout(timeout.total_seconds()):
            event = await replay.wait(operation)
    return decoder.decode(event.output, what=f"the payload of signal {name!r}")


async def run_child(
    replay: Replay,
    name: str,
    value: object,
    *,
    decoder: PayloadDecoder[Any],
    location: Location,
) -> Any:
    payload = encode_payload(value, what=f"the input of child workflow {name!r}")
    seq = replay.journal.take_seq()
    request = StartChild(seq=seq, workflow=name, input=payload)
    event = await replay.wait(Requested(seq, HistoryKind.CHILD, name, location, request=request))
    if event.error is not None:
        raise error_of(event, name)
    return decoder.decode(event.output, what=f"the output of child workflow {name!r}")
