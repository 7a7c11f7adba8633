"""Bytes from a broker: what they mean, or a clean end of the connection."""

from functools import cache
from typing import get_args

from pamqp import commands, frame
from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from durable_worker.transports.rabbitmq.amqp import events
from durable_worker.transports.rabbitmq.amqp.handshake import Login
from durable_worker.transports.rabbitmq.amqp.machine import Machine

_LOGIN = Login(user="u", password="p", vhost="/", heartbeat=10, name="fuzz")
_CODES = (501, 502, 504, 505)
_KINDS = (events.Message, *get_args(events.OfChannel), *get_args(events.OfConnection))

Connection, Channel, Basic = commands.Connection, commands.Channel, commands.Basic


def read_stream(data: bytes) -> None:
    """`data`: how far the connection is, how large its pieces are, and the stream."""
    if len(data) < 2:
        return
    phase, size, stream = data[0] % 4, data[1] + 1, data[2:]
    whole = _machine(phase)
    found = whole.receive(stream)
    _check(whole, found)
    pieces = _machine(phase)
    cut: list[events.Event] = []
    for at in range(0, len(stream), size):
        cut += pieces.receive(stream[at : at + size])
    assert [*map(_comparable, cut)] == [*map(_comparable, found)]
    assert (pieces.out, pieces.is_over) == (whole.out, whole.is_over)


def amqp_seeds() -> list[bytes]:
    stated = Basic.Properties(headers={"durable-protocol": 1}, message_id="m", message_type="t")
    message = b"".join(
        [
            frame.marshal(Basic.Deliver("1.1", 1, False, "", "q"), 1),
            frame.marshal(ContentHeader(body_size=5, properties=stated), 1),
            frame.marshal(ContentBody(b"{}"), 1),
            frame.marshal(ContentBody(b"   "), 1),
        ]
    )
    opening = _opening()
    rare = b"".join(
        frame.marshal(said, number)
        for said, number in (
            (Basic.Ack(1, True), 2),
            (Basic.QosOk(), 1),
            (Basic.Cancel("1.1", True), 1),
            (Channel.Flow(False), 1),
            (Connection.Blocked("low on memory"), 0),
            (Channel.CloseOk(), 3),
            (Channel.Close(404, "NOT_FOUND - no", 50, 10), 1),
            (Connection.Close(320, "CONNECTION_FORCED - bye", 0, 0), 0),
        )
    )
    return [
        b"\x00\xff" + opening,
        b"\x00\x00" + opening,
        b"\x01\xff" + message * 3,
        b"\x01\x06" + message + rare,
        b"\x02\xff" + message + rare,
        b"\x03\xff" + rare,
    ]


def _machine(phase: int) -> Machine:
    """Greeted, open with three channels (one of which is being closed), or on its way out."""
    machine = Machine(_LOGIN)
    if phase:
        machine.receive(_opening())
        for number in (1, 2, 3):
            machine.open_channel(number)
            machine.receive(frame.marshal(Channel.OpenOk(), number))
        machine.request(1, Basic.Qos(prefetch_count=1))
        machine.close_channel(3)
    if phase == 2:
        machine.receive(frame.marshal(Basic.Deliver("1.1", 9, False, "", "q"), 2))
    if phase == 3:
        machine.close()
    machine.out.clear()
    return machine


@cache
def _opening() -> bytes:
    return b"".join(
        [
            frame.marshal(Connection.Start(0, 9, {"product": "RabbitMQ"}, "PLAIN", "en_US"), 0),
            frame.marshal(Connection.Tune(2_047, 131_072, 60), 0),
            frame.marshal(Connection.OpenOk(), 0),
        ]
    )


def _comparable(event: events.Event) -> object:
    if isinstance(event, events.Answer):
        return event.channel, event.method.name, dict(event.method)
    return event


def _check(machine: Machine, found: list[events.Event]) -> None:
    assert all(isinstance(each, _KINDS) for each in found)
    said = b"".join(machine.out)
    while said:
        size, _, method = frame.unmarshal(said)
        assert isinstance(method, Frame)
        said = said[size:]
    broken = [each for each in found if isinstance(each, events.Broken)]
    if broken:
        assert found[-1] is broken[0]
        assert broken[0].code in _CODES
        assert machine.is_over
    if machine.is_over:
        assert machine.receive(b"\x08\x00\x00\x00\x00\x00\x00\xce" * 2) == []
