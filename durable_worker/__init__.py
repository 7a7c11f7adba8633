"""Durable workflows in plain async Python that no crash can break."""

from durable_worker.errors import (
    ChildFailedError,
    DurableError,
    FatalError,
    InterceptorError,
    NondeterminismError,
    PayloadError,
    RegistrationError,
    SideEffectFailedError,
    StepCancelledError,
    StepFailedError,
    StepTimeoutError,
    TaskFailedError,
    UnsupportedByOperatorError,
)
from durable_worker.replay.context import WorkflowContext
from durable_worker.replay.definitions import Retry
from durable_worker.replay.handles import ChildHandle, ExternalTask, Webhook
from durable_worker.replay.saga import Undo
from durable_worker.replay.steps import Saga
from durable_worker.version import VERSION as __version__
from durable_worker.worker.determinism.policy import unchecked
from durable_worker.worker.registry import Worker
from durable_worker.worker.step_context import StepContext, SubProcess, current_step

__all__ = [
    "ChildFailedError",
    "ChildHandle",
    "DurableError",
    "ExternalTask",
    "FatalError",
    "InterceptorError",
    "NondeterminismError",
    "PayloadError",
    "RegistrationError",
    "Retry",
    "Saga",
    "SideEffectFailedError",
    "StepCancelledError",
    "StepContext",
    "StepFailedError",
    "StepTimeoutError",
    "SubProcess",
    "TaskFailedError",
    "Undo",
    "UnsupportedByOperatorError",
    "Webhook",
    "Worker",
    "WorkflowContext",
    "__version__",
    "current_step",
    "unchecked",
]
