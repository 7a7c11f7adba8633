"""One step that gives back its number, for `durable-worker run`."""

from typing import TypedDict

from durable_worker import Worker
from tests.bench import effects
from tests.bench.programs import quiet  # noqa: F401

worker = Worker()


class Numbered(TypedDict):
    number: int


@worker.step("noop")
async def noop(data: Numbered) -> int:
    effects.seen[data["number"]] += 1
    return data["number"]
