"""The golden payload envelopes: any implementation opens these, and refuses those."""

import base64
import hashlib
import json
from typing import Any

import pytest
from msgspec import UNSET, Raw

from durable_worker.payloads import (
    BlobMissingError,
    ClaimCheck,
    Compress,
    Encrypt,
    Keyring,
    PayloadCodec,
    SealError,
    Sign,
)
from durable_worker.payloads.claim_check import folder_of
from tests.conformance.protocol.corpus import FIXTURES, is_accepted_by_schema

pytestmark = pytest.mark.anyio


def corpus(name: str) -> Any:
    return json.loads((FIXTURES / "envelopes" / f"{name}.json").read_bytes())


def opened_ids(case: Any) -> str:
    return str(case["about"])


class GoldenBlobs:
    """The store of the fixtures; `put` is for payloads that are in it already."""

    def __init__(self) -> None:
        self.blobs = {key: base64.b64decode(data) for key, data in corpus("blobs").items()}

    async def put(self, key: str, data: bytes) -> None:
        assert self.blobs[key] == data

    async def get(self, key: str, *, limit: int) -> bytes:
        try:
            return self.blobs[key][:limit]
        except KeyError:
            raise BlobMissingError(key, "the corpus") from None


def ring(stage: str, *, current: str | None = None) -> Keyring:
    keys = {each: base64.b64decode(key) for each, key in corpus("keys")[stage].items()}
    return Keyring(keys, current=current)


def receiver() -> PayloadCodec:
    return PayloadCodec(
        Compress(minimum=0),
        Encrypt(ring("aes-siv")),
        Sign(ring("hmac-sha256")),
        ClaimCheck(GoldenBlobs()),
        accept_plain=True,
    )


def raw(value: Any) -> Raw:
    return Raw(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def value_of(payload: Any) -> Any:
    return None if payload in (None, UNSET) else json.loads(bytes(payload))


@pytest.mark.parametrize("case", corpus("opens"), ids=opened_ids)
async def test_a_golden_envelope_opens_to_its_value_and_context(case: Any) -> None:
    opened = await receiver().open(raw(case["payload"]), what="it")
    assert value_of(opened.value) == case["value"]
    assert value_of(opened.context) == case.get("context")


@pytest.mark.parametrize("case", corpus("refused"), ids=opened_ids)
async def test_a_golden_mistake_is_refused_with_its_code(case: Any) -> None:
    with pytest.raises(SealError) as caught:
        await receiver().open(raw(case["payload"]), what="it")
    assert caught.value.code == case["code"]


def sealed_by(payload: Any) -> list[str]:
    envelope = payload.get("$durable") if isinstance(payload, dict) else None
    stages = envelope.get("codec", []) if isinstance(envelope, dict) else []
    return [name for each in stages for name in each]


REPEATABLE = [
    case
    for case in corpus("opens")
    if (names := sealed_by(case["payload"])) and "zlib" not in names
]


@pytest.mark.parametrize("case", REPEATABLE, ids=opened_ids)
async def test_sealing_the_value_again_gives_the_golden_envelope(case: Any) -> None:
    envelope = case["payload"]["$durable"]
    stages: list[Any] = []
    for each in envelope["codec"]:
        ((name, parameters),) = each.items()
        kind = {"aes-siv": Encrypt, "hmac-sha256": Sign}[name]
        stages.append(kind(ring(name, current=parameters["key"])))
    if "ref" in envelope:
        stages.append(ClaimCheck(GoldenBlobs(), threshold=1))
    context = raw(case["context"]) if "context" in case else None
    sealed = await PayloadCodec(*stages).seal(
        raw(case["value"]), salt=envelope["salt"], context=context
    )
    assert value_of(sealed) == case["payload"]


def is_an_envelope(payload: Any) -> bool:
    return isinstance(payload, dict) and payload.keys() == {"$durable"}


@pytest.mark.parametrize("case", corpus("opens"), ids=opened_ids)
def test_the_schema_accepts_exactly_the_envelopes_among_what_opens(case: Any) -> None:
    payload = case["payload"]
    assert is_accepted_by_schema("payload-envelope", payload) == is_an_envelope(payload)


SEEN_BY_THE_SCHEMA = {
    "not an object",
    "a list",
    "another version",
    "no version",
    "a key that is not known",
    "value and data",
    "data and ref",
    "a context beside sealed data",
    "data without codec",
    "an empty codec",
    "codec without salt",
    "two names in one stage",
    "a context that is no object",
    "data that is not base64",
    "a reference that leads out of the store",
}


@pytest.mark.parametrize("case", corpus("refused"), ids=opened_ids)
def test_the_schema_refuses_what_can_be_seen_without_a_key(case: Any) -> None:
    is_seen = case["about"] in SEEN_BY_THE_SCHEMA
    assert is_accepted_by_schema("payload-envelope", case["payload"]) != is_seen


async def test_the_example_of_the_specification_is_what_it_says() -> None:
    text = (FIXTURES.parents[1] / "README.md").read_text("utf-8")
    (example,) = (line for line in text.splitlines() if '"codec":[{"aes-siv"' in line)
    codec = PayloadCodec(Encrypt(Keyring({"k1": bytes(range(64))})))
    assert await codec.seal(Raw(b'{"amount":420}'), salt="run-1") == Raw(example.strip().encode())


def test_blobs_lie_under_their_hash_in_a_folder_named_by_the_salt() -> None:
    for key, data in GoldenBlobs().blobs.items():
        folder, _, digest = key.partition("/")
        assert digest == hashlib.sha256(data).hexdigest()
        assert folder in {"run-1", folder_of("../ä")}
