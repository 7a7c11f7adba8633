"""Operator and worker in this process, until told to stop."""

import asyncio
import os
import sys

from durable_worker.cli.banner import announce
from durable_worker.cli.broker import message_limit
from durable_worker.cli.logs import configure
from durable_worker.cli.options import LIFELINE_VARIABLE, Dev
from durable_worker.cli.serving import Server, StopSignals
from durable_worker.cli.targets import load_worker
from durable_worker.embedded import DEFAULT_GRACE, Embedded
from durable_worker.transports.base import DEFAULT_MAX_MESSAGE_BYTES
from durable_worker.worker.determinism.policy import Determinism, stated_or
from durable_worker.worker.options import WorkerOptions
from durable_worker.worker.registry import Worker


def prepare(options: Dev) -> Server:
    configure(options.log_format, debug=options.debug)
    worker = load_worker(options.target)
    announce(
        worker,
        options.target,
        where=f"state in {options.database}",
        log_format=options.log_format,
    )
    return _serve(options, worker)


async def _serve(options: Dev, worker: Worker) -> None:
    settings = WorkerOptions(
        grace=DEFAULT_GRACE,
        determinism=options.determinism or stated_or(Determinism.RAISE),
        shadow=shadow_command(options.target),
    )
    embedded = Embedded(
        worker,
        database=options.database,
        options=settings,
        max_message_bytes=message_limit(options.max_message_bytes) or DEFAULT_MAX_MESSAGE_BYTES,
    )
    stopping = asyncio.Event()

    def stop(is_hurrying: bool) -> None:
        stopping.set()
        if is_hurrying:
            embedded.hurry()

    with StopSignals(stop):
        _end_with_parent(stopping)
        async with embedded:
            await stopping.wait()


def shadow_command(target: str) -> list[str]:
    return [sys.executable, "-m", "durable_worker.cli.shadow", target]


def _end_with_parent(stopping: asyncio.Event) -> None:
    """A parent that is killed cannot say so, but its end of the pipe closes."""
    lifeline = os.environ.get(LIFELINE_VARIABLE)
    if lifeline is not None:
        loop = asyncio.get_running_loop()
        descriptor = int(lifeline)

        def end() -> None:
            loop.remove_reader(descriptor)
            stopping.set()

        loop.add_reader(descriptor, end)
