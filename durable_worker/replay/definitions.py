"""What is known about a registered step or workflow: its name, function, types and retry policy."""

import inspect
import typing
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import cached_property
from typing import Any, Protocol

from msgspec import NODEFAULT, Struct, UnsetType

from durable_worker.errors import InterceptorError, PayloadError, RegistrationError
from durable_worker.protocol.base import Payload
from durable_worker.protocol.commands import RetryOptions
from durable_worker.protocol.payload import PayloadDecoder, decoder_for


class StepContextBase:
    """Marks the context object of steps, so that types and registration tell it from an input."""


class Retry(Struct, frozen=True):
    """How often and when a failed step is tried again.

    `attempts` counts all tries, the first included. The wait before try n+1 is
    `min(maximum, initial * factor ** (n - 1))`, spread by `jitter` (a fraction of itself) to either
    side. `non_retryable` holds exception classes, or codes of failures from other languages.
    """

    attempts: int = 1
    initial: timedelta = timedelta(seconds=1)
    factor: float = 2.0
    maximum: timedelta = timedelta(minutes=1)
    jitter: float = 0.1
    non_retryable: tuple[type[BaseException] | str, ...] = ()

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise RegistrationError(f"a retry policy needs at least 1 attempt, not {self.attempts}")
        if self.factor < 1 or not 0 <= self.jitter <= 1:
            raise RegistrationError("a retry policy needs factor >= 1 and 0 <= jitter <= 1")

    def rules_out(self, error: BaseException) -> bool:
        return any(isinstance(c, type) and isinstance(error, c) for c in self.non_retryable)

    def options(self) -> RetryOptions:
        codes = [c if isinstance(c, str) else failure_code(c) for c in self.non_retryable]
        return RetryOptions(
            attempts=self.attempts,
            initial_ms=to_ms(self.initial),
            factor=self.factor,
            max_ms=to_ms(self.maximum),
            jitter=self.jitter,
            non_retryable=codes or None,
        )


def to_ms(duration: timedelta) -> int:
    return max(0, round(duration.total_seconds() * 1000))


def retry_policy(retries: "int | Retry | None") -> Retry | None:
    """`3` is short for three more attempts after the first, with the default backoff."""
    return Retry(attempts=retries + 1) if isinstance(retries, int) else retries


def failure_code(error: type[BaseException]) -> str:
    """The `code` that failures of this exception class carry on the wire."""
    code = getattr(error, "code", None)
    return code if isinstance(code, str) and code else error.__name__


class _Shape(Struct, frozen=True):
    """Which positional parameter is the input and which is the context."""

    input: str | None
    context: str | None
    context_first: bool
    default: Any = NODEFAULT


class _Definition:
    def __init__(self, name: str, fn: Callable[..., Any], *, context_type: str) -> None:
        self.name = name
        self.fn = fn
        self._shape = _shape_of(fn, name, context_type)
        self._input_name = f"the input of {name!r}"

    @property
    def takes_input(self) -> bool:
        return self._shape.input is not None

    @cached_property
    def _hints(self) -> dict[str, Any]:
        try:
            return typing.get_type_hints(self.fn, include_extras=True)
        except Exception as error:
            raise RegistrationError(
                f"the annotations of {self.name!r} cannot be resolved: {error}"
            ) from error

    @cached_property
    def input_decoder(self) -> PayloadDecoder[Any]:
        return self._decoder(self._hints.get(self._shape.input or "", Any), "input")

    @cached_property
    def output_decoder(self) -> PayloadDecoder[Any]:
        return self._decoder(self._hints.get("return", Any), "output")

    def _decoder(self, annotation: Any, role: str) -> PayloadDecoder[Any]:
        try:
            return decoder_for(annotation)
        except PayloadError as error:
            raise RegistrationError(f"the {role} of {self.name!r}: {error}") from error

    def arguments(self, payload: Payload, context: object) -> tuple[Any, ...]:
        """The positional arguments of `fn`. Raises `PayloadError` if the input does not fit."""
        shape = self._shape
        taken = (context,) if shape.context is not None else ()
        if shape.input is None:
            return taken
        if isinstance(payload, UnsetType) and shape.default is not NODEFAULT:
            value = shape.default
        else:
            value = self.input_decoder.decode(payload, what=self._input_name)
        if not taken:
            return (value,)
        return (context, value) if shape.context_first else (value, context)

    def input_among(self, arguments: tuple[Any, ...]) -> Any:
        """The input in what `arguments` returned; None if `fn` takes none."""
        at = self._input_at
        return None if at is None else arguments[at]

    def with_input(self, arguments: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
        """`arguments` with another input. Raises `InterceptorError` if `fn` takes none."""
        at = self._input_at
        if at is not None:
            return (*arguments[:at], value, *arguments[at + 1 :])
        if value is not None:
            raise InterceptorError(f"{self.name!r} takes no input that could be replaced")
        return arguments

    @property
    def _input_at(self) -> int | None:
        shape = self._shape
        return None if shape.input is None else int(shape.context_first)

    def check(self) -> None:
        """Raises `RegistrationError` if the annotations cannot be used."""
        _ = self.input_decoder, self.output_decoder


class StepDefinition(_Definition):
    """`limit`: seconds that a body gives each attempt; None: for ever."""

    def __init__(
        self,
        name: str,
        fn: Callable[..., Any],
        *,
        retry: Retry | None = None,
        limit: float | None = None,
    ) -> None:
        super().__init__(name, fn, context_type="StepContext")
        self.retry = retry
        self.limit = limit
        self.is_async = inspect.iscoroutinefunction(fn)
        self.output_name = f"the output of step {name!r}"


class WorkflowDefinition(_Definition):
    def __init__(self, name: str, fn: Callable[..., Any], *, version: str) -> None:
        if not inspect.iscoroutinefunction(fn):
            raise RegistrationError(
                f"the workflow {name!r} is a plain function ({location_of(fn)}); a workflow body "
                f"must be written with `async def`"
            )
        super().__init__(name, fn, context_type="WorkflowContext")
        self.version = version
        if self._shape.context is None or not self._shape.context_first:
            raise RegistrationError(
                f"the workflow {name!r} ({location_of(fn)}) must take its WorkflowContext as the "
                f"first parameter: `async def {fn.__name__}(ctx: WorkflowContext, ...)`"
            )


class Directory(Protocol):
    """Finds what a body refers to by function."""

    def step_of(self, fn: Callable[..., Any]) -> StepDefinition | None: ...
    def workflow_of(self, fn: Callable[..., Any]) -> WorkflowDefinition | None: ...


def location_of(fn: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(fn), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else repr(fn)


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _shape_of(fn: Callable[..., Any], name: str, context_type: str) -> _Shape:
    parameters = [p for p in inspect.signature(fn).parameters.values() if p.kind in _POSITIONAL]
    contexts = [p.name for p in parameters if _is_context(p, context_type)]
    values = [p for p in parameters if p.name not in contexts]
    inputs = [p.name for p in values if p.default is p.empty]
    default: Any = NODEFAULT
    if not inputs and values:
        inputs, default = [values[0].name], values[0].default
    required_keywords = [
        p.name
        for p in inspect.signature(fn).parameters.values()
        if p.kind is inspect.Parameter.KEYWORD_ONLY and p.default is p.empty
    ]
    if len(inputs) > 1 or len(contexts) > 1 or required_keywords:
        listed = ", ".join([*inputs, *required_keywords])
        raise RegistrationError(
            f"{name!r} ({location_of(fn)}) takes several inputs ({listed}); a step or workflow "
            f"takes one value and optionally its context. Put the inputs into one dataclass or "
            f"Struct."
        )
    first = bool(contexts) and parameters[0].name == contexts[0]
    return _Shape(next(iter(inputs), None), next(iter(contexts), None), first, default)


def _is_context(parameter: inspect.Parameter, context_type: str) -> bool:
    annotation = parameter.annotation
    if annotation is parameter.empty:
        return parameter.name in ("ctx", "context")
    if isinstance(annotation, str):
        return annotation.rpartition(".")[2].strip("\"'") == context_type
    return getattr(annotation, "__name__", None) == context_type


def names_of(definitions: Iterable[_Definition]) -> str:
    return ", ".join(sorted(repr(d.name) for d in definitions)) or "nothing"
