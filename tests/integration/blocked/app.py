"""Steps that tell an outside journal what really happened; one of them blocks its event loop."""

import asyncio
import json
import os
import time

from durable_worker import StepContext, Worker

worker = Worker()


def journal(what: str, ctx: StepContext) -> None:
    entry = {"what": what, "step": ctx.name, "id": ctx.step_id, "pid": os.getpid()}
    with open(os.environ["BLOCKED_JOURNAL"], "ab") as file:
        file.write(json.dumps(entry).encode() + b"\n")


@worker.step("steady")
async def steady(seconds: float, ctx: StepContext) -> str:
    journal("start", ctx)
    await asyncio.sleep(seconds)
    journal("end", ctx)
    return "steady"


@worker.step("charge")
async def charge(seconds: float, ctx: StepContext) -> str:
    journal("start", ctx)
    time.sleep(seconds)  # noqa: ASYNC251 - it is here to do wrong
    journal("end", ctx)
    return "charged"
