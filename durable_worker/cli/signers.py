"""Signed messages, for commands that were given keys."""

from pathlib import Path

from durable_worker.cli.key_files import keyring_in
from durable_worker.cli.options import Signing
from durable_worker.protocol.names import Names
from durable_worker.transports.base import Transport
from durable_worker.transports.signing import SigningMode, SigningTransport


def signed(transport: Transport, names: Names, *, keys: Path, mode: Signing) -> Transport:
    """Raises `UsageError`."""
    ring = keyring_in(keys)
    return SigningTransport(transport, ring, names=names, mode=SigningMode(mode.value))
