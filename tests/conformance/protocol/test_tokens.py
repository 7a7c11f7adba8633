"""Tenant tokens: what an operator believes, and until when."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_worker.errors import RegistrationError, TenantTokenError, UsageError
from durable_worker.protocol.base import TOKEN_HEADER, token_headers
from durable_worker.protocol.keys import Keyring
from durable_worker.protocol.tokens import (
    ANY_TENANT,
    READS,
    START,
    TenantTokens,
    TokenClaims,
    claimed_by,
)
from tests.conformance.protocol.corpus import LAW, PROTOCOL

K1, K2 = bytes(range(32)), bytes(range(32, 96))
TOKENS = TenantTokens(Keyring({"k1": K1}))
END = datetime(2027, 1, 1, tzinfo=UTC)
END_MS = 1_798_761_600_000


def token(tenant: str = "acme", allow: list[str] | None = None) -> str:
    return TOKENS.issue(tenant, expires=END, allow=allow)


def test_the_token_of_the_specification_is_issued_as_it_is_written_there() -> None:
    text = (PROTOCOL / "README.md").read_text()
    assert f"    {token(allow=['listRuns'])}\n" in text


@LAW
@given(
    st.text(st.characters(exclude_characters="*#", exclude_categories=["Cs"]), min_size=1).filter(
        lambda text: len(text.encode()) <= 160
    ),
    st.none() | st.lists(st.sampled_from([*READS, START, "cancel"])),
)
def test_a_token_proves_what_was_issued_until_it_expires(
    tenant: str, allow: list[str] | None
) -> None:
    issued = token(tenant, allow)
    claims = TokenClaims(tenant=tenant, expires=END_MS, allow=allow)
    assert TOKENS.read(issued, now=END_MS - 1) == claimed_by(issued) == claims
    with pytest.raises(TenantTokenError, match="expired at 2027-01-01 00:00:00 UTC") as caught:
        TOKENS.read(issued, now=END_MS)
    assert caught.value.tenant == tenant


@LAW
@given(st.data())
def test_a_token_with_another_character_proves_nothing(data: st.DataObject) -> None:
    issued = token()
    place = data.draw(st.integers(0, len(issued) - 1))
    other = data.draw(st.characters().filter(lambda each: each != issued[place]))
    with pytest.raises(TenantTokenError):
        TOKENS.read(issued[:place] + other + issued[place + 1 :], now=0)


@LAW
@given(st.text() | st.text().map(lambda text: f"v1.k1.{text}") | st.none())
def test_no_text_is_too_odd_to_be_refused(text: str | None) -> None:
    with pytest.raises(TenantTokenError) as caught:
        TOKENS.read(text, now=0)
    assert caught.value.tenant is None


def test_every_key_of_the_ring_is_believed_and_the_current_one_issues() -> None:
    both = TenantTokens(Keyring({"k1": K1, "k2": K2}, current="k2"))
    assert both.read(token(), now=0).tenant == "acme"
    with pytest.raises(TenantTokenError, match="key that is not known"):
        TOKENS.read(both.issue("acme", expires=END), now=0)
    with pytest.raises(TenantTokenError, match="not what was issued"):
        TenantTokens(Keyring({"k1": K2})).read(token(), now=0)


def test_a_token_allows_what_it_lists_and_one_of_a_worker_one_thing_only() -> None:
    assert [claimed_by(token()).allows(each) for each in (START, "cancel")] == [True, True]
    reader = claimed_by(token(allow=[*READS]))
    assert [reader.allows(each) for each in ("listRuns", "cancel", START)] == [True, False, False]
    worker = claimed_by(token(ANY_TENANT, ["cancel", START]))
    allowed = [each for each in (*READS, START, "cancel", "signal") if worker.allows(each)]
    assert allowed == ["getRunDetail"]


@pytest.mark.parametrize("tenant", ["", "a*", "#", "t" * 161, "ü" * 81])
def test_a_tenant_that_would_select_others_or_fits_no_message_gets_no_token(tenant: str) -> None:
    with pytest.raises(UsageError, match="cannot be a tenant"):
        token(tenant)


def test_keys_that_are_too_short_are_refused() -> None:
    with pytest.raises(RegistrationError, match="32 random ones"):
        TenantTokens(Keyring({"k": bytes(16)}))


def test_a_source_is_asked_for_each_message() -> None:
    tokens = iter(["one", "two"])
    source = lambda: next(tokens)  # noqa: E731
    assert [token_headers(source), token_headers(source), token_headers("three")] == [
        {TOKEN_HEADER: "one"},
        {TOKEN_HEADER: "two"},
        {TOKEN_HEADER: "three"},
    ]
    assert token_headers(None) == {}
    assert END - timedelta(milliseconds=END_MS) == datetime(1970, 1, 1, tzinfo=UTC)
