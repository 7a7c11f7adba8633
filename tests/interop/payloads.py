"""A value of every type that payloads are decoded into."""

import enum
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Literal
from uuid import UUID

from msgspec import Struct


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Card(Struct, tag="card", frozen=True):
    number: str


class Cash(Struct, tag="cash", frozen=True):
    coins: tuple[int, ...]


class Everything(Struct, frozen=True):
    at: datetime
    day: date
    span: timedelta
    id: UUID
    amount: Decimal
    raw: bytes
    colour: Colour
    paid: tuple[Card | Cash, ...]
    tags: frozenset[str]
    by_day: dict[date, float]
    mode: Literal["fast", "slow"]
    nothing: None
    largest: int
    smallest: float
    whole: float
    text: str

    @staticmethod
    def example() -> "Everything":
        return Everything(
            at=datetime(2026, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC),
            day=date(1, 1, 1),
            span=timedelta(days=-1, microseconds=1),
            id=UUID(int=2**127 + 1),
            amount=Decimal("1234567890123456789.10"),
            raw=bytes(range(256)),
            colour=Colour.BLUE,
            paid=(Card("4000"), Cash((1, 2))),
            tags=frozenset({"a"}),
            by_day={date(2026, 1, 1): 0.1},
            mode="slow",
            nothing=None,
            largest=2**53 - 1,
            smallest=5e-324,
            whole=3.0,
            text="",
        )
