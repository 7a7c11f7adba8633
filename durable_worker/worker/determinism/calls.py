"""Notices calls in a body that a replay could not repeat, at the call.

While a body runs, the interpreter tells of each call (`sys.setprofile`): builtins also where they
were imported by name, which replacing them in their modules would miss. A profiler or tracer that
is active already is left alone, and nothing is noticed.
"""

import random
import sys
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, FrameType, ModuleType
from typing import Any

import structlog
from msgspec import Struct

from durable_worker.errors import NondeterministicCallError
from durable_worker.protocol.tasks import WorkflowTask
from durable_worker.replay import turn as turns
from durable_worker.replay.turn import Outcome, Replay
from durable_worker.worker.determinism.checks import NoChecks
from durable_worker.worker.determinism.forbidden import (
    BUILTIN_NAMES,
    BUILTINS,
    FUNCTION_NAMES,
    FUNCTIONS,
    RANDOM,
    TRUSTED_MODULES,
    Forbidden,
    Reach,
)
from durable_worker.worker.determinism.frames import Frames, Whose, module_of, place_in
from durable_worker.worker.determinism.policy import is_unchecked
from durable_worker.worker.registry import Worker

log = structlog.get_logger("durable_worker.worker")

FIRST_TURNS = 20
"""Turns of each workflow and version that are all watched where turns are sampled."""
ONE_IN = 500
"""After that. A turn that is watched takes some six times as long: this adds 1 % to all of them."""

Found = Callable[[Forbidden, str], None]
"""Takes a call and `file:line` of the user's code it was made from."""

_SIDE_EFFECT = turns._produced.__code__  # pyright: ignore[reportPrivateUsage]


class _Reported(Struct, frozen=True):
    workflow: str
    version: str
    call: str
    place: str


class CallChecks(NoChecks):
    """Runs turns of bodies, some or all of them watched.

    `is_raising`: every turn is watched, and a call that is noticed raises
    `NondeterministicCallError` there and fails the run, whatever the body catches. Otherwise some
    turns are, and what is noticed is logged once for each place.
    """

    def __init__(self, worker: Worker, *, is_raising: bool) -> None:
        self._frames = Frames(definition.fn for definition in worker.workflows.values())
        self._is_raising = is_raising
        self._turns: dict[int, int] = {}
        self._reported: set[_Reported] = set()

    def watched(self, task: WorkflowTask, replay: Replay, turn: Callable[[], Outcome]) -> Outcome:
        if not (self._is_raising or self._is_due(replay)) or sys.getprofile() is not None:
            return turn()
        found: list[tuple[Forbidden, str]] = []

        def note(call: Forbidden, place: str) -> None:
            found.append((call, place))

        def refuse(call: Forbidden, place: str) -> None:
            error = NondeterministicCallError(
                call.call, instead=call.instead, location=place, workflow=task.workflow
            )
            # The body may catch the error; the turn fails all the same.
            replay.journal.failure = replay.journal.failure or error
            replay.journal.is_sealed = True
            raise error

        sys.setprofile(self._profile(refuse if self._is_raising else note))
        try:
            return turn()
        finally:
            sys.setprofile(None)
            for call, place in found:
                self._report(task, call, place)

    def _is_due(self, replay: Replay) -> bool:
        key = id(replay.definition)
        count = self._turns[key] = self._turns.get(key, 0) + 1
        return count <= FIRST_TURNS or count % ONE_IN == 0

    def _profile(self, found: Found) -> Callable[[FrameType, str, Any], None]:
        builtin_names, function_names = BUILTIN_NAMES, FUNCTION_NAMES

        def profile(frame: FrameType, event: str, argument: Any) -> None:
            if event == "c_call":
                if argument.__name__ in builtin_names:
                    self._judge(_builtin(argument), frame, found)
            elif event == "call" and frame.f_code.co_qualname in function_names:
                self._judge(_function(frame), frame.f_back, found)

        return profile

    def _judge(self, call: Forbidden | None, caller: FrameType | None, found: Found) -> None:
        if call is None or is_unchecked.get():
            return
        nearest: Whose | None = None
        place = ""
        for frame in _outwards(caller):
            code = frame.f_code
            if (
                code is _SIDE_EFFECT
                or code.co_name == "__del__"
                or (code.co_qualname in FUNCTION_NAMES and _function(frame) is not None)
                or module_of(frame) in TRUSTED_MODULES
            ):
                return  # allowed, or reported already under the name that the body knows
            whose = self._frames.whose(frame)
            if nearest is None and whose is not Whose.STANDARD:
                nearest = whose
            if not place and whose is Whose.USERS:
                place = place_in(frame)
        is_on_the_users_account = nearest is Whose.USERS or (
            call.reach is Reach.ANYWHERE and nearest is Whose.LIBRARY
        )
        if place and is_on_the_users_account:
            found(call, place)

    def _report(self, task: WorkflowTask, call: Forbidden, place: str) -> None:
        reported = _Reported(task.workflow, task.workflow_version, call.call, place)
        if reported in self._reported:
            return
        self._reported.add(reported)
        log.warning(
            "nondeterministic_call",
            workflow=task.workflow,
            version=task.workflow_version,
            call=call.call,
            location=place,
            hint=f"A replay cannot repeat {call.call} in a workflow body: {call.instead}.",
        )


_WATCHED = CallChecks.watched.__code__


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    """From the innermost frame to what drives the turn."""
    while frame is not None and frame.f_code is not _WATCHED:
        yield frame
        frame = frame.f_back


def _builtin(function: BuiltinFunctionType) -> Forbidden | None:
    owner: object = function.__self__
    if isinstance(owner, ModuleType):
        return BUILTINS.get(f"{owner.__name__}.{function.__name__}")
    kind: type[Any] = owner if isinstance(owner, type) else type(owner)
    for base in kind.__mro__:
        key = f"{base.__module__}.{base.__qualname__}.{function.__name__}"
        call = BUILTINS.get(key)
        if call is not None:
            return call if not key.startswith(RANDOM) or _is_shared(owner) else None
    return None


def _function(frame: FrameType) -> Forbidden | None:
    key = f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}"
    call = FUNCTIONS.get(key)
    if call is None or not key.startswith(RANDOM):
        return call
    arguments = frame.f_locals
    if key == f"{RANDOM}__init__":
        return call if arguments.get("x") is None and _is_plain(arguments.get("self")) else None
    return call if _is_shared(arguments.get("self")) else None


def _is_plain(generator: object) -> bool:
    return type(generator) is random.Random


def _is_shared(generator: object) -> bool:
    """Whether it is the generator behind `random.random()`, or one that asks the system."""
    shared = random.random.__self__  # type: ignore[attr-defined]
    return generator is shared or isinstance(generator, random.SystemRandom)
