"""User values to JSON and back, by annotation."""

import math
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from msgspec import UNSET, Meta, Raw
from pydantic import BaseModel, ConfigDict, Field

from durable_worker.errors import PayloadError
from durable_worker.protocol.payload import (
    PayloadDecoder,
    decoder_for,
    encode_payload,
    plain_json,
)
from tests.conformance.protocol.corpus import LAW
from tests.conformance.protocol.generated import json_values


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Size(IntEnum):
    S = 1
    L = 2


class Line(msgspec.Struct, frozen=True):
    sku: str
    count: int = 1


class Order(msgspec.Struct, frozen=True, rename="camel"):
    order_id: UUID
    lines: list[Line]
    total: Decimal
    placed_at: datetime


@dataclass(frozen=True)
class Address:
    street: str
    tags: tuple[str, ...] = ()
    previous: "Address | None" = None


class Point(NamedTuple):
    x: int
    y: float


class Options(TypedDict, total=False):
    colour: Colour
    depth: int


class Customer(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)
    id: UUID
    born: date
    full_name: str = Field(alias="fullName")
    seen: datetime | None = None
    balance: Decimal = Decimal(0)


class Party(BaseModel):
    host: Customer
    guests: list[Customer] = []


UUID_1 = UUID("12345678-1234-5678-1234-567812345678")
NOON = datetime(2025, 7, 17, 12, 0, 0, 123456, tzinfo=UTC)
ANN = Customer(id=UUID_1, born=date(1990, 2, 28), fullName="Ann", seen=NOON)


@pytest.mark.parametrize(
    ("wanted", "value"),
    [
        (int, 42),
        (int, -(2**63)),
        (float, 0.1),
        (float, 1e308),
        (bool, False),
        (str, "Grüße 😀 \u2028 \u0000"),
        (bytes, b"\x00\xff\xfe binary"),
        (datetime, NOON),
        (datetime, datetime(2025, 7, 17, 12, tzinfo=timezone(timedelta(hours=5, minutes=30)))),
        (datetime, datetime(2025, 7, 17, 12)),
        (date, date(2025, 7, 17)),
        (timedelta, timedelta(days=2, seconds=3, microseconds=4)),
        (UUID, UUID_1),
        (Decimal, Decimal("123456789012345678901234567890.12345")),
        (Colour, Colour.BLUE),
        (Size, Size.L),
        (Literal["a", "b"], "b"),
        (int | None, 1),
        (list[int], [1, 2, 3]),
        (list[list[Line]], [[Line("a")], [], [Line("b", 2), Line("c")]]),
        # Its repr would depend on the hash seed, and tests side by side must agree on their ids.
        pytest.param(set[str], {"a", "b"}, id="set[str]"),
        (frozenset[int], frozenset({1})),
        (tuple[int, str], (1, "a")),
        (dict[str, Decimal], {"a": Decimal("1.10")}),
        (dict[int, str], {1: "a"}),
        (dict[UUID, Colour], {UUID_1: Colour.RED}),
        (Order, Order(UUID_1, [Line("a", 2)], Decimal("9.90"), NOON)),
        (Address, Address("Main", ("x", "y"), Address("Old"))),
        (list[Address], [Address("Main")]),
        (Point, Point(1, 2.5)),
        (Options, {"colour": Colour.RED, "depth": 3}),
        (Options, {}),
        (Customer, ANN),
        (list[Customer], [ANN, ANN]),
        (dict[str, Customer], {"a": ANN}),
        (Party, Party(host=ANN, guests=[ANN])),
        (Any, {"a": [1, None, "x", {"b": False}]}),
    ],
    ids=repr,
)
def test_a_value_comes_back_equal_under_its_annotation(wanted: Any, value: Any) -> None:
    payload = encode_payload(value, what="the output")
    decoded = decoder_for(wanted).decode(payload, what="the input")
    assert decoded == value
    assert type(decoded) is type(value)


@LAW
@given(json_values)
def test_any_json_value_comes_back_equal(value: Any) -> None:
    payload = encode_payload(value, what="the output")
    assert plain_json(payload) == value
    assert decoder_for(None).decode(payload, what="the input") == value


def test_none_is_an_absent_payload_and_an_absent_payload_is_none() -> None:
    assert encode_payload(None, what="the output") is UNSET
    assert decoder_for(int | None).decode(UNSET, what="the input") is None
    assert decoder_for(Any).decode(UNSET, what="the input") is None
    assert plain_json(UNSET) is None


def test_bytes_that_are_json_already_pass_as_they_are() -> None:
    raw = Raw(b'{"a" : 1}')
    assert encode_payload(raw, what="the output") is raw


def test_a_pydantic_model_is_written_under_its_aliases() -> None:
    assert plain_json(encode_payload(ANN, what="the output")) == {
        "id": str(UUID_1),
        "born": "1990-02-28",
        "fullName": "Ann",
        "seen": "2025-07-17T12:00:00.123456Z",
        "balance": "0",
    }


@dataclass
class Reading:
    value: float
    history: list[float] = field(default_factory=list)


class Gauge(BaseModel):
    value: float


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (math.nan, "$"),
        (math.inf, "$"),
        ([1.0, -math.inf], "$[1]"),
        ({"a": {"b": [0.5, {"c": math.nan}]}}, "$.a.b[1].c"),
        ((None, math.nan), "$[1]"),
        (Reading(1.0, [2.0, math.inf]), "$.history[1]"),
        ([None, Reading(math.nan)], "$[1].value"),
    ],
    ids=repr,
)
def test_a_number_that_json_lacks_is_refused_with_its_path(value: Any, path: str) -> None:
    with pytest.raises(PayloadError) as refused:
        encode_payload(value, what="the output")
    assert f"`{path}`" in str(refused.value)


def test_a_number_that_json_lacks_is_refused_within_a_pydantic_model_too() -> None:
    with pytest.raises(PayloadError, match=r"`\$\[0\]\.value`"):
        encode_payload([Gauge(value=math.nan)], what="the output")


def _list_within_itself() -> list[Any]:
    knot: list[Any] = []
    knot.append(knot)
    return knot


class Hostile(BaseModel):
    @property
    def model_dump(self) -> Any:
        raise RuntimeError("mine")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (object(), "type 'object' cannot be written as JSON"),
        ({"a": [object()]}, "type 'object' cannot be written as JSON"),
        (lambda: 1, "type 'function' cannot be written as JSON"),
        (1 + 2j, "type 'complex' cannot be written as JSON"),
        (_list_within_itself(), "contains itself or is nested more than 500 levels deep"),
        ("\ud800", "surrogates not allowed"),
        (Hostile(), "mine"),
    ],
    ids=["object", "nested", "function", "complex", "knot", "surrogate", "hostile"],
)
def test_a_value_without_json_form_is_refused_with_a_reason(value: Any, reason: str) -> None:
    with pytest.raises(PayloadError) as refused:
        encode_payload(value, what="the output of step 'x'")
    assert str(refused.value).startswith("the output of step 'x': ")
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("wanted", "body", "said"),
    [
        (int, b'"1"', ["Expected `int`", "got `str`"]),
        (Line, b'{"sku": 1}', ["Expected `str`", "$.sku"]),
        (Line, b"{}", ["missing required field `sku`"]),
        (list[Line], b'[{"sku":"a"},{"sku":"b","count":"2"}]', ["Expected `int`", "$[1].count"]),
        (Order, b'{"orderId":"nope","lines":[],"total":1}', ["Invalid UUID", "$.orderId"]),
        (Address, b'{"street":"a","tags":[1]}', ["Expected `str`", "$.tags[0]"]),
        (Point, b"[1]", ["Expected `array` of length 2"]),
        (Options, b'{"colour":"green"}', ["Invalid enum value 'green'", "$.colour"]),
        (Annotated[int, Meta(ge=1)], b"0", ["Expected `int` >= 1"]),
        (Customer, b'{"id":"x","born":"1990-02-28","fullName":"A"}', ["Customer", "id", "UUID"]),
        (int, b"null", ["Expected `int`, got `null`"]),
        (int, b"1 2", ["trailing"]),
        (str, b'"\xff"', ["utf-8"]),
    ],
    ids=lambda value: None if isinstance(value, list) else repr(value),
)
def test_a_value_that_does_not_fit_is_refused_with_path_and_expected_type(
    wanted: Any, body: bytes, said: list[str]
) -> None:
    with pytest.raises(PayloadError) as refused:
        decoder_for(wanted).decode(Raw(body), what="the input of workflow 'w'")
    assert str(refused.value).startswith("the input of workflow 'w': ")
    assert [words for words in said if words not in str(refused.value)] == []


def test_a_missing_payload_does_not_fit_an_annotation_without_none() -> None:
    with pytest.raises(PayloadError, match="Expected `int`, got `null`"):
        decoder_for(int).decode(UNSET, what="the input")


@dataclass
class Unresolvable:
    value: "NoSuchType"  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize("wanted", [Unresolvable, Line | Order, int | Size], ids=repr)
def test_an_annotation_that_cannot_be_read_is_refused_before_any_value_comes(wanted: Any) -> None:
    with pytest.raises(PayloadError, match=r"^the annotation "):
        PayloadDecoder[Any](wanted)


def test_decoders_are_made_once_for_each_annotation() -> None:
    assert decoder_for(list[Line]) is decoder_for(list[Line])
    assert decoder_for(Line) is not decoder_for(Order)
    listed = Annotated[int, ["unhashable"]]
    assert decoder_for(listed).decode(Raw(b"1"), what="the input") == 1
