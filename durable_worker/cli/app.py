"""Entry point: parse, perform, and turn every error into one paragraph and an exit code."""

import gc
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from traceback import format_exception
from typing import Protocol, cast

from durable_worker.cli.options import (
    AnyOptions,
    Cancel,
    Check,
    CheckDb,
    Dev,
    ExportDb,
    ImportDb,
    ListDead,
    ListRuns,
    Operate,
    Query,
    RedriveDead,
    Replay,
    Revive,
    Run,
    Show,
    ShowDead,
    Signal,
    Simulate,
    Start,
    Token,
    UpgradeDb,
)
from durable_worker.cli.quick import parse_run
from durable_worker.errors import DurableError, UsageError

_RUNTIME_ERROR, _USAGE_ERROR, _INTERRUPTED = 1, 2, 130

_MODULES: dict[type[AnyOptions], str] = {
    Run: "run",
    Dev: "dev",
    Operate: "operate",
    Start: "start",
    ListRuns: "runs",
    Show: "show",
    Signal: "signal",
    Cancel: "cancel",
    Revive: "revive",
    Query: "query",
    Replay: "replay",
    Check: "check",
    ListDead: "dead_list",
    ShowDead: "dead_show",
    RedriveDead: "dead_redrive",
    Token: "token",
    UpgradeDb: "db_upgrade",
    CheckDb: "db_check",
    ExportDb: "db_export",
    ImportDb: "db_import",
    Simulate: "simulate",
}
"""Each command is a module, imported with its adapters only when it is the one asked for."""


class _Grammar(Protocol):
    def parse(self, arguments: Sequence[str]) -> AnyOptions | int: ...


class _Command(Protocol):
    def perform(self, options: AnyOptions) -> int: ...


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line (default: that of this process) and exit."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        status = _perform(words)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough; the interpreter's own flush at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = _RUNTIME_ERROR
    except KeyboardInterrupt:
        status = _INTERRUPTED
    except Exception as error:
        status = _report(error, debug="--debug" in words)
    sys.exit(status)


def _perform(words: list[str]) -> int:
    options = _parse(words)
    if isinstance(options, int):
        return options
    if isinstance(options, Run):
        gc.disable()  # nothing that is imported is garbage; `run` turns it on again
        _import_structlog_alone()
    command = import_module(f"durable_worker.cli.{_MODULES[type(options)]}")
    return cast("_Command", command).perform(options)


def _parse(words: list[str]) -> AnyOptions | int:
    plain = parse_run(words[1:]) if words[:1] == ["run"] else None
    if plain is not None:
        return plain
    grammar = cast("_Grammar", import_module("durable_worker.cli.grammar"))
    return grammar.parse(words)


def _import_structlog_alone() -> None:
    """structlog loads all of Rich where it finds it, for a renderer that is not used here; that
    would cost a worker 80 ms before its first message."""
    if "rich" in sys.modules or "structlog" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        import_module("structlog")
    finally:
        del sys.modules["rich"]


def _report(raised: Exception, *, debug: bool) -> int:
    error = _cause(raised)
    if debug:
        text = "".join(format_exception(raised)).rstrip("\n")
    elif isinstance(error, DurableError):
        text = f"error: {error}"
    else:
        text = (
            f"error: {type(error).__name__}: {error}. This is unexpected; --debug shows where it "
            f"happened."
        )
    print(_censored(text), file=sys.stderr)
    return _USAGE_ERROR if isinstance(error, UsageError) else _RUNTIME_ERROR


def _censored(text: str) -> str:
    """Without passwords of broker URLs: what stands in a wrong place is repeated by whoever
    complains about it."""
    # User and password, or what stands for them where the host was forgotten.
    credentials = re.compile(
        r"(//)[^\s/@]*:\S*(?=@)"
        r"|(amqps?://)[^\s@:/]*:(?!\d+(?:[/\s'\")]|$))[^\s'\")]*"
    )
    return credentials.sub(lambda found: f"{found[1] or found[2]}***", text)


def _cause(error: Exception) -> Exception:
    """The error that matters in a group of them: one that was foreseen, if any."""
    if not isinstance(error, ExceptionGroup):
        return error
    members = cast("ExceptionGroup[Exception]", error).exceptions
    causes = [_cause(each) for each in members]
    return next((each for each in causes if isinstance(each, DurableError)), causes[0])
