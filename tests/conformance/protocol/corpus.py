"""The specification's schemas and fixtures, and the two judges that every message faces."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from jsonschema import Draft202012Validator
from jsonschema.validators import extend
from msgspec import Struct
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from durable_worker.errors import ProtocolError
from durable_worker.protocol import codec
from durable_worker.protocol.codec import MessageCodec

PROTOCOL = Path(__file__).parents[3] / "protocol"
SCHEMAS = PROTOCOL / "schemas" / "v1"
FIXTURES = PROTOCOL / "fixtures" / "v1"

LAW = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

CODECS: dict[str, MessageCodec[Any]] = {
    str(known.message_type): known
    for known in (
        codec.STEP_TASK,
        codec.STEP_RESULT,
        codec.WORKFLOW_TASK,
        codec.WORKFLOW_DECISION,
        codec.STEP_EVENT,
        codec.START_RUN,
        codec.RUN_REQUEST,
        codec.RUN_REPLY,
        codec.TENANT_EVENT,
        codec.CONTROL,
        codec.HEARTBEAT,
        codec.WORKER_BEAT,
        codec.WORKER_DESCRIPTOR,
        codec.WHO,
    )
}
MESSAGES = sorted(CODECS)


def _is_plain_integer(_checker: Any, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# JSON Schema counts 1.0 as an integer. The specification lets a receiver refuse it, ours does.
StrictValidator = extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_plain_integer),
)


@cache
def schemas() -> dict[str, dict[str, Any]]:
    """File name without `.schema.json` -> schema."""
    return {
        path.name.removesuffix(".schema.json"): json.loads(path.read_bytes())
        for path in sorted(SCHEMAS.glob("*.schema.json"))
    }


@cache
def registry() -> Registry[Any]:
    resources = [DRAFT202012.create_resource(schema) for schema in schemas().values()]
    return Registry().with_resources((r.contents["$id"], r) for r in resources).crawl()


@cache
def validator_of(message: str) -> Any:
    return StrictValidator(schemas()[message], registry=registry())


def is_accepted_by_schema(message: str, value: Any) -> bool:
    return bool(validator_of(message).is_valid(value))


def is_accepted_by_struct(message: str, value: Any) -> bool:
    try:
        CODECS[message].decode(to_bytes(value))
    except ProtocolError:
        return False
    return True


def to_bytes(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def encoded(message: Struct) -> Any:
    return json.loads(codec.encode(message))


def fixtures(verdict: str, message: str) -> list[Path]:
    folder = FIXTURES / verdict / message
    return sorted(path for path in folder.glob("*.json") if path.name != "index.json")


def every_fixture(verdict: str) -> list[tuple[str, Path]]:
    return [(message, path) for message in MESSAGES for path in fixtures(verdict, message)]


def fixture_id(value: Any) -> str:
    return value.stem if isinstance(value, Path) else str(value)


def refs_in(node: Any) -> Iterator[str]:
    """Every `$ref` anywhere within a parsed JSON or YAML document."""
    match node:
        case dict():
            for key, value in node.items():
                if key == "$ref" and isinstance(value, str):
                    yield value
                else:
                    yield from refs_in(value)
        case list():
            for item in node:
                yield from refs_in(item)
        case _:
            return


def descriptor_fixture(name: str) -> bytes:
    return (FIXTURES / "descriptors" / name).read_bytes()


def expected_hashes() -> dict[str, str]:
    return msgspec.json.decode(descriptor_fixture("hashes.json"), type=dict[str, str])
