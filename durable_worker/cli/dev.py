"""`durable-worker dev`: everything in one process, restarted when the source changes."""

from importlib import import_module
from typing import Protocol, cast

from durable_worker.cli.options import Dev
from durable_worker.cli.serving import Server, run_server


class _Part(Protocol):
    def prepare(self, options: Dev) -> Server: ...


def perform(options: Dev) -> int:
    # The parent only watches; what it watches is imported by its child, anew each time.
    name = "watching" if options.is_reloading else "embedding"
    part = cast("_Part", import_module(f"durable_worker.cli.{name}"))
    return run_server(lambda: part.prepare(options))
