"""The base of all errors, and what the author of a step, of a worker or of a call can mend."""

from collections.abc import Sequence


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


class UsageError(DurableError):
    """A command line or a configuration value is wrong; the process exits with code 2."""

    code = "usage"


class InvalidModuleError(UsageError):
    """`module:attribute` does not lead to a `Worker`."""

    def __init__(self, target: str, reason: str, candidates: Sequence[str] = ()) -> None:
        hint = f" Found instead: {', '.join(candidates)}." if candidates else ""
        super().__init__(f"cannot load {target!r}: {reason}{hint}")
        self.target = target
