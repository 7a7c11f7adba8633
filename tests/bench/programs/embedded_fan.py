"""One run that gathers so many steps, embedded, with its state in a SQLite file.

embedded_fan STEPS DATABASE
"""

import asyncio
import json
import resource
import sys
import time
from collections import Counter

from durable_worker.embedded import Embedded
from tests.bench import effects
from tests.bench.programs.fan_app import fan, worker


async def main(steps: int, database: str) -> None:
    async with Embedded(worker, database=database) as client:
        await (await client.start(fan, 0)).result()
        started, cpu = time.perf_counter(), time.process_time()
        output = await (await client.start(fan, steps)).result()
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    assert output == sum(range(steps)), output
    assert effects.seen == Counter(range(steps)), "not each step took effect once"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peaks": [peak]}))


asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
