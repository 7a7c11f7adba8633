"""What an operator does about messages, and about inputs of which it breaks itself."""

from collections.abc import Sequence

import pytest
from msgspec import UNSET, Raw
from structlog.testing import capture_logs

from durable_worker.errors import PayloadTooLargeError, RequestRefusedError
from durable_worker.protocol.codec import RUN_REPLY, MessageType, encode
from durable_worker.protocol.names import Names
from durable_worker.protocol.runs import (
    GetRunDetail,
    RequestError,
    RequestResult,
    RunReply,
    RunRequest,
    RunStatus,
    StartRequest,
    StartRun,
)
from durable_worker.stores.base import Batch, Store
from durable_worker.stores.memory import MemoryStore
from durable_worker.stores.records import DeadLetter, RunState
from durable_worker.transports.base import ERROR_HEADER, Envelope
from durable_worker.transports.floods import TOLD_AT_ONCE
from durable_worker.transports.memory import MemoryTransport
from tests.integration.operator.scripted import (
    ScriptedWorker,
    answer,
    call,
    complete,
    operating,
    proceed,
    sequence,
)
from tests.integration.operator.waiting import eventually

pytestmark = pytest.mark.anyio


class BreakingStore(MemoryStore):
    """Has a defect that one run meets."""

    async def commit(self, batch: Batch, token: int) -> None:
        if any(run.id == "cursed" for run in batch.runs):
            raise TypeError("there is a bug")
        await super().commit(batch, token)

    async def load_many(self, run_ids: Sequence[str]) -> dict[str, RunState]:
        if "unreadable" in run_ids:
            raise KeyError("there is another")
        return await super().load_many(run_ids)


def start(run_id: str, workflow: str = "w") -> Envelope:
    body = encode(StartRun(tenant="default", workflow=workflow, run_id=run_id, input=UNSET))
    return Envelope(MessageType.START_RUN, body, run_id)


async def letters_of(store: Store, count: int) -> Sequence[DeadLetter]:
    async def are_kept() -> bool:
        return len(await store.dead_letters(limit=count + 1)) == count

    await eventually(are_kept)
    found = [await store.dead_letter(each.id) for each in await store.dead_letters(limit=count)]
    return [each for each in found if each is not None]


def simple(transport: MemoryTransport, names: Names) -> ScriptedWorker:
    return ScriptedWorker(transport, names, workflows={"w": lambda task: complete(task, 1)})


async def test_an_input_over_which_the_operator_breaks_costs_only_itself(
    names: Names, transport: MemoryTransport
) -> None:
    worker = simple(transport, names)
    async with (
        BreakingStore() as store,
        operating(store, transport, names) as operator,
        worker.serving(),
    ):
        await transport.declare([names.start_run])
        for run_id in ("before", "cursed", "after"):
            await transport.send(names.start_run, start(run_id))
        (letter,) = await letters_of(store, 1)
        for run_id in ("before", "after"):
            assert (await operator.wait(run_id)).status is RunStatus.COMPLETED
        with pytest.raises(RequestRefusedError, match="there is a bug"):
            await operator.start("w", UNSET, run_id="cursed")
        assert (await operator.wait(await operator.start("w", UNSET))).output == Raw(b"1")
    assert letter.message_id == "cursed"
    assert "the operator failed over it: TypeError: there is a bug" in letter.reason


async def test_a_request_over_which_the_operator_breaks_is_answered(
    names: Names, transport: MemoryTransport
) -> None:
    replies: list[Envelope] = []
    async with BreakingStore() as store, operating(store, transport, names):
        await transport.listen(names.run_reply, replies.append)
        body = encode(
            RunRequest(request_id="q", tenant="default", body=GetRunDetail(run_id="unreadable"))
        )
        await transport.declare([names.run_request])
        await transport.send(names.run_request, Envelope(MessageType.RUN_REQUEST, body, "q"))
        await eventually(lambda: len(replies) == 1)
    error = RUN_REPLY.decode(replies[0].body).result.error
    assert error is not None
    assert (error.code, "there is another" in error.message) == ("defect", True)


async def test_a_request_of_a_kind_that_nobody_knows_is_answered(
    names: Names, transport: MemoryTransport
) -> None:
    replies: list[Envelope] = []
    body = b'{"requestId":"q","tenant":"acme","body":{"kind":"ofTomorrow","much":[1]}}'
    async with MemoryStore() as store, operating(store, transport, names):
        await transport.listen(names.run_reply, replies.append)
        await transport.declare([names.run_request])
        await transport.send(names.run_request, Envelope(MessageType.RUN_REQUEST, body, "q"))
        await eventually(lambda: len(replies) == 1)
        assert await store.dead_letters(limit=1) == []
    reply = RUN_REPLY.decode(replies[0].body)
    assert reply == RunReply(
        request_id="q",
        result=RequestResult(
            ok=False,
            error=RequestError(
                message="this operator does not answer ofTomorrow requests", code="unsupported"
            ),
        ),
    )


async def test_a_start_that_comes_twice_is_answered_twice_alike(
    names: Names, transport: MemoryTransport
) -> None:
    replies: list[Envelope] = []
    body = StartRequest(workflow="w", run_id="r", reuse="reject")
    once = encode(RunRequest(request_id="q1", tenant="default", body=body))
    other = encode(RunRequest(request_id="q2", tenant="default", body=body))
    async with MemoryStore() as store, operating(store, transport, names):
        await transport.listen(names.run_reply, replies.append)
        await transport.declare([names.run_request])
        for index, message in enumerate((once, once, other)):
            await transport.send(names.run_request, Envelope(MessageType.RUN_REQUEST, message))
            await eventually(lambda: len(replies) == index + 1)  # noqa: B023
    first, second, third = (RUN_REPLY.decode(each.body).result for each in replies)
    assert first == second == RequestResult(ok=True, data=Raw(b'{"runId":"r","isNew":true}'))
    assert third.error is not None
    assert third.error.code == "run-exists"


DEEP = b"[" * 600 + b"]" * 600


@pytest.mark.parametrize(
    ("spoiled", "reason"),
    [
        (b'"output":"\xff"', "utf-8"),
        (b'"output":"\xed\xa0\x80"', "utf-8"),
        (b'"output":"\\ud800"', "not a valid step-result"),
        (b'"output":NaN', "malformed"),
        (b'"output":' + DEEP, "nested more than 500 levels deep"),
        (b'"output":' + b"[" * 50_000, "nested more than 500 levels deep"),
        (b'"startedAt":' + b"9" * 5_000, "out of range"),
        (b'"startedAt":1e400', "range"),
        (b'"status":"' + b"x" * 1_000_000 + b'"', "(1,000,0"),
        (b'"output":"cut off', "truncated"),
    ],
    ids=lambda value: value[:24].decode(errors="replace") if isinstance(value, bytes) else "",
)
async def test_a_result_that_cannot_be_read_fails_the_step_that_it_names(
    names: Names, store: Store, transport: MemoryTransport, spoiled: bytes, reason: str
) -> None:
    worker = ScriptedWorker(transport, names, workflows={"w": sequence("s")})
    async with operating(store, transport, names) as operator, worker.serving():
        await transport.declare([names.tasks("s")])
        run_id = await operator.start("w", UNSET)
        await eventually(lambda: transport.depth(names.tasks("s")) == 1)
        named = f'"runId":"{run_id}","seq":0,"stepId":"{run_id}:0","status":"completed",'
        body = b"{" + named.encode() + spoiled + b"}"
        await transport.send(
            names.results, Envelope(MessageType.STEP_RESULT, body, f"{run_id}:0:1")
        )
        (letter,) = await letters_of(store, 1)

        async def has_failed() -> bool:
            (entry, *_) = (await operator.detail(run_id)).timeline
            return entry.error is not None and entry.error.code == "poison"

        await eventually(has_failed)
    assert letter.body == body
    assert reason in letter.reason
    assert len(letter.reason) < 1_000


async def test_a_type_that_belongs_elsewhere_is_refused(
    names: Names, store: Store, transport: MemoryTransport
) -> None:
    async with operating(store, transport, names):
        await transport.declare([names.results])
        await transport.send(names.results, start("r"))
        (letter,) = await letters_of(store, 1)
        assert await store.load("r") is None
    assert "its type does not belong here" in letter.reason


class Narrow(MemoryTransport):
    """Once told so, takes nothing more that is as large as what it has delivered."""

    limit = 2**40

    async def send(self, queue: str, envelope: Envelope) -> None:
        if len(envelope.body) > self.limit:
            raise PayloadTooLargeError(size=len(envelope.body), limit=self.limit, queue=queue)
        await super().send(queue, envelope)


async def test_a_letter_that_the_dead_queue_does_not_take_is_kept_all_the_same(
    names: Names, store: Store
) -> None:
    async with Narrow(names=names) as transport, operating(store, transport, names):
        await transport.declare([names.results])
        await transport.send(names.results, Envelope(MessageType.STEP_RESULT, b"[" * 1_000))
        transport.limit = 100
        (letter,) = await letters_of(store, 1)
        await eventually(lambda: transport.depth(names.results) == 0)
    assert letter.body == b"[" * 1_000


async def test_many_bad_messages_are_all_kept_and_said_in_few_lines(
    names: Names, store: Store, transport: MemoryTransport
) -> None:
    count = 2_000
    with capture_logs() as lines:
        async with operating(store, transport, names):
            await transport.declare([names.results])
            for number in range(count):
                bad = Envelope(MessageType.STEP_RESULT, b"{", f"m{number}")
                await transport.send(names.results, bad)
            letters = await letters_of(store, count)
    assert {each.message_id for each in letters} == {f"m{number}" for number in range(count)}
    told = [each for each in lines if each["event"] == "message_malformed"]
    assert len(told) == TOLD_AT_ONCE
    (rest,) = [each for each in lines if each["event"] == "messages_malformed"]
    assert (rest["queue"], rest["count"]) == (names.results, count - TOLD_AT_ONCE)


async def test_a_task_that_a_peer_buried_with_a_long_story_is_kept(
    names: Names, store: Store, transport: MemoryTransport
) -> None:
    async with operating(store, transport, names):
        await transport.declare([names.dead])
        story = {ERROR_HEADER: "y" * 100_000}
        await transport.send(names.dead, Envelope("x", b"1", headers=story))
        (letter,) = await letters_of(store, 1)
    assert letter.reason.startswith("yyy")
    assert len(letter.reason) < 2_000


async def test_one_step_beside_another_goes_on_when_a_result_is_bad(
    names: Names, store: Store, transport: MemoryTransport
) -> None:
    worker = ScriptedWorker(
        transport,
        names,
        workflows={
            "w": lambda task: (
                complete(task, len(task.history))
                if len(task.history) == 2
                else proceed(task, call(0, "bad"), call(1, "s"))
            )
        },
        steps={"s": answer},
    )
    async with operating(store, transport, names) as operator, worker.serving():
        run_id = await operator.start("w", UNSET)
        body = f'{{"runId":"{run_id}","seq":0,"status":[]}}'.encode()
        await eventually(lambda: transport.depth(names.tasks("bad")) == 1)
        await transport.send(names.results, Envelope(MessageType.STEP_RESULT, body))
        run = await operator.wait(run_id)
    assert (run.status, run.output) == (RunStatus.COMPLETED, Raw(b"2"))
