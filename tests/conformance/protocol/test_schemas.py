"""The schemas themselves: well-formed, complete, and closed under reference."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.conformance.protocol.corpus import (
    MESSAGES,
    PROTOCOL,
    SCHEMAS,
    refs_in,
    registry,
    schemas,
)

SHARED = {"command", "common", "descriptor", "payload-envelope", "run-detail", "dead-letter"}


def test_every_message_type_has_a_schema() -> None:
    assert set(schemas()) == set(MESSAGES) | SHARED


@pytest.mark.parametrize("name", sorted(schemas()))
def test_a_schema_is_valid_against_the_2020_12_meta_schema(name: str) -> None:
    Draft202012Validator.check_schema(schemas()[name])


@pytest.mark.parametrize("name", sorted(schemas()))
def test_a_schema_says_what_it_is_called_and_what_it_means(name: str) -> None:
    schema = schemas()[name]
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:durable:v1:{name}"
    assert schema["title"]
    assert schema["description"].endswith(".")


@pytest.mark.parametrize("name", sorted(schemas()))
def test_every_reference_of_a_schema_resolves(name: str) -> None:
    schema = schemas()[name]
    resolver = registry().resolver(schema["$id"])
    for ref in refs_in(schema):
        assert resolver.lookup(ref).contents, ref


@pytest.mark.parametrize("name", sorted(schemas()))
def test_no_object_is_closed_against_keys_of_tomorrow(name: str) -> None:
    text = (SCHEMAS / f"{name}.schema.json").read_text("utf-8")
    assert "additionalProperties" not in text
    assert "unevaluatedProperties" not in text


def test_the_specification_mentions_every_key_and_every_constant_of_the_schemas() -> None:
    text = (PROTOCOL / "README.md").read_text("utf-8")
    words = set(re.findall(r"[\w.-]+", text)) | set(re.findall(r"[\w.:-]+", text))
    # The filter of a listing and the data of a reply are left to the schemas.
    told = {name: schema for name, schema in schemas().items() if name != "run-detail"}
    asked = told["run-request"]["$defs"]
    told["run-request"] = {key: asked[key] for key in asked if key != "RunQuery"}
    assert {word for schema in told.values() for word in _vocabulary(schema)} - words == set()


def _vocabulary(node: Any) -> Iterator[str]:
    match node:
        case dict():
            yield from node.get("properties", {})
            yield from (word for word in node.get("enum", []) if word is not None)
            yield from [node["const"]] if isinstance(node.get("const"), str) else []
            for value in node.values():
                yield from _vocabulary(value)
        case list():
            for item in node:
                yield from _vocabulary(item)
        case _:
            return
