"""Keys and the ids that travel instead of them."""

import re
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from durable_worker.errors import RegistrationError, UsageError

SMALLEST_KEY = 32
"""Bytes of a key that messages or tokens are signed with."""

_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_WHAT_IDS_ARE = " 1 to 64 letters, digits, `-`, `_`"
_WHAT_KEYS_ARE = (
    f"signing needs {SMALLEST_KEY} random ones or more (`openssl rand -base64 {SMALLEST_KEY}`)"
)


class Keyring:
    """Key ids and keys: `current` (default: the first) seals, all of them open.

    To rotate, give every process the new key, then make it the current one everywhere, and drop the
    old one when no run and no stored payload needs it any more. An id travels in clear. Raises
    `RegistrationError` if `current` is not there.
    """

    def __init__(self, keys: Mapping[str, bytes], *, current: str | None = None) -> None:
        self._keys = dict(keys)
        if not self._keys or not all(self._keys):
            raise RegistrationError("a key ring needs a key, and each key an id")
        self.current = next(iter(self._keys)) if current is None else current
        if self.current not in self._keys:
            raise RegistrationError(
                f"the current key {self.current!r} is not in the key ring, which has "
                f"{', '.join(map(repr, self._keys))}"
            )

    def __repr__(self) -> str:
        return f"Keyring({', '.join(map(repr, self._keys))}, current={self.current!r})"

    @property
    def ids(self) -> Sequence[str]:
        return list(self._keys)

    def sizes(self) -> Mapping[str, int]:
        return {each: len(key) for each, key in self._keys.items()}

    def find(self, key_id: str) -> bytes | None:
        return self._keys.get(key_id)


def check_signing_ring(ring: Keyring) -> None:
    """Raises `RegistrationError` for a ring that cannot sign messages or tokens."""
    for key_id, size in ring.sizes().items():
        if not _KEY_ID.fullmatch(key_id):
            raise RegistrationError(f"the key id {key_id!r} cannot travel; ids are{_WHAT_IDS_ARE}")
        if size < SMALLEST_KEY:
            raise RegistrationError(f"key {key_id!r} has {size} bytes; {_WHAT_KEYS_ARE}")


class _KeyFile(Struct):
    keys: dict[str, str]
    current: str


def parse_keyring(document: bytes, *, source: str = "the key file") -> Keyring:
    """What a key file holds: `{"current": ID, "keys": {ID: BASE64, ...}}`.

    Raises `UsageError`, which tells of `source` and never what is in it: not even an id, since
    whoever mistakes one for the other has written a key there.
    """
    try:
        found = msgspec.json.decode(document, type=_KeyFile)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _unusable(
            source, f'expected {{"current": ID, "keys": {{ID: BASE64, ...}}}}: {error}'
        ) from None
    if found.current not in found.keys:
        raise _unusable(source, "`current` is none of the ids in `keys`")
    keys: dict[str, bytes] = {}
    for number, (key_id, text) in enumerate(found.keys.items(), start=1):
        if not _KEY_ID.fullmatch(key_id):
            raise _unusable(source, f"the id of key {number} is not{_WHAT_IDS_ARE}")
        try:
            key = a2b_base64(text.strip().encode(), strict_mode=True)
        except (Base64Error, UnicodeEncodeError):
            raise _unusable(source, f"key {number} is not base64") from None
        if len(key) < SMALLEST_KEY:
            raise _unusable(source, f"key {number} has {len(key)} bytes; {_WHAT_KEYS_ARE}")
        keys[key_id] = key
    return Keyring(keys, current=found.current)


def _unusable(source: str, reason: str) -> UsageError:
    return UsageError(f"{source} cannot be used: {reason}")
