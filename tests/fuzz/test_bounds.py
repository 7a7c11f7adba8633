"""What is huge is handled in bounded memory, which is given back: each in a process of its own."""

import asyncio
import json
import sys

import pytest

from tests.fuzz.big import SCENARIOS

pytestmark = pytest.mark.anyio

BOUNDS: dict[str, tuple[int, int]] = {
    "string": (2_200, 450),
    "many_keys": (550, 300),
    "unknown_keys": (900, 300),
    "flood": (120, 120),
    "long_history": (250, 120),
}
"""MiB at most, and afterwards."""


async def measured(scenario: str) -> dict[str, int]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.fuzz.big", scenario,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(300):
            out, error = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, error.decode()[-3_000:]
    found: dict[str, int] = json.loads(out)
    return found


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
async def test_memory_stays_bounded_and_is_given_back(scenario: str) -> None:
    found = await measured(scenario)
    peak, after = BOUNDS[scenario]
    assert found["peak"] <= peak, found
    assert found["after"] <= after, found
