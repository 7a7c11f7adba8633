"""What the log says of a transaction: only what somebody may have to act on."""

from durable_worker.operator.context import Consequences
from durable_worker.operator.log import log
from durable_worker.protocol.control import EngineEventType
from durable_worker.protocol.runs import RunStatus
from durable_worker.stores.inputs import POISON

_MOST_LETTERS = 3
"""Of one transaction, each with a line of its own."""


def tell_of(done: Consequences) -> None:
    for letter in done.letters[:_MOST_LETTERS]:
        log.warning(
            "dead_letter_kept",
            letter=letter.id,
            type=letter.type,
            queue=letter.queue,
            run_id=letter.run_id,
            seq=letter.seq,
            reason=letter.reason,
        )
    if len(done.letters) > _MOST_LETTERS:
        log.warning("dead_letters_kept", more=len(done.letters) - _MOST_LETTERS)
    for letter in done.redriven:
        log.info("dead_letter_redriven", letter=letter.id, run_id=letter.run_id, seq=letter.seq)
    for event in done.events:
        error = event.error
        is_failure = event.type is EngineEventType.STEP_FAILED
        if is_failure and error is not None and error.code == POISON:
            log.error(
                "step_poisoned",
                run_id=event.run_id,
                step=None if event.call is None else event.call.name,
                seq=None if event.call is None else event.call.seq,
                error=error.message,
            )
    for run in done.ended:
        if run.status is RunStatus.DEAD:
            message = None if run.error is None else run.error.message
            log.error("run_dead", run_id=run.id, workflow=run.workflow, error=message)
