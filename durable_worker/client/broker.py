"""To an operator over the broker (protocol/README.md, "Start runs" and "Requests")."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Self
from uuid import uuid4

from msgspec import UnsetType
from msgspec.structs import replace

from durable_worker.client.port import DEFAULT_TIMEOUT, Revival, RunStart, is_over
from durable_worker.edge.followers import Followers
from durable_worker.errors import (
    NOT_STOPPED,
    BrokerRefusedError,
    ConnectionLostError,
    DurableError,
    NoOperatorError,
    NotStoppedError,
    PayloadTooLargeError,
    ProtocolError,
    RequestRefusedError,
    RunExistsError,
    RunNotFoundError,
    UnsupportedRequestError,
)
from durable_worker.protocol.base import Payload, TokenSource, token_headers
from durable_worker.protocol.codec import RUN_REPLY, TENANT_EVENT, MessageType, encode
from durable_worker.protocol.control import EngineEvent, EngineEventType
from durable_worker.protocol.letters import DeadLetterRecord
from durable_worker.protocol.names import DEFAULT_NAMESPACE, Names, is_default
from durable_worker.protocol.payload import PayloadDecoder
from durable_worker.protocol.runs import (
    AnyRequest,
    CancelOptions,
    CancelRequest,
    ContinueRun,
    GetDeadLetter,
    GetRunDetail,
    ListDeadLetters,
    ListRuns,
    PageRuns,
    Redispatch,
    RedriveDeadLetter,
    RequestResult,
    RetryRun,
    RunDetail,
    RunPage,
    RunQuery,
    RunRecord,
    RunRequest,
    SignalRequest,
    StartedRun,
    StartRequest,
    StartRun,
)
from durable_worker.protocol.tokens import claimed_by
from durable_worker.stores.base import DEFAULT_LIST_LIMIT
from durable_worker.stores.listings import MOST_ON_A_PAGE
from durable_worker.transports.base import Envelope, Subscription, Transport

_FIRST_LOOK = timedelta(milliseconds=500)
_LOOK_AT_MOST_EVERY = timedelta(seconds=10)

_MAX_STARTED = 1_000
"""How many of its own starts a client remembers."""

_FIRST_RETRY_SECONDS = 0.02
_LAST_RETRY_SECONDS = 0.5


class BrokerPort:
    """Sends starts and requests; listens for replies and for the tenant's events."""

    def __init__(
        self,
        transport: Transport,
        *,
        names: Names,
        tenant: str = DEFAULT_NAMESPACE,
        token: TokenSource | None = None,
        timeout: timedelta = DEFAULT_TIMEOUT,
    ) -> None:
        self._transport = transport
        self._names = names
        self._token = token
        self._tenant = tenant if token is None else _tenant_of(token)
        self._timeout = timeout
        self._replies: dict[str, list[asyncio.Future[RequestResult]]] = {}
        self._changes: dict[str, asyncio.Event] = {}
        self._followers = Followers()
        self._subscriptions: list[Subscription] = []
        self._last_started: str | None = None
        self._on_their_way: dict[str, None] = {}

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        try:
            await self._transport.wait_connected()
            await self._transport.declare([self._names.start_run, self._names.run_request])
            await self._listen()
        except BaseException as error:
            await self._transport.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        try:
            for each in self._subscriptions:
                await each.stop()
        finally:
            await self._transport.__aexit__(kind, error, trace)

    async def _listen(self) -> None:
        """With a token to what concerns its tenant: the broker may allow no more than that."""
        names, listen, add = self._names, self._transport.listen, self._subscriptions.append
        if self._token is None:
            add(await listen(names.run_reply, self._on_reply))
            add(await listen(names.tenant_events, self._on_event))
            return
        add(await listen(names.tenant_replies, self._on_reply, topic=self._tenant))
        add(await listen(names.tenant_events, self._on_event, topic=self._tenant))
        with suppress(BrokerRefusedError):
            # An operator that asks for no tokens answers here.
            add(await listen(names.run_reply, self._on_reply))

    async def start(self, start: RunStart) -> None:
        run_id = start.run_id
        message = StartRun(
            tenant=self._tenant,
            workflow=start.workflow,
            input=start.input,
            run_id=run_id,
            tags=list(start.tags) or None,
            search_attributes=start.search_attributes,
        )
        envelope = Envelope(
            MessageType.START_RUN,
            encode(message),
            message_id=run_id,
            headers=token_headers(self._token),
        )
        await self._send(self._names.start_run, envelope)
        self._last_started = run_id
        self._on_their_way[run_id] = None
        if len(self._on_their_way) > _MAX_STARTED:
            del self._on_their_way[next(iter(self._on_their_way))]

    async def start_anew(self, body: StartRequest, *, request_id: str) -> StartedRun:
        data = await self._ask(body, about=body.run_id, request_id=request_id)
        return _STARTED.decode(data, what=f"the answer to the start of run {body.run_id!r}")

    async def is_taken_up(self, *, within: timedelta) -> bool:
        run_id = self._last_started
        if run_id is None:
            return True  # every other thing that is sent has been replied to
        try:
            async with asyncio.timeout(within.total_seconds()):
                while True:
                    try:
                        await self._ask(GetRunDetail(run_id=run_id), about=run_id)
                    except RunNotFoundError:
                        await asyncio.sleep(0.05)
                    except RequestRefusedError:
                        return True  # the operator knows it, whatever it has to say about it
                    else:
                        return True
        except (TimeoutError, NoOperatorError):
            return False

    async def detail(self, run_id: str) -> RunDetail:
        return _detail_of(run_id, await self._ask_about(run_id, GetRunDetail(run_id=run_id)))

    async def list(self, query: RunQuery) -> Sequence[RunRecord]:
        if not query.search_attributes:
            data = await self._ask(ListRuns(query=query))
            return _RECORDS.decode(data, what="the list of runs")
        # An operator that does not know of them would leave nothing out, but refuses pages.
        first = query.offset or 0
        end = first + (query.limit or DEFAULT_LIST_LIMIT)
        found: list[RunRecord] = []
        after = None
        while True:
            limit = min(end - len(found), MOST_ON_A_PAGE)
            page = await self.page(replace(query, limit=limit, offset=None), after=after)
            found += page.runs
            after = page.next
            if after is None or len(found) >= end:
                return found[first:]

    async def page(self, query: RunQuery, *, after: str | None) -> RunPage:
        data = await self._ask(PageRuns(query=query, after=after))
        return _PAGE.decode(data, what="a page of runs")

    async def signal(self, name: str, payload: Payload, *, signal_id: str) -> None:
        await self._ask(SignalRequest(signal=name, payload=payload), request_id=signal_id)

    async def cancel(self, run_id: str, *, compensate: bool | None) -> None:
        opts = None if compensate is None else CancelOptions(compensate=compensate)
        await self._ask_about(run_id, CancelRequest(run_id=run_id, opts=opts))

    async def set_going(self, asked: Revival, *, request_id: str) -> None:
        await self._ask_about(asked.run_id, asked, request_id=request_id)

    async def dead_letters(
        self, *, limit: int | None, after: str | None, run_id: str | None
    ) -> Sequence[DeadLetterRecord]:
        data = await self._ask(ListDeadLetters(limit=limit, after=after, run_id=run_id))
        return _LETTERS.decode(data, what="the list of dead letters")

    async def dead_letter(self, letter_id: str) -> DeadLetterRecord:
        data = await self._ask(GetDeadLetter(id=letter_id))
        return _LETTER.decode(data, what=f"dead letter {letter_id!r}")

    async def redrive(self, letter_id: str) -> DeadLetterRecord:
        data = await self._ask(RedriveDeadLetter(id=letter_id))
        return _LETTER.decode(data, what=f"dead letter {letter_id!r}")

    async def wait(self, run_id: str, *, or_parked: bool) -> RunRecord:
        changed = self._changes.setdefault(run_id, asyncio.Event())
        pause = _FIRST_LOOK
        while True:
            changed.clear()
            run = await self._current(run_id)
            if run is not None and is_over(run, or_parked=or_parked):
                self._changes.pop(run_id, None)
                return run
            # Events are at most once, so the run is looked at now and then all the same.
            try:
                async with asyncio.timeout(pause.total_seconds()):
                    await changed.wait()
            except TimeoutError:
                pause = min(pause * 2, _LOOK_AT_MOST_EVERY)

    @property
    def longest_pause(self) -> timedelta:
        return _LOOK_AT_MOST_EVERY

    def follow(self, run_id: str, notice: Callable[[EngineEvent], None]) -> Callable[[], None]:
        return self._followers.add(run_id, notice)

    async def _current(self, run_id: str) -> RunRecord | None:
        try:
            data = await self._ask(GetRunDetail(run_id=run_id), about=run_id)
        except (RunNotFoundError, NoOperatorError):
            return None  # whoever waits has been told that it may take as long as it takes
        except RequestRefusedError as error:
            if error.code != PayloadTooLargeError.code:
                raise
            raise RequestRefusedError(
                f"run {run_id!r} cannot be waited for over the broker, its detail does not fit a "
                f"message: {error}",
                code=error.code,
            ) from error
        return _detail_of(run_id, data).run

    async def _ask_about(
        self, run_id: str, body: AnyRequest, *, request_id: str | None = None
    ) -> Payload:
        """As `_ask`. A request can overtake the start of its run, which is on another queue, so a
        run that this client has started gets the time of a request to appear."""
        clock = asyncio.get_running_loop().time
        until = clock() + self._timeout.total_seconds()
        pause = _FIRST_RETRY_SECONDS
        while True:
            try:
                data = await self._ask(body, about=run_id, request_id=request_id)
            except RunNotFoundError:
                if run_id not in self._on_their_way or clock() + pause > until:
                    raise
            else:
                self._on_their_way.pop(run_id, None)
                return data
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LAST_RETRY_SECONDS)

    async def _ask(
        self, body: AnyRequest, *, about: str | None = None, request_id: str | None = None
    ) -> Payload:
        """The data of the reply. Raises what the operator refused with, or `NoOperatorError`."""
        key = request_id or str(uuid4())
        request = RunRequest(request_id=key, tenant=self._tenant, body=body)
        reply: asyncio.Future[RequestResult] = asyncio.get_running_loop().create_future()
        # Who sends one signal twice at once waits for one reply with both.
        waiting = self._replies.setdefault(key, [])
        waiting.append(reply)
        try:
            envelope = Envelope(
                MessageType.RUN_REQUEST,
                encode(request),
                message_id=key,
                headers=token_headers(self._token),
            )
            await self._send(self._names.run_request, envelope)
            async with asyncio.timeout(self._timeout.total_seconds()):
                result = await reply
        except TimeoutError:
            raise NoOperatorError(
                f"no operator has answered within {self._timeout.total_seconds():g} s on prefix "
                f"{self._names.effective_prefix!r}; `durable-worker operator` starts one, and that "
                f"still finds the request in its queue"
            ) from None
        finally:
            waiting.remove(reply)
            if not waiting:
                del self._replies[key]
        if not result.ok:
            raise _refusal(result, about=about, asked=body)
        if about is not None and _is_null(result.data):
            raise RunNotFoundError(about)  # how a NestJS operator says so
        return result.data

    async def _send(self, queue: str, envelope: Envelope) -> None:
        while True:
            try:
                return await self._transport.send(queue, envelope)
            except ConnectionLostError:
                # It may have arrived; both sides know a request and a start by their ids.
                await self._transport.wait_connected()

    def _on_reply(self, envelope: Envelope) -> None:
        try:
            reply = RUN_REPLY.decode(envelope.body)
        except ProtocolError:
            return
        for waiting in self._replies.get(reply.request_id, ()):
            if not waiting.done():
                waiting.set_result(reply.result)

    def _on_event(self, envelope: Envelope) -> None:
        try:
            message = TENANT_EVENT.decode(envelope.body)
        except ProtocolError:
            return
        is_mine = message.tenant == self._tenant or (
            is_default(message.tenant) and is_default(self._tenant)
        )
        if not is_mine:
            return
        event = message.event
        changed = self._changes.get(event.run_id)
        if changed is not None and event.type in _ENDS:
            changed.set()
        self._followers.tell([event])


def _tenant_of(token: TokenSource) -> str:
    """Raises `TenantTokenError`."""
    return claimed_by(token if isinstance(token, str) else token()).tenant


_ENDS = frozenset(
    {EngineEventType.RUN_BLOCKED, EngineEventType.RUN_COMPLETED, EngineEventType.RUN_FAILED}
)
_STARTED = PayloadDecoder(StartedRun)
_PAGE = PayloadDecoder(RunPage)
_DETAIL = PayloadDecoder(RunDetail)
_RECORDS = PayloadDecoder(list[RunRecord])
_LETTER = PayloadDecoder(DeadLetterRecord)
_LETTERS = PayloadDecoder(list[DeadLetterRecord])


def _detail_of(run_id: str, data: Payload) -> RunDetail:
    return _DETAIL.decode(data, what=f"the detail of run {run_id!r}")


def _is_null(data: Payload) -> bool:
    return isinstance(data, UnsetType) or bytes(data) == b"null"


def _refusal(result: RequestResult, *, about: str | None, asked: AnyRequest) -> DurableError:
    error = result.error
    if error is None:
        return RequestRefusedError("the operator refused the request without saying why")
    if about is not None and error.code == RunNotFoundError.code:
        return RunNotFoundError(about)
    if about is not None and error.code == RunExistsError.code:
        return RunExistsError(about)
    if about is not None and error.code == NOT_STOPPED:
        return NotStoppedError(about, error.message)
    if error.code == "unsupported":
        return UnsupportedRequestError(_DESCRIBED.get(type(asked), "this request"), error.message)
    return RequestRefusedError(error.message, code=error.code)


_DESCRIBED: dict[type[AnyRequest], str] = {
    StartRequest: "reuse='reject' and reuse='terminate' of `Client.start`",
    PageRuns: "`Client.page`, `Client.runs` and search attributes (a plain `Client.list` works)",
    RetryRun: "`retry`",
    ContinueRun: "`resume`",
    Redispatch: "`redispatch`",
    SignalRequest: "signals and updates from clients",
    ListDeadLetters: "dead letters",
    GetDeadLetter: "dead letters",
    RedriveDeadLetter: "dead letters",
}
