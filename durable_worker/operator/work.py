"""One transaction in the making: inputs applied in memory, rows and messages gathered."""

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace as replace_fields
from typing import assert_never

from msgspec.structs import replace

from durable_worker.operator.ahead import Unrecorded
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
from durable_worker.operator.signals import Signals
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
from durable_worker.protocol.commands import DecisionStatus
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
from durable_worker.stores.records import Checkpoint, DeadLetter, OutboxRow, Run, RunState

MAX_CHANGES = 5_000
"""Changed and dropped checkpoints, and runs, in one transaction after which inputs for other runs
are put off."""

Queue = deque[RunInput | SignalSent]


class UnitOfWork:
    """Applies inputs one after the other. `now` is the time of all of them."""

    def __init__(self, context: WorkContext, *, now: int) -> None:
        self._context = context
        self._now = now
        self._runs: dict[str, Run] = {}
        self._checkpoints: dict[tuple[str, int], Checkpoint] = {}
        self._withdrawn: set[tuple[str, int]] = set()
        self._signals = Signals(
            context.store, now=now, changed=self._checkpoints, withdrawn=self._withdrawn
        )
        self._letters: dict[str, DeadLetter] = {}
        self._letters_out: dict[str, Outgoing] = {}
        self._rows: dict[str, OutboxRow] = {}
        self._repeated: set[str] = set()
        self.adopted: list[Unrecorded] = []
        self._put_off: list[AnyInput] = []
        self._created: list[str] = []
        self._seen: dict[str, None] = {}
        self._absent: set[str] = set()
        self._unlooked: set[str] = set()
        self._looks_first = False
        self._done = Consequences()

    @property
    def seen(self) -> Collection[str]:
        """Runs whose ledgers this transaction has used, in order of first use."""
        return self._seen

    async def prepare(self, values: Iterable[AnyInput], *, is_contended: bool = False) -> int:
        """Load in one go what these inputs concern; if others are about, returns how much of it was
        outdated. That there is no run yet where one is started is left to the commit to find out,
        unless that has just been wrong."""
        run_ids: dict[str, bool] = {}
        for each in values:
            if not isinstance(each, (SignalSent, LetterRedriven)):
                is_new = isinstance(each, StartRun) and run_ids.get(each.run_id, True)
                run_ids[each.run_id] = is_new and not is_contended
        self._looks_first = is_contended
        self._seen |= dict.fromkeys(run_ids)
        if self._context.ahead:
            self.record(run_ids)
        ledgers = self._context.ledgers
        shared = self._context.shared if is_contended else None
        looked = [run_id for run_id, is_new in run_ids.items() if not is_new]
        outdated = await ledgers.fetch(looked, anew=shared)
        self._absent = {run_id for run_id in run_ids if ledgers.peek(run_id) is None}
        self._unlooked = {run_id for run_id in self._absent if run_ids[run_id]}
        return outdated

    def record(self, run_ids: Iterable[str]) -> None:
        """Take along what was done in these runs ahead of its commit, before anything else."""
        ahead = self._context.ahead
        for run_id in run_ids:
            unrecorded = None if ahead is None else ahead.adopt(run_id)
            if unrecorded is None:
                continue
            self._seen[run_id] = None
            self.adopted.append(unrecorded)
            self._runs[run_id] = self._context.ledgers.held(run_id).state.run
            for checkpoint in unrecorded.moved.checkpoints:
                self._note_checkpoint(checkpoint)
            self._done.events += unrecorded.events

    async def _ledger(self, run_id: str) -> Ledger | None:
        if run_id in self._absent:
            return None
        if run_id not in self._seen:
            self._seen[run_id] = None
            self.record((run_id,))
        return await self._context.ledgers.get(run_id)

    async def _found(self, value: RunInput) -> Ledger | None:
        run_id = value.run_id
        ledger = self._context.ledgers.find(run_id)
        if ledger is not None and run_id in self._seen:
            return ledger
        if ledger is None and isinstance(value, StartRun) and not self._looks_first:
            if run_id not in self._absent:
                self._seen[run_id] = None
                self._absent.add(run_id)
                self._unlooked.add(run_id)
            return None
        return await self._ledger(run_id)

    async def apply(self, value: AnyInput) -> None:
        queue: Queue = deque()
        await self._take(value, queue)
        while queue:
            following = queue.popleft()
            if isinstance(following, SignalSent):
                queue += _known(await self._signals.match(following))
            else:
                await self._advance(following, queue)

    async def _take(self, value: AnyInput, queue: Queue) -> None:
        match value:
            case SignalSent():
                queue += _known(await self._signals.match(value))
            case LetterRedriven():
                await self._redrive(value, queue)
            case StartRequested() if not await self._signals.is_known(value.outcome_id):
                outcomes = self._signals.records
                queue += await begun(value, outcomes, self._ledger, now=self._now)
            case StartRequested():
                pass
            case _:
                await self._advance(value, queue)

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
        ledger = await self._found(value)
        if ledger is None and isinstance(value, StartRun) and not await self._is_wanted(value):
            return
        if ledger is not None and isinstance(value, DecisionReceived):
            ledger.note_keeper(value.decision)
        state = None if ledger is None else ledger.state
        value = self._with_version(value, state)
        moved = apply(state, value, now=self._now, limits=self._context.limits)
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

    def _with_version(self, value: RunInput, state: RunState | None) -> RunInput:
        """A run begins, and goes on as new, with the newest version."""
        match value:
            case StartRun(version=None) if state is None:
                version = self._context.version_of(value.workflow, value.partition)
                return replace(value, version=version)
            case DecisionReceived() if state is not None:
                if value.decision.status is DecisionStatus.CONTINUED:
                    run = state.run
                    version = self._context.version_of(run.workflow, run.partition)
                    return replace(value, version=version)
            case _:
                pass
        return value

    async def _is_wanted(self, start: StartRun) -> bool:
        """Whether the parent still waits for this child; it may have been cancelled meanwhile."""
        if start.parent is None:
            return True
        ledger = await self._ledger(start.parent.run_id)
        return ledger is not None and start.parent.seq in ledger.state.pending

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
                # A signal that a run sends itself again must not come after one that comes later.
                if isinstance(value, SignalSent) or self._count < MAX_CHANGES:
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
            await self.keep(lost_letter(ledger, effect, now=self._now, names=self._context.names))
        elif isinstance(effect, AwaitSignal):
            queue += _known(await self._signals.awaited(effect))

    @property
    def _count(self) -> int:
        return len(self._runs) + len(self._checkpoints) + len(self._withdrawn)

    def disown(self, keys: Iterable[str]) -> None:
        """These messages have been sent already, before what they belong to could be committed."""
        for key in keys:
            self._rows.pop(key, None)

    def _owe(self, row: OutboxRow) -> None:
        self._rows[row.key] = row

    def finish(self, *, sent: Sequence[str], inbox: Sequence[int]) -> tuple[Batch, Consequences]:
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
            signals=tuple(self._signals.records.values()),
            outbox_added=owed if keeps else (),
            outbox_removed=(*sent, *done.stale) if keeps else (),
            inbox_added=tuple(self._put_off),
            inbox_removed=tuple(inbox),
            dead_letters=tuple(self._letters.values()),
            expected=[(run_id, 0) for run_id in self._unlooked],
        )
        return batch if self._context.shared is None else self._founded(batch), done

    def _founded(self, batch: Batch) -> Batch:
        """With what it rests on, and each run that changes."""
        ledgers, signals = self._context.ledgers, self._signals
        runs = {run.id: run for run in batch.runs}
        for run_id, _ in (*self._checkpoints, *self._withdrawn):
            runs.setdefault(run_id, ledgers.held(run_id).state.run)
        seen = ((run_id, ledgers.find(run_id)) for run_id in self._seen)
        revisions = {run_id: each.state.revision for run_id, each in seen if each is not None}
        return replace_fields(
            batch,
            runs=tuple(runs.values()),
            expected=[*(dict(batch.expected) | revisions).items()],
            signals_arrived=[each for each in signals.records if each not in signals.taken],
            waits_begun=signals.waits_begun(),
        )

    def _build_messages(self) -> list[OutboxRow]:
        owed: list[OutboxRow] = []
        for row in self._rows.values():
            ledger = self._context.ledgers.held(row.run_id)
            if not owes(ledger.state, row):
                if row.key in self._repeated:  # moot since it was looked at
                    self._done.stale.append(row.key)
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


def _known(matched: SignalMatched | None) -> tuple[SignalMatched, ...]:
    return () if matched is None else (matched,)
