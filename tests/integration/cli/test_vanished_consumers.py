"""Processes whose consumers vanish notice it, say so, and take what comes afterwards."""

import asyncio
import signal
import struct
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel

from durable_worker.protocol.names import Names
from tests.integration.cli.programs import APP, Program, Serving
from tests.integration.rabbitmq.proxy import Proxy

pytestmark = [pytest.mark.anyio, pytest.mark.broker]

NOTICED_WITHIN = 15.0
BASIC_CANCEL = b"\x00\x3c\x00\x1e"


class SilencingProxy(Proxy):
    """Once told to, keeps back what a broker says when it ends a consumer."""

    is_silencing = False

    async def _downwards(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while True:
            head = await source.readexactly(7)
            kind, _, size = struct.unpack(">BHI", head)
            rest = await source.readexactly(size + 1)
            if not (self.is_silencing and kind == 1 and rest.startswith(BASIC_CANCEL)):
                sink.write(head + rest)


@pytest.fixture
async def proxy(broker_url: str) -> AsyncIterator[SilencingProxy]:
    async with SilencingProxy(broker_url) as proxy:
        yield proxy


@pytest.fixture
async def channel(broker_url: str) -> AsyncIterator[AbstractChannel]:
    async with await aio_pika.connect(broker_url) as connection:
        yield await connection.channel()


@pytest.fixture
def program(tmp_path: Path, broker_url: str, prefix: str) -> Program:
    program = Program(tmp_path, ("--broker", broker_url, "--prefix", prefix))
    program.write("app.py", APP)
    return program


def through(proxy: Proxy, program: Program, prefix: str) -> Program:
    return Program(program.directory, ("--broker", proxy.url, "--prefix", prefix))


async def said(serving: Serving, text: str) -> str:
    return await asyncio.to_thread(serving.wait_for, text)


async def noticed(serving: Serving, queue: str) -> None:
    """Wait until it says that it has lost the consumer of `queue`, and has it back."""
    began = monotonic()
    assert queue in await said(serving, "consumer_lost")
    assert monotonic() - began < NOTICED_WITHIN
    assert queue in await said(serving, "consumer_restored")


async def greets(program: Program, run_id: str) -> None:
    done = await asyncio.to_thread(
        program.run, "start", "greeting", "--input", '"you"', "--id", run_id, "--wait"
    )
    assert (done.returncode, done.stdout) == (0, '"hello you"\n'), done.stderr


@pytest.mark.parametrize("is_silent", [False, True], ids=["told", "not told"])
async def test_worker_and_operator_notice_that_their_queues_were_deleted_and_go_on(
    program: Program, prefix: str, proxy: SilencingProxy, channel: AbstractChannel, is_silent: bool
) -> None:
    names = Names(prefix=prefix)
    behind = through(proxy, program, prefix)
    with ExitStack() as stack:
        operator = stack.enter_context(behind.serving("operator", "--database", "op.db"))
        worker = stack.enter_context(behind.serving("run", "app:worker"))
        await greets(program, "before")
        proxy.is_silencing = is_silent
        await channel.queue_delete(names.tasks("greet"))
        await noticed(worker, names.tasks("greet"))
        await channel.queue_delete(names.decisions)
        await noticed(operator, names.decisions)
        await greets(program, "after")
        for each in (worker, operator):
            each.signal(signal.SIGTERM)
        assert [await asyncio.to_thread(each.ended) for each in (worker, operator)] == [0, 0]
