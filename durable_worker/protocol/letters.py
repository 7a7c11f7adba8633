"""Dead letters as an operator tells them."""

from durable_worker.protocol.base import Attempt, Count, Message, Name, StepSeq


class DeadLetterRecord(Message, frozen=True, kw_only=True):
    """A message that nobody could use. Times are ISO 8601, UTC; `size` is that of the body.

    `headers` and `body` (base64) are left out of listings.
    """

    id: Name
    received_at: str
    reason: str
    status: str
    size: Count
    type: str | None = None
    message_id: str | None = None
    queue: str | None = None
    namespace: str | None = None
    run_id: str | None = None
    seq: StepSeq | None = None
    task_id: str | None = None
    attempt: Attempt | None = None
    name: str | None = None
    redriven_at: str | None = None
    redrives: Count | None = None
    headers: dict[str, str] | None = None
    body: str | None = None
