"""How log lines look: structlog's and the standard library's alike, on standard error."""

import logging
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from durable_worker.cli.diffs import diff_lines
from durable_worker.cli.options import LogFormat
from durable_worker.cli.page import plain_text
from durable_worker.replay.diff import Mismatch

_QUIET = ("aio_pika", "aiormq", "asyncio")
"""They tell in many lines what the transport's states tell in one."""

_BELOW_EVENT = " " * len("12:03:44 warning  ")

_LEVELS = {"warn": "warning", "exception": "error"}

_ALL = ("debug", "info", "warning", "error", "critical")
_LEVEL_COLOURS = {"warning": "33", "error": "31", "critical": "31", "debug": "2"}


def configure(log_format: LogFormat, *, debug: bool) -> None:
    """Send every log line of this process to standard error, in one format."""
    level = logging.DEBUG if debug else logging.INFO
    common: list[Processor] = [structlog.contextvars.merge_contextvars, _Stamp(log_format)]
    renderers = _renderers(log_format)
    structlog.configure(
        processors=[*common, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*common, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(level if debug else logging.CRITICAL)


class _Stamp:
    """Adds the level and the time, which is written anew for each second only."""

    def __init__(self, log_format: LogFormat) -> None:
        self._written: Callable[[int], str] = _utc if log_format is LogFormat.JSON else _local
        self._has_fraction = log_format is LogFormat.JSON
        self._second, self._text = 0, ""

    def __call__(self, _logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        second, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        if second != self._second:
            self._second, self._text = second, self._written(second)
        text = self._text
        event["timestamp"] = f"{text}.{nanoseconds // 1000:06d}Z" if self._has_fraction else text
        event["level"] = _LEVELS.get(method, method)
        return event


def _utc(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _local(second: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(second))


def _renderers(log_format: LogFormat) -> list[Processor]:
    last = _json_line if log_format is LogFormat.JSON else _ConsoleLine(sys.stderr.isatty())
    return [structlog.processors.format_exc_info, last]


def _json_line(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    ordered = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    return msgspec.json.encode(ordered | dict(event), enc_hook=str).decode()


class _ConsoleLine:
    """`12:03:44 warning  connect_failed  attempt=1 reason="..."`, coloured on a terminal.

    A `hint` is a sentence or two for a person, and has lines of its own; a `mismatch` has one for
    each seq.
    """

    def __init__(self, is_coloured: bool) -> None:
        self._is_coloured = is_coloured
        self._levels = {level: self._in(f"{level:<7}", _LEVEL_COLOURS.get(level)) for level in _ALL}

    def __call__(self, _logger: WrappedLogger, _method: str, fields: EventDict) -> str:
        stamp, level = fields.pop("timestamp", ""), str(fields.pop("level", ""))
        text, trace = str(fields.pop("event", "")), fields.pop("exception", None)
        hint, mismatch = fields.pop("hint", None), fields.pop("mismatch", None)
        line = f"{self._in(stamp, '2')} {self._levels.get(level) or f'{level:<7}'}"
        if text:
            line = f"{line}  {self._in(text, '1')}"
        if fields:
            line = f"{line}  {_pairs(fields)}"
        if hint:
            line = "\n".join([line, *(f"{_BELOW_EVENT}{each}" for each in str(hint).splitlines())])
        if isinstance(mismatch, Mismatch):
            line = f"{line}\n{plain_text(diff_lines(mismatch))}"
        return f"{line}\n{str(trace).rstrip()}" if trace else line

    def _in(self, text: object, colour: str | None) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._is_coloured and colour else str(text)


def _pairs(fields: Mapping[str, Any]) -> str:
    return " ".join([f"{key}={_value(value)}" for key, value in fields.items()])


def _value(value: object) -> str:
    text = str(value)
    is_plain = text.isprintable() and " " not in text and "=" not in text and '"' not in text
    return text if is_plain and text else repr(text)
