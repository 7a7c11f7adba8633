"""A process beside this one that replays its turns: another hash seed, clock and random state.

It speaks frames over its standard input and output, each a length of eight bytes and a JSON text:
first a `Ready`, then a `Turn` for each `Conditions`. It ends when its input does.
"""

import asyncio
import os
import random
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence

import anyio
import msgspec
import structlog
from msgspec import Struct

from durable_worker.worker.determinism.rehearsal import Conditions, Turn

log = structlog.get_logger("durable_worker.worker")

START_WITHIN = 30.0
"""Seconds; the process imports what the user's module imports."""
ANSWER_WITHIN = 30.0

LENGTH = 8
_MOST_SEEDS = 4_294_967_295


class Ready(Struct, frozen=True):
    """`obstacle` says why there will be no answers, empty if there will."""

    obstacle: str = ""


def frame(message: Struct) -> bytes:
    body = msgspec.json.encode(message)
    return len(body).to_bytes(LENGTH, "big") + body


class Shadow:
    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process: Process | None = None
        self._is_settled = anyio.Event()
        self._turn = anyio.Lock()

    async def serve(self) -> None:
        """Start the process, and end it when cancelled."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                env={**os.environ, "PYTHONHASHSEED": _other_seed()},
                start_new_session=True,
            )
            try:
                await self._until_ready(process)
                self._is_settled.set()
                code = await process.wait()
                if self._process is not None:
                    _warn(f"it has ended with exit code {code}")
            finally:
                self._process = None
                if process.returncode is None:
                    process.kill()
                with anyio.CancelScope(shield=True):
                    await process.wait()
        except OSError as error:
            _warn(str(error))
        finally:
            self._is_settled.set()

    async def rehearse(self, conditions: Conditions) -> Turn | None:
        """How the turn comes out there; None if there is no such process any more."""
        await self._is_settled.wait()
        async with self._turn:
            process = self._process
            if process is None:
                return None
            try:
                async with asyncio.timeout(ANSWER_WITHIN):
                    return await _answer(process, conditions)
            except (TimeoutError, OSError, EOFError, msgspec.DecodeError) as error:
                if self._process is not None:
                    self._process = None
                    _warn(str(error) or "it does not answer")
                if process.returncode is None:
                    process.kill()
                return None
            except asyncio.CancelledError:
                self._process = None  # half an answer may be on its way
                if process.returncode is None:
                    process.kill()
                raise

    async def _until_ready(self, process: Process) -> None:
        try:
            async with asyncio.timeout(START_WITHIN):
                ready = msgspec.json.decode(await _read(process), type=Ready)
        except (TimeoutError, OSError, EOFError, msgspec.DecodeError) as error:
            ready = Ready(str(error) or type(error).__name__)
        if ready.obstacle:
            _warn(ready.obstacle)
            process.kill()
        else:
            self._process = process


async def _answer(process: Process, conditions: Conditions) -> Turn:
    assert process.stdin is not None
    process.stdin.write(frame(conditions))
    await process.stdin.drain()
    return msgspec.json.decode(await _read(process), type=Turn)


async def _read(process: Process) -> bytes:
    assert process.stdout is not None
    length = int.from_bytes(await process.stdout.readexactly(LENGTH), "big")
    return await process.stdout.readexactly(length)


def _other_seed() -> str:
    seed = random.SystemRandom().randrange(1, _MOST_SEEDS)
    return str(seed + 1 if str(seed) == os.environ.get("PYTHONHASHSEED") else seed)


def _warn(reason: str) -> None:
    log.warning(
        "shadow_unavailable",
        reason=reason,
        hint="Turns are replayed a second time in this process instead: what depends on the hash "
        "seed, such as the order of a set, is not noticed.",
    )
