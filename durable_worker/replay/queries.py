"""Answers to questions about a run, kept in its history.

A query is answered by what its handler said when the body came to rest last, not by a worker that
is asked: so the answer is there when no worker is, after the end of the run, and on any operator
(protocol/README.md, "Composing a richer API", published values).
"""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from durable_worker.errors import RegistrationError
from durable_worker.protocol.base import Payload
from durable_worker.protocol.commands import RecordStep
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.names import published_value
from durable_worker.protocol.payload import encode_payload
from durable_worker.replay.failures import failure_of
from durable_worker.replay.journal import Journal, TurnAbortedError
from durable_worker.replay.operations import recorded_event, same_payload

Answer = tuple[Payload, str | None]


class Queries:
    """The queries of one body; `journal.markers` holds the names of their answers."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.handlers: dict[str, Callable[[], Any]] = {}
        self._known: dict[str, Answer] = {}

    def add(self, key: str, handler: Callable[[], Any]) -> None:
        """Raises `RegistrationError` for a second handler of `key`, or one that is `async`."""
        if inspect.iscoroutinefunction(handler):
            raise RegistrationError(f"the handler of query {key!r} is `async`; it has to answer")
        name = published_value(key)
        if name in self.handlers:
            raise RegistrationError(f"the query {key!r} has a handler already in this body")
        self.handlers[name] = handler
        self._journal.markers.add(name)

    def holds(self, key: str) -> bool:
        return published_value(key) in self.handlers

    def follow(self) -> bool:
        """Take the answer that is recorded at the next seq, if one is there."""
        journal = self._journal
        name = journal.marker()
        if name is None or name not in self.handlers:
            return False
        event = journal.events[journal.next_seq]
        self._known[name] = (event.output, _reason(event.error))
        journal.next_seq += 1
        return True

    def record(self) -> None:
        """Ask every handler, and record what differs from the answer that is recorded."""
        journal = self._journal
        for name, handler in self.handlers.items():
            output, error = self._ask(name, handler)
            known = self._known.get(name)
            if known is not None and known[1] == _reason(error) and same_payload(known[0], output):
                continue
            self._known[name] = (output, _reason(error))
            seq = journal.take_seq()
            record = RecordStep(seq=seq, name=name, output=output, error=error)
            journal.recorded.append(record)
            journal.assume([recorded_event(record)])

    def _ask(self, name: str, handler: Callable[[], Any]) -> tuple[Payload, Failure | None]:
        journal = self._journal
        journal.is_sealed = True  # a durable operation in a handler would be asked for late
        called = journal.mark_called()
        try:
            return encode_payload(handler(), what=f"the answer to query {name!r}"), None
        except TurnAbortedError:
            error = RegistrationError(
                f"the handler of query {name!r} calls a durable operation; it may only look at "
                f"what the body has"
            )
        except (Exception, asyncio.CancelledError) as raised:  # a question must not cost the run
            return encode_payload(None, what="no answer"), failure_of(raised)
        finally:
            journal.is_sealed = False
            journal.forget_called(since=called)
        return encode_payload(None, what="no answer"), failure_of(error)


def _reason(error: Failure | None) -> str | None:
    return None if error is None else error.message
