"""Every error the library raises, under one base.

Errors are split by who has to act: the author of a step (`FatalError`), the author of a workflow
(`StepFailedError`, `NondeterminismError`), whoever set the worker up (`RegistrationError`,
`PayloadError`), and whoever runs the infrastructure (`TransportError`, `StoreError`).
"""

from collections.abc import Sequence

from msgspec import Struct

DIFF_LINES = 10
"""So many lines on either side of a mismatch travel with the failure of a run."""


class DurableError(Exception):
    """Base of all errors raised by durable_worker. `str(error)` is a full sentence."""

    code: str | None = None
    """Stable identifier: the `code` of a failure on the wire. None: the class name is used."""


class FatalError(DurableError):
    """Raise it in a step to fail that step for good: no retry policy applies.

    `code` and `details` (any JSON value) reach the workflow as they are.
    """

    def __init__(self, message: str, *, code: str | None = None, details: object = None) -> None:
        super().__init__(message)
        self.code = code
        self.details = details


class RegistrationError(DurableError):
    """A step or workflow cannot be registered, or a reference to one cannot be resolved."""

    code = "registration"


class InterceptorError(DurableError):
    """An interceptor cannot be used, or changed a call to something that cannot be."""

    code = "interceptor"


class PayloadError(DurableError):
    """A value does not fit its annotation, or cannot be written as JSON."""

    code = "payload"

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"{what}: {reason}")
        self.what = what
        self.reason = reason


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
    """Raised by `StepContext.raise_if_cancelled` once the run was cancelled."""

    code = "cancelled"


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


LONGEST_REASON = 500
"""Characters of what is said about a message that cannot be understood."""

LONGEST_TYPE = 40


class ProtocolError(DurableError):
    """A message cannot be understood; `reason` names the field and what was expected.

    It may quote the message, so it is cut off: it is logged, sent in a header and shown.
    """

    code = "malformed"

    def __init__(self, message_type: str, reason: str) -> None:
        message_type = message_type[:LONGEST_TYPE]
        if len(reason) > LONGEST_REASON:
            reason = f"{reason[:LONGEST_REASON]}... ({len(reason):,} characters)"
        super().__init__(f"not a valid {message_type} message: {reason}")
        self.message_type = message_type
        self.reason = reason


class TransportError(DurableError):
    """Base of what goes wrong between this process and the broker."""

    code = "transport"


class ConnectionLostError(TransportError):
    """The broker connection is gone or closed; whether the last publish arrived is unknown."""

    code = "connection-lost"


class BrokerRefusedError(TransportError):
    """The broker answered and refused: bad credentials, unknown vhost, missing permission.

    Retrying cannot help until somebody changes the configuration.
    """

    code = "broker-refused"


class UnroutableError(TransportError):
    """A message was published to a queue that does not exist; the broker returned it."""

    code = "unroutable"

    def __init__(self, queue: str) -> None:
        super().__init__(
            f"queue {queue!r} does not exist, the broker returned the message. Is the receiving "
            f"side on the same prefix, namespace and virtual host?"
        )
        self.queue = queue


class PublishRejectedError(TransportError):
    """The broker refused to take a message (queue full or publish negatively acknowledged)."""

    code = "publish-rejected"


class PayloadTooLargeError(TransportError):
    """A message, or a payload that would become one, is larger than a limit; it was not sent.

    Attributes: `size` and `limit` in bytes, `queue` (None where there is no broker), and whether
    the limit `is_brokers` instead of our own.
    """

    code = "payload-too-large"

    def __init__(
        self,
        *,
        size: int,
        limit: int,
        queue: str | None = None,
        what: str = "the message",
        is_brokers: bool = False,
    ) -> None:
        whose = (
            "max_message_size of the broker"
            if is_brokers
            else "max_message_bytes, --max-message-bytes, DURABLE_MAX_MESSAGE_BYTES"
        )
        target = "" if queue is None else f" for {queue!r}"
        super().__init__(
            f"{what}{target} has {size:,} bytes, the limit is {limit:,} ({whose}). Keep large data "
            f"elsewhere and pass a reference, as ClaimCheck in durable_worker.payloads does, or "
            f"raise the limit for workers, operators, clients and on the broker."
        )
        self.size = size
        self.limit = limit
        self.queue = queue
        self.is_brokers = is_brokers


class UnsendableError(TransportError):
    """A name or a property of a message is longer than a broker can carry; it was not sent.

    Attributes: `field` (what is too long), `size` and `limit` in bytes of UTF-8.
    """

    code = "unsendable"

    def __init__(self, field: str, text: str, *, size: int, limit: int) -> None:
        super().__init__(
            f"the {field} {text[:40]!r}... has {size:,} bytes, the limit is {limit}. Shorten the "
            f"id, the prefix, the namespace or the handler's name that it is made of."
        )
        self.field = field
        self.size = size
        self.limit = limit


class StoreError(DurableError):
    """The database cannot be opened, read or written."""

    code = "store"


class StoreUnavailableError(StoreError):
    """The database cannot be reached at present, or has no connection left; nothing else is wrong
    with it, so it may be there again soon."""


class StoreFullError(StoreError):
    """The disk that holds the database is full; nothing was written."""

    code = "store-full"


class LeaseLostError(StoreError):
    """Another operator has taken over this database; this one must stop writing."""

    code = "lease-lost"


class StaleRunsError(StoreError):
    """Another operator was faster with something that this transaction rests on; nothing was
    written. What it applies has to be applied again, to what there is now."""


class RunNotFoundError(DurableError):
    """No run has this id in this namespace."""

    code = "run-not-found"

    def __init__(self, run_id: str) -> None:
        super().__init__(f"there is no run {run_id!r}; `durable-worker runs` lists what exists")
        self.run_id = run_id


class RunExistsError(DurableError):
    """A run with this id exists already, or has existed."""

    code = "run-exists"

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"run {run_id!r} exists already. Choose another run id, or start it with "
            f"reuse='return' to get a handle on it, reuse='terminate' to take its place"
        )
        self.run_id = run_id


class RunEndedError(DurableError):
    """What was meant for a run came after its end. `status` is the one that it ended in."""

    code = "run-ended"

    def __init__(self, run_id: str, what: str, *, status: str) -> None:
        super().__init__(f"run {run_id!r} is {status}, nobody there takes {what} any more")
        self.run_id = run_id
        self.status = status


class RunFailedError(DurableError):
    """A run ended in another state than `completed`.

    Attributes: `run_id`, `workflow`, `status` (`failed`, `cancelled` or `dead`), `message`, `code`,
    `details` (decoded JSON, None if absent).
    """

    def __init__(
        self,
        run_id: str,
        workflow: str,
        *,
        status: str,
        message: str | None = None,
        code: str | None = None,
        details: object = None,
    ) -> None:
        suffix = f" [{code}]" if code else ""
        reason = f": {message}" if message else ""
        how = {"failed": "failed", "cancelled": "was cancelled"}.get(status, f"is {status}")
        super().__init__(f"run {run_id!r} ({workflow}) {how}{suffix}{reason}")
        self.run_id = run_id
        self.workflow = workflow
        self.status = status
        self.message = message
        self.code = code
        self.details = details


class RunCancelledError(RunFailedError):
    """A run was cancelled; with the code `replaced` by the start of another one in its place."""


class QueryFailedError(DurableError):
    """A query of a run has no answer: nothing is published under the name, or its handler raised.

    Attributes: `run_id`, `name`, `reason`.
    """

    code = "query-failed"

    def __init__(self, run_id: str, name: str, reason: str) -> None:
        super().__init__(f"run {run_id!r} does not answer the query {name!r}: {reason}")
        self.run_id = run_id
        self.name = name
        self.reason = reason


class RequestRefusedError(DurableError):
    """The operator answered a request with an error."""

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class UnsupportedRequestError(RequestRefusedError):
    """The operator does not know this kind of request; `request` names it."""

    def __init__(self, request: str, told: str) -> None:
        super().__init__(
            f"the operator does not support {request}: {told}. An operator of durable-worker "
            f"of this release does; a NestJS operator does not",
            code="unsupported",
        )
        self.request = request


NOT_STOPPED = "not-stopped"


class NotStoppedError(RequestRefusedError):
    """A run that somebody wants to set going again has not stopped, or cannot be taken up."""

    def __init__(self, run_id: str, reason: str) -> None:
        super().__init__(reason, code=NOT_STOPPED)
        self.run_id = run_id


class TenantTokenError(DurableError):
    """A message does not prove whose it is. `tenant`: whose it would be, if that is certain."""

    code = "tenant-token"

    def __init__(self, reason: str, *, tenant: str | None = None) -> None:
        super().__init__(
            f"this operator takes the tenant from a tenant token, and with the one of this message "
            f"there is a problem: {reason}. `durable-worker token` issues one; a client sends it "
            f"with --token, DURABLE_TENANT_TOKEN or `broker_client(token=...)`"
        )
        self.reason = reason
        self.tenant = tenant


class NoOperatorError(DurableError):
    """No operator answered in time."""

    code = "no-operator"


class StartWaitsError(NoOperatorError):
    """The start of a run is recorded, but no operator has taken it up yet."""

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"the start of run {run_id!r} is recorded, but no operator has taken it up yet; "
            f"`durable-worker dev` or `durable-worker operator` on this database does"
        )
        self.run_id = run_id


class UsageError(DurableError):
    """A command line or a configuration value is wrong; the process exits with code 2."""

    code = "usage"


class InvalidModuleError(UsageError):
    """`module:attribute` does not lead to a `Worker`."""

    def __init__(self, target: str, reason: str, candidates: Sequence[str] = ()) -> None:
        hint = f" Found instead: {', '.join(candidates)}." if candidates else ""
        super().__init__(f"cannot load {target!r}: {reason}{hint}")
        self.target = target
