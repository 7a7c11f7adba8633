"""How a worker makes itself known: its descriptor, its beats, its live status."""

import os
import socket
import time
from collections import deque
from datetime import timedelta

from durable_worker.clock import Chance, Clock
from durable_worker.protocol.codec import MessageType, encode
from durable_worker.protocol.descriptor import (
    OUR_PROTOCOL,
    Concurrency,
    ConcurrencyMode,
    Lifecycle,
    Registration,
    Runtime,
    Sdk,
    WorkerAnnouncement,
    WorkerBeat,
    WorkerDescriptor,
    WorkerStatus,
    descriptor_hash,
)
from durable_worker.protocol.names import is_default, routing_token
from durable_worker.transports.base import Envelope
from durable_worker.version import VERSION
from durable_worker.worker.registry import Worker

BEAT_EVERY = timedelta(seconds=10)
GONE_AFTER = timedelta(seconds=35)
CAPABILITIES = ("signals", "child-workflows", "cancellation")
"""What this worker's bodies and steps can take part in, of the capabilities of protocol 1."""


class Presence:
    def __init__(
        self,
        worker: Worker,
        *,
        concurrency: int,
        partition: str | None,
        namespace: str | None,
        clock: Clock,
        chance: Chance,
    ) -> None:
        self._clock = clock
        self.instance_id = f"{socket.gethostname()}-{os.getpid()}-{chance.new_id().hex[:8]}"
        self.tokens = [routing_token(name, partition) for name in worker.names()]
        self.descriptor = _describe(
            worker, self.instance_id, partition, namespace, started_at=clock.now()
        )
        self._hash = descriptor_hash(self.descriptor)
        self._concurrency = concurrency
        self._recent: deque[tuple[float, float]] = deque(maxlen=1_000)
        self.finished = self._recent.append
        """When a step ended, by the monotonic clock, and how many seconds it took."""
        self._cpu = (self._clock.monotonic(), time.process_time())

    def announcement(self) -> Envelope:
        message = WorkerAnnouncement(groups=self.tokens, descriptor=self.descriptor)
        return Envelope(MessageType.WORKER_DESCRIPTOR, encode(message))

    def beat(self, lifecycle: Lifecycle, *, in_flight: int) -> Envelope:
        message = WorkerBeat(
            instance_id=self.instance_id,
            groups=self.tokens,
            ts=self._clock.now(),
            lifecycle=lifecycle,
            status=self._status(in_flight),
            descriptor_hash=self._hash,
        )
        return Envelope(MessageType.WORKER_BEAT, encode(message), expires=GONE_AFTER)

    def _status(self, in_flight: int) -> WorkerStatus:
        now, cpu = self._clock.monotonic(), time.process_time()
        elapsed = max(now - self._cpu[0], 1e-3)
        used = cpu - self._cpu[1]
        self._cpu = (now, cpu)
        last_minute = [seconds for at, seconds in self._recent if now - at < 60]
        slowest = sorted(last_minute)
        return WorkerStatus(
            runtime=Runtime.PYTHON,
            concurrency=Concurrency(mode=ConcurrencyMode.FIXED, limit=self._concurrency),
            in_flight=in_flight,
            rss_bytes=_resident_bytes(),
            cpu_pct=round(100 * used / elapsed, 1),
            throughput_per_min=float(len(last_minute)),
            p95_ms=round(slowest[int(len(slowest) * 0.95)] * 1000, 1) if slowest else None,
        )


def _describe(
    worker: Worker,
    instance_id: str,
    partition: str | None,
    namespace: str | None,
    *,
    started_at: int,
) -> WorkerDescriptor:
    workflows = list(dict.fromkeys(name for name, _ in worker.workflows))
    registrations = [
        Registration(name=name, version=version, group=routing_token(name, partition))
        for name, version in worker.workflows
    ]
    registrations += [
        Registration(name=name, group=routing_token(name, partition)) for name in worker.steps
    ]
    return WorkerDescriptor(
        instance_id=instance_id,
        runtime=Runtime.PYTHON,
        sdk=Sdk(name="durable-worker", version=VERSION),
        protocol=OUR_PROTOCOL,
        capabilities=list(CAPABILITIES),
        workflows=workflows,
        steps=list(worker.steps),
        registrations=registrations,
        partition=None if is_default(partition) else partition,
        namespace=None if is_default(namespace) else namespace,
        started_at=started_at,
    )


def _resident_bytes() -> int | None:
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
