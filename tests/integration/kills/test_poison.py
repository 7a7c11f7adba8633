"""A step that kills its process is given up; what lay beside it comes to its end."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import anyio
import pytest

from durable_worker.client.broker import BrokerPort
from durable_worker.client.client import Client
from durable_worker.operator.service import OperatorService
from durable_worker.protocol.names import Names
from durable_worker.stores.sqlite.store import SqliteStore
from durable_worker.transports.rabbitmq import RabbitTransport

pytestmark = [pytest.mark.anyio, pytest.mark.broker]

NEIGHBOURS = 5
ROOT = Path(__file__).parents[3]


def start_lives(broker_url: str, prefix: str, journal: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.integration.kills.poison"],
        cwd=ROOT,
        env={
            **os.environ,
            "KILL_BROKER": broker_url,
            "KILL_PREFIX": prefix,
            "KILL_JOURNAL": str(journal),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


async def test_the_neighbours_of_a_step_that_kills_complete_and_it_fails_as_poison(
    broker_url: str, prefix: str, tmp_path: Path
) -> None:
    names = Names(prefix=prefix)
    journal = tmp_path / "journal"
    lives = start_lives(broker_url, prefix, journal)
    try:
        async with (
            SqliteStore(tmp_path / "operator.db") as store,
            RabbitTransport(broker_url, names=names) as transport,
            anyio.create_task_group() as group,
        ):
            operator = OperatorService(store, transport, names=names)
            group.start_soon(operator.serve)
            port = BrokerPort(RabbitTransport(broker_url, names=names), names=names)
            async with Client(port) as client:
                run_id = "poisoned"
                await client.start("poison.flow", NEIGHBOURS, run_id=run_id)
                with anyio.fail_after(240):
                    run = await client.wait(run_id)
            operator.request_stop()
    finally:
        os.killpg(lives.pid, 9)
        lives.wait()
    assert json.loads(bytes(run.output)) == ["poison", *range(NEIGHBOURS)], run.error
    ended = Counter(
        step for what, step in map(json.loads, journal.read_text().splitlines()) if what == "end"
    )
    assert ended == {f"{run_id}:{seq}": 1 for seq in range(1, NEIGHBOURS + 1)}
