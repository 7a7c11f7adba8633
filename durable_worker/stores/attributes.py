"""Search attributes of runs, and the labels by which stores find a run that has them. Pure.

A store keeps the labels behind the run's own tags, so whatever finds a run by a tag finds it by an
attribute as well.
"""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, cast

import msgspec
from msgspec import Raw, UnsetType

from durable_worker.errors import RequestRefusedError
from durable_worker.protocol.base import Payload
from durable_worker.protocol.runs import RunQuery
from durable_worker.stores.records import Run

_MARK = "\x1f"
"""In front of labels: nobody tags a run like that."""

_LONGEST = 500

_encode = msgspec.json.Encoder().encode


def labels_of(attributes: Mapping[str, object]) -> list[str]:
    """One for each value: of a list, for each item. Objects have none, so nothing is found by
    them."""
    return [
        _label(f"{key}={text}")
        for key, value in attributes.items()
        for item in (cast("list[object]", value) if isinstance(value, list) else [value])
        if (text := _text(item)) is not None
    ]


def _label(text: str) -> str:
    """Indexes take no long ones, and only ask whether two are equal."""
    encoded = text.encode()
    is_long = len(encoded) > _LONGEST
    return f"{_MARK}#{sha256(encoded).hexdigest()}" if is_long else f"{_MARK}{text}"


def _text(value: object) -> str | None:
    if isinstance(value, (dict, list)):
        return None
    # JavaScript knows one kind of numbers: 1 and 1.0 are the same.
    number = int(value) if isinstance(value, float) and value.is_integer() else value
    return _encode(number).decode()


def wanted_labels(query: RunQuery) -> list[str]:
    """All that a run must have: the tag, and the attributes."""
    tags = [] if query.tag is None else [query.tag]
    return [*tags, *labels_of(query.search_attributes or {})]


def check_searchable(query: RunQuery) -> None:
    """Raises `RequestRefusedError` for attributes by which nothing is ever found."""
    for key, value in (query.search_attributes or {}).items():
        if not labels_of({key: value}):
            raise RequestRefusedError(
                f"runs are not found by {type(value).__name__} under {key!r}: ask for text, a "
                f"number, a boolean, or a list of them",
                code="bad-query",
            )


def stored_tags(run: Run) -> Sequence[str]:
    """What stands in the place of its tags in a store."""
    return [*run.tags, *_own_labels(run.search_attributes)] if _has_some(run) else run.tags


def own_tags(stored: Sequence[str], attributes: Payload) -> tuple[str, ...]:
    """The run's tags out of what is stored."""
    if isinstance(attributes, UnsetType):
        return tuple(stored)
    labels = _own_labels(attributes)
    count = len(stored) - len(labels)
    is_labelled = bool(labels) and list(stored[count:]) == labels
    return tuple(stored[:count] if is_labelled else stored)


def _has_some(run: Run) -> bool:
    return not isinstance(run.search_attributes, UnsetType)


def _own_labels(attributes: Payload) -> list[str]:
    return labels_of(read_attributes(attributes))


def read_attributes(attributes: Payload) -> dict[str, Any]:
    """Empty for what is no JSON object."""
    if isinstance(attributes, UnsetType):
        return {}
    try:
        return msgspec.json.decode(attributes, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}


def merged(attributes: Payload, changes: Iterable[Payload]) -> Payload:
    """With what bodies have set since, one after the other; null takes an attribute away."""
    found = read_attributes(attributes)
    for each in changes:
        found.update(read_attributes(each))
    kept = {key: value for key, value in found.items() if value is not None}
    return Raw(_encode(kept))
