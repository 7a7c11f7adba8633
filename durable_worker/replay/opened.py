"""A turn as its body sees it: with the context that travelled in the input's envelope."""

from typing import Any

import msgspec
from msgspec import Raw, structs

from durable_worker.protocol.runs import RunRecord
from durable_worker.protocol.tasks import WorkflowTask


class OpenedTask(WorkflowTask, frozen=True, kw_only=True):
    """Never sent to an operator, but to whatever replays the turn once more."""

    context: Raw


class OpenedRun(RunRecord, frozen=True, kw_only=True):
    """A run with the context that was in its input's envelope; never sent by an operator."""

    context: Raw


def opened_run(run: RunRecord, context: Raw) -> OpenedRun:
    fields: dict[str, Any] = structs.asdict(run)
    fields["context"] = context
    return OpenedRun(**fields)


def opened_task(task: WorkflowTask, context: Raw) -> OpenedTask:
    fields: dict[str, Any] = structs.asdict(task)
    fields["context"] = context
    return OpenedTask(**fields)


def context_of(task: WorkflowTask) -> Raw | None:
    """A JSON object."""
    return task.context if isinstance(task, OpenedTask) else None


def context_values(context: Raw | None) -> dict[str, Any]:
    """New values with each call, so that no body can change those of another."""
    return {} if context is None else msgspec.json.decode(context, type=dict[str, Any])
