"""How signatures are introduced and rotated, and what becomes of messages on their way."""

import asyncio
from itertools import pairwise
from typing import Any, Self

import pytest
import structlog

from durable_worker.errors import PayloadTooLargeError
from durable_worker.protocol.codec import CONTROL, MessageType, encode
from durable_worker.protocol.control import CancelRun
from durable_worker.protocol.keys import Keyring
from durable_worker.protocol.names import Names
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.signatures import Flaw
from durable_worker.stores.memory import MemoryStore
from durable_worker.transports.base import (
    ERROR_HEADER,
    Delivery,
    Envelope,
    Transport,
)
from durable_worker.transports.memory import MemoryTransport
from durable_worker.transports.signing import SigningMode, SigningTransport
from tests.conformance.transports.inbox import Inbox
from tests.integration.operator.conftest import NewTransport, transport_of
from tests.integration.operator.scripted import ScriptedWorker, answer, json, operating, sequence
from tests.integration.operator.waiting import eventually

pytestmark = pytest.mark.anyio

RING = Keyring({"k1": bytes(range(32))})
OTHERS = Keyring({"k1": bytes(32)})


@pytest.fixture
def names(prefix: str) -> Names:
    return Names(prefix=prefix)


async def test_a_broadcast_that_was_caught_is_heard_under_no_other_topic_and_exchange(
    new_transport: NewTransport, names: Names
) -> None:
    events, replies = names.tenant_events, names.tenant_replies
    caught, heard, mine = Inbox[Envelope](), Inbox[Envelope](), Inbox[Envelope]()
    receiver = SigningTransport(transport_of(new_transport()), RING, names=names)
    sender = SigningTransport(transport_of(new_transport()), RING, names=names)
    async with receiver, sender, new_transport() as intruder:
        for each in (receiver, sender, intruder):
            await each.wait_connected()
        await intruder.listen(events, caught, topic="acme")
        await receiver.listen(events, heard, topic="umbrella")
        await receiver.listen(replies, heard, topic="acme")
        await receiver.listen(events, mine, topic="acme")
        sent = Envelope(MessageType.TENANT_EVENT, b"{}", "e1")
        await sender.broadcast(events, sent, topic="acme")
        stolen = await caught.next()
        await intruder.broadcast(events, stolen, topic="umbrella")
        await intruder.broadcast(replies, stolen, topic="acme")
        await eventually(
            lambda: receiver.refused == {(events, Flaw.ELSEWHERE): 1, (replies, Flaw.ELSEWHERE): 1}
        )
        assert await mine.next() == sent
    assert len(heard) == 0


async def test_keys_are_rotated_and_signatures_introduced_one_process_at_a_time(
    new_transport: NewTransport, names: Names
) -> None:
    """At each moment one half of the fleet is a stage ahead of the other."""
    old, new = bytes(range(32)), bytes(range(1, 33))
    sign, require = SigningMode.SIGN, SigningMode.REQUIRE
    stages = [
        None,
        (Keyring({"old": old}), sign),
        (Keyring({"old": old}), require),
        (Keyring({"old": old, "new": new}, current="old"), require),
        (Keyring({"old": old, "new": new}, current="new"), require),
        (Keyring({"new": new}), require),
    ]

    def staged(stage: tuple[Keyring, SigningMode] | None) -> Transport:
        inner = transport_of(new_transport())
        if stage is None:
            return inner
        return SigningTransport(inner, stage[0], names=names, mode=stage[1])

    for before, after in pairwise(stages):
        for at_operator, at_worker in ((before, after), (after, before)):
            async with (
                MemoryStore() as store,
                staged(at_operator) as one,
                staged(at_worker) as two,
            ):
                worker = ScriptedWorker(
                    two, names, {"seq": sequence("pay")}, {"pay": lambda task: answer(task, 7)}
                )
                async with operating(store, one, names) as operator, worker.serving():
                    await operator.start("seq", json(None), run_id="r")
                    assert (await operator.wait("r")).status is RunStatus.COMPLETED


async def test_where_signatures_are_not_required_yet_their_lack_is_told_of(
    new_transport: NewTransport, names: Names
) -> None:
    transport = SigningTransport(
        transport_of(new_transport()), RING, names=names, mode=SigningMode.SIGN
    )
    heard = Inbox[Envelope]()
    async with transport, new_transport() as stranger:
        await transport.wait_connected()
        await transport.listen(names.control, heard)
        with structlog.testing.capture_logs() as lines:
            cancel = Envelope(MessageType.CONTROL, encode(CancelRun(run_id="r")))
            await stranger.wait_connected()
            await stranger.broadcast(names.control, cancel)
            assert CONTROL.decode((await heard.next()).body) == CancelRun(run_id="r")
    assert [each["event"] for each in lines if "signature" in each["event"]] == [
        "signature_not_required_yet"
    ]


async def test_a_step_that_is_never_answered_fails_as_poison_though_the_broker_moved_it(
    new_transport: NewTransport, names: Names
) -> None:
    """Moved by the broker, it still has the signature of its queue."""
    async with (
        MemoryStore() as store,
        SigningTransport(transport_of(new_transport()), RING, names=names) as one,
        SigningTransport(transport_of(new_transport()), RING, names=names) as two,
    ):
        worker = ScriptedWorker(two, names, {"seq": sequence("killer")})
        async with operating(store, one, names) as operator, worker.serving():
            tasks = Inbox[Delivery]()
            await two.consume([names.tasks("killer")], tasks, prefetch=1)
            await operator.start("seq", json(None), run_id="r")

            async def give_back() -> None:
                while True:
                    await (await tasks.next(within=30)).release()

            giving = asyncio.ensure_future(give_back())

            async def is_poison() -> bool:
                detail = await operator.detail("r")
                errors = [each.error for each in detail.timeline if each.error]
                return any(each.code == "poison" for each in errors)

            await eventually(is_poison, within=30)
            giving.cancel()
            await asyncio.wait([giving])
        assert one.refused == {}


class Narrow:
    """A process with a limit of its own at a broker that has a higher one."""

    is_durable = False

    def __init__(self, broker: MemoryTransport) -> None:
        self._broker = broker

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    async def __aenter__(self) -> Self:
        await self._broker.__aenter__()
        return self

    async def __aexit__(self, *how: Any) -> None:
        await self._broker.__aexit__(*how)

    async def send(self, queue: str, envelope: Envelope) -> None:
        if len(envelope.body) > 70_000:
            raise PayloadTooLargeError(size=len(envelope.body), limit=70_000, queue=queue)
        await self._broker.send(queue, envelope)


async def test_a_message_too_large_to_be_passed_on_is_cut_and_holds_up_no_other(
    names: Names,
) -> None:
    async with (
        MemoryTransport(names=names) as broker,
        SigningTransport(Narrow(broker), RING, names=names) as transport,
    ):
        letters, results = Inbox[Delivery](), Inbox[Delivery]()
        await transport.consume([names.dead], letters, prefetch=10)
        await transport.consume([names.results], results, prefetch=10)
        large = Envelope(MessageType.STEP_RESULT, b"x" * 80_000, "large")
        await broker.send(names.results, large)
        letter = (await letters.next()).envelope
        assert (letter.body, letter.message_id) == (b"x" * 1_000, "large")
        assert "the first 1,000 of 80,000 bytes are kept" in letter.headers[ERROR_HEADER]
        await transport.send(names.results, Envelope(MessageType.STEP_RESULT, b"{}", "good"))
        assert (await results.next()).envelope.message_id == "good"
