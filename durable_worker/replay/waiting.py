"""What a body waits for, and what it is given when it is idle.

A body rests at an *idle point*: nothing in it is ready, it waits for outstanding operations. What
an idle point gets delivered, and in which order, must be the same on every replay although history
does not tell in which order results came. The rule (protocol/README.md, "Markers"):

- a marker at the next seq names exactly what was delivered there;
- else, if all that the body waits for is resolved, it gets all of it, in ascending order of seq;
- else this is the present. It gets what is there, in ascending order, and if the body then asks
  for anything new, a marker that names what was delivered is recorded before that.

Deliveries happen one at a time, and the body runs until it is idle in between.

Where history does tell the order ("Ordered history"), every idle point gets the earliest result
that is there, and needs no marker: what a longer history adds came later.
"""

import asyncio
from collections.abc import Iterable

from durable_worker.protocol.base import Payload
from durable_worker.protocol.commands import AnyCommand, CancelStep
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind
from durable_worker.replay.arrivals import Arrivals
from durable_worker.replay.journal import Journal, TurnAbortedError, caller_location, is_of
from durable_worker.replay.loop import DeterministicLoop, DurableTimer
from durable_worker.replay.operations import (
    CANCELLED,
    DEADLINES,
    DELIVERED,
    IdlePoint,
    LocalStep,
    Location,
    Operation,
    Phase,
    Requested,
    Timer,
    cancelled_marker,
    deadlines_marker,
    delivered_marker,
    read_deadlines,
    read_delivered,
    whole_milliseconds,
)
from durable_worker.replay.queries import Queries

_FREE = Phase()


class Waiting:
    """The outstanding operations of one body, `main`."""

    def __init__(self, journal: Journal) -> None:
        self.loop = DeterministicLoop(self)  # type: ignore[abstract]
        self.outstanding: dict[int, Operation] = {}
        self.queries = Queries(journal)
        self.is_cancelled = False
        self._journal = journal
        self._arrivals = Arrivals(journal, self.outstanding)
        self.main: asyncio.Task[Payload] | None = None
        self._abandoned: dict[int, Operation] = {}
        self._given_up: set[int] = set()
        self.tells_given_up = False
        """Whether the operator wants to know of calls that are given up."""
        self._lost_waits: dict[str, list[Requested]] = {}
        self._point: IdlePoint | None = None
        self._since = 0
        self._phase = _FREE
        self._given: list[int] = []
        self._given_at = -1
        self.has_local_steps = False
        """Whether the body has run a step in this worker."""
        self._has_timers = False
        self.promised: list[int] = []
        """The seqs of children that must be started even if the body ends at once."""

    def begin_at(self, seq: int) -> None:
        """The body begins to count here: what is before is of an execution that has ended."""
        self._journal.next_seq = self._since = seq

    def run_until_idle(self) -> None:
        if self.loop.ready:
            self.loop.run_until_idle()
        if self._journal.failure is not None:
            raise TurnAbortedError

    def asked_for(self, added: Iterable[HistoryEvent]) -> bool:
        """Whether what history adds can be the outcome of what was asked for here.

        It is not where the operator has applied the answer to another copy of a turn, which knew
        less than the one that was answered here: that body asked for something else at these seqs.
        """
        for event in added:
            operation = self.outstanding.get(event.seq) or self._abandoned.get(event.seq)
            if operation is None or not is_of(event, operation.kind, operation.name):
                return False
        return True

    def delivers_in_order(self, added: list[HistoryEvent]) -> bool:
        """Whether a replay that also has `added` would have delivered so far what was delivered.

        It would deliver in ascending order what is still unrecorded at the present idle point.
        """
        if self._journal.is_ordered:
            latest = self._arrivals.latest
            return all(event.order is None or event.order > latest for event in added)
        if self._point is None or not self._point.delivered:
            return True
        point = self._point
        if added and any(seq not in point.waiting for seq in point.delivered):
            return False  # a signal wait was taken up again in between
        latest = max(point.delivered)
        return not any(event.seq < latest and event.seq in point.waiting for event in added)

    def commands(self, now_ms: int) -> list[AnyCommand]:
        """What to ask for (again) of everything outstanding, and which calls are given up."""
        asked = [
            command
            for operation in self.outstanding.values()
            if (command := operation.command(now_ms)) is not None
        ]
        return [*asked, *self.given_up()] if self._given_up else asked

    def given_up(self) -> list[CancelStep]:
        """Calls whose waits were cancelled, as far as history does not show it."""
        if not self.tells_given_up or not self._journal.is_ordered:
            return []
        self._given_up.difference_update([s for s in self._given_up if s in self._journal.events])
        return [CancelStep(seq=seq) for seq in sorted(self._given_up)]

    # Idle points

    def follow_markers(self) -> bool:
        """Do what a marker at the next seq says; False if there is none."""
        name = self._journal.marker()
        if name is None:
            return False
        match name:
            case marker if marker == DELIVERED:
                self._follow_marker()
            case marker if marker == DEADLINES:
                self._read_deadlines()
            case marker if marker == CANCELLED:
                self._follow_cancellation()
            case _:
                self._pass(self._journal.next_seq)
                self.queries.follow()
        return True

    def cancel_here(self) -> None:
        """Cancel the body where it waits, with everything delivered that is there.

        What it got since it last asked for something is in no other marker: this one names it.
        """
        journal = self._journal
        seq = journal.take_seq()
        delivered = self._given if self._given_at == seq else []
        journal.recorded.append(cancelled_marker(seq, delivered))
        self._begin_cancelled(seq)

    def _follow_cancellation(self) -> None:
        seq = self._journal.next_seq
        self._deliver_what_is_named(seq)
        self._begin_cancelled(seq)

    def _begin_cancelled(self, seq: int) -> None:
        self.is_cancelled = True
        self._point = None
        self._since, self._phase = seq, _FREE
        if self.main is not None:
            self.main.cancel()
        self.run_until_idle()

    def _pass(self, seq: int) -> None:
        """What is recorded at `seq` changes nothing in the body: it has asked for nothing."""
        if self._given_at == seq:
            self._given_at = seq + 1

    def _await(self, operation: Operation) -> None:
        self.outstanding[operation.seq] = operation
        if self._journal.is_ordered:
            self._arrivals.awaited(operation.seq)

    def _note(self, at: int, seqs: Iterable[int]) -> None:
        """Remember what the body got while `at` was the next seq."""
        if self._given_at != at:
            self._given_at = at
            self._given = []
        self._given += seqs

    def _deliver(self, seq: int) -> None:
        operation = self.outstanding.pop(seq)
        event = self._journal.events[seq]
        if isinstance(operation, Timer):
            if operation.handle is not None:
                self.loop.fire(operation.handle)
        elif operation.future is not None and not operation.future.done():
            operation.future.set_result(event)
        self._arrivals.got(event)
        self.run_until_idle()

    def _follow_marker(self) -> None:
        self._deliver_what_is_named(self._journal.next_seq)
        self._point = None

    def _deliver_what_is_named(self, seq: int) -> None:
        journal = self._journal
        event = journal.events[seq]
        journal.next_seq = seq + 1
        self._point = IdlePoint(frozenset(self.outstanding))
        self._since, self._phase = seq, _FREE
        for delivered in read_delivered(event):
            if delivered not in self.outstanding or delivered not in journal.events:
                waiting = ", ".join(op.describe() for op in self.outstanding.values())
                journal.mismatch(
                    delivered,
                    recorded=f"that the operation of seq {delivered} was delivered next",
                    asked=f"other operations: it waits for {waiting or 'nothing'}",
                    location=self._first_location(),
                )
            self._deliver(delivered)

    def _read_deadlines(self) -> None:
        journal = self._journal
        event = journal.events[journal.next_seq]
        self._pass(journal.next_seq)
        journal.next_seq += 1
        for seq, deadline in read_deadlines(event).items():
            timer = self.outstanding.get(seq)
            if not isinstance(timer, Timer):
                journal.mismatch(
                    seq,
                    recorded="the deadline of a timer",
                    asked="no timer there",
                    location=self._first_location(),
                )
            timer.deadline_ms = deadline

    def _deliver_earliest(self) -> bool:
        seq, at = self._arrivals.earliest(), self._journal.next_seq
        if seq is None:
            return False
        self._since, self._phase = at, _FREE
        self._note(at, [seq])
        self._deliver(seq)
        return True

    def deliver_what_is_there(self) -> bool:
        journal = self._journal
        if journal.is_ordered:
            return self._deliver_earliest()
        events = journal.events
        there = sorted([seq for seq in self.outstanding if seq in events])
        if not there:
            return False
        self._point = point = self._point or IdlePoint(frozenset(self.outstanding))
        # A signal wait that was given up before and taken up again here comes after the rest.
        there = [seq for seq in there if seq in point.waiting] or there
        is_whole = events.keys() >= point.waiting
        self._since, self._phase = journal.next_seq, Phase(point.waiting, is_part=not is_whole)
        if is_whole:
            at = journal.next_seq
            given: list[int] = []
            for seq in there:
                if seq in self.outstanding:
                    given.append(seq)
                    self._deliver(seq)
            if journal.next_seq == at:
                self._note(at, given)
            self._point = None
            return True
        marker_seq = journal.take_seq()
        delivered = list(point.delivered)
        for seq in there:
            if seq in self.outstanding:
                delivered.append(seq)
                self._deliver(seq)
        if journal.next_seq == marker_seq + 1 and not self._has_ended():
            journal.next_seq = marker_seq
            self._note(marker_seq, delivered[len(point.delivered) :])
            self._point = IdlePoint(point.waiting, tuple(delivered))
        else:
            journal.recorded.append(delivered_marker(marker_seq, delivered))
            self._point = None
        return True

    def _has_ended(self) -> bool:
        return self.main is not None and self.main.done()

    def steps_to_run(self) -> tuple[LocalStep, ...]:
        if not self.has_local_steps:
            return ()
        journal = self._journal
        waiting = [op for op in self.outstanding.values() if isinstance(op, LocalStep)]
        steps = [op for op in waiting if op.seq not in journal.events]
        for step in steps:
            if step.seq < journal.told_seq:
                journal.mismatch(
                    step.seq, recorded="nothing", asked=step.describe(), location=step.location
                )
        return tuple(steps)

    def record_deadlines(self, now_ms: int) -> None:
        """Fix the deadlines of timers that another turn could come before (it resets them)."""
        if not self._has_timers:
            return
        new = [
            op
            for op in self.outstanding.values()
            if isinstance(op, Timer) and op.deadline_ms is None
        ]
        if not new or not self._is_beside_others():
            return
        for timer in new:
            timer.deadline_ms = now_ms + timer.ms
        deadlines = {timer.seq: now_ms + timer.ms for timer in new}
        seq = self._journal.take_seq()
        self._pass(seq)
        self._journal.recorded.append(deadlines_marker(seq, deadlines))

    def _is_beside_others(self) -> bool:
        """Whether two or more results can still come. The latest to be given up most likely can."""
        events = self._journal.events
        given_up = (seq for seq in reversed(self._abandoned) if seq not in events)
        return len(self.outstanding) > 1 or next(given_up, None) is not None

    def answer_queries(self) -> None:
        """Record the answers that have changed; the body asks for nothing by that."""
        if not self.queries.handlers:
            return
        before = self._journal.next_seq
        self.queries.record()
        for seq in range(before, self._journal.next_seq):
            self._pass(seq)

    # Operations

    async def begin(self, token: int) -> None:
        """An operation that was called starts; in a body that is being unwound it never does.

        Raising there instead would let a body that catches everything go round for ever.
        """
        self._journal.started(token)
        if self._journal.is_sealed:
            await self.loop.create_future()

    async def wait(self, operation: Operation) -> HistoryEvent:
        """Wait until history resolves `operation`; the event may hold a failure."""
        event = self.settled(operation.seq, operation.kind, operation.name, operation.location)
        if event is not None:
            return event
        return await self.wait_unsettled(operation)

    async def wait_unsettled(self, operation: Operation) -> HistoryEvent:
        """`wait` for an operation that `settled` has just said no to."""
        operation.future = self.loop.create_future()
        self._await(operation)
        try:
            return await operation.future
        except BaseException:
            self._abandon(operation)
            raise

    def open(self, operation: Operation) -> asyncio.Future[HistoryEvent]:
        """Make an operation outstanding before anything in the body waits for it."""
        self._journal.expect(operation.seq, operation.kind, operation.name, operation.location)
        operation.future = self.loop.create_future()
        self._await(operation)
        return operation.future

    def settled(
        self, seq: int, kind: HistoryKind, name: str | None, location: Location | None
    ) -> HistoryEvent | None:
        """The event of a new operation, if it would be the next thing to be delivered anyway."""
        journal, loop = self._journal, self.loop
        event = journal.expect(seq, kind, name, location)
        if event is None or self.outstanding or self._point is not None or loop.ready:
            return None
        at = journal.next_seq
        next_event = journal.events.get(at)
        if (
            next_event is not None
            and next_event.kind is HistoryKind.STEP
            and next_event.name in journal.markers
        ):
            return None
        # The future that is saved would have had a number, and numbers decide the order of sets.
        loop.count += 1
        self._arrivals.got(event)
        self._since, self._phase = at, _FREE
        if self._given_at == at:
            self._given.append(seq)
        else:
            self._given_at, self._given = at, [seq]
        return event

    def is_new_ground(self) -> bool:
        """Whether no earlier turn can have come to where the body is now and asked for something.

        Pending operations are not in history, so it goes by what must have left a trace
        (protocol/README.md, "Patches"). False in doubt.
        """
        journal, phase = self._journal, self._phase
        if journal.told_seq >= self._since or journal.last_seq >= journal.next_seq:
            return False
        if journal.is_ordered:
            return self._arrivals.latest > journal.seen
        if phase.is_part:
            return True
        undelivered = (*self.outstanding, *self._abandoned)
        return not any(seq in journal.events and seq not in phase.waiting for seq in undelivered)

    @property
    def is_replaying(self) -> bool:
        """Whether an earlier turn has been where the body is now, as far as history tells.

        Also while the body is unwound.
        """
        journal = self._journal
        if journal.is_sealed or journal.told_seq >= self._since:
            return True
        return journal.is_ordered and self._arrivals.latest <= journal.seen

    def unsent(self) -> list[AnyCommand]:
        """The promised children that no decision so far can be relied on to have started.

        A result of what was asked for after a child proves that its start was applied, too.
        """
        events = self._journal.events
        resolved = [seq for seq, each in events.items() if each.kind is not HistoryKind.STEP]
        latest = max(resolved, default=-1)
        open_ = [self.outstanding[seq] for seq in self.promised if seq in self.outstanding]
        asked = [each.command(0) for each in open_ if each.seq not in events and each.seq > latest]
        return [command for command in asked if command is not None]

    def lost_wait(self, subject: str) -> Requested | None:
        """An abandoned wait for the same: the operator still delivers the next signal there."""
        waits = self._lost_waits.get(subject)
        if not waits:
            return None
        operation = waits.pop(0)
        self._abandoned.pop(operation.seq, None)
        return operation

    def _abandon(self, operation: Operation) -> None:
        if self.outstanding.pop(operation.seq, None) is None or self._journal.is_sealed:
            return
        self._abandoned[operation.seq] = operation
        if not isinstance(operation, Requested):
            return
        if operation.kind is HistoryKind.CALL and not operation.is_undone:
            self._given_up.add(operation.seq)
        if operation.kind is HistoryKind.SIGNAL:
            self._lost_waits.setdefault(operation.subject, []).append(operation)

    def _first_location(self) -> Location | None:
        return next((op.location for op in self.outstanding.values() if op.location), None)

    # TimerHost

    def start_timer(self, timer: DurableTimer, *, delay: float) -> None:
        if self._journal.is_sealed:
            return
        ms = whole_milliseconds(delay)
        self._has_timers = True
        timer.seq = self._journal.take_seq()
        self._journal.expect(timer.seq, HistoryKind.TIMER, None)
        self._await(
            Timer(timer.seq, HistoryKind.TIMER, None, caller_location(), ms=ms, handle=timer)
        )

    def timer_cancelled(self, timer: DurableTimer) -> None:
        operation = self.outstanding.get(timer.seq)
        if operation is not None:
            self._abandon(operation)
