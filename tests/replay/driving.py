"""An operator that does to a run whatever operators do: in any order, twice, and by halves."""

from collections.abc import Sequence
from random import Random

from msgspec import UNSET, json
from msgspec.structs import replace

from durable_worker import Worker
from durable_worker.protocol.commands import DecisionStatus, ScheduleStep, WaitSignal
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.growing import TurnReader
from durable_worker.protocol.tasks import WorkflowTask
from durable_worker.replay.turn import Replay
from tests.replay.model import ModelOperator, full_turn, new_replay, take_turn


def resolve(operator: ModelOperator, seq: int, chance: Random) -> None:
    command = operator.pending[seq]
    output: object = f"{type(command).__name__}@{seq}"
    match command:
        case ScheduleStep(retry=retry) if (
            retry is not None and retry.timeout_ms is not None and chance.random() < 0.3
        ):
            operator.resolve(seq, error=Failure(message="too late", code="timeout"))
        case ScheduleStep(name=name) if name.startswith("failing"):
            operator.resolve(seq, error=Failure(message="no", code="Nope", retryable=False))
        case ScheduleStep(name=name) if name.startswith("undo-") and chance.random() < 0.3:
            operator.resolve(seq, error=Failure(message="cannot be undone"))
        case WaitSignal(signal=signal) if signal.startswith("task:"):
            is_done = chance.random() < 0.7
            operator.resolve(seq, {"ok": is_done, "value" if is_done else "error": output})
        case _:
            operator.resolve(seq, output)


def _told(task: WorkflowTask, before: WorkflowTask | None, chance: Random) -> bytes:
    """The turn as it is sent to whoever keeps the one before."""
    if before is None or chance.random() < 0.3:
        return json.encode(task)
    known = {event.seq: event for event in before.history}
    if any(event.seq in known and event != known[event.seq] for event in task.history):
        return json.encode(task)
    history = [event for event in task.history if event.seq not in known]
    return json.encode(replace(task, since=before.task_id, input=UNSET, history=history))


def drive(  # noqa: PLR0912 - one for each mishap
    worker: Worker,
    operator: ModelOperator,
    chance: Random,
    *,
    deploy: Worker | None = None,
    is_cancelled: bool = False,
    offers: Sequence[list[str]] = (),
) -> list[bytes]:
    """Run to the end with turns split, repeated, dropped and half applied; return the decisions.

    Every turn is decided twice: from the top, and by the body kept from earlier turns, which gets
    the turns as a worker reads them, whole or only what is new in them. `deploy`
    takes the place of `worker` after some turns, when there is something new to decide about. With
    `is_cancelled` the run is cancelled after some turns, whether or not there is something new.
    Now and then another operator takes over, which states one of `offers`.
    """
    cancel_after = chance.randrange(8) if is_cancelled else 400
    deploy_after = chance.randrange(8)
    kept: Replay | None = None
    reader = TurnReader(limit=1)
    before: WorkflowTask | None = None
    decisions: list[bytes] = []
    for turn in range(400):
        operator.is_cancelled = turn >= cancel_after
        if offers and chance.random() < 0.3:
            operator.capabilities = chance.choice(offers)
        task = operator.task()
        full = full_turn(worker, task, now_ms=operator.now_ms)
        task, before = reader.read(_told(task, before, chance)), task
        assert task.since is None
        is_twice = full.status is DecisionStatus.CONTINUE and chance.random() < 0.1
        if is_twice and kept is not None and operator.pending:
            # Another copy of the turn, sent later, knows more. Both are answered, the first counts.
            resolve(operator, chance.choice(sorted(operator.pending)), chance)
            before = operator.task()
            longer = reader.read(json.encode(before))
            reader.keep(longer)
            if kept.can_continue(longer):
                ahead = take_turn(kept, longer, now_ms=operator.now_ms)
                if ahead.status is not DecisionStatus.CONTINUE:
                    kept.dispose()
            operator.apply(full)
            continue
        if kept is not None and kept.can_continue(task):
            sticky = take_turn(kept, task, now_ms=operator.now_ms)
        else:
            if kept is not None:
                kept.dispose()
            kept = new_replay(worker, task)
            sticky = take_turn(kept, task, now_ms=operator.now_ms)
        assert json.encode(sticky) == json.encode(full)
        decisions.append(json.encode(full))
        reader.keep(task)
        if full.status is not DecisionStatus.CONTINUE:
            kept.dispose()
            operator.apply(full)
            return decisions
        fate = chance.random()
        if fate < 0.1:
            continue  # the decision was dropped: the same turn comes again
        if fate < 0.2 and not operator.is_ordered:
            operator.apply(full, only_first=chance.randrange(len(full.commands) + 1))
            continue  # the operator died between two commands
        operator.apply(full)
        waiting = sorted(operator.pending)
        assert waiting, "suspended with nothing that could ever come"
        least = 0 if turn + 1 == cancel_after else 1
        for seq in chance.sample(waiting, chance.randint(least, min(3, len(waiting)))):
            resolve(operator, seq, chance)
        if deploy is not None and turn >= deploy_after:
            kept.dispose()
            worker, deploy, kept = deploy, None, None
    raise AssertionError("the run did not end within 400 turns")
