"""The loop that advances runs: take what has come, apply, commit once, perform, acknowledge."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from durable_worker.clock import Clock
from durable_worker.errors import (
    LeaseLostError,
    NoOperatorError,
    RequestRefusedError,
    StaleRunsError,
    StoreError,
)
from durable_worker.operator.ahead import Ahead, Unrecorded
from durable_worker.operator.context import Consequences, WorkContext
from durable_worker.operator.jobs import Job
from durable_worker.operator.lease import Tenure
from durable_worker.operator.log import log
from durable_worker.operator.options import OperatorOptions
from durable_worker.operator.patience import Patience
from durable_worker.operator.work import UnitOfWork
from durable_worker.stores.base import Batch, Store
from durable_worker.stores.inputs import AnyInput, DecisionReceived, TurnLost

_RETRY_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)

_CONFLICTS = 3
"""So often others may be faster before a transaction is divided."""

_MANY_CONFLICTS = 20

_LONELY_AFTER = 100
"""Transactions without anything outdated after which memory is trusted again without asking."""

_TIDY_SECONDS = 0.05
"""How long what need not be on the disk waits for a commit that takes it along, when little
happens: that outbox rows have been sent, and (up to twice as long) what was done ahead."""

_SMALL_BATCH = 32
"""Inputs that are committed together even if all that waits could be."""


class Aftermath(Protocol):
    """Carries out what a transaction asked for, after its commit. Must not block or raise."""

    def __call__(self, done: Consequences, /) -> None: ...


class Engine:
    """Applies inputs in the order in which they are offered; the only writer of runs."""

    def __init__(
        self,
        context: WorkContext,
        *,
        tenure: Tenure,
        options: OperatorOptions,
        clock: Clock,
        aftermath: Aftermath,
        on_doubt: Callable[[], None] | None = None,
    ) -> None:
        """`on_doubt`: something may have been committed whose messages nobody has sent."""
        self._context = context
        self._tenure = tenure
        self._options = options
        self._clock = clock
        self._aftermath = aftermath
        self._on_doubt = on_doubt
        self._jobs: deque[Job] = deque()
        self._sent: list[str] = []
        self._wake = asyncio.Event()
        self._waiting: set[asyncio.Future[None]] = set()
        self._is_closing = False
        self._is_untidy = False
        self._has_ended = False
        self._doubtful: tuple[Batch, Consequences] | None = None
        self._lonely_for = _LONELY_AFTER
        self._has_doubts = False
        self._work: UnitOfWork | None = None
        self._again: list[Job] = []
        self._is_tidy_due = False
        self._is_read = False

    def offer(self, job: Job) -> None:
        ahead, value = self._context.ahead, job.input
        is_done = (
            ahead is not None
            and isinstance(value, DecisionReceived)
            and self._has_gone_ahead(job, value, ahead)
        )
        if is_done:
            return
        self._jobs.append(job)
        self._wake.set()

    def _has_gone_ahead(self, job: Job, value: DecisionReceived, ahead: Ahead) -> bool:
        """Whether all is done that it asks for, and a commit can wait."""
        if self._has_ended or job.inbox_id is not None:
            return False
        if self._work is not None and value.run_id in self._work.seen:
            return False  # what it rests on is on its way to the store
        try:
            is_done = ahead.take(value, now=self._clock.now())
        except Exception:  # a defect of ours: shows again, and costs this input alone
            return False
        if not is_done:
            return False
        if not self._is_tidy_due:
            self._tidy_later()
        if job.settle is not None:
            job.settle()
        return True

    async def recorded(self) -> None:
        """Return when all that has happened is in the store, as far as that can wait."""
        if self._context.ahead is None or self._has_ended:
            return
        if self._context.ahead or self._again or self._work is not None:
            self._is_read = self._is_untidy = True
            await self._settled(None)

    async def applied(self, value: AnyInput) -> None:
        """Return when it is committed. Raises `NoOperatorError` if the engine ends before, and
        `RequestRefusedError` if it cannot be applied."""
        if self._has_ended:
            raise _stopped()
        await self._settled(value)

    async def _settled(self, value: AnyInput | None) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(done)
        done.add_done_callback(self._waiting.discard)

        def settle() -> None:
            if not done.done():
                done.set_result(None)

        def refuse(reason: str) -> None:
            if not done.done():
                done.set_exception(RequestRefusedError(reason, code="defect"))

        self.offer(Job(input=value, settle=settle, refuse=refuse))
        await done

    def note_sent(self, key: str) -> None:
        """An outbox row has been sent; it goes away with the next commit."""
        if not self._context.keeps_outbox:
            return
        self._tidy_later()
        self._sent.append(key)

    def _tidy_later(self) -> None:
        if not self._is_tidy_due:
            self._is_tidy_due = True
            asyncio.get_running_loop().call_later(_TIDY_SECONDS, self._tidy)

    def _tidy(self) -> None:
        self._is_tidy_due = False
        if self._is_behind:
            self._is_untidy = True
            self._wake.set()

    @property
    def _is_behind(self) -> bool:
        """Whether something is to be committed that could wait so far."""
        return bool(self._sent or self._context.ahead or self._again)

    def close(self) -> None:
        """Let `run` return once everything that was offered is applied."""
        self._is_closing = True
        self._wake.set()

    async def run(self) -> None:
        """Raises `LeaseLostError`, and `StoreError` when the store's patience is used up."""
        try:
            await self._run()
        finally:
            self._has_ended = True
            for each in list(self._waiting):
                if not each.done():
                    each.set_exception(_stopped())

    async def _run(self) -> None:
        while True:
            if self._jobs or self._is_untidy:
                await self._process(self._next_jobs())
            elif self._is_closing:
                await self.flush()
                return
            else:
                self._wake.clear()
                await self._wake.wait()

    async def flush(self) -> None:
        """Commit all that could wait so far."""
        if self._is_behind:
            self._is_untidy = self._is_read = True
            await self._process([])

    def _next_jobs(self) -> list[Job]:
        """Half of what waits: while that is on its way to the disk, workers have the other half."""
        count = min(len(self._jobs), self._options.batch_size)
        if count > _SMALL_BATCH:
            count = max(_SMALL_BATCH, (count + 1) // 2)
        return [self._jobs.popleft() for _ in range(count)]

    async def _process(self, jobs: Sequence[Job]) -> None:
        sent, self._sent = self._sent, []
        await self._together(jobs, sent)
        if self._is_behind:
            self._tidy_later()

    async def _together(self, jobs: Sequence[Job], sent: Sequence[str]) -> None:
        try:
            await self._carry_out(jobs, sent)
        except StaleRunsError:
            # The fewer runs, the less of them is moved on meanwhile.
            middle = len(jobs) // 2
            await self._together(jobs[:middle], sent)
            await self._together(jobs[middle:], ())
        except StoreError:
            raise
        except Exception as error:  # a defect of ours: it must cost nothing but its own input
            await self._one_by_one(jobs, sent, error)

    async def _one_by_one(self, jobs: Sequence[Job], sent: Sequence[str], error: Exception) -> None:
        """Set aside what cannot be applied, apply the rest."""
        waiting = deque([*self._taken_again(), *jobs])
        if not waiting:
            raise error
        while waiting:
            job = waiting.popleft()
            try:
                await self._carry_out([job], sent)
                sent = ()
            except StoreError:
                raise
            except Exception as defect:
                if again := self._taken_again():
                    # What was done ahead went along, and may be to blame.
                    waiting.extendleft(reversed([*again, job]))
                    continue
                if job.refuse is None:
                    raise
                log.exception("input_not_applied", input=type(job.input).__name__)
                job.refuse(f"the operator failed over it: {type(defect).__name__}: {defect}")
        self._sent = [*sent, *self._sent]

    def _taken_again(self) -> list[Job]:
        again, self._again = self._again, []
        return again

    def _job_again(self, unrecorded: Unrecorded) -> Job:
        """Of a decision whose message is settled: if it fails, another turn is to decide anew."""
        value, left = unrecorded.decision, tuple(unrecorded.left())
        lost = Job(input=TurnLost(run_id=value.run_id, task_id=value.decision.task_id))
        return Job(input=value, left=left, refuse=lambda _: self.offer(lost))

    async def _carry_out(self, jobs: Sequence[Job], sent: Sequence[str]) -> None:
        done = await self._persistently(jobs, sent)
        self._aftermath(done)
        if self._has_doubts:
            self._has_doubts = False
            if self._on_doubt is not None:
                self._on_doubt()
        for job in jobs:
            if job.settle is not None:
                job.settle()

    async def _persistently(self, jobs: Sequence[Job], sent: Sequence[str]) -> Consequences:
        patience = Patience(self._options, self._clock.monotonic)
        attempt = conflicts = 0
        while True:
            token = self._tenure.token
            try:
                if (done := await self._committed_after_all()) is not None:
                    return done
                return await self._commit(jobs, sent)
            except LeaseLostError:
                # Nothing was written. Others may have got on with it.
                if not await self._tenure.regain(token):
                    raise
                self._doubtful, self._lonely_for = None, 0
                patience.renew()
                continue
            except StaleRunsError:
                # Somebody else has got on with it. Nothing was written.
                self._doubtful, self._lonely_for = None, 0
                patience.renew()
                conflicts += 1
                if conflicts == _MANY_CONFLICTS:
                    log.warning("others_are_always_faster", inputs=len(jobs), conflicts=conflicts)
                if conflicts >= _CONFLICTS and len(jobs) > 1:
                    raise
                await self._clock.sleep(min(conflicts * 0.001, 0.05))
                continue
            except StoreError as error:
                self._has_doubts = True
                left = patience.left()
                log.error(
                    "store_write_failed",
                    error=str(error),
                    inputs=len(jobs),
                    attempt=attempt + 1,
                    gives_up_in_seconds=round(left, 1),
                )
                if not left:
                    raise
            await self._clock.sleep(_RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)])
            attempt += 1

    async def _committed_after_all(self) -> Consequences | None:
        """What the last transaction asked for, if the store has it although it said otherwise.

        Applied once more, its inputs would change nothing, and nothing would be sent.
        """
        if self._doubtful is None:
            return None
        batch, done = self._doubtful
        if not await _holds(self._context.store, batch):
            return None
        self._doubtful = None
        return done

    async def _commit(self, jobs: Sequence[Job], sent: Sequence[str]) -> Consequences:
        """One transaction. After a failure nothing of it remains in memory either."""
        self._doubtful = None
        ledgers = self._context.ledgers
        jobs = [*self._again, *jobs]
        work = self._work = UnitOfWork(self._context, now=self._clock.now())
        is_contended = self._lonely_for < _LONELY_AFTER
        try:
            self._record_due(work)
            inputs = [job.input for job in jobs if job.input is not None]
            outdated = await work.prepare(inputs, is_contended=is_contended)
            self._lonely_for = 0 if outdated else self._lonely_for + 1
            batch, done = await _applied(work, jobs, sent)
            if jobs or not batch.is_empty:
                # Inputs that change nothing are committed as well: what is in memory here says so,
                # and that is true only as long as the lease is ours.
                self._doubtful = batch, done
                await self._context.store.commit(batch, self._tenure.token)
                self._doubtful = None
        except BaseException:
            ledgers.forget(work.seen)
            self._again += map(self._job_again, work.adopted)
            raise
        finally:
            self._work = None
        self._again.clear()
        if self._context.shared is not None:
            ledgers.advance({run.id for run in batch.runs})
        ahead = self._context.ahead
        ledgers.settle(work.seen, pinned=() if ahead is None else ahead.run_ids)
        return done

    def _record_due(self, work: UnitOfWork) -> None:
        if self._is_untidy and self._context.ahead is not None:
            work.record(self._context.ahead.due(all_of_it=self._is_read))
        self._is_untidy = self._is_read = False


def _stopped() -> NoOperatorError:
    return NoOperatorError("the operator has stopped before it could apply this")


async def _applied(
    work: UnitOfWork, jobs: Sequence[Job], sent: Sequence[str]
) -> tuple[Batch, Consequences]:
    for job in jobs:
        if job.letter is not None:
            await work.keep(job.letter)
        if job.input is not None:
            await work.apply(job.input)
            if job.left:
                work.disown(job.left)
        if job.resend is not None:
            await work.resend(job.resend)
    return work.finish(
        sent=sent,
        inbox=[job.inbox_id for job in jobs if job.inbox_id is not None],
    )


async def _holds(store: Store, batch: Batch) -> bool:
    """Whether the rows of a transaction are in the store. One without runs, checkpoints and signals
    can be repeated as it is."""
    run_ids = [*(run.id for run in batch.runs), *(each.run_id for each in batch.checkpoints)]
    if not run_ids:
        signals = [await store.signal(each.id) == each for each in batch.signals]
        return bool(signals) and all(signals)
    states = await store.load_many(list(dict.fromkeys(run_ids)))
    return all(run.id in states and states[run.id].run == run for run in batch.runs) and all(
        each.run_id in states and states[each.run_id].checkpoints.get(each.seq) == each
        for each in batch.checkpoints
    )
