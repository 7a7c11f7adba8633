"""Files that hold keys."""

from pathlib import Path

from durable_worker.errors import UsageError
from durable_worker.protocol.keys import Keyring, parse_keyring


def keyring_in(path: Path) -> Keyring:
    """Raises `UsageError`, which tells nothing of what is in it."""
    try:
        document = path.read_bytes()
    except OSError as error:
        raise UsageError(f"the key file {path} cannot be read: {error.strerror}.") from None
    return parse_keyring(document, source=f"the key file {path}")
