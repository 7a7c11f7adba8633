"""Workers that the operator cannot work with, and what it says about them."""

from collections.abc import Callable
from typing import TypeVar

from durable_worker.errors import ProtocolError
from durable_worker.operator.log import log
from durable_worker.protocol.codec import announcer_of
from durable_worker.protocol.descriptor import LEGACY_PROTOCOL, OUR_PROTOCOL, WorkerDescriptor
from durable_worker.transports.base import Envelope

K = TypeVar("K")
V = TypeVar("V")

TELL_EVERY_SECONDS = 60.0
_REMEMBERED = 1_000
"""Workers and defects that are known to be told; more than that are told again."""


class Strangers:
    """Each worker is named once; `monotonic` tells seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._told_at: dict[str, float] = {}
        self._malformed: dict[tuple[str | None, str], None] = {}

    def met(self, descriptor: WorkerDescriptor) -> bool:
        """Whether a worker is to be told what this operator speaks, because it speaks otherwise.

        True at most once a minute for one worker, since it answers by announcing itself.
        """
        theirs = descriptor.protocol or LEGACY_PROTOCOL
        if OUR_PROTOCOL.overlaps(theirs):
            return False
        name, now = descriptor.instance_id, self._monotonic()
        told_at = self._told_at.get(name)
        if told_at is None:
            _warn_of_ranges(descriptor, theirs.range)
        elif now - told_at < TELL_EVERY_SECONDS:
            return False
        _remember(self._told_at, name, now)
        return True

    def not_understood(self, envelope: Envelope, error: ProtocolError) -> None:
        """Say whose beat or announcement it was and what it lacks, once for each defect."""
        announcer = announcer_of(envelope.body, message_type=envelope.type)
        if (announcer.instance_id, error.reason) in self._malformed:
            return
        _remember(self._malformed, (announcer.instance_id, error.reason), None)
        log.warning(
            "worker_message_malformed",
            worker=announcer.instance_id,
            type=envelope.type,
            missing=announcer.missing,
            reason=error.reason,
            hint="this operator does not know the worker as long as it announces itself like that",
        )


def _remember(memory: dict[K, V], key: K, value: V) -> None:
    memory[key] = value
    if len(memory) > _REMEMBERED:
        del memory[next(iter(memory))]


def _warn_of_ranges(descriptor: WorkerDescriptor, theirs: tuple[int, int]) -> None:
    ours = OUR_PROTOCOL.range
    who = "this operator" if theirs[0] > ours[1] else "the worker"
    log.warning(
        "worker_incompatible",
        worker=descriptor.instance_id,
        sdk=f"{descriptor.sdk.name} {descriptor.sdk.version}",
        worker_range=list(theirs),
        operator_range=list(ours),
        hint=f"it gets no tasks until {who} is updated to a version whose range overlaps",
    )
