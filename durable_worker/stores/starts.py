"""What came of starts that are answered, kept beside the ids of consumed signals."""

from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from durable_worker.errors import RunExistsError, UnsendableError
from durable_worker.protocol.base import Payload
from durable_worker.protocol.runs import StartedRun, StartRequest
from durable_worker.stores.base import Store
from durable_worker.stores.inputs import StartRequested, StartRun
from durable_worker.stores.records import SignalRecord

LONGEST_ID = 160
"""Bytes of a run id or tenant; AMQP carries ids made of them (of children, attempts) up to 255."""

_NAME = "durable:started"

_outcomes = msgspec.json.Decoder(StartedRun)


def asked_start(
    body: StartRequest, *, namespace: str, request_id: str, partition: str | None = None
) -> StartRequested:
    """Raises `UnsendableError` for an id from which no queue could be given messages."""
    for what, text in (("run id", body.run_id), ("tenant", namespace)):
        size = len(text.encode())
        if size > LONGEST_ID:
            raise UnsendableError(what, text, size=size, limit=LONGEST_ID)
    return StartRequested(
        request_id=request_id,
        reuse=body.reuse,
        start=StartRun(
            run_id=body.run_id,
            workflow=body.workflow,
            input=body.input,
            namespace=namespace,
            partition=partition,
            tags=tuple(body.tags or ()),
            search_attributes=json_object(body.search_attributes),
        ),
    )


def json_object(values: dict[str, Any] | None) -> Payload:
    return UNSET if values is None else Raw(msgspec.json.encode(values))


def outcome_record(asked: StartRequested, started: StartedRun | None, *, now: int) -> SignalRecord:
    """Consumed from the beginning, so nobody who waits for a signal gets it. `started` is None if
    the run id is another tenant's."""
    return SignalRecord(
        id=asked.outcome_id,
        namespace=asked.start.namespace,
        name=_NAME,
        payload=UNSET if started is None else Raw(msgspec.json.encode(started)),
        received_at=now,
        consumed_at=now,
    )


async def outcome_of(store: Store, asked: StartRequested) -> StartedRun | None:
    """None if nobody has dealt with it yet. Raises `RunExistsError`."""
    record = await store.signal(asked.outcome_id)
    if record is None:
        return None
    if isinstance(record.payload, UnsetType):
        raise RunExistsError(asked.run_id)
    started = _outcomes.decode(record.payload)
    if asked.reuse == "reject" and not started.is_new:
        raise RunExistsError(started.run_id)
    return started
