"""Histories that grow: each turn of a run comes with all of it, and most of that was read before.

What was read is compared as bytes and not read again. Where two turns have the same bytes from
behind their `runId` to the end of an event, a reader of JSON has found the same there in both; so
what is left to read is the rest. Any turn that is written in another way is read as a whole.

A turn with `since` says itself what is new (protocol/README.md, "History deltas").
"""

import re
from collections import OrderedDict

import msgspec
from msgspec import Raw, UnsetType
from msgspec.structs import replace

from durable_worker.errors import ProtocolError
from durable_worker.protocol.base import Message, Payload
from durable_worker.protocol.codec import WORKFLOW_TASK, MessageType, decode_task
from durable_worker.protocol.payload_envelope import MARK
from durable_worker.protocol.tasks import HistoryEvent, StepTask, WorkflowTask

KEPT_BYTES = 128 * 1024 * 1024
"""What the histories that are kept may take, roughly."""

_EVENT_BYTES = 250
_OBJECT = ord("{")

_TEXT = rb'"[^"\\\x00-\x1f]*"'
_NAME = rb'"([^"\\\x00-\x1f]+)"'
_address = re.compile(rb'\{"taskId":' + _NAME + rb',"runId":' + _NAME).match
_names = re.compile(rb',"workflow":' + _TEXT + rb',"workflowVersion":' + _TEXT).match
_INPUT, _HISTORY = b',"input":', b',"history":'
_SINCE = b',"since":'
# A key that comes a second time replaces the first, and an escape may hide it.
_may_repeat = re.compile(rb'\\|"history"|"input"|"taskId"|"runId"').search


class History(list[HistoryEvent]):
    """A history as it was read; when the next turn is read it grows in place. Copy it to keep it.

    It is in ascending order of seq, but for what turns with `since` have added. `task_id` is the
    turn that was read last. `may_hold_envelopes`: whether the turns that it came with can hold a
    payload in an envelope.
    """

    __slots__ = (
        "_body",
        "_is_in_parts",
        "_latest",
        "_names",
        "_tail",
        "_text",
        "may_hold_envelopes",
        "size",
        "task_id",
    )

    def __init__(self, task: WorkflowTask, body: bytes) -> None:
        super().__init__(task.history)
        self.may_hold_envelopes = MARK in body
        self.task_id = task.task_id
        self.size = 2 * len(body) + _EVENT_BYTES * len(self)
        # The turn that was read last, and what follows its events.
        self._latest = task
        self._tail = b""
        # The bytes from behind `runId` to the end of the last event, in pieces; until they are
        # wanted, the turn itself. `_names` is how they begin.
        self._text: list[bytes] = []
        self._names = b""
        self._body = body
        self._is_in_parts = False

    def add(self, task: WorkflowTask, body: bytes) -> WorkflowTask:
        """The whole of a turn that tells what is new since the latest one."""
        if not self._is_in_parts:
            self._is_in_parts = True
            self._latest = replace(self._latest, history=[])
            self._text, self._tail, self._body = [], b"", b""
        self.task_id = task.task_id
        self.may_hold_envelopes = self.may_hold_envelopes or MARK in body
        self.size += len(body) + _EVENT_BYTES * len(task.history)
        self += task.history
        return replace(task, input=self._latest.input, history=self, since=None)

    def go_on(self, body: bytes, address: re.Match[bytes]) -> WorkflowTask | None:
        """Read a turn that begins with `address`; None if it does not go on from this."""
        if self._is_in_parts or (self._body and not self._find_text()):
            return None
        start = end = address.end()
        for piece in self._text:
            if not body.startswith(piece, end):
                return None
            end += len(piece)
        rest = body[end:]
        if self and rest.startswith(b",{"):
            rest = rest[1:]
        elif not rest.startswith((b"]",) if self else (b"]", b"{")):
            return None
        task = self._alike(rest, address)
        if task is not None:
            _add(self._text, body[end : len(body) - len(self._tail)])
            self.task_id = task.task_id
            self.size = 2 * len(body) + _EVENT_BYTES * len(self)
            return task
        rest_of_it = body[:start] + self._names + _HISTORY + b"[" + rest
        try:
            task = WORKFLOW_TASK.decode(rest_of_it)
            added = _parts.decode(rest_of_it).history
        except (ProtocolError, msgspec.MsgspecError, RecursionError):
            return None  # whoever reads it as a whole says what is wrong
        if task.since is not None or not _is_whole(added, rest, at=-1):
            return None
        self._latest = replace(task, input=self._latest.input, history=[])
        self._tail = rest[len(added) - 2 :]
        if task.history:
            self += task.history
            _add(self._text, body[end : len(body) - len(self._tail)])
        self.may_hold_envelopes = self.may_hold_envelopes or MARK in rest
        self.task_id = task.task_id
        self.size = 2 * len(body) + _EVENT_BYTES * len(self)
        return replace(self._latest, history=self)

    def _alike(self, rest: bytes, address: re.Match[bytes]) -> WorkflowTask | None:
        """A turn that differs from the latest in its id, and in that more has happened."""
        if not rest.endswith(self._tail) or rest[0] != _OBJECT:
            return None
        added = b"[%b]" % rest[: len(rest) - len(self._tail)]
        try:
            if not added.isascii():
                added.decode()
            events = _events.decode(added)
            task_id, run_id = address[1].decode(), address[2].decode()
            task = replace(self._latest, task_id=task_id, run_id=run_id, history=self)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        self += events
        self.may_hold_envelopes = self.may_hold_envelopes or MARK in added
        return task

    def _find_text(self) -> bool:
        """Whether the turn is written as expected, so that another may go on from it."""
        body, self._body = self._body, b""
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
        end = at + len(parts.history) - 1
        self._names = names[0]
        self._text = [body[address.end() : end]]
        self._tail = body[end:]
        self._latest = replace(self._latest, history=[])
        return True


class _Parts(Message, frozen=True, kw_only=True):
    """The parts of a turn that are looked for in its bytes."""

    input: Payload = msgspec.UNSET
    history: Raw


_parts = msgspec.json.Decoder(_Parts)
_events = msgspec.json.Decoder(list[HistoryEvent])


class TurnReader:
    """Reads turns. What it has read of the latest `limit` runs is kept from `keep` to `read`."""

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[str, History] = OrderedDict()
        self._bytes = 0

    @property
    def kept_bytes(self) -> int:
        return self._bytes

    def read(self, body: bytes) -> WorkflowTask:
        """What `WORKFLOW_TASK.decode` reads. Raises `ProtocolError` like that.

        A turn with `since` comes out as the whole turn, without `since`; as it is, if what it adds
        to is not kept here.
        """
        address = _address(body) if self._limit else None
        if address is not None and not body.startswith(_SINCE, address.end()):
            run_id = address[2].decode("utf-8", "replace")
            history = self._take(run_id)
            task = None if history is None else history.go_on(body, address)
            if task is not None:
                return task
            task = WORKFLOW_TASK.decode(body)
            if task.since is None:
                return replace(task, history=History(task, body))
            if history is not None:
                self._put(run_id, history)
        else:
            task = WORKFLOW_TASK.decode(body)
        return task if task.since is None else self._completed(task, body)

    def _completed(self, task: WorkflowTask, body: bytes) -> WorkflowTask:
        history = self._kept.get(task.run_id)
        if history is None or history.task_id != task.since:
            return task
        self._take(task.run_id)
        return history.add(task, body)

    def task_in(self, body: bytes, *, message_type: str | None) -> StepTask | WorkflowTask:
        """What `decode_task` reads. Raises `ProtocolError` like that."""
        if message_type == MessageType.WORKFLOW_TASK:
            return self.read(body)
        return decode_task(body, message_type=message_type)

    def keep(self, task: WorkflowTask) -> None:
        """The next turn may go on from this one, which nobody works on any more."""
        history, run_id = task.history, task.run_id
        if isinstance(history, History):
            self._put(run_id, history)

    def _put(self, run_id: str, history: History) -> None:
        self._take(run_id)
        self._kept[run_id] = history
        self._bytes += history.size
        while len(self._kept) > self._limit or self._bytes > KEPT_BYTES:
            self._take(next(iter(self._kept)))

    def _take(self, run_id: str) -> History | None:
        history = self._kept.pop(run_id, None)
        if history is not None:
            self._bytes -= history.size
        return history


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


def _add(text: list[bytes], piece: bytes) -> None:
    """Few pieces, and no byte is copied more often than there are doublings."""
    text.append(piece)
    while len(text) > 1 and len(text[-2]) < 2 * len(text[-1]):
        last = text.pop()
        text[-1] += last
