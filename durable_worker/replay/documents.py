"""A recorded run as a JSON document."""

import msgspec
from msgspec import UNSET, Raw, Struct
from msgspec.structs import replace

from durable_worker.errors import ProtocolError
from durable_worker.protocol.base import Payload
from durable_worker.protocol.codec import WORKFLOW_TASK
from durable_worker.protocol.runs import RunDetail
from durable_worker.replay.opened import opened_run
from durable_worker.replay.timeline import RecordedRun, recorded_run

_DETAIL = msgspec.json.Decoder(RunDetail)


class _Keys(Struct):
    """Enough to tell one kind of document from the other."""

    timeline: Payload = UNSET
    history: Payload = UNSET


class _Run(Struct):
    context: Payload = UNSET


class _Detail(Struct):
    run: _Run


def read_recorded_run(document: bytes) -> RecordedRun:
    """From a RunDetail (`durable-worker show --json`) or a WorkflowTask, as JSON.

    Raises `ProtocolError`.
    """
    try:
        keys = msgspec.json.decode(document, type=_Keys)
        if keys.timeline is not UNSET:
            detail = _DETAIL.decode(document)
            context = msgspec.json.decode(document, type=_Detail).run.context
            if isinstance(context, Raw):  # a client has put it there
                detail = replace(detail, run=opened_run(detail.run, context))
            return recorded_run(detail)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError("history", str(error)) from error
    if keys.history is UNSET:
        raise ProtocolError(
            "history",
            "it holds neither a timeline, as `durable-worker show RUN --json` prints, nor the "
            "history of a WorkflowTask",
        )
    return RecordedRun(task=WORKFLOW_TASK.decode(document))
