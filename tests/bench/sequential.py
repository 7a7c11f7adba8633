"""What a sequential run costs its worker in all: a process on a broker, whose operator is played
here. The operator has the answer to each call at once and sends the whole history each turn."""

import asyncio
import math
import statistics
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager

import msgspec

from durable_worker.protocol import codec
from durable_worker.protocol.commands import DecisionStatus, ScheduleStep, WorkflowDecision
from durable_worker.protocol.names import Names
from durable_worker.transports.base import Delivery, Envelope
from durable_worker.transports.rabbitmq import RabbitTransport
from durable_worker.worker.determinism.calls import FIRST_TURNS
from tests.bench.context import Bench
from tests.bench.environments import PEERS
from tests.bench.figures import Reading, Side, Target, WrongResultError
from tests.bench.growth import exponent
from tests.bench.processes import Program
from tests.bench.registry import measures
from tests.bench.running import told_by
from tests.bench.worker.redis import URL
from tests.broker import new_prefix

QUICK_COUNTS = (300, 1_000, 3_000)
COUNTS = (100, 300, 1_000, 3_000, 10_000)
COMPARED = 3_000
LEAST_TURNS = 300
"""Short runs are played several times: the clock of a process ticks every 10 ms."""
ANSWER_SECONDS = 30.0


@measures(
    Target(
        "sequential_exponent",
        "growth of the worker's CPU with the steps of a sequential run",
        "power",
        at_most=1.15,
    ),
    Target(
        "sequential_vs_original",
        f"CPU of the original worker for a run of {COMPARED:,} steps over that of ours",
        at_least=50,
    ),
    Target(
        "sequential_vs_bare",
        f"the same, ours over that of a bare loop which is told each answer: {COMPARED:,} steps",
    ),
)
def sequential(bench: Bench) -> Iterator[Reading]:
    counts = bench.pick(QUICK_COUNTS, COUNTS)
    rounds = range(bench.pick(1, 2))
    samples = [asyncio.run(cpu_by_steps(bench.broker.url, counts, ours_for)) for _ in rounds]
    yield Reading(
        "sequential_exponent",
        tuple(exponent(counts, each) for each in samples),
        note=", ".join(
            f"{steps:,} steps {statistics.median(each[place] for each in samples):.2f} s"
            for place, steps in enumerate(counts)
        ),
    )
    ours = [each[counts.index(COMPARED)] for each in samples]
    (bare,) = asyncio.run(cpu_by_steps(bench.broker.url, (COMPARED,), bare_for))
    yield Reading(
        "sequential_vs_bare",
        tuple(each / bare for each in ours),
        (Side("ours", "s", tuple(ours)), Side("bare loop", "s", (bare,))),
        "a turn at a time, on a machine that idles in between: most of it is waking up",
    )
    program = PEERS / "original" / "sequential.py"
    theirs = [
        told_by([bench.python("original"), program, URL, str(COMPARED)])
        for _ in range(bench.pick(1, 3))
    ]
    yield Reading(
        "sequential_vs_original",
        tuple(each / statistics.median(ours) for each in theirs),
        (Side("ours", "s", tuple(ours)), Side("original", "s", tuple(theirs))),
        "the original's is summed up from turns over histories of some lengths",
    )


def ours_for(url: str, names: Names) -> list[str]:
    target = "tests.bench.programs.sequential_app:worker"
    command = ["durable_worker", "run", target, "--log-format", "json"]
    return [*command, "--broker", url, "--prefix", names.prefix]


def bare_for(url: str, names: Names) -> list[str]:
    return ["tests.bench.programs.bare_turns", url, names.tasks("sequence"), names.decisions]


async def cpu_by_steps(
    url: str, counts: Sequence[int], command: Callable[[str, Names], list[str]]
) -> list[float]:
    """Seconds of a worker's CPU for one run of each of these numbers of steps."""
    names = Names(prefix=new_prefix())
    async with operating(url, names) as play:
        with Program([sys.executable, "-m", *command(url, names)]) as worker:
            for number in range(FIRST_TURNS):  # watched more closely than all others
                await play(f"warm-{number}", 1)
            found = []
            for steps in counts:
                rounds = math.ceil(LEAST_TURNS / steps)
                cpu = worker.cpu_seconds()
                for number in range(rounds):
                    await play(f"run-{steps}-{number}", steps)
                found.append((worker.cpu_seconds() - cpu) / rounds)
            return found


class Operator:
    def __init__(self, transport: RabbitTransport, names: Names) -> None:
        self._transport = transport
        self._queue = names.tasks("sequence")
        self.decisions: asyncio.Queue[Delivery] = asyncio.Queue()

    async def __call__(self, run_id: str, steps: int) -> None:
        """Plays one run to its end. Raises `WrongResultError`."""
        history = bytearray()
        for turn in range(steps + 1):
            task_id = f"{run_id}:turn-{turn}"
            body = (
                b'{"taskId":"%b","runId":"%b","workflow":"sequence","workflowVersion":"1",'
                b'"input":%d,"history":[%b],"group":"sequence","attempt":1}'
                % (task_id.encode(), run_id.encode(), steps, history)
            )
            await self._transport.send(self._queue, Envelope("workflow-task", body, task_id))
            decision = await self._decision_for(task_id)
            if turn == steps:
                _require_end(decision, sum(range(steps)))
            else:
                _require_call(decision, turn)
                comma = b"," if history else b""
                history += b'%b{"seq":%d,"kind":"call","name":"step","output":%d}' % (
                    comma,
                    turn,
                    turn,
                )

    async def _decision_for(self, task_id: str) -> WorkflowDecision:
        async with asyncio.timeout(ANSWER_SECONDS):
            delivery = await self.decisions.get()
        decision = codec.WORKFLOW_DECISION.decode(delivery.envelope.body)
        await delivery.ack()
        if decision.task_id != task_id:
            raise WrongResultError(f"a decision for {decision.task_id} instead of {task_id}")
        return decision


def _require_call(decision: WorkflowDecision, number: int) -> None:
    match decision.commands:
        case [ScheduleStep(seq=seq, name="step") as call] if seq == number:
            if msgspec.json.decode(call.input) == number:
                return
    raise WrongResultError(f"not the call of step {number}: {decision}")


def _require_end(decision: WorkflowDecision, output: int) -> None:
    ended = decision.status is DecisionStatus.COMPLETED
    if not ended or msgspec.json.decode(decision.output) != output:
        raise WrongResultError(f"not the end with {output}: {decision}")


@asynccontextmanager
async def operating(url: str, names: Names) -> AsyncGenerator[Operator]:
    async with RabbitTransport(url, names=names) as transport:
        operator = Operator(transport, names)
        await transport.declare([names.tasks("sequence"), names.tasks("step"), names.dead])
        await transport.consume([names.decisions], operator.decisions.put_nowait, prefetch=10)
        yield operator
