"""Stage `aes-siv`: AES-SIV (RFC 5297), authenticated and deterministic."""

from importlib import import_module
from typing import Any, Protocol

from durable_worker.edge.errors import PayloadTamperedError
from durable_worker.errors import RegistrationError
from durable_worker.payloads.keys import stage_key
from durable_worker.payloads.stages import text_parameter
from durable_worker.protocol.keys import Keyring
from durable_worker.protocol.payload_envelope import Parameters

KEY_SIZES = (32, 48, 64)


class _Cipher(Protocol):
    def encrypt(self, data: bytes, associated_data: list[bytes] | None) -> bytes: ...
    def decrypt(self, data: bytes, associated_data: list[bytes] | None) -> bytes: ...


class Encrypt:
    """Encrypts with the current key of `ring`; keys have 32, 48 or 64 random bytes.

    Equal payloads of one run give equal ciphertext, which a worker that repeats its commands needs;
    those of different runs do not. Needs `durable-worker[encryption]`. Raises `RegistrationError`
    without it, or for a key of another size.
    """

    name = "aes-siv"
    protects = True

    def __init__(self, ring: Keyring) -> None:
        for key_id, size in ring.sizes().items():
            if size not in KEY_SIZES:
                raise RegistrationError(
                    f"key {key_id!r} has {size} bytes; encryption needs 32, 48 or 64 random ones "
                    f"(`secrets.token_bytes(64)`)"
                )
        try:
            aead: Any = import_module("cryptography.hazmat.primitives.ciphers.aead")
            self._invalid: type[Exception] = import_module("cryptography.exceptions").InvalidTag
        except ImportError as error:
            raise RegistrationError(
                "encryption needs the package `cryptography`: pip install "
                "'durable-worker[encryption]'"
            ) from error
        self._make: Any = aead.AESSIV
        self._ring = ring
        self._ciphers: dict[str, _Cipher] = {}

    def seal(self, data: bytes, associated: bytes) -> tuple[bytes, Parameters]:
        key_id = self._ring.current
        return self._cipher(key_id).encrypt(data, [associated]), {"key": key_id}

    def open(self, data: bytes, parameters: Parameters, associated: bytes) -> bytes:
        key_id = text_parameter(parameters, "key")
        try:
            return self._cipher(key_id).decrypt(data, [associated])
        except self._invalid as error:
            raise PayloadTamperedError(
                f"it is not what was sealed with key {key_id!r}; or another key has this id"
            ) from error

    def _cipher(self, key_id: str) -> _Cipher:
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            key = stage_key(self._ring, key_id, stage=self.name)
            cipher = self._ciphers[key_id] = self._make(key)
        return cipher
