"""What a client needs from an operator, wherever it runs."""

from collections.abc import Sequence
from datetime import timedelta
from types import TracebackType
from typing import Protocol, Self

from durable_worker.protocol.base import Payload
from durable_worker.protocol.letters import DeadLetterRecord
from durable_worker.protocol.runs import RunDetail, RunQuery, RunRecord


class OperatorPort(Protocol):
    """A way to an operator, for the runs of one tenant; use it as an async context manager."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...

    async def start(
        self, workflow: str, payload: Payload, *, run_id: str, tags: Sequence[str]
    ) -> None:
        """Ask for a run, durably. Once for each `run_id`, however often it is asked for."""
        ...

    async def is_taken_up(self, *, within: timedelta) -> bool:
        """Whether an operator has dealt with what was sent last; waits for it so long."""
        ...

    async def detail(self, run_id: str) -> RunDetail:
        """Raises `RunNotFoundError`."""
        ...

    async def list(self, query: RunQuery) -> Sequence[RunRecord]: ...

    async def signal(self, name: str, payload: Payload, *, signal_id: str) -> None:
        """Once for each `signal_id`."""
        ...

    async def cancel(self, run_id: str, *, compensate: bool | None) -> None:
        """`compensate` None: as the operator does by default. Raises `RunNotFoundError`."""
        ...

    async def dead_letters(
        self, *, limit: int | None, after: str | None, run_id: str | None
    ) -> Sequence[DeadLetterRecord]: ...

    async def dead_letter(self, letter_id: str) -> DeadLetterRecord:
        """Raises `RequestRefusedError`, as does `redrive`."""
        ...

    async def redrive(self, letter_id: str) -> DeadLetterRecord:
        """The letter as it stands; `redriven_at` is None if no operator has taken it up yet."""
        ...

    async def wait(self, run_id: str) -> RunRecord:
        """Return when the run is terminal, however long that takes, even if it starts later."""
        ...
