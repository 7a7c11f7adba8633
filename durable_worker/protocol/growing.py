"""Histories that grow: each turn of a run comes with all of it, and most of that was read before.

What was read is compared as bytes and not read again. Where two turns have the same bytes from
behind their `runId` to the end of an event, a reader of JSON has found the same there in both; so
what is left to read is the rest. Any turn that is written in another way is read as a whole.
"""

import re
from collections import OrderedDict
from collections.abc import Iterable

import msgspec
from msgspec import Raw, Struct, UnsetType

from durable_worker.errors import ProtocolError
from durable_worker.protocol.base import Message, Payload
from durable_worker.protocol.codec import WORKFLOW_TASK
from durable_worker.protocol.payload_envelope import MARK
from durable_worker.protocol.tasks import HistoryEvent, WorkflowTask

KEPT_BYTES = 128 * 1024 * 1024
"""What the histories that are kept may take, roughly."""

_EVENT_BYTES = 250

_TEXT = rb'"[^"\\\x00-\x1f]*"'
_address = re.compile(rb'\{"taskId":' + _TEXT + rb',"runId":"([^"\\\x00-\x1f]+)"').match
_names = re.compile(rb',"workflow":' + _TEXT + rb',"workflowVersion":' + _TEXT).match
_INPUT, _HISTORY = b',"input":', b',"history":'
# A key that comes a second time replaces the first, and an escape may hide it.
_may_repeat = re.compile(rb'\\|"history"|"input"').search


class History(list[HistoryEvent]):
    """A history as it was read. `mark` stands for it; it is compared by identity.

    Its first `known` events are the very ones of the history whose mark is `earlier`.
    `may_hold_envelopes`: whether the turn that it came with can hold a payload in an envelope.
    """

    __slots__ = ("earlier", "known", "mark", "may_hold_envelopes")

    def __init__(
        self,
        events: Iterable[HistoryEvent],
        *,
        may_hold_envelopes: bool,
        known: int = 0,
        earlier: object = None,
    ) -> None:
        super().__init__(events)
        self.mark = object()
        self.known = known
        self.earlier = earlier
        self.may_hold_envelopes = may_hold_envelopes


class _Parts(Message, frozen=True, kw_only=True):
    """The parts of a turn that are looked for in its bytes."""

    input: Payload = msgspec.UNSET
    history: Raw


class _Known(Struct):
    """What was read of a run last.

    `text` is the bytes from behind `runId` to the end of the last event, in pieces; until it is
    wanted, `body` is the turn. `names` is how it begins.
    """

    history: History
    input: Payload
    size: int
    body: bytes = b""
    names: bytes = b""
    text: list[bytes] = []


_parts = msgspec.json.Decoder(_Parts)


class TurnReader:
    """Reads turns, and keeps what it has read of the latest `limit` runs."""

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._bytes = 0

    @property
    def kept_bytes(self) -> int:
        return self._bytes

    def read(self, body: bytes) -> WorkflowTask:
        """What `WORKFLOW_TASK.decode` reads. Raises `ProtocolError` like that."""
        address = _address(body) if self._limit else None
        if address is None:
            return WORKFLOW_TASK.decode(body)
        run_id, start = address[1], address.end()
        known = self._take(run_id)
        task = None if known is None else _read_on(known, body, start)
        if task is None or known is None:
            task = WORKFLOW_TASK.decode(body)
            history = History(task.history, may_hold_envelopes=MARK in body)
            task = _with(task, input=task.input, history=history)
            known = _Known(history, task.input, 0, body)
        if task.run_id.encode() == run_id:
            self._keep(run_id, known, 2 * len(body) + _EVENT_BYTES * len(task.history))
        return task

    def forget(self, run_id: str) -> None:
        """The run has ended."""
        self._take(run_id.encode())

    def _take(self, run_id: bytes) -> _Known | None:
        known = self._known.pop(run_id, None)
        if known is not None:
            self._bytes -= known.size
        return known

    def _keep(self, run_id: bytes, known: _Known, size: int) -> None:
        known.size = size
        self._bytes += size
        self._known[run_id] = known
        while len(self._known) > self._limit or self._bytes > KEPT_BYTES:
            self._take(next(iter(self._known)))


def _read_on(known: _Known, body: bytes, start: int) -> WorkflowTask | None:
    """The turn, if it goes on from what is known, which is then brought up to date."""
    if known.body and not _find_text(known):
        return None
    end = start
    for piece in known.text:
        if not body.startswith(piece, end):
            return None
        end += len(piece)
    before = known.history
    rest = body[end:]
    if before and rest.startswith(b",{"):
        rest = rest[1:]
    elif not rest.startswith((b"]",) if before else (b"]", b"{")):
        return None
    beginning = body[:start] + known.names + _HISTORY + b"["
    try:
        task = WORKFLOW_TASK.decode(beginning + rest)
        added = _parts.decode(beginning + rest).history
    except (ProtocolError, msgspec.MsgspecError, RecursionError):
        return None  # whoever reads it as a whole says what is wrong
    if not _is_whole(added, rest, at=-1):
        return None
    history = History(
        before,
        may_hold_envelopes=before.may_hold_envelopes or MARK in rest,
        known=len(before),
        earlier=before.mark,
    )
    history += task.history
    if task.history:
        _add(known.text, body[end : len(body) - len(rest) + len(added) - 2])
    known.history = history
    return _with(task, input=known.input, history=history)


def _is_whole(history: Raw, rest: bytes, *, at: int) -> bool:
    """Whether the array `history`, which begins at `at` of `rest`, is all that `rest` says of it.

    At -1 its bracket is not in `rest`.
    """
    text = bytes(history)
    if not text.startswith(b"[") or not text.endswith(b"]"):
        return False
    there = text if at >= 0 else text[1:]
    begin = max(at, 0)
    return rest.startswith(there, begin) and _may_repeat(rest, begin + len(there)) is None


def _find_text(known: _Known) -> bool:
    """Whether the turn that is known is written as expected, so that another may go on from it."""
    body, known.body = known.body, b""
    address = _address(body)
    names = None if address is None else _names(body, address.end())
    if address is None or names is None:
        return False
    parts = _parts.decode(body)
    at = names.end()
    if body.startswith(_INPUT, at) and not isinstance(parts.input, UnsetType):
        value, at = bytes(parts.input), at + len(_INPUT)
        if not body.startswith(value, at):
            return False
        at += len(value)
    if not body.startswith(_HISTORY, at):
        return False
    at += len(_HISTORY)
    if not _is_whole(parts.history, body, at=at):
        return False
    known.names = names[0]
    known.text = [body[address.end() : at + len(parts.history) - 1]]
    return True


def _add(text: list[bytes], piece: bytes) -> None:
    """Few pieces, and no byte is copied more often than there are doublings."""
    text.append(piece)
    while len(text) > 1 and len(text[-2]) < 2 * len(text[-1]):
        last = text.pop()
        text[-1] += last


def _with(task: WorkflowTask, *, input: Payload, history: History) -> WorkflowTask:
    return msgspec.structs.replace(task, input=input, history=history)
