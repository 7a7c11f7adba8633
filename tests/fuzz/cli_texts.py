"""What people type: understood, or refused in a sentence."""

from contextlib import redirect_stdout
from io import StringIO

from durable_worker.cli.documents import json_argument, text_pairs
from durable_worker.cli.grammar import parse
from durable_worker.errors import UsageError
from durable_worker.protocol.payload import plain_json
from durable_worker.transports.rabbitmq.address import parse_address


def read_command_line(data: bytes) -> None:
    """Arguments as the shell would pass them on, separated by NUL."""
    arguments = data.decode("utf-8", "surrogateescape").split("\0")
    for read in (_parse, _address, _json, _pairs):
        try:
            with redirect_stdout(StringIO()):
                read(arguments)
        except UsageError:
            continue


def _parse(arguments: list[str]) -> None:
    parse(arguments)


def _address(arguments: list[str]) -> None:
    for each in arguments:
        address = parse_address(each)
        password = address.password
        assert not password or len(password) < 4 or password not in address.safe


def _json(arguments: list[str]) -> None:
    for each in arguments:
        value = json_argument("--input", each)
        assert value is not None
        plain_json(value)


def _pairs(arguments: list[str]) -> None:
    text_pairs("--context", arguments)
