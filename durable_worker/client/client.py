"""Start, signal, cancel and query runs."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, overload
from uuid import uuid4

from durable_worker.client.contexts import Context, ContextSource, encoded_context
from durable_worker.client.port import OperatorPort
from durable_worker.clock import SystemClock, ordered_id
from durable_worker.edge.plain import PLAIN, Codec
from durable_worker.edge.records import RECORDED_KINDS, RecordOpener
from durable_worker.errors import QueryFailedError, RegistrationError, RunFailedError
from durable_worker.protocol.letters import DeadLetterRecord
from durable_worker.protocol.names import published_value
from durable_worker.protocol.payload import (
    PayloadDecoder,
    decoder_for,
    encode_payload,
    plain_json,
)
from durable_worker.protocol.runs import RunDetail, RunQuery, RunRecord, RunStatus, TimelineEntry
from durable_worker.replay.definitions import Directory, location_of

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741
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

    async def result(self, *, timeout: timedelta | None = None) -> T:
        """Its output. Raises `RunFailedError` if it ended otherwise, `TimeoutError`, and
        `SealError` if it cannot be opened."""
        run = await self._client.outcome(self.run_id, timeout=timeout)
        return output_of(run, self._decoder)

    async def detail(self, *, keep_sealed: bool = False) -> RunDetail:
        return await self._client.detail(self.run_id, keep_sealed=keep_sealed)

    async def cancel(self, *, compensate: bool | None = None) -> None:
        """As `Client.cancel`."""
        await self._client.cancel(self.run_id, compensate=compensate)

    @overload
    async def query(self, name: str, *, returns: type[A]) -> A: ...
    @overload
    async def query(self, name: str) -> Any: ...
    async def query(self, name: str, *, returns: Any = None) -> Any:
        """As `Client.query`."""
        return await self._client.query(self.run_id, name, returns=returns)


class Client:
    """Asks an operator; use it as an async context manager.

    `directory` (a `Worker`) lets workflows be named by function. `codec` (a `PayloadCodec`) seals
    what is sent and opens what is read. `context` goes with each run that is started here: a
    mapping, or a function that returns one.
    """

    def __init__(
        self,
        port: OperatorPort,
        *,
        directory: Directory | None = None,
        codec: Codec | None = None,
        context: ContextSource | None = None,
    ) -> None:
        self._port = port
        self._directory = directory
        self._codec = codec or PLAIN
        self._context = context

    async def __aenter__(self) -> Self:
        await self._port.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        await self._port.__aexit__(kind, error, trace)

    @overload
    async def start(
        self,
        workflow: Callable[[Any, I], Awaitable[O]],
        input: I,
        *,
        run_id: str | None = None,
        tags: Sequence[str] = (),
        context: Context | None = None,
    ) -> RunHandle[O]: ...
    @overload
    async def start(
        self,
        workflow: Callable[[Any], Awaitable[O]],
        *,
        run_id: str | None = None,
        tags: Sequence[str] = (),
        context: Context | None = None,
    ) -> RunHandle[O]: ...
    @overload
    async def start(
        self,
        workflow: str,
        input: object = None,
        *,
        returns: type[T],
        run_id: str | None = None,
        tags: Sequence[str] = (),
        context: Context | None = None,
    ) -> RunHandle[T]: ...
    @overload
    async def start(
        self,
        workflow: str,
        input: object = None,
        *,
        run_id: str | None = None,
        tags: Sequence[str] = (),
        context: Context | None = None,
    ) -> RunHandle[Any]: ...
    async def start(
        self,
        workflow: Any,
        input: object = None,
        *,
        returns: Any = None,
        run_id: str | None = None,
        tags: Sequence[str] = (),
        context: Context | None = None,
    ) -> RunHandle[Any]:
        """Start a run, once for each `run_id` (default: a new one).

        It is recorded when this returns, whether or not an operator or worker runs. `context` (a
        JSON object of at most 8 KiB; under `traceparent` a W3C trace context) reaches the body and
        each of its steps and children, and counts more than what the client has for every run: for
        workflows of Python workers, since it travels in an envelope around the input.

        Raises `PayloadError` if input or context has no JSON form, `RegistrationError` for a
        function that the directory does not know, `SealError` if the input cannot be sealed.
        """
        name, decoder = self._resolved(workflow, returns)
        payload = encode_payload(input, what=f"the input of {name!r}")
        told = encoded_context(self._context, context)
        handle: RunHandle[Any] = RunHandle(self, run_id or _new_run_id(), decoder)
        sealed = await self._codec.seal(payload, salt=handle.run_id, context=told)
        await self._port.start(name, sealed, run_id=handle.run_id, tags=tags)
        return handle

    def _resolved(self, workflow: Any, returns: Any) -> tuple[str, PayloadDecoder[Any]]:
        if isinstance(workflow, str):
            return workflow, decoder_for(returns)
        definition = None if self._directory is None else self._directory.workflow_of(workflow)
        if definition is None:
            raise RegistrationError(
                f"{getattr(workflow, '__name__', workflow)!r} ({location_of(workflow)}) is not a "
                f"workflow of this client's directory; give the client the Worker that registers "
                f"it, or start it by name"
            )
        return definition.name, definition.output_decoder

    @overload
    def handle(self, run_id: str, *, returns: type[T]) -> RunHandle[T]: ...
    @overload
    def handle(self, run_id: str) -> RunHandle[Any]: ...
    def handle(self, run_id: str, *, returns: Any = None) -> RunHandle[Any]:
        """A handle for a run that was started elsewhere."""
        return RunHandle(self, run_id, decoder_for(returns))

    async def detail(self, run_id: str, *, keep_sealed: bool = False) -> RunDetail:
        """The run and its timeline. Raises `RunNotFoundError`, and `SealError` for a payload that
        cannot be opened; with `keep_sealed` that stays in its envelope."""
        detail = await self._port.detail(run_id)
        return await RecordOpener(self._codec, keeps_sealed=keep_sealed).detail(detail)

    async def list(self, query: RunQuery | None = None) -> Sequence[RunRecord]:
        """Runs of this tenant, newest first. What cannot be opened stays in its envelope."""
        opener = RecordOpener(self._codec, keeps_sealed=True)
        return [await opener.run(each) for each in await self._port.list(query or RunQuery())]

    async def signal(
        self, name: str, payload: object = None, *, signal_id: str | None = None
    ) -> None:
        """Deliver to the run that waits for `name` or that will; once for each `signal_id`."""
        encoded = encode_payload(payload, what=f"the payload of signal {name!r}")
        sealed = await self._codec.seal(encoded, salt=name)
        await self._port.signal(name, sealed, signal_id=signal_id or str(uuid4()))

    async def cancel(self, run_id: str, *, compensate: bool | None = None) -> None:
        """Cancel a run; a run that has ended stays as it is. Raises `RunNotFoundError`.

        The body gets a `CancelledError` where it waits, so that its `finally` blocks and
        compensations run; the run is `cancelling` until they are done. With `compensate=False` it
        ends at once, without them. A NestJS operator does that to every Python body.
        """
        await self._port.cancel(run_id, compensate=compensate)

    @overload
    async def query(self, run_id: str, name: str, *, returns: type[T]) -> T: ...
    @overload
    async def query(self, run_id: str, name: str) -> Any: ...
    async def query(self, run_id: str, name: str, *, returns: Any = None) -> Any:
        """What the run's body published last under `name`: by `ctx.on_query` or `ctx.set_event`.

        Needs no worker, and answers for ended runs too. Raises `QueryFailedError` if the handler
        raised or nothing was published yet under that name, `PayloadError` if the value does not
        fit `returns`, `RunNotFoundError`, `SealError` if it cannot be opened.
        """
        detail = await self._port.detail(run_id)
        opened = await RecordOpener(self._codec).named(detail, published_value(name))
        entry = published_entry(opened, name)
        return decoder_for(returns).decode(entry.output, what=f"the answer to query {name!r}")

    async def dead_letters(
        self, *, limit: int | None = None, after: str | None = None, run_id: str | None = None
    ) -> Sequence[DeadLetterRecord]:
        """Messages that nobody could use, newest first, without headers and body; those older than
        the letter with the id `after`, those that name the run. Raises `RequestRefusedError`."""
        return await self._port.dead_letters(limit=limit, after=after, run_id=run_id)

    async def dead_letter(self, letter_id: str) -> DeadLetterRecord:
        """With headers and body, sealed as it travelled. Raises `RequestRefusedError`."""
        return await self._port.dead_letter(letter_id)

    async def redrive(self, letter_id: str) -> DeadLetterRecord:
        """Have done again what a dead letter is about, once, and return it; its `redriven_at` is
        None while no operator has taken that up. A run that failed because of it goes on.

        Raises `RequestRefusedError` if there is no such letter, or if its run has gone on since.
        """
        return await self._port.redrive(letter_id)

    async def wait(self, run_id: str, *, timeout: timedelta | None = None) -> RunRecord:
        """The run once it is terminal, whatever the outcome. Raises `TimeoutError`, and `SealError`
        for a payload that cannot be opened."""
        async with asyncio.timeout(None if timeout is None else timeout.total_seconds()):
            return await RecordOpener(self._codec).run(await self._port.wait(run_id))

    async def outcome(self, run_id: str, *, timeout: timedelta | None = None) -> RunRecord:
        """As `wait`, but the input stays as it travelled, and an error that cannot be opened says
        so in its message."""
        async with asyncio.timeout(None if timeout is None else timeout.total_seconds()):
            return await RecordOpener(self._codec).outcome(await self._port.wait(run_id))

    async def is_taken_up(self, *, within: timedelta = timedelta(seconds=1)) -> bool:
        """Whether an operator has dealt with what this client sent last."""
        return await self._port.is_taken_up(within=within)


def published_entry(detail: RunDetail, name: str) -> TimelineEntry:
    """Where the run's history holds the current value. Raises `QueryFailedError`."""
    prefix = published_value("")
    published = {
        each.name.removeprefix(prefix): each
        for each in sorted(detail.timeline, key=lambda entry: entry.seq)
        if each.name.startswith(prefix) and each.kind in RECORDED_KINDS
    }
    found = published.get(name)
    if found is None:
        known = ", ".join(map(repr, published)) or "nothing"
        raise QueryFailedError(detail.run.id, name, f"it has published {known} so far")
    if found.error is not None:
        raise QueryFailedError(detail.run.id, name, found.error.message)
    return found


def _new_run_id() -> str:
    return str(ordered_id(uuid4(), now=SystemClock().now()))


def output_of(run: RunRecord, decoder: PayloadDecoder[T]) -> T:
    """The output of a terminal run. Raises `RunFailedError` unless it completed."""
    if run.status is RunStatus.COMPLETED:
        return decoder.decode(run.output, what=f"the output of run {run.id!r}")
    failure = run.error
    raise RunFailedError(
        run.id,
        run.workflow,
        status=run.status,
        message=None if failure is None else failure.message,
        code=None if failure is None else failure.code,
        details=None if failure is None else plain_json(failure.details),
    )
