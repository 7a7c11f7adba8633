"""The original worker on its own transport, BullMQ on Redis: the same step, the same tasks."""

import json
import subprocess

from tests.bench.context import Bench
from tests.bench.environments import PEERS
from tests.bench.figures import UnavailableError, WrongResultError
from tests.bench.processes import Program, environment
from tests.bench.worker.contender import TEXT
from tests.bench.worker.redis import URL, Redis
from tests.bench.worker.trial import Trial, require_once, watched
from tests.broker import new_prefix

HOME = PEERS / "original"
LOAD_SECONDS = 60.0
SETTLE_SECONDS = 10.0


def original(bench: Bench, count: int, *, concurrency: int) -> Trial:
    """Raises `WrongResultError` unless each task was answered rightly, once, and completed."""
    python = bench.python("original")
    prefix = new_prefix()
    tasks, results = f"{prefix}-tasks-noop", f"{prefix}-results"
    with Redis() as redis:
        try:
            load(str(python), tasks, count)
            command = [python, "worker.py", URL, prefix, str(concurrency)]
            with Program(command, cwd=HOME) as program:
                seen = watched(
                    program, lambda: int(redis.ask("LLEN", f"bull:{results}:wait")), count
                )
                program.wait_until(
                    lambda: left(redis, tasks) == 0, seconds=SETTLE_SECONDS, what="completion"
                )
            require_once("the original", [number_of(each) for each in data(redis, results)], count)
        finally:
            redis.delete_all(f"bull:{prefix}-*")
            redis.delete_all(f"{prefix}-*")
    return seen


def load(python: str, queue: str, count: int) -> None:
    lines = "\n".join(json.dumps(step_task(number)) for number in range(count))
    done = subprocess.run(
        [python, "load.py", URL, queue],
        cwd=HOME,
        env=environment(),
        input=lines,
        capture_output=True,
        text=True,
        timeout=LOAD_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise UnavailableError(f"tasks could not be put on BullMQ: {done.stderr.strip()[-300:]}")


def step_task(number: int) -> dict[str, object]:
    run_id = f"run-{number}"
    return {
        "runId": run_id,
        "seq": 0,
        "name": "noop",
        "stepId": f"{run_id}:0",
        "group": "noop",
        "input": {"number": number, "text": TEXT},
        "attempt": 1,
    }


def left(redis: Redis, queue: str) -> int:
    """Tasks that wait or are worked on."""
    return sum(redis.ask_all([("LLEN", f"bull:{queue}:{state}") for state in ("wait", "active")]))


def data(redis: Redis, queue: str) -> list[bytes]:
    ids = redis.ask("LRANGE", f"bull:{queue}:wait", "0", "-1")
    return redis.ask_all([("HGET", f"bull:{queue}:{each.decode()}", "data") for each in ids])


def number_of(body: bytes) -> int:
    result = json.loads(body)
    number = int(result["runId"].removeprefix("run-"))
    if result["status"] != "completed" or result["output"] != number:
        raise WrongResultError(f"step {number} was answered by {body!r}")
    return number
