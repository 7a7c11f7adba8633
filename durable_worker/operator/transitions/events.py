"""What listeners are told of a run."""

from durable_worker.operator.transitions.effects import Emit
from durable_worker.protocol.control import EngineEvent
from durable_worker.stores.views import iso_time


def event_of(told: Emit) -> EngineEvent:
    call = told.call
    started = None if call is None else call.started_at
    return EngineEvent(
        type=told.type,
        run_id=told.run_id,
        workflow=told.workflow,
        namespace=told.namespace,
        seq=None if call is None else call.seq,
        name=None if call is None else call.name,
        kind=None if call is None else call.kind.value,
        output=told.output,
        error=told.error,
        duration_ms=None if started is None else float(max(0, told.at - started)),
        queue_ms=None
        if call is None or started is None
        else float(max(0, started - call.enqueued_at)),
        at=iso_time(told.at),
    )
