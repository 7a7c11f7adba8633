"""What a client needs from an operator, wherever it runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Protocol, Self

from msgspec import UNSET

from durable_worker.protocol.base import Payload
from durable_worker.protocol.control import EngineEvent
from durable_worker.protocol.letters import DeadLetterRecord
from durable_worker.protocol.runs import (
    ContinueRun,
    Redispatch,
    RetryRun,
    RunDetail,
    RunPage,
    RunQuery,
    RunRecord,
    RunStatus,
    StartedRun,
    StartRequest,
)

Revival = RetryRun | ContinueRun | Redispatch
"""Ways to set a run going again."""

DEFAULT_TIMEOUT = timedelta(seconds=5)
"""How long an operator gets to answer a request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStart:
    """A run that is asked for, once for each `run_id`. `search_attributes` is a JSON object."""

    workflow: str
    run_id: str
    input: Payload = UNSET
    tags: Sequence[str] = ()
    search_attributes: dict[str, Any] | None = None


def is_over(run: RunRecord, *, or_parked: bool) -> bool:
    return run.status.is_terminal or (or_parked and run.status is RunStatus.BLOCKED)


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

    async def start(self, start: RunStart) -> None:
        """Ask for a run, durably, whether or not an operator is there."""
        ...

    async def start_anew(self, body: StartRequest, *, request_id: str) -> StartedRun:
        """Have a run started, once for each `request_id`, and learn what came of it.

        Raises `RunExistsError`, `NoOperatorError`, `UnsupportedRequestError`.
        """
        ...

    async def is_taken_up(self, *, within: timedelta) -> bool:
        """Whether an operator has dealt with what was sent last; waits for it so long."""
        ...

    async def detail(self, run_id: str) -> RunDetail:
        """Raises `RunNotFoundError`."""
        ...

    async def list(self, query: RunQuery) -> Sequence[RunRecord]: ...

    async def page(self, query: RunQuery, *, after: str | None) -> RunPage:
        """Raises `RequestRefusedError` for what is no cursor, `UnsupportedRequestError`."""
        ...

    async def signal(self, name: str, payload: Payload, *, signal_id: str) -> None:
        """Once for each `signal_id`."""
        ...

    async def cancel(self, run_id: str, *, compensate: bool | None) -> None:
        """`compensate` None: as the operator does by default. Raises `RunNotFoundError`."""
        ...

    async def set_going(self, asked: Revival, *, request_id: str) -> None:
        """Done when this returns, or through a database without an operator recorded for the next
        one. Raises `RunNotFoundError`, `NotStoppedError`, `UnsupportedRequestError`."""
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

    async def wait(self, run_id: str, *, or_parked: bool) -> RunRecord:
        """Return when the run is terminal, or if wanted parked, however long that takes, even if it
        starts later."""
        ...

    @property
    def longest_pause(self) -> timedelta:
        """How long whoever follows a run may rely on events alone; then it looks at the run."""
        ...

    def follow(self, run_id: str, notice: Callable[[EngineEvent], None]) -> Callable[[], None]:
        """Call `notice` for each event of the run that is heard of, until the function that is
        returned is called. Events are at most once."""
        ...
