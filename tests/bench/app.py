"""One step that tells when it is reached, for `durable-worker run`."""

from durable_worker import Worker
from tests.bench.bell import ring

worker = Worker()


@worker.step("bench.first")
async def first() -> None:
    ring()
