"""Confirms reach who waits for them, and acknowledgements say just what was answered."""

from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st
from pamqp import frame
from pamqp.commands import Basic

from durable_worker.transports.rabbitmq.amqp.answers import Answers
from durable_worker.transports.rabbitmq.amqp.confirms import Confirms
from durable_worker.transports.rabbitmq.amqp.properties import Properties, write_properties

Step = tuple[str, int, bool]

STEPS = st.lists(
    st.tuples(st.sampled_from(["publish", "confirm", "return"]), st.integers(1, 30), st.booleans()),
    max_size=60,
)


@given(steps=STEPS)
def test_each_publish_is_answered_once_by_the_confirm_that_covers_it(steps: list[Step]) -> None:
    confirms: Confirms[int] = Confirms()
    waiting: OrderedDict[int, bool] = OrderedDict()
    last = 0
    for kind, number, multiple in steps:
        if kind == "publish":
            last += 1
            waiting[last] = False
            properties = write_properties(Properties(message_id=f"m{last}"))
            confirms.published(last, "", "q", properties, b"%d" % last)
        elif kind == "return":
            confirms.returned("", "q", b"m%d" % number, b"%d" % number)
            if number in waiting:
                waiting[number] = True
        else:
            tag = min(number, last)
            covered = [each for each in waiting if each == tag or (multiple and each <= tag)]
            expected = [(each, waiting.pop(each)) for each in covered]
            assert [*confirms.confirmed(tag, multiple=multiple)] == expected
        assert len(confirms) == len(waiting)
    assert confirms.given_up() == [*waiting]
    assert len(confirms) == 0


def test_of_two_messages_with_one_id_the_one_with_that_body_came_back() -> None:
    confirms: Confirms[str] = Confirms()
    properties = write_properties(Properties(message_id="same"))
    for name, key, body in (("a", "q", b"1"), ("b", "q", b"2"), ("c", "r", b"2")):
        confirms.published(name, "", key, properties, body)
    confirms.returned("", "q", b"same", b"2")
    assert [*confirms.confirmed(3, multiple=True)] == [("a", False), ("b", True), ("c", False)]


def test_of_two_messages_that_are_alike_each_return_takes_one() -> None:
    confirms: Confirms[str] = Confirms()
    for name in ("a", "b", "c"):
        confirms.published(name, "", "q", b"\x00\x00", b"1")
    confirms.returned("", "q", b"", b"1")
    confirms.returned("", "q", b"", b"1")
    assert [*confirms.confirmed(3, multiple=True)] == [("a", True), ("b", True), ("c", False)]


def test_a_confirm_of_what_was_never_published_answers_nothing() -> None:
    confirms: Confirms[str] = Confirms()
    confirms.published("a", "", "q", b"\x00\x00", b"")
    assert [*confirms.confirmed(7, multiple=False)] == []
    assert [*confirms.confirmed(2**64 - 1, multiple=True)] == [("a", False)]
    confirms.published("b", "", "q", b"\x00\x00", b"")
    assert [*confirms.confirmed(2, multiple=False)] == [("b", False)]


def test_single_confirms_leave_nothing_to_look_through_for_a_later_one_of_many() -> None:
    confirms: Confirms[int] = Confirms()
    for number in range(1, 1_001):
        confirms.published(number, "", "q", b"\x00\x00", b"")
    for number in range(1, 1_000):
        assert [*confirms.confirmed(number, multiple=False)] == [(number, False)]
    assert confirms.lowest == 1_000


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("come"), st.integers(1, 5)),
        st.tuples(st.just("ack"), st.integers(1, 40)),
        st.tuples(st.just("nack"), st.integers(1, 40)),
        st.tuples(st.just("write"), st.just(0)),
    ),
    max_size=80,
)


@given(actions=ACTIONS)
def test_the_broker_holds_for_unanswered_just_what_was_not_answered(
    actions: list[tuple[str, int]],
) -> None:
    answers = Answers(1)
    outstanding: set[int] = set()
    unanswered: set[int] = set()
    last = 0

    def write() -> None:
        for written in answers.frames():
            ack = frame.unmarshal(written)[2]
            assert isinstance(ack, Basic.Ack)
            assert ack.delivery_tag in outstanding  # else the broker closes the channel
            covered = {ack.delivery_tag}
            if ack.multiple:
                covered = {tag for tag in outstanding if tag <= (ack.delivery_tag or 0)}
            outstanding.difference_update(covered)

    for kind, number in actions:
        match kind:
            case "come":
                for _ in range(number):
                    last += 1
                    answers.came(last)
                    outstanding.add(last)
                    unanswered.add(last)
            case "ack":
                assert answers.ack(number) == (number in unanswered)
                unanswered.discard(number)
            case "nack":
                assert answers.nack(number) == (number in unanswered)
                if number in unanswered:
                    outstanding.discard(number)
                    unanswered.discard(number)
            case _:
                write()
                assert outstanding == unanswered
    write()
    assert outstanding == unanswered
    assert not answers.has_news


def test_acknowledgements_in_order_leave_as_one() -> None:
    answers = Answers(1)
    for tag in range(1, 101):
        answers.came(tag)
    for tag in (3, 1, 2, 5):
        answers.ack(tag)
    sent = [frame.unmarshal(each)[2] for each in answers.frames()]
    assert [(ack.delivery_tag, ack.multiple) for ack in sent if isinstance(ack, Basic.Ack)] == [
        (3, True),
        (5, False),
    ]
