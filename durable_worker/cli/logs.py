"""How log lines look: structlog's and the standard library's alike, on standard error."""

import logging
import sys
from collections.abc import Mapping
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

_LEVEL_COLOURS = {"warning": "33", "error": "31", "critical": "31", "debug": "2"}


def configure(log_format: LogFormat, *, debug: bool) -> None:
    """Send every log line of this process to standard error, in one format."""
    level = logging.DEBUG if debug else logging.INFO
    common = _common(log_format)
    renderers = _renderers(log_format)
    structlog.configure(
        processors=[*common, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
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


def _common(log_format: LogFormat) -> list[Processor]:
    stamp = (
        structlog.processors.TimeStamper(fmt="iso", utc=True)
        if log_format is LogFormat.JSON
        else structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)
    )
    return [structlog.contextvars.merge_contextvars, structlog.stdlib.add_log_level, stamp]


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

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> str:
        fields: dict[str, Any] = dict(event)
        stamp, level = fields.pop("timestamp", ""), str(fields.pop("level", ""))
        text, trace = str(fields.pop("event", "")), fields.pop("exception", None)
        hint, mismatch = fields.pop("hint", None), fields.pop("mismatch", None)
        level_colour = _LEVEL_COLOURS.get(level, "")
        line = "  ".join(
            part
            for part in (
                f"{self._in(stamp, '2')} {self._in(f'{level:<7}', level_colour)}",
                self._in(text, "1"),
                self._in(_pairs(fields), ""),
            )
            if part
        )
        below = [f"{_BELOW_EVENT}{line}" for line in str(hint).splitlines()] if hint else []
        if isinstance(mismatch, Mismatch):
            below.append(plain_text(diff_lines(mismatch)))
        return "\n".join([line, *below, *([str(trace).rstrip()] if trace else [])])

    def _in(self, text: object, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._is_coloured and colour else str(text)


def _pairs(fields: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={_value(value)}" for key, value in fields.items())


def _value(value: object) -> str:
    text = str(value)
    needs_quotes = not text.isprintable() or not text or any(each in '"= ' for each in text)
    return repr(text) if needs_quotes else text
