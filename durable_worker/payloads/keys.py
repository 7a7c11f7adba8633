"""The key of a stage, by the id that travels."""

from durable_worker.edge.errors import PayloadKeyMissingError
from durable_worker.protocol.keys import Keyring


def stage_key(ring: Keyring, key_id: str, *, stage: str) -> bytes:
    """Raises `PayloadKeyMissingError`."""
    key = ring.find(key_id)
    if key is None:
        raise PayloadKeyMissingError(stage, key_id, list(ring.ids))
    return key
