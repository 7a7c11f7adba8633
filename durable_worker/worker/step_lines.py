"""What the log says about steps that have ended."""

import asyncio
import logging
from collections.abc import Callable
from contextvars import Context, copy_context

import structlog

from durable_worker.protocol.failure import Failure
from durable_worker.protocol.tasks import StepTask

log = structlog.get_logger("durable_worker.worker")


class StepLines:
    """Writes the lines of one round of the event loop together, each in the context of its step:
    one by one, between other work, they cost twice as much."""

    def __init__(self) -> None:
        self._log = log.bind()  # what the module's does with each line costs more than some lines
        self._is_told = levels_of(self._log)
        self._waiting: list[tuple[Context, StepTask, float, Failure | None]] = []

    def started(self, task: StepTask) -> None:
        if self._is_told(logging.DEBUG):
            self._log.debug(
                "step_started", run_id=task.run_id, step=task.name, attempt=task.attempt
            )

    def ended(self, task: StepTask, seconds: float, error: Failure | None) -> None:
        if error is None and not self._is_told(logging.INFO):
            return
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._write)
        self._waiting.append((copy_context(), task, seconds, error))

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        for context, task, seconds, error in waiting:
            context.run(self._write_line, task, seconds, error)

    def _write_line(self, task: StepTask, seconds: float, error: Failure | None) -> None:
        if error is None:
            self._log.info(
                "step_completed",
                run_id=task.run_id,
                step=task.name,
                attempt=task.attempt,
                seconds=round(seconds, 3),
            )
        else:
            self._log.warning(
                "step_failed",
                run_id=task.run_id,
                step=task.name,
                attempt=task.attempt,
                error=error.message,
            )


def levels_of(bound: structlog.typing.FilteringBoundLogger) -> Callable[[int], bool]:
    """Whether a line of a level would be written."""
    # Of loggers that have no such method some take any name for one that writes a line.
    asks = hasattr(bound.__class__, "is_enabled_for")
    return bound.is_enabled_for if asks else _always


def _always(_: int) -> bool:
    return True
