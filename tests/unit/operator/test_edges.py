"""The operator's small pure parts: versions, message ids, messages."""

import msgspec
import pytest
from msgspec import Raw

from durable_worker.operator.ledgers import Ledger
from durable_worker.operator.messages import CAPABILITIES, message_for, step_row, turn_row
from durable_worker.operator.registry import GONE_AFTER, Registry, version_order
from durable_worker.protocol.codec import STEP_TASK, WORKFLOW_TASK
from durable_worker.protocol.descriptor import (
    Lifecycle,
    ProtocolRange,
    Registration,
    Runtime,
    Sdk,
    WorkerAnnouncement,
    WorkerBeat,
    WorkerDescriptor,
)
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.names import Names, attempt_in
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind, StepTask, WorkflowTask
from durable_worker.stores.records import Checkpoint, CheckpointStatus, Run, RunState

RUN = Run(
    id="r",
    workflow="a:b",
    version="2",
    namespace="default",
    partition="eu",
    status=RunStatus.RUNNING,
    input=Raw(b'{"history":[]}'),
    created_at=1,
    updated_at=1,
    task_id="r#3",
    recoveries=1,
)


def checkpoint(seq: int, kind: HistoryKind, status: CheckpointStatus) -> Checkpoint:
    error = Failure(message="no") if status is CheckpointStatus.FAILED else None
    name = {HistoryKind.TIMER: f"sleep:{seq}"}.get(kind, "x:y")
    return Checkpoint(
        run_id="r",
        seq=seq,
        kind=kind,
        name=name,
        status=status,
        error=error,
        attempt=4,
        input=Raw(b"[1]"),
        enqueued_at=1,
    )


def test_a_turn_carries_the_resolved_history_in_order_of_seq() -> None:
    done, failed, out = (
        CheckpointStatus.COMPLETED,
        CheckpointStatus.FAILED,
        CheckpointStatus.PENDING,
    )
    ledger = Ledger(RunState(RUN, [checkpoint(3, HistoryKind.CHILD, failed)]))
    ledger.absorb(
        None,
        [
            checkpoint(2, HistoryKind.TIMER, done),
            checkpoint(0, HistoryKind.CALL, failed),
            checkpoint(1, HistoryKind.SIGNAL, done),
            checkpoint(4, HistoryKind.CALL, out),
            checkpoint(5, HistoryKind.TIMER, CheckpointStatus.CANCELLED),
        ],
    )
    sent = message_for(ledger, turn_row("r", "r#3"), names=Names("p"))
    assert (sent.queue, sent.envelope.message_id) == ("p-tasks-a-b@eu", "r#3")
    no = Failure(message="no")
    assert WORKFLOW_TASK.decode(sent.envelope.body) == WorkflowTask(
        task_id="r#3",
        run_id="r",
        workflow="a:b",
        workflow_version="2",
        input=Raw(b'{"history":[]}'),
        history=[
            HistoryEvent(seq=0, kind=HistoryKind.CALL, name="x:y", error=no),
            HistoryEvent(seq=1, kind=HistoryKind.SIGNAL),
            HistoryEvent(seq=2, kind=HistoryKind.TIMER, name="sleep:2"),
            HistoryEvent(seq=3, kind=HistoryKind.CHILD, error=no),
        ],
        group="a-b@eu",
        attempt=2,
        capabilities=CAPABILITIES,
    )


def test_a_step_task_names_its_attempt() -> None:
    ledger = Ledger(RunState(RUN, [checkpoint(0, HistoryKind.CALL, CheckpointStatus.PENDING)]))
    sent = message_for(ledger, step_row("r", 0, 4), names=Names("p"))
    assert (sent.queue, sent.envelope.message_id) == ("p-tasks-x-y", "r:0:4")
    assert STEP_TASK.decode(sent.envelope.body) == StepTask(
        run_id="r",
        seq=0,
        name="x:y",
        step_id="r:0",
        group="x-y",
        input=Raw(b"[1]"),
        attempt=4,
    )


@pytest.mark.parametrize(
    ("message_id", "attempt"),
    [("r:0:2", 2), ("r:0", None), ("r:1:2", None), ("r:0:x", None), ("r:0:²", None), (None, None)],
)
def test_the_attempt_is_read_from_the_message_id(message_id: str, attempt: int | None) -> None:
    assert attempt_in(message_id, step="r:0") == attempt


def test_versions_sort_by_their_numbers() -> None:
    ordered = ["1", "1.9", "1.10", "2-beta", "2", "2.0.1", "10"]
    shuffled = ["2", "10", "1.10", "2.0.1", "1", "2-beta", "1.9"]
    assert sorted(shuffled, key=version_order) == ordered


class Time:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def announcement(
    instance_id: str, *versions: str, protocol: ProtocolRange | None = None
) -> WorkerAnnouncement:
    registrations = [Registration(name="w", version=each) for each in versions]
    descriptor = WorkerDescriptor(
        instance_id=instance_id,
        runtime=Runtime.NODE,
        sdk=Sdk(name="s", version="1"),
        protocol=protocol,
        workflows=["w"],
        steps=["s"],
        registrations=registrations or None,
        started_at=0,
    )
    return WorkerAnnouncement(groups=["w", "s"], descriptor=descriptor)


def beat(instance_id: str, lifecycle: Lifecycle = Lifecycle.UP) -> WorkerBeat:
    return WorkerBeat(instance_id=instance_id, groups=["w", "s"], ts=0, lifecycle=lifecycle)


def test_the_newest_announced_version_is_chosen_and_a_legacy_worker_has_version_1() -> None:
    registry = Registry(Time())
    assert registry.newest_version("w", None) is None
    assert registry.on_announcement(announcement("old")) == ["w"]
    assert registry.newest_version("w", None) == "1"
    registry.on_announcement(announcement("new", "9", "10"))
    assert registry.newest_version("w", None) == "10"
    assert registry.newest_version("w", "eu") is None


def test_a_worker_is_gone_after_its_last_beat_is_old_or_when_it_stops() -> None:
    time = Time()
    registry = Registry(time)
    registry.on_announcement(announcement("a", "1"))
    registry.on_announcement(announcement("b", "2"))
    time.seconds = GONE_AFTER.total_seconds()
    registry.on_beat(beat("a"))
    time.seconds += 1
    assert [each.instance_id for each in registry.live()] == ["a"]
    assert registry.serves("s")
    registry.on_beat(beat("a", Lifecycle.STOPPED))
    assert registry.live() == []
    assert not registry.serves("s")


def test_a_beat_of_an_unknown_worker_asks_who_it_is() -> None:
    registry = Registry(Time())
    assert not registry.on_beat(beat("a"))
    registry.on_announcement(announcement("a"))
    assert registry.on_beat(beat("a"))
    first = msgspec.structs.replace(beat("a"), descriptor_hash="0" * 16)
    assert registry.on_beat(first)
    assert not registry.on_beat(msgspec.structs.replace(first, descriptor_hash="1" * 16))


def test_workers_that_drain_or_speak_another_protocol_get_nothing_new() -> None:
    registry = Registry(Time())
    newer = ProtocolRange(version=3, range=(2, 3))
    registry.on_announcement(announcement("a", "5", protocol=newer))
    registry.on_announcement(announcement("b", "4"))
    registry.on_beat(beat("b", Lifecycle.DRAINING))
    assert registry.newest_version("w", None) is None
    assert not registry.serves("w")
