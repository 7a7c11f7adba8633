"""How a run goes on with an empty history (protocol/README.md, "Continuing as new")."""

from collections.abc import Iterable

import msgspec
from msgspec import Raw

from durable_worker.operator.transitions.attributes import note_attributes
from durable_worker.operator.transitions.draft import Draft
from durable_worker.operator.transitions.effects import Deliver
from durable_worker.protocol.commands import RecordStep, WorkflowDecision
from durable_worker.protocol.names import CONTINUED_MARKER, is_for_one_seq
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.inputs import SignalSent
from durable_worker.stores.records import Checkpoint, CheckpointStatus


def continue_as_new(draft: Draft, decision: WorkflowDecision, *, version: str | None) -> None:
    """Everything that the run has asked for is gone, but for signals that nobody has taken.

    It counts on from the highest seq that was ever used: ids of steps and children are made of
    seqs, and answers to what is gone must find nothing.
    """
    before = draft.state.checkpoints
    last = max((*before, *(each.seq for each in decision.commands)), default=-1)
    for each in _unread(draft, decision):
        draft.add(Deliver(_sent_again(draft, each)))
    for command in decision.commands:
        if isinstance(command, RecordStep) and command.seq not in before:
            note_attributes(draft, command)
    count = _times_continued(before.values()) + 1
    for seq in before:
        draft.withdraw(seq)
    draft.put(
        Checkpoint(
            run_id=draft.run.id,
            seq=max(0, last + 1),
            kind=HistoryKind.STEP,
            name=CONTINUED_MARKER,
            status=CheckpointStatus.COMPLETED,
            output=Raw(msgspec.json.encode(count)),
            enqueued_at=draft.now,
            finished_at=draft.now,
        )
    )
    draft.update(input=decision.input, ordered=None, version=version or draft.run.version)
    draft.start_turn()


def _unread(draft: Draft, decision: WorkflowDecision) -> list[Checkpoint]:
    """Signals that the body had not taken, or could not know of yet, by the time they came."""
    unread, known = set(decision.unread or ()), decision.ordered
    found = [
        each
        for each in draft.state.checkpoints.values()
        if each.kind is HistoryKind.SIGNAL
        and each.status is CheckpointStatus.COMPLETED
        and (each.seq in unread or (known is not None and (each.order or 0) > known))
        and not is_for_one_seq(each.name, each.run_id, each.seq)
    ]
    return sorted(found, key=lambda each: each.order or 0)


def _sent_again(draft: Draft, signal: Checkpoint) -> SignalSent:
    """In the place that it had among others of its name: it came before it was matched."""
    arrived = signal.finished_at if signal.started_at is None else signal.started_at
    return SignalSent(
        signal_id=f"continued:{signal.run_id}:{signal.seq}",
        namespace=draft.run.namespace,
        name=signal.name,
        payload=signal.output,
        received_at=arrived,
    )


def _times_continued(checkpoints: Iterable[Checkpoint]) -> int:
    found = next((each for each in checkpoints if each.name == CONTINUED_MARKER), None)
    if found is None or not isinstance(found.output, Raw):
        return 0
    return msgspec.json.decode(found.output, type=int)
