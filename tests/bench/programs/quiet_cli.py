"""The command line, with a log that tells only what is worth a warning."""

import sys
from typing import Any

from durable_worker.cli import logs

_configure = logs.configure


def configure(*args: Any, **options: Any) -> None:
    _configure(*args, **options)
    from tests.bench.programs import quiet  # noqa: F401


logs.configure = configure

if __name__ == "__main__":
    from durable_worker.cli.app import main

    sys.exit(main())
