"""A recorded run as a JSON document."""

import msgspec
from msgspec import UNSET, Struct

from durable_worker.errors import ProtocolError
from durable_worker.protocol.base import Payload
from durable_worker.protocol.codec import WORKFLOW_TASK
from durable_worker.protocol.runs import RunDetail
from durable_worker.replay.timeline import RecordedRun, recorded_run

_DETAIL = msgspec.json.Decoder(RunDetail)


class _Keys(Struct):
    """Enough to tell one kind of document from the other."""

    timeline: Payload = UNSET
    history: Payload = UNSET


def read_recorded_run(document: bytes) -> RecordedRun:
    """From a RunDetail (`durable-worker show --json`) or a WorkflowTask, as JSON.

    Raises `ProtocolError`.
    """
    try:
        keys = msgspec.json.decode(document, type=_Keys)
        if keys.timeline is not UNSET:
            return recorded_run(_DETAIL.decode(document))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError("history", str(error)) from error
    if keys.history is UNSET:
        raise ProtocolError(
            "history",
            "it holds neither a timeline, as `durable-worker show RUN --json` prints, nor the "
            "history of a WorkflowTask",
        )
    return RecordedRun(task=WORKFLOW_TASK.decode(document))
