"""Keys for tests, the same in every process."""

from durable_worker.payloads import Keyring

K1 = bytes(range(64))
K2 = bytes(range(64, 128))


def ring(*ids: str, current: str | None = None) -> Keyring:
    return Keyring({each: {"k1": K1, "k2": K2}[each] for each in ids}, current=current)
