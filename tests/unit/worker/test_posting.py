"""An answer that has to be sent again keeps its tasks, or gives them back."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from durable_worker.errors import ConnectionLostError
from durable_worker.transports.base import Envelope
from durable_worker.worker.posting import Posting, WorkCrew


class Taken:
    """A delivery that tells how it ended."""

    queue = "tasks"
    delivery_count = 0
    envelope = Envelope(None, b"")

    def __init__(self) -> None:
        self.ends: list[str] = []

    async def ack(self) -> None:
        self.ends.append("ack")

    def ack_now(self) -> None:
        self.ends.append("ack")

    async def release(self) -> None:
        self.ends.append("release")

    async def renew(self) -> None: ...


def lost(crew: WorkCrew, delivery: Taken, again: Any) -> None:
    posting = Posting(crew, [delivery], again, lambda: delivery.ends.append("end"))
    crew.expect(posting)
    posting.told(ConnectionLostError("it is gone"))


@pytest.mark.parametrize("error", [asyncio.CancelledError(), ValueError("a defect")], ids=repr)
async def test_a_defect_gives_the_task_back_even_if_it_is_a_stray_cancellation(
    error: BaseException,
) -> None:
    async def again(**_: object) -> None:
        raise error

    delivery, crew = Taken(), WorkCrew()
    with capture_logs() as logs:
        async with crew:
            lost(crew, delivery, again)
            await crew.idle()
    assert delivery.ends == ["release", "end"]
    assert [each["event"] for each in logs] == ["delivery_not_handled"]


async def test_the_end_of_the_crew_leaves_the_task_to_the_broker() -> None:
    delivery, crew, sending = Taken(), WorkCrew(), asyncio.Event()

    async def again(**_: object) -> None:
        sending.set()
        await asyncio.Event().wait()

    async with crew:
        lost(crew, delivery, again)
        await sending.wait()
    assert delivery.ends == ["end"]
