"""One simulated world: operators, workers and a client on a broker and a database, under faults."""

import asyncio
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import timedelta
from random import Random
from typing import Any

from durable_worker.errors import LeaseLostError, StoreError
from durable_worker.operator.options import OperatorOptions
from durable_worker.operator.service import OperatorService
from durable_worker.protocol.names import Names
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.records import RunState
from durable_worker.testing.simulation.audit import Audit, outcome_of
from durable_worker.testing.simulation.broker import Broker
from durable_worker.testing.simulation.chance import Fault, FaultKind, Strikes
from durable_worker.testing.simulation.customer import Customer
from durable_worker.testing.simulation.database import Database, Rows, StoreLink
from durable_worker.testing.simulation.journal import Journal
from durable_worker.testing.simulation.link import Link
from durable_worker.testing.simulation.loop import ProcessLoop, Scheduler
from durable_worker.testing.simulation.network import Network
from durable_worker.testing.simulation.plan import Plan, Verdict
from durable_worker.testing.simulation.processes import Main, Process
from durable_worker.testing.simulation.quiet import Defects, taken_over
from durable_worker.testing.simulation.trace import Trace
from durable_worker.transports.base import DEATH_HEADER, DELIVERY_LIMIT_REASON
from durable_worker.worker.determinism.policy import Determinism
from durable_worker.worker.options import WorkerOptions
from durable_worker.worker.service import WorkerService

FAULTS_UNTIL_SECONDS = 20.0
STOPPED_WITHIN_SECONDS = 60.0
TIMELY_SECONDS = 2.0
"""Before a timer is due that everybody waits for, time goes on as usual for so long."""

_OF_PROCESSES = (FaultKind.CRASH, FaultKind.STOP, FaultKind.PAUSE, FaultKind.CLOCK)


class World:
    def __init__(
        self,
        plan: Plan,
        seed: int,
        *,
        only: Collection[Fault] | None = None,
        keeps_trace: bool = False,
    ) -> None:
        random = Random(seed)
        self._plan = plan
        self._seed = seed
        self._keeps_trace = keeps_trace
        self._names = Names()
        self._random = random
        self._scheduler = scheduler = Scheduler(Random(random.getrandbits(64)))
        self._trace = Trace(is_kept=keeps_trace)
        self._strikes = Strikes(seed, now=lambda: scheduler.now, kinds=plan.kinds, only=only)
        self._journal = Journal()
        self._audit = Audit(self._journal)
        self._rows = Rows()
        self._database = Database(self._rows, scheduler, self._strikes, self._trace, self._audit)
        self._broker = Broker(scheduler, self._trace, self._strikes, names=self._names)
        self._network = Network(
            scheduler,
            self._broker,
            strikes=self._strikes,
            trace=self._trace,
            random=Random(random.getrandbits(64)),
            audit=self._audit,
        )
        self._links: dict[Process, Link] = {}
        self._checked_at = 0
        self._customer = Customer(plan, self._names)
        self._worker_options = _worker_options(random)
        self._operator_options = _operator_options(random)
        # A store that fails for longer than its operator's patience ends it; so does a lost lease.
        mortal = (LeaseLostError, StoreError)
        self._client = self._process("client", self._ask)
        self._processes = [
            *(self._process(f"operator-{n}", self._operate, mortal) for n in (1, 2)),
            *(self._process(f"worker-{n}", self._work) for n in range(1, random.choice((2, 3, 4)))),
        ]

    def run(self) -> Verdict:
        defects = Defects()
        with taken_over(defects):
            self._run()
        for process in (*self._processes, self._client):
            self._violated(process.complaints)
        self._violated(defects.found)
        states = self._rows.every_run()
        return Verdict(
            seed=self._seed,
            violations=tuple(self._audit.violations),
            faults=tuple(fault for fault, _ in self._strikes.hits),
            outcomes={run_id: outcome_of(state.run) for run_id, state in states.items()},
            digest=self._trace.digest() if self._keeps_trace else "",
            seconds=self._scheduler.now + self._scheduler.skipped,
            callbacks=self._scheduler.callbacks,
            forbidden=tuple(self._journal.forbidden),
            unserved=tuple(self._unserved(states.values())),
            lines=tuple(self._trace.lines) if self._keeps_trace else (),
        )

    def _violated(self, what: Sequence[str]) -> None:
        for each in what:
            self._audit.violated(self._scheduler.now, each)

    def _run(self) -> None:
        scheduler = self._scheduler
        scheduler.checkpoint = self._strike
        self._plan_next_check()
        for process in (self._client, *self._processes):
            scheduler.call_at(0.05 * self._random.random(), process.start)
        scheduler.call_at(FAULTS_UNTIL_SECONDS, self._calm)
        if scheduler.run(self._has_ended, until=FAULTS_UNTIL_SECONDS + self._plan.patience):
            self._calm()
            is_quiet = scheduler.run(self._is_quiet, until=scheduler.now + self._plan.patience)
            if not is_quiet:
                self._violated([f"something is left over: {self._left_over()}"])
            self._stop_all()
            self._conclude()
        else:
            self._violated([f"runs do not end: {self._unfinished()}"])
            self._kill_all()

    def _conclude(self) -> None:
        self._audit.conclude(
            self._rows.every_run(),
            expected={each.run_id: each.expected for each in self._plan.starts},
            fault_times=[time for _, time in self._strikes.hits],
            at=self._scheduler.now,
        )
        if self._rows.signals > len(self._plan.signals):
            self._violated(["a signal that was sent once was taken in twice"])
        for letter in self._rows.letters:
            if letter.headers.get(DEATH_HEADER) == DELIVERY_LIMIT_REASON:
                continue  # its connections were cut so often; the operator sends it again
            self._violated([f"a dead letter: {letter.type} {letter.message_id}: {letter.reason}"])

    # Faults of processes

    def _plan_next_check(self) -> None:
        gap = min(self._strikes.until_next(kind) for kind in _OF_PROCESSES)
        self._checked_at = self._scheduler.callbacks
        self._scheduler.pause_at = self._checked_at + gap

    def _strike(self, loop: ProcessLoop) -> None:
        process: Process = loop.process
        passed = self._scheduler.callbacks - self._checked_at
        for kind in _OF_PROCESSES:
            random = self._strikes.passed(kind, passed)
            if random is not None and process.is_alive and process is not self._client:
                self._hit(process, kind, random)
        self._plan_next_check()

    def _hit(self, process: Process, kind: FaultKind, random: Random) -> None:
        scheduler = self._scheduler
        match kind:
            case FaultKind.CRASH:
                self._trace.note(scheduler.now, process.label, "KILLED")
                process.kill()
            case FaultKind.STOP:
                self._trace.note(scheduler.now, process.label, "TOLD-TO-STOP")
                process.ask_to_stop()
            case FaultKind.PAUSE:
                seconds = random.choice((0.1, 1.0, 5.0, 20.0)) * random.random()
                self._trace.note(scheduler.now, process.label, "PAUSED", f"{seconds:.2f}s")
                process.pause(seconds)
            case _:
                step = random.choice((1, 10, 60, 60, 3600)) * random.uniform(-1, 1)
                self._trace.note(scheduler.now, process.label, "CLOCK-SET", f"{step:+.1f}s")
                process.clock.skew += step

    def _calm(self) -> None:
        """No faults from here on, and the clocks are right again."""
        if not self._strikes.is_over:
            self._strikes.is_over = True
            self._trace.note(self._scheduler.now, "world", "CALM")
            for process in self._processes:
                process.clock.skew = 0.0

    # When it is over

    def _skip_the_wait(self) -> None:
        """Put the clocks forward to the next timer, once there are no more faults and nothing else
        is to come: hours of looking whether something has come take long, and show nothing."""
        if not self._strikes.is_over or not self._customer.has_asked or not self._is_quiet():
            return
        due = self._rows.next_due
        if due is not None:
            ahead = due / 1000 - self._client.clock.now() / 1000 - TIMELY_SECONDS
            if ahead > TIMELY_SECONDS:
                self._scheduler.skipped += ahead
                self._rows.put_forward(int(ahead * 1000))

    def _has_ended(self) -> bool:
        self._skip_the_wait()
        if self._audit.open or not self._customer.has_asked:
            return False
        runs = self._audit.known
        return all(each.run_id in runs for each in self._plan.starts)

    def _is_quiet(self) -> bool:
        return (
            self._rows.is_settled
            and all(each.is_alive for each in self._processes)
            and not any(queue.depth for queue in self._broker.queues.values())
        )

    def _unserved(self, states: Iterable[RunState]) -> Iterator[str]:
        for state in states:
            for each in state.pending.values():
                if each.kind is HistoryKind.CALL and each.name not in self._plan.worker.steps:
                    yield each.name

    def _left_over(self) -> dict[str, Any]:
        depths = {name: queue.depth for name, queue in self._broker.queues.items() if queue.depth}
        return {
            "queues": depths,
            "dead": [each.name for each in self._processes if not each.is_alive],
            "settled": self._rows.is_settled,
        }

    def _unfinished(self) -> dict[str, str]:
        missing = {
            each.run_id: "not started"
            for each in self._plan.starts
            if each.run_id not in self._audit.known
        }
        states = self._rows.every_run()
        return missing | {
            run_id: f"{states[run_id].run.status.value}, waits for "
            f"{[f'{each.seq} {each.name}' for each in states[run_id].pending.values()]}"
            for run_id in sorted(self._audit.open)
        }

    def _stop_all(self) -> None:
        everybody = [*self._processes, self._client]
        for process in everybody:
            process.is_wanted = False
            process.ask_to_stop()
        scheduler = self._scheduler
        scheduler.run(
            lambda: not any(each.is_alive for each in everybody),
            until=scheduler.now + STOPPED_WITHIN_SECONDS,
        )
        late = [each.label for each in everybody if each.is_alive]
        if late:
            self._violated([f"told to stop, still there after a minute: {', '.join(late)}"])
        self._kill_all()
        if self._network.ends:
            self._violated(["a connection was left open"])

    def _kill_all(self) -> None:
        for process in (*self._processes, self._client):
            process.is_wanted = False
            process.kill()

    # Processes

    def _process(
        self, name: str, main: Main, may_die_of: tuple[type[BaseException], ...] = ()
    ) -> Process:
        process = Process(
            name,
            main,
            scheduler=self._scheduler,
            trace=self._trace,
            random=Random(self._random.getrandbits(64)),
            journal=self._journal,
            may_die_of=may_die_of,
        )
        process.on_end = self._process_ended
        return process

    def _process_ended(self, process: Process) -> None:
        link = self._links.pop(process, None)
        if link is not None:
            link.end.close()
        if process.is_wanted and process is not self._client:
            pause = process.random.choice((0.1, 0.5, 2.0)) * process.random.random()
            self._scheduler.call_at(self._scheduler.now + pause, process.start)

    def _link(self, process: Process) -> Link:
        link = self._links[process] = Link(self._network, process)
        return link

    async def _ask(self, process: Process) -> None:
        stop = asyncio.Event()
        process.stop = stop.set
        async with self._link(process) as transport:
            await self._customer.ask(transport)
            await stop.wait()

    async def _work(self, process: Process) -> None:
        async with self._link(process) as transport:
            service = WorkerService(
                self._plan.worker,
                transport,
                names=self._names,
                options=self._worker_options,
                clock=process.clock,
                chance=process.chance,
            )
            process.stop = service.request_stop
            if process.is_stopping:
                service.request_stop()
            await service.serve()

    async def _operate(self, process: Process) -> None:
        async with self._link(process) as transport:
            service = OperatorService(
                StoreLink(self._database, process),
                transport,
                names=self._names,
                options=self._operator_options,
                clock=process.clock,
                chance=process.chance,
            )
            process.stop = service.request_stop
            if process.is_stopping:
                service.request_stop()
            await service.serve()


def _worker_options(random: Random) -> WorkerOptions:
    return WorkerOptions(
        concurrency=random.choice((1, 2, 100)),
        grace=timedelta(seconds=random.choice((0.05, 2.0))),
        kept_runs=random.choice((0, 1, 1_000)),
        deltas_from_bytes=random.choice((0, 2_000)),
        determinism=Determinism.OFF,
    )


def _operator_options(random: Random) -> OperatorOptions:
    return OperatorOptions(
        silence=timedelta(seconds=random.choice((8.0, 60.0))),
        store_patience=timedelta(seconds=random.choice((1.0, 10.0))),
        lease_ttl=timedelta(seconds=random.choice((1.5, 4.0))),
        resend_delay=timedelta(seconds=random.choice((0.0, 0.3, 1.0))),
        inbox_interval=timedelta(seconds=1.0),
        batch_size=random.choice((1, 3, 500)),
        prefetch=random.choice((1, 10, 1_000)),
        cached_checkpoints=random.choice((1, 200_000)),
    )


def simulated(
    plan: Plan, seed: int, *, only: Collection[Fault] | None = None, keeps_trace: bool = False
) -> Verdict:
    """One world, from its beginning to its end; `only` these faults hit, if given.

    The verdict has lines and a digest only with `keeps_trace`.
    """
    return World(plan, seed, only=only, keeps_trace=keeps_trace).run()
