"""Durable handlers of Restate, served by Hypercorn on a port of this machine."""

import asyncio
import sys
from collections import Counter
from functools import partial

import restate
from hypercorn.asyncio import serve
from hypercorn.config import Config

from tests.bench import load

effects: Counter[int] = Counter()
bench = restate.Service("bench")
steps = int(sys.argv[1])


async def step(number: int) -> int:
    effects[number] += 1
    return number


@bench.handler()
async def sequence(ctx: restate.Context, index: int) -> int:
    total = 0
    for number in range(steps):
        total += await ctx.run_typed("step", partial(step, index * load.BASE + number))
    return total


@bench.handler()
async def seen(ctx: restate.Context, first: int) -> list[tuple[int, int]]:
    """How often each step took effect, of those with an input from `first` on."""
    return [(number, times) for number, times in effects.items() if number >= first]


async def main() -> None:
    config = Config()
    config.bind = [f"127.0.0.1:{sys.argv[2]}"]
    # As its documentation has it for production.
    config.h2_max_concurrent_streams = 2147483647
    config.keep_alive_max_requests = 2147483647
    config.keep_alive_timeout = 2147483647
    await serve(restate.app([bench]), config)


asyncio.run(main())
