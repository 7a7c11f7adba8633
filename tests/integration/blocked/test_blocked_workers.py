"""A worker whose event loop is blocked keeps its connections, and what it holds."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw
from msgspec import json as msgspec_json

from durable_worker.protocol import codec
from durable_worker.protocol.codec import MessageType
from durable_worker.protocol.names import Names, routing_token
from durable_worker.protocol.tasks import StepTask
from durable_worker.transports.base import Delivery, Envelope
from durable_worker.transports.rabbitmq import RabbitTransport
from tests.broker import BrokerNode, new_prefix
from tests.broker.tls import Authority, NodeTls
from tests.conformance.transports.inbox import Inbox

pytestmark = [pytest.mark.anyio, pytest.mark.broker]

ROOT = Path(__file__).parents[3]
BLOCKED = 12.0
"""Seconds. The broker gives a silent connection up after two heartbeats, the client after nine
seconds; so both would have."""
STEADY = 3
PATIENCE = 60.0


@pytest.fixture
def node(tmp_path: Path) -> Iterator[BrokerNode]:
    authority = Authority(tmp_path / "tls")
    with BrokerNode(tls=NodeTls(authority, authority.server())) as node:
        yield node


@dataclass
class Scene:
    """One worker in a process of its own, and everything around it in this one."""

    name: str
    folder: Path
    names: Names
    transport: RabbitTransport
    results: Inbox[Delivery] = field(default_factory=Inbox[Delivery])
    rival: Inbox[Delivery] = field(default_factory=Inbox[Delivery])
    process: subprocess.Popen[bytes] | None = None

    def start(self, url: str, **environment: str) -> None:
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.blocked.serve"],
                cwd=ROOT,
                env={
                    **os.environ,
                    "BLOCKED_BROKER": url,
                    "BLOCKED_PREFIX": self.names.prefix,
                    "BLOCKED_JOURNAL": str(self.journal_file),
                    **environment,
                },
                stdout=log,
                stderr=log,
            )

    @property
    def log_file(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def journal_file(self) -> Path:
        return self.folder / f"{self.name}.journal"

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log_file.read_text().splitlines()]
        return [line for line in lines if line["event"] == event]

    def journal(self) -> list[tuple[str, str]]:
        if not self.journal_file.exists():
            return []
        entries = [json.loads(line) for line in self.journal_file.read_text().splitlines()]
        return [(entry["what"], entry["id"]) for entry in entries]

    async def give(self, step: str, seconds: float, *, run_id: str) -> None:
        token = routing_token(step)
        task = StepTask(
            run_id=run_id,
            seq=0,
            name=step,
            step_id=f"{run_id}:0",
            group=token,
            input=Raw(msgspec_json.encode(seconds)),
            attempt=1,
        )
        envelope = Envelope(
            MessageType.STEP_TASK, codec.encode(task), message_id=f"{task.step_id}:1"
        )
        await self.transport.send(self.names.tasks(token), envelope)

    async def give_steady_ones(self) -> None:
        """Wait until they run, then take whatever comes back to their queue."""
        for n in range(STEADY):
            await self.give("steady", BLOCKED + 1, run_id=f"steady-{n}")
        await until(lambda: len(self.journal()) == STEADY)

    async def watch(self) -> None:
        """From now on whatever goes back to a queue comes to us."""
        queues = [self.names.tasks(token) for token in ("steady", "charge")]
        await self.transport.consume(queues, self.rival, prefetch=50)

    async def block(self) -> None:
        await self.give("charge", BLOCKED, run_id="charge")
        await until(lambda: ("start", "charge:0") in self.journal())
        await self.watch()

    async def freed(self) -> dict[str, Any]:
        await until(lambda: self.logged("event_loop_free"))
        return self.logged("event_loop_free")[0]

    async def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(self.process.wait, 40) == 0


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - another process does it
            await asyncio.sleep(0.05)


@pytest.fixture
async def scenes(node: BrokerNode, tmp_path: Path) -> AsyncIterator[dict[str, Scene]]:
    async with AsyncExitStack() as stack:
        found: dict[str, Scene] = {}
        for name in ("plain", "tls", "without", "stopped"):
            names = Names(prefix=new_prefix())
            transport = await stack.enter_async_context(RabbitTransport(node.url(), names=names))
            scene = found[name] = Scene(name, tmp_path, names, transport)
            await transport.consume([names.results], scene.results, prefetch=50)
            await transport.declare([names.tasks("steady"), names.tasks("charge")])
        yield found
        for scene in found.values():
            if scene.process is not None:
                scene.process.kill()
                scene.process.wait()


async def test_a_blocked_worker_keeps_its_connections_and_what_it_holds_and_a_stopped_one_does_not(
    scenes: dict[str, Scene], node: BrokerNode, tmp_path: Path
) -> None:
    plain, tls = scenes["plain"], scenes["tls"]
    without, stopped = scenes["without"], scenes["stopped"]
    plain.start(node.url())
    tls.start(node.tls_url(), SSL_CERT_FILE=str(tmp_path / "tls" / "ca.pem"))
    without.start(node.url(), BLOCKED_WITHOUT_PULSE="1")
    stopped.start(node.url())
    await asyncio.gather(*(scene.give_steady_ones() for scene in scenes.values()))
    await asyncio.gather(plain.block(), tls.block(), without.block(), stopped.watch())
    assert stopped.process is not None
    stopped.process.send_signal(signal.SIGSTOP)

    # What a stopped process held goes to somebody else, and so did what a blocked one held.
    for scene in (stopped, without):
        for delivery in await scene.rival.take(STEADY, within=BLOCKED):
            assert delivery.delivery_count == 1
            await delivery.ack()
    stopped.process.send_signal(signal.SIGCONT)

    for scene in (plain, tls):
        results = [
            codec.STEP_RESULT.decode(each.envelope.body)
            for each in await scene.results.take(STEADY + 1, within=PATIENCE)
        ]
        ids = ["charge:0", *(f"steady-{n}:0" for n in range(STEADY))]
        assert sorted(result.step_id for result in results) == ids
        assert sorted(scene.journal()) == [("end", each) for each in ids] + [
            ("start", each) for each in ids
        ]
        assert not len(scene.rival)
        (blocked,) = scene.logged("event_loop_blocked")
        assert (blocked["step"], blocked["run_id"]) == ("charge", "charge")
        assert "app.py" in blocked["at"]
        assert "time.sleep(seconds)" in blocked["at"]
        assert (await scene.freed())["seconds"] > BLOCKED - 2
        await scene.stop()
        assert [line["generation"] for line in scene.logged("connected")] == [1]
        assert not scene.logged("disconnected")
        assert not scene.logged("consumer_lost")
        assert not len(scene.rival)
        assert not len(scene.results)

    await until(lambda: without.logged("disconnected"))
    await until(lambda: stopped.logged("disconnected"))
    assert not stopped.logged("event_loop_blocked")
