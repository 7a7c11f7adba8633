"""Notices that the event loop has stopped turning, and says whose code holds it."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping
from datetime import timedelta
from threading import Event, Thread, get_ident
from typing import TYPE_CHECKING, TypeGuard

import anyio
import structlog

from durable_worker.worker.registry import Worker

if TYPE_CHECKING:
    from durable_worker.worker.blocking import Activity

log = structlog.get_logger("durable_worker.worker")

LOOKS = 4
"""How often it looks in the time after which a loop counts as blocked."""

QUIET_SECONDS = 60.0
"""A line that blocks again and again is told once in so long."""

REMEMBERED_LINES = 1_000


class LoopWatch:
    """A thread that asks the event loop for a sign of life, several times in `blocked_after`.

    The first blocking of a line that lasts for so long is one warning, `event_loop_blocked`, and a
    line `event_loop_free` when it is over. Does nothing if `blocked_after` is None, and on a loop
    whose clock is not that of the world. The thread does not keep the process alive.
    """

    def __init__(self, worker: Worker, blocked_after: timedelta | None) -> None:
        self._worker = worker
        self._limit = None if blocked_after is None else blocked_after.total_seconds()
        self._ending = Event()
        self._asked_at = 0.0
        self._answered_at: float | None = 0.0
        self._is_noted = False
        self._told: Mapping[str, object] | None = None
        self._lines: OrderedDict[str, tuple[float, int]] = OrderedDict()

    async def run(self) -> None:
        """Watch the running loop until cancelled."""
        self._loop, self._loop_thread = asyncio.get_running_loop(), get_ident()
        has_own_clock = abs(self._loop.time() - time.monotonic()) > 1
        if not self._limit or has_own_clock:
            return
        thread = Thread(target=self._look, name="durable-worker-loop-watch", daemon=True)
        thread.start()
        try:
            await anyio.sleep_forever()
        finally:
            self._ending.set()
            thread.join()

    # In the loop's thread

    def _answer(self) -> None:
        self._answered_at = time.monotonic()

    # In its own

    def _look(self) -> None:
        assert self._limit is not None
        pause = self._limit / LOOKS
        silence, looked_at = 0.0, time.monotonic()
        earlier: Activity | None = None
        while not self._ending.wait(pause):
            now = time.monotonic()
            # A process that was stopped for an hour is not a loop that was blocked for one.
            silence += min(now - looked_at, 2 * pause)
            looked_at = now
            if self._answered_at is not None:
                self._tell_free()
                silence, earlier = 0.0, None
                if not self._ask():
                    return
            elif silence >= self._limit / 2 and not self._is_noted:
                activity = self._activity()
                if silence >= self._limit and _is_same(activity, earlier):
                    self._note(activity, silence)
                earlier = activity

    def _activity(self) -> "Activity | None":
        # Most processes never need it, and none on its way to the first message.
        from durable_worker.worker.blocking import activity_of

        definitions = [*self._worker.steps.values(), *self._worker.workflows.values()]
        return activity_of(self._loop_thread, [each.fn for each in definitions])

    def _ask(self) -> bool:
        self._asked_at, self._answered_at = time.monotonic(), None
        try:
            self._loop.call_soon_threadsafe(self._answer)
        except RuntimeError:  # the loop was closed under it
            return False
        return True

    def _note(self, activity: "Activity", seconds: float) -> None:
        self._is_noted = True
        count = self._count(activity.at)
        if count is None:
            return
        self._told = activity.subject or {"role": "worker"}
        log.warning(
            "event_loop_blocked",
            **self._told,
            seconds=round(seconds, 1),
            at=activity.at,
            **({"times": count} if count > 1 else {}),
            hint=_hint(activity),
        )

    def _tell_free(self) -> None:
        if self._told is not None:
            assert self._answered_at is not None
            seconds = round(self._answered_at - self._asked_at, 1)
            log.info("event_loop_free", **self._told, seconds=seconds)
        self._is_noted, self._told = False, None

    def _count(self, at: str) -> int | None:
        """How often the line has blocked since it was last told of; None: not to be told again."""
        now = time.monotonic()
        told_at, times = self._lines.pop(at, (-QUIET_SECONDS, 0))
        times += 1
        if now - told_at < QUIET_SECONDS:
            self._lines[at] = (told_at, times)
            return None
        self._lines[at] = (now, 0)
        if len(self._lines) > REMEMBERED_LINES:
            self._lines.popitem(last=False)
        return times


def _is_same(activity: "Activity | None", earlier: "Activity | None") -> "TypeGuard[Activity]":
    """Whether one call has kept the loop busy between two looks: else there are many short ones, or
    the process gets no processor time, and it would be wrong to name whoever was met."""
    if activity is None or earlier is None or activity.is_between or earlier.is_between:
        return False
    return activity.handle is earlier.handle


def _hint(activity: "Activity") -> str:
    if "step" in activity.subject:
        return (
            "nothing else runs in this process meanwhile. Make the step a plain `def` without "
            "`async`: it then runs in a thread. Or hand the call to one: "
            "`await anyio.to_thread.run_sync(...)`."
        )
    if "workflow" in activity.subject:
        return (
            "nothing else runs in this process meanwhile. A workflow only decides: move the work "
            "into a step."
        )
    return "nothing else runs in this process meanwhile. Hand the call to a thread."
