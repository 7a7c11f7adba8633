"""One run, as whoever has started it sees it."""

from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from durable_worker.client.events import MOST_WAITING, RunEvent
from durable_worker.client.outcomes import output_of
from durable_worker.protocol.names import update_signal
from durable_worker.protocol.payload import PayloadDecoder
from durable_worker.protocol.runs import RunDetail, RunRecord

if TYPE_CHECKING:
    from durable_worker.client.client import Client

T = TypeVar("T")
A = TypeVar("A")


class RunHandle(Generic[T]):
    """One run that was asked for. `run_id` finds it again from anywhere."""

    def __init__(self, client: "Client", run_id: str, decoder: PayloadDecoder[T]) -> None:
        self._client = client
        self._decoder = decoder
        self.run_id = run_id

    async def wait(self, *, timeout: timedelta | None = None) -> RunRecord:
        """The run once it is terminal, whatever the outcome. Raises `TimeoutError`."""
        return await self._client.wait(self.run_id, timeout=timeout)

    async def result(self, *, timeout: timedelta | None = None, or_parked: bool = False) -> T:
        """Its output. Raises `RunFailedError` (`RunCancelledError`) if it ended otherwise, with
        `or_parked` also once it is parked, `TimeoutError`, and `SealError` if it cannot be
        opened."""
        run = await self._client.outcome(self.run_id, timeout=timeout, or_parked=or_parked)
        return output_of(run, self._decoder)

    async def detail(self, *, keep_sealed: bool = False) -> RunDetail:
        return await self._client.detail(self.run_id, keep_sealed=keep_sealed)

    async def signal(
        self, name: str, payload: object = None, *, signal_id: str | None = None
    ) -> None:
        """As `Client.signal`, once it is clear that the run is there and has not ended.

        Signal names are global to a tenant: if several runs wait for `name`, any of them may get
        it. Put the run's id or a business id into it. Raises `RunEndedError`, `RunNotFoundError`.
        """
        await self._client.check_open(self.run_id, f"signal {name!r}")
        await self._client.signal(name, payload, signal_id=signal_id)

    async def update(
        self, name: str, argument: object = None, *, update_id: str | None = None
    ) -> None:
        """Send what the body takes by `ctx.wait_update(name)`, once for each `update_id`; nobody
        else gets it. Returns when it is recorded; if the body rejects it, the query
        `update-rejected:<name>` says why. Raises `RunEndedError`, `RunNotFoundError`."""
        await self._client.check_open(self.run_id, f"update {name!r}")
        subject = update_signal(self.run_id, name)
        await self._client.signal(subject, argument, signal_id=update_id)

    def events(
        self, *, history: bool = False, most_waiting: int = MOST_WAITING
    ) -> AsyncGenerator[RunEvent]:
        """As `Client.events`."""
        return self._client.events(self.run_id, history=history, most_waiting=most_waiting)

    async def cancel(self, *, compensate: bool | None = None) -> None:
        """As `Client.cancel`."""
        await self._client.cancel(self.run_id, compensate=compensate)

    async def retry(self) -> None:
        """As `Client.retry`."""
        await self._client.retry(self.run_id)

    async def resume(self) -> None:
        """As `Client.resume`."""
        await self._client.resume(self.run_id)

    async def redispatch(self) -> None:
        """As `Client.redispatch`."""
        await self._client.redispatch(self.run_id)

    @overload
    async def query(self, name: str, *, returns: type[A]) -> A: ...
    @overload
    async def query(self, name: str) -> Any: ...
    async def query(self, name: str, *, returns: Any = None) -> Any:
        """As `Client.query`."""
        return await self._client.query(self.run_id, name, returns=returns)
