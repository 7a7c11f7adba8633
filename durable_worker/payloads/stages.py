"""One step from a payload's JSON to the bytes that travel."""

import base64
import binascii
from typing import Protocol

from durable_worker.edge.errors import PayloadTamperedError
from durable_worker.protocol.payload_envelope import Parameters


class Stage(Protocol):
    """Has to be deterministic: a worker repeats what it asks for, and the bytes must not change.

    `name` travels. `protects`: nobody without the key can make or change what this has sealed.
    `associated` (the salt and the stages before this one) has to be proven by a stage that
    protects. Both methods may run in a thread.
    """

    @property
    def name(self) -> str: ...
    @property
    def protects(self) -> bool: ...

    def seal(self, data: bytes, associated: bytes) -> tuple[bytes, Parameters] | None:
        """The new bytes and what `open` needs besides keys; None to leave the data as it is."""
        ...

    def open(self, data: bytes, parameters: Parameters, associated: bytes) -> bytes:
        """Raises `SealError`."""
        ...


def text_parameter(parameters: Parameters, name: str) -> str:
    value = parameters.get(name)
    if not isinstance(value, str):
        raise PayloadTamperedError(f"the parameter {name!r} is missing or is no text")
    return value


def to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def from_base64(text: str) -> bytes:
    """Raises `PayloadTamperedError`, also for another spelling of the same bytes."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise PayloadTamperedError(f"it is not base64, {error}") from error
    if to_base64(data) != text:
        raise PayloadTamperedError("it is not base64 as it was written")
    return data
