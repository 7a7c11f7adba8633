"""What comes from outside and beside: tasks, breakpoints, signal handlers; and what fails there."""

import asyncio
from typing import Any

import pytest
from msgspec import Raw, Struct

from durable_worker import (
    SideEffectFailedError,
    TaskFailedError,
    UnsupportedByOperatorError,
    WorkflowContext,
)
from durable_worker.protocol.commands import (
    DecisionStatus,
    RecordStep,
    ScheduleStep,
    WaitSignal,
)
from tests.replay.model import ModelOperator, turn


class Approval(Struct):
    by: str


# Tasks and breakpoints


async def approve(ctx: WorkflowContext) -> str:
    task = ctx.task("approve", returns=Approval)
    await ctx.step("ask", task.token)
    try:
        return (await task).by
    except TaskFailedError as error:
        return f"{error.code} {error}"


def test_a_task_is_a_signal_named_after_run_and_task_and_is_open_while_it_is_handed_out() -> None:
    assert turn(approve, ModelOperator()).commands == [
        WaitSignal(seq=0, signal="task:run-1:approve"),
        ScheduleStep(seq=1, name="ask", group="default", input=Raw(b'"task:run-1:approve"')),
    ]


@pytest.mark.parametrize(
    ("completion", "outcome"),
    [
        ({"ok": True, "value": {"by": "Ada"}}, "Ada"),
        ({"ok": False, "error": "on holiday"}, "None task 'approve' failed: on holiday"),
        (
            {"ok": False, "error": {"message": "no", "code": "Denied"}},
            "Denied task 'approve' failed [Denied]: no",
        ),
        ({"ok": False}, "None task 'approve' failed: no reason was given"),
    ],
)
def test_a_task_ends_as_whoever_completes_it_says(completion: object, outcome: str) -> None:
    operator = ModelOperator()
    turn(approve, operator)
    operator.resolve(0, completion)
    operator.resolve(1)
    assert bytes(turn(approve, operator).output).decode() == f'"{outcome}"'


@pytest.mark.parametrize("completion", [{"ok": True, "value": 5}, {"ok": "yes"}, [1]])
def test_a_completion_that_does_not_fit_fails_where_the_task_is_awaited(completion: Any) -> None:
    operator = ModelOperator()
    turn(approve, operator)
    operator.resolve(0, completion)
    operator.resolve(1)
    error = turn(approve, operator).error
    assert error is not None
    assert (error.code, "task 'approve'" in error.message) == ("payload", True)


def test_a_breakpoint_waits_for_a_signal_of_its_own() -> None:
    async def body(ctx: WorkflowContext) -> str:
        await ctx.step("a")
        await ctx.breakpoint("before b")
        return "went on"

    operator = ModelOperator()
    turn(body, operator)
    operator.resolve(0)
    assert turn(body, operator).commands == [WaitSignal(seq=1, signal="bp:run-1:1")]
    operator.resolve(1)
    assert bytes(turn(body, operator).output) == b'"went on"'


# Signal handlers


async def collect(ctx: WorkflowContext) -> list[str]:
    names: list[str] = []

    async def note(approval: Approval) -> None:
        names.append(f"{approval.by} {await ctx.step('look-up', approval.by)}")

    handling = ctx.on_signal("approve", note, returns=Approval)
    await ctx.step("long")
    handling.cancel()
    return names


def test_signals_are_handled_beside_the_body_one_after_the_other() -> None:
    operator = ModelOperator()
    turn(collect, operator)
    signal = next(s for s, c in operator.pending.items() if isinstance(c, WaitSignal))
    for by in ("Ada", "Bob"):
        operator.resolve(signal, {"by": by})
        commands = turn(collect, operator).commands
        assert not [each for each in commands if isinstance(each, WaitSignal)]
        look_up = next(c for c in commands if isinstance(c, ScheduleStep) and c.name != "long")
        assert look_up.input == Raw(f'"{by}"'.encode())
        operator.resolve(look_up.seq, "known")
        commands = turn(collect, operator).commands
        (wait,) = [each for each in commands if isinstance(each, WaitSignal)]
        signal = wait.seq
    long = next(s for s, c in operator.pending.items() if isinstance(c, ScheduleStep))
    operator.resolve(long)
    assert bytes(turn(collect, operator).output) == b'["Ada known","Bob known"]'


def test_a_handler_may_be_a_plain_function_and_set_what_the_body_awaits() -> None:
    async def body(ctx: WorkflowContext) -> str:
        approved = asyncio.Event()
        ctx.on_signal("approve", lambda _: approved.set())
        await approved.wait()
        return "approved"

    operator = ModelOperator()
    assert turn(body, operator).commands == [WaitSignal(seq=0, signal="approve")]
    operator.resolve(0)
    assert bytes(turn(body, operator).output) == b'"approved"'


@pytest.mark.parametrize("swallows", [False, True])
def test_an_error_in_a_handler_fails_the_run_which_undoes_what_it_has_done(swallows: bool) -> None:
    async def body(ctx: WorkflowContext) -> None:
        def refuse(payload: Any) -> None:
            raise ValueError(f"not {payload}")

        await ctx.step("a", compensate="undo-a")
        ctx.on_signal("approve", refuse)
        try:
            await ctx.sleep(60)
        except asyncio.CancelledError:
            if not swallows:
                raise

    operator = ModelOperator()
    turn(body, operator)
    operator.resolve(0)
    turn(body, operator)
    signal = next(s for s, c in operator.pending.items() if isinstance(c, WaitSignal))
    operator.resolve(signal, "this")
    decision = turn(body, operator)
    undo = next(c for c in decision.commands if isinstance(c, ScheduleStep))
    assert undo.name == "undo-a"
    operator.resolve(undo.seq)
    final = turn(body, operator)
    assert final.status is DecisionStatus.FAILED
    assert final.error is not None
    assert (final.error.code, final.error.message) == ("ValueError", "not this")


# Side effects that fail


def test_a_side_effect_that_raises_is_recorded_and_raises_the_same_on_every_replay() -> None:
    seen: list[SideEffectFailedError] = []
    times = iter([1 / 2, None])

    def flaky() -> float:
        raise OSError(f"down {next(times)}")

    async def body(ctx: WorkflowContext) -> str:
        try:
            ctx.side_effect(flaky)
        except SideEffectFailedError as error:
            seen.append(error)
        await ctx.step("a")
        return "went on"

    operator = ModelOperator()
    first, second = turn(body, operator).commands
    assert isinstance(first, RecordStep)
    assert first.error is not None
    assert (first.seq, first.name, first.error.code, first.error.message) == (
        *(0, "sideEffect", "OSError"),
        "down 0.5",
    )
    assert second == ScheduleStep(seq=1, name="a", group="default")
    operator.resolve(1)
    assert bytes(turn(body, operator).output) == b'"went on"'
    assert {str(error) for error in seen} == {str(seen[0])}
    assert len(seen) == 2
    assert "flaky' failed [OSError]: down 0.5" in str(seen[0])


def test_a_side_effect_without_json_form_fails_like_one_that_raises() -> None:
    async def body(ctx: WorkflowContext) -> str:
        with pytest.raises(SideEffectFailedError) as failed:
            ctx.side_effect(object)
        await ctx.step("a")
        return str(failed.value.code)

    operator = ModelOperator()
    turn(body, operator)
    operator.resolve(1)
    assert bytes(turn(body, operator).output) == b'"payload"'


# What only some operators can do


@pytest.mark.parametrize(
    ("ask", "capability"),
    [
        (lambda ctx: ctx.call_entity("counter", "c-1", "add", 1), "entities"),
    ],
)
@pytest.mark.parametrize("is_stated", [False, True])
def test_what_no_command_can_express_is_refused_where_it_is_asked_for(
    ask: Any, capability: str, is_stated: bool
) -> None:
    async def body(ctx: WorkflowContext) -> list[str]:
        with pytest.raises(UnsupportedByOperatorError) as refused:
            ask(ctx)
        return [refused.value.capability, str(refused.value)]

    stated: list[str] | None = [capability] if is_stated else None
    output = bytes(turn(body, ModelOperator(capabilities=stated)).output).decode()
    assert f'["{capability}"' in output
    assert ("does not state the capability" in output) is not is_stated
