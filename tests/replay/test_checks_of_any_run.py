"""Wherever a run stands, a check of it finds nothing unless the code has changed."""

from dataclasses import dataclass, field
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from durable_worker import Worker
from durable_worker.protocol.base import Payload
from durable_worker.protocol.commands import WorkflowDecision
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.runs import RunStatus
from durable_worker.replay.checking import asked_by
from durable_worker.replay.timeline import RecordedRun, RunEnd
from durable_worker.worker.replaying import mismatch_with
from tests.replay.bodies import Node, before_the_patches, worker_for
from tests.replay.driving import drive
from tests.replay.model import ModelOperator
from tests.replay.test_bodies_in_any_order import nodes, patched_nodes, undone_nodes

seeds = st.integers(0, 2**32)


@dataclass
class CheckedOperator(ModelOperator):
    """Has the run checked against some code whenever anything about it has changed."""

    code: Worker = field(default_factory=Worker)

    def apply(self, decision: WorkflowDecision, *, only_first: int | None = None) -> None:
        super().apply(decision, only_first=only_first)
        self.check()

    def resolve(self, seq: int, output: object = None, *, error: Failure | None = None) -> None:
        super().resolve(seq, output, error=error)
        self.check()

    def check(self) -> None:
        waiting = {seq: asked_by(command) for seq, command in self.pending.items()}
        task = replace(self.task(), cancel=None)  # a record tells it by its marker alone
        self.turn -= 1
        run = RecordedRun(task=task, waiting=waiting, end=self._end())
        error = mismatch_with(self.code, run)
        if error is not None:
            raise AssertionError(f"{error}\n{error.lines}") from error

    def _end(self) -> RunEnd | None:
        if self.final is None:
            return None
        status = RunStatus(self.final.status.value)
        output: Payload = self.final.output
        return RunEnd(status=status, output=output, error=self.final.error)


@given(node=nodes, seed=seeds, is_cancelled=st.booleans())
def test_the_code_that_made_a_run_fits_it_at_any_time(
    node: Node, seed: int, is_cancelled: bool
) -> None:
    worker = worker_for(node)
    drive(worker, CheckedOperator(code=worker), Random(seed), is_cancelled=is_cancelled)


@given(node=undone_nodes, seed=seeds, is_cancelled=st.booleans())
def test_the_code_that_undoes_a_run_fits_it_at_any_time(
    node: Node, seed: int, is_cancelled: bool
) -> None:
    worker = worker_for(node, fails=True)
    drive(worker, CheckedOperator(code=worker), Random(seed), is_cancelled=is_cancelled)


@given(node=patched_nodes, seed=seeds)
def test_patched_code_fits_runs_of_the_old_code_at_any_time(node: Node, seed: int) -> None:
    old = worker_for(before_the_patches(node))
    drive(old, CheckedOperator(code=worker_for(node)), Random(seed))
