"""Starts that are answered: what becomes of one whose run id is taken."""

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from durable_worker.operator.ledgers import Ledger
from durable_worker.protocol.names import successor_run_id
from durable_worker.protocol.runs import StartedRun
from durable_worker.stores.inputs import CancelRequested, RunInput, StartRequested
from durable_worker.stores.records import SignalRecord
from durable_worker.stores.starts import outcome_record

Find = Callable[[str], Awaitable[Ledger | None]]


async def begun(
    asked: StartRequested, outcomes: dict[str, SignalRecord], find: Find, *, now: int
) -> list[RunInput]:
    """What is to be applied for it; how it ends is put among the `outcomes`."""
    started, inputs = await _decided(asked, find)
    outcomes[asked.outcome_id] = outcome_record(asked, started, now=now)
    return inputs


async def _decided(asked: StartRequested, find: Find) -> tuple[StartedRun | None, list[RunInput]]:
    start = asked.start
    holder = await find(start.run_id)
    if holder is None:
        return StartedRun(run_id=start.run_id, is_new=True), [start]
    if holder.state.run.namespace != start.namespace:
        return None, []
    number = await _last_number(start.run_id, find)
    current = successor_run_id(start.run_id, number)
    if asked.reuse != "terminate":
        return StartedRun(run_id=current, is_new=False), []
    successor = successor_run_id(start.run_id, number + 1)
    replaced = CancelRequested(run_id=current, is_final=True, replaced_by=successor)
    started = StartedRun(run_id=successor, is_new=True)
    return started, [replaced, replace(start, run_id=successor)]


async def _last_number(run_id: str, find: Find) -> int:
    """Of the latest run in the succession; the looks that it takes grow with its logarithm."""
    low, high = 1, 2
    while await find(successor_run_id(run_id, high)) is not None:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        if await find(successor_run_id(run_id, middle)) is None:
            high = middle
        else:
            low = middle
    return low
