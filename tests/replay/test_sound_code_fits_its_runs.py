"""The code that made a run fits what is recorded of it, whatever it is made of."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from durable_worker.protocol.commands import StartTimer, WaitSignal
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.replay.timeline import RecordedRun, RunEnd
from durable_worker.replay.witness import Asked
from durable_worker.worker.replaying import mismatch_with
from tests.replay.bodies import Node, worker_for
from tests.replay.driving import drive
from tests.replay.model import ModelOperator, turn
from tests.replay.test_bodies_in_any_order import nodes


@given(node=nodes, seed=st.integers(0, 2**32), is_cancelled=st.booleans())
def test_a_run_that_has_ended_fits_the_code_that_made_it(
    node: Node, seed: int, is_cancelled: bool
) -> None:
    worker, operator = worker_for(node), ModelOperator()
    drive(worker, operator, Random(seed), is_cancelled=is_cancelled)
    operator.is_cancelled = False  # a record does not tell it, but by its marker
    final = operator.final
    assert final is not None
    end = RunEnd(status=RunStatus(final.status.value), output=final.output, error=final.error)
    run = RecordedRun(task=operator.task(), waiting={}, end=end)
    assert mismatch_with(worker, run) is None


@given(node=nodes)
def test_a_run_that_waits_fits_the_code_that_made_it(node: Node) -> None:
    worker, operator = worker_for(node), ModelOperator()
    (body,) = (each.fn for each in worker.workflows.values())
    turn(body, operator, worker=worker)
    waiting = {
        seq: Asked(HistoryKind.TIMER, f"sleep:{seq}")
        if isinstance(each, StartTimer)
        else Asked(HistoryKind.SIGNAL, each.signal)
        if isinstance(each, WaitSignal)
        else Asked(
            HistoryKind.CALL if hasattr(each, "group") else HistoryKind.CHILD,
            getattr(each, "name", None) or getattr(each, "workflow", None),
        )
        for seq, each in operator.pending.items()
    }
    run = RecordedRun(task=operator.task(), waiting=waiting, end=None)
    assert mismatch_with(worker, run) is None
