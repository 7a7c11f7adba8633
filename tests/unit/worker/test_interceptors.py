"""A worker refuses what cannot intercept, when it is made and not when a run is on its way."""

from typing import Any

import pytest

from durable_worker import RegistrationError, Worker
from durable_worker.interceptors import Interceptor


class SyncStep(Interceptor):
    def step(self, call: Any, proceed: Any, /) -> Any: ...  # type: ignore[override]


class SyncOperation(Interceptor):
    def operation(self, call: Any, proceed: Any, /) -> Any: ...  # type: ignore[override]


class AsyncImmediate(Interceptor):
    async def immediate(self, call: Any, proceed: Any, /) -> Any: ...


class Elsewhere:
    async def step(self, call: Any, proceed: Any, /) -> Any: ...


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (SyncStep(), "SyncStep.step must be an `async def`"),
        (SyncOperation(), "SyncOperation.operation must be an `async def`"),
        (AsyncImmediate(), "AsyncImmediate.immediate must be a plain `def`"),
        (Interceptor, "make one: write `Interceptor()`"),
        (Elsewhere(), "derive its class from durable_worker.interceptors.Interceptor"),
    ],
)
def test_a_worker_cannot_be_made_with(wrong: Any, reason: str) -> None:
    with pytest.raises(RegistrationError, match=reason.replace("(", r"\(").replace(")", r"\)")):
        Worker(interceptors=[Interceptor(), wrong])


def test_an_interceptor_that_overrides_nothing_wraps_nothing() -> None:
    interception = Worker(interceptors=[Interceptor()]).interception
    assert interception is not None
    assert (interception.step, interception.turn) == ((), ())
    hooks = interception.run
    assert (hooks.body, hooks.operation, hooks.immediate) == ((), (), ())


def test_hooks_that_a_base_class_overrides_count() -> None:
    class Base(Interceptor):
        async def body(self, call: Any, proceed: Any, /) -> Any: ...

    class Derived(Base): ...

    interception = Worker(interceptors=[Derived()]).interception
    assert interception is not None
    assert len(interception.run.body) == 1
