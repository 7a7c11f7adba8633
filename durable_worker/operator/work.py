"""One transaction in the making: inputs applied in memory, rows and messages gathered."""

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace as replace_fields
from typing import assert_never

from msgspec.structs import replace

from durable_worker.operator.context import Consequences, WorkContext
from durable_worker.operator.ledgers import Ledger
from durable_worker.operator.letters import letter_message, lost_letter
from durable_worker.operator.messages import (
    Outgoing,
    message_for,
    owes,
    repeated,
    step_row,
    turn_row,
)
from durable_worker.operator.starts import begun
from durable_worker.operator.transitions.apply import apply, carried_by
from durable_worker.operator.transitions.effects import (
    AwaitSignal,
    BroadcastCancel,
    Bury,
    Deliver,
    Effect,
    Emit,
    SendStep,
    SendTurn,
)
from durable_worker.protocol.commands import DecisionStatus, WorkflowDecision
from durable_worker.stores.base import Batch, stored_namespace
from durable_worker.stores.inputs import (
    AnyInput,
    DecisionReceived,
    LetterRedriven,
    RunInput,
    SignalMatched,
    SignalSent,
    StartRequested,
    StartRun,
)
from durable_worker.stores.letters import Refusal, redrive_of
from durable_worker.stores.records import (
    Checkpoint,
    DeadLetter,
    OutboxRow,
    Parent,
    Run,
    SignalRecord,
    Waiter,
)

MAX_CHANGES = 5_000
"""Changed checkpoints and runs in one transaction after which inputs for other runs are put off."""


Queue = deque[RunInput | SignalSent]


class UnitOfWork:
    """Applies inputs one after the other. `now` is the time of all of them."""

    def __init__(self, context: WorkContext, *, now: int) -> None:
        self._context = context
        self._now = now
        self._runs: dict[str, Run] = {}
        self._checkpoints: dict[tuple[str, int], Checkpoint] = {}
        self._withdrawn: set[tuple[str, int]] = set()
        self._signals: dict[str, SignalRecord] = {}
        self._taken: set[str] = set()
        self._letters: dict[str, DeadLetter] = {}
        self._letters_out: dict[str, Outgoing] = {}
        self._waiters: dict[tuple[str, str], list[Waiter]] = {}
        self._rows: dict[str, OutboxRow] = {}
        self._repeated: set[str] = set()
        self._put_off: list[AnyInput] = []
        self._created: list[str] = []
        self._seen: dict[str, None] = {}
        self._absent: set[str] = set()
        self._done = Consequences()

    @property
    def seen(self) -> Collection[str]:
        """Runs whose ledgers this transaction has used, in order of first use."""
        return self._seen

    async def prepare(self, values: Iterable[AnyInput], *, is_contended: bool = False) -> int:
        """Load in one go what these inputs concern; if others are about, returns how much of it was
        outdated."""
        run_ids = {
            each.run_id: None
            for each in values
            if not isinstance(each, (SignalSent, LetterRedriven))
        }
        self._seen |= run_ids
        ledgers = self._context.ledgers
        shared = self._context.shared if is_contended else None
        outdated = await ledgers.fetch(run_ids, anew=shared)
        self._absent = {run_id for run_id in run_ids if ledgers.peek(run_id) is None}
        return outdated

    async def _ledger(self, run_id: str) -> Ledger | None:
        if run_id in self._absent:
            return None
        self._seen[run_id] = None
        return await self._context.ledgers.get(run_id)

    async def apply(self, value: AnyInput) -> None:
        queue: Queue = deque()
        await self._take(value, queue)
        while queue:
            following = queue.popleft()
            if isinstance(following, SignalSent):
                await self._match(following, queue)
            else:
                await self._advance(following, queue)

    async def _take(self, value: AnyInput, queue: Queue) -> None:
        match value:
            case SignalSent():
                await self._match(value, queue)
            case LetterRedriven():
                await self._redrive(value, queue)
            case StartRequested() if not await self._is_known(value.outcome_id):
                queue += await begun(value, self._signals, self._ledger, now=self._now)
            case StartRequested():
                pass
            case _:
                await self._advance(value, queue)

    async def _is_known(self, signal_id: str) -> bool:
        return signal_id in self._signals or await self._context.store.signal(signal_id) is not None

    async def keep(self, letter: DeadLetter) -> None:
        """A dead letter, under the tenant whose run it names; else under the operator's own."""
        known = self._letters.get(letter.id)
        ledger = None if letter.run_id is None else await self._ledger(letter.run_id)
        home = stored_namespace(self._context.names.namespace)
        kept = replace(
            letter,
            namespace=home if ledger is None else ledger.state.run.namespace,
            last_seq=None if ledger is None else max(ledger.state.checkpoints, default=-1),
            redrives=0 if known is None else known.redrives,
        )
        self._letters[kept.id] = kept
        self._done.letters.append(kept)

    async def _letter(self, letter_id: str) -> DeadLetter | None:
        return self._letters.get(letter_id) or await self._context.store.dead_letter(letter_id)

    async def _redrive(self, value: LetterRedriven, queue: Queue) -> None:
        """Nothing happens if it must not be: whoever asked looks at the letter again."""
        letter = await self._letter(value.letter_id)
        if letter is None or letter.redriven_at is not None or letter.namespace != value.namespace:
            return
        ledger = None if letter.run_id is None else await self._ledger(letter.run_id)
        outcome = redrive_of(letter, None if ledger is None else ledger.state)
        if isinstance(outcome, Refusal):
            return
        redriven = replace(letter, redriven_at=self._now, redrives=letter.redrives + 1)
        self._letters[letter.id] = redriven
        self._done.redriven.append(redriven)
        if outcome.is_sent:
            self._send_letter(letter)
        if outcome.input is not None:
            await self._take(outcome.input, queue)

    def _send_letter(self, letter: DeadLetter) -> None:
        message = letter_message(letter, names=self._context.names)
        if message is not None:
            self._letters_out[letter.id] = message

    async def resend(self, row: OutboxRow) -> None:
        """A message that an earlier process owed: send it, unless it has become moot."""
        if row.is_letter:
            letter = await self._letter(row.run_id)
            if letter is None or letter.redriven_at is None:
                self._done.stale.append(row.key)
            else:
                self._send_letter(letter)
            return
        ledger = await self._ledger(row.run_id)
        if ledger is not None and owes(ledger.state, row):
            self._rows[row.key] = row
            self._repeated.add(row.key)
        else:
            self._done.stale.append(row.key)

    async def _advance(self, value: RunInput, queue: Queue) -> None:
        ledger = self._context.ledgers.find(value.run_id)
        if ledger is None or value.run_id not in self._seen:
            ledger = await self._ledger(value.run_id)
        if ledger is None and isinstance(value, StartRun):
            if value.parent is not None and not await self._is_awaited(value.parent):
                return
            if value.version is None:
                version = self._context.version_of(value.workflow, value.partition)
                value = replace(value, version=version)
        elif ledger is not None and isinstance(value, DecisionReceived):
            _note_keeper(value.decision, ledger)
            value = self._with_version(value, ledger)
        moved = apply(
            None if ledger is None else ledger.state,
            value,
            now=self._now,
            limits=self._context.limits,
        )
        if moved.run is not None:
            if ledger is None:
                ledger = self._context.ledgers.add(moved.run)
                self._absent.discard(moved.run.id)
                self._created.append(moved.run.id)
            self._note_run(moved.run, ledger)
        if ledger is not None and (moved.run is not None or moved.checkpoints):
            ledger.absorb(moved.run, moved.checkpoints, moved.withdrawn)
        for seq in moved.withdrawn:
            self._withdrawn.add((value.run_id, seq))
            self._checkpoints.pop((value.run_id, seq), None)
        for checkpoint in moved.checkpoints:
            self._note_checkpoint(checkpoint)
        for effect in moved.effects:
            if not self._note_effect(effect, queue):
                await self._carry_out(effect, queue)

    def _with_version(self, value: DecisionReceived, ledger: Ledger) -> DecisionReceived:
        """A run that goes on as new goes on with the newest version."""
        if value.decision.status is not DecisionStatus.CONTINUED:
            return value
        run = ledger.state.run
        return replace(value, version=self._context.version_of(run.workflow, run.partition))

    async def _is_awaited(self, parent: Parent) -> bool:
        """Whether the parent still waits for this child; it may have been cancelled meanwhile."""
        ledger = await self._ledger(parent.run_id)
        return ledger is not None and parent.seq in ledger.state.pending

    def _note_run(self, run: Run, ledger: Ledger) -> None:
        self._runs[run.id] = run
        if run.status.is_terminal and not ledger.state.run.status.is_terminal:
            self._done.ended.append(run)

    def _note_checkpoint(self, checkpoint: Checkpoint) -> None:
        self._checkpoints[checkpoint.run_id, checkpoint.seq] = checkpoint
        fires_at = checkpoint.fires_at
        if fires_at is not None and checkpoint.is_pending:
            earliest = self._done.earliest_timer
            self._done.earliest_timer = fires_at if earliest is None else min(earliest, fires_at)

    def _note_effect(self, effect: Effect, queue: Queue) -> bool:
        """False if the store is needed for it."""
        match effect:
            case SendTurn(run_id=run_id, task_id=task_id):
                self._owe(turn_row(run_id, task_id))
            case SendStep(run_id=run_id, seq=seq, attempt=attempt):
                self._owe(step_row(run_id, seq, attempt))
            case Emit():
                self._done.events.append(effect)
            case BroadcastCancel():
                self._done.cancelled.append(effect)
            case Deliver(input=value):
                if len(self._runs) + len(self._checkpoints) < MAX_CHANGES:
                    queue.append(value)
                else:
                    self._put_off.append(value)
            case Bury() | AwaitSignal():
                return False
            case _:
                assert_never(effect)
        return True

    async def _carry_out(self, effect: Effect, queue: Queue) -> None:
        if isinstance(effect, Bury):
            ledger = self._context.ledgers.held(effect.run_id)
            names = self._context.names
            await self.keep(lost_letter(ledger, effect, now=self._now, names=names))
        elif isinstance(effect, AwaitSignal):
            await self._take_buffered(effect, queue)

    def _owe(self, row: OutboxRow) -> None:
        self._rows[row.key] = row

    async def _match(self, signal: SignalSent, queue: Queue) -> None:
        """Give a signal to the oldest wait for it, or keep it; a repeated one is ignored."""
        if await self._is_known(signal.signal_id):
            return
        waiter = await self._oldest_waiter(signal.namespace, signal.name)
        self._signals[signal.signal_id] = SignalRecord(
            id=signal.signal_id,
            namespace=signal.namespace,
            name=signal.name,
            payload=signal.payload,
            received_at=self._now if signal.received_at is None else signal.received_at,
            consumed_at=None if waiter is None else self._now,
        )
        if waiter is not None:
            queue.append(
                SignalMatched(run_id=waiter.run_id, seq=waiter.seq, payload=signal.payload)
            )

    async def _oldest_waiter(self, namespace: str, name: str) -> Waiter | None:
        limit = 8
        while True:
            known = await self._context.store.waiters(namespace, name, limit=limit)
            found = next((each for each in known if self._still_waits(each)), None)
            if found is not None:
                return found
            if len(known) < limit:
                break
            limit *= 4
        begun = self._waiters.get((namespace, name), [])
        return next((each for each in begun if self._still_waits(each)), None)

    def _still_waits(self, waiter: Waiter) -> bool:
        key = waiter.run_id, waiter.seq
        if key in self._withdrawn:
            return False
        changed = self._checkpoints.get(key)
        return changed is None or changed.is_pending

    async def _take_buffered(self, wait: AwaitSignal, queue: Queue) -> None:
        signal = await self._oldest_buffered(wait.namespace, wait.signal)
        if signal is None:
            waiters = self._waiters.setdefault((wait.namespace, wait.signal), [])
            waiters.append(Waiter(wait.run_id, wait.seq))
            return
        if signal.id not in self._signals:
            self._taken.add(signal.id)
        self._signals[signal.id] = replace(signal, consumed_at=self._now)
        matched = SignalMatched(
            run_id=wait.run_id,
            seq=wait.seq,
            payload=signal.payload,
            received_at=signal.received_at if signal.received_at < self._now else None,
        )
        queue.append(matched)

    async def _oldest_buffered(self, namespace: str, name: str) -> SignalRecord | None:
        limit = 8
        while True:
            known = await self._context.store.buffered_signals(namespace, name, limit=limit)
            found = next((each for each in known if each.id not in self._signals), None)
            if found is not None:
                return found
            if len(known) < limit:
                break
            limit *= 4
        arrived = (
            each
            for each in self._signals.values()
            if each.consumed_at is None and (each.namespace, each.name) == (namespace, name)
        )
        return next(arrived, None)

    def finish(
        self,
        *,
        sent: Sequence[str],
        inbox: Sequence[int],
    ) -> tuple[Batch, Consequences]:
        """The rows to commit and what to do then. `sent` and `inbox` are the keys of rows that are
        settled."""
        owed = self._build_messages()
        done = self._done
        done.unserved = [
            run for run_id in self._created if (run := self._runs[run_id]).version is None
        ]
        done.has_put_off = bool(self._put_off)
        keeps = self._context.keeps_outbox
        batch = Batch(
            runs=tuple(self._runs.values()),
            checkpoints=tuple(self._checkpoints.values()),
            checkpoints_removed=tuple(self._withdrawn),
            signals=tuple(self._signals.values()),
            outbox_added=owed if keeps else (),
            outbox_removed=(*sent, *done.stale) if keeps else (),
            inbox_added=tuple(self._put_off),
            inbox_removed=tuple(inbox),
            dead_letters=tuple(self._letters.values()),
        )
        return batch if self._context.shared is None else self._founded(batch), done

    def _founded(self, batch: Batch) -> Batch:
        """With what it rests on, and each run that changes."""
        ledgers = self._context.ledgers
        runs = {run.id: run for run in batch.runs}
        for run_id, _ in (*self._checkpoints, *self._withdrawn):
            runs.setdefault(run_id, ledgers.held(run_id).state.run)
        seen = ((run_id, ledgers.find(run_id)) for run_id in self._seen)
        return replace_fields(
            batch,
            runs=tuple(runs.values()),
            expected=[(run_id, each.state.revision) for run_id, each in seen if each is not None],
            signals_arrived=[each for each in self._signals if each not in self._taken],
            waits_begun=[
                name for name, known in self._waiters.items() if any(map(self._still_waits, known))
            ],
        )

    def _build_messages(self) -> list[OutboxRow]:
        owed: list[OutboxRow] = []
        for row in self._rows.values():
            ledger = self._context.ledgers.held(row.run_id)
            if not owes(ledger.state, row):
                continue
            # An earlier copy of a repeated turn may be out, and know less than this one.
            if row.seq is None and row.key not in self._repeated:
                self._leave_clean(ledger, row.key)
            owed.append(row)
            is_repeated = row.key in self._repeated
            message = message_for(ledger, row, names=self._context.names, is_repeated=is_repeated)
            if is_repeated or message.times_resent:
                message = repeated(message)
            self._done.outgoing.append(message)
        for letter in self._letters_out.values():
            owed.append(letter.row)
            self._done.outgoing.append(letter)
        return owed

    def _leave_clean(self, ledger: Ledger, task_id: str) -> None:
        """This turn carries all that the transaction has resolved."""
        run = ledger.state.run
        carried = carried_by(run, task_id)
        if carried is not run:
            ledger.absorb(carried, ())
            self._runs[run.id] = carried


def _note_keeper(decision: WorkflowDecision, ledger: Ledger) -> None:
    """Who keeps what the run's turn came with, whatever becomes of the decision."""
    if decision.kept is not None:
        ledger.kept_by(decision.kept, decision.task_id)
