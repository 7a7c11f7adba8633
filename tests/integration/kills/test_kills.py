"""SIGKILL at every kind of moment, over and over: nothing lost, nothing done twice."""

import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import aio_pika
import anyio
import pytest

from durable_worker.client.broker import BrokerPort
from durable_worker.client.client import Client
from durable_worker.protocol.names import Names
from durable_worker.protocol.runs import RunStatus
from durable_worker.stores.address import PostgresAddress
from durable_worker.transports.rabbitmq import RabbitTransport
from tests.integration.kills import app

pytestmark = [pytest.mark.anyio, pytest.mark.broker]

KILLS = 20
MOST_RUNS = 40
"""Under way at one time: a slow machine is not to be buried under what it cannot get done."""

ROOT = Path(__file__).parents[3]


@dataclass
class Cast:
    """The processes of one test; whoever dies by its kill point is replaced by a mortal again."""

    environment: dict[str, str]
    mortal: str
    point: str
    chance: Random
    running: list[tuple[str, subprocess.Popen[bytes]]] = field(default_factory=list)
    killed: set[int] = field(default_factory=set[int])

    @property
    def kills(self) -> int:
        return len(self.killed)

    def start(self, role: str) -> None:
        environment = dict(self.environment)
        if role == self.mortal and self.kills < KILLS:
            environment |= {"KILL_POINT": self.point, "KILL_AT": str(self.chance.randint(1, 12))}
        log = Path(self.environment["KILL_LOG"]).open("ab")  # noqa: SIM115 - closed below
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.kills.processes", role],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
        )
        log.close()
        self.running.append((role, process))

    def replace_the_dead(self) -> None:
        for role, process in list(self.running):
            code = process.poll()
            if code is None:
                continue
            self.running.remove((role, process))
            assert code == -signal.SIGKILL, Path(self.environment["KILL_LOG"]).read_text()[-4000:]
            self.killed.add(process.pid)
            self.start(role)

    def end(self) -> None:
        for _, process in self.running:
            process.kill()
            process.wait()


async def messages_left(url: str, names: Names) -> dict[str, int]:
    queues = [names.results, names.decisions, names.start_run, names.run_request, names.dead]
    queues += [names.tasks(token) for token in ("kills.work", "kills.child", "kills.flow")]
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        found = {
            queue: (await channel.declare_queue(queue, passive=True)).declaration_result
            for queue in queues
        }
    return {queue: state.message_count or 0 for queue, state in found.items()}


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "operator.db")
    schema: PostgresAddress = request.getfixturevalue("schema")
    return schema.url


@pytest.mark.parametrize(
    ("mortal", "point", "database", "operators"),
    [
        ("worker", "step", "sqlite", 1),
        ("worker", "turn", "sqlite", 1),
        ("worker", "before-send", "sqlite", 1),
        ("worker", "before-ack", "sqlite", 1),
        ("operator", "before-send", "sqlite", 1),
        ("operator", "after-send", "sqlite", 1),
        ("operator", "before-ack", "sqlite", 1),
        ("operator", "before-send", "postgres", 1),
        ("operator", "before-ack", "postgres", 1),
        ("operator", "before-send", "postgres", 3),
        ("operator", "after-send", "postgres", 3),
        ("operator", "before-ack", "postgres", 3),
    ],
    indirect=["database"],
)
async def test_every_run_completes_and_no_completed_step_runs_again(
    mortal: str,
    point: str,
    *,
    database: str,
    operators: int,
    broker_url: str,
    prefix: str,
    tmp_path: Path,
) -> None:
    seed = int(os.environ.get("KILL_SEED", "0")) or Random().randrange(1, 2**31)
    print(f"KILL_SEED={seed}")
    names = Names(prefix=prefix)
    cast = Cast(
        {
            "KILL_BROKER": broker_url,
            "KILL_PREFIX": prefix,
            "KILL_DATABASE": database,
            "KILL_JOURNAL": str(tmp_path / "journal"),
            "KILL_LOG": str(tmp_path / "log"),
        },
        mortal,
        point,
        Random(seed),
    )
    try:
        for role in (*["operator"] * operators, "worker", "worker"):
            cast.start(role)
        outputs = await drive(cast, broker_url, names)
        assert [output for output in outputs if output != app.EXPECTED] == []
        with anyio.move_on_after(15):
            while any((await messages_left(broker_url, names)).values()):  # noqa: ASYNC110
                await anyio.sleep(0.2)
        # The broker counts what is ready; what a process still holds comes back when it is gone.
        cast.end()
        for _ in range(5):
            left = await messages_left(broker_url, names)
            assert left == dict.fromkeys(left, 0)
            await anyio.sleep(0.2)
    finally:
        cast.end()
    assert cast.kills >= KILLS
    check_journal(tmp_path / "journal", killed=cast.killed)


async def drive(cast: Cast, url: str, names: Names) -> list[object]:
    """Keep starting runs until enough processes have died, and see all of them through."""
    port = BrokerPort(RabbitTransport(url, names=names), names=names)
    async with Client(port) as client, anyio.create_task_group() as watching:

        async def watch() -> None:
            while True:
                cast.replace_the_dead()
                await anyio.sleep(0.02)

        watching.start_soon(watch)
        outputs: list[object] = []
        under_way = anyio.CapacityLimiter(MOST_RUNS)

        async def see_through(run_id: str) -> None:
            async with under_way:
                await client.start("kills.flow", run_id, run_id=run_id)
                run = await client.wait(run_id)
            assert run.status is RunStatus.COMPLETED, (run.status, run.error)
            outputs.append(json.loads(bytes(run.output)))  # type: ignore[arg-type]

        started = 0
        with anyio.fail_after(240):
            async with anyio.create_task_group() as runs:
                while cast.kills < KILLS:
                    for _ in range(3):
                        runs.start_soon(see_through, f"r{started}")
                        started += 1
                    await anyio.sleep(0.3)
                    while under_way.statistics().tasks_waiting:  # noqa: ASYNC110
                        await anyio.sleep(0.05)
        watching.cancel_scope.cancel()
    return outputs


def check_journal(path: Path, *, killed: set[int]) -> None:
    """No completed step runs again, and what ran again was cut off by a kill.

    A step is completed once the broker has confirmed its result. Between its effect and that
    confirm a kill makes it run again: nobody can tell that from never having run it.
    """
    attempts: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        attempts[entry["attempt"]].append((entry["what"], entry["pid"]))
    for attempt, entries in attempts.items():
        what = [each for each, _ in entries]
        assert "end" in what, (attempt, entries)
        if "confirmed" in what:
            assert "start" not in what[what.index("confirmed") :], (attempt, entries)
        starters = [pid for each, pid in entries if each == "start"]
        assert all(pid in killed for pid in starters[:-1]), (attempt, entries)
