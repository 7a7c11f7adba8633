"""What is said about a message that could not be handled."""

from durable_worker.stores.inputs import StepPoisoned, TurnPoisoned


def poison_told(poisoned: StepPoisoned | TurnPoisoned, *, what: str, recoveries: int) -> str:
    """`what` the message asked for, `recoveries`: how often it had been sent again before."""
    if poisoned.letter is None:
        return poisoned.reason
    if poisoned.is_suspicion and poisoned.deliveries is not None:
        times = poisoned.deliveries * (recoveries + 1)
        told = (
            f"{what} was delivered {times} times and never answered: the process that took it died "
            f"or lost its connection each time"
        )
    else:
        told = f"a message of {what} could not be used: {poisoned.reason}"
    return (
        f"{told}. `durable-worker dead show {poisoned.letter}` shows the message; once the cause "
        f"is mended, `dead redrive` has it sent again"
    )
