"""The codec's laws: what was sealed opens to the same value, or not at all."""

import asyncio
import json
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET, Raw, UnsetType
from msgspec import json as msgjson

from durable_worker import RegistrationError
from durable_worker.edge.plain import PLAIN
from durable_worker.payloads import (
    ClaimCheck,
    Compress,
    Encrypt,
    FileBlobs,
    Keyring,
    PayloadCodec,
    PayloadKeyMissingError,
    PayloadNotSealedError,
    PayloadSealedError,
    PayloadTamperedError,
    PayloadTooBigError,
    SealError,
    Sign,
)
from durable_worker.protocol.base import Payload
from durable_worker.protocol.payload_envelope import Opened, Parameters, described, wrapped
from tests.unit.payloads.keys import K1, K2, ring

R = TypeVar("R")
LAW = settings(max_examples=150, deadline=None)
SALT = "run-1"
SPECIFICATION = Path(__file__).parents[3] / "protocol" / "README.md"

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=20)
)
KEYS = st.text(st.characters(codec="utf-8"), max_size=8) | st.just("$durable")
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)
CONTEXTS = st.none() | st.dictionaries(KEYS, VALUES, min_size=1, max_size=3)


class Reverse:
    """A stage as users may write one."""

    name = "reverse"
    protects = False

    def seal(self, data: bytes, associated: bytes) -> tuple[bytes, Parameters]:
        return data[::-1], {}

    def open(self, data: bytes, parameters: Parameters, associated: bytes) -> bytes:
        return data[::-1]


STAGES = ("reverse", "compress", "encrypt", "sign")


def chain(names: list[str], *, blobs: str | None = None) -> PayloadCodec:
    made: dict[str, Any] = {
        "reverse": Reverse(),
        "compress": Compress(minimum=0),
        "encrypt": Encrypt(ring("k1", "k2")),
        "sign": Sign(ring("k1", "k2")),
    }
    stages = [made[each] for each in names]
    if blobs is not None:
        stages.append(ClaimCheck(FileBlobs(blobs), threshold=64))
    return PayloadCodec(*stages)


CHAINS = st.lists(st.sampled_from(STAGES), unique=True)
PROTECTED = CHAINS.filter(lambda names: "encrypt" in names or "sign" in names)


def run(coroutine: Coroutine[Any, Any, R]) -> R:
    return asyncio.run(coroutine)


def payload(value: object) -> Raw:
    return Raw(msgjson.encode(value))


def plain(value: Payload | None) -> Any:
    return None if value is None or isinstance(value, UnsetType) else json.loads(bytes(value))


def seal(codec: PayloadCodec, value: Payload, **more: Any) -> Payload:
    return run(codec.seal(value, salt=more.pop("salt", SALT), **more))


def open_(codec: Any, value: Payload) -> Opened:
    return run(codec.open(value, what="the input"))


@LAW
@given(VALUES, CONTEXTS, CHAINS, st.booleans())
def test_whatever_was_sealed_opens_to_the_same_value_and_context(
    value: object, context: dict[str, object] | None, names: list[str], is_stored: bool
) -> None:
    with tempfile.TemporaryDirectory() as blobs:
        codec = chain(names, blobs=blobs if is_stored else None)
        told = None if context is None else payload(context)
        opened = open_(codec, seal(codec, payload(value), context=told))
    assert plain(opened.value) == value
    assert plain(opened.context) == context


@LAW
@given(VALUES, CONTEXTS)
def test_without_a_codec_contexts_and_values_that_look_like_envelopes_survive(
    value: object, context: dict[str, object] | None
) -> None:
    told = None if context is None else payload(context)
    sealed = run(PLAIN.seal(payload(value), salt=SALT, context=told))
    opened = open_(PLAIN, sealed)
    assert (plain(opened.value), plain(opened.context)) == (value, context)
    reordered = Raw(json.dumps(plain(sealed), indent=1, sort_keys=True).encode())
    assert plain(open_(PLAIN, reordered).value) == value


@LAW
@given(VALUES, PROTECTED, st.data())
def test_a_changed_byte_is_an_error_or_changes_nothing(
    value: object, names: list[str], data: st.DataObject
) -> None:
    codec = chain(names)
    sealed = seal(codec, payload({"of": value}))
    changed = bytearray(bytes(sealed))
    at = data.draw(st.integers(0, len(changed) - 1))
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        opened = open_(codec, Raw(bytes(changed)))
    except SealError as error:
        assert error.what == "the input"  # noqa: PT017
    else:
        assert plain(opened.value) == {"of": value}


@LAW
@given(VALUES, PROTECTED, st.data())
def test_stages_that_are_taken_away_or_swapped_are_noticed(
    value: object, names: list[str], data: st.DataObject
) -> None:
    codec = chain(names)
    inner = plain(seal(codec, payload({"of": value})))["$durable"]
    inner["codec"] = data.draw(
        st.permutations(inner["codec"]).map(
            lambda stages: stages[: data.draw(st.integers(1, len(stages)))]
        )
    )
    changed = payload({"$durable": inner})
    try:
        opened = open_(codec, changed)
    except SealError:
        return
    assert plain(opened.value) == {"of": value}


def test_what_is_encrypted_shows_nothing_and_repeats_itself_only_within_a_run() -> None:
    codec = PayloadCodec(Compress(), Encrypt(ring("k1")))
    secret = payload({"card": "4111" * 900})
    first, again, elsewhere = (seal(codec, secret, salt=salt) for salt in ("r1", "r1", "r2"))
    assert b"4111" not in bytes(first)  # type: ignore[arg-type]
    assert first == again
    assert plain(first)["$durable"]["data"] != plain(elsewhere)["$durable"]["data"]


def test_nothing_is_sealed_where_there_is_nothing_but_a_context_is() -> None:
    codec = PayloadCodec(Encrypt(ring("k1")))
    assert seal(codec, UNSET) is UNSET
    assert seal(codec, payload(None)) == payload(None)
    sealed = seal(codec, UNSET, context=payload({"user": "ada"}))
    assert b"ada" not in bytes(sealed)  # type: ignore[arg-type]
    opened = open_(codec, sealed)
    assert (opened.value, plain(opened.context)) == (UNSET, {"user": "ada"})


def test_after_a_rotation_old_payloads_open_and_new_ones_have_the_new_key() -> None:
    before = PayloadCodec(Encrypt(ring("k1")), Sign(ring("k1")))
    after = PayloadCodec(
        Encrypt(ring("k1", "k2", current="k2")), Sign(ring("k1", "k2", current="k2"))
    )
    old = seal(before, payload("old"))
    assert plain(open_(after, old).value) == "old"
    new = seal(after, payload("new"))
    assert described(new) == "sealed (aes-siv, key k2; hmac-sha256, key k2)"
    with pytest.raises(PayloadKeyMissingError) as caught:
        open_(before, new)
    assert (caught.value.key, caught.value.known, caught.value.code) == (
        "k2",
        ("k1",),
        "payload-key-missing",
    )
    assert str(caught.value) == (
        "the input is sealed by hmac-sha256 with key 'k2', and this process has only 'k1'; add "
        "'k2' to its key ring"
    )


def test_another_key_under_the_same_id_is_as_good_as_a_change() -> None:
    sealed = seal(PayloadCodec(Encrypt(Keyring({"k": K1}))), payload("secret"))
    with pytest.raises(PayloadTamperedError, match="another key has this id"):
        open_(PayloadCodec(Encrypt(Keyring({"k": K2}))), sealed)


def test_a_payload_cannot_be_moved_to_another_salt() -> None:
    codec = PayloadCodec(Encrypt(ring("k1")))
    inner = plain(seal(codec, payload("secret")))["$durable"]
    with pytest.raises(PayloadTamperedError):
        open_(codec, payload({"$durable": {**inner, "salt": "run-2"}}))


@pytest.mark.parametrize("stage", [Encrypt(ring("k1")), Sign(ring("k1"))])
def test_who_protects_refuses_what_is_not_protected(stage: Any) -> None:
    codec, compressing = PayloadCodec(stage), PayloadCodec(Compress(minimum=0))
    for unprotected in (
        payload("plain"),
        wrapped(payload("plain"), payload({"tenant": "a"})),
        wrapped(UNSET, payload({"tenant": "a"})),
        seal(compressing, payload("plain" * 100)),
    ):
        with pytest.raises(PayloadNotSealedError, match=stage.name):
            open_(codec, unprotected)
    assert open_(codec, payload(None)).value == payload(None)
    assert open_(codec, UNSET).value is UNSET


def test_a_migrating_codec_accepts_what_is_plain() -> None:
    codec = PayloadCodec(Encrypt(ring("k1")), accept_plain=True)
    assert plain(open_(codec, payload("plain")).value) == "plain"


def test_a_codec_that_protects_nothing_accepts_what_is_plain() -> None:
    assert plain(open_(PayloadCodec(Compress()), payload("plain")).value) == "plain"


def test_a_process_without_the_codec_says_what_it_lacks() -> None:
    sealed = seal(PayloadCodec(Compress(minimum=0), Encrypt(ring("k1"))), payload("x" * 100))
    with pytest.raises(PayloadSealedError) as caught:
        open_(PLAIN, sealed)
    assert caught.value.code == "payload-sealed"
    assert str(caught.value) == (
        "the input is sealed (zlib; aes-siv, key k1), and this process has no codec; give its "
        "Worker or Client the PayloadCodec of whoever sealed it"
    )
    with pytest.raises(PayloadSealedError, match="'aes-siv', which the codec"):
        open_(PayloadCodec(Compress()), sealed)


def test_compression_leaves_alone_what_it_would_not_make_smaller() -> None:
    codec = PayloadCodec(Compress(minimum=10))
    for value in ("short", "0123456789abcdef"):
        assert seal(codec, payload(value)) == payload(value)
    assert len(bytes(seal(codec, payload("a" * 10_000)))) < 300  # type: ignore[arg-type]


def test_a_decompression_bomb_is_refused_before_it_bursts() -> None:
    bomb = plain(seal(PayloadCodec(Compress()), payload("a" * 2_000_000)))["$durable"]
    codec = PayloadCodec(Compress(max_size=1_000_000))
    with pytest.raises(PayloadTooBigError) as caught:
        open_(codec, payload({"$durable": bomb}))
    assert (caught.value.size, caught.value.limit) == (2_000_002, 1_000_000)
    lying = {**bomb, "codec": [{"zlib": {"size": 100}}]}
    with pytest.raises(PayloadTamperedError, match="size that it states"):
        open_(codec, payload({"$durable": lying}))


@pytest.mark.parametrize(
    "inner",
    [
        5,
        {},
        {"v": 2, "value": 1},
        {"v": 1, "value": 1, "codec": []},
        {"v": 1, "data": "YQ=="},
        {"v": 1, "codec": [{"zlib": {}}]},
        {"v": 1, "salt": "r", "codec": [{"zlib": {}, "aes-siv": {}}], "data": "YQ=="},
        {"v": 1, "context": [], "value": 1},
        {"v": 1, "value": 1, "odd": 1},
        {"v": 1, "salt": "r", "codec": [{"zlib": {"size": 1}}], "data": "YR=="},
    ],
)
def test_what_only_looks_like_an_envelope_is_no_value(inner: object) -> None:
    for codec in (PLAIN, PayloadCodec(Compress())):
        with pytest.raises(SealError):
            open_(codec, payload({"$durable": inner}))


def test_an_object_with_more_keys_is_no_envelope() -> None:
    value = payload({"$durable": {"v": 1}, "other": 1})
    assert open_(PLAIN, value).value == value


def test_a_stage_of_the_user_that_breaks_is_named() -> None:
    class Broken(Reverse):
        def seal(self, data: bytes, associated: bytes) -> tuple[bytes, Parameters]:
            raise OSError("no key service")

        def open(self, data: bytes, parameters: Parameters, associated: bytes) -> bytes:
            raise OSError("no key service")

    with pytest.raises(SealError, match=r"sealed by 'reverse'.*no key service"):
        seal(PayloadCodec(Broken()), payload(1))
    sealed = seal(PayloadCodec(Reverse()), payload(1))
    with pytest.raises(PayloadTamperedError, match=r"'reverse' cannot undo it.*no key service"):
        open_(PayloadCodec(Broken()), sealed)


def test_large_payloads_are_worked_on_beside_the_event_loop() -> None:
    async def scenario() -> int:
        codec = PayloadCodec(Compress(), Encrypt(ring("k1")))
        large = payload(["%x" % (i * 7919) for i in range(400_000)])
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        sealed = await codec.seal(large, salt=SALT)
        assert (await codec.open(sealed, what="it")).value == large
        counting.cancel()
        return turns

    assert run(scenario()) > 20


def test_mistakes_in_the_setup_are_told_at_once(tmp_path: Path) -> None:
    claims = ClaimCheck(FileBlobs(tmp_path))
    for mistake in (
        lambda: PayloadCodec(claims, Compress()),
        lambda: PayloadCodec(Compress(), Compress()),
        lambda: PayloadCodec(claims, claims),
        lambda: Keyring({}),
        lambda: Keyring({"": K1}),
        lambda: Keyring({"k1": K1}, current="k2"),
        lambda: Encrypt(Keyring({"k": b"short"})),
        lambda: Sign(Keyring({"k": b"short"})),
    ):
        with pytest.raises(RegistrationError):
            mistake()


def test_a_key_ring_does_not_print_its_keys() -> None:
    assert repr(ring("k1", "k2")) == "Keyring('k1', 'k2', current='k1')"


def test_without_cryptography_encryption_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cryptography.exceptions", None)
    with pytest.raises(RegistrationError, match=r"durable-worker\[encryption\]"):
        Encrypt(ring("k1"))


def test_the_envelopes_of_the_specification_open_and_are_written_as_they_stand_there() -> None:
    section = SPECIFICATION.read_text().split("## Payload envelope")[1].split("\n## ")[0]
    shown = [Raw(line.strip().encode()) for line in section.splitlines() if line[:5] == "    {"]
    value, context = Raw(b'{"amount":420}'), Raw(b'{"tenant":"acme"}')
    codec = PayloadCodec(Encrypt(ring("k1")))
    assert open_(PLAIN, shown[0]) == Opened(value, context)
    assert wrapped(value, context) == shown[0]
    assert open_(codec, shown[1]) == Opened(value)
    assert seal(codec, value) == shown[1]
