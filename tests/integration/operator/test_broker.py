"""The operator on RabbitMQ, its process killed while it works."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from durable_worker.protocol.codec import MessageType, encode
from durable_worker.protocol.names import Names
from durable_worker.protocol.payload import plain_json
from durable_worker.protocol.results import StepResult
from durable_worker.protocol.runs import RunStatus, StartRun
from durable_worker.protocol.tasks import StepTask
from durable_worker.stores.sqlite import SqliteStore
from durable_worker.transports.base import Envelope
from durable_worker.transports.rabbitmq import RabbitTransport
from tests.integration.operator.scripted import (
    ScriptedWorker,
    answer,
    json,
    operating,
    sequence,
)
from tests.integration.operator.waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.broker]

_OPERATOR = """
import asyncio, sys
from datetime import timedelta
from durable_worker.operator.options import OperatorOptions
from durable_worker.operator.service import OperatorService
from durable_worker.protocol.names import Names
from durable_worker.stores.sqlite import SqliteStore
from durable_worker.transports.rabbitmq import RabbitTransport

async def main(path, url, prefix):
    names = Names(prefix)
    options = OperatorOptions(resend_delay=timedelta(milliseconds=100))
    async with SqliteStore(path) as store, RabbitTransport(url, names=names) as transport:
        await OperatorService(store, transport, names=names, options=options).serve()

asyncio.run(main(*sys.argv[1:]))
"""


@asynccontextmanager
async def operator_process(path: Path, url: str, prefix: str) -> AsyncIterator[int]:
    """An operator in a process of its own, killed with SIGKILL at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _OPERATOR, str(path), url, prefix, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        yield process.pid
    finally:
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()


def echo(task: StepTask) -> StepResult:
    return answer(task, plain_json(task.input))


async def test_a_run_completes_over_rabbitmq(broker_url: str, prefix: str, tmp_path: Path) -> None:
    names = Names(prefix)
    async with RabbitTransport(broker_url, names=names) as transport:
        worker = ScriptedWorker(transport, names, {"seq": sequence(*["echo"] * 5)}, {"echo": echo})
        async with (
            SqliteStore(tmp_path / "db") as store,
            operating(store, transport, names) as operator,
            worker.serving(),
        ):
            ids = await asyncio.gather(*(operator.start("seq", json(n)) for n in range(20)))
            runs = await asyncio.gather(*(operator.wait(run_id) for run_id in ids))
            assert {run.status for run in runs} == {RunStatus.COMPLETED}
            assert await store.dead_letters(limit=9) == []


@pytest.mark.parametrize("kills", [3])
async def test_an_operator_that_is_killed_again_and_again_loses_nothing(
    broker_url: str, prefix: str, tmp_path: Path, kills: int
) -> None:
    names = Names(prefix)
    path = tmp_path / "db"
    run_ids = [f"run-{n}" for n in range(10)]
    async with RabbitTransport(broker_url, names=names) as transport:
        worker = ScriptedWorker(transport, names, {"seq": sequence(*["echo"] * 8)}, {"echo": echo})
        async with worker.serving(), SqliteStore(path) as store:
            await transport.declare([names.start_run])
            for run_id in run_ids:
                message = StartRun(tenant="", workflow="seq", run_id=run_id)
                await transport.send(
                    names.start_run,
                    Envelope(MessageType.START_RUN, encode(message), message_id=run_id),
                )
            for kill in range(kills):
                async with operator_process(path, broker_url, prefix):
                    await eventually(
                        lambda done=20 * (kill + 1): len(worker.tasks) >= done, within=30
                    )
            async with operator_process(path, broker_url, prefix):

                async def are_done() -> bool:
                    states = await store.load_many(run_ids)
                    return len(states) == len(run_ids) and all(
                        state.run.status is RunStatus.COMPLETED for state in states.values()
                    )

                await eventually(are_done, within=60)
            for state in (await store.load_many(run_ids)).values():
                assert plain_json(state.run.output) == list(range(8))
