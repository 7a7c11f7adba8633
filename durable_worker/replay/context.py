"""What a workflow body works with."""

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar, overload

from durable_worker.errors import UnsupportedByOperatorError
from durable_worker.protocol.names import ATTRIBUTES_RECORD
from durable_worker.protocol.payload import encode_payload
from durable_worker.protocol.tasks import WorkflowTask
from durable_worker.replay.arguments import caller, checked_attributes
from durable_worker.replay.base import Operation
from durable_worker.replay.definitions import Directory, StepContextBase
from durable_worker.replay.handles import ChildHandle
from durable_worker.replay.logger import BodyLogger
from durable_worker.replay.opened import context_of, context_values
from durable_worker.replay.operations import CONTINUE_AS_NEW, SEARCH_ATTRIBUTES
from durable_worker.replay.performing import run_child, run_local_step
from durable_worker.replay.steps import Saga, StepCalls
from durable_worker.replay.turn import Replay
from durable_worker.replay.waits import Waits

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741
T = TypeVar("T")
C = TypeVar("C", bound=StepContextBase)

_NO_CONTEXT: Mapping[str, Any] = MappingProxyType({})


class WorkflowContext(StepCalls, Waits):
    """Durable operations of one run. Deterministic: the same history gives the same answers.

    Operations that return a coroutine take effect when awaited or wrapped into a task, like any
    coroutine. Plain methods (`now`, `uuid`, `random`, `side_effect`, `set_event`, `patched`,
    `webhook`, `task`, `start_child`, `on_signal`) take effect at once.

    `run_id`, `workflow` and `version` identify the run. `context` is what it was started with: it
    goes with each step and child that the body calls (README, "Pass a context along").
    """

    def __init__(
        self,
        replay: Replay,
        task: WorkflowTask,
        directory: Directory,
        *,
        partition: str | None = None,
    ) -> None:
        super().__init__(replay, task, directory, partition=partition)
        self._logger: BodyLogger | None = None
        context = context_of(task)
        self.context: Mapping[str, Any] = (
            _NO_CONTEXT if context is None else MappingProxyType(context_values(context))
        )
        replay.on_failure = self._compensations.undo

    @property
    def is_replaying(self) -> bool:
        """Whether the body goes over what it did in an earlier turn; also while it is unwound.

        For what must not happen twice and is no step, such as a metric. Never for what the body
        asks for: that must be the same on every replay. In doubt it is False.
        """
        return self._replay.waiting.is_replaying

    @property
    def logger(self) -> BodyLogger:
        """Logs through structlog, with the run's fields, and is silent while replaying."""
        if self._logger is None:
            fields = {"run_id": self.run_id, "workflow": self.workflow}
            self._logger = BodyLogger(self._replay.log_sink, lambda: self.is_replaying, fields)
        return self._logger

    @property
    def traceparent(self) -> str | None:
        """The W3C trace context that the run was started in."""
        stated = self.context.get("traceparent", self._task.traceparent)
        return stated if isinstance(stated, str) else None

    # Steps

    def saga(self) -> Saga:
        """A scope to enter by `async with`: what it has done is undone if it fails."""
        return Saga(self._replay, self._task, self._directory, partition=self._partition)

    @overload
    def local_step(
        self, step: Callable[[I, C], Awaitable[O]] | Callable[[I], Awaitable[O]], input: I, /
    ) -> Operation[O]: ...
    @overload
    def local_step(
        self, step: Callable[[C], Awaitable[O]] | Callable[[], Awaitable[O]], /
    ) -> Operation[O]: ...
    @overload
    def local_step(
        self, step: Callable[[I, C], O] | Callable[[I], O], input: I, /
    ) -> Operation[O]: ...
    @overload
    def local_step(self, step: Callable[[C], O] | Callable[[], O], /) -> Operation[O]: ...
    def local_step(self, step: Any, input: object = None, /) -> Operation[Any]:
        """Run a registered step inside this turn, in this process, and record its output.

        Saves the trip over the broker for short work; a crash before the turn ends, or a
        cancellation of the run meanwhile, runs it again.
        All local steps that run at one time end before the body sees the first result. The timeout
        of the decorator does not hold here.
        """
        definition = self._step_definition(step)
        location, token = caller(), self._journal.next_token()
        coroutine = run_local_step(self._replay, token, definition, input, location=location)
        self._journal.called(token, coroutine, "local_step", definition.name, location)
        return coroutine

    # Children

    @overload
    def child(
        self, workflow: "Callable[[WorkflowContext, I], Awaitable[O]]", input: I, /
    ) -> Operation[O]: ...
    @overload
    def child(self, workflow: "Callable[[WorkflowContext], Awaitable[O]]", /) -> Operation[O]: ...
    @overload
    def child(
        self, workflow: str, input: object = None, /, *, returns: type[T]
    ) -> Operation[T]: ...
    @overload
    def child(self, workflow: str, input: object = None, /) -> Operation[Any]: ...
    def child(
        self, workflow: Any, input: object = None, /, *, returns: Any = None
    ) -> Operation[Any]:
        """Run another workflow, in any language, and return its output.

        Its run id is `<run id>.child.<seq>`. Raises `ChildFailedError` if it fails or is cancelled.
        """
        name, decoder = self._workflow_named(workflow, returns)
        location, token = caller(), self._journal.next_token()
        coroutine = run_child(self._replay, token, name, input, decoder=decoder, location=location)
        self._journal.called(token, coroutine, "child", name, location)
        return coroutine

    @overload
    def start_child(
        self, workflow: "Callable[[WorkflowContext, I], Awaitable[O]]", input: I, /
    ) -> ChildHandle[O]: ...
    @overload
    def start_child(
        self, workflow: "Callable[[WorkflowContext], Awaitable[O]]", /
    ) -> ChildHandle[O]: ...
    @overload
    def start_child(
        self, workflow: str, input: object = None, /, *, returns: type[T]
    ) -> ChildHandle[T]: ...
    @overload
    def start_child(self, workflow: str, input: object = None, /) -> ChildHandle[Any]: ...
    def start_child(
        self, workflow: Any, input: object = None, /, *, returns: Any = None
    ) -> ChildHandle[Any]:
        """Start another workflow now; await what is returned later, or never.

        The child is started even if the body ends at once, and goes on without it.
        """
        name, decoder = self._workflow_named(workflow, returns)
        payload = encode_payload(input, what=f"the input of child workflow {name!r}")
        return ChildHandle(self._replay, name, payload, decoder, caller())

    # What only some operators can do

    def continue_as_new(self, input: object = None, /) -> NoReturn:
        """Leave the body, and begin it anew with `input` under the same run id: for a run that
        goes on for ever, since its history is empty then.

        Tags, attributes, context, parent and handles stay. Signals that nothing in the body has
        taken go over, everything else that is outstanding is given up; nothing is compensated. The
        body begins on the newest version that is served. May be called in any task of the body;
        `finally` blocks run, and must let what this raises pass, which is no `Exception`.

        Raises `UnsupportedByOperatorError` (a NestJS operator), `PayloadError`.
        """
        self._demand("ctx.continue_as_new", CONTINUE_AS_NEW)
        payload = encode_payload(input, what=f"the next input of {self.workflow!r}")
        self._replay.continue_as_new(payload)

    def _demand(self, what: str, capability: str) -> None:
        if not self._replay.operator_states(capability):
            raise UnsupportedByOperatorError(what, capability)

    def upsert_search_attributes(self, attributes: Mapping[str, object], /) -> None:
        """Set attributes by which runs can be found: text, numbers, booleans, or lists of them.

        Those that are not named stay as they are, None takes one away. Recorded once, and applied
        when the turn ends. Raises `UnsupportedByOperatorError` (a NestJS operator), `PayloadError`.
        """
        self._demand("ctx.upsert_search_attributes", SEARCH_ATTRIBUTES)
        payload = checked_attributes(attributes)
        self._replay.record(ATTRIBUTES_RECORD, lambda: payload)

    def call_entity(
        self, name: str, key: str, operation: str, argument: object = None, /
    ) -> Operation[Any]:
        """Call an operation of a durable entity, and return its output.

        Raises `UnsupportedByOperatorError`: no operator offers it to this version.
        """
        del name, key, operation, argument
        raise self._unsupported("ctx.call_entity", "entities")

    def _unsupported(self, what: str, capability: str) -> UnsupportedByOperatorError:
        is_stated = self._replay.operator_states(capability)
        return UnsupportedByOperatorError(what, capability, is_stated=is_stated)
