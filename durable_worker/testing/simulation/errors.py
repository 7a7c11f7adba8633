"""Whose fault it is when a simulation ends badly: the caller's, or that of what it ran."""

from typing import TYPE_CHECKING

from durable_worker.errors import DurableError, UsageError

if TYPE_CHECKING:
    from durable_worker.testing.simulation.campaign import Report


class OutsideSimulationError(DurableError):
    """A step or worker wants something of the world that a simulation does not have."""

    code = "outside-simulation"


class MissingStepsError(UsageError):
    """A workflow calls steps of which it is not known whether they may be run. `names`: them."""

    code = "missing-steps"

    def __init__(self, needed: str, names: list[str]) -> None:
        self.names = names
        listed = ", ".join(repr(each) for each in names)
        super().__init__(
            f"the workflow calls step {needed!r}, which a simulation may not run as it is. Say "
            f"what it returns (--stub {needed}=JSON, stubs={{...}}), or that it may be run many "
            f"times because it does nothing outside (--real {needed}, real=[...]). Steps without "
            f"either: {listed}."
        )


class SimulationFailedError(DurableError, AssertionError):
    """Some seeds have shown what must not happen. `report` has them."""

    code = "simulation-failed"

    def __init__(self, report: "Report") -> None:
        self.report = report
        first = report.failures[0]
        count = len(report.failures)
        super().__init__(f"{count} of {report.seeds:,} seeds failed; {first}")
