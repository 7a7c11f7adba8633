from msgspec import UNSET

from durable_worker.protocol.base import Message, Payload


class Failure(Message, frozen=True, kw_only=True):
    """Why a step, child or run failed. Only `retryable=False` rules retries out."""

    message: str
    code: str | None = None
    retryable: bool | None = None
    stack: str | None = None
    details: Payload = UNSET


GIVEN_UP = Failure(
    message="the step was cancelled: its workflow waits for it no longer",
    code="cancelled",
    retryable=False,
)
"""Of a call that its body has given up: steps may fail with the same code for reasons of theirs."""
