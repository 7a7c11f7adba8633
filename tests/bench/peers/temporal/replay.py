"""CPU microseconds per step of Temporal's `Replayer`, over a history of sequential activities that
is made here. Without its sandbox, which would cost more."""

import asyncio
import json
import os
import sys
import time
from datetime import timedelta

from temporalio import workflow
from temporalio.api.common.v1 import ActivityType, Payload, Payloads, WorkflowType
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner

outputs: list[int] = []


@workflow.defn(name="sequence")
class Sequence:
    @workflow.run
    async def run(self, steps: int) -> int:
        total = 0
        for number in range(steps):
            total += await workflow.execute_activity(
                "step", number, result_type=int, start_to_close_timeout=timedelta(minutes=1)
            )
        outputs.append(total)
        return total


def payloads(value: int) -> Payloads:
    return Payloads(
        payloads=[Payload(metadata={"encoding": b"json/plain"}, data=json.dumps(value).encode())]
    )


class Recording:
    """Events as a server would have recorded them."""

    def __init__(self, steps: int) -> None:
        self.events: list[HistoryEvent] = []
        started = self.add(EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED)
        attributes = started.workflow_execution_started_event_attributes
        attributes.workflow_type.CopyFrom(WorkflowType(name="sequence"))
        attributes.task_queue.CopyFrom(TaskQueue(name="bench"))
        attributes.input.CopyFrom(payloads(steps))
        attributes.original_execution_run_id = "00000000-0000-0000-0000-000000000001"
        attributes.first_execution_run_id = attributes.original_execution_run_id
        attributes.attempt = 1
        turn = self.add_turn()
        for number in range(steps):
            self.add_activity(number, turn)
            turn = self.add_turn()
        completed = self.add(EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED)
        end = completed.workflow_execution_completed_event_attributes
        end.result.CopyFrom(payloads(sum(range(steps))))
        end.workflow_task_completed_event_id = turn

    def add(self, event_type: "EventType.ValueType") -> HistoryEvent:
        event = HistoryEvent(event_id=len(self.events) + 1, event_type=event_type)
        event.event_time.FromMilliseconds(1_750_000_000_000 + len(self.events))
        self.events.append(event)
        return event

    def add_turn(self) -> int:
        """The id of the event that ends it."""
        scheduled = self.add(EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED)
        scheduled.workflow_task_scheduled_event_attributes.task_queue.name = "bench"
        scheduled.workflow_task_scheduled_event_attributes.attempt = 1
        started = self.add(EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED)
        started.workflow_task_started_event_attributes.scheduled_event_id = scheduled.event_id
        completed = self.add(EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED)
        end = completed.workflow_task_completed_event_attributes
        end.scheduled_event_id, end.started_event_id = scheduled.event_id, started.event_id
        return completed.event_id

    def add_activity(self, number: int, turn: int) -> None:
        scheduled = self.add(EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED)
        attributes = scheduled.activity_task_scheduled_event_attributes
        attributes.activity_id = str(number + 1)
        attributes.activity_type.CopyFrom(ActivityType(name="step"))
        attributes.task_queue.name = "bench"
        attributes.input.CopyFrom(payloads(number))
        attributes.workflow_task_completed_event_id = turn
        started = self.add(EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED)
        begin = started.activity_task_started_event_attributes
        begin.scheduled_event_id, begin.attempt = scheduled.event_id, 1
        completed = self.add(EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED)
        end = completed.activity_task_completed_event_attributes
        end.scheduled_event_id, end.started_event_id = scheduled.event_id, started.event_id
        end.result.CopyFrom(payloads(number))


async def main(steps: int, rounds: int) -> None:
    replayer = Replayer(workflows=[Sequence], workflow_runner=UnsandboxedWorkflowRunner())
    await replayer.replay_workflow(WorkflowHistory("warm", Recording(10).events))
    outputs.clear()
    samples: list[float] = []
    for number in range(rounds):
        history = WorkflowHistory(f"run-{number}", Recording(steps).events)
        cpu = time.process_time()
        await replayer.replay_workflow(history)
        samples.append(1e6 * (time.process_time() - cpu) / steps)
    assert outputs == [sum(range(steps))] * rounds, f"the replays gave {outputs}"
    print(json.dumps(samples), flush=True)
    os._exit(0)  # its runtime has threads that may not survive the end of the interpreter


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
