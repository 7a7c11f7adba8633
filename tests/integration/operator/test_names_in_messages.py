"""Names in messages are looked up in what was registered, and reach no import."""

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import anyio
import pytest

from durable_worker import Worker, WorkflowContext
from durable_worker.client import broker_client
from durable_worker.operator.service import OperatorService
from durable_worker.protocol.codec import MessageType
from durable_worker.protocol.names import Names
from durable_worker.stores.sqlite import SqliteStore
from durable_worker.transports.base import Envelope
from durable_worker.transports.memory import MemoryTransport
from durable_worker.worker.service import WorkerService
from tests.conformance.protocol.corpus import every_fixture, to_bytes
from tests.integration.operator.waiting import eventually

pytestmark = pytest.mark.anyio

MODULE = "canary_in_a_message"
NAMES = (f"{MODULE}:worker", f"{MODULE}.py:worker", MODULE)

QUEUES = {
    MessageType.STEP_RESULT: "results",
    MessageType.WORKFLOW_DECISION: "decisions",
    MessageType.STEP_EVENT: "step_events",
    MessageType.START_RUN: "start_run",
    MessageType.RUN_REQUEST: "run_request",
}
EXCHANGES = {
    MessageType.CONTROL: "control",
    MessageType.HEARTBEAT: "heartbeat",
    MessageType.RUN_REPLY: "run_reply",
    MessageType.TENANT_EVENT: "tenant_events",
    MessageType.WORKER_BEAT: "workers",
    MessageType.WORKER_DESCRIPTOR: "workers",
    MessageType.WHO: "workers",
}


class Imports:
    """Sees the name of whatever is imported and was not imported before; finds nothing itself."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        self.names.append(name)
        return None


@pytest.fixture
def imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Imports]:
    (tmp_path / f"{MODULE}.py").write_text("raise SystemExit('a message was imported')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    imports = Imports()
    monkeypatch.setattr(sys, "meta_path", [imports, *sys.meta_path])
    yield imports
    assert MODULE not in sys.modules


def spoiled(value: Any, name: str) -> Iterator[Any]:
    """The value with one text after the other replaced by a name of a module, and all at once."""
    match value:
        case str():
            yield name
        case list():
            for index, each in enumerate(value):
                for other in spoiled(each, name):
                    yield [*value[:index], other, *value[index + 1 :]]
        case dict():
            for key, each in value.items():
                for other in spoiled(each, name):
                    yield {**value, key: other}
            yield {**value, "__class__": name, "__reduce__": [name, []], "py/object": name}
        case _:
            return


async def test_no_name_in_any_message_is_imported(tmp_path: Path, imports: Imports) -> None:
    worker = Worker()

    @worker.step("greet")
    async def greet(value: Any) -> Any:
        return value

    @worker.workflow("greeting")
    async def greeting(ctx: WorkflowContext, value: Any) -> Any:
        return await ctx.step(greet, value)

    names = Names()
    sent = 0
    async with (
        SqliteStore(tmp_path / "db") as store,
        MemoryTransport(names=names) as transport,
        anyio.create_task_group() as group,
    ):
        operator = OperatorService(store, transport, names=names)
        service = WorkerService(worker, transport, names=names)
        group.start_soon(operator.serve)
        group.start_soon(service.serve)
        client = broker_client(transport, names=names)
        async with client:
            assert await (await client.start("greeting", NAMES)).result() == list(NAMES)
            for message, path in every_fixture("valid"):
                for name in NAMES:
                    for value in spoiled(json.loads(path.read_bytes()), name):
                        await send(transport, names, MessageType(message), to_bytes(value), name)
                        sent += 1
            await all_dealt_with(transport, names)
            handle = await client.start("greeting", {"__class__": NAMES[0]})
            assert await handle.result() == {"__class__": NAMES[0]}
        service.request_stop()
        operator.request_stop()
    assert sent > 1_000
    assert not [each for each in imports.names if MODULE in each]


async def send(
    transport: MemoryTransport, names: Names, kind: MessageType, body: bytes, name: str
) -> None:
    headers = {name: name, "durable-error": name}
    envelope = Envelope(kind, body, message_id=name, headers=headers)
    if kind in EXCHANGES:
        await transport.broadcast(getattr(names, EXCHANGES[kind]), envelope, topic="default")
        return
    tasks = [names.tasks("greet"), names.tasks("greeting")]
    queues = [getattr(names, QUEUES[kind])] if kind in QUEUES else tasks
    for queue in (*queues, names.dead):
        await transport.send(queue, envelope)
    await transport.send(queues[0], Envelope(name, body, message_id=name))


async def all_dealt_with(transport: MemoryTransport, names: Names) -> None:
    queues = [names.tasks("greet"), names.tasks("greeting"), names.dead]
    queues += [getattr(names, each) for each in QUEUES.values()]

    def is_quiet() -> bool:
        return not any(transport.depth(each) for each in queues)

    await eventually(is_quiet, within=60)


def test_an_import_would_be_seen(imports: Imports) -> None:
    with pytest.raises(SystemExit):
        import_module(MODULE)
    assert MODULE in imports.names
