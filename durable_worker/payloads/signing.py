"""Stage `hmac-sha256`: the data stays readable, a change does not stay unnoticed."""

import hashlib
import hmac

from durable_worker.edge.errors import PayloadTamperedError
from durable_worker.errors import RegistrationError
from durable_worker.payloads.keys import stage_key
from durable_worker.payloads.stages import from_base64, text_parameter, to_base64
from durable_worker.protocol.keys import Keyring
from durable_worker.protocol.payload_envelope import Parameters

SMALLEST_KEY = 16


class Sign:
    """Signs with the current key of `ring`; keys have 16 random bytes or more, 32 are right.

    `Encrypt` alone already proves where a payload comes from. Use other keys than for that. Raises
    `RegistrationError` for a key that is too short.
    """

    name = "hmac-sha256"
    protects = True

    def __init__(self, ring: Keyring) -> None:
        for key_id, size in ring.sizes().items():
            if size < SMALLEST_KEY:
                raise RegistrationError(
                    f"key {key_id!r} has {size} bytes; signing needs {SMALLEST_KEY} or more"
                )
        self._ring = ring

    def seal(self, data: bytes, associated: bytes) -> tuple[bytes, Parameters]:
        key_id = self._ring.current
        tag = to_base64(self._tag(key_id, data, associated))
        return data, {"key": key_id, "tag": tag}

    def open(self, data: bytes, parameters: Parameters, associated: bytes) -> bytes:
        key_id = text_parameter(parameters, "key")
        tag = from_base64(text_parameter(parameters, "tag"))
        if not hmac.compare_digest(tag, self._tag(key_id, data, associated)):
            raise PayloadTamperedError(
                f"it is not what was signed with key {key_id!r}; or another key has this id"
            )
        return data

    def _tag(self, key_id: str, data: bytes, associated: bytes) -> bytes:
        # With its length first, so that nothing can move from one part to the other.
        signed = b"".join((len(associated).to_bytes(8, "big"), associated, data))
        return hmac.digest(stage_key(self._ring, key_id, stage=self.name), signed, hashlib.sha256)
