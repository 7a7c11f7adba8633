"""This worker, and the least that any program can do with the same messages."""

import sys

import msgspec
from pamqp.commands import Basic

from durable_worker.protocol import codec
from durable_worker.protocol.names import Names, step_id
from durable_worker.protocol.results import ResultStatus, StepResult
from durable_worker.protocol.tasks import StepTask
from durable_worker.transports.rabbitmq.topology import queue_arguments
from tests.bench.figures import WrongResultError
from tests.bench.worker.contender import PERSISTENT, TEXT, Contender, Message
from tests.broker import new_prefix

STEP = "noop"
HEADERS = {"durable-protocol": 1}


def ours(url: str, *, concurrency: int) -> Contender:
    names = Names(prefix=new_prefix())
    command = [sys.executable, "-m", "durable_worker", "run", "tests.bench.worker.app:worker"]
    options = ["--broker", url, "--prefix", names.prefix, "--concurrency", str(concurrency)]
    return _contender("ours", [*command, *options], names)


def raw(url: str, *, concurrency: int) -> Contender:
    names = Names(prefix=new_prefix())
    command = [sys.executable, "-m", "tests.bench.worker.bare_loop"]
    options = [url, names.tasks(STEP), names.results, str(concurrency)]
    return _contender("bare loop", [*command, *options], names)


def _contender(name: str, command: list[str], names: Names) -> Contender:
    tasks = names.tasks(STEP)
    arguments = queue_arguments(tasks, names)
    return Contender(name, command, tasks, names.results, step_task, number_of, arguments)


def step_task(number: int) -> Message:
    run_id = f"run-{number}"
    task = StepTask(
        run_id=run_id,
        seq=0,
        name=STEP,
        step_id=step_id(run_id, 0),
        group=STEP,
        input=msgspec.Raw(msgspec.json.encode({"number": number, "text": TEXT})),
        attempt=1,
    )
    properties = Basic.Properties(
        content_type="application/json",
        message_type="step-task",
        message_id=f"{task.step_id}:1",
        delivery_mode=PERSISTENT,
        headers=dict(HEADERS),
    )
    return properties, codec.encode(task)


def number_of(properties: Basic.Properties, body: bytes) -> int:
    result = msgspec.json.decode(body, type=StepResult)
    number = int(result.run_id.removeprefix("run-"))
    expected = (ResultStatus.COMPLETED, str(number).encode(), f"{result.step_id}:1")
    found = (result.status, bytes(result.output or b""), properties.message_id)
    if found != expected:
        raise WrongResultError(f"step {number} was answered by {body!r}")
    return number
