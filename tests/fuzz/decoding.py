"""Everything that turns bytes of somebody else into values: only the documented errors leave it."""

import json
import unicodedata
from contextlib import redirect_stdout, suppress
from datetime import UTC, datetime
from io import BytesIO, TextIOWrapper
from typing import Any

import msgspec
from msgspec import Raw, UnsetType, structs

from durable_worker.cli.documents import print_json
from durable_worker.cli.page import plain_text
from durable_worker.cli.render import run_page, run_table
from durable_worker.edge.errors import SealError
from durable_worker.edge.plain import PLAIN
from durable_worker.edge.records import RecordOpener
from durable_worker.errors import PayloadError, ProtocolError
from durable_worker.protocol.codec import (
    MessageType,
    addressee_of,
    announcer_of,
    decode_task,
    encode,
)
from durable_worker.protocol.nesting import is_too_deep
from durable_worker.protocol.payload import PayloadDecoder, encode_payload, plain_json
from durable_worker.protocol.payload_envelope import EnvelopeError, described, read_envelope
from durable_worker.protocol.runs import RunDetail
from durable_worker.stores.inputs import decode_input, encode_input
from tests.conformance.protocol.corpus import CODECS, MESSAGES

LONGEST_ERROR = 1_000
_NOW = datetime(2024, 1, 1, tzinfo=UTC)
_WANTED: tuple[Any, ...] = (
    Any, int, float, str, bool, bytes, list[int], dict[str, Any], datetime, tuple[int, str], None,
)  # fmt: skip
_PAYLOADS = [PayloadDecoder(each) for each in _WANTED]
_DETAIL = PayloadDecoder(RunDetail)


def decode_message(data: bytes) -> None:
    """The first byte says as what."""
    kind, body = MESSAGES[data[0] % len(MESSAGES)] if data else MESSAGES[0], data[1:]
    try:
        message = CODECS[kind].decode(body)
    except ProtocolError as error:
        _is_bounded(error)
    else:
        _is_what_everybody_reads(body, message)
        _survives_the_way_back(kind, body, message)
        for payload in _payloads_in(message):
            decode_payload(payload)
    addressee = addressee_of(body)
    assert addressee is None or addressee.run_id
    for told in (MessageType.WORKER_BEAT, MessageType.WORKER_DESCRIPTOR):
        announcer_of(body, message_type=told)
    for stated in (None, kind):
        try:
            decode_task(body, message_type=stated)
        except ProtocolError as error:
            _is_bounded(error)


def _is_bounded(error: ProtocolError) -> None:
    assert 0 < len(str(error)) < LONGEST_ERROR


def _is_what_everybody_reads(body: bytes, message: Any) -> None:
    """Of two equal keys the last one counts, here as in other languages: nobody is fooled by one
    reader checking what another one does not act on."""
    try:
        fields = json.loads(body.decode())
    except (ValueError, RecursionError):
        return  # integers of more than 4,300 digits, and nesting; both only in what is passed on
    for field in structs.fields(type(message)):
        value = getattr(message, field.name)
        if isinstance(value, str) and field.encode_name in fields:
            assert fields[field.encode_name] == value


def _survives_the_way_back(kind: str, body: bytes, message: Any) -> None:
    if is_too_deep(body):
        return  # whether it can be read depends on where
    try:
        written = encode(message)
    except OverflowError:
        return  # an integer of more than 64 bits in `context`, which nobody sends on
    assert encode(CODECS[kind].decode(written)) == written


def _payloads_in(message: Any) -> list[bytes]:
    values = [getattr(message, name) for name in message.__struct_fields__]
    return [bytes(each) for each in values if isinstance(each, Raw)]


def decode_payload(data: bytes) -> None:
    payload = Raw(data)
    for decoder in _PAYLOADS:
        try:
            value = decoder.decode(payload, what="the input")
            again = encode_payload(value, what="the output")
        except PayloadError:
            continue
        if not isinstance(again, UnsetType):
            decoder.decode(again, what="what was written")
    plain_json(payload)
    described(payload)
    with suppress(EnvelopeError):
        read_envelope(payload)
    opening = PLAIN.open(payload, what="the input")
    with suppress(StopIteration, SealError):
        opening.send(None)


def decode_input_row(data: bytes) -> None:
    """What lies in the inbox of a database."""
    try:
        value = decode_input(data)
    except msgspec.DecodeError:
        return
    assert encode_input(decode_input(encode_input(value))) == encode_input(value)


def show_detail(data: bytes) -> None:
    """What an operator tells of a run, on a terminal and as JSON."""
    try:
        detail = _DETAIL.decode(Raw(data), what="the detail")
    except PayloadError:
        return
    opener = RecordOpener(PLAIN, keeps_sealed=True)
    opening = opener.detail(detail)
    try:
        opening.send(None)
    except StopIteration as done:
        detail = done.value
    try:
        blocks = [*run_page(detail, now=_NOW), *run_table([detail.run], now=_NOW)]
    except PayloadError:
        return  # a time that is none
    text = plain_text(blocks)
    assert all(each in "\n\t" or unicodedata.category(each) != "Cc" for each in text), text
    with redirect_stdout(TextIOWrapper(BytesIO())):
        print_json(detail)
