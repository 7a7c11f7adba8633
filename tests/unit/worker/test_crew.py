"""Nobody of a crew outlives it, and what one of them raises is not lost."""

import asyncio
from functools import partial

import pytest

from durable_worker.worker import crew as crews
from durable_worker.worker.crew import Crew

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crews, "CANCEL_AGAIN_SECONDS", 0.001)


async def sleep(ends: list[str], name: str, *, resists: int = 0) -> None:
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            resists -= 1
            if resists < 0:
                ends.append(name)
                raise


async def test_leaving_cancels_who_is_at_work_and_again_who_resists() -> None:
    ends: list[str] = []

    async with Crew[object]() as crew:
        crew.start(partial(sleep, ends, resists=3), "stubborn", name="sleeps")
        crew.start(partial(sleep, ends), "obedient", name="sleeps")
        await asyncio.sleep(0)
        assert not crew.is_ending
    assert (ends, crew.is_ending) == (["obedient", "stubborn"], True)


async def test_a_crew_that_is_cancelled_while_it_waits_still_waits_for_the_last_one() -> None:
    ends: list[str] = []

    async def live() -> None:
        async with Crew[object]() as crew:
            crew.start(partial(sleep, ends, resists=5), "stubborn", name="sleeps")
            await asyncio.Event().wait()

    living = asyncio.ensure_future(live())
    await asyncio.sleep(0)
    while not living.done():
        living.cancel()
        await asyncio.sleep(0)
    assert (living.cancelled(), ends) == (True, ["stubborn"])


async def test_what_one_raises_is_raised_to_who_watches_and_the_others_go_on() -> None:
    ends: list[str] = []

    async def break_down(reason: str) -> None:
        raise ValueError(reason)

    async with Crew[object]() as crew:
        crew.start(partial(sleep, ends), "sleeper", name="sleeps")
        crew.start(break_down, "first", name="breaks down")
        crew.start(break_down, "second", name="breaks down")
        with pytest.raises(ValueError, match="first"):
            await crew.watch()
        assert ends == []
    assert ends == ["sleeper"]


async def test_it_is_idle_once_the_last_one_has_ended() -> None:
    gates = [asyncio.Event() for _ in range(3)]

    async def wait(gate: asyncio.Event) -> None:
        await gate.wait()

    async with Crew[object]() as crew:
        await crew.idle()
        for gate in gates:
            crew.start(wait, gate, name="waits")
        idle = asyncio.ensure_future(crew.idle())
        for gate in gates:
            await asyncio.sleep(0)
            assert not idle.done()
            gate.set()
        await idle


async def test_it_is_not_idle_before_what_is_expected_has_come() -> None:
    async with Crew[object]() as crew:
        for subject in ("first", "second"):
            crew.expect(subject)
        idle = asyncio.ensure_future(crew.idle())
        for subject in ("first", "second"):
            await asyncio.sleep(0)
            assert not idle.done()
            crew.came(subject)
        await idle


async def test_who_is_at_work_beside_what_is_expected_is_waited_for_too() -> None:
    gate = asyncio.Event()

    async def wait(gate: asyncio.Event) -> None:
        await gate.wait()

    async with Crew[object]() as crew:
        crew.expect("answer")
        crew.start(wait, gate, name="waits")
        idle = asyncio.ensure_future(crew.idle())
        await asyncio.sleep(0)
        assert crew.subjects == [gate, "answer"]
        crew.came("answer")
        await asyncio.sleep(0)
        assert not idle.done()
        gate.set()
        await idle


async def test_whoever_works_on_a_subject_can_be_cancelled_alone() -> None:
    ends: list[str] = []

    async with Crew[object]() as crew:
        crew.start(partial(sleep, ends), "first", name="sleeps")
        crew.start(partial(sleep, ends), "second", name="sleeps")
        await asyncio.sleep(0)
        crew.cancel("second")
        await asyncio.sleep(0)
        assert ends == ["second"]
    assert ends == ["second", "first"]
