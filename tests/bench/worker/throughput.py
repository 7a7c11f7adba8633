"""No-op steps per second of one worker process, beside each peer and beside no worker at all.

All on RabbitMQ take persistent tasks from a quorum queue, put a persistent result on another, wait
until the broker has confirmed it and acknowledge the task then; the same number of tasks is handed
out ahead to each, none logs below WARNING, none has uvloop.
"""

import statistics
from collections.abc import Callable, Iterator

from tests.bench.context import Bench
from tests.bench.figures import Reading, Target
from tests.bench.registry import measures
from tests.bench.worker import brokered_peers
from tests.bench.worker.contender import Contender
from tests.bench.worker.original import original
from tests.bench.worker.ours import ours, raw
from tests.bench.worker.trial import Trial, trial

PREFETCH = 500
STEPS = (10_000, 20_000)
PEER_STEPS = (1_000, 3_000)
ORIGINAL_STEPS = (400, 1_500)
PROBE_STEPS = (200, 400)
ORIGINAL_WIDTHS = (1, 10, 100)
UNIT = "steps/s"


@measures(
    Target(
        "worker_vs_raw",
        "steps/s of one worker over a bare loop on the same data path",
        at_least=0.6,
    ),
    Target("worker_cpu_us", "worker CPU per no-op step", "us", at_most=100),
    Target("worker_steps", "no-op steps of one worker process", UNIT),
)
def worker_vs_raw(bench: Bench) -> Iterator[Reading]:
    count = bench.pick(*STEPS)
    bare = raw(bench.broker.url, concurrency=PREFETCH)
    trials: list[Trial] = []

    def our_rate() -> float:
        trials.append(our_trial(bench))
        return trials[-1].rate

    pairs = bench.pairs(
        our_rate, lambda: trial(bench.broker.url, bare, count).rate, quick=3, full=7
    )
    yield pairs.reading("worker_vs_raw", UNIT, ("ours", bare.name))
    yield Reading("worker_cpu_us", tuple(each.cpu_us for each in trials))
    note = f"concurrency {PREFETCH}, {count:,} steps"
    yield Reading("worker_steps", tuple(each.rate for each in trials), note=note)


@measures(
    Target("worker_vs_faststream", "steps/s of one worker over FastStream on RabbitMQ", at_least=8)
)
def worker_vs_faststream(bench: Bench) -> Iterator[Reading]:
    yield over_peer(
        bench, "worker_vs_faststream", brokered_peers.faststream(bench, prefetch=PREFETCH)
    )


@measures(Target("worker_vs_taskiq", "steps/s of one worker over Taskiq on RabbitMQ", at_least=8))
def worker_vs_taskiq(bench: Bench) -> Iterator[Reading]:
    yield over_peer(bench, "worker_vs_taskiq", brokered_peers.taskiq(bench, prefetch=PREFETCH))


@measures(
    Target("worker_vs_celery", "steps/s of one worker over Celery in its default pool", at_least=15)
)
def worker_vs_celery(bench: Bench) -> Iterator[Reading]:
    peer = brokered_peers.celery(bench, prefetch=PREFETCH, pool="prefork", width=1)
    yield over_peer(bench, "worker_vs_celery", peer)


@measures(
    Target("worker_vs_celery_threads", "the same over Celery in its fastest pool, of threads")
)
def worker_vs_celery_threads(bench: Bench) -> Iterator[Reading]:
    peer = brokered_peers.celery(bench, prefetch=PREFETCH, pool="threads", width=10)
    yield over_peer(bench, "worker_vs_celery_threads", peer)


@measures(
    Target(
        "worker_vs_original",
        "steps/s of one worker over durable-worker 0.26.1 on BullMQ",
        at_least=25,
    )
)
def worker_vs_original(bench: Bench) -> Iterator[Reading]:
    """The original at the concurrency that suits it best."""
    probes = bench.pick(*PROBE_STEPS)
    rates = {width: original(bench, probes, concurrency=width).rate for width in ORIGINAL_WIDTHS}
    width = max(rates, key=lambda each: rates[each])
    count = bench.pick(*ORIGINAL_STEPS)
    name = f"original (concurrency {width})"
    yield compared(
        bench, "worker_vs_original", name, lambda: original(bench, count, concurrency=width)
    )


def over_peer(bench: Bench, key: str, peer: Contender) -> Reading:
    count = bench.pick(*PEER_STEPS)
    return compared(bench, key, peer.name, lambda: trial(bench.broker.url, peer, count))


def compared(bench: Bench, key: str, name: str, theirs: Callable[[], Trial]) -> Reading:
    """Also tells what a step costs either side in CPU, which a busy machine distorts less."""
    trials: tuple[list[Trial], list[Trial]] = ([], [])

    def kept(side: int, seen: Trial) -> float:
        trials[side].append(seen)
        return seen.rate

    pairs = bench.pairs(
        lambda: kept(0, our_trial(bench)), lambda: kept(1, theirs()), quick=2, full=5
    )
    ours_us, theirs_us = (statistics.median(each.cpu_us for each in side) for side in trials)
    note = f"CPU per step {ours_us:.0f} and {theirs_us:.0f} us"
    return pairs.reading(key, UNIT, ("ours", name), note=note)


def our_trial(bench: Bench) -> Trial:
    url = bench.broker.url
    return trial(url, ours(url, concurrency=PREFETCH), bench.pick(*STEPS))
