"""`python -m tests.fuzz.big SCENARIO`: something huge, in a process whose memory is bounded.

Prints how much memory the process had before, at most, and has again afterwards, in MiB.
"""

import asyncio
import gc
import json
import logging
import resource
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog
from msgspec import UNSET, Raw

from durable_worker import Worker, WorkflowContext
from durable_worker.operator.service import OperatorService
from durable_worker.protocol.codec import MessageType
from durable_worker.protocol.names import Names
from durable_worker.protocol.runs import RunStatus
from durable_worker.stores.sqlite import SqliteStore
from durable_worker.transports.base import Envelope
from durable_worker.transports.memory import MemoryTransport
from durable_worker.worker.determinism.policy import Determinism
from durable_worker.worker.options import WorkerOptions
from durable_worker.worker.service import WorkerService

MIB = 1024 * 1024
NAMES = Names()
HUGE = 100 * MIB
ADDRESS_SPACE = 4096 * MIB
MANY_KEYS = 1_000_000
FLOOD = 10_000

House = tuple[MemoryTransport, SqliteStore, OperatorService]
worker = Worker()


@worker.step("echo")
async def echo(value: Any) -> Any:
    return value


@worker.step("count")
async def count(value: dict[str, int]) -> int:
    return len(value)


@worker.workflow("through")
async def through(ctx: WorkflowContext, value: Any) -> int:
    told = await ctx.wait_signal("s")
    return len(await echo(value)) + len(told)


@worker.workflow("keys")
async def keys(ctx: WorkflowContext, value: Any) -> int:
    return await count(value)


async def string(house: House) -> None:
    """100 MiB as input of a run and of a step, result, decision and signal."""
    _, _, operator = house
    value = Raw(b'"' + b"x" * HUGE + b'"')
    run_id = await operator.start("through", value)
    await operator.signal("s", value)
    run = await operator.wait(run_id)
    assert run.status is RunStatus.COMPLETED, run.error
    assert run.output == Raw(str(2 * HUGE).encode())


async def many_keys(house: House) -> None:
    _, _, operator = house
    value = json.dumps({f"key-{number}": number for number in range(MANY_KEYS)}).encode()
    run = await operator.wait(await operator.start("keys", Raw(value)))
    assert run.output == Raw(str(MANY_KEYS).encode()), run.error


async def unknown_keys(house: House) -> None:
    """A result with a million keys that nobody knows, and one with as many equal ones."""
    transport, store, _ = house
    named = '{"runId":"r","seq":0,"stepId":"r:0","status":"completed"'
    for made in (
        named + "".join(f',"key-{number}":{number}' for number in range(MANY_KEYS)) + "}",
        named + ',"seq":1' * MANY_KEYS + "}",
        named + ',"status":"' + "x" * HUGE + '"}',
        named + ',"output":' + "[" * (HUGE // 10),
    ):
        await transport.send(
            NAMES.results, Envelope(MessageType.STEP_RESULT, made.encode(), "r:0:1")
        )
        await until(lambda: transport.depth(NAMES.results) + transport.depth(NAMES.dead) == 0)
    letters = await store.dead_letters(limit=10)
    assert len(letters) == 2
    assert all(len(each.reason) < 2_000 for each in letters)


async def flood(house: House) -> None:
    transport, _, operator = house
    for number in range(FLOOD):
        body = b'{"runId":"r%d","seq":' % number
        await transport.send(NAMES.results, Envelope(MessageType.STEP_RESULT, body, f"m{number}"))
    await until(lambda: transport.depth(NAMES.results) + transport.depth(NAMES.dead) == 0)
    assert (await operator.wait(await operator.start("keys", Raw(b"{}")))).output == Raw(b"0")


async def long_history(house: House) -> None:
    """A turn with 100,000 events, for a body that has asked for none of them."""
    transport, _, _ = house
    history = [
        {"seq": seq, "kind": "call", "name": "echo", "output": seq} for seq in range(100_000)
    ]
    task = {"taskId": "t", "runId": "r", "workflow": "keys", "workflowVersion": "1", "input": {},
            "history": history, "group": "keys", "attempt": 1}  # fmt: skip
    body = json.dumps(task).encode()
    await transport.send(NAMES.tasks("keys"), Envelope(MessageType.WORKFLOW_TASK, body, "t"))
    await until(
        lambda: transport.depth(NAMES.tasks("keys")) + transport.depth(NAMES.decisions) == 0
    )


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110 - what is awaited has no event of its own
        await asyncio.sleep(0.01)


SCENARIOS: dict[str, Callable[[House], Awaitable[None]]] = {
    each.__name__: each for each in (string, many_keys, unknown_keys, flood, long_history)
}


async def main(scenario: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with (
            MemoryTransport(names=NAMES, max_message_bytes=2**32) as transport,
            SqliteStore(Path(folder) / "db") as store,
        ):
            operator = OperatorService(store, transport, names=NAMES)
            options = WorkerOptions(determinism=Determinism.OFF)
            served = WorkerService(worker, transport, names=NAMES, options=options)
            async with asyncio.TaskGroup() as group:
                group.create_task(operator.serve())
                group.create_task(served.serve())
                small = await operator.start("keys", Raw(b"{}"))
                assert (await operator.wait(small)).output == Raw(b"0")
                before = in_memory()
                await SCENARIOS[scenario]((transport, store, operator))
                peak = in_memory("VmHWM")
                # Other runs push out what is kept of the last ones.
                assert (await operator.wait(await operator.start("keys", UNSET))).error is not None
                gc.collect()
                after = in_memory()
                served.request_stop()
                operator.request_stop()
    print(json.dumps({"before": before, "peak": peak, "after": after}))


def in_memory(what: str = "VmRSS") -> int:
    """MiB, now or (`VmHWM`) at the most. `ru_maxrss` would be that of who started this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = next(line for line in lines if line.startswith(f"{what}:"))
    return int(found.split()[1]) // 1024


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    asyncio.run(main(sys.argv[1]))
