"""Copies of messages that are out for long, and what a message tells of its time as a copy.

See protocol/README.md, "Long work".
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, cast

from durable_worker.transports.base import DEATH_HEADER, DELIVERY_LIMIT_REASON, HELD_HEADER
from durable_worker.transports.rabbitmq.amqp.properties import Properties

DELIVERIES_HEADER: Final = "durable-deliveries"
"""On a copy: how often the message had been delivered before its holder got it."""

_BROKERS_OWN: Final = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-", "x-acquired-")
_ROUTING: Final = ("CC", "BCC")
_PERSISTENT: Final = 2
_MOST_DIGITS: Final = 4

Headers = Mapping[str, object]


def mark_of(queue: str, number: int) -> str:
    return f"{queue}:{number}"


def number_in(headers: Headers, queue: str) -> int | None:
    """Which message of the queue's owner this is a copy of."""
    held, number = _mark(headers)
    return int(number) if held == queue and number.isascii() and number.isdecimal() else None


def copied(original: Properties, *, deliveries: int, mark: str) -> Properties:
    """Properties of a copy: without what the broker wrote on it, or would act on."""
    headers = _kept(original.headers or {})
    headers[DELIVERIES_HEADER] = str(deliveries)
    headers[HELD_HEADER] = mark
    return _like(original, headers)


def given_up(original: Properties, *, queue: str) -> Properties:
    """Properties of a message that was delivered too often, as the broker itself would set them."""
    headers = _kept(original.headers or {})
    for name in (DELIVERIES_HEADER, HELD_HEADER):
        headers.pop(name, None)
    death: dict[str, object] = {
        "reason": DELIVERY_LIMIT_REASON,
        "queue": queue,
        "exchange": "",
        "routing-keys": [queue],
        "count": 1,
        "time": datetime.now(UTC),
    }
    headers["x-death"] = [death]
    headers[DEATH_HEADER] = DELIVERY_LIMIT_REASON
    headers["x-first-death-queue"] = queue
    headers["x-first-death-exchange"] = ""
    return _like(original, headers)


def deaths_elsewhere(headers: Headers) -> list[Headers]:
    """How the broker moved the message to a dead queue, the latest first; holding aside."""
    held, _ = _mark(headers)
    return [death for death in _deaths(headers) if death.get("queue") != held]


def deliveries_before(headers: Headers) -> int:
    """How often the message was delivered before, by its queues and over its copies."""
    if not (
        "x-delivery-count" in headers or DELIVERIES_HEADER in headers or HELD_HEADER in headers
    ):
        return 0
    own = headers.get("x-delivery-count", 0)
    stated = headers.get(DELIVERIES_HEADER, "0")
    held, _ = _mark(headers)
    # A holder that gives a message back rejects it; what its death leaves behind expires.
    is_lost = any(
        death.get("queue") == held and death.get("reason") != "rejected"
        for death in _deaths(headers)
    )
    return (own if isinstance(own, int) else 0) + _number(stated) + is_lost


def _kept(headers: Headers) -> dict[str, object]:
    return {
        name: value
        for name, value in headers.items()
        if not name.startswith(_BROKERS_OWN) and name not in _ROUTING
    }


def _like(original: Properties, headers: Headers) -> Properties:
    # Without `expiration`, which would end it, and `user_id`, which only its sender may state.
    return Properties(
        content_type=original.content_type,
        content_encoding=original.content_encoding,
        headers=headers,
        delivery_mode=_PERSISTENT,
        priority=original.priority,
        correlation_id=original.correlation_id,
        reply_to=original.reply_to,
        message_id=original.message_id,
        timestamp=original.timestamp,
        message_type=original.message_type,
        app_id=original.app_id,
    )


def _mark(headers: Headers) -> tuple[str, str]:
    mark = headers.get(HELD_HEADER)
    held, _, number = mark.rpartition(":") if isinstance(mark, str) else ("", "", "")
    return held, number


def _deaths(headers: Headers) -> list[Headers]:
    deaths = headers.get("x-death")
    if not isinstance(deaths, list):
        return []
    return [cast(Headers, each) for each in cast(list[object], deaths) if isinstance(each, dict)]


def _number(text: object) -> int:
    is_number = isinstance(text, str) and text.isdecimal() and len(text) <= _MOST_DIGITS
    return int(text) if is_number and isinstance(text, str) else 0
