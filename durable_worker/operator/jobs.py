"""What is handed to the engine."""

from collections.abc import Callable, Sequence

from msgspec import Struct

from durable_worker.stores.inputs import AnyInput
from durable_worker.stores.records import DeadLetter, OutboxRow


class Job(Struct, frozen=True, kw_only=True):
    """Something to apply or to keep, and what settles it once that is committed.

    `inbox_id` is the inbox row that it came from, `letter` a dead letter to keep. `refuse` takes it
    back, with the reason, if applying it fails for a defect of ours. `left` are the keys of
    messages that it asks for and that have been sent already.
    """

    input: AnyInput | None = None
    resend: OutboxRow | None = None
    letter: DeadLetter | None = None
    inbox_id: int | None = None
    left: Sequence[str] = ()
    settle: Callable[[], None] | None = None
    refuse: Callable[[str], None] | None = None
