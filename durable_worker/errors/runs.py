"""What a client is told: of a run, or of the operator that it asks."""

from durable_worker.errors.base import DurableError


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
