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
from durable_worker.errors import (
    LeaseLostError,
    ProtocolError,
    StoreError,
    StoreFullError,
    TenantTokenError,
    TransportError,
)
from durable_worker.protocol import codec
from durable_worker.protocol.base import TokenSource, token_headers
from durable_worker.protocol.codec import MessageType, encode
from durable_worker.protocol.names import CONTINUED_MARKER, DEFAULT_NAMESPACE, Names
from durable_worker.protocol.runs import GetRunDetail, RunReply, RunRequest, RunStatus
from durable_worker.protocol.tasks import StepTask
from durable_worker.transports.base import Envelope, Subscription, Transport

log = structlog.get_logger("durable_worker.worker")

ANSWER_WITHIN = timedelta(seconds=15)
"""How long an operator may be away before the step is run all the same."""
REPLY_LOST_AFTER = timedelta(seconds=4)
"""A reply is a broadcast: it can be lost, and whoever should send it can die."""
ASK_AGAIN_AFTER = timedelta(milliseconds=500)
SECOND_LOOK_AFTER = timedelta(milliseconds=500)
"""A result that was confirmed may still be on its way into the operator's database."""
_PASSING = frozenset({StoreError.code, StoreFullError.code, LeaseLostError.code})
OPEN = ("pending", "running")


class RecordedSteps:
    """`token`: what an operator asks for that keeps tenants apart by tokens."""

    def __init__(
        self,
        transport: Transport,
        names: Names,
        *,
        chance: Chance,
        token: TokenSource | None = None,
    ) -> None:
        self._transport = transport
        self._names = names
        self._token = token
        self._is_refused = False
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
            self._note_refusal(reply)
        return None

    def _note_refusal(self, reply: RunReply) -> None:
        error = reply.result.error
        if error is None or error.code != TenantTokenError.code or self._is_refused:
            return
        self._is_refused = True
        log.warning(
            "operator_refused_question",
            reason=error.message,
            hint="as long as this worker may not ask whether a step was recorded, one that comes a "
            "second time runs a second time; `durable-worker token --worker` issues a token",
        )

    def _tenants(self, task: StepTask) -> list[str]:
        """Operators that keep tenants apart by partition own a run of theirs by that name."""
        _, _, partition = task.group.partition("@")
        own = self._names.namespace or DEFAULT_NAMESPACE
        return [partition, own] if partition and partition != own else [own]

    async def _ask(self, tenant: str, run_id: str) -> RunReply | None:
        """The reply of an operator that could look; None if there is none in time.

        A process that was stopped for a while has missed what came meanwhile, and may have lost its
        connection, and the task with it: it asks once more, however late it is.
        """
        heard: list[RunReply] = []
        now = anyio.current_time
        until, most = now() + ANSWER_WITHIN.total_seconds(), REPLY_LOST_AFTER.total_seconds()
        while True:
            began = now()
            patience = until - began if 0 < until - began < most else most
            with anyio.move_on_after(patience):
                await self._listen()
                await self._ask_once(tenant, run_id, heard)
            # One that came in the very moment in which the time ran out counts.
            reply = next(filter(_is_of_use, heard), None)
            if reply is not None:
                return reply
            pause = ASK_AGAIN_AFTER.total_seconds()
            if now() >= until and now() - began <= patience + pause:
                break
            await anyio.sleep(pause)
        log.warning("operator_not_asked", run_id=run_id, reason="no operator has answered")
        return None

    async def _ask_once(self, tenant: str, run_id: str, heard: list[RunReply]) -> None:
        """Return when there is a reply, or the question cannot be sent."""
        request_id = self._chance.new_id().hex
        arrived, _ = self._replies.setdefault(request_id, (anyio.Event(), heard))
        request = RunRequest(
            request_id=request_id,
            tenant=tenant,
            body=GetRunDetail(run_id=run_id),
        )
        try:
            await self._transport.declare([self._names.run_request])
            await self._transport.send(
                self._names.run_request,
                Envelope(
                    MessageType.RUN_REQUEST,
                    encode(request),
                    request_id,
                    headers=token_headers(self._token),
                ),
            )
            await arrived.wait()
        except TransportError as error:
            log.debug("operator_not_asked", run_id=run_id, reason=str(error))
        finally:
            del self._replies[request_id]

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
    name: str | None = None


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


def _is_of_use(reply: RunReply) -> bool:
    """False if the operator could not look just now."""
    error = reply.result.error
    return error is None or error.code not in _PASSING


def _is_settled(detail: _Detail, task: StepTask) -> bool:
    if detail.run.status in _TERMINAL:
        return True
    if any(each.name == CONTINUED_MARKER and each.seq > task.seq for each in detail.timeline):
        return True  # of an execution that has ended
    entries = [entry for entry in detail.timeline if entry.seq == task.seq]
    return any(e.status not in OPEN or e.attempts > task.attempt for e in entries)
