"""The operator of this process, as a client sees it."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Self

from durable_worker.client.port import Revival, RunStart
from durable_worker.operator.service import OperatorService
from durable_worker.protocol.base import Payload
from durable_worker.protocol.control import EngineEvent
from durable_worker.protocol.letters import DeadLetterRecord
from durable_worker.protocol.names import DEFAULT_NAMESPACE
from durable_worker.protocol.runs import (
    RunDetail,
    RunPage,
    RunQuery,
    RunRecord,
    StartedRun,
    StartRequest,
)
from durable_worker.stores.starts import json_object
from durable_worker.transports.limits import check_payload

_LONGEST_PAUSE = timedelta(seconds=10)


class OwnOperatorPort:
    def __init__(self, operator: OperatorService, *, max_message_bytes: int) -> None:
        self._operator = operator
        self._max_message_bytes = max_message_bytes

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        pass

    async def start(self, start: RunStart) -> None:
        self._check(start.input, f"the input of run {start.run_id!r}")
        await self._operator.start(
            start.workflow,
            start.input,
            run_id=start.run_id,
            tags=start.tags,
            search_attributes=json_object(start.search_attributes),
        )

    async def start_anew(self, body: StartRequest, *, request_id: str) -> StartedRun:
        self._check(body.input, f"the input of run {body.run_id!r}")
        return await self._operator.start_anew(body, request_id=request_id)

    async def is_taken_up(self, *, within: timedelta) -> bool:  # noqa: ARG002
        return True

    async def detail(self, run_id: str) -> RunDetail:
        return await self._operator.detail(run_id)

    async def list(self, query: RunQuery) -> Sequence[RunRecord]:
        return await self._operator.list(query)

    async def page(self, query: RunQuery, *, after: str | None) -> RunPage:
        return await self._operator.page(query, after=after)

    async def signal(self, name: str, payload: Payload, *, signal_id: str) -> None:
        self._check(payload, f"the payload of signal {name!r}")
        await self._operator.signal(name, payload, signal_id=signal_id, namespace=DEFAULT_NAMESPACE)

    async def cancel(self, run_id: str, *, compensate: bool | None) -> None:
        await self._operator.cancel(run_id, is_final=compensate is False)

    async def set_going(self, asked: Revival, *, request_id: str) -> None:
        await self._operator.set_going(asked, request_id=request_id)

    async def dead_letters(
        self, *, limit: int | None, after: str | None, run_id: str | None
    ) -> Sequence[DeadLetterRecord]:
        return await self._operator.dead_letters(limit=limit, after=after, run_id=run_id)

    async def dead_letter(self, letter_id: str) -> DeadLetterRecord:
        return await self._operator.dead_letter(letter_id)

    async def redrive(self, letter_id: str) -> DeadLetterRecord:
        return await self._operator.redrive(letter_id)

    async def wait(self, run_id: str, *, or_parked: bool) -> RunRecord:
        operator = self._operator
        return await (operator.wait_or_parked(run_id) if or_parked else operator.wait(run_id))

    @property
    def longest_pause(self) -> timedelta:
        return _LONGEST_PAUSE

    def follow(self, run_id: str, notice: Callable[[EngineEvent], None]) -> Callable[[], None]:
        return self._operator.follow(run_id, notice)

    def _check(self, payload: Payload, what: str) -> None:
        check_payload(payload, what, max_bytes=self._max_message_bytes)
