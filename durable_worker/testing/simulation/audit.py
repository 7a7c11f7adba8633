"""Holds a simulated world to what was promised. Shares no code with the engine.

It knows the rows that were committed, what steps did outside, and which messages were taken when;
what must be true of them is said in protocol/README.md, "Delivery".
"""

from collections.abc import Mapping, Sequence

from msgspec import UNSET, Raw, Struct

from durable_worker.stores.base import Batch
from durable_worker.stores.records import Checkpoint, CheckpointStatus, Run, RunState
from durable_worker.testing.simulation.journal import Execution, Journal

PATIENCE_SECONDS = 15.0
"""How long a worker asks about a task that may have been answered, before it runs the step."""

_LONGEST_REACH_SECONDS = 60.0
"""So long before the first start of an attempt a fault may explain the second."""

_ENDED = frozenset({"completed", "failed", "cancelled", "dead"})
_RESOLVED = frozenset({CheckpointStatus.COMPLETED, CheckpointStatus.FAILED})


class Outcome(Struct, frozen=True):
    """How a run ended: its status, and the JSON of its output or the message of its failure."""

    status: str
    value: str

    def __str__(self) -> str:
        return f"{self.status}: {self.value}"


class Audit:
    def __init__(self, journal: Journal) -> None:
        self.violations: list[str] = []
        self.open: set[str] = set()
        self._journal = journal
        self._token = 0
        self._holder = ""
        self._belated: set[str] = set()
        self._runs: dict[str, Run] = {}
        self._rows: dict[tuple[str, int], Checkpoint] = {}
        self._removed: set[tuple[str, int]] = set()
        self._recorded: dict[tuple[str, int, int], float] = {}
        self._ended: dict[str, float] = {}
        self._took: dict[tuple[str, str], tuple[float, bool]] = {}
        self._asked: dict[tuple[str, str], list[float]] = {}
        self._questions: dict[str, tuple[str, str, float]] = {}
        self._unanswered: dict[str, dict[str, float]] = {}
        self._local: set[int] = set()
        journal.on_start = self.started

    def violated(self, at: float, what: str) -> None:
        self.violations.append(f"at {at:.4f} s: {what}")

    @property
    def known(self) -> Mapping[str, Run]:
        """Runs as they were committed last."""
        return self._runs

    # The database

    def lease_given(self, token: int, to: str) -> None:
        self._token, self._holder = token, to

    def committed(self, batch: Batch, token: int, *, at: float, by: str) -> None:
        if token != self._token:
            self.violated(at, f"{by} wrote with lease {token} after lease {self._token} was given")
        for run in batch.runs:
            self._run_written(run, at)
        self._removed.update(batch.checkpoints_removed)
        for row in batch.checkpoints:
            self._row_written(row, at)

    def _run_written(self, run: Run, at: float) -> None:
        before = self._runs.get(run.id)
        if before is not None:
            if before.status.value in _ENDED and before != run:
                self.violated(at, f"run {run.id} changed after it had ended as {before.status}")
            if run.turn_no < before.turn_no:
                self.violated(at, f"run {run.id} went back to turn {run.turn_no}")
        self._runs[run.id] = run
        if run.status.value in _ENDED:
            self.open.discard(run.id)
            self._ended.setdefault(run.id, at)
        else:
            self.open.add(run.id)

    def _row_written(self, row: Checkpoint, at: float) -> None:
        key = (row.run_id, row.seq)
        before = self._rows.get(key)
        if before is not None:
            if before.status in _RESOLVED and before != row:
                self.violated(at, f"the history of run {row.run_id} changed at seq {row.seq}")
            if (before.kind, before.name) != (row.kind, row.name):
                self.violated(at, f"seq {row.seq} of run {row.run_id} became another operation")
            for attempt in range(before.attempt, row.attempt):
                if not _was_given_up(row):
                    self._recorded.setdefault((*key, attempt), at)
        self._rows[key] = row
        if row.status in _RESOLVED and not _was_given_up(row):
            self._recorded.setdefault((*key, row.attempt), at)

    # Messages

    def task_sent(self, process: str, message_id: str) -> None:
        """An operator that was paused may still send what it no longer knows to be settled."""
        if process != self._holder:
            self._belated.add(message_id)

    def task_taken(self, process: str, message_id: str, *, at: float, is_repeated: bool) -> None:
        """A task that the broker handed out `at` has come to a process."""
        self._took.setdefault((process, message_id), (at, is_repeated))

    def asked(self, process: str, request_id: str, run_id: str, *, at: float) -> None:
        """A worker asks an operator about a run."""
        self._questions[request_id] = (process, run_id, at)
        self._unanswered.setdefault(process, {})[request_id] = at

    def question_taken(self, request_id: str, *, at: float) -> None:
        """What was recorded before is in the answer."""
        if request_id in self._questions:
            process, run_id, _ = self._questions[request_id]
            self._asked.setdefault((process, run_id), []).append(at)

    def answered(self, process: str, request_id: str) -> None:
        self._unanswered.get(process, {}).pop(request_id, None)

    # Steps

    def started(self, execution: Execution) -> None:
        message_id = f"{execution.run_id}:{execution.seq}:{execution.attempt}"
        took = self._took.pop((execution.process, message_id), None)
        if took is None:
            self._local.add(id(execution))
            return  # runs within a turn, and is repeated with it
        at = execution.started_at
        key = (execution.run_id, execution.seq, execution.attempt)
        since, is_repeated = took
        recorded = self._recorded.get(key)
        if is_repeated:
            asked = self._last_question(execution, since)
            # A task may be on its way when its run ends. Whoever asks is told, though.
            ended = self._ended.get(execution.run_id, asked)
            recorded = ended if recorded is None else min(recorded, ended)
            if at - since >= PATIENCE_SECONDS and self._unanswered.get(execution.process):
                return
            since = asked
        if recorded is None or recorded >= since or message_id in self._belated:
            return
        self.violated(
            at,
            f"{execution.process} started {execution.name!r} ({message_id}), whose result had been "
            f"recorded at {recorded:.4f} s, before it took the task or asked about it",
        )

    def _last_question(self, execution: Execution, since: float) -> float:
        """When an operator was asked last before this start. If several tasks of the run wait in
        that process, whose question it was is not known."""
        process, run_id = execution.process, execution.run_id
        asked = [at for at in self._asked.get((process, run_id), ()) if at >= since]
        waiting = any(
            of == process and message_id.startswith(f"{run_id}:") and is_repeated
            for (of, message_id), (_, is_repeated) in self._took.items()
        )
        if not asked:
            return since
        return asked[0] if waiting else asked[-1]

    # The end

    def conclude(
        self,
        states: Mapping[str, RunState],
        *,
        expected: Mapping[str, frozenset[Outcome] | None],
        fault_times: Sequence[float],
        at: float,
    ) -> None:
        for run_id, allowed in expected.items():
            if run_id not in states:
                self.violated(at, f"run {run_id} does not exist")
            elif allowed is not None and outcome_of(states[run_id].run) not in allowed:
                wanted = " or ".join(sorted(map(str, allowed)))
                self.violated(
                    at, f"run {run_id} ended as {outcome_of(states[run_id].run)}, not {wanted}"
                )
        for run_id, state in states.items():
            if state.pending:
                self.violated(at, f"run {run_id} has ended, with seqs {[*state.pending]} pending")
        self._effects(states, at)
        self._repetitions(fault_times, at)

    def _effects(self, states: Mapping[str, RunState], at: float) -> None:
        done = {each.key for each in self._journal.executions if each.effect_at is not None}
        for run_id, state in states.items():
            for row in state.checkpoints.values():
                is_done = row.kind.value == "call" and row.status is CheckpointStatus.COMPLETED
                if is_done and (run_id, row.seq) not in done:
                    self.violated(at, f"{row.name!r} ({run_id}:{row.seq}) was never run")
        for each in self._journal.executions:
            known = states.get(each.run_id)
            is_known = known is not None and each.seq in known.checkpoints
            is_known = is_known or (each.run_id, each.seq) in self._removed
            if not is_known and id(each) not in self._local:
                self.violated(at, f"{each.name!r} ({each.run_id}:{each.seq}) left no record")

    def _repetitions(self, fault_times: Sequence[float], at: float) -> None:
        """An attempt runs again only if a fault came between."""
        last: dict[tuple[str, int, int], Execution] = {}
        for each in self._journal.executions:
            if id(each) in self._local:
                continue
            key = (each.run_id, each.seq, each.attempt)
            before = last.get(key)
            last[key] = each
            if before is None:
                continue
            since = before.started_at - _LONGEST_REACH_SECONDS
            if not any(since <= time <= each.started_at for time in fault_times):
                self.violated(at, f"{each.name!r} {key} ran again without any fault")


def _was_given_up(row: Checkpoint) -> bool:
    """Whether the latest attempt has had no result in time, or its body has given it up: its task
    may be out all the same."""
    return row.error is not None and row.error.code in ("timeout", "cancelled")


def outcome_of(run: Run) -> Outcome:
    if run.error is not None:
        return Outcome(run.status.value, run.error.message)
    output = run.output
    return Outcome(run.status.value, "null" if output is UNSET else bytes(Raw(output)).decode())
