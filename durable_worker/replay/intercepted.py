"""The context that a body is given where interceptors wrap its operations."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from functools import partial
from random import Random
from typing import Any, cast
from uuid import UUID

from msgspec import Raw, structs

from durable_worker.protocol.names import event_subject, update_signal
from durable_worker.protocol.payload import decoder_for, encode_payload, plain_json
from durable_worker.protocol.tasks import WorkflowTask
from durable_worker.replay.arguments import caller, checked_name, match_json
from durable_worker.replay.chains import Chain, Performed, body_through
from durable_worker.replay.context import WorkflowContext
from durable_worker.replay.definitions import Directory
from durable_worker.replay.handles import AroundWait, ChildHandle, ExternalTask, Webhook
from durable_worker.replay.intercepted_steps import InterceptedSaga, InterceptedSteps
from durable_worker.replay.interception import (
    Method,
    Operation,
    RunHooks,
    SleepOperation,
    WaitOperation,
)
from durable_worker.replay.journal import caller_location
from durable_worker.replay.operations import Location
from durable_worker.replay.performing import (
    SignalWait,
    break_point,
    run_child,
    run_local_step,
    sleep,
    wait_signal,
)
from durable_worker.replay.steps import Saga
from durable_worker.replay.turn import Replay
from durable_worker.replay.waits import Match


def new_context(
    replay: Replay,
    task: WorkflowTask,
    directory: Directory,
    *,
    partition: str | None = None,
    hooks: RunHooks,
) -> WorkflowContext:
    """The context for a body with `hooks` around it and around what it asks for."""
    plain = WorkflowContext(replay, task, directory, partition=partition)
    if hooks.body:
        replay.call_body = body_through(hooks.body, replay.definition, plain)
    if not hooks.operation and not hooks.immediate:
        return plain
    chain = Chain(replay, hooks, plain)
    return InterceptedContext(replay, task, directory, partition=partition, chain=chain)


class InterceptedContext(InterceptedSteps, WorkflowContext):
    """Random numbers, patches and compensations are those of the plain context of the chain."""

    def __init__(
        self,
        replay: Replay,
        task: WorkflowTask,
        directory: Directory,
        *,
        partition: str | None = None,
        chain: Chain,
    ) -> None:
        super().__init__(replay, task, directory, partition=partition)
        self._intercept(chain, chain.plain._compensations)
        replay.on_failure = self._compensations.undo

    # Steps and children

    def saga(self) -> Saga:
        saga = InterceptedSaga(self._replay, self._task, self._directory, partition=self._partition)
        return saga.intercept(self._chain)

    def local_step(self, step: Any, input: object = None, /) -> Performed:
        location, definition = caller(), self._step_definition(step)

        def perform(operation: Operation) -> Performed:
            token = self._journal.next_token()
            value = operation.input
            return run_local_step(self._replay, token, definition, value, location=location)

        return self._ask("local_step", definition.name, location, perform, input=input)

    def child(self, workflow: Any, input: object = None, /, *, returns: Any = None) -> Performed:
        location = caller()
        name, decoder = self._workflow_named(workflow, returns)

        def perform(operation: Operation) -> Performed:
            token = self._journal.next_token()
            child, value = operation.name, operation.input
            return run_child(self._replay, token, child, value, decoder=decoder, location=location)

        return self._ask("child", name, location, perform, input=input)

    def start_child(
        self, workflow: Any, input: object = None, /, *, returns: Any = None
    ) -> ChildHandle[Any]:
        location = caller()
        name, decoder = self._workflow_named(workflow, returns)

        def perform(operation: Operation) -> ChildHandle[Any]:
            child = operation.name
            payload = encode_payload(operation.input, what=f"the input of child workflow {child!r}")
            wait = self._wait_on("start_child.result", "start_child().result")
            return ChildHandle(self._replay, child, payload, decoder, location, around=wait)

        return self._chain.at_once("start_child", name, location, perform, input=input)

    # Waits

    def webhook(self, *, returns: Any = None) -> Webhook[Any]:
        location, decoder = caller(), decoder_for(returns)
        wait = self._wait_on("webhook.wait", "webhook().wait")
        return self._chain.at_once(
            "webhook",
            "",
            location,
            lambda _: Webhook(self._replay, decoder=decoder, location=location, around=wait),
        )

    def task(self, name: str, /, *, returns: Any = None) -> ExternalTask[Any]:
        location, decoder = caller(), decoder_for(returns)
        wait = self._wait_on("task.wait", "task().wait")

        def perform(asked: Operation) -> ExternalTask[Any]:
            return ExternalTask(
                self._replay, asked.name, decoder=decoder, location=location, around=wait
            )

        return self._chain.at_once("task", checked_name(name, "task"), location, perform)

    def breakpoint(self, name: str | None = None, /) -> Performed:
        location = caller()

        def perform(_: Operation) -> Performed:
            token = self._journal.next_token()
            return break_point(self._replay, token, name, location=location)

        return self._ask("breakpoint", name or "", location, perform)

    def on_signal(
        self, name: str, handler: Callable[[Any], Any], /, *, returns: Any = None
    ) -> "asyncio.Task[None]":
        location, decoder = caller(), decoder_for(returns)

        def perform(operation: Operation) -> "asyncio.Task[None]":
            return self._start_handling(
                SignalWait(operation.name, None, decoder), handler, location
            )

        return self._chain.at_once("on_signal", checked_name(name, "signal"), location, perform)

    def _next_signal(self, wait: SignalWait, location: Location) -> Performed:
        def perform(operation: Operation) -> Performed:
            changed = structs.replace(wait, subject=operation.name)
            token = self._journal.next_token()
            return wait_signal(self._replay, token, changed, location=location)

        # Without a timeout to change: a handler that did not wait for ever would fail the run.
        return self._ask("on_signal.wait", wait.subject, location, perform)

    def _wait(self, method: Method, name: str, wait: SignalWait, location: Location) -> Performed:
        asked = WaitOperation(
            method=method,
            name=name,
            asked_at=location,
            context=self._chain.plain,
            input=None if wait.match is None else plain_json(Raw(wait.match)),
            timeout=wait.limit,
        )

        def perform(operation: WaitOperation) -> Performed:
            token, changed = self._journal.next_token(), wait
            if operation is not asked:
                changed = self._changed_wait(wait, asked, operation)
            return wait_signal(self._replay, token, changed, location=location)

        return self._chain.awaited(asked, perform)

    def _changed_wait(
        self, wait: SignalWait, asked: WaitOperation, operation: WaitOperation
    ) -> SignalWait:
        name, match = operation.name, wait.match
        if match is not None:
            if operation.input is not asked.input:
                match = match_json(cast("Match", operation.input), name)
            subject = event_subject(name, match)
        else:
            is_update = operation.method == "wait_update"
            subject = update_signal(self.run_id, name) if is_update else name
        return structs.replace(wait, subject=subject, limit=operation.timeout, match=match)

    def _sleep(self, seconds: float, location: Location) -> Performed:
        asked = SleepOperation(
            method="sleep", name="", asked_at=location, context=self._chain.plain, seconds=seconds
        )
        return self._chain.awaited(
            asked, lambda op: sleep(self._replay, self._journal.next_token(), op.seconds)
        )

    # Values

    def now(self) -> datetime:
        # Also called by `sleep_until`, on behalf of the body.
        plain, location = self._chain.plain, caller_location() or caller()
        return self._chain.at_once("now", "", location, lambda _: plain.now())

    @property
    def random(self) -> Random:
        plain = self._chain.plain
        return self._chain.at_once("random", "", caller(), lambda _: plain.random)

    def uuid(self) -> UUID:
        plain = self._chain.plain
        return self._chain.at_once("uuid", "", caller(), lambda _: plain.uuid())

    def side_effect(self, produce: Callable[[], Any], /, *, returns: Any = None) -> Any:
        plain = self._chain.plain
        return self._chain.at_once(
            "side_effect", "", caller(), lambda _: plain.side_effect(produce, returns=returns)
        )

    def set_event(self, key: str, value: object) -> None:
        plain = self._chain.plain
        self._chain.at_once(
            "set_event",
            key,
            caller(),
            lambda operation: plain.set_event(operation.name, operation.input),
            input=value,
        )

    def on_query(self, name: str, handler: Callable[[], object]) -> None:
        plain = self._chain.plain
        self._chain.at_once(
            "on_query", name, caller(), lambda operation: plain.on_query(operation.name, handler)
        )

    def patched(self, id: str) -> bool:
        plain = self._chain.plain
        return self._chain.at_once(
            "patched", id, caller(), lambda operation: plain.patched(operation.name)
        )

    # Inside

    def _wait_on(self, method: Method, shown_as: str) -> AroundWait:
        return partial(self._chain.wait_on_handle, method=method, shown_as=shown_as)

    def _ask(
        self,
        method: Method,
        name: str,
        location: Location,
        perform: Callable[[Operation], Performed],
        *,
        input: object = None,
    ) -> Performed:
        asked = Operation(
            method=method, name=name, asked_at=location, context=self._chain.plain, input=input
        )
        return self._chain.awaited(asked, perform)
