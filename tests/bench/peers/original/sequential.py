"""CPU seconds of the original worker for a sequential run: the sum over its turns, of which those
at some lengths of history are taken. It keeps nothing from turn to turn, so they stand for all.

sequential.py redis://... STEPS
"""

import asyncio
import json
import os
import sys
from pathlib import Path

from bullmq import Queue, Worker
from redis.asyncio import Redis

from tests.bench.processes import Program

LENGTHS = 13
TURNS = 8
"""Of each length: the clock of a process ticks every 10 ms."""
WARM = 10
ANSWER_SECONDS = 60.0
OPTIONS = {"removeOnComplete": True, "removeOnFail": True}


async def main(url: str, steps: int) -> None:
    prefix = f"bench-{os.getpid()}"
    command = [sys.executable, Path(__file__).with_name("sequence.py"), url, prefix]
    # Without the path on which this one finds the bench: there lies a durable_worker, too.
    settings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with Program(command, env=settings) as worker:
        try:
            print(json.dumps(await cpu_of(worker, url, prefix, steps)))
        finally:
            async with Redis.from_url(url) as redis:
                async for key in redis.scan_iter(f"*{prefix}-*"):
                    await redis.delete(key)


async def cpu_of(worker: Program, url: str, prefix: str, steps: int) -> float:
    tasks = Queue(f"{prefix}-tasks-sequence", {"connection": url})
    decisions: asyncio.Queue[dict] = asyncio.Queue()

    async def take(job, _token) -> None:
        decisions.put_nowait(job.data)

    taking = Worker(f"{prefix}-decisions", take, {"connection": url})

    async def turn(length: int, number: int) -> None:
        task = task_over(length, steps, f"{length}-{number}")
        await tasks.add("task", task, OPTIONS)
        decision = await asyncio.wait_for(decisions.get(), ANSWER_SECONDS)
        assert decision["taskId"] == task["taskId"], decision
        if length < steps:
            (command,) = decision["commands"]
            assert (command["kind"], command["seq"]) == ("call", length), decision
        else:
            assert decision["output"] == sum(range(steps)), decision

    for number in range(WARM):
        await turn(0, number)
    lengths = [round(steps * part / (LENGTHS - 1)) for part in range(LENGTHS)]
    costs = []
    for length in lengths:
        cpu = worker.cpu_seconds()
        for number in range(TURNS):
            await turn(length, WARM + number)
        costs.append((worker.cpu_seconds() - cpu) / TURNS)
    await taking.close()
    await tasks.close()
    spans = zip(lengths, lengths[1:], costs, costs[1:], strict=False)
    return sum((b - a) * (at_a + at_b) / 2 for a, b, at_a, at_b in spans) + costs[-1]


def task_over(length: int, steps: int, name: str) -> dict:
    history = [{"seq": seq, "kind": "call", "name": "step", "output": seq} for seq in range(length)]
    return {
        "taskId": f"turn-{name}",
        "runId": f"run-{name}",
        "workflow": "sequence",
        "workflowVersion": "1",
        "input": steps,
        "history": history,
        "group": "sequence",
        "attempt": 1,
    }


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
