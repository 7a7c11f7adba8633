"""The fewest faults that still make a seed fail (delta debugging)."""

from collections.abc import Callable, Sequence

from durable_worker.testing.simulation.chance import Fault

MOST_TRIALS = 300


def fewest(faults: Sequence[Fault], fails: Callable[[Sequence[Fault]], bool]) -> tuple[Fault, ...]:
    """A part of `faults` from which nothing can be left out, as far as the trials reach."""
    left = list(faults)
    trials = 0
    if fails([]):
        return ()
    size = max(1, len(left) // 2)
    while trials < MOST_TRIALS:
        start, has_shrunk = 0, False
        while start < len(left) and trials < MOST_TRIALS:
            without = left[:start] + left[start + size :]
            trials += 1
            if without and fails(without):
                left, has_shrunk = without, True
            else:
                start += size
        if size == 1 and not has_shrunk:
            break
        size = size if has_shrunk and size == 1 else max(1, size // 2)
    return tuple(left)
