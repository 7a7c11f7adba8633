"""Interceptors made of a function, and one turn of a body through them."""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Raw

from durable_worker import (
    Worker,
)
from durable_worker.interceptors import (
    Interceptor,
    Operation,
    Proceed,
)
from durable_worker.protocol.commands import (
    WorkflowDecision,
)
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind
from tests.replay.model import Body, ModelOperator, turn

Next = Proceed[Operation, Any]


class Around(Interceptor):
    """Calls a function in the place of a hook."""

    def __init__(self, hook: Callable[[Operation, Next], Any]) -> None:
        self.hook = hook

    async def operation(self, call: Operation, proceed: Next, /) -> Any:
        return await self.hook(call, proceed)


class AroundImmediate(Interceptor):
    def __init__(self, hook: Callable[[Operation, Callable[[Operation], Any]], Any]) -> None:
        self.hook = hook

    def immediate(self, call: Operation, proceed: Callable[[Operation], Any], /) -> Any:
        return self.hook(call, proceed)


def decide(
    body: Body,
    *interceptors: Interceptor,
    operator: ModelOperator | None = None,
) -> WorkflowDecision:
    """One turn of `body` from the top, applied."""
    worker = Worker(interceptors=interceptors)
    return turn(body, operator or ModelOperator(), worker=worker)


def called(seq: int, name: str, output: str = "1") -> HistoryEvent:
    return HistoryEvent(seq=seq, kind=HistoryKind.CALL, name=name, output=Raw(output.encode()))


def history(*events: HistoryEvent) -> ModelOperator:
    return ModelOperator(history={event.seq: event for event in events})


def line_of(body: Callable[..., Any], offset: int) -> str:
    return f"{body.__code__.co_filename}:{body.__code__.co_firstlineno + offset}"


def read(payload: Any) -> Any:
    return msgspec.json.decode(payload)


async def pass_on(call: Operation, proceed: Next) -> Any:
    return await proceed(call)
