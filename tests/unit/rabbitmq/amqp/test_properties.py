"""Properties are read and written as pamqp does, and what it cannot read costs nothing else."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pamqp import frame
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from durable_worker.transports.rabbitmq.amqp.content import read_header
from durable_worker.transports.rabbitmq.amqp.errors import PeerError
from durable_worker.transports.rabbitmq.amqp.properties import (
    Properties,
    Template,
    read_properties,
    write_properties,
)
from durable_worker.transports.rabbitmq.frames import library_properties, own_properties

SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""There are many properties to make up, and the machine may be busy."""

SHORT = st.text(max_size=60)
OCTET = st.integers(0, 255)
INSTANT = st.integers(0, 250_000_000_000).map(lambda n: datetime.fromtimestamp(n, tz=UTC))
VALUES = st.recursive(
    st.one_of(
        st.text(max_size=300),
        st.integers(-(2**63), 2**63 - 1),
        st.booleans(),
        st.none(),
        INSTANT,
        st.floats(width=32, allow_nan=False),
        st.integers(0, 10_000).map(lambda n: Decimal(n) / 100),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=20), inner, max_size=4)
    ),
    max_leaves=4,
)
HEADERS = st.dictionaries(st.text(max_size=30), VALUES, max_size=5)


def optional(values: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.none() | values


PROPERTIES = st.builds(
    Properties,
    content_type=optional(SHORT),
    content_encoding=optional(SHORT),
    headers=optional(HEADERS),
    delivery_mode=optional(OCTET),
    priority=optional(OCTET),
    correlation_id=optional(SHORT),
    reply_to=optional(SHORT),
    expiration=optional(SHORT),
    message_id=optional(SHORT),
    timestamp=optional(INSTANT),
    message_type=optional(SHORT),
    user_id=optional(SHORT),
    app_id=optional(SHORT),
)


def by_pamqp(data: bytes) -> Properties:
    """What pamqp reads."""
    payload = b"\x00\x3c\x00\x00" + bytes(8) + data
    whole = b"\x02\x00\x01" + len(payload).to_bytes(4, "big") + payload + b"\xce"
    header = frame.unmarshal(whole)[2]
    assert isinstance(header, ContentHeader)
    return own_properties(header.properties)


@SLOW
@given(properties=PROPERTIES)
def test_what_is_written_is_read_by_pamqp_and_by_us_alike(properties: Properties) -> None:
    data = write_properties(properties)
    assert read_properties(data) == by_pamqp(data)
    assert read_properties(data) == read_properties(data)  # once more, from what is remembered


@SLOW
@given(properties=PROPERTIES)
def test_what_pamqp_writes_is_read_as_pamqp_reads_it(properties: Properties) -> None:
    marshalled = ContentHeader(body_size=5, properties=library_properties(properties)).marshal()
    size, read = read_header(marshalled)
    assert (size, read) == (5, by_pamqp(marshalled[12:]))


@SLOW
@given(properties=PROPERTIES, ids=st.lists(SHORT, min_size=1, max_size=5))
def test_a_template_writes_what_the_properties_with_that_id_would(
    properties: Properties, ids: list[str]
) -> None:
    template = Template(properties)
    for message_id in ids:
        data = template.with_id(message_id)
        expected = own_properties(library_properties(properties))
        assert read_properties(data).message_id == message_id
        assert by_pamqp(data) == by_pamqp(
            write_properties(
                Properties(
                    **{
                        name: getattr(expected, name)
                        for name in Properties.__struct_fields__
                        if name != "message_id"
                    },
                    message_id=message_id,
                )
            )
        )


@given(ids=st.lists(st.binary(max_size=40), min_size=1, max_size=10))
def test_an_id_that_is_no_text_is_mended_whatever_was_read_before(ids: list[bytes]) -> None:
    for message_id in ids:
        data = b"\x10\x80\x02" + bytes([len(message_id)]) + message_id
        read = read_properties(data).message_id
        assert read is not None
        assert len(read.encode()) <= max(len(message_id), 1)
        assert read == message_id.decode("utf-8", "replace").replace("�", "?")


@pytest.mark.parametrize("length", range(2, 30))
def test_properties_that_are_cut_off_are_an_offence(length: int) -> None:
    whole = ContentHeader(
        body_size=1,
        properties=Basic.Properties(
            content_type="application/json", message_id="m" * 20, message_type="t"
        ),
    ).marshal()
    with pytest.raises(PeerError):
        read_header(whole[:length])


def test_a_text_that_is_too_long_is_refused_before_it_is_sent() -> None:
    with pytest.raises(ValueError, match="range"):
        write_properties(Properties(message_id="ä" * 128))
    with pytest.raises((ValueError, OverflowError)):
        Template(Properties()).with_id("ä" * 128)
