"""How a cost grows with a count."""

import math
from collections.abc import Sequence


def exponent(counts: Sequence[int], costs: Sequence[float]) -> float:
    """The slope of the straight line that fits best in a plot of both logarithms."""
    xs, ys = [math.log(each) for each in counts], [math.log(each) for each in costs]
    middle, level = sum(xs) / len(xs), sum(ys) / len(ys)
    rise = sum((x - middle) * (y - level) for x, y in zip(xs, ys, strict=True))
    return rise / sum((x - middle) ** 2 for x in xs)
