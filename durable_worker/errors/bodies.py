"""What a workflow body is given, and what it may not do: for the author of a workflow."""

from collections.abc import Sequence

from msgspec import Struct

from durable_worker.errors.base import DurableError


class FailureError(DurableError):
    """Something that a workflow body waited for has failed; carries the failure from the wire.

    Attributes: `name` of the step or workflow, `seq` of the operation, `message`, `code`, `details`
    (decoded JSON, None if absent), `retryable` (False: the failing side ruled a retry out).
    """

    noun = "operation"

    def __init__(
        self,
        name: str,
        message: str,
        *,
        seq: int,
        code: str | None = None,
        details: object = None,
        retryable: bool | None = None,
        remote_stack: str | None = None,
    ) -> None:
        suffix = f" [{code}]" if code else ""
        super().__init__(f"{self.noun} {name!r} failed{suffix}: {message}")
        self.name = name
        self.seq = seq
        self.message = message
        self.code = code
        self.details = details
        self.retryable = retryable
        self.remote_stack = remote_stack


class StepFailedError(FailureError):
    """A step has failed after the last attempt that its retry policy allows."""

    noun = "step"


class StepTimeoutError(StepFailedError, TimeoutError):
    """A step had no result within its timeout, after the last attempt that its policy allows.

    The attempt may still be running, and may still take effect.
    """

    code = "timeout"


class ChildFailedError(FailureError):
    """A child workflow ended in another state than `completed`."""

    noun = "child workflow"


class TaskFailedError(FailureError):
    """Whoever completes an external task (`ctx.task`) has reported that it failed."""

    noun = "task"


class SideEffectFailedError(FailureError):
    """The function of a `ctx.side_effect` has raised; every replay raises the same."""

    noun = "side effect"


class StepCancelledError(DurableError):
    """Nobody waits for this step: its run was cancelled, or its body has given it up.

    `StepContext.raise_if_cancelled` raises it; an attempt that was stopped fails with it.
    """

    code = "cancelled"


DIFF_LINES = 10
"""So many lines on either side of a mismatch travel with the failure of a run."""


class DiffLine(Struct, frozen=True, omit_defaults=True):
    """What history holds at one seq, and what the code asks for there; None: nothing.

    `location` is the `file:line` that asks.
    """

    seq: int
    history: str | None = None
    code: str | None = None
    location: str | None = None
    differs: bool = False


class NondeterminismError(DurableError):
    """Today's code asks for something else than what the run's history holds.

    Attributes: `seq` of the mismatch, `recorded`, `asked`, `location` (`file:line` of the code),
    `lines`: all of both sides by seq, where they are known.
    """

    code = "nondeterminism"

    def __init__(
        self,
        *,
        seq: int,
        recorded: str,
        asked: str,
        location: str,
        lines: Sequence[DiffLine] = (),
    ) -> None:
        super().__init__(
            f"the workflow no longer matches its history at seq {seq}: history holds {recorded}, "
            f"the code asks for {asked} ({location}). Let the run finish on the code that started "
            f"it, or register the changed body under a new version."
        )
        self.seq = seq
        self.recorded = recorded
        self.asked = asked
        self.location = location
        self.lines = tuple(lines)

    @property
    def details(self) -> dict[str, object]:
        """The `details` of the failure on the wire; `diff` holds the lines around the mismatch."""
        return {
            "seq": self.seq,
            "recorded": self.recorded,
            "asked": self.asked,
            "location": self.location,
            "diff": self.near,
        }

    @property
    def near(self) -> tuple[DiffLine, ...]:
        """The lines around the mismatch."""
        return tuple(each for each in self.lines if abs(each.seq - self.seq) <= DIFF_LINES)


class WorkflowStuckError(DurableError):
    """A workflow body waits for something that no step, timer, signal or child can bring about."""

    code = "stuck"


class NeverAwaitedError(DurableError):
    """A workflow body called a context operation without awaiting it."""

    code = "never-awaited"


class UnsupportedInWorkflowError(DurableError):
    """A workflow body used something that cannot be replayed (sockets, threads, executors)."""

    code = "unsupported-in-workflow"


class NondeterministicCallError(UnsupportedInWorkflowError):
    """A workflow body called something that a replay could not repeat, such as `time.time`.

    Attributes: `call`, `instead` (what to use), `location` (`file:line` of the call), `workflow`.
    """

    code = "nondeterministic-call"

    def __init__(self, call: str, *, instead: str, location: str, workflow: str) -> None:
        super().__init__(
            f"{call} was called in the body of workflow {workflow!r} at {location}, and a replay "
            f"could not repeat it: {instead}"
        )
        self.call = call
        self.instead = instead
        self.location = location
        self.workflow = workflow


class ReplayDivergedError(DurableError):
    """A turn was replayed a second time on the same history, and the body asked for other things.

    Attributes: `workflow`, `differences` (lines of a table: seq, first time, second time).
    """

    code = "replay-diverged"

    def __init__(self, workflow: str, *, differences: Sequence[str], conditions: str) -> None:
        table = "\n".join(differences)
        super().__init__(
            f"the body of workflow {workflow!r} did not ask for the same when the turn was "
            f"replayed a second time on the same history, {conditions}. What it asks for must "
            f"follow from its input and from what ctx gives it alone: sort sets before you "
            f"iterate, use ctx.now(), ctx.random and ctx.side_effect, and keep no state in "
            f"globals.\n{table}"
        )
        self.workflow = workflow
        self.differences = list(differences)


class UnsupportedByOperatorError(DurableError):
    """A workflow body asked for what no command of protocol version 1 can express.

    `capability` is what the operator would have to state, and this worker to know.
    """

    code = "unsupported-by-operator"

    def __init__(self, what: str, capability: str, *, is_stated: bool = False) -> None:
        missing = (
            f"the operator offers it (capability {capability!r}), this version of durable_worker "
            f"does not know how to ask for it yet"
            if is_stated
            else f"the operator of this run does not state the capability {capability!r}"
        )
        super().__init__(f"{what} cannot be used: {missing}")
        self.capability = capability
