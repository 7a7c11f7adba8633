"""Keys and the ids that travel instead of them."""

from collections.abc import Mapping

from durable_worker.edge.errors import PayloadKeyMissingError
from durable_worker.errors import RegistrationError


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

    def sizes(self) -> Mapping[str, int]:
        return {each: len(key) for each, key in self._keys.items()}

    def key(self, key_id: str, *, stage: str) -> bytes:
        """Raises `PayloadKeyMissingError`."""
        try:
            return self._keys[key_id]
        except KeyError:
            raise PayloadKeyMissingError(stage, key_id, list(self._keys)) from None
