"""What a worker's turns cost in CPU, from the bytes of a task to the bytes of its decision.

    python -m tests.bench.turns

The operator is played here: it keeps the history, encodes each event once, and its own time is not
counted.
"""

import asyncio
import math
import statistics
import time
from collections.abc import Callable
from typing import Self

from msgspec import Raw

from durable_worker import Worker, WorkflowContext
from durable_worker.protocol import codec
from durable_worker.protocol.commands import DecisionStatus, RecordStep
from durable_worker.protocol.growing import TurnReader
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind
from durable_worker.worker.determinism.calls import FIRST_TURNS
from durable_worker.worker.determinism.checks import checks_for
from durable_worker.worker.determinism.policy import Determinism
from durable_worker.worker.edge import WorkerEdge
from durable_worker.worker.turns import TurnRunner

SIZES = (100, 300, 1_000, 3_000, 10_000)


def worker() -> Worker:
    worker = Worker()

    @worker.step("s")
    async def step(number: int) -> int:
        return number

    @worker.workflow("sequence")
    async def sequence(ctx: WorkflowContext, steps: int) -> int:
        total = 0
        for number in range(steps):
            total += await ctx.step(step, number)
        return total

    @worker.workflow("gather")
    async def gather(ctx: WorkflowContext, steps: int) -> int:
        return sum(await asyncio.gather(*(ctx.step(step, n) for n in range(steps))))

    return worker


class Turns:
    """The turns of one worker at work, but for the transport. `seconds` is the CPU they took."""

    def __init__(self, *, kept: int = 1_000) -> None:
        self.seconds = 0.0
        serving = worker()
        self._reader = TurnReader(limit=kept)
        self._edge = WorkerEdge(serving)
        checks = checks_for(serving, Determinism.WARN)
        self._runner = TurnRunner(serving, run_locally=_refuse, kept=kept, checks=checks)

    async def warm(self) -> Self:
        """Past the first turns, which are all watched by the checks of determinism."""
        for number in range(FIRST_TURNS):
            for workflow in ("sequence", "gather"):
                await self.answer(turn(workflow, 0, [], number))
        self.seconds = 0.0
        return self

    async def answer(self, body: bytes) -> bytes:
        started = time.process_time()
        read = self._reader.read(body)
        task = await self._edge.open_turn(read, body)
        decision = await self._runner.decide(task)
        answer = codec.encode(await self._edge.seal_decision(decision, task))
        if decision.status is DecisionStatus.CONTINUE:
            self._reader.keep(read)
        self.seconds += time.process_time() - started
        return answer


def turn(workflow: str, steps: int, events: list[bytes], number: int) -> bytes:
    head = (
        f'{{"taskId":"run-1:{number}","runId":"run-1","workflow":"{workflow}",'
        f'"workflowVersion":"1","input":{steps},"history":['
    )
    tail = f'],"group":"{workflow}","attempt":1,"capabilities":["call-retry"]}}'
    return head.encode() + b",".join(events) + tail.encode()


def event(seq: int) -> bytes:
    return codec.encode(
        HistoryEvent(seq=seq, kind=HistoryKind.CALL, name="s", output=Raw(b"%d" % seq))
    )


def run_seconds(workflow: str, steps: int, *, at_once: int = 1, kept: int = 1_000) -> float:
    """CPU of all turns of one run; each brings the results of `at_once` more steps."""

    async def play() -> float:
        turns, events = await Turns(kept=kept).warm(), [event(seq) for seq in range(steps)]
        for number, known in enumerate([*range(0, steps, at_once), steps]):
            answer = await turns.answer(turn(workflow, steps, events[:known], number))
        output = codec.WORKFLOW_DECISION.decode(answer).output
        assert bytes(output) == b"%d" % sum(range(steps)), output
        return turns.seconds

    return asyncio.run(play())


def full_replay_us(workflow: str, steps: int = 10_000) -> float:
    """Microseconds for each event of one turn that replays them all, the best of several."""

    async def play() -> float:
        turns = await Turns(kept=0).warm()
        await turns.answer(turn(workflow, steps, [event(seq) for seq in range(steps)], 0))
        return turns.seconds

    return 1e6 * min(asyncio.run(play()) for _ in range(9)) / steps


def exponent(seconds: Callable[[int], float], sizes: tuple[int, ...] = SIZES) -> float:
    """How `seconds` grows with its argument: the slope of a line through the logarithms."""
    measured = [min(seconds(size) for _ in range(3 if size < 3_000 else 1)) for size in sizes]
    for size, took in zip(sizes, measured, strict=True):
        print(f"  {size:>6,} steps {1e3 * took:>9.1f} ms   {1e6 * took / size:>7.1f} us each")
    return statistics.linear_regression(
        [math.log(size) for size in sizes], [math.log(took) for took in measured]
    ).slope


async def _refuse(*_: object) -> RecordStep:
    raise AssertionError("there are no local steps")


def main() -> None:
    for workflow in ("sequence", "gather"):
        print(f"replay_{workflow}: {full_replay_us(workflow):.2f} us for each event")
    print("sequence, one turn for each step, all on one worker")
    print(f"sequential_exponent {exponent(lambda n: run_seconds('sequence', n)):.3f}")
    print("gather, 100 results to a turn")
    growth = exponent(lambda n: run_seconds("gather", n, at_once=100), (300, 1_000, 3_000))
    print(f"gather_exponent {growth:.3f}")


if __name__ == "__main__":
    main()
