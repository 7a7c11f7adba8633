"""Single attempts at steps: those that a task asks for, and those inside a turn."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any

import anyio

from durable_worker.clock import Clock
from durable_worker.errors import StepCancelledError
from durable_worker.protocol.control import GivenUp
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.payload import encode_payload
from durable_worker.protocol.tasks import StepTask
from durable_worker.replay.definitions import StepDefinition
from durable_worker.replay.failures import failure_of
from durable_worker.worker.invoke import Returned, called, in_thread, is_ruled_out
from durable_worker.worker.live import LiveReports
from durable_worker.worker.registry import Worker
from durable_worker.worker.step_context import StepContext, enter_step

REMEMBERED = 2_000
"""Cancellations that are kept for steps that are still on their way here, and as many attempts that
were given up."""


class Attempts:
    """Calls the functions of steps, tells them that their run is cancelled, and stops those that
    their bodies have given up."""

    def __init__(
        self, worker: Worker, *, live: LiveReports, concurrency: int, clock: Clock
    ) -> None:
        interception = worker.interception
        has_any = interception is not None and interception.step
        self._interception = interception if has_any else None
        self._live = live
        self._now = clock.now
        self._threads = anyio.CapacityLimiter(concurrency)
        self._running: dict[StepContext, asyncio.Task[Any] | None] = {}
        self._given_up: OrderedDict[tuple[str, int], int] = OrderedDict()
        self._interrupted: set[StepContext] = set()
        self._cancelled: OrderedDict[tuple[str, int | None], None] = OrderedDict()

    async def run(
        self, definition: StepDefinition, task: StepTask, *, is_given_up: Callable[[], bool]
    ) -> tuple[Returned, StepContext]:
        """The encoded output of the step, or its failure, whatever the step raises; and its context
        with what it has told.

        Raises only `CancelledError`, and only if `is_given_up` says that the worker wants it so; a
        step that cancels itself has failed.
        """
        context = self._context(task)
        if self._given_up and task.attempt <= self._given_up.get((task.run_id, task.seq), 0):
            return _not_wanted(), context
        # A thread cannot be stopped: its step is told, like those of a cancelled run.
        running = asyncio.current_task() if definition.is_async else None
        self._running[context] = running
        self._live.started(context, task)
        try:
            enter_step(context)
            arguments = definition.arguments(task.input, context)
            if self._interception is not None:
                call = partial(called, definition, self._threads)
                output = await self._interception.run_step(definition, arguments, context, call)
            elif definition.is_async:
                output = await definition.fn(*arguments)
            else:
                output = await in_thread(definition, arguments, self._threads)
            returned: Returned = encode_payload(output, what=definition.output_name)
        except (asyncio.CancelledError, GeneratorExit) as error:
            if isinstance(error, GeneratorExit) or is_given_up():
                raise
            returned = failure_of(error)
        except BaseException as error:  # SystemExit, KeyboardInterrupt and the like are failures
            retryable = False if is_ruled_out(definition, error) else None
            returned = failure_of(error, retryable=retryable)
        finally:
            self._live.ended(context)
            del self._running[context]
            is_interrupted = bool(self._interrupted) and self._has_interrupted(context, running)
        return _not_wanted() if is_interrupted else returned, context

    def give_up(self, run_id: str, steps: Iterable[GivenUp]) -> None:
        """Stop these attempts; those that are still on their way here do not begin."""
        last = {each.seq: each.attempt for each in steps}
        for seq, attempt in last.items():
            self._given_up[run_id, seq] = max(attempt, self._given_up.get((run_id, seq), 0))
            if len(self._given_up) > REMEMBERED:
                self._given_up.popitem(last=False)
        for context, task in self._running.items():
            if context.run_id == run_id and context.attempt <= last.get(context.seq, 0):
                context.cancel()
                if task is not None and context not in self._interrupted:
                    self._interrupted.add(context)
                    task.cancel()

    def _has_interrupted(self, context: StepContext, running: asyncio.Task[Any] | None) -> bool:
        if context not in self._interrupted:
            return False
        self._interrupted.remove(context)
        if running is not None:
            running.uncancel()
        return True

    def cancel_run(self, run_id: str, seqs: Collection[int] | None = None) -> None:
        """The run is cancelled: tell its steps (only those at `seqs`), here or on their way."""
        for seq in (None,) if seqs is None else seqs:
            self._cancelled[run_id, seq] = None
            if len(self._cancelled) > REMEMBERED:
                self._cancelled.popitem(last=False)
        for context in self._running:
            if context.run_id == run_id and (seqs is None or context.seq in seqs):
                context.cancel()

    def _context(self, task: StepTask) -> StepContext:
        context = StepContext(task, reporter=self._live, now=self._now)
        cancelled = self._cancelled
        if cancelled and ((task.run_id, None) in cancelled or (task.run_id, task.seq) in cancelled):
            context.cancel()
        return context


def _not_wanted() -> Failure:
    return failure_of(StepCancelledError("its workflow waits for this step no longer"))
