"""The golden messages, read by the schemas and by the structs alike."""

import json
from pathlib import Path

import pytest

from tests.conformance.protocol.corpus import (
    CODECS,
    FIXTURES,
    MESSAGES,
    encoded,
    every_fixture,
    fixture_id,
    fixtures,
    is_accepted_by_schema,
    is_accepted_by_struct,
    to_bytes,
    validator_of,
)


@pytest.mark.parametrize("message", MESSAGES)
def test_every_message_has_valid_and_invalid_fixtures(message: str) -> None:
    assert len(fixtures("valid", message)) >= 3
    assert len(fixtures("invalid", message)) >= 4


def test_there_is_no_folder_of_fixtures_that_belongs_to_no_message() -> None:
    for verdict in ("valid", "invalid"):
        assert sorted(path.name for path in (FIXTURES / verdict).iterdir()) == MESSAGES


@pytest.mark.parametrize(("message", "path"), every_fixture("valid"), ids=fixture_id)
def test_a_valid_fixture_is_accepted_by_the_schema(message: str, path: Path) -> None:
    validator_of(message).validate(json.loads(path.read_bytes()))


@pytest.mark.parametrize(("message", "path"), every_fixture("valid"), ids=fixture_id)
def test_a_valid_fixture_survives_a_round_trip_through_its_struct(message: str, path: Path) -> None:
    struct = CODECS[message].decode(path.read_bytes())
    rewritten = encoded(struct)
    validator_of(message).validate(rewritten)
    assert encoded(CODECS[message].decode(to_bytes(rewritten))) == rewritten


@pytest.mark.parametrize(("message", "path"), every_fixture("valid"), ids=fixture_id)
def test_a_rewritten_fixture_keeps_what_was_stated_and_states_no_null(
    message: str, path: Path
) -> None:
    original = json.loads(path.read_bytes())
    rewritten = encoded(CODECS[message].decode(path.read_bytes()))
    assert _stated(rewritten).items() <= _stated(original).items()


def _stated(node: object, path: str = "$") -> dict[str, object]:
    """Path -> scalar, for everything that is not null."""
    match node:
        case dict():
            parts = [_stated(item, f"{path}.{key}") for key, item in node.items()]
        case list():
            parts = [_stated(item, f"{path}[{index}]") for index, item in enumerate(node)]
        case None:
            parts = []
        case _:
            parts = [{path: node}]
    return {key: value for part in parts for key, value in part.items()}


@pytest.mark.parametrize(("message", "path"), every_fixture("invalid"), ids=fixture_id)
def test_an_invalid_fixture_is_refused_by_schema_and_struct(message: str, path: Path) -> None:
    value = json.loads(path.read_bytes())
    assert not is_accepted_by_schema(message, value)
    assert not is_accepted_by_struct(message, value)


@pytest.mark.parametrize("message", MESSAGES)
def test_the_index_gives_a_reason_for_every_invalid_fixture(message: str) -> None:
    index = json.loads((FIXTURES / "invalid" / message / "index.json").read_bytes())
    assert sorted(index) == sorted(path.name for path in fixtures("invalid", message))
    assert all(index.values())
