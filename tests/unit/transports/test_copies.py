"""What is on a copy, and what a message tells of its time as one."""

from datetime import UTC, datetime

import pytest

from durable_worker.transports.base import DEATH_HEADER, ERROR_HEADER
from durable_worker.transports.rabbitmq.amqp.events import Message
from durable_worker.transports.rabbitmq.amqp.properties import Properties
from durable_worker.transports.rabbitmq.copies import (
    copied,
    deliveries_before,
    given_up,
    mark_of,
    number_in,
)
from durable_worker.transports.rabbitmq.messages import delivery_count_of, to_envelope

HELD = "durable-held-a1"


def death(queue: str, reason: str) -> dict[str, object]:
    return {
        "queue": queue,
        "reason": reason,
        "count": 1,
        "exchange": HELD,
        "routing-keys": ["durable-tasks-x"],
        "time": datetime(2026, 1, 1, tzinfo=UTC),
    }


def message(headers: dict[str, object] | None) -> Message:
    return Message(1, b"1.1", 1, Properties(headers=headers), b"")


def test_a_copy_says_what_its_message_says_and_nothing_that_the_broker_would_act_on() -> None:
    original = Properties(
        content_type="application/json",
        headers={
            "durable-protocol": 1,
            "x-other": "kept",
            "x-death": [death("old", "expired")],
            "x-first-death-reason": "expired",
            "x-delivery-count": 3,
            "CC": ["elsewhere"],
            "BCC": ["secretly"],
        },
        delivery_mode=1,
        priority=4,
        expiration="1000",
        message_id="run:1:1",
        message_type="step-task",
        user_id="operator",
        app_id="app",
    )
    copy = copied(original, deliveries=3, mark=mark_of(HELD, 7))
    assert copy.headers == {
        "durable-protocol": 1,
        "x-other": "kept",
        "durable-deliveries": "3",
        "durable-held": f"{HELD}:7",
    }
    assert (copy.content_type, copy.priority, copy.message_id, copy.message_type, copy.app_id) == (
        "application/json",
        4,
        "run:1:1",
        "step-task",
        "app",
    )
    assert (copy.delivery_mode, copy.expiration, copy.user_id) == (2, None, None)


def test_how_often_an_operator_sent_a_task_again_stays_on_its_copies() -> None:
    original = Properties(headers={"durable-resent": "2"})
    copy = copied(original, deliveries=0, mark=mark_of(HELD, 1))
    assert copy.headers is not None
    assert copy.headers["durable-resent"] == "2"


@pytest.mark.parametrize(
    ("headers", "count"),
    [
        (None, 0),
        ({"x-delivery-count": 2}, 2),
        ({"durable-deliveries": "4", "durable-held": f"{HELD}:1"}, 4),
        ({"durable-deliveries": "4", "x-delivery-count": 2, "durable-held": f"{HELD}:1"}, 6),
        ({"durable-held": f"{HELD}:1", "x-death": [death(HELD, "expired")]}, 1),
        ({"durable-held": f"{HELD}:1", "x-death": [death(HELD, "rejected")]}, 0),
        ({"durable-held": f"{HELD}:1", "x-death": [death("other", "expired")]}, 0),
        ({"durable-deliveries": "many", "durable-held": 7, "x-death": "none"}, 0),
        ({"durable-deliveries": "-5"}, 0),
        ({"durable-deliveries": "9" * 400, "x-delivery-count": "3"}, 0),
        ({"durable-held": f"{HELD}:1", "x-death": ["odd", {}, death(HELD, "expired")]}, 1),
    ],
)
def test_deliveries_are_counted_over_queues_and_copies(
    headers: dict[str, object] | None, count: int
) -> None:
    assert delivery_count_of(message(headers)) == count


def test_a_message_that_was_only_held_is_no_dead_letter() -> None:
    told = to_envelope(
        message(
            {
                "durable-held": f"{HELD}:1",
                "x-death": [death(HELD, "expired")],
                "x-first-death-reason": "expired",
                "x-first-death-queue": HELD,
                "x-first-death-exchange": HELD,
            }
        )
    )
    assert told.headers == {"durable-held": f"{HELD}:1"}


def test_a_message_that_was_held_and_then_given_up_is_a_dead_letter_of_its_queue() -> None:
    told = to_envelope(
        message(
            {
                "durable-held": f"{HELD}:1",
                "x-death": [death("durable-tasks-x", "delivery_limit"), death(HELD, "expired")],
                "x-first-death-reason": "expired",
                "x-first-death-queue": HELD,
            }
        )
    )
    assert told.headers[DEATH_HEADER] == "delivery_limit"
    assert told.headers["x-first-death-queue"] == "durable-tasks-x"
    assert told.headers[ERROR_HEADER] == (
        "the broker took it from queue 'durable-tasks-x': delivery limit"
    )


def test_a_message_that_is_given_up_looks_as_if_the_broker_had_done_it() -> None:
    copy = copied(Properties(headers={"a": "b"}), deliveries=11, mark=mark_of(HELD, 1))
    letter = given_up(copy, queue="durable-tasks-x")
    assert letter.headers is not None
    assert {"durable-held", "durable-deliveries", ERROR_HEADER}.isdisjoint(letter.headers)
    told = to_envelope(message({**letter.headers}))
    assert (told.headers["a"], told.headers[DEATH_HEADER]) == ("b", "delivery_limit")
    assert "durable-tasks-x" in told.headers[ERROR_HEADER]
    assert deliveries_before(letter.headers) == 0  # whoever sends it again begins anew


@pytest.mark.parametrize(
    "mark", [None, 5, "", HELD, f"{HELD}:", f"{HELD}:x", "other:1", f"{HELD}:²"]
)
def test_a_mark_that_is_not_of_this_queue_names_no_message(mark: object) -> None:
    assert number_in({"durable-held": mark}, HELD) is None
    assert number_in({"durable-held": mark_of(HELD, 12)}, HELD) == 12
