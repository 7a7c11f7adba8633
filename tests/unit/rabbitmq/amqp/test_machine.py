"""What an AMQP connection says to a broker, and what it makes of its answers."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel, Connection, Queue
from pamqp.header import ContentHeader

from durable_worker.transports.rabbitmq.amqp import events
from durable_worker.transports.rabbitmq.amqp.machine import Machine
from durable_worker.transports.rabbitmq.amqp.properties import Properties, write_properties
from tests.unit.rabbitmq.amqp.peer import (
    LOGIN,
    content,
    method,
    opened,
    plain,
    spoken,
    start,
    tune,
)

DELIVER = Basic.Deliver("1.1", 7, False, "", "q")
DELIVER_CUT_OFF = b"\x01\x00\x01\x00\x00\x00\x04\x00\x3c\x00\x3c\xce"
STATED = Basic.Properties(message_id="m", message_type="t")


def test_a_connection_opens_as_the_protocol_says() -> None:
    machine = Machine(LOGIN)
    assert machine.out == [b"AMQP\x00\x00\x09\x01"]
    assert machine.receive(start()) == []
    ((number, said),) = spoken(machine)
    assert isinstance(said, Connection.StartOk)
    assert (number, said.mechanism, said.response) == (0, "PLAIN", "\0u\0p")
    assert isinstance(said.client_properties, dict)
    assert said.client_properties["connection_name"] == "test"
    assert said.client_properties["capabilities"] == {
        "authentication_failure_close": True,
        "basic.nack": True,
        "connection.blocked": True,
        "consumer_cancel_notify": True,
        "publisher_confirms": True,
    }
    assert machine.receive(tune(frame_max=8_192, channel_max=9)) == []
    (_, tuned), (_, opening) = spoken(machine)
    assert isinstance(tuned, Connection.TuneOk)
    assert (tuned.channel_max, tuned.frame_max, tuned.heartbeat) == (9, 8_192, 10)
    assert isinstance(opening, Connection.Open)
    assert opening.virtual_host == "v"
    assert not machine.is_open
    assert machine.receive(method(0, Connection.OpenOk())) == [events.Opened()]
    assert machine.is_open


def test_a_broker_without_limits_gets_those_of_the_client() -> None:
    machine = Machine(LOGIN)
    machine.receive(start() + tune(frame_max=0, channel_max=0))
    tuned = next(said for _, said in spoken(machine) if isinstance(said, Connection.TuneOk))
    assert (tuned.channel_max, tuned.frame_max) == (65_535, 131_072)


@pytest.mark.parametrize(
    ("said", "event"),
    [
        (start("EXTERNAL"), events.LoginFailed(is_offered=False)),
        (
            start() + method(0, Connection.Close(403, "ACCESS_REFUSED - no", 0, 0)),
            events.LoginFailed(is_offered=True),
        ),
        (
            start() + tune() + method(0, Connection.Close(530, "NOT_ALLOWED - no", 10, 40)),
            events.ConnectionClosed(530, "NOT_ALLOWED - no"),
        ),
    ],
    ids=["no mechanism", "wrong password", "no virtual host"],
)
def test_a_refusal_is_told_with_its_reason(said: bytes, event: events.Event) -> None:
    machine = Machine(LOGIN)
    assert machine.receive(said) == [event]
    assert machine.is_over


def test_a_message_of_one_frame_and_one_of_many_arrive_whole() -> None:
    machine = opened(1)
    small, large = b"{}", bytes(range(256)) * 100
    data = content(1, DELIVER, STATED, small) + content(1, DELIVER, STATED, large)
    properties = Properties(message_id="m", message_type="t")
    assert machine.receive(data) == [
        events.Message(1, b"1.1", 7, properties, small),
        events.Message(1, b"1.1", 7, properties, large),
    ]


def test_a_message_without_a_body_arrives_with_its_header() -> None:
    (message,) = opened(1).receive(content(1, DELIVER, STATED, b""))
    assert isinstance(message, events.Message)
    assert message.body == b""


def test_messages_of_two_channels_may_be_interleaved_frame_by_frame() -> None:
    machine = opened(1, 2)
    one = [content(1, DELIVER, STATED, b"one", most=2)]
    other = [content(2, DELIVER, STATED, b"two", most=2)]
    frames = [frame for pair in zip(cut(one[0]), cut(other[0]), strict=True) for frame in pair]
    found = machine.receive(b"".join(frames))
    assert [(each.channel, each.body) for each in found if isinstance(each, events.Message)] == [
        (1, b"one"),
        (2, b"two"),
    ]


def cut(stream: bytes) -> list[bytes]:
    """A stream in its frames."""
    frames: list[bytes] = []
    while stream:
        size = 8 + int.from_bytes(stream[3:7])
        frames.append(stream[:size])
        stream = stream[size:]
    return frames


def test_a_message_leaves_in_frames_that_the_broker_takes() -> None:
    machine = opened(1, frame_max=4_096)
    properties = write_properties(Properties(message_id="m", delivery_mode=2))
    machine.publish(1, "x", "key", properties, b"b" * 10_000, mandatory=True)
    (_, publish), (_, header), *bodies = spoken(machine)
    assert isinstance(publish, Basic.Publish)
    assert (publish.exchange, publish.routing_key, publish.mandatory) == ("x", "key", True)
    assert isinstance(header, ContentHeader)
    assert (header.body_size, header.properties.message_id) == (10_000, "m")
    sizes = [len(each.value or b"") for _, each in bodies if isinstance(each, ContentBody)]
    assert sizes == [4_088, 4_088, 1_824]


def test_a_message_without_a_body_leaves_without_a_body_frame() -> None:
    machine = opened(1)
    machine.publish(1, "", "q", write_properties(Properties()), b"", mandatory=False)
    assert [type(said) for _, said in spoken(machine)] == [Basic.Publish, ContentHeader]


def test_confirms_and_returns_are_told_in_the_order_in_which_they_came() -> None:
    machine = opened(1)
    back = Basic.Return(312, "NO_ROUTE", "", "nowhere")
    data = (
        content(1, back, STATED, b"{}")
        + method(1, Basic.Ack(3, True))
        + method(1, Basic.Nack(4, False))
    )
    assert machine.receive(data) == [
        events.Returned(1, "", "nowhere", Properties(message_id="m", message_type="t"), b"{}"),
        events.Confirmed(1, 3, multiple=True, is_taken=True),
        events.Confirmed(1, 4, multiple=False, is_taken=False),
    ]


def test_requests_are_answered_in_their_order() -> None:
    machine = opened(1)
    machine.request(1, Basic.Qos(prefetch_count=5))
    machine.request(1, Queue.Declare(queue="q", passive=True))
    found = machine.receive(method(1, Basic.QosOk()) + method(1, Queue.DeclareOk("q", 2, 1)))
    assert [type(each.method) for each in found if isinstance(each, events.Answer)] == [
        Basic.QosOk,
        Queue.DeclareOk,
    ]


@pytest.mark.parametrize(
    "said",
    [
        method(1, Basic.QosOk()),
        method(1, Queue.BindOk()),
        method(1, Connection.OpenOk()),
        method(0, Connection.Tune(1, 4_096, 1)),
        method(0, Channel.OpenOk()),
        method(1, Basic.GetEmpty()),
        method(1, DELIVER) + method(1, Basic.Ack(1)),
        method(1, DELIVER) + method(1, DELIVER),
        content(1, DELIVER, STATED, b"{}")[-10:],
    ],
)
def test_what_nobody_asked_for_ends_the_connection_as_an_unexpected_frame(said: bytes) -> None:
    machine = opened(1)
    (broken,) = machine.receive(said)
    assert isinstance(broken, events.Broken)
    assert broken.code == 505
    ((number, closing),) = spoken(machine)
    assert isinstance(closing, Connection.Close)
    assert (number, closing.reply_code) == (0, 505)
    assert machine.receive(said) == []


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"\x01\x00\x01\x00\x00\x00\x00\x00", 501),
        (b"\x05\x00\x01\x00\x00\x00\x00\xce", 501),
        (b"AMQP\x00\x00\x09\x01", 501),
        (b"\x03\x00\x01\x00\x00\x10\x00", 501),
        (method(9, Basic.Ack(1)), 504),
        (DELIVER_CUT_OFF + content(1, DELIVER, STATED, b"{}")[len(method(1, DELIVER)) :], 502),
        (b"\x01\x00\x01\x00\x00\x00\x05\x00\x3c\x00\x50\x01\xce", 502),
        (b"\x01\x00\x01\x00\x00\x00\x04\xff\xff\xff\xff\xce", 502),
        (method(1, DELIVER) + b"\x02\x00\x01\x00\x00\x00\x03abc\xce", 502),
        (method(1, DELIVER) + b"\x02\x00\x01\x00\x00\x00\x0e" + b"\x00" * 14 + b"\xce", 502),
    ],
)
def test_frames_that_are_none_end_the_connection_with_their_code(said: bytes, code: int) -> None:
    (broken,) = opened(1).receive(said)
    assert isinstance(broken, events.Broken)
    assert broken.code == code


def test_more_of_a_message_than_its_header_says_is_no_message() -> None:
    said = content(1, DELIVER, STATED, b"{}")
    (broken,) = opened(1).receive(said[:-10] + b"\x03\x00\x01\x00\x00\x00\x03abc\xce")
    assert broken == events.Broken(505, "more of a message than its header says")


def test_a_channel_that_the_broker_closes_is_agreed_to_and_free_again() -> None:
    machine = opened(1)
    data = method(1, Channel.Close(404, "NOT_FOUND - no queue 'q'", 50, 10))
    assert machine.free_channel() == 2
    assert machine.receive(data) == [events.ChannelClosed(1, 404, "NOT_FOUND - no queue 'q'")]
    ((number, said),) = spoken(machine)
    assert (number, type(said)) == (1, Channel.CloseOk)
    assert machine.free_channel() == 1


def test_what_comes_on_a_channel_that_is_being_closed_is_passed_over() -> None:
    machine = opened(1)
    machine.request(1, Basic.Qos(prefetch_count=1))
    machine.close_channel(1)
    late = content(1, DELIVER, STATED, b"late") + method(1, Basic.Ack(1)) + method(1, Basic.QosOk())
    assert machine.receive(late) == []
    assert machine.receive(method(1, Channel.CloseOk())) == [events.ChannelEnded(1)]
    assert machine.free_channel() == 1


def test_a_channel_that_both_sides_close_at_once_ends_with_the_brokers_answer() -> None:
    machine = opened(1)
    machine.close_channel(1)
    machine.out.clear()
    assert machine.receive(method(1, Channel.Close(406, "no", 0, 0))) == []
    assert [type(said) for _, said in spoken(machine)] == [Channel.CloseOk]
    assert machine.receive(method(1, Channel.CloseOk())) == [events.ChannelEnded(1)]


def test_no_more_channels_are_opened_than_the_broker_allows() -> None:
    assert opened(1, 2, 3).free_channel() is None


def test_a_consumer_that_the_broker_ends_is_told_of() -> None:
    machine = opened(1)
    assert machine.receive(method(1, Basic.Cancel("1.1", nowait=True))) == [
        events.ConsumerEnded(1, "1.1")
    ]
    assert spoken(machine) == []
    machine.receive(method(1, Basic.Cancel("1.2", nowait=False)))
    ((_, said),) = spoken(machine)
    assert isinstance(said, Basic.CancelOk)
    assert said.consumer_tag == "1.2"


def test_a_broker_that_wants_no_more_is_told_of_and_answered() -> None:
    machine = opened(1)
    assert machine.receive(method(1, Channel.Flow(False))) == [events.Flow(1, is_active=False)]
    ((_, said),) = spoken(machine)
    assert plain(said) == {"active": False} if isinstance(said, Channel.FlowOk) else False


def test_an_alarm_of_the_broker_is_told_of() -> None:
    machine = opened()
    data = method(0, Connection.Blocked("low on memory")) + method(0, Connection.Unblocked())
    assert machine.receive(data) == [events.Blocked("low on memory"), events.Unblocked()]


def test_heartbeats_mean_nothing_and_are_sent_as_such() -> None:
    machine = opened()
    assert machine.receive(b"\x08\x00\x00\x00\x00\x00\x00\xce" * 3) == []
    machine.beat()
    assert machine.out == [b"\x08\x00\x00\x00\x00\x00\x00\xce"]


def test_a_goodbye_waits_for_the_brokers() -> None:
    machine = opened(1)
    machine.close()
    ((_, said),) = spoken(machine)
    assert isinstance(said, Connection.Close)
    assert said.reply_code == 200
    late = content(1, DELIVER, STATED, b"late") + method(0, Connection.Unblocked())
    assert [each for each in machine.receive(late) if not isinstance(each, events.Message)] == []
    assert machine.receive(method(0, Connection.CloseOk())) == [events.Ended()]
    assert machine.is_over


STREAM = b"".join(
    [
        content(1, DELIVER, STATED, b"{}"),
        b"\x08\x00\x00\x00\x00\x00\x00\xce",
        method(1, Basic.Ack(9, True)),
        content(2, DELIVER, Basic.Properties(headers={"durable-protocol": 1}), b"x" * 9_000),
        method(0, Connection.Blocked("low")),
        content(1, Basic.Return(312, "NO_ROUTE", "", "q"), STATED, b"back"),
        content(1, DELIVER, STATED, b""),
        method(2, Basic.Cancel("2.1", nowait=True)),
        method(2, Channel.Close(406, "PRECONDITION_FAILED - no", 0, 0)),
        content(1, DELIVER, Basic.Properties(message_id="last"), b"last"),
        method(0, Connection.Close(320, "CONNECTION_FORCED - bye", 0, 0)),
    ]
)


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=40))
def test_however_a_stream_is_cut_it_means_the_same(cuts: list[int]) -> None:
    whole = opened(1, 2).receive(STREAM)
    assert len(whole) == 10
    machine = opened(1, 2)
    places = [0, *sorted(cuts), len(STREAM)]
    found: list[events.Event] = []
    for begin, end in pairwise(places):
        found += machine.receive(STREAM[begin:end])
    assert found == whole
    assert machine.is_over


def test_a_stream_that_comes_byte_by_byte_means_the_same() -> None:
    machine = opened(1, 2)
    found = [event for at in range(len(STREAM)) for event in machine.receive(STREAM[at : at + 1])]
    assert found == opened(1, 2).receive(STREAM)
