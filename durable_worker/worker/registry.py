"""What a worker serves: the steps and workflows that were registered on it."""

from collections.abc import Callable, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, TypeVar

from durable_worker.edge.plain import Codec
from durable_worker.errors import RegistrationError
from durable_worker.protocol.names import routing_token
from durable_worker.protocol.tasks import WorkflowTask
from durable_worker.replay.arguments import Timeout, positive_limit
from durable_worker.replay.context import WorkflowContext
from durable_worker.replay.definitions import (
    Retry,
    StepDefinition,
    WorkflowDefinition,
    location_of,
    names_of,
    retry_policy,
)
from durable_worker.replay.turn import Replay

if TYPE_CHECKING:
    from durable_worker.worker.interception import Interception, Interceptor

F = TypeVar("F", bound=Callable[..., Any])


class Worker:
    """A set of steps and workflows. Decorated functions stay plain functions.

    Holds no connection and starts nothing: `durable-worker run module:worker` serves it.

    `codec` (a `durable_worker.payloads.PayloadCodec`) seals what leaves the process. The context of
    a run goes to the steps and children that are registered here, and to those whose names fit
    `context_to` (patterns as in `billing.*`): their workers have to know envelopes, too.
    """

    def __init__(
        self,
        *,
        interceptors: "Sequence[Interceptor]" = (),
        codec: Codec | None = None,
        context_to: Sequence[str] = (),
    ) -> None:
        """`interceptors` wrap what this worker runs, the first outermost.

        Raises `RegistrationError` for one that cannot be used.
        """
        self.interception: Interception | None = None
        if interceptors:
            from durable_worker.worker.interception import interception_of

            self.interception = interception_of(interceptors)
        if isinstance(context_to, str):
            raise RegistrationError("context_to is a list of patterns, not one text")
        self.codec = codec
        self.context_to = tuple(context_to)
        self.steps: dict[str, StepDefinition] = {}
        self.workflows: dict[tuple[str, str], WorkflowDefinition] = {}
        self._steps_by_function: dict[Callable[..., Any], StepDefinition] = {}
        self._workflows_by_function: dict[Callable[..., Any], WorkflowDefinition] = {}
        self._places: dict[str, str] = {}

    def step(
        self, name: str, *, retries: int | Retry | None = None, timeout: Timeout = None
    ) -> Callable[[F], F]:
        """Register a function (`async def`, or `def`, which then runs in a thread) as a step.

        It takes its input and/or a `StepContext`. `retries` says what to do when it raises: a
        number of further attempts after the first, or a `Retry`; by default it is not tried again.
        `timeout` (seconds if a number) is how long a body waits for the result of each attempt,
        the time until a worker takes it included.

        Raises `RegistrationError` for a name in use or a signature that does not fit.
        """
        _refuse_bare_decorator(name, "step")
        limit = positive_limit(timeout, f"step {name!r}")

        def register(function: F) -> F:
            definition = StepDefinition(name, function, retry=retry_policy(retries), limit=limit)
            self._claim(name, function, f"step {name!r}")
            self.steps[name] = definition
            self._steps_by_function[function] = definition
            return function

        return register

    def workflow(self, name: str, *, version: str = "1") -> Callable[[F], F]:
        """Register an `async def` function as a workflow body.

        It takes a `WorkflowContext` and, optionally, its input. Several versions of one name can
        be registered; a run stays on the version that it started on.

        Raises `RegistrationError` for a name and version in use or a signature that does not fit.
        """
        _refuse_bare_decorator(name, "workflow")

        def register(function: F) -> F:
            definition = WorkflowDefinition(name, function, version=version)
            if not any(registered == name for registered, _ in self.workflows):
                self._claim(name, function, f"workflow {name!r}")
            elif (name, version) in self.workflows:
                first = location_of(self.workflows[name, version].fn)
                raise RegistrationError(
                    f"workflow {name!r} version {version!r} is registered twice: {first} and "
                    f"{location_of(function)}"
                )
            self.workflows[name, version] = definition
            self._workflows_by_function[function] = definition
            return function

        return register

    def with_steps(self, replaced: Callable[[StepDefinition], StepDefinition]) -> "Worker":
        """A worker like this one, with another definition in the place of each step."""
        made = copy(self)
        made.steps = {name: replaced(each) for name, each in self.steps.items()}
        made._steps_by_function = {
            function: made.steps[each.name] for function, each in self._steps_by_function.items()
        }
        return made

    def new_context(
        self, replay: Replay, task: WorkflowTask, *, partition: str | None = None
    ) -> WorkflowContext:
        """The context for a body of this worker, with its interceptors around it."""
        if self.interception is None:
            return WorkflowContext(replay, task, self, partition=partition)
        from durable_worker.replay.intercepted import new_context

        hooks = self.interception.run
        return new_context(replay, task, self, partition=partition, hooks=hooks)

    def step_of(self, fn: Callable[..., Any]) -> StepDefinition | None:
        return self._steps_by_function.get(fn)

    def workflow_of(self, fn: Callable[..., Any]) -> WorkflowDefinition | None:
        return self._workflows_by_function.get(fn)

    def workflow_named(self, name: str, version: str) -> WorkflowDefinition:
        """Raises `RegistrationError` that says what is registered."""
        definition = self.workflows.get((name, version))
        if definition is not None:
            return definition
        versions = sorted(v for registered, v in self.workflows if registered == name)
        if versions:
            raise RegistrationError(
                f"version {version!r} of workflow {name!r} is not registered on this worker, only "
                f"{', '.join(versions)}; keep a version registered until its last run has ended"
            )
        known = names_of(self.workflows.values())
        raise RegistrationError(
            f"workflow {name!r} is not registered on this worker, which has {known}"
        )

    def check(self) -> None:
        """Raises `RegistrationError` if nothing is registered or an annotation cannot be used."""
        if not self.steps and not self.workflows:
            raise RegistrationError(
                "the worker serves nothing; register functions with @worker.step(...) or "
                "@worker.workflow(...)"
            )
        for definition in [*self.steps.values(), *self.workflows.values()]:
            definition.check()

    def names(self) -> list[str]:
        """Every registered name once, in order of registration."""
        return list(dict.fromkeys([*self.steps, *(name for name, _ in self.workflows)]))

    def _claim(self, name: str, function: Callable[..., Any], what: str) -> None:
        if not name:
            raise RegistrationError(f"{location_of(function)} needs a name that is not empty")
        token = routing_token(name)
        place = f"{what} ({location_of(function)})"
        if token in self._places:
            raise RegistrationError(
                f"two registrations share the task queue {token!r}: {self._places[token]} and "
                f"{place}; give one of them another name"
            )
        self._places[token] = place


def _refuse_bare_decorator(name: object, noun: str) -> None:
    if not isinstance(name, str):
        raise RegistrationError(f'@worker.{noun} needs a name: write @worker.{noun}("some-name")')
