"""Whether more operators on one PostgreSQL do more, and who uses the machine meanwhile.

Operators, workers, broker and database each are processes of their own on this one machine, the
last two private to the measurement, so that their CPU is that of the load and of nothing else.
Where the cores are used up, more operators cannot do more: the note says how many were in use. The
same is therefore measured with operators that get a small part of a core each, as if each had a
small machine of its own; then the cores are not used up.
"""

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from durable_worker.client import Client, broker_client
from durable_worker.protocol.names import Names
from durable_worker.transports.rabbitmq import RabbitTransport
from tests.bench import effects, load
from tests.bench.brokered import CLI, START_SECONDS
from tests.bench.context import Bench
from tests.bench.figures import Pairs, Reading, Target, UnavailableError, WrongResultError
from tests.bench.load import STEPS, Plan
from tests.bench.processes import Program, cpu_of_family, environment
from tests.bench.registry import measures
from tests.bench.running import scratch
from tests.bench.shares import confined
from tests.broker import BrokerNode, new_prefix
from tests.database import Postgres, PostgresServer
from tests.database.schemas import made_schema
from tests.servers.faults import ServerUnavailableError

APP = "tests.bench.programs.load_app:worker"
CURVE = (1, 2, 4)
CONCURRENCY = 200
WORKERS = 2
SHARE = 0.1
SHAPE = f"{CONCURRENCY} workflows at a time, {WORKERS} workers, on one PostgreSQL"


@measures(
    *(
        Target(
            f"operators_curve_{count}", f"steps/s of {count} operators over those of one, {SHAPE}"
        )
        for count in CURVE[1:]
    )
)
def operators_curve(bench: Bench) -> Iterator[Reading]:
    yield from curve(bench, "operators_curve", runs=bench.pick(200, 1_000), cores=None)


@measures(
    *(
        Target(
            f"operators_confined_{count}",
            f"the same, each operator confined to {SHARE:.0%} of a core",
        )
        for count in CURVE[1:]
    )
)
def operators_confined(bench: Bench) -> Iterator[Reading]:
    yield from curve(bench, "operators_confined", runs=bench.pick(100, 400), cores=SHARE)


def curve(bench: Bench, key: str, *, runs: int, cores: float | None) -> Iterator[Reading]:
    trials: dict[int, list[Trial]] = {count: [] for count in CURVE}
    with ExitStack() as stack:
        try:
            server = stack.enter_context(PostgresServer())
            node = stack.enter_context(BrokerNode())
        except ServerUnavailableError as error:
            raise UnavailableError(str(error)) from error
        for _ in range(bench.pick(2, 3)):
            for count in CURVE:
                trials[count].append(trial(server, node, count, runs=runs, cores=cores))
    for count in CURVE[1:]:
        pairs = Pairs(
            [each.steps_per_second for each in trials[count]],
            [each.steps_per_second for each in trials[1]],
        )
        yield pairs.reading(
            f"{key}_{count}",
            "steps/s",
            (f"{count} operators", "one"),
            note=f"{told(trials[count])}; with one {told(trials[1])}",
        )


@dataclass(frozen=True, slots=True)
class Trial:
    """`steps` and `seconds` count the first runs, too; `cpu` are the seconds that each part used
    meanwhile, by its name."""

    steps_per_second: float
    steps: int
    seconds: float
    cpu: Counter[str]


def told(trials: list[Trial]) -> str:
    cores = statistics.median(each.cpu.total() / each.seconds for each in trials)
    parts = ", ".join(
        f"{part} {1e6 * statistics.median(each.cpu[part] / each.steps for each in trials):,.0f}"
        for part in trials[0].cpu
    )
    return f"{cores:.1f} cores in use, us of CPU per step: {parts}"


def trial(
    server: PostgresServer, node: BrokerNode, operators: int, *, runs: int, cores: float | None
) -> Trial:
    with made_schema(Postgres(server.url())) as schema, scratch() as folder:
        plan = Plan(runs, STEPS, CONCURRENCY, schema.url)
        with deployed(node.url(), schema.url, folder, operators=operators) as parts:
            done = asyncio.run(drive(plan, parts, server, node, cores))
        seen = sum(map(effects.read, folder.iterdir()), Counter[int]())
        try:
            load.check_effects(plan, seen)
        except AssertionError as error:
            raise WrongResultError(str(error)) from error
    return done


@dataclass(frozen=True, slots=True)
class Parts:
    url: str
    names: Names
    operators: list[Program]
    workers: list[Program]

    @asynccontextmanager
    async def client(self) -> AsyncGenerator[Client]:
        """Once all operators take starts."""
        transport = RabbitTransport(self.url, names=self.names)
        async with broker_client(transport, names=self.names) as client:
            deadline = time.monotonic() + START_SECONDS
            while await transport.consumers(self.names.start_run) < len(self.operators):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"not all operators serve after {START_SECONDS:g} s")
                await asyncio.sleep(0.05)
            yield client
            for program in (*self.operators, *self.workers):
                program.require_running()


@contextmanager
def deployed(url: str, database: str, folder: Path, *, operators: int) -> Generator[Parts]:
    names = Names(prefix=new_prefix())
    place = ["--broker", url, "--prefix", names.prefix, "--log-format", "json"]
    with ExitStack() as stack:

        def started(*words: str, **more: str) -> Program:
            command = [*CLI, *words, *place]
            return stack.enter_context(Program(command, env=environment(**more)))

        parts = Parts(url, names, [], [])
        for _ in range(operators):
            parts.operators.append(started("operator", "--database", database))
        for number in range(WORKERS):
            counted = {effects.VARIABLE: str(folder / f"worker-{number}")}
            parts.workers.append(started("run", APP, **counted))
        yield parts


async def drive(
    plan: Plan, parts: Parts, server: PostgresServer, node: BrokerNode, cores: float | None
) -> Trial:
    database, broker = server.pid, node.pid

    def spent() -> Counter[str]:
        return Counter(
            {
                "operators": sum(each.cpu_seconds() for each in parts.operators),
                "workers": sum(each.cpu_seconds() for each in parts.workers),
                "broker": cpu_of_family(broker),
                "database": cpu_of_family(database),
                "client": time.process_time(),
            }
        )

    async with parts.client() as client:

        async def run(index: int) -> object:
            handle = await client.start("sequence", index, run_id=f"run-{index}")
            return await handle.result()

        pids = [each.pid for each in parts.operators] if cores else []
        with confined(pids, cores=cores or 1):
            before, began = spent(), time.perf_counter()
            outcome = await load.drive(plan, run)
            seconds, cpu = time.perf_counter() - began, spent()
    cpu.subtract(before)
    steps = (plan.runs + plan.warm) * plan.steps
    return Trial(plan.runs * plan.steps / outcome.seconds, steps, seconds, cpu)
