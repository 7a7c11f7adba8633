"""`python -m durable_worker.cli.shadow TARGET`: replays turns for the process that started it.

Nothing that the user's module does may reach the terminal or the frames: it gets neither standard
input nor output. The process ends as soon as its input does, whatever runs in it.
"""

import os
import sys
from queue import SimpleQueue
from threading import Thread

import msgspec

from durable_worker.cli.targets import load_worker
from durable_worker.errors import DurableError
from durable_worker.protocol.tasks import WorkflowTask
from durable_worker.replay.context import WorkflowContext
from durable_worker.replay.turn import Replay
from durable_worker.worker.determinism.other_clock import shift_clock
from durable_worker.worker.determinism.rehearsal import Conditions, Turn, rehearse
from durable_worker.worker.determinism.shadow import LENGTH, Ready, frame
from durable_worker.worker.registry import Worker


def main() -> None:
    reading, writing = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    requests: SimpleQueue[bytes] = SimpleQueue()
    Thread(target=_read, args=(reading, requests), daemon=True).start()
    shift_clock()
    try:
        worker = load_worker(sys.argv[1])
    except DurableError as error:
        _write(writing, frame(Ready(str(error))))
        return
    _write(writing, frame(Ready()))
    while True:
        conditions = msgspec.json.decode(requests.get(), type=Conditions)
        _write(writing, frame(_answer(worker, conditions)))


def _answer(worker: Worker, conditions: Conditions) -> Turn:
    def context(replay: Replay, task: WorkflowTask) -> WorkflowContext:
        return worker.new_context(replay, task, partition=conditions.partition)

    task = conditions.task
    definition = worker.workflows.get((task.workflow, task.workflow_version))
    if definition is None:
        return Turn({}, "is not registered when the module is imported again")
    return rehearse(definition, context, conditions)


def _read(descriptor: int, requests: "SimpleQueue[bytes]") -> None:
    with open(descriptor, "rb") as stream:
        while head := stream.read(LENGTH):
            requests.put(stream.read(int.from_bytes(head, "big")))
    os._exit(0)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


if __name__ == "__main__":
    main()
