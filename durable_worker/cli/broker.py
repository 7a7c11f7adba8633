"""Which broker is meant."""

import os
from pathlib import Path

from durable_worker.cli.options import (
    BROKER_FILE_VARIABLE,
    BROKER_VARIABLE,
    LARGEST_LIMIT,
    MAX_MESSAGE_VARIABLE,
    SMALLEST_LIMIT,
    BrokerOptions,
)
from durable_worker.errors import UsageError


def is_stated(options: BrokerOptions) -> bool:
    """Whether the command line or the environment names a broker."""
    return stated_place(options) is not None


def stated_place(options: BrokerOptions) -> str | Path | None:
    """The broker URL, or the file that holds it: what the command line says, else the environment.

    Raises `UsageError` if the environment says two things.
    """
    if options.url:
        return options.url
    url, file = os.environ.get(BROKER_VARIABLE), os.environ.get(BROKER_FILE_VARIABLE)
    if url and file:
        raise UsageError(
            f"{BROKER_VARIABLE} and {BROKER_FILE_VARIABLE} are both set, and neither wins: unset "
            f"the one that you do not mean."
        )
    return Path(file) if file else url or None


def message_limit(stated: int | None) -> int | None:
    """How large a message may be, in bytes; None: as large as by default. Raises `UsageError`."""
    text = os.environ.get(MAX_MESSAGE_VARIABLE)
    if stated is not None or not text:
        return stated
    is_number = text.isascii() and text.isdigit() and len(text) < 10
    if not (is_number and SMALLEST_LIMIT <= int(text) <= LARGEST_LIMIT):
        raise UsageError(
            f"{MAX_MESSAGE_VARIABLE} is {text!r}: expected a number of bytes from "
            f"{SMALLEST_LIMIT} to {LARGEST_LIMIT}."
        )
    return int(text)
