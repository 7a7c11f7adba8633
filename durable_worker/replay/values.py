"""Values that a body decides once, and finds again on every replay."""

import uuid as uuids
from collections.abc import Callable
from datetime import UTC, datetime
from random import Random
from typing import Any, TypeVar, overload

from durable_worker.errors import RegistrationError
from durable_worker.protocol.names import patch_name, published_value
from durable_worker.protocol.payload import decoder_for, encode_payload
from durable_worker.protocol.tasks import WorkflowTask
from durable_worker.replay.arguments import checked_name
from durable_worker.replay.base import ContextBase
from durable_worker.replay.definitions import Directory
from durable_worker.replay.failures import side_effect_error
from durable_worker.replay.operations import SIDE_EFFECT
from durable_worker.replay.turn import Replay

T = TypeVar("T")


class Values(ContextBase):
    def __init__(
        self,
        replay: Replay,
        task: WorkflowTask,
        directory: Directory,
        *,
        partition: str | None = None,
    ) -> None:
        super().__init__(replay, task, directory, partition=partition)
        self._random: Random | None = None
        self._patches: dict[str, bool] = {}

    def now(self) -> datetime:
        """The time (UTC) at which the body got here first."""
        now_ms = self._replay.now_ms
        name = f"now#{self._journal.next_seq}"
        event = self._replay.record(name, lambda: encode_payload(now_ms, what="the time"))
        recorded = decoder_for(int).decode(event.output, what="the recorded time")
        return datetime.fromtimestamp(recorded / 1000, UTC)

    @property
    def random(self) -> Random:
        """A generator seeded by the run id: the same numbers on every replay, and others once the
        run was continued as new."""
        if self._random is None:
            first = self._replay.first_seq
            self._random = Random(f"{self.run_id}:{first}" if first else self.run_id)
        return self._random

    def uuid(self) -> uuids.UUID:
        """A random (version 4) UUID, the same on every replay."""
        return uuids.UUID(int=self.random.getrandbits(128), version=4)

    @overload
    def side_effect(self, produce: Callable[[], T], /, *, returns: type[T]) -> T: ...
    @overload
    def side_effect(self, produce: Callable[[], T], /) -> T: ...
    def side_effect(self, produce: Callable[[], Any], /, *, returns: Any = None) -> Any:
        """Call `produce` once, record what it returns, and return the recorded value ever after.

        For short synchronous reads of the outside world (a setting, a feature flag). The value goes
        through JSON also the first time; `returns` says what to read it as.

        What `produce` raises is recorded, too: a body gets the same `SideEffectFailedError`, the
        first time and on every replay.
        """
        event = self._replay.record(
            SIDE_EFFECT, lambda: encode_payload(produce(), what="the value of a side effect")
        )
        if event.error is not None:
            raise side_effect_error(event, getattr(produce, "__qualname__", SIDE_EFFECT))
        return decoder_for(returns).decode(event.output, what="the value of a side effect")

    def set_event(self, key: str, value: object) -> None:
        """Publish a value of this run for others to read (NestJS: `engine.getEvent(run_id, key)`).

        Recorded once; the last call for a key counts. Raises `PayloadError` for what has no JSON.
        """
        if self._replay.waiting.queries.holds(checked_name(key, "published value")):
            raise RegistrationError(f"{key!r} is a query of this body, whose handler answers it")
        name = published_value(key)
        payload = encode_payload(value, what=f"the published value {key!r}")
        self._replay.record(name, lambda: payload)

    def on_query(self, name: str, handler: Callable[[], object]) -> None:
        """Let clients ask for what `handler` returns: `client.query(run_id, name)`.

        `handler` is called whenever the body comes to rest and when it ends, and its answer
        recorded where it has changed: so it is there without a worker, too. It may only look at
        what the body has; what it raises is the answer. Published under the key `name`, as by
        `set_event`. Raises `RegistrationError` for a second handler of one name.
        """
        self._replay.waiting.queries.add(checked_name(name, "query"), handler)

    def patched(self, id: str) -> bool:
        """Whether this run takes the new way of a body that was changed under the same version.

        True in runs that have not come here yet, and ever after in those; False in runs that came
        here on the old code, and in doubt (protocol/README.md, "Patches"), so also in some new
        runs: to remove the old way, register a new version. One answer for each id and run: give
        each change an id of its own.
        """
        name = patch_name(checked_name(id, "patch"))
        if name not in self._patches:
            self._patches[name] = self._replay.patched(name)
        return self._patches[name]
