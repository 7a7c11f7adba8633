"""No-op steps per second of one worker process, beside each peer and beside no worker at all.

All on RabbitMQ take persistent tasks from a quorum queue, put a persistent result on another, wait
until the broker has confirmed it and acknowledge the task then; the same number of tasks is handed
out ahead to each, none logs below WARNING, none has uvloop.
"""

from collections.abc import Callable, Iterator

from tests.bench.context import Bench
from tests.bench.figures import Pairs, Reading, Target
from tests.bench.registry import measures
from tests.bench.worker import brokered_peers
from tests.bench.worker.contender import Contender
from tests.bench.worker.original import original
from tests.bench.worker.ours import ours, raw
from tests.bench.worker.trial import Trial, trial

PREFETCH = 100
STEPS = (10_000, 20_000)
PEER_STEPS = (1_000, 3_000)
ORIGINAL_STEPS = (500, 1_500)
PROBE_STEPS = 400
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
    Target("worker_vs_celery", "steps/s of one worker over Celery at its fastest", at_least=15),
    Target("worker_vs_celery_prefork", "the same over Celery's default pool with one process"),
)
def worker_vs_celery(bench: Bench) -> Iterator[Reading]:
    fastest = brokered_peers.celery(bench, prefetch=PREFETCH, pool="threads", width=10)
    yield over_peer(bench, "worker_vs_celery", fastest)
    default = brokered_peers.celery(bench, prefetch=PREFETCH, pool="prefork", width=1)
    yield over_peer(bench, "worker_vs_celery_prefork", default)


@measures(
    Target(
        "worker_vs_original",
        "steps/s of one worker over durable-worker 0.26.1 on BullMQ",
        at_least=25,
    )
)
def worker_vs_original(bench: Bench) -> Iterator[Reading]:
    """The original at the concurrency that suits it best."""
    rates = {
        width: original(bench, PROBE_STEPS, concurrency=width).rate for width in ORIGINAL_WIDTHS
    }
    width = max(rates, key=lambda each: rates[each])
    count = bench.pick(*ORIGINAL_STEPS)
    pairs = paired(bench, lambda: original(bench, count, concurrency=width).rate)
    yield pairs.reading("worker_vs_original", UNIT, ("ours", f"original (concurrency {width})"))


def over_peer(bench: Bench, key: str, peer: Contender) -> Reading:
    count = bench.pick(*PEER_STEPS)
    pairs = paired(bench, lambda: trial(bench.broker.url, peer, count).rate)
    return pairs.reading(key, UNIT, ("ours", peer.name))


def paired(bench: Bench, theirs: Callable[[], float]) -> Pairs:
    return bench.pairs(lambda: our_trial(bench).rate, theirs, quick=2, full=5)


def our_trial(bench: Bench) -> Trial:
    url = bench.broker.url
    return trial(url, ours(url, concurrency=PREFETCH), bench.pick(*STEPS))
