"""Who may run beside whom, once a message has been delivered too often."""

import asyncio
from datetime import timedelta
from random import Random

import anyio
import pytest
from msgspec import Struct

from durable_worker.clock import SystemChance
from durable_worker.transports.base import RESENT_HEADER, Envelope
from durable_worker.worker import quarantine
from durable_worker.worker.quarantine import Quarantine, is_suspect

pytestmark = pytest.mark.anyio
NEVER = timedelta(days=1)
AT_ONCE = timedelta(0)


class Told(Struct):
    """A delivery, as far as a quarantine looks at it."""

    delivery_count: int = 0
    headers: dict[str, str] = {}
    queue: str = "tasks"

    @property
    def envelope(self) -> Envelope:
        return Envelope(None, b"", headers=self.headers)

    async def ack(self) -> None: ...
    async def renew(self) -> None: ...
    def ack_now(self) -> None: ...
    async def release(self) -> None: ...


class Seeded(SystemChance):
    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def fraction(self) -> float:
        return self._random.random()


FRESH = Told()
SUSPECT = Told(delivery_count=2)


@pytest.fixture(autouse=True)
def _endless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "SHUFFLE", AT_ONCE)
    monkeypatch.setattr(quarantine, "PATIENCE", NEVER)
    monkeypatch.setattr(quarantine, "PROBATION", NEVER)


class Stay:
    """Somebody who enters and stays until told to leave."""

    def __init__(self, gate: Quarantine, delivery: Told) -> None:
        self._gate = gate
        self._delivery = delivery
        self.is_in = False
        self.leave = asyncio.Event()
        self.task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        async with self._gate.admission(self._delivery):
            self.is_in = True
            await self.leave.wait()
        self.is_in = False

    async def end(self) -> None:
        self.leave.set()
        await self.task


async def settled() -> None:
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("delivery", "expected"),
    [
        (Told(delivery_count=1), False),
        (Told(delivery_count=2), True),
        (Told(headers={RESENT_HEADER: "0"}), False),
        (Told(headers={RESENT_HEADER: "1"}), False),
        (Told(headers={RESENT_HEADER: "2"}), True),
        (Told(headers={RESENT_HEADER: "9" * 5_000}), False),
    ],
)
async def test_a_message_is_suspect_once_it_has_returned_or_was_given_up_twice(
    delivery: Told, expected: bool
) -> None:
    assert is_suspect(delivery) is expected


async def test_what_is_no_suspect_runs_side_by_side() -> None:
    gate = Quarantine(SystemChance())
    stays = [Stay(gate, FRESH) for _ in range(3)]
    await settled()
    assert [each.is_in for each in stays] == [True, True, True]
    for each in stays:
        await each.end()


async def test_a_suspect_waits_for_what_runs_and_nothing_starts_beside_it() -> None:
    gate = Quarantine(SystemChance())
    running = Stay(gate, FRESH)
    await settled()
    suspect = Stay(gate, SUSPECT)
    await settled()
    late = Stay(gate, FRESH)
    await settled()
    assert (running.is_in, suspect.is_in, late.is_in, gate.is_closed) == (True, False, False, True)
    await running.end()
    await settled()
    assert (suspect.is_in, late.is_in) == (True, False)
    await suspect.end()
    await settled()
    assert (late.is_in, gate.is_closed) == (True, False)
    await late.end()


async def test_suspects_run_one_at_a_time() -> None:
    gate = Quarantine(SystemChance())
    suspects = [Stay(gate, SUSPECT) for _ in range(3)]
    for _ in range(3):
        await settled()
        inside = [each for each in suspects if each.is_in]
        assert len(inside) == 1
        await inside[0].end()


async def test_their_order_changes_with_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "SHUFFLE", timedelta(milliseconds=40))

    async def order(seed: int) -> list[int]:
        gate, found = Quarantine(Seeded(seed)), list[int]()

        async def run(number: int) -> None:
            async with gate.admission(SUSPECT):
                found.append(number)

        async with asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(run(number))
        return found

    orders = {tuple(await order(seed)) for seed in range(5)}
    assert len(orders) > 1
    assert {tuple(sorted(each)) for each in orders} == {(0, 1, 2, 3)}


async def test_a_suspect_that_outlives_its_probation_holds_other_suspects_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quarantine, "PROBATION", AT_ONCE)
    gate = Quarantine(SystemChance())
    first, second = Stay(gate, SUSPECT), Stay(gate, SUSPECT)
    await settled()
    fresh = Stay(gate, FRESH)
    await settled()
    assert [first.is_in, second.is_in].count(True) == 1
    assert fresh.is_in
    await fresh.end()
    await first.end()
    await second.end()


async def test_a_suspect_that_has_lost_its_patience_starts_beside_what_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quarantine, "PATIENCE", AT_ONCE)
    gate = Quarantine(SystemChance())
    running = Stay(gate, FRESH)
    await settled()
    suspect = Stay(gate, SUSPECT)
    await settled()
    assert (running.is_in, suspect.is_in) == (True, True)
    await suspect.end()
    await running.end()


async def test_a_suspect_that_is_given_back_while_it_waits_holds_up_nobody() -> None:
    gate = Quarantine(SystemChance())
    running = Stay(gate, FRESH)
    await settled()
    suspect = Stay(gate, SUSPECT)
    await settled()
    suspect.task.cancel()
    await asyncio.wait([suspect.task])
    late, next_suspect = Stay(gate, FRESH), Stay(gate, SUSPECT)
    await settled()
    assert late.is_in
    for each in (running, late):
        await each.end()
    await settled()
    assert next_suspect.is_in
    await next_suspect.end()
