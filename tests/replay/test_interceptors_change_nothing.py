"""Interceptors that pass everything on leave no trace in what a body decides."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from durable_worker.interceptors import BodyExecution, Interceptor, Operation, Proceed
from durable_worker.protocol import codec
from tests.replay.bodies import Node, worker_for
from tests.replay.driving import drive
from tests.replay.model import ModelOperator
from tests.replay.test_bodies_in_any_order import nodes, undone_nodes


class PassThrough(Interceptor):
    """Counts what passes, so that a test that compares nothing is noticed."""

    def __init__(self) -> None:
        self.passed = 0

    async def body(self, call: BodyExecution, proceed: Proceed[BodyExecution, Any], /) -> Any:
        self.passed += 1
        return await proceed(call.replace(input=call.input))

    async def operation(self, call: Operation, proceed: Proceed[Operation, Any], /) -> Any:
        self.passed += 1
        return await proceed(call)

    def immediate(self, call: Operation, proceed: Callable[[Operation], Any], /) -> Any:
        self.passed += 1
        return proceed(call)


class Rebuilding(PassThrough):
    """Goes on with an equal operation instead of the same one."""

    async def operation(self, call: Operation, proceed: Proceed[Operation, Any], /) -> Any:
        return await proceed(call.replace())

    def immediate(self, call: Operation, proceed: Callable[[Operation], Any], /) -> Any:
        return proceed(call.replace())


def decisions(
    node: Node, seed: int, *, fails: bool, interceptors: Sequence[Interceptor]
) -> list[bytes]:
    worker = worker_for(node, fails=fails, interceptors=interceptors)
    return [_without_stack(each) for each in drive(worker, ModelOperator(), Random(seed))]


def _without_stack(decision: bytes) -> bytes:
    """The traceback of a body that failed names the interceptors that the error went through."""
    decoded = codec.WORKFLOW_DECISION.decode(decision)
    if decoded.error is None:
        return decision
    return codec.encode(replace(decoded, error=replace(decoded.error, stack=None)))


@given(node=nodes, seed=st.integers(0, 2**32))
def test_a_body_decides_the_same_bytes_with_and_without_them(node: Node, seed: int) -> None:
    plain = decisions(node, seed, fails=False, interceptors=[])
    passing = PassThrough()
    assert decisions(node, seed, fails=False, interceptors=[passing, Rebuilding()]) == plain
    assert passing.passed


@given(node=undone_nodes, seed=st.integers(0, 2**32))
def test_compensations_are_asked_for_in_the_same_bytes(node: Node, seed: int) -> None:
    plain = decisions(node, seed, fails=True, interceptors=[])
    passing = PassThrough()
    assert decisions(node, seed, fails=True, interceptors=[passing, Rebuilding()]) == plain
    assert passing.passed
