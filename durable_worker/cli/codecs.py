"""From `module:attribute` to a PayloadCodec."""

from durable_worker.cli.targets import loaded
from durable_worker.edge.plain import Codec
from durable_worker.errors import InvalidModuleError
from durable_worker.payloads.codec import PayloadCodec
from durable_worker.worker.registry import Worker


def load_codec(target: str) -> Codec:
    """As `load_worker`; a Worker stands for the codec that it has. Raises `InvalidModuleError`."""
    found, candidates = loaded(target, _is_codec)
    if isinstance(found, Worker) and found.codec is not None:
        return found.codec
    if not isinstance(found, PayloadCodec):
        kind = type(found).__name__
        raise InvalidModuleError(target, f"it is of type {kind}, not a PayloadCodec.", candidates)
    return found


def _is_codec(value: object) -> bool:
    return isinstance(value, PayloadCodec)
