"""A logger for bodies: what was logged once is not logged again on replay."""

from collections.abc import Callable
from typing import Any, Protocol


class LogSink(Protocol):
    """What a structlog logger offers."""

    def debug(self, event: str, /, *args: Any, **fields: Any) -> Any: ...
    def info(self, event: str, /, *args: Any, **fields: Any) -> Any: ...
    def warning(self, event: str, /, *args: Any, **fields: Any) -> Any: ...
    def error(self, event: str, /, *args: Any, **fields: Any) -> Any: ...
    def critical(self, event: str, /, *args: Any, **fields: Any) -> Any: ...
    def exception(self, event: str, /, *args: Any, **fields: Any) -> Any: ...


class BodyLogger:
    """Logs like a bound structlog logger, and says nothing while the body is replayed.

    History does not tell everything: a line may be logged again if the worker lost the body and the
    turn that logged it left no trace. None is left out.
    """

    def __init__(
        self, sink: LogSink | None, is_silent: Callable[[], bool], fields: dict[str, Any]
    ) -> None:
        self._sink = sink
        self._is_silent = is_silent
        self._fields = fields

    def bind(self, **fields: Any) -> "BodyLogger":
        """A logger that adds these fields to each line."""
        return BodyLogger(self._sink, self._is_silent, {**self._fields, **fields})

    def unbind(self, *names: str) -> "BodyLogger":
        """A logger without these fields."""
        left = {name: value for name, value in self._fields.items() if name not in names}
        return BodyLogger(self._sink, self._is_silent, left)

    def debug(self, event: str, /, *args: Any, **fields: Any) -> None:
        if self._sink is not None and not self._is_silent():
            self._sink.debug(event, *args, **{**self._fields, **fields})

    def info(self, event: str, /, *args: Any, **fields: Any) -> None:
        if self._sink is not None and not self._is_silent():
            self._sink.info(event, *args, **{**self._fields, **fields})

    def warning(self, event: str, /, *args: Any, **fields: Any) -> None:
        if self._sink is not None and not self._is_silent():
            self._sink.warning(event, *args, **{**self._fields, **fields})

    def error(self, event: str, /, *args: Any, **fields: Any) -> None:
        if self._sink is not None and not self._is_silent():
            self._sink.error(event, *args, **{**self._fields, **fields})

    def critical(self, event: str, /, *args: Any, **fields: Any) -> None:
        if self._sink is not None and not self._is_silent():
            self._sink.critical(event, *args, **{**self._fields, **fields})

    def exception(self, event: str, /, *args: Any, **fields: Any) -> None:
        """`error` with the exception that is being handled."""
        if self._sink is not None and not self._is_silent():
            self._sink.exception(event, *args, **{**self._fields, **fields})
