"""The operator's HTTP control API, and what it tells about runs."""

import http.client
import json
import time
from collections.abc import Callable, Collection
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import uuid4

import msgspec
from msgspec import Struct

T = TypeVar("T")

TERMINAL = ("completed", "failed", "cancelled", "dead")
POLL_SECONDS = 0.05


class Failure(Struct, rename="camel", kw_only=True):
    message: str
    code: str | None = None
    retryable: bool | None = None
    details: Any = None


class Event(Struct, rename="camel", kw_only=True):
    level: str
    message: str
    process: str | None = None
    status: str | None = None
    phase: str | None = None
    data: Any = None


class Checkpoint(Struct, rename="camel", kw_only=True):
    seq: int
    name: str
    kind: str
    step_id: str
    status: str
    attempts: int
    output: Any = None
    error: Failure | None = None
    events: list[Event] | None = None
    worker_group: str | None = None


class Run(Struct, rename="camel", kw_only=True):
    id: str
    workflow: str
    status: str
    output: Any = None
    error: Failure | None = None


class Snapshot(Struct, kw_only=True):
    run: Run | None
    checkpoints: list[Checkpoint]

    def checkpoint(self, name: str) -> Checkpoint:
        (found,) = [each for each in self.checkpoints if each.name == name]
        return found


class ControlError(Exception):
    """The engine refused; the text is what it said."""


class Control:
    def __init__(self, port: int) -> None:
        self._port = port

    def ask(self, method: str, path: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, {"content-type": "application/json"})
            response = connection.getresponse()
            answer = json.loads(response.read() or b"null")
        finally:
            connection.close()
        if response.status >= 400:
            raise ControlError(answer["error"])
        return answer

    def start(
        self, workflow: str, input: object = None, *, run_id: str | None = None, **options: object
    ) -> str:
        run_id = run_id or f"r-{uuid4().hex[:12]}"
        body = {"workflow": workflow, "input": input, "runId": run_id, "options": options}
        self.ask("POST", "/start", body)
        return run_id

    def one_step(self, step: str, input: object = None, **options: object) -> str:
        """Start the TypeScript workflow that calls one step with that dispatch policy."""
        return self.start("ts.one-step", {"step": step, "input": input, "options": options})

    def look(self, run_id: str) -> Snapshot:
        return msgspec.convert(self.ask("GET", f"/runs/{_quoted(run_id)}"), Snapshot, strict=False)

    def wait(
        self, run_id: str, *, status: Collection[str] = TERMINAL, seconds: float = 20
    ) -> Snapshot:
        """The run once it has one of these statuses."""

        def arrived() -> Snapshot | None:
            snapshot = self.look(run_id)
            return snapshot if snapshot.run and snapshot.run.status in status else None

        return until(arrived, lambda: f"{run_id} is {self.look(run_id)}", seconds=seconds)

    def outcome(self, run_id: str, *, seconds: float = 20) -> Run:
        run = self.wait(run_id, seconds=seconds).run
        assert run is not None
        return run

    def output(self, run_id: str, *, seconds: float = 20) -> Any:
        run = self.outcome(run_id, seconds=seconds)
        assert run.status == "completed", run
        return run.output

    def statuses(self) -> dict[str, str]:
        return {run["id"]: run["status"] for run in self.ask("GET", "/runs")}

    def wait_for_waiter(self, token: str) -> None:
        """Wait until some run waits for this signal."""
        self._wait_for_token(lambda each: each == token, token)

    def wait_for_waiter_of(self, run_id: str) -> None:
        """Wait until this run waits for an event, whose token ends with the run's id and a seq."""
        self._wait_for_token(lambda each: f":{run_id}#" in each, f"an event token of {run_id}")

    def _wait_for_token(self, is_wanted: Callable[[str], bool], what: str) -> None:
        def waiters() -> list[str]:
            tokens: list[str] = self.ask("GET", "/waiters")
            return tokens

        until(
            lambda: any(map(is_wanted, waiters())) or None,
            lambda: f"{what} is not in {waiters()}",
        )

    def signal(self, token: str, payload: object = None) -> None:
        self.ask("POST", "/signal", {"token": token, "payload": payload})

    def complete_task(self, run_id: str, name: str, value: object) -> None:
        self.ask("POST", "/complete-task", {"runId": run_id, "name": name, "value": value})

    def fail_task(self, run_id: str, name: str, error: object) -> None:
        self.ask("POST", "/fail-task", {"runId": run_id, "name": name, "error": error})

    def published(self, run_id: str, key: str) -> Any:
        """The latest value of `ctx.set_event`."""
        return self.ask("GET", f"/event/{_quoted(run_id)}/{_quoted(key)}")["value"]

    def publish(self, name: str, payload: object) -> int:
        """Publish an event; how many runs it has reached."""
        reached: int = self.ask("POST", "/publish-event", {"name": name, "payload": payload})[
            "reached"
        ]
        return reached

    def engine_events(self, run_id: str, kind: str) -> list[Any]:
        events = self.ask("GET", f"/engine-events/{_quoted(run_id)}")
        return [event for event in events if event["type"] == kind]

    def live_groups(self) -> set[str]:
        """Routing tokens that at least one live worker serves."""
        return {each["group"] for each in self.ask("GET", "/health") if each["liveWorkers"]}

    def wait_for_groups(self, *groups: str, seconds: float = 20) -> None:
        wanted = set(groups)
        until(
            lambda: wanted <= self.live_groups() or None,
            lambda: f"waited for {wanted}, live are {self.live_groups()}",
            seconds=seconds,
        )


def until(probe: Callable[[], T | None], state: Callable[[], str], *, seconds: float = 20) -> T:
    """What `probe` finds, once it finds something; fails with `state` when time is over."""
    deadline = time.monotonic() + seconds
    while True:
        found = probe()
        if found is not None:
            return found
        assert time.monotonic() < deadline, f"after {seconds} s: {state()}"
        time.sleep(POLL_SECONDS)


def _quoted(text: str) -> str:
    return quote(text, safe="")
