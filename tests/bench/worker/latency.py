"""One idle round trip: a task goes to a worker and its result comes back, through two queues."""

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack

from tests.bench.context import Bench
from tests.bench.figures import Pairs, Reading, Target, WrongResultError
from tests.bench.registry import measures
from tests.bench.worker.bulk import Bulk
from tests.bench.worker.contender import Contender
from tests.bench.worker.ours import ours, raw
from tests.bench.worker.trial import started

CONCURRENCY = 100
WARM_UP = 20
BLOCK = 50
BLOCKS = (5, 20)


@measures(
    Target(
        "step_latency_ratio",
        "p50 of an idle step's round trip over that of a bare loop on the same queues",
        at_most=1.25,
    )
)
def step_latency_ratio(bench: Bench) -> Iterator[Reading]:
    """One trip of ours, one of the bare loop, and so on: no two are ever under way at once."""
    url = bench.broker.url
    ours_and_bare = ours(url, concurrency=CONCURRENCY), raw(url, concurrency=CONCURRENCY)
    pairs = Pairs()
    with Bulk(url) as bulk, ExitStack() as programs:
        for each in ours_and_bare:
            bulk.declare(each.tasks, each.arguments)
            bulk.declare(each.results, each.arguments)
            bulk.consume(each.results)
        running = [programs.enter_context(started(each)) for each in ours_and_bare]
        number = 0
        for block in range(bench.pick(*BLOCKS) + 1):
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(BLOCK if block else WARM_UP):
                for contender, taken in zip(ours_and_bare, times, strict=True):
                    taken.append(round_trip_ms(bulk, contender, number))
                number += 1
            if block:
                pairs.ours.append(statistics.median(times[0]))
                pairs.theirs.append(statistics.median(times[1]))
        for program in running:
            program.require_running()
        programs.close()
        for each in ours_and_bare:
            if left := bulk.depth(each.tasks):
                raise WrongResultError(f"{each.name} left {left} tasks unacknowledged")
            if left := bulk.depth(each.results):
                raise WrongResultError(f"{each.name} gave {left} results too many")
            bulk.delete(each.tasks)
            bulk.delete(each.results)
    yield pairs.reading("step_latency_ratio", "ms", ("ours", "bare loop"))


def round_trip_ms(bulk: Bulk, contender: Contender, number: int) -> float:
    properties, body = contender.task(number)
    before = time.perf_counter()
    bulk.post(contender.tasks, properties, body)
    answered = bulk.receive()
    milliseconds = 1_000 * (time.perf_counter() - before)
    if contender.number(*answered) != number:
        raise WrongResultError(f"{contender.name} answered another task than {number}")
    return milliseconds
