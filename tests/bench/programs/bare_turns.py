"""Answers the turns of `sequential_app` without an SDK: how far a run is, it reads off the ids.

bare_turns.py amqp://... TASKS DECISIONS
"""

import asyncio
import re
import signal
import sys
from functools import partial

from tests.bench.worker.bare_path import BarePath

PREFETCH = 100
_turn = re.compile(rb'\{"taskId":"([^"]+-(\d+))","runId":"([^"]+)",.*?"input":(\d+)').match


def decided(body: bytes) -> tuple[str, bytes]:
    """The message id and the body of the decision."""
    turn = _turn(body)
    assert turn is not None
    task_id, number, run_id, steps = turn.groups()
    decision = b'{"taskId":"%b","runId":"%b","status":' % (task_id, run_id)
    if number == steps:
        decision += b'"completed","commands":[],"output":%d}' % sum(range(int(steps)))
    else:
        decision += (
            b'"continue","commands":[{"kind":"call","seq":%b,"name":"step","group":"default",'
            b'"input":%b}]}' % (number, number)
        )
    return task_id.decode(), decision


async def main(url: str, tasks: str, decisions: str) -> None:
    path = await BarePath.open(url)

    def answer(tag: int, body: bytes) -> None:
        path.publish(decisions, *decided(body), then=partial(path.ack, tag))

    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await path.consume(tasks, answer, prefetch=PREFETCH)
    await stopped.wait()
    await path.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
