"""Start, signal, cancel and query runs."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeVar, overload
from uuid import uuid4

from msgspec import structs

from durable_worker.client.contexts import Context, ContextSource, encoded_context
from durable_worker.client.events import MOST_WAITING, EventStream, RunEvent
from durable_worker.client.handles import RunHandle
from durable_worker.client.outcomes import published_entry
from durable_worker.client.port import OperatorPort, RunStart
from durable_worker.clock import SystemClock, ordered_id
from durable_worker.edge.plain import PLAIN, Codec
from durable_worker.edge.records import RecordOpener
from durable_worker.errors import RegistrationError, RunEndedError, StartWaitsError
from durable_worker.protocol.letters import DeadLetterRecord
from durable_worker.protocol.names import published_value
from durable_worker.protocol.payload import PayloadDecoder, decoder_for, encode_payload
from durable_worker.protocol.runs import (
    ContinueRun,
    Redispatch,
    RetryRun,
    Reuse,
    RunDetail,
    RunPage,
    RunQuery,
    RunRecord,
    StartRequest,
)
from durable_worker.replay.definitions import Directory, location_of

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741
T = TypeVar("T")

SearchAttributes = Mapping[str, object]


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
        reuse: Reuse = "return",
        tags: Sequence[str] = (),
        search_attributes: SearchAttributes | None = None,
        context: Context | None = None,
    ) -> RunHandle[O]: ...
    @overload
    async def start(
        self,
        workflow: Callable[[Any], Awaitable[O]],
        *,
        run_id: str | None = None,
        reuse: Reuse = "return",
        tags: Sequence[str] = (),
        search_attributes: SearchAttributes | None = None,
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
        reuse: Reuse = "return",
        tags: Sequence[str] = (),
        search_attributes: SearchAttributes | None = None,
        context: Context | None = None,
    ) -> RunHandle[T]: ...
    @overload
    async def start(
        self,
        workflow: str,
        input: object = None,
        *,
        run_id: str | None = None,
        reuse: Reuse = "return",
        tags: Sequence[str] = (),
        search_attributes: SearchAttributes | None = None,
        context: Context | None = None,
    ) -> RunHandle[Any]: ...
    async def start(
        self,
        workflow: Any,
        input: object = None,
        *,
        returns: Any = None,
        run_id: str | None = None,
        reuse: Reuse = "return",
        tags: Sequence[str] = (),
        search_attributes: SearchAttributes | None = None,
        context: Context | None = None,
    ) -> RunHandle[Any]:
        """Start a run, once for each `run_id` (default: a new one).

        It is recorded when this returns, whether or not an operator or worker runs. If there is, or
        was, a run of that id, then by default nothing is started and the handle is that run's. The
        other ways to `reuse` an id need an operator that answers: "reject" raises `RunExistsError`;
        "terminate" ends the run that holds the id, at once and without compensations, and starts
        another one in its place, under the id `<run_id>~2` (`~3` ...) that the handle has.

        `tags` and `search_attributes` (a JSON object) stay with the run's record. `context` (a
        JSON object of at most 8 KiB; under `traceparent` a W3C trace context) reaches the body and
        each of its steps and children, and counts more than what the client has for every run: for
        workflows of Python workers, since it travels in an envelope around the input.

        Raises `PayloadError` if input, attributes or context have no JSON form, `RegistrationError`
        for a function that the directory does not know, `SealError` if the input cannot be sealed,
        and for "reject" and "terminate" `NoOperatorError` and `UnsupportedRequestError`.
        """
        name, decoder = self._resolved(workflow, returns)
        payload = encode_payload(input, what=f"the input of {name!r}")
        told = encoded_context(self._context, context)
        wanted = run_id or _new_run_id()
        attributes = None if search_attributes is None else _plain_object(search_attributes)
        sealed = await self._codec.seal(payload, salt=wanted, context=told)
        if run_id is None or reuse == "return":
            start = RunStart(
                workflow=name,
                run_id=wanted,
                input=sealed,
                tags=tags,
                search_attributes=attributes,
            )
            await self._port.start(start)
            return RunHandle(self, wanted, decoder)
        body = StartRequest(
            workflow=name,
            run_id=wanted,
            reuse=reuse,
            input=sealed,
            tags=list(tags) or None,
            search_attributes=attributes,
        )
        started = await self._port.start_anew(body, request_id=str(uuid4()))
        return RunHandle(self, started.run_id, decoder)

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
    def handle(self, run_id: str, workflow: Callable[[Any, Any], Awaitable[O]]) -> RunHandle[O]: ...
    @overload
    def handle(self, run_id: str, workflow: Callable[[Any], Awaitable[O]]) -> RunHandle[O]: ...
    @overload
    def handle(self, run_id: str, *, returns: type[T]) -> RunHandle[T]: ...
    @overload
    def handle(self, run_id: str) -> RunHandle[Any]: ...
    def handle(self, run_id: str, workflow: Any = None, *, returns: Any = None) -> RunHandle[Any]:
        """A handle for a run that was started elsewhere. Asks nobody."""
        return RunHandle(self, run_id, self._decoder(workflow, returns))

    def _decoder(self, workflow: Any, returns: Any) -> PayloadDecoder[Any]:
        return decoder_for(returns) if workflow is None else self._resolved(workflow, None)[1]

    @overload
    async def get(self, run_id: str, workflow: Callable[..., Awaitable[O]]) -> RunHandle[O]: ...
    @overload
    async def get(self, run_id: str, *, returns: type[T]) -> RunHandle[T]: ...
    @overload
    async def get(self, run_id: str) -> RunHandle[Any]: ...
    async def get(
        self, run_id: str, workflow: Any = None, *, returns: Any = None
    ) -> RunHandle[Any]:
        """As `handle`, for a run that exists. Raises `RunNotFoundError`, and `RegistrationError` if
        it runs another workflow."""
        handle = RunHandle(self, run_id, self._decoder(workflow, returns))
        run = (await self._port.detail(run_id)).run
        if workflow is not None and run.workflow != (name := self._resolved(workflow, None)[0]):
            raise RegistrationError(f"run {run_id!r} is one of {run.workflow!r}, not of {name!r}")
        return handle

    async def detail(self, run_id: str, *, keep_sealed: bool = False) -> RunDetail:
        """The run and its timeline. Raises `RunNotFoundError`, and `SealError` for a payload that
        cannot be opened; with `keep_sealed` that stays in its envelope."""
        detail = await self._port.detail(run_id)
        return await RecordOpener(self._codec, keeps_sealed=keep_sealed).detail(detail)

    async def list(self, query: RunQuery | None = None) -> Sequence[RunRecord]:
        """Runs of this tenant, newest first. What cannot be opened stays in its envelope."""
        opener = RecordOpener(self._codec, keeps_sealed=True)
        return [await opener.run(each) for each in await self._port.list(query or RunQuery())]

    async def page(self, query: RunQuery | None = None, *, after: str | None = None) -> RunPage:
        """As `list`, page by page: `after` is the `next` of the page before. Runs that start
        meanwhile shift nothing. Raises `UnsupportedRequestError` (a NestJS operator)."""
        page = await self._port.page(query or RunQuery(), after=after)
        opener = RecordOpener(self._codec, keeps_sealed=True)
        return structs.replace(page, runs=[await opener.run(each) for each in page.runs])

    async def runs(self, query: RunQuery | None = None) -> AsyncIterator[RunRecord]:
        """Every run that the query selects, newest first, read in pages of its `limit`."""
        page = await self.page(query)
        while True:
            for each in page.runs:
                yield each
            if page.next is None:
                return
            page = await self.page(query, after=page.next)

    def events(
        self, run_id: str, *, history: bool = False, most_waiting: int = MOST_WAITING
    ) -> AsyncGenerator[RunEvent]:
        """What happens to a run from now on, until it ends; with `history` what has happened first.

        That it has begun or ended and how its steps ended comes once each, whatever is lost on the
        way: it is taken from history where no event has come for some seconds (10 over a broker),
        and before the end. Everything else, such as reports of running steps, comes if it can be
        heard at that moment. Of a reader so slow that more than `most_waiting` events wait, further
        ones are dropped, and what of them is history comes later. Waits while no operator is there.
        Raises `RunNotFoundError`. What cannot be opened stays in its envelope.
        """
        opener = RecordOpener(self._codec, keeps_sealed=True)
        stream = EventStream(
            self._port, opener, run_id, has_history=history, most_waiting=most_waiting
        )
        return stream.read()

    async def signal(
        self, name: str, payload: object = None, *, signal_id: str | None = None
    ) -> None:
        """Deliver to the run that waits for `name` or that will; once for each `signal_id`."""
        encoded = encode_payload(payload, what=f"the payload of signal {name!r}")
        sealed = await self._codec.seal(encoded, salt=name)
        await self._port.signal(name, sealed, signal_id=signal_id or str(uuid4()))

    async def check_open(self, run_id: str, what: str) -> None:
        """Raises `RunEndedError`, `RunNotFoundError`."""
        try:
            run = (await self._port.detail(run_id)).run
        except StartWaitsError:
            return  # so it has not ended
        if run.status.is_terminal:
            raise RunEndedError(run_id, what, status=run.status)

    async def cancel(self, run_id: str, *, compensate: bool | None = None) -> None:
        """Cancel a run; a run that has ended stays as it is. Raises `RunNotFoundError`.

        The body gets a `CancelledError` where it waits, so that its `finally` blocks and
        compensations run; the run is `cancelling` until they are done. With `compensate=False` it
        ends at once, without them. A NestJS operator does that to every Python body.
        """
        await self._port.cancel(run_id, compensate=compensate)

    async def retry(self, run_id: str) -> None:
        """Take up a run that has failed, is dead or parked, where that happened: the step that has
        failed last is tried again, with its next attempt, if the body has asked for nothing since;
        else the body gets another turn. A child whose parent has been told stays as it is.

        Done when this returns, or through a database without an operator recorded for the next one.

        Raises `RunNotFoundError`, `NotStoppedError`, `UnsupportedRequestError`.
        """
        await self._port.set_going(RetryRun(run_id=run_id), request_id=str(uuid4()))

    async def resume(self, run_id: str) -> None:
        """Let a run go on that is parked, or rests at a breakpoint. Raises as `retry` does."""
        await self._port.set_going(ContinueRun(run_id=run_id), request_id=str(uuid4()))

    async def redispatch(self, run_id: str) -> None:
        """Send everything once more that the run waits for from workers, as if it were lost.

        Raises `RunNotFoundError`.
        """
        await self._port.set_going(Redispatch(run_id=run_id), request_id=str(uuid4()))

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
            run = await self._port.wait(run_id, or_parked=False)
            return await RecordOpener(self._codec).run(run)

    async def outcome(
        self, run_id: str, *, timeout: timedelta | None = None, or_parked: bool = False
    ) -> RunRecord:
        """As `wait`, but the input stays as it travelled, and an error that cannot be opened says
        so in its message. With `or_parked` also a run that is parked, which may stay so until
        somebody mends its code."""
        async with asyncio.timeout(None if timeout is None else timeout.total_seconds()):
            run = await self._port.wait(run_id, or_parked=or_parked)
            return await RecordOpener(self._codec).outcome(run)

    async def is_taken_up(self, *, within: timedelta = timedelta(seconds=1)) -> bool:
        """Whether an operator has dealt with what this client sent last."""
        return await self._port.is_taken_up(within=within)


def _plain_object(attributes: SearchAttributes) -> dict[str, Any]:
    """Raises `PayloadError`."""
    what = "the search attributes"
    return _attributes.decode(encode_payload(dict(attributes), what=what), what=what)


_attributes = PayloadDecoder(dict[str, Any])


def _new_run_id() -> str:
    return str(ordered_id(uuid4(), now=SystemClock().now()))
