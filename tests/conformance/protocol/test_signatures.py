"""The golden signatures: any implementation makes and takes these, and refuses those."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from durable_worker.errors import RegistrationError, UsageError
from durable_worker.protocol.base import SIGNATURE_HEADER
from durable_worker.protocol.keys import Keyring, parse_keyring
from durable_worker.protocol.signatures import Flaw, Place, Signatures, read_signature
from durable_worker.transports.base import Envelope
from tests.conformance.protocol.corpus import FIXTURES, LAW

FOLDER = FIXTURES / "signatures"
DEAD = "durable-dead"
FLAWS = {
    "missing": Flaw.MISSING,
    "malformed": Flaw.MALFORMED,
    "unknown-key": Flaw.UNKNOWN_KEY,
    "elsewhere": Flaw.ELSEWHERE,
    "forged": Flaw.FORGED,
}


def corpus(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_bytes())


def about(case: Any) -> str:
    return str(case["about"])


def place_of(stated: Any) -> Place:
    return Place(stated["queue"]) if "queue" in stated else Place(**_exchange(stated))


def _exchange(stated: Any) -> dict[str, str]:
    return {"name": stated["exchange"], "topic": stated["topic"]}


def envelope_of(case: Any) -> Envelope:
    signature = {SIGNATURE_HEADER: case["signature"]} if "signature" in case else {}
    return Envelope(
        type=case["type"],
        body=base64.b64decode(case["body"]),
        message_id=case["messageId"],
        protocol=case["protocol"],
        headers={**case["headers"], **signature},
    )


def ring(current: str | None = None) -> Keyring:
    golden = parse_keyring((FOLDER / "keys.json").read_bytes())
    keys = {each: golden.find(each) or b"" for each in golden.ids}
    return Keyring(keys, current=current or golden.current)


def signatures(current: str | None = None) -> Signatures:
    return Signatures(ring(current), dead=DEAD)


@pytest.mark.parametrize("case", corpus("signed"), ids=about)
def test_a_golden_signature_is_made_and_taken(case: Any) -> None:
    envelope = envelope_of(case)
    assert signatures().flaw_in(envelope, place_of(case["place"])) is None
    signed_for = case.get("signedFor", case["place"])
    if "x-first-death-reason" in case["headers"] and "signedFor" in case:
        envelope = replace(envelope, headers={})  # as it was before the broker moved it
    key_id = case["signature"].split(":")[1]
    assert signatures(key_id).sign(envelope, place_of(signed_for)) == case["signature"]


@pytest.mark.parametrize("case", corpus("refused"), ids=about)
def test_a_golden_forgery_is_refused_for_its_flaw(case: Any) -> None:
    flaw = signatures().flaw_in(envelope_of(case), place_of(case["place"]))
    assert flaw is FLAWS[case["flaw"]]


texts = st.text(max_size=20)
places = st.builds(Place, texts, st.none() | texts)
envelopes = st.builds(
    Envelope,
    type=st.none() | texts,
    body=st.binary(max_size=60),
    message_id=st.none() | texts,
    protocol=st.none() | st.integers(0, 9),
    headers=st.dictionaries(
        st.sampled_from(["durable-resent", "durable-tenant-token", "durable-error", "other"]),
        texts | st.just("0"),
    ),
)


def signed(envelope: Envelope, place: Place, key_id: str = "k2") -> Envelope:
    header = signatures(key_id).sign(envelope, place)
    return replace(envelope, headers={**envelope.headers, SIGNATURE_HEADER: header})


@LAW
@given(envelopes, places, st.sampled_from(["k1", "k2"]))
def test_what_was_signed_is_taken_where_it_was_sent_to(
    envelope: Envelope, place: Place, key_id: str
) -> None:
    assert signatures().flaw_in(signed(envelope, place, key_id), place) is None


@LAW
@given(envelopes, envelopes, places, places)
def test_a_signature_serves_for_nothing_else(
    one: Envelope, other: Envelope, here: Place, there: Place
) -> None:
    moved = replace(
        other,
        headers={**other.headers, SIGNATURE_HEADER: signatures().sign(one, here)},
    )
    is_same = here == there and _acted_on(one) == _acted_on(other)
    assert (signatures().flaw_in(moved, there) is None) is is_same


def _acted_on(envelope: Envelope) -> object:
    """What a receiver acts on; empty and absent are one."""
    headers = envelope.headers
    covered = [headers.get("durable-resent", "0"), headers.get("durable-tenant-token")]
    return (
        envelope.type or "",
        envelope.message_id or "",
        envelope.protocol,
        covered,
        envelope.body,
    )


@LAW
@given(st.text() | st.text().map(lambda text: f"v1:{text}"))
def test_no_header_is_too_odd_to_be_refused(text: str) -> None:
    envelope = Envelope("step-task", b"{}", headers={SIGNATURE_HEADER: text})
    for place in (Place("durable-results"), Place(DEAD), Place("durable-control", "")):
        assert signatures().flaw_in(envelope, place) is not None


def test_a_header_tells_the_key_and_the_place() -> None:
    envelope = signed(Envelope("who", b"{}"), Place("durable-workers", "a:b"))
    signature = read_signature(envelope.headers)
    assert not isinstance(signature, Flaw)
    assert (signature.key_id, signature.place) == ("k2", "durable-workers/a:b")


SECRET = "c2VjcmV0LXRoYXQtbm9ib2R5LW1heS1zZWU"


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ("", "Input data was truncated"),
        ("[]", "Expected `object`"),
        ('{"keys": {"a": 5}, "current": "a"}', "Expected `str`, got `int`"),
        (f'{{"keys": {{"a": "{SECRET}="}}}}', "missing required field `current`"),
        (f'{{"keys": {{"a": "{SECRET}!"}}, "current": "a"}}', "key 1 is not base64"),
        (f'{{"keys": {{"a": "{SECRET}=="}}, "current": "a"}}', "key 1 is not base64"),
        (f'{{"keys": {{"a": "{SECRET}="}}, "current": "b"}}', "`current` is none of the ids"),
        (f'{{"keys": {{"a": "{SECRET}="}}, "current": "a"}}', "key 1 has 26 bytes"),
        (f'{{"keys": {{"{SECRET}": "a"}}, "current": "{SECRET}"}}', "key 1 is not base64"),
        (f'{{"keys": {{"{SECRET}=": "a"}}, "current": "{SECRET}="}}', "the id of key 1 is not"),
        (f'{{"{SECRET}": 1}}', "missing required field `keys`"),
        ('{"keys": {}, "current": "a"}', "`current` is none of the ids"),
    ],
)
def test_a_key_file_that_cannot_be_used_says_why_and_not_what_is_in_it(
    document: str, told: str
) -> None:
    with pytest.raises(UsageError) as caught:
        parse_keyring(document.encode(), source="the key file keys.json")
    text = str(caught.value)
    assert text.startswith("the key file keys.json cannot be used: ")
    assert told in text
    assert SECRET not in text


def test_keys_that_cannot_sign_are_refused_where_they_are_given() -> None:
    for keys in ({"k": bytes(31)}, {"k:1": bytes(32)}, {"k 1": bytes(32)}, {"k" * 65: bytes(32)}):
        with pytest.raises(RegistrationError):
            Signatures(Keyring(keys), dead=DEAD)
