"""Ports that stay ours while a server is down for a moment."""

import random
import socket

from tests.servers.faults import ServerUnavailableError

# Below the range that the kernel gives to outgoing connections.
PORTS = range(14_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Raises `ServerUnavailableError`."""
    found: list[int] = []
    # System randomness: a seeded global generator would give two sessions the same ports.
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise ServerUnavailableError(f"no {count} free ports between {PORTS.start} and {PORTS.stop}")
