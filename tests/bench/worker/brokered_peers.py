"""FastStream, Taskiq and Celery: the same task on the same kind of queues, each as its
documentation says to run it."""

import json
from pathlib import Path
from typing import Any

from pamqp.commands import Basic

from tests.bench.context import Bench
from tests.bench.environments import PEERS
from tests.bench.figures import WrongResultError
from tests.bench.worker.contender import PERSISTENT, TEXT, Contender, Message
from tests.broker import new_prefix


def faststream(bench: Bench, *, prefetch: int) -> Contender:
    def task(number: int) -> Message:
        body = json.dumps({"number": number, "text": TEXT}).encode()
        return _properties(number), body

    def number_of(properties: Basic.Properties, body: bytes) -> int:
        return int(json.loads(body)["number"])

    python = bench.python("faststream")
    return _contender(bench, "faststream", [python, "app.py"], task, number_of, prefetch=prefetch)


def taskiq(bench: Bench, *, prefetch: int) -> Contender:
    def task(number: int) -> Message:
        body = {
            "task_id": str(number),
            "task_name": "noop",
            "labels": {},
            "labels_types": {},
            "args": [number, TEXT],
            "kwargs": {},
        }
        properties = _properties(number, headers={"task_id": str(number), "task_name": "noop"})
        return properties, json.dumps(body).encode()

    def number_of(properties: Basic.Properties, body: bytes) -> int:
        result = json.loads(body)
        if result["is_err"] or str(result["return_value"]) != properties.correlation_id:
            raise WrongResultError(f"a task was answered by {body!r}")
        return int(result["return_value"])

    command = [bench.python("taskiq").parent / "taskiq", "worker", "app:broker", "--workers", "1"]
    options = ["--log-level", "WARNING", "--ack-type", "when_saved"]
    width = ["--max-async-tasks", str(prefetch), "--max-prefetch", str(prefetch)]
    return _contender(
        bench, "taskiq", [*command, *options, *width], task, number_of, prefetch=prefetch
    )


def celery(bench: Bench, *, prefetch: int, pool: str = "threads", width: int = 10) -> Contender:
    """`width` tasks at a time; the broker hands out `prefetch` in all."""
    queues = _queues("celery")

    def task(number: int) -> Message:
        headers = {
            "lang": "py",
            "task": "noop",
            "id": str(number),
            "root_id": str(number),
            "parent_id": None,
            "group": None,
            "retries": 0,
        }
        properties = _properties(number, headers=headers)
        properties.content_encoding = "utf-8"
        properties.reply_to = queues[1]
        links = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
        return properties, json.dumps([[number, TEXT], {}, links]).encode()

    def number_of(properties: Basic.Properties, body: bytes) -> int:
        result = json.loads(body)
        if result["status"] != "SUCCESS" or str(result["result"]) != result["task_id"]:
            raise WrongResultError(f"a task was answered by {body!r}")
        return int(result["result"])

    command = [bench.python("celery").parent / "celery", "--app", "app", "worker"]
    options = ["--pool", pool, "--concurrency", str(width), "--loglevel", "WARNING"]
    quiet = ["--without-gossip", "--without-mingle"]
    return _contender(
        bench,
        f"celery ({pool} {width})",
        [*command, *options, *quiet],
        task,
        number_of,
        prefetch=prefetch,
        queues=queues,
        BENCH_WIDTH=str(width),
    )


def _queues(peer: str) -> tuple[str, str]:
    prefix = new_prefix()
    return f"{prefix}-{peer}-tasks", f"{prefix}-{peer}-results"


def _properties(number: int, *, headers: dict[str, Any] | None = None) -> Basic.Properties:
    return Basic.Properties(
        content_type="application/json",
        message_id=str(number),
        correlation_id=str(number),
        delivery_mode=PERSISTENT,
        headers=headers,
    )


def _contender(
    bench: Bench,
    peer: str,
    command: list[str | Path],
    task: Any,
    number_of: Any,
    *,
    prefetch: int,
    queues: tuple[str, str] | None = None,
    **more: str,
) -> Contender:
    folder = peer.partition(" ")[0]
    tasks, results = queues or _queues(folder)
    environment = {
        "BENCH_BROKER": bench.broker.url,
        "BENCH_TASKS": tasks,
        "BENCH_RESULTS": results,
        "BENCH_PREFETCH": str(prefetch),
    }
    return Contender(
        peer,
        command,
        tasks,
        results,
        task,
        number_of,
        environment=environment | more,
        cwd=PEERS / folder,
    )
