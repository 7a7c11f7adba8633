"""In tests and development every turn is replayed twice, and has to come out the same."""

import asyncio
import itertools
import json
import random
import sys
import time
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from msgspec import Raw
from structlog.testing import capture_logs

from durable_worker import Worker, WorkflowContext
from durable_worker.embedded import Embedded
from durable_worker.errors import RunFailedError, UsageError
from durable_worker.protocol.commands import DecisionStatus, RecordStep, WorkflowDecision
from durable_worker.protocol.tasks import WorkflowTask
from durable_worker.replay.operations import LocalStep
from durable_worker.worker.determinism.checks import checks_for
from durable_worker.worker.determinism.policy import (
    DETERMINISM_VARIABLE,
    Determinism,
    determinism_here,
)
from durable_worker.worker.options import WorkerOptions
from durable_worker.worker.turns import TurnRunner
from tests.replay.model import Body, ModelOperator

pytestmark = pytest.mark.anyio

HERE = Path(__file__).relative_to(Path.cwd())


class Local:
    """Runs local steps, and counts them."""

    def __init__(self) -> None:
        self.ran: list[str | None] = []

    async def __call__(self, task: WorkflowTask, step: LocalStep) -> RecordStep:
        self.ran.append(step.name)
        output = Raw(json.dumps(f"{step.name}@{len(self.ran)}").encode())
        return RecordStep(seq=step.seq, name=step.name or "", output=output)


def runner_for(worker: Worker, local: Local | None = None) -> TurnRunner:
    return TurnRunner(
        worker,
        run_locally=local or Local(),
        checks=checks_for(worker, Determinism.RAISE),
    )


async def decide(body: Body) -> WorkflowDecision:
    worker = Worker()
    worker.workflow("flow")(body)
    return await runner_for(worker).decide(ModelOperator().task())


async def finish(worker: Worker, local: Local | None = None) -> WorkflowDecision:
    """Answer everything in turn until the run ends."""
    runner, operator = runner_for(worker, local), ModelOperator()
    for _ in range(50):
        decision = await runner.decide(operator.task())
        operator.apply(decision)
        if operator.final is not None:
            runner.close()
            return operator.final
        for seq in sorted(operator.pending)[:1]:
            operator.resolve(seq, f"{seq}")
    raise AssertionError("the run did not end")


def differences(decision: WorkflowDecision) -> list[str]:
    assert decision.status is DecisionStatus.FAILED
    assert decision.commands == []
    assert decision.error is not None
    assert decision.error.code == "replay-diverged"
    assert decision.error.retryable is False
    return decision.error.message.splitlines()[1:]


@pytest.fixture
def library(tmp_path: Path) -> ModuleType:
    """A module that is installed, so that what it does with a clock is its own business."""
    file = tmp_path / "site-packages" / "someones.py"
    file.parent.mkdir()
    file.write_text(
        "import random, time\n"
        "def draw(): return random.random()\n"
        "def stamp(): return time.time_ns()\n"
        "def peek():\n"
        "    state = random.getstate()\n"
        "    try: return random.random()\n"
        "    finally: random.setstate(state)\n"
    )
    module = ModuleType("someones")
    exec(compile(file.read_text(), str(file), "exec"), module.__dict__)
    return module


async def test_what_is_not_the_same_twice_is_shown_side_by_side() -> None:
    numbers = itertools.count(1)

    async def body(ctx: WorkflowContext) -> None:
        await ctx.step("first", 1)
        await ctx.step("pay", next(numbers))

    worker = Worker()
    worker.workflow("flow")(body)
    with capture_logs() as logged:
        decision = await finish(worker)
    place = f"{HERE}:{body.__code__.co_firstlineno + 2}"
    assert [line.split() for line in differences(decision)] == [
        ["seq", "first", "time", "second", "time"],
        ["1", "step", "'pay'", "step", "'pay'"],
        ["1", "2"],
        [place, place],
        ["end", "waits", "waits"],
    ]
    assert decision.error is not None
    assert [(each["event"], each["hint"]) for each in logged] == [
        ("replay_diverged", decision.error.message)
    ]


@pytest.mark.parametrize("what", ["draw", "stamp", "peek"])
async def test_what_a_library_makes_of_clock_or_chance_is_found_in_the_output(
    library: Any, what: str
) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        return getattr(library, what)()

    _head, end = differences(await decide(body))
    assert end.startswith("end  returns ")
    assert len({*end.split("returns ")[1:]}) == 2


async def test_a_body_that_keeps_state_in_a_global_takes_another_way() -> None:
    seen: set[str] = set()

    async def body(ctx: WorkflowContext) -> None:
        if "x" in seen:
            ctx.side_effect(lambda: 1)
        seen.add("x")
        await ctx.step("a")

    line = body.__code__.co_firstlineno
    assert [each.split() for each in differences(await decide(body))[1:]] == [
        ["0", "step", "'a'", "a", "side", "effect"],
        [f"{HERE}:{line + 4}", f"{HERE}:{line + 2}"],
        ["end", "waits", "has", "another", "way", "to", "go"],
    ]


async def test_a_local_step_that_only_the_second_replay_needs_does_not_run() -> None:
    worker, local, seen = Worker(), Local(), set[str]()

    @worker.step("look")
    async def look(key: str) -> str:
        return key

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext) -> None:
        if "x" in seen:
            await ctx.local_step(look, "there")
        seen.add("x")

    lines = differences(await finish(worker, local))
    assert lines[1].split() == ["0", "nothing", "local", "step", "'look'"]
    assert local.ran == []


async def test_the_input_of_a_local_step_is_compared() -> None:
    worker, local, numbers = Worker(), Local(), itertools.count()

    @worker.step("look")
    async def look(key: int) -> str:
        return str(key)

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext) -> str:
        return await ctx.local_step(look, next(numbers))

    lines = differences(await finish(worker, local))
    assert lines[2].split() == ["0", "1"]
    assert local.ran == ["look"]


async def test_side_effects_and_local_steps_happen_once_and_are_given_to_the_second_replay() -> (
    None
):
    worker, local, produced = Worker(), Local(), list[int]()

    @worker.step("look")
    async def look() -> str: ...  # type: ignore[empty-body]

    def produce() -> int:
        produced.append(1)
        return time.time_ns()

    def refuse() -> int:
        produced.append(2)
        raise ValueError(str(time.time_ns()))

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext) -> list[Any]:
        values: list[Any] = [ctx.side_effect(produce), await ctx.local_step(look)]
        try:
            ctx.side_effect(refuse)
        except Exception as error:
            values.append(str(error))
        await ctx.step("a")
        ctx.set_event("k", [ctx.now(), ctx.uuid(), ctx.random.random(), ctx.patched("p")])
        return [*values, await ctx.local_step(look), ctx.side_effect(produce)]

    decision = await finish(worker, local)
    assert decision.status is DecisionStatus.COMPLETED, decision.error
    assert produced == [1, 2, 1]
    assert local.ran == ["look", "look"]


async def test_turns_of_kept_bodies_with_parts_delivered_and_timers_come_out_the_same() -> None:
    worker = Worker()

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext) -> list[Any]:
        async def one(name: str) -> Any:
            got = await ctx.step(name)
            await ctx.sleep(5)
            return [got, await ctx.wait_signal(f"{name}-go"), await ctx.child("other", got)]

        child = ctx.start_child("early")
        return [*await asyncio.gather(one("a"), one("b"), one("c")), await child]

    decision = await finish(worker)
    assert decision.status is DecisionStatus.COMPLETED, decision.error


async def test_a_failure_whose_text_is_not_the_same_twice_is_left_as_it_is() -> None:
    numbers = itertools.count()

    async def body(ctx: WorkflowContext) -> None:
        raise ValueError(f"{next(numbers)}")

    decision = await decide(body)
    assert decision.error is not None
    assert decision.error.code == "ValueError"


async def test_the_global_random_goes_on_as_if_there_had_been_no_second_replay() -> None:
    async def body(ctx: WorkflowContext) -> None:
        await ctx.step("a")

    random.seed(7)
    expected = [random.random(), random.random()]
    random.seed(7)
    drawn = [random.random()]
    await decide(body)
    assert [*drawn, random.random()] == expected


async def test_long_values_are_shown_from_where_they_differ() -> None:
    numbers = itertools.count()

    async def body(ctx: WorkflowContext) -> None:
        await ctx.step("a", {"text": "x" * 500, "zed": next(numbers)})

    value = differences(await decide(body))[2]
    assert '"zed":0' in value
    assert '"zed":1' in value
    assert len(value) < 200


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (None, "replay-diverged"),
        (WorkerOptions(grace=timedelta(0)), "replay-diverged"),
        (WorkerOptions(determinism=Determinism.WARN), None),
    ],
)
async def test_the_embedded_operator_replays_twice_in_tests(
    options: WorkerOptions | None, code: str | None
) -> None:
    worker, numbers = Worker(), itertools.count()

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext) -> int:
        return next(numbers)

    async with Embedded(worker, options=options) as client:
        handle = await client.start("flow", run_id="r1")
        try:
            await handle.result()
            found = None
        except RunFailedError as error:
            found = error.code
    assert found == code


def test_under_pytest_the_default_is_to_raise_and_the_environment_overrides_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert determinism_here() is Determinism.RAISE
    monkeypatch.setenv(DETERMINISM_VARIABLE, "off")
    assert determinism_here() is Determinism.OFF
    monkeypatch.setenv(DETERMINISM_VARIABLE, "loud")
    with pytest.raises(UsageError, match="'loud'; it can be off, warn, raise"):
        determinism_here()
    monkeypatch.delenv(DETERMINISM_VARIABLE)
    monkeypatch.delenv("PYTEST_VERSION", raising=False)
    monkeypatch.delenv("PYTEST_CURRENT_TEST", raising=False)
    assert not sys.flags.dev_mode
    assert determinism_here() is Determinism.WARN
