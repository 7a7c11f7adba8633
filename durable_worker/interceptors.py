"""What interceptors are given: the types for the signatures of their hooks."""

from durable_worker.replay.interception import (
    BodyExecution,
    Method,
    Operation,
    Proceed,
    SleepOperation,
    StepOperation,
    WaitOperation,
)
from durable_worker.worker.interception import Interceptor, StepExecution, TurnExecution

__all__ = [
    "BodyExecution",
    "Interceptor",
    "Method",
    "Operation",
    "Proceed",
    "SleepOperation",
    "StepExecution",
    "StepOperation",
    "TurnExecution",
    "WaitOperation",
]
