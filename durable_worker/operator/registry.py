"""Which workers live now, and what they serve."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta

from durable_worker.protocol.descriptor import (
    LEGACY_PROTOCOL,
    OUR_PROTOCOL,
    Lifecycle,
    WorkerAnnouncement,
    WorkerBeat,
    WorkerDescriptor,
    WorkerStatus,
)
from durable_worker.protocol.names import routing_token

GONE_AFTER = timedelta(seconds=35)
LEGACY_VERSION = "1"
"""The version of a workflow whose worker announces none."""


@dataclass(slots=True)
class LiveWorker:
    """A worker as its last beat and its last announcement describe it. `seen_at`: monotonic."""

    instance_id: str
    seen_at: float
    groups: frozenset[str] = frozenset()
    lifecycle: Lifecycle = Lifecycle.UP
    status: WorkerStatus | None = None
    descriptor: WorkerDescriptor | None = None
    descriptor_hash: str | None = None
    versions: dict[str, set[str]] = field(default_factory=dict[str, set[str]])

    @property
    def takes_work(self) -> bool:
        return self.lifecycle is Lifecycle.UP and self.is_compatible

    @property
    def is_compatible(self) -> bool:
        if self.descriptor is None:
            return True
        return OUR_PROTOCOL.overlaps(self.descriptor.protocol or LEGACY_PROTOCOL)


class Registry:
    """`monotonic` tells seconds. Knows what was announced; asks nothing itself."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._workers: dict[str, LiveWorker] = {}
        self._served: frozenset[str] = frozenset()
        self._served_until = monotonic()

    def on_beat(self, beat: WorkerBeat) -> bool:
        """Take note of a beat; False if the sender's descriptor is not known (ask who it is)."""
        self._served_until = self._monotonic()
        if beat.lifecycle is Lifecycle.STOPPED:
            self._workers.pop(beat.instance_id, None)
            return True
        worker = self._worker(beat.instance_id)
        worker.groups = frozenset(beat.groups)
        worker.lifecycle = beat.lifecycle
        worker.status = beat.status
        is_known = worker.descriptor is not None and (
            beat.descriptor_hash is None or worker.descriptor_hash in (None, beat.descriptor_hash)
        )
        worker.descriptor_hash = beat.descriptor_hash
        return is_known

    def on_announcement(self, announcement: WorkerAnnouncement) -> list[str]:
        """Take note of a descriptor; returns the workflows that it makes available."""
        self._served_until = self._monotonic()
        descriptor = announcement.descriptor
        worker = self._worker(descriptor.instance_id)
        worker.groups = frozenset(announcement.groups)
        worker.descriptor = descriptor
        worker.descriptor_hash = None
        worker.versions = _versions(descriptor)
        return list(worker.versions)

    def _worker(self, instance_id: str) -> LiveWorker:
        worker = self._workers.get(instance_id)
        if worker is None:
            worker = self._workers[instance_id] = LiveWorker(instance_id, self._monotonic())
        worker.seen_at = self._monotonic()
        return worker

    def knows(self, instance_id: str) -> bool:
        """Whether the worker has been announced."""
        worker = self._workers.get(instance_id)
        return worker is not None and worker.descriptor is not None

    def live(self) -> list[LiveWorker]:
        oldest = self._monotonic() - GONE_AFTER.total_seconds()
        for gone in [each for each in self._workers.values() if each.seen_at < oldest]:
            del self._workers[gone.instance_id]
        return list(self._workers.values())

    def serves(self, token: str) -> bool:
        """Whether a live worker takes tasks that are routed to `token`."""
        if self._monotonic() >= self._served_until:
            taking = (each.groups for each in self.live() if each.takes_work)
            self._served = frozenset().union(*taking)
            self._served_until = self._monotonic() + 1.0
        return token in self._served

    def newest_version(self, workflow: str, partition: str | None) -> str | None:
        """The version that a new run of the workflow starts on; None if nobody serves it."""
        token = routing_token(workflow, partition)
        serving = (each for each in self.live() if each.takes_work and token in each.groups)
        versions = {version for each in serving for version in each.versions.get(workflow, ())}
        return max(versions, key=version_order, default=None)


def _versions(descriptor: WorkerDescriptor) -> dict[str, set[str]]:
    versions: dict[str, set[str]] = {name: set() for name in descriptor.workflows}
    for each in descriptor.registrations or ():
        if each.name in versions and each.version is not None:
            versions[each.name].add(each.version)
    return {name: found or {LEGACY_VERSION} for name, found in versions.items()}


def _is_number(part: str) -> bool:
    return part.isdecimal() and len(part) < 19


def version_order(version: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts `10` after `9`, `1.10` after `1.9`, and `2` after `2-beta`."""
    parts: Iterable[str] = re.findall(r"\d+|[^\d.]+", version)
    order = [(1, int(part), "") if _is_number(part) else (-1, 0, part) for part in parts]
    return (*order, (0, 0, ""))
