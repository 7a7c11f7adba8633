"""A served worker, seen from the operator's side of the wire."""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator

import anyio
import pytest
import structlog

from durable_worker import FatalError, Retry, StepContext, Worker, current_step
from durable_worker.protocol import codec
from durable_worker.protocol.codec import MessageType
from durable_worker.protocol.control import EventHappened
from durable_worker.protocol.names import Names
from durable_worker.protocol.results import EventLevel, ResultStatus, SubProcessStatus
from durable_worker.transports.base import RESENT_HEADER, Envelope
from durable_worker.transports.memory import MemoryTransport
from tests.integration.worker.desk import Desk, eventually, serving

pytestmark = pytest.mark.anyio
NAMES = Names()


@pytest.fixture
async def transport() -> AsyncIterator[MemoryTransport]:
    async with MemoryTransport(names=NAMES) as opened:
        yield opened


async def test_a_step_is_run_and_its_output_sent_back(transport: MemoryTransport) -> None:
    worker = Worker()

    @worker.step("double")
    async def double(n: int) -> int:
        return 2 * n

    async with serving(worker, transport, NAMES) as desk:
        task = await desk.send_step("double", 21)
        result = await desk.result()
    assert (result.step_id, result.status, bytes(result.output)) == (
        task.step_id,
        ResultStatus.COMPLETED,
        b"42",
    )
    assert result.started_at is not None


async def test_a_plain_function_runs_in_a_thread_and_reaches_its_context(
    transport: MemoryTransport,
) -> None:
    worker = Worker()

    @worker.step("where")
    def where() -> bool:
        current_step().info("from a thread", answer=42)
        return threading.current_thread() is threading.main_thread()

    async with serving(worker, transport, NAMES) as desk:
        await desk.send_step("where")
        result = await desk.result()
    assert bytes(result.output) == b"false"
    assert result.events is not None
    assert [(e.level, e.message, bytes(e.data)) for e in result.events] == [
        (EventLevel.INFO, "from a thread", b'{"answer":42}')
    ]


class Declined(Exception):
    code = "card-declined"


async def failing(desk: Desk, name: str, value: object = None) -> tuple[str | None, bool | None]:
    await desk.send_step(name, value)
    result = await desk.result()
    assert result.status is ResultStatus.FAILED
    assert result.error is not None
    return result.error.code, result.error.retryable


async def test_every_way_to_fail_becomes_a_failed_result(transport: MemoryTransport) -> None:
    worker = Worker()

    @worker.step("declined")
    async def declined() -> None:
        raise Declined("no")

    @worker.step("fatal")
    async def fatal() -> None:
        raise FatalError("never", code="broken")

    @worker.step("ruled-out", retries=Retry(attempts=3, non_retryable=(LookupError,)))
    async def ruled_out() -> None:
        raise KeyError("x")

    @worker.step("exits")
    async def exits() -> None:
        sys.exit(1)

    @worker.step("not-json")
    async def not_json() -> object:
        return object()

    @worker.step("nan")
    async def nan() -> float:
        return float("nan")

    @worker.step("typed")
    async def typed(n: int) -> None: ...

    @worker.step("cancels-itself")
    async def cancels_itself() -> None:
        raise asyncio.CancelledError

    async with serving(worker, transport, NAMES) as desk:
        assert await failing(desk, "declined") == ("card-declined", None)
        assert await failing(desk, "fatal") == ("broken", False)
        assert await failing(desk, "ruled-out") == ("KeyError", False)
        assert await failing(desk, "exits") == ("SystemExit", None)
        assert await failing(desk, "not-json") == ("payload", False)
        assert await failing(desk, "nan") == ("payload", False)
        assert await failing(desk, "typed", "five") == ("payload", False)
        assert await failing(desk, "cancels-itself") == ("CancelledError", None)


async def test_no_step_can_end_the_worker(transport: MemoryTransport) -> None:
    worker = Worker()

    class Abort(BaseException): ...

    @worker.step("cancels-its-task")
    async def cancels_its_task() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    @worker.step("aborts")
    async def aborts() -> None:
        raise Abort

    @worker.step("interrupts")
    def interrupts() -> None:
        raise KeyboardInterrupt

    @worker.step("fine")
    async def fine(name: str = "world") -> str:
        return f"hello {name}"

    async with serving(worker, transport, NAMES) as desk:
        assert await failing(desk, "cancels-its-task") == ("CancelledError", None)
        assert await failing(desk, "aborts") == ("Abort", None)
        assert await failing(desk, "interrupts") == ("KeyboardInterrupt", None)
        await desk.send_step("fine", "Ada")
        assert bytes((await desk.result()).output) == b'"hello Ada"'


async def test_what_a_step_tells_is_made_to_fit_the_wire(transport: MemoryTransport) -> None:
    worker = Worker()

    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    @worker.step("tells")
    async def tells(ctx: StepContext) -> None:
        ctx.info(42)  # type: ignore[arg-type]
        ctx.error(Broken())  # type: ignore[arg-type]
        ctx.info("caf\udce9.txt", file="caf\udce9.txt")

    async with serving(worker, transport, NAMES) as desk:
        await desk.send_step("tells")
        result = await desk.result()
    assert result.events is not None
    number, broken, odd = [event.message for event in result.events]
    assert (number, odd) == ("42", "caf\\udce9.txt")
    assert broken.endswith("Broken (its text is unavailable: RuntimeError)")


async def test_sub_processes_report_phases_and_outcomes(transport: MemoryTransport) -> None:
    worker = Worker()

    @worker.step("import")
    async def import_all(ctx: StepContext) -> None:
        async with ctx.sub_process("fetch") as fetch:
            fetch.phase("download", bytes=5)
        async with ctx.sub_process("index") as index:
            index.skip("nothing new")
        with pytest.raises(ValueError, match="bad row"):
            async with ctx.sub_process("load"):
                raise ValueError("bad row")

    async with serving(worker, transport, NAMES) as desk:
        await desk.send_step("import")
        result = await desk.result()
        progress = [codec.CONTROL.decode(e.body) for e in desk.control]
    assert result.events is not None
    outcomes = [(e.name, e.phase, e.status) for e in result.events if e.status is not None]
    assert outcomes == [
        ("fetch", "download", SubProcessStatus.OK),
        ("index", None, SubProcessStatus.SKIPPED),
        ("load", None, SubProcessStatus.FAILED),
    ]
    live = [m.event.event for m in progress if isinstance(m, EventHappened)]
    assert live == result.events


async def test_a_redelivered_attempt_is_answered_again_without_running_again(
    transport: MemoryTransport,
) -> None:
    worker = Worker()
    runs: list[int] = []

    @worker.step("once")
    async def once(ctx: StepContext) -> int:
        runs.append(ctx.attempt)
        return len(runs)

    async with serving(worker, transport, NAMES) as desk:
        outputs: list[bytes] = []
        for attempt in (1, 1, 2):
            await desk.send_step("once", seq=7, attempt=attempt)
            outputs.append(bytes((await desk.result()).output))
    assert runs == [1, 2]
    assert outputs == [b"1", b"1", b"2"]


async def test_a_duplicate_of_a_running_attempt_waits_for_it(transport: MemoryTransport) -> None:
    worker = Worker()
    runs: list[int] = []
    release = anyio.Event()

    @worker.step("slow")
    async def slow() -> None:
        runs.append(1)
        await release.wait()

    async with serving(worker, transport, NAMES) as desk:
        await desk.send_step("slow", seq=1)
        await eventually(lambda: runs)
        await desk.send_step("slow", seq=1)
        await anyio.wait_all_tasks_blocked()
        release.set()
        await desk.result()
        await anyio.wait_all_tasks_blocked()
        depth = transport.depth(NAMES.tasks("slow"))
    assert (runs, depth) == ([1], 0)


async def test_concurrency_bounds_what_runs_at_one_time(transport: MemoryTransport) -> None:
    worker = Worker()
    running = 0
    peak = 0

    @worker.step("busy")
    async def busy() -> None:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await anyio.sleep(0.01)
        running -= 1

    async with serving(worker, transport, NAMES, concurrency=3) as desk:
        for _ in range(20):
            await desk.send_step("busy")
        for _ in range(20):
            await desk.result()
    assert peak == 3


async def test_cancelling_the_run_reaches_its_running_step(transport: MemoryTransport) -> None:
    worker = Worker()
    started = anyio.Event()

    @worker.step("patient")
    async def patient(ctx: StepContext) -> None:
        started.set()
        while True:
            ctx.raise_if_cancelled()
            await anyio.sleep(0.005)

    async with serving(worker, transport, NAMES) as desk:
        await desk.send_step("patient", run_id="run-9")
        await started.wait()
        await desk.cancel("another-run")
        await desk.cancel("run-9")
        result = await desk.result()
    assert result.error is not None
    assert result.error.code == "cancelled"


async def test_a_cancel_that_overtakes_its_step_still_reaches_it(
    transport: MemoryTransport,
) -> None:
    worker = Worker()

    @worker.step("ask")
    async def ask(ctx: StepContext) -> bool:
        return ctx.cancelled

    async with serving(worker, transport, NAMES) as desk:
        await eventually(lambda: desk.workers)
        await desk.cancel("run-9")
        await desk.send_step("ask", run_id="run-9")
        await desk.send_step("ask", run_id="run-8")
        outputs = {r.run_id: bytes(r.output) for r in [await desk.result(), await desk.result()]}
    assert outputs == {"run-9": b"true", "run-8": b"false"}


async def test_a_cancel_of_single_steps_spares_the_others_and_what_comes_later(
    transport: MemoryTransport,
) -> None:
    worker = Worker()
    started: list[int] = []
    told = anyio.Event()

    @worker.step("ask")
    async def ask(ctx: StepContext) -> bool:
        started.append(ctx.seq)
        await told.wait()
        return ctx.cancelled

    async with serving(worker, transport, NAMES) as desk:
        for seq in (0, 1):
            await desk.send_step("ask", run_id="run-9", seq=seq)
        await eventually(lambda: len(started) == 2)
        await desk.cancel("run-9", seqs=[1, 2])
        for seq in (2, 3):
            await desk.send_step("ask", run_id="run-9", seq=seq)
        await eventually(lambda: len(started) == 4)
        told.set()
        results = [await desk.result() for _ in range(4)]
    assert {each.seq: bytes(each.output) for each in results} == {
        0: b"false",
        1: b"true",
        2: b"true",
        3: b"false",
    }


async def test_a_running_step_sends_heartbeats_with_its_step_id(
    transport: MemoryTransport,
) -> None:
    worker = Worker()

    @worker.step("beats")
    async def beats(ctx: StepContext) -> None:
        ctx.heartbeat({"page": 3})

    async with serving(worker, transport, NAMES) as desk:
        task = await desk.send_step("beats")
        result = await desk.result()
        await eventually(lambda: len(desk.heartbeats) >= 2)
        beat = codec.HEARTBEAT.decode(desk.heartbeats[-1].body)
    assert (beat.run_id, beat.seq, beat.step_id) == (task.run_id, task.seq, task.step_id)
    assert result.events is not None
    assert bytes(result.events[0].data) == b'{"details":{"page":3}}'


async def test_a_step_that_is_held_but_waits_for_its_turn_sends_heartbeats_too(
    transport: MemoryTransport,
) -> None:
    worker, may_end = Worker(), anyio.Event()

    @worker.step("first")
    async def first() -> None:
        await may_end.wait()

    @worker.step("second")
    async def second() -> None: ...

    async with serving(worker, transport, NAMES, concurrency=1) as desk:
        await desk.send_step("first")
        await eventually(lambda: len(desk.heartbeats) == 1)
        waiting = await desk.send_step("second")
        await eventually(lambda: len(desk.heartbeats) == 2)
        beat = codec.HEARTBEAT.decode(desk.heartbeats[-1].body)
        may_end.set()
        await desk.result()
        await desk.result()
    assert beat.step_id == waiting.step_id


async def test_a_failed_attempt_that_is_sent_as_new_runs_anew_but_a_repeated_one_does_not(
    transport: MemoryTransport,
) -> None:
    """A NestJS operator tries a failed run again under the same step id and attempt."""
    worker = Worker()
    runs: list[int] = []

    @worker.step("mended")
    async def mended() -> int:
        runs.append(1)
        if len(runs) == 1:
            raise RuntimeError("not yet")
        return len(runs)

    async with serving(worker, transport, NAMES) as desk:
        task = await desk.send_step("mended", seq=7)
        first = await desk.result()
        envelope = Envelope(
            MessageType.STEP_TASK, codec.encode(task), "run-1:7:1", headers={RESENT_HEADER: "0"}
        )
        await transport.send(NAMES.tasks("mended"), envelope)
        repeated = await desk.result()
        await desk.send_step("mended", seq=7)
        anew = await desk.result()
    assert (first, anew.status, runs) == (repeated, ResultStatus.COMPLETED, [1, 1])


async def test_the_log_tells_how_a_step_ended_with_what_the_step_has_bound(
    transport: MemoryTransport,
) -> None:
    worker = Worker()

    @worker.step("ships")
    async def ships(parcel: int) -> None:
        structlog.contextvars.bind_contextvars(parcel=parcel)
        if not parcel:
            raise ValueError("no parcel")

    with structlog.testing.capture_logs(
        processors=[structlog.contextvars.merge_contextvars]
    ) as lines:
        async with serving(worker, transport, NAMES) as desk:
            for parcel in (1, 0):
                await desk.send_step("ships", parcel)
                await desk.result()
    ends = [each for each in lines if each["event"].startswith(("step_completed", "step_failed"))]
    assert [{**each, "seconds": 0} for each in ends] == [
        {
            "event": "step_completed",
            "log_level": "info",
            "run_id": "run-1",
            "step": "ships",
            "attempt": 1,
            "parcel": 1,
            "seconds": 0,
        },
        {
            "event": "step_failed",
            "log_level": "warning",
            "run_id": "run-1",
            "step": "ships",
            "attempt": 1,
            "parcel": 0,
            "error": "no parcel",
            "seconds": 0,
        },
    ]
