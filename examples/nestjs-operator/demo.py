"""Kill the Python worker in the middle of a step, then the operator, and watch both runs go on.

npm --prefix examples/nestjs-operator run demo

Needs Node.js >= 20 and a RabbitMQ (AMQP_URL, else localhost:5672); leaves nothing behind.
"""

import asyncio
import json
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiormq
from processes import DemoError, Process, say
from worker import worker as python_half

from durable_worker.protocol.names import Names, routing_token

HERE = Path(__file__).parent
BROKER = (
    os.environ.get("AMQP_URL")
    or os.environ.get("DURABLE_BROKER_URL")
    or "amqp://guest:guest@localhost:5672/"
)
NAMES = Names(prefix=f"demo-{secrets.token_hex(4)}")
CUSTOMER = {"name": "Ada Lovelace", "country": "GB"}
ONCE = ("scored ada", "screened ada", "turnover of ada", "read the passport of ada", "opened NL")


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # check_broker says it in one line
    processes: list[Process] = []
    try:
        asyncio.run(check_broker())
        build()
        with tempfile.TemporaryDirectory(prefix="durable-demo-") as folder:
            try:
                demo(processes, Path(folder) / "durable.db")
            finally:
                for process in reversed(processes):
                    process.stop()
                asyncio.run(delete_queues())
    except DemoError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    return 0


def demo(processes: list[Process], database: Path) -> None:
    say("Start the NestJS operator; ask for a review, a Python workflow that nobody serves yet")
    operator, url = start_operator(processes, database)
    status, answer = call(f"{url}/kyc/ada", CUSTOMER)
    expect(status == 503, f"an answer 503 without a worker, not {status} {answer}")
    print(f"  503: {answer['message']}")

    say("Start the Python worker; ask again, and open an account beside it")
    worker = start_worker(processes)
    wait_until(lambda: call(f"{url}/kyc/ada", CUSTOMER)[0] == 202, "the operator to see the worker")
    status, answer = call(f"{url}/onboarding", {"id": "ada", **CUSTOMER})
    expect(status == 202, f"the onboarding to start, not {status} {answer}")

    say("Python reads the passport, while what ran beside it is recorded. Now: kill -9 the worker")
    worker.wait_for("reading the passport of ada")
    wait_until(
        lambda: (
            completed(url, "kyc-ada") >= {"kyc.screen-sanctions", "accounts.turnover"}
            and "risk.score" in completed(url, "onboarding-ada")
        ),
        "the steps beside it",
    )
    worker.kill()
    show(url, "kyc-ada")

    say("Start it again: the step that was cut off runs again, and no other does")
    worker = start_worker(processes)
    worker.wait_for("reading the passport of ada")
    wait_until(lambda: waits_for_approval(url), "the onboarding to wait for its approval")

    say("One run waits for a signal, one for Python. Now: kill -9 the operator, and start it again")
    operator.kill()
    operator, url = start_operator(processes, database)
    status, answer = call(f"{url}/onboarding/ada/approve", {"by": "Grace"})
    expect(status == 202, f"the approval to be taken, not {status} {answer}")
    for run in ("onboarding-ada", "kyc-ada"):
        wait_until(lambda run=run: status_of(url, run) == "completed", f"the run {run}")
        show(url, run)

    say("What the outside world saw")
    seen = [line for process in processes for line in process.lines]
    for what in (*ONCE, "reading the passport of ada"):
        times = sum(what in line for line in seen)
        print(f"  {what:<28} {times} x")
        wanted = 1 if what in ONCE else 2
        expect(times == wanted, f"{what!r} to happen {wanted} x, not {times} x")
    print("  Only the step that was cut off began twice; it ended once. Both runs are complete.")


def start_operator(processes: list[Process], database: Path) -> tuple[Process, str]:
    environment = {"AMQP_URL": BROKER, "DURABLE_PREFIX": NAMES.prefix, "DATABASE": str(database)}
    operator = Process("operator", ["node", HERE / "dist/main.js"], {**environment, "PORT": "0"})
    processes.append(operator)
    url = operator.wait_for("listening on ").split()[2]
    operator.wait_for("connected to RabbitMQ")
    return operator, url


def start_worker(processes: list[Process]) -> Process:
    command = [sys.executable, "-m", "durable_worker", "run", f"{HERE / 'worker.py'}:worker"]
    worker = Process("worker", [*command, "--broker", BROKER, "--prefix", NAMES.prefix], {})
    processes.append(worker)
    return worker


def build() -> None:
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise DemoError(f"{program} is not installed; the demo needs Node.js 20 or newer")
    if subprocess.run(["node", HERE / "scripts/prepare.mjs"], check=False).returncode:
        raise DemoError("the operator could not be built")


async def check_broker() -> None:
    try:
        connection = await asyncio.wait_for(aiormq.connect(BROKER), 10)
        await connection.close()
    except Exception as error:
        raise DemoError(
            f"no RabbitMQ answers at {BROKER.rpartition('@')[2]} ({error}). "
            "Start one: docker run --rm -p 5672:5672 rabbitmq:4"
        ) from None


async def delete_queues() -> None:
    connection = await aiormq.connect(BROKER)
    channel = await connection.channel()
    for name in (*python_half.names(), "accounts.open", "accounts.turnover"):
        await channel.queue_delete(NAMES.tasks(routing_token(name)))
    for queue in (NAMES.results, NAMES.decisions, NAMES.step_events, NAMES.start_run):
        await channel.queue_delete(queue)
    await channel.queue_delete(NAMES.run_request)
    await channel.queue_delete(NAMES.dead)
    for exchange in (NAMES.control, NAMES.heartbeat, NAMES.run_reply, NAMES.workers):
        await channel.exchange_delete(exchange)
    await channel.exchange_delete(NAMES.tenant_events)
    await connection.close()


def call(url: str, body: dict[str, str] | None = None) -> tuple[int, Any]:
    """GET, or POST if there is a body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as refusal:
        return refusal.code, json.load(refusal)


def status_of(url: str, run: str) -> str:
    return str(call(f"{url}/runs/{run}")[1].get("status"))


def steps_of(url: str, run: str) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = call(f"{url}/runs/{run}")[1].get("steps", [])
    return steps


def completed(url: str, run: str) -> set[str]:
    return {step["name"] for step in steps_of(url, run) if step["status"] == "completed"}


def waits_for_approval(url: str) -> bool:
    return any(step["name"] == "timeout:approve:ada" for step in steps_of(url, "onboarding-ada"))


def show(url: str, run: str) -> None:
    print(f"  {run} is {status_of(url, run)}")
    for step in steps_of(url, run):
        print(f"    {step['seq']}  {step['name']:<26} {step['status']}")


def expect(is_so: bool, what: str) -> None:
    if not is_so:
        raise DemoError(f"the demo expected {what}")


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        expect(time.monotonic() < deadline, f"{what}, and waited for a minute in vain")
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
