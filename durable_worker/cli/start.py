"""`durable-worker start`: start a run, and wait for it if asked to."""

import asyncio
import sys

from msgspec import Raw

from durable_worker.cli.documents import json_argument, print_json, text_pairs
from durable_worker.cli.options import Start
from durable_worker.cli.places import open_client, what_to_start
from durable_worker.cli.serving import tell
from durable_worker.client import RunHandle
from durable_worker.edge.errors import SealError
from durable_worker.errors import RunFailedError
from durable_worker.protocol.payload_envelope import described
from durable_worker.protocol.runs import RunStatus


def perform(options: Start) -> int:
    payload = json_argument("--input", options.input)
    asyncio.run(_start(options, payload))
    return 0


async def _start(options: Start, payload: Raw | None) -> None:
    context = text_pairs("--context", options.context)
    async with open_client(options.place, codec=options.codec) as client:
        handle = await client.start(
            options.workflow, payload, returns=Raw, run_id=options.run_id, context=context
        )
        _tell_started(options, handle.run_id)
        try:
            if not await client.is_taken_up():
                tell(
                    f"The start is recorded, but no operator has taken it up so far; it will be "
                    f"once {what_to_start(options.place)} runs."
                )
            if options.is_waiting:
                await _print_result(handle)
        except asyncio.CancelledError:
            tell(f"The run goes on; `durable-worker show {handle.run_id}` tells how it stands.")
            raise


async def _print_result(handle: RunHandle[Raw]) -> None:
    try:
        print_json(await _result_unless_parked(handle))
    except SealError as error:
        run = (await handle.detail(keep_sealed=True)).run
        print(described(run.output) or "not sealed", flush=True)
        tell(f"The run has completed, but {error}. Here: --codec TARGET.")


async def _result_unless_parked(handle: RunHandle[Raw]) -> Raw:
    """Raises `RunFailedError` for a run that is parked, too: it may stay so until somebody mends
    its code."""
    try:
        return await handle.result(or_parked=True)
    except RunFailedError as error:
        if error.status == RunStatus.BLOCKED:
            tell("The run is parked: it goes on once a worker with mended code has come.")
        raise


def _tell_started(options: Start, run_id: str) -> None:
    if options.is_waiting:
        tell(f"started {options.workflow}, run {run_id}")
    elif sys.stdout.isatty():
        print(f"started {options.workflow}, run {run_id}", flush=True)
    else:
        print(run_id, flush=True)
