"""What the event loop's thread is busy with: of which step or turn, and at which line."""

import asyncio
import linecache
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextvars import Context
from types import FrameType
from typing import cast

from msgspec import Struct

from durable_worker.worker.determinism.frames import Frames, Whose
from durable_worker.worker.step_context import step_in, turn_in

# What they are tells where in the loop a thread is; there is no public way to ask.
_CALLBACK = asyncio.Handle._run.__code__  # pyright: ignore[reportPrivateUsage]
_ITERATION = asyncio.BaseEventLoop._run_once.__code__  # type: ignore[attr-defined]


class Activity(Struct, frozen=True):
    """What a thread does at a moment. `handle` is the callback that the event loop has called, or
    None where it `is_between` two, or where it is a loop that does not tell."""

    handle: asyncio.Handle | None
    subject: Mapping[str, object]
    at: str
    is_between: bool


def activity_of(thread: int, functions: Iterable[object]) -> Activity | None:
    """`functions` are those whose packages are the user's. None if the thread has ended."""
    innermost = sys._current_frames().get(thread)  # pyright: ignore[reportPrivateUsage]
    if innermost is None:
        return None
    handle, called = _called(innermost)
    codes = {frame.f_code for frame in called}
    return Activity(
        handle=handle,
        subject={} if handle is None else _subject(handle),
        at=_place(_theirs(called, Frames(functions))),
        is_between=handle is None and _ITERATION in codes,
    )


def _called(innermost: FrameType) -> tuple[asyncio.Handle | None, list[FrameType]]:
    """The callback that the outermost loop has called, and the frames in it, innermost first."""
    handle: asyncio.Handle | None = None
    frames: list[FrameType] = []
    found = 0
    for frame in _outwards(innermost):
        if frame.f_code is _CALLBACK:
            handle, found = frame.f_locals["self"], len(frames)
        frames.append(frame)
    return handle, frames[: found or None]


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _subject(handle: asyncio.Handle) -> dict[str, object]:
    context = cast("Context", handle._context)  # type: ignore[attr-defined]
    step = step_in(context)
    if step is not None:
        return {"step": step.name, "run_id": step.run_id, "attempt": step.attempt}
    turn = turn_in(context)
    if turn is not None:
        workflow, run_id = turn
        return {"workflow": workflow, "run_id": run_id}
    return {}


def _theirs(called: list[FrameType], frames: Frames) -> FrameType:
    """The innermost frame of the user's code, if there is one."""
    for whose in (Whose.USERS, Whose.LIBRARY):
        for frame in called:
            if frames.whose(frame) is whose:
                return frame
    return called[0]


def _place(frame: FrameType) -> str:
    """`app.py:25 in charge: time.sleep(75)`"""
    path, line = frame.f_code.co_filename, frame.f_lineno
    # A frame that is just being entered or left may have no line.
    source = "" if line is None else linecache.getline(path, line).strip()
    here = os.path.join(os.getcwd(), "")
    shown = path.removeprefix(here)
    return f"{shown}:{line} in {frame.f_code.co_qualname}" + (f": {source}" if source else "")
