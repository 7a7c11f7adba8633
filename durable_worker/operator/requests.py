"""Answers what clients ask over the broker; a tenant sees its own runs only."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, assert_never

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from durable_worker.errors import (
    DurableError,
    NoOperatorError,
    RequestRefusedError,
    RunNotFoundError,
)
from durable_worker.operator.live import LiveReports
from durable_worker.operator.loading import Loading
from durable_worker.operator.log import log
from durable_worker.operator.registry import Registry
from durable_worker.protocol.runs import (
    AnyRequest,
    CancelRequest,
    ContinueRun,
    GetDeadLetter,
    GetRunDetail,
    ListDeadLetters,
    ListRuns,
    PageRuns,
    Redispatch,
    RedriveDeadLetter,
    RequestError,
    RequestResult,
    RetryRun,
    RetryWithInput,
    RunFacets,
    RunReply,
    RunRequest,
    SignalRequest,
    StartRequest,
    WaitingFor,
    WorkerHealth,
)
from durable_worker.stores.attributes import check_searchable
from durable_worker.stores.base import Store, stored_namespace
from durable_worker.stores.dead_letters import DeadLetters
from durable_worker.stores.inputs import (
    AnyInput,
    CancelRequested,
    Redispatched,
    SignalSent,
)
from durable_worker.stores.listings import Listings
from durable_worker.stores.records import RunState
from durable_worker.stores.retrying import set_going
from durable_worker.stores.starts import asked_start, outcome_of
from durable_worker.stores.views import run_detail

MAX_REMEMBERED = 1_000


def refused(request: RunRequest, error: DurableError) -> RunReply:
    result = RequestResult(ok=False, error=RequestError(message=str(error), code=error.code))
    return RunReply(request_id=request.request_id, result=result)


@dataclass(frozen=True, slots=True)
class Sources:
    """What requests are answered from. `apply` returns when an input is committed. `is_shared`:
    tenants share the workers, and shall not learn of each other by them."""

    store: Store
    registry: Registry
    live: LiveReports
    apply: Callable[[AnyInput], Awaitable[None]]
    is_shared: bool = False
    partition: str | None = None


class Requests:
    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._loading = Loading(sources.store)
        self._redispatched: OrderedDict[str, None] = OrderedDict()

    async def answer(self, request: RunRequest) -> RunReply:
        """A refusal is an answer too. Raises `NoOperatorError` if the engine ends meanwhile."""
        namespace = stored_namespace(request.tenant)
        try:
            data = await self._data_for(request.body, namespace, request.request_id)
            result = RequestResult(ok=True, data=Raw(msgspec.json.encode(data)))
        except NoOperatorError:
            raise
        except DurableError as error:
            return refused(request, error)
        except Exception as error:  # a defect of ours: whoever asks must not wait for nothing
            log.exception("request_not_answered", kind=type(request.body).__name__)
            told = f"the operator failed over the request: {type(error).__name__}: {error}"
            result = RequestResult(ok=False, error=RequestError(message=told, code="defect"))
        return RunReply(request_id=request.request_id, result=result)

    async def _data_for(self, body: AnyRequest, namespace: str, request_id: str) -> Any:
        match body:
            case GetRunDetail(run_id=run_id):
                state = await self._owned(run_id, namespace)
                return self._sources.live.enrich(run_detail(state))
            case ListRuns(query=query):
                return await Listings(self._sources.store, namespace=namespace).records(query)
            case PageRuns(query=query, after=after):
                listings = Listings(self._sources.store, namespace=namespace)
                return await listings.page(query, after=after)
            case RunFacets(query=query):
                check_searchable(query)
                facets = await self._sources.store.facets(replace(query, namespace=namespace))
                return {"statuses": facets.statuses, "workflows": facets.workflows}
            case WorkerHealth():
                return self._workers()
            case WaitingFor(run_ids=run_ids):
                return [await self._waiting_for(run_id, namespace) for run_id in run_ids]
            case ListDeadLetters() | GetDeadLetter() | RedriveDeadLetter():
                return await self._letters(body, namespace)
            case StartRequest():
                asked = asked_start(
                    body,
                    namespace=namespace,
                    request_id=request_id,
                    partition=self._sources.partition,
                )
                await self._sources.apply(asked)
                return await outcome_of(self._sources.store, asked)
            case CancelRequest() | Redispatch() | SignalRequest():
                return await self._change(body, namespace, request_id)
            case RetryRun() | ContinueRun():
                return await self._set_going(body, namespace, request_id)
            case RetryWithInput():
                kind = str(type(body).__struct_config__.tag)
                raise RequestRefusedError(
                    f"this operator does not support the request {kind!r}", code="unsupported"
                )
            case _:
                assert_never(body)

    async def _change(
        self, body: CancelRequest | Redispatch | SignalRequest, namespace: str, request_id: str
    ) -> Any:
        match body:
            case CancelRequest(run_id=run_id, opts=opts):
                await self._owned(run_id, namespace)
                is_final = opts is not None and opts.compensate is False
                await self._sources.apply(CancelRequested(run_id=run_id, is_final=is_final))
                return {"runId": run_id}
            case Redispatch(run_id=run_id):
                await self._owned(run_id, namespace)
                if self._is_new(f"{namespace}/{request_id}"):
                    await self._sources.apply(Redispatched(run_id=run_id))
                return {"runId": run_id}
            case SignalRequest(signal=signal, payload=payload):
                sent = SignalSent(
                    signal_id=f"{namespace}/{request_id}",
                    namespace=namespace,
                    name=signal,
                    payload=payload,
                )
                await self._sources.apply(sent)
                return {"signal": signal}
            case _:
                assert_never(body)

    async def _set_going(
        self, body: RetryRun | ContinueRun, namespace: str, request_id: str
    ) -> Any:
        state = await self._owned(body.run_id, namespace)
        for value in set_going(state, body, signal_id=f"{namespace}/{request_id}"):
            await self._sources.apply(value)
        return {"runId": body.run_id}

    async def _letters(
        self, body: ListDeadLetters | GetDeadLetter | RedriveDeadLetter, namespace: str
    ) -> Any:
        letters = DeadLetters(self._sources.store, namespace=namespace)
        match body:
            case ListDeadLetters(limit=limit, after=after, run_id=run_id):
                return await letters.page(limit=limit, after=after, run_id=run_id)
            case GetDeadLetter(id=letter_id):
                return await letters.shown(letter_id)
            case RedriveDeadLetter(id=letter_id):
                asked = await letters.request(letter_id)
                if asked is not None:
                    await self._sources.apply(asked)
                return await letters.redriven(letter_id)
            case _:
                assert_never(body)

    def _is_new(self, key: str) -> bool:
        if key in self._redispatched:
            return False
        self._redispatched[key] = None
        while len(self._redispatched) > MAX_REMEMBERED:
            self._redispatched.popitem(last=False)
        return True

    async def _owned(self, run_id: str, namespace: str) -> RunState:
        state = await self._loading.load(run_id)
        if state is None or state.run.namespace != namespace:
            raise RunNotFoundError(run_id)
        return state

    async def _waiting_for(self, run_id: str, namespace: str) -> Any:
        state = await self._owned(run_id, namespace)
        pending = [state.pending[seq] for seq in sorted(state.pending)]
        waits = [
            {"seq": each.seq, "kind": each.kind, "name": each.name, "wakeAt": each.fires_at}
            for each in pending
        ]
        return {"runId": run_id, "waitingFor": waits}

    def _workers(self) -> Any:
        if self._sources.is_shared:
            return [
                {
                    "groups": sorted(group for group in each.groups if "@" not in group),
                    "lifecycle": each.lifecycle,
                }
                for each in self._sources.registry.live()
            ]
        return [
            {
                "instanceId": each.instance_id,
                "groups": sorted(each.groups),
                "lifecycle": each.lifecycle,
                "status": each.status,
                "descriptor": each.descriptor,
            }
            for each in self._sources.registry.live()
        ]
