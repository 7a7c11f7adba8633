"""Ask the operator whether a step that comes a second time has been recorded already.

A worker that dies after its result was confirmed and before it acknowledged the task makes the
broker deliver the task again, to a process that has never seen it. Running it would repeat a
completed step. One question to the operator, asked only for such deliveries, prevents that.
"""

from datetime import timedelta

import anyio
import msgspec
import structlog

from durable_worker.clock import Chance
from durable_worker.errors import ProtocolError, TransportError
from durable_worker.protocol import codec
from durable_worker.protocol.codec import MessageType, encode
from durable_worker.protocol.names import DEFAULT_NAMESPACE, Names
from durable_worker.protocol.runs import GetRunDetail, RunReply, RunRequest, RunStatus
from durable_worker.protocol.tasks import StepTask
from durable_worker.transports.base import Envelope, Subscription, Transport

log = structlog.get_logger("durable_worker.worker")

ANSWER_WITHIN = timedelta(seconds=15)
"""How long an operator may be away before the step is run all the same."""
SECOND_LOOK_AFTER = timedelta(milliseconds=500)
"""A result that was confirmed may still be on its way into the operator's database."""
OPEN = ("pending", "running")


class RecordedSteps:
    def __init__(self, transport: Transport, names: Names, *, chance: Chance) -> None:
        self._transport = transport
        self._names = names
        self._chance = chance
        self._replies: dict[str, tuple[anyio.Event, list[RunReply]]] = {}
        self._subscription: Subscription | None = None
        self._lock = anyio.Lock()

    async def holds(self, task: StepTask) -> bool:
        """Whether the operator waits for no result of this attempt; False if none answers."""
        for look in range(2):
            if look:
                await anyio.sleep(SECOND_LOOK_AFTER.total_seconds())
            detail = await self._detail_from_any(task)
            if detail is None:
                return False
            if _is_settled(detail, task):
                log.info("repeated_step_skipped", run_id=task.run_id, step=task.name)
                return True
        return False

    async def _detail_from_any(self, task: StepTask) -> "_Detail | None":
        for tenant in self._tenants(task):
            reply = await self._ask(tenant, task.run_id)
            if reply is None:
                return None
            if reply.result.ok:
                return read_detail(reply, task.run_id)
        return None

    def _tenants(self, task: StepTask) -> list[str]:
        """Operators that keep tenants apart by partition own a run of theirs by that name."""
        _, _, partition = task.group.partition("@")
        own = self._names.namespace or DEFAULT_NAMESPACE
        return [partition, own] if partition and partition != own else [own]

    async def _ask(self, tenant: str, run_id: str) -> RunReply | None:
        await self._listen()
        request_id = self._chance.new_id().hex
        arrived, replies = self._replies.setdefault(request_id, (anyio.Event(), []))
        request = RunRequest(
            request_id=request_id,
            tenant=tenant,
            body=GetRunDetail(run_id=run_id),
        )
        try:
            with anyio.move_on_after(ANSWER_WITHIN.total_seconds()):
                await self._transport.declare([self._names.run_request])
                await self._transport.send(
                    self._names.run_request,
                    Envelope(MessageType.RUN_REQUEST, encode(request), request_id),
                )
                await arrived.wait()
        except TransportError as error:
            log.warning("operator_not_asked", run_id=run_id, reason=str(error))
        finally:
            del self._replies[request_id]
        return replies[0] if replies else None

    async def _listen(self) -> None:
        async with self._lock:
            if self._subscription is None:
                self._subscription = await self._transport.listen(
                    self._names.run_reply, self._on_reply
                )

    def _on_reply(self, envelope: Envelope) -> None:
        if envelope.message_id is not None and envelope.message_id not in self._replies:
            return
        try:
            reply = codec.RUN_REPLY.decode(envelope.body)
        except ProtocolError:
            return
        waiting = self._replies.get(reply.request_id)
        if waiting is not None:
            waiting[1].append(reply)
            waiting[0].set()


class _Entry(msgspec.Struct, rename="camel"):
    """What is needed of a timeline entry; operators differ in the rest."""

    seq: int
    status: str
    attempts: int = 1


class _Run(msgspec.Struct, rename="camel"):
    status: str


class _Detail(msgspec.Struct, rename="camel"):
    run: _Run
    timeline: list[_Entry]


_decoder = msgspec.json.Decoder(_Detail)
_TERMINAL = frozenset(status.value for status in RunStatus if status.is_terminal)


def read_detail(reply: RunReply, run_id: str) -> _Detail | None:
    try:
        data = reply.result.data
        return None if isinstance(data, msgspec.UnsetType) else _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        log.warning("operator_answer_ignored", run_id=run_id, reason=str(error))
        return None


def _is_settled(detail: _Detail, task: StepTask) -> bool:
    if detail.run.status in _TERMINAL:
        return True
    entries = [entry for entry in detail.timeline if entry.seq == task.seq]
    return any(e.status not in OPEN or e.attempts > task.attempt for e in entries)
