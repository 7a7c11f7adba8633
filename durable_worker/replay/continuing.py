"""How a body ends to go on with a new history (protocol/README.md, "Continuing as new")."""

from typing import cast

from durable_worker.protocol.base import Payload
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind
from durable_worker.replay.operations import CONTINUED


class ContinuedAsNewError(BaseException):
    """Leaves a body that goes on as new; not an `Exception`, so that no `except` swallows it."""

    def __init__(self, input: Payload) -> None:
        super().__init__("the run goes on as new: let this pass")
        self.input = input


def continuation_in(error: BaseException) -> ContinuedAsNewError | None:
    """What a body has ended with, if that is nothing but its wish to go on as new."""
    if isinstance(error, ContinuedAsNewError):
        return error
    if not isinstance(error, BaseExceptionGroup):
        return None
    group = cast("BaseExceptionGroup[BaseException]", error)
    found = [continuation_in(each) for each in group.exceptions]
    return found[0] if all(found) else None


def first_seq_of(history: list[HistoryEvent]) -> int:
    """The seq at which the body that this is the history of begins to count."""
    if not history:
        return 0
    first = history[0]
    is_continued = first.kind is HistoryKind.STEP and first.name == CONTINUED
    return first.seq + 1 if is_continued else 0
