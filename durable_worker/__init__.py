"""Durable workflows in plain async Python that no crash can break."""

from durable_worker.errors import (
    ChildFailedError,
    DurableError,
    FatalError,
    NondeterminismError,
    PayloadError,
    RegistrationError,
    StepCancelledError,
    StepFailedError,
)
from durable_worker.replay.context import WorkflowContext
from durable_worker.replay.definitions import Retry
from durable_worker.replay.webhook import Webhook
from durable_worker.version import VERSION as __version__
from durable_worker.worker.registry import Worker
from durable_worker.worker.step_context import StepContext, SubProcess, current_step

__all__ = [
    "ChildFailedError",
    "DurableError",
    "FatalError",
    "NondeterminismError",
    "PayloadError",
    "RegistrationError",
    "Retry",
    "StepCancelledError",
    "StepContext",
    "StepFailedError",
    "SubProcess",
    "Webhook",
    "Worker",
    "WorkflowContext",
    "__version__",
    "current_step",
]
