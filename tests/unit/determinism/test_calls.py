"""What a body calls that a replay could not repeat is noticed at the call, and nothing else is."""
# ruff: noqa: PLW0108 - the line of the call has to be one of this file

import asyncio
import dataclasses
import io
import json
import linecache
import logging
import os
import random
import re
import secrets
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import uuid
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import choice
from time import time as clock
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import anyio.to_thread
import pytest
import structlog
from structlog.testing import capture_logs

from durable_worker import Worker, WorkflowContext
from durable_worker.protocol.commands import DecisionStatus, WorkflowDecision
from durable_worker.worker.determinism.checks import checks_for
from durable_worker.worker.determinism.policy import Determinism, unchecked
from durable_worker.worker.turns import TurnRunner
from tests.replay.model import Body, ModelOperator

pytestmark = pytest.mark.anyio

POOL = ThreadPoolExecutor(1)
RENDERER = structlog.processors.JSONRenderer()
DATABASE = sqlite3.connect(":memory:")


class Stamp(datetime):
    pass


async def no_local_steps(*_: object) -> Any:
    raise AssertionError("no local step was expected")


async def decide(
    body: Body, determinism: Determinism = Determinism.RAISE, *, turns: int = 1
) -> WorkflowDecision:
    worker = Worker()
    worker.workflow("flow")(body)
    checks = checks_for(worker, determinism)
    runner = TurnRunner(worker, run_locally=no_local_steps, kept=0, checks=checks)
    operator = ModelOperator()
    for _ in range(turns):
        decision = await runner.decide(operator.task())
    return decision


def calling(function: Callable[..., object], *arguments: object) -> Body:
    async def body(ctx: WorkflowContext) -> None:
        function(*arguments)

    return body


FORBIDDEN: list[tuple[str, str, Callable[[], object]]] = [
    ("time.time", "ctx.now()", lambda: time.time()),
    ("time.time", "ctx.now()", lambda: clock()),
    ("time.time_ns", "ctx.now()", lambda: time.time_ns()),
    ("time.monotonic", "ctx.now()", lambda: time.monotonic()),
    ("time.perf_counter", "ctx.now()", lambda: time.perf_counter()),
    ("datetime.datetime.now", "ctx.now()", lambda: datetime.now(UTC)),
    ("datetime.datetime.now", "ctx.now()", lambda: Stamp.now(UTC)),
    ("datetime.date.today", "ctx.now()", lambda: date.today()),
    ("datetime.date.today", "ctx.now()", lambda: datetime.today()),
    ("time.sleep", "ctx.sleep", lambda: time.sleep(0)),
    ("random.random", "ctx.random", lambda: random.random()),
    ("random.getrandbits", "ctx.random", lambda: random.getrandbits(8)),
    ("random.randint", "ctx.random", lambda: random.randint(1, 6)),
    ("random.choice", "ctx.random", lambda: choice([1, 2])),
    ("random.seed", "ctx.random", lambda: random.seed(7)),
    ("random.Random", "ctx.random", lambda: random.Random()),
    ("random.choice", "ctx.random", lambda: secrets.choice([1, 2])),
    ("random.SystemRandom.random", "ctx.random", lambda: random.SystemRandom().random()),
    ("uuid.uuid4", "ctx.uuid()", lambda: uuid.uuid4()),
    ("uuid.uuid4", "ctx.uuid()", lambda: uuid4()),
    ("uuid.uuid1", "ctx.uuid()", lambda: uuid.uuid1()),
    ("secrets.token_hex", "ctx.random", lambda: secrets.token_hex()),
    ("os.urandom", "ctx.random", lambda: os.urandom(4)),
    ("open", "ctx.side_effect", lambda: open(os.devnull).close()),
    ("open", "ctx.side_effect", lambda: Path(os.devnull).read_bytes()),
    ("os.stat", "ctx.side_effect", lambda: Path("nosuch").exists()),
    ("os.listdir", "ctx.side_effect", lambda: os.listdir("/")),
    ("tempfile.mkdtemp", "ctx.side_effect", lambda: tempfile.mkdtemp()),
    ("socket.socket", "ctx.step", lambda: socket.socket().close()),
    ("socket.create_connection", "ctx.step", lambda: socket.create_connection(("", 1))),
    ("socket.gethostname", "ctx.step", lambda: socket.gethostname()),
    ("sqlite3.connect", "ctx.step", lambda: sqlite3.connect(":memory:").close()),
    ("sqlite3.Connection.execute", "ctx.step", lambda: DATABASE.execute("select 1")),
    ("subprocess.Popen", "ctx.step", lambda: subprocess.run(["true"], check=True)),
    ("os.system", "ctx.step", lambda: os.system("true")),
    ("threading.Thread.start", "one thread", lambda: threading.Thread().start()),
    (
        "concurrent.futures.thread.ThreadPoolExecutor.submit",
        "one thread",
        lambda: POOL.submit(print).result(),
    ),
    ("input", "ctx.wait_signal", lambda: input()),
]


@pytest.mark.parametrize(("call", "instead", "function"), FORBIDDEN)
async def test_a_call_that_a_replay_cannot_repeat_fails_the_run_with_its_line_and_a_way_out(
    call: str, instead: str, function: Any
) -> None:
    decision = await decide(calling(function))
    assert decision.status is DecisionStatus.FAILED
    assert decision.error is not None
    assert decision.error.code == "nondeterministic-call"
    line = function.__code__.co_firstlineno
    assert decision.error.message.startswith(
        f"{call} was called in the body of workflow 'flow' at {__file__}:{line}, "
    )
    assert instead in decision.error.message


@pytest.mark.parametrize(
    "blocking",
    [
        lambda: asyncio.to_thread(print),
        lambda: anyio.to_thread.run_sync(print),
    ],
)
async def test_a_thread_that_a_body_awaits_is_noticed_whoever_starts_it(blocking: Any) -> None:
    async def body(ctx: WorkflowContext) -> None:
        await blocking()

    decision = await decide(body)
    assert decision.error is not None
    assert f"{__file__}:{body.__code__.co_firstlineno + 1}" in decision.error.message


async def test_a_body_that_catches_everything_fails_all_the_same() -> None:
    async def body(ctx: WorkflowContext) -> str:
        try:
            time.time()
        except Exception:
            ctx.set_event("caught", 1)
        while True:
            try:
                await ctx.step("on")
            except Exception:
                time.time()

    decision = await decide(body)
    assert decision.status is DecisionStatus.FAILED
    assert decision.commands == []
    assert decision.error is not None
    assert f"{__file__}:{body.__code__.co_firstlineno + 2}" in decision.error.message


async def test_nothing_happens_after_the_call_in_a_body_that_catches_the_error() -> None:
    produced: list[int] = []

    async def body(ctx: WorkflowContext) -> None:
        with suppress(Exception):
            time.time()
        ctx.side_effect(lambda: produced.append(1))

    assert (await decide(body)).status is DecisionStatus.FAILED
    assert produced == []


async def test_a_body_is_the_users_also_where_it_is_installed(tmp_path: Path) -> None:
    file = tmp_path / "site-packages" / "shop" / "flows.py"
    source = "import time\nasync def body(ctx):\n    return time.time()\n"
    shop: dict[str, Any] = {"__name__": "shop.flows"}
    exec(compile(source, str(file), "exec"), shop)
    decision = await decide(shop["body"])
    assert decision.error is not None
    assert f"{file}:3" in decision.error.message


async def test_what_a_library_does_with_the_clock_is_its_own_business_but_not_what_it_opens(
    tmp_path: Path,
) -> None:
    file = tmp_path / "site-packages" / "someones.py"
    source = (
        "import time\ndef stamp():\n    time.time()\ndef read():\n    open('/dev/null').close()\n"
    )
    library: dict[str, Any] = {"__name__": "someones"}
    exec(compile(source, str(file), "exec"), library)
    assert (await decide(calling(library["stamp"]))).status is DecisionStatus.COMPLETED
    decision = await decide(calling(library["read"]))
    assert decision.error is not None
    place = f"{__file__}:{calling.__code__.co_firstlineno + 2}"
    assert decision.error.message.startswith("open was called")
    assert place in decision.error.message


async def test_a_call_in_a_function_that_the_body_calls_is_located_there() -> None:
    def stamp() -> float:
        return time.time()

    async def body(ctx: WorkflowContext) -> float:
        return stamp()

    decision = await decide(body)
    assert decision.error is not None
    assert f"{__file__}:{stamp.__code__.co_firstlineno + 1}" in decision.error.message


@dataclasses.dataclass
class Order:
    id: str
    total: Decimal = Decimal("1.5")


def formatted_traceback(ctx: WorkflowContext) -> object:
    try:
        raise ValueError("no")
    except ValueError:
        linecache.clearcache()
        return traceback.format_exc()


def lazily_imported(ctx: WorkflowContext) -> object:
    sys.modules.pop("colorsys", None)
    import colorsys

    return colorsys.rgb_to_hls(0, 0, 0)


def logged(ctx: WorkflowContext) -> object:
    logger = logging.getLogger("body")
    handler = logging.FileHandler(os.devnull, delay=True)
    logger.addHandler(handler)
    logger.warning("hello")
    handler.close()
    logger.removeHandler(handler)
    return None


def warned(ctx: WorkflowContext) -> object:
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        warnings.warn("hello", stacklevel=1)
    return None


class Finalised:
    def __del__(self) -> None:
        time.time()
        os.stat("/")


def collected(ctx: WorkflowContext) -> object:
    Finalised()
    return None


def exempted(ctx: WorkflowContext) -> object:
    with unchecked():
        return os.stat("/").st_mode


def made_by_a_processor(ctx: WorkflowContext) -> object:
    def stamp(_logger: object, _method: str, event: Any) -> Any:
        return {**event, "at": time.time()}

    logger = structlog.wrap_logger(
        structlog.PrintLogger(io.StringIO()), processors=[stamp, RENDERER]
    )
    logger.info("hello")
    return None


ALLOWED: list[Callable[[WorkflowContext], object]] = [
    logged,
    warned,
    collected,
    exempted,
    made_by_a_processor,
    formatted_traceback,
    lazily_imported,
    lambda ctx: structlog.wrap_logger(
        structlog.PrintLogger(io.StringIO()),
        processors=[structlog.processors.TimeStamper(), RENDERER],
    ).info("hello"),
    lambda ctx: ctx.side_effect(lambda: time.time()),
    lambda ctx: ctx.side_effect(lambda: Path(os.devnull).read_text()),
    lambda ctx: ctx.side_effect(lambda: str(uuid.uuid4())),
    lambda ctx: ctx.now().isoformat(),
    lambda ctx: str(ctx.uuid()),
    lambda ctx: [ctx.random.random(), ctx.random.choice([1, 2]), ctx.random.randint(1, 6)],
    lambda ctx: random.Random(42).shuffle([1, 2, 3]),
    lambda ctx: random.Random("seed").random(),
    lambda ctx: str(uuid.uuid5(uuid.NAMESPACE_URL, "x")),
    lambda ctx: datetime.fromtimestamp(0, UTC).isoformat(),
    lambda ctx: str(datetime.strptime("2026-01-01", "%Y-%m-%d") + timedelta(days=1)),
    lambda ctx: str(ctx.now().astimezone(ZoneInfo.no_cache("Europe/Berlin"))),
    lambda ctx: time.strftime("%Y", time.gmtime(0)),
    lambda ctx: json.loads(json.dumps({"a": [1, 2.5]})),
    lambda ctx: str(Decimal("1.1") / 3),
    lambda ctx: bool(re.compile("(a+)b{2}" + ctx.run_id).match("aabb")),
    lambda ctx: dataclasses.asdict(dataclasses.replace(Order("1"), id="2")),
    lambda ctx: dataclasses.make_dataclass("Made", ["x"])(1).x,
    lambda ctx: len([os.getpid(), os.environ.get("HOME")]),
    lambda ctx: print("hello"),
]


@pytest.mark.parametrize("function", ALLOWED)
async def test_what_is_harmless_is_not_noticed(function: Any) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        return function(ctx)

    with capture_logs() as noticed:
        await decide(body, Determinism.WARN)
    assert [each for each in noticed if each["event"] == "nondeterministic_call"] == []
    decision = await decide(body)
    assert decision.status is DecisionStatus.COMPLETED, decision.error


async def test_asyncio_in_a_body_is_not_noticed() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(ctx.step("a"))
            queue: asyncio.Queue[int] = asyncio.Queue()
            group.create_task(queue.put(1))
            await asyncio.wait_for(queue.get(), 5)
            await asyncio.gather(ctx.step("b"), asyncio.sleep(1))

    decision = await decide(body)
    assert decision.status is DecisionStatus.CONTINUE, decision.error


async def test_in_production_each_place_is_warned_about_once_and_the_run_goes_on() -> None:
    async def body(ctx: WorkflowContext) -> str:
        time.time()
        for _ in range(3):
            uuid.uuid4()
        return "done"

    with capture_logs() as noticed:
        decision = await decide(body, Determinism.WARN, turns=3)
    assert decision.status is DecisionStatus.COMPLETED
    first = body.__code__.co_firstlineno
    assert noticed == [
        {
            "event": "nondeterministic_call",
            "log_level": "warning",
            "workflow": "flow",
            "version": "1",
            "call": call,
            "location": f"{__file__}:{first + line}",
            "hint": f"A replay cannot repeat {call} in a workflow body: {instead}.",
        }
        for call, line, instead in (
            ("time.time", 1, "use ctx.now(), which is recorded"),
            ("uuid.uuid4", 3, "use ctx.uuid()"),
        )
    ]


async def test_in_production_the_first_turns_are_watched_and_few_of_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = 0

    async def body(ctx: WorkflowContext) -> None:
        nonlocal watched
        watched += sys.getprofile() is not None

    await decide(body, Determinism.WARN, turns=1_000)
    assert watched == 22


async def test_when_it_is_off_nothing_is_noticed() -> None:
    async def body(ctx: WorkflowContext) -> bool:
        time.time()
        return sys.getprofile() is None

    with capture_logs() as noticed:
        decision = await decide(body, Determinism.OFF)
    assert noticed == []
    assert bytes(decision.output) == b"true"  # type: ignore[arg-type]


@pytest.mark.parametrize("determinism", [Determinism.WARN, Determinism.RAISE])
async def test_a_profiler_that_is_active_already_is_left_alone(determinism: Determinism) -> None:
    seen: list[str] = []

    def profiler(frame: Any, event: str, argument: Any) -> None:
        if event == "c_call":
            seen.append(argument.__name__)

    sys.setprofile(profiler)
    try:
        decision = await decide(calling(lambda: time.time_ns()), determinism)
        left = sys.getprofile()
    finally:
        sys.setprofile(None)
    assert decision.status is DecisionStatus.COMPLETED
    assert left is profiler
    assert "time_ns" in seen


async def test_no_profiler_is_left_behind_by_a_turn() -> None:
    await decide(calling(time.time))
    assert sys.getprofile() is None
    await decide(calling(len, "x"))
    assert sys.getprofile() is None
