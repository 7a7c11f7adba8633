"""Deterministic simulation: workflows under faults, on virtual time, from a seed."""

from durable_worker.testing.simulation.audit import Outcome
from durable_worker.testing.simulation.campaign import Failure, Report
from durable_worker.testing.simulation.chance import ALL_FAULTS, Fault, FaultKind
from durable_worker.testing.simulation.errors import (
    MissingStepsError,
    OutsideSimulationError,
    SimulationFailedError,
)
from durable_worker.testing.simulation.simulate import simulate

__all__ = [
    "ALL_FAULTS",
    "Failure",
    "Fault",
    "FaultKind",
    "MissingStepsError",
    "Outcome",
    "OutsideSimulationError",
    "Report",
    "SimulationFailedError",
    "simulate",
]
