"""The step of the measurements of one worker, for `durable-worker run`."""

import logging

import structlog
from msgspec import Struct

from durable_worker import Worker

# As all peers are measured. The command has set up its log by the time that it loads this.
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))

worker = Worker()


class Work(Struct):
    number: int
    text: str


@worker.step("noop")
async def noop(work: Work) -> int:
    return work.number
