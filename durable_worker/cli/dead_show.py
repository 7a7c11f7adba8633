"""`durable-worker dead show`: one dead letter."""

import asyncio
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any, cast

import msgspec
from msgspec import Raw, UnsetType
from msgspec.structs import replace

from durable_worker.cli.dead_pages import letter_page
from durable_worker.cli.documents import print_json
from durable_worker.cli.options import ShowDead
from durable_worker.cli.page import show
from durable_worker.cli.places import open_client
from durable_worker.edge.errors import SealError
from durable_worker.edge.plain import Codec
from durable_worker.protocol.letters import DeadLetterRecord

_PAYLOADS = frozenset({"input", "output", "payload", "details", "data"})
"""The keys of messages that hold values of users."""


def perform(options: ShowDead) -> int:
    letter, body = asyncio.run(_fetch(options))
    if options.is_json:
        print_json(letter)
    else:
        show(letter_page(letter, body))
    return 0


async def _fetch(options: ShowDead) -> tuple[DeadLetterRecord, bytes]:
    codec: Codec | None = None
    if options.codec is not None:
        from durable_worker.cli.codecs import load_codec

        codec = load_codec(options.codec)
    async with open_client(options.place) as client:
        letter = await client.dead_letter(options.letter_id)
    body = b64decode(letter.body or "")
    if codec is not None:
        body = await opened_body(codec, body)
        letter = replace(letter, body=b64encode(body).decode())
    return letter, body


async def opened_body(codec: Codec, body: bytes) -> bytes:
    """The message with its payloads in clear; what cannot be opened stays as it is."""
    try:
        message = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return body
    return msgspec.json.encode(await _opened(codec, message))


async def _opened(codec: Codec, node: Any) -> Any:
    match node:
        case dict():
            fields = cast("dict[str, Any]", node)
            return {
                key: await (_payload if key in _PAYLOADS else _opened)(codec, value)
                for key, value in fields.items()
            }
        case list():
            return [await _opened(codec, each) for each in cast("Sequence[Any]", node)]
        case _:
            return node


async def _payload(codec: Codec, value: Any) -> Any:
    try:
        opened = await codec.open(Raw(msgspec.json.encode(value)), what="a payload of the letter")
    except SealError:
        return value
    return None if isinstance(opened.value, UnsetType) else opened.value
