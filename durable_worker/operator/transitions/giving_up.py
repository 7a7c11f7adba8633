"""Calls that a body has given up (protocol/README.md, "Cancelling a step")."""

from collections.abc import Iterable

from durable_worker.operator.transitions.draft import Draft
from durable_worker.operator.transitions.effects import BroadcastCancel
from durable_worker.protocol.commands import AnyCommand, CancelStep
from durable_worker.protocol.control import EngineEventType, GivenUp
from durable_worker.protocol.failure import GIVEN_UP
from durable_worker.protocol.tasks import HistoryKind


def give_up(draft: Draft, commands: Iterable[AnyCommand]) -> None:
    """History tells it, which is no reason for a turn: the body knows."""
    given_up: list[GivenUp] = []
    for command in commands:
        if not isinstance(command, CancelStep):
            continue
        call = draft.checkpoint(command.seq)
        if call is not None and call.is_pending and call.kind is HistoryKind.CALL:
            draft.settle(call, error=GIVEN_UP)
            draft.emit(EngineEventType.STEP_FAILED, call=call, error=GIVEN_UP)
            given_up.append(GivenUp(seq=call.seq, attempt=call.attempt))
    if given_up:
        draft.add(BroadcastCancel(draft.run.id, given_up=tuple(given_up)))
