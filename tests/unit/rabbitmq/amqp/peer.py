"""The broker's side of a connection, spoken by pamqp, and shorthand for the client's."""

from pamqp import body, commands, frame, header
from pamqp.base import Frame
from pamqp.commands import Basic, Channel, Connection

from durable_worker.transports.rabbitmq.amqp.handshake import Login
from durable_worker.transports.rabbitmq.amqp.machine import Machine

LOGIN = Login(user="u", password="p", vhost="v", heartbeat=10, name="test")

Spoken = tuple[int, Frame | header.ContentHeader | body.ContentBody]


def start(mechanisms: str = "AMQPLAIN PLAIN") -> bytes:
    return frame.marshal(Connection.Start(0, 9, {"product": "RabbitMQ"}, mechanisms, "en_US"), 0)


def tune(*, frame_max: int = 4_096, channel_max: int = 3) -> bytes:
    return frame.marshal(Connection.Tune(channel_max, frame_max, 60), 0)


def method(number: int, said: Frame) -> bytes:
    return frame.marshal(said, number)


def content(
    number: int,
    announced: Frame,
    properties: Basic.Properties,
    data: bytes,
    *,
    most: int = 4_088,
) -> bytes:
    parts = [
        frame.marshal(announced, number),
        frame.marshal(header.ContentHeader(body_size=len(data), properties=properties), number),
    ]
    parts += [
        frame.marshal(body.ContentBody(data[at : at + most]), number)
        for at in range(0, len(data), most)
    ]
    return b"".join(parts)


def spoken(machine: Machine) -> list[Spoken]:
    """What the client has said since, in frames; the protocol header is not counted."""
    data = b"".join(machine.out).removeprefix(b"AMQP\x00\x00\x09\x01")
    machine.out.clear()
    found: list[Spoken] = []
    while data:
        size, number, said = frame.unmarshal(data)
        assert isinstance(said, Frame | header.ContentHeader | body.ContentBody)
        found.append((number, said))
        data = data[size:]
    return found


def opened(*channels: int, frame_max: int = 4_096) -> Machine:
    """A connection after the handshake, with these channels open."""
    machine = Machine(LOGIN)
    machine.receive(start())
    machine.receive(tune(frame_max=frame_max))
    machine.receive(method(0, Connection.OpenOk()))
    for number in channels:
        machine.open_channel(number)
        machine.receive(method(number, Channel.OpenOk()))
    machine.out.clear()
    return machine


def plain(said: Frame) -> dict[str, object]:
    return dict(said)


__all__ = ["Basic", "Channel", "Connection", "commands"]
