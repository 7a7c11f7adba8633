"""Who wants to hear of which run."""

from collections.abc import Callable, Iterable

from durable_worker.protocol.control import EngineEvent

Notice = Callable[[EngineEvent], None]


class Followers:
    def __init__(self) -> None:
        self._by_run: dict[str, list[Notice]] = {}

    def add(self, run_id: str, notice: Notice) -> Callable[[], None]:
        """Returns what ends it; harmless if it is called again."""
        self._by_run.setdefault(run_id, []).append(notice)

        def end() -> None:
            mine = self._by_run.get(run_id, [])
            if notice in mine:
                mine.remove(notice)
            if not mine:
                self._by_run.pop(run_id, None)

        return end

    def tell(self, events: Iterable[EngineEvent]) -> None:
        if not self._by_run:
            return
        for event in events:
            for notice in tuple(self._by_run.get(event.run_id, ())):
                notice(event)
