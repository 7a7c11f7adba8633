"""A v1 operator reduced to what a body can notice, and bodies made of random operations."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import UNSET, Raw, json

from durable_worker import Worker, WorkflowContext
from durable_worker.protocol.base import Payload
from durable_worker.protocol.commands import (
    AnyCommand,
    DecisionStatus,
    RecordStep,
    ScheduleStep,
    StartChild,
    StartTimer,
    WaitSignal,
    WorkflowDecision,
)
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind, WorkflowTask
from durable_worker.replay.definitions import WorkflowDefinition
from durable_worker.replay.operations import RunLocally
from durable_worker.replay.turn import Replay


def payload(value: object) -> Payload:
    return UNSET if value is None else Raw(json.encode(value))


@dataclass
class ModelOperator:
    """Applies decisions the way a v1 operator does; tests choose what resolves, and when."""

    workflow: str = "flow"
    version: str = "1"
    run_id: str = "run-1"
    input: object = None
    capabilities: list[str] | None = None
    now_ms: int = 1_000_000
    history: dict[int, HistoryEvent] = field(default_factory=dict)
    pending: dict[int, AnyCommand] = field(default_factory=dict)
    deadlines: dict[int, int] = field(default_factory=dict)
    turn: int = 0
    final: WorkflowDecision | None = None

    def task(self) -> WorkflowTask:
        self.turn += 1
        return WorkflowTask(
            task_id=f"{self.run_id}#{self.turn}",
            run_id=self.run_id,
            workflow=self.workflow,
            workflow_version=self.version,
            input=payload(self.input),
            history=[self.history[seq] for seq in sorted(self.history)],
            group=self.workflow,
            attempt=1,
            capabilities=self.capabilities,
        )

    def apply(self, decision: WorkflowDecision, *, only_first: int | None = None) -> None:
        """Apply a decision; with `only_first` die after that many commands."""
        commands = decision.commands if only_first is None else decision.commands[:only_first]
        for command in commands:
            match command:
                case RecordStep(seq=seq) if seq not in self.history:
                    self.history[seq] = HistoryEvent(
                        seq=seq,
                        kind=HistoryKind.STEP,
                        name=command.name,
                        output=command.output,
                        error=command.error,
                    )
                case StartTimer(seq=seq) if seq not in self.history:
                    self.pending[seq] = command
                    self.deadlines[seq] = self.now_ms + command.ms
                case ScheduleStep(seq=seq) | StartChild(seq=seq) | WaitSignal(seq=seq):
                    if seq not in self.history:
                        self.pending.setdefault(seq, command)
                case _:
                    pass
        if only_first is None and decision.status is not DecisionStatus.CONTINUE:
            self.final = decision

    def resolve(self, seq: int, output: object = None, *, error: Failure | None = None) -> None:
        command = self.pending.pop(seq)
        name: str | None = None
        match command:
            case ScheduleStep():
                kind, name = HistoryKind.CALL, command.name
            case StartTimer():
                kind, name = HistoryKind.TIMER, f"sleep:{seq}"
                self.now_ms = max(self.now_ms, self.deadlines.pop(seq))
            case WaitSignal():
                kind = HistoryKind.SIGNAL
            case StartChild():
                kind = HistoryKind.CHILD
            case RecordStep():
                raise AssertionError("a recorded step is never pending")
        self.history[seq] = HistoryEvent(
            seq=seq, kind=kind, name=name, output=payload(output), error=error
        )


def new_replay(worker: Worker, task: WorkflowTask) -> Replay:
    definition: WorkflowDefinition = worker.workflows[task.workflow, task.workflow_version]
    return Replay(definition, task, lambda replay, t: WorkflowContext(replay, t, worker))


LocalStepRunner = Callable[[str, int, Any], RecordStep]


def run_local(name: str, seq: int, value: object) -> RecordStep:
    return RecordStep(seq=seq, name=name, output=payload(f"{name}@{seq}"))


def take_turn(
    replay: Replay, task: WorkflowTask, *, now_ms: int, local: LocalStepRunner = run_local
) -> WorkflowDecision:
    outcome = replay.begin(task, now_ms=now_ms)
    while isinstance(outcome, RunLocally):
        outcome = replay.go_on(
            {op.seq: local(op.name or "", op.seq, op.input) for op in outcome.steps}
        )
    return outcome


def full_turn(worker: Worker, task: WorkflowTask, *, now_ms: int = 1_000_000) -> WorkflowDecision:
    replay = new_replay(worker, task)
    try:
        return take_turn(replay, task, now_ms=now_ms)
    finally:
        replay.dispose()


def finish(
    worker: Worker, operator: ModelOperator, answers: dict[str, object] | None = None
) -> WorkflowDecision:
    """Answer everything at once, turn by turn, until the run ends."""
    given = answers or {}
    for _ in range(1_000):
        decision = full_turn(worker, operator.task(), now_ms=operator.now_ms)
        operator.apply(decision)
        if operator.final is not None:
            return operator.final
        assert operator.pending, decision
        for seq, command in sorted(operator.pending.items()):
            operator.resolve(seq, given.get(_key(command)))
    raise AssertionError("the run did not end within 1,000 turns")


def _key(command: AnyCommand) -> str:
    match command:
        case ScheduleStep():
            return command.name
        case WaitSignal():
            return command.signal
        case StartChild():
            return command.workflow
        case _:
            return ""


# Random bodies


@dataclass(frozen=True)
class Do:
    """One of the operations of `_do`."""

    kind: str
    tag: int


@dataclass(frozen=True)
class Combine:
    """Parts in sequence, or together: gather, race, group, completed, timeout."""

    how: str
    parts: "tuple[Node, ...]"


Node = Do | Combine


async def perform(ctx: WorkflowContext, node: Node, log: list[str]) -> str:
    match node:
        case Do():
            outcome = await _do(ctx, node)
        case Combine(how="sequence"):
            outcome = ",".join([await perform(ctx, part, log) for part in node.parts])
        case Combine(how="gather"):
            results = await asyncio.gather(
                *(perform(ctx, part, log) for part in node.parts), return_exceptions=True
            )
            outcome = "|".join(map(str, results))
        case Combine(how="group"):
            outcome = await _group(ctx, node.parts, log)
        case Combine(how="race"):
            outcome = await _race(ctx, node.parts, log)
        case Combine(how="completed"):
            outcome = await _completed(ctx, node.parts, log)
        case Combine(how="timeout"):
            try:
                async with asyncio.timeout(5):
                    outcome = await perform(ctx, node.parts[0], log)
            except TimeoutError:
                outcome = "timeout"
        case _:
            raise AssertionError(node)
    log.append(outcome)
    return outcome


async def _do(ctx: WorkflowContext, node: Do) -> str:  # noqa: PLR0912 - one for each kind
    name = f"{node.kind}-{node.tag}"
    match node.kind:
        case "step" | "failing":
            try:
                return str(await ctx.step(name, node.tag))
            except Exception as error:
                return f"E{error.__class__.__name__}"
        case "sleep":
            await ctx.sleep(node.tag + 1)
            return "slept"
        case "signal":
            return str(await ctx.wait_signal(name))
        case "timed":
            try:
                return str(await ctx.wait_signal(f"shared-{node.tag % 2}", timeout=3))
            except TimeoutError:
                return "timed out"
        case "child":
            return str(await ctx.child(name, node.tag))
        case "now":
            return str(ctx.now().timestamp())
        case "local":
            return str(await ctx.local_step(local_work))
        case "effect":
            return str(ctx.side_effect(lambda: node.tag))
        case "publish":
            ctx.set_event(name, node.tag)
            return "published"
        case "event":
            try:
                return str(await ctx.wait_event(f"shared-{node.tag % 2}", timeout=3))
            except TimeoutError:
                return "no event"
        case "hook" | "unused-hook":
            return await _called_back(ctx, name, is_awaited=node.kind == "hook")
        case _:
            raise AssertionError(node)


async def _called_back(ctx: WorkflowContext, name: str, *, is_awaited: bool) -> str:
    """A webhook that is outstanding during a step, then given up, then taken up again."""
    hook = ctx.webhook()
    asked = str(await ctx.step(name, hook.token))
    if not is_awaited:
        return asked
    try:
        return f"{asked} {await hook.wait(timeout=2)}"
    except TimeoutError:
        return f"{asked} late {await hook}"


async def local_work() -> str:
    raise AssertionError("run by the model")


async def _group(ctx: WorkflowContext, parts: Sequence[Node], log: list[str]) -> str:
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(perform(ctx, part, log)) for part in parts]
    except BaseExceptionGroup as failures:
        return f"G{len(failures.exceptions)}"
    return "+".join(task.result() for task in tasks)


async def _race(ctx: WorkflowContext, parts: Sequence[Node], log: list[str]) -> str:
    tasks = {asyncio.ensure_future(perform(ctx, part, log)) for part in parts}
    done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    return "first:" + "/".join(task.result() for task in done)


async def _completed(ctx: WorkflowContext, parts: Sequence[Node], log: list[str]) -> str:
    results = []
    for future in asyncio.as_completed([perform(ctx, part, log) for part in parts]):
        results.append(await future)
        if len(results) == 2:
            await ctx.step("between", len(results))
    return ">".join(results)


def worker_for(node: Node) -> Worker:
    worker = Worker()

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext) -> list[str]:
        log: list[str] = []
        await perform(ctx, node, log)
        return log

    worker.step("local-work")(local_work)
    return worker
