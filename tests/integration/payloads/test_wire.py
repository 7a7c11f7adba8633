"""What a worker with a codec or a context puts on the wire, from the operator's side."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec import UNSET, Raw, json

from durable_worker.edge.parts import open_event, seal_event
from durable_worker.payloads import Encrypt, PayloadCodec, Sign
from durable_worker.protocol import codec as wire
from durable_worker.protocol.commands import (
    DecisionStatus,
    ScheduleStep,
    StartChild,
    WorkflowDecision,
)
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.names import Names
from durable_worker.protocol.payload_envelope import Parameters, described, read_envelope
from durable_worker.protocol.results import EventLevel, ResultStatus, StepEvent
from durable_worker.protocol.tasks import (
    HistoryEvent,
    HistoryKind,
    PendingSignal,
)
from durable_worker.transports.base import Delivery
from durable_worker.transports.memory import MemoryTransport
from tests.integration.payloads.wire import in_context, raw, send_step, send_turn, worker_with
from tests.integration.worker.desk import eventually, serving
from tests.unit.payloads.keys import ring

pytestmark = pytest.mark.anyio
NAMES = Names()
SECRET = b"4929-marker"


@pytest.fixture
async def transport() -> AsyncIterator[MemoryTransport]:
    async with MemoryTransport(names=NAMES) as opened:
        yield opened


# Contexts


async def test_a_context_goes_only_to_steps_and_children_that_can_read_it(
    transport: MemoryTransport,
) -> None:
    worker = worker_with(None, context_to=["billing.*"])
    names = ["own", "foreign", "billing.charge", "echoing"]
    async with serving(worker, transport, NAMES) as desk:
        context = {"tenant": "acme"}
        await send_turn(desk, "parent", in_context(names, context))
        children = {
            each.workflow: json.decode(each.input)
            for each in (await desk.decision()).commands
            if isinstance(each, StartChild)
        }
    wrapped = {"$durable": {"v": 1, "context": context, "value": 1}}
    assert children == {"own": 1, "foreign": 1, "billing.charge": wrapped, "echoing": wrapped}


async def test_without_context_and_codec_nothing_is_in_an_envelope(
    transport: MemoryTransport,
) -> None:
    async with serving(worker_with(None), transport, NAMES) as desk:
        await send_turn(desk, "calling", raw(["own"]))
        (call,) = (await desk.decision()).commands
        assert isinstance(call, ScheduleStep)
        assert call.input == raw("4929-marker")


async def test_a_step_gets_the_context_of_the_run_over_that_of_the_operator(
    transport: MemoryTransport,
) -> None:
    told = {"user": "ada", "traceparent": "00-mine"}
    async with serving(worker_with(None), transport, NAMES) as desk:
        stated = {"user": "nobody", "region": "eu"}
        await send_step(
            desk, "telling", in_context(1, told), context=stated, traceparent="00-theirs"
        )
        result = await desk.result()
    assert json.decode(result.output) == [1, {**stated, **told}, "00-mine"]


@pytest.mark.parametrize("value", [{"$durable": 5}, {"$durable": {"v": 1, "value": 2}}])
async def test_a_value_that_looks_like_an_envelope_comes_back_as_it_is(
    transport: MemoryTransport, value: object
) -> None:
    async with serving(worker_with(None), transport, NAMES) as desk:
        escaped = raw({"$durable": {"v": 1, "value": value}})
        await send_turn(desk, "echoing", escaped)
        decision = await desk.decision()
    assert decision.status is DecisionStatus.COMPLETED
    assert json.decode(decision.output) == json.decode(escaped)


# Seals


class Counting(Encrypt):
    """Counts what was really sealed and opened."""

    def __init__(self) -> None:
        super().__init__(ring("k1"))
        self.sealed = self.opened = 0

    def seal(self, data: bytes, associated: bytes) -> tuple[bytes, Parameters]:
        self.sealed += 1
        return super().seal(data, associated)

    def open(self, data: bytes, parameters: Parameters, associated: bytes) -> bytes:
        self.opened += 1
        return super().open(data, parameters, associated)


async def test_a_turn_seals_and_opens_only_what_is_new(transport: MemoryTransport) -> None:
    stage, width = Counting(), 20
    codec = PayloadCodec(stage)
    value = await codec.seal(raw(width), salt="run-1")
    assert isinstance(value, Raw)
    results = [
        HistoryEvent(
            seq=seq,
            kind=HistoryKind.CALL,
            name="own",
            output=await codec.seal(raw(seq), salt="run-1"),
        )
        for seq in range(width)
    ]
    stage.sealed = stage.opened = 0
    async with serving(worker_with(codec), transport, NAMES) as desk:
        calls: dict[int, Raw] = {}
        for known in range(width):
            await send_turn(desk, "fan", value, results[:known], task_id=f"t{known}")
            decision = await desk.decision()
            for each in decision.commands:
                if isinstance(each, ScheduleStep):
                    assert isinstance(each.input, Raw)
                    assert calls.setdefault(each.seq, each.input) == each.input
        await send_turn(desk, "fan", value, results, task_id="last")
        assert (await desk.decision()).status is DecisionStatus.COMPLETED
    assert len(calls) == width
    assert stage.opened == 1 + width
    assert stage.sealed == width + 1


async def test_nothing_that_a_step_says_or_returns_leaves_in_clear(
    transport: MemoryTransport,
) -> None:
    codec = PayloadCodec(Encrypt(ring("k1")))
    bodies: list[bytes] = []

    def note(delivery: Delivery) -> None:
        bodies.append(delivery.envelope.body)

    await transport.consume([NAMES.step_events], note, prefetch=100)
    sealed = await codec.seal(raw("4929-marker"), salt="run-1")
    assert isinstance(sealed, Raw)
    async with serving(worker_with(codec), transport, NAMES) as desk:
        await send_step(desk, "own", sealed)
        result = await desk.result()
        await eventually(lambda: [each for each in desk.control if b"step.progress" in each.body])
        bodies += [each.body for each in [*desk.control, *desk.heartbeats]]
    assert SECRET not in wire.encode(result)
    assert not [each for each in bodies if SECRET in each]
    assert result.events is not None
    (event,) = result.events
    assert (event.message, described(event.data)) == ("sealed", "sealed (aes-siv, key k1)")
    assert (await codec.open(result.output, what="it")).value == raw("4929-marker")


@pytest.mark.parametrize(
    ("codec", "code"),
    [(PayloadCodec(Encrypt(ring("k2"))), "payload-key-missing"), (None, "payload-sealed")],
    ids=["another key", "no codec"],
)
async def test_a_step_that_cannot_be_opened_fails_in_clear_and_may_be_tried_elsewhere(
    transport: MemoryTransport, codec: PayloadCodec | None, code: str
) -> None:
    sealed = await PayloadCodec(Encrypt(ring("k1"))).seal(raw(1), salt="run-1")
    assert isinstance(sealed, Raw)
    async with serving(worker_with(codec), transport, NAMES) as desk:
        await send_step(desk, "own", sealed)
        result = await desk.result()
    assert result.status is ResultStatus.FAILED
    assert result.error is not None
    assert (result.error.code, result.error.retryable) == (code, None)
    assert "the input of step 'own' (run 'run-1', seq 0) is sealed" in result.error.message


async def test_a_step_with_a_changed_input_fails_for_good(transport: MemoryTransport) -> None:
    codec = PayloadCodec(Encrypt(ring("k1")))
    envelope = read_envelope(await codec.seal(raw(1), salt="run-2"))
    assert envelope is not None
    moved = json.decode(json.encode(envelope)) | {"salt": "run-1"}
    async with serving(worker_with(codec), transport, NAMES) as desk:
        await send_step(desk, "own", raw({"$durable": moved}))
        result = await desk.result()
    assert result.error is not None
    assert (result.error.code, result.error.retryable) == ("payload-tampered", False)


STAGES = pytest.mark.parametrize("stage", [Encrypt(ring("k1")), Sign(ring("k1"))])


async def answer_in_clear(transport: MemoryTransport, codec: PayloadCodec) -> WorkflowDecision:
    """Of a body whose recorded time and patch came in clear, as they always do."""
    history = [
        HistoryEvent(seq=0, kind=HistoryKind.STEP, name="now#0", output=raw(1)),
        HistoryEvent(seq=1, kind=HistoryKind.STEP, name="patch:new way", output=raw(True)),
    ]
    signal = PendingSignal(seq=2, signal="answer", payload=raw(42))
    async with serving(worker_with(codec), transport, NAMES) as desk:
        await send_turn(desk, "asking", Raw(b"null"), history, signals=[signal])
        return await desk.decision()


@STAGES
async def test_a_signal_in_clear_ends_a_run_that_demands_seals(
    transport: MemoryTransport, stage: Any
) -> None:
    decision = await answer_in_clear(transport, PayloadCodec(stage))
    assert decision.error is not None
    assert decision.error.code == "payload-not-sealed"
    assert "the payload of signal 'answer' is not sealed" in decision.error.message


@STAGES
async def test_a_signal_in_clear_reaches_a_run_that_accepts_what_is_plain(
    transport: MemoryTransport, stage: Any
) -> None:
    codec = PayloadCodec(stage, accept_plain=True)
    decision = await answer_in_clear(transport, codec)
    assert decision.status is DecisionStatus.COMPLETED
    assert (await codec.open(decision.output, what="it")).value == raw(42)


async def test_a_failure_that_the_operator_made_is_accepted_in_clear(
    transport: MemoryTransport,
) -> None:
    codec = PayloadCodec(Encrypt(ring("k1")))
    failed = HistoryEvent(
        seq=0,
        kind=HistoryKind.CALL,
        name="own",
        error=Failure(message="given up", code="poison", details=raw({"by": "the operator"})),
    )
    async with serving(worker_with(codec), transport, NAMES) as desk:
        await send_turn(desk, "catching", Raw(b"null"), [failed])
        decision = await desk.decision()
    opened = await codec.open(decision.output, what="it")
    assert "given up" in json.decode(opened.value if opened.value is not UNSET else b"null")


async def test_the_level_and_time_of_a_sealed_event_stay_in_clear() -> None:
    event = StepEvent(at=1, level=EventLevel.WARN, message="m")
    codec = PayloadCodec(Encrypt(ring("k1")))
    sealed = await seal_event(codec, event, salt="r")
    assert (sealed.level, sealed.at, sealed.message) == (EventLevel.WARN, 1, "sealed")
    assert await open_event(codec, sealed, what="it") == event
