"""User values to JSON bytes and back, by annotation.

Handled natively by msgspec: primitives, collections, `Struct`, dataclass, attrs, `TypedDict`,
`NamedTuple`, `Enum`, `datetime`, `UUID`, `Decimal`, `bytes` (base64). Pydantic models are handled
where Pydantic is already imported.
"""

import math
import sys
from typing import Any, Generic, TypeGuard, TypeVar, cast

import msgspec
from msgspec import UNSET, Raw, UnsetType

from durable_worker.errors import PayloadError
from durable_worker.protocol.base import Payload
from durable_worker.protocol.nesting import MAX_DEPTH, is_too_deep

T = TypeVar("T")

_NULL = Raw(b"null")


def _pydantic_base() -> type[Any] | None:
    # A value can only be a Pydantic model if its module has imported Pydantic already.
    pydantic = sys.modules.get("pydantic")
    return None if pydantic is None else cast("type[Any]", pydantic.BaseModel)


def _encode_hook(value: Any) -> Any:
    base = _pydantic_base()
    if base is not None and isinstance(value, base):
        return value.model_dump(mode="json", by_alias=True)
    raise TypeError(f"a value of type {type(value).__qualname__!r} cannot be written as JSON")


def _decode_hook(wanted: type[Any], value: Any) -> Any:
    base = _pydantic_base()
    if base is not None and issubclass(wanted, base):
        # As JSON, so that a strict model still takes a date or a UUID from its text.
        return wanted.model_validate_json(msgspec.json.encode(value))
    raise TypeError(f"a {wanted!r} cannot be read from JSON")


_encoder = msgspec.json.Encoder(enc_hook=_encode_hook)


def encode_payload(value: object, *, what: str) -> Payload:
    """JSON of `value`; UNSET for None.

    Raises `PayloadError` (with `what` as its subject) if the value has no JSON form, NaN and
    infinities included: JSON has none, and msgspec would quietly write null.
    """
    if value is None:
        return UNSET
    if isinstance(value, Raw):
        return value
    try:
        encoded = _encoder.encode(value)
        if b"null" in encoded:
            _refuse_non_finite(msgspec.to_builtins(value, enc_hook=_encode_hook), "$")
        if not encoded.isascii():
            encoded.decode()
        if len(encoded) > MAX_DEPTH and is_too_deep(encoded):
            raise RecursionError
    except PayloadError:
        raise
    except RecursionError as error:
        raise PayloadError(
            what, f"the value contains itself or is nested more than {MAX_DEPTH} levels deep"
        ) from error
    except Exception as error:  # user types: properties, enc hooks and __str__ may raise anything
        raise PayloadError(what, _reason(error)) from error
    return Raw(encoded)


def _refuse_non_finite(value: Any, path: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise PayloadError(f"the number at `{path}`", f"{value} has no JSON form")
    if _is_object(value):
        for key, item in value.items():
            _refuse_non_finite(item, f"{path}.{key}")
    elif _is_array(value):
        for index, item in enumerate(value):
            _refuse_non_finite(item, f"{path}[{index}]")


def _is_object(value: Any) -> TypeGuard[dict[Any, Any]]:
    return isinstance(value, dict)


def _is_array(value: Any) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    return isinstance(value, (list, tuple))


def _reason(error: BaseException) -> str:
    try:
        return str(error) or type(error).__qualname__
    except Exception:  # an exception whose __str__ raises is still an exception to report
        return type(error).__qualname__


class PayloadDecoder(Generic[T]):
    """Reads payloads of one annotated type."""

    def __init__(self, wanted: type[T]) -> None:
        try:
            self._decoder = msgspec.json.Decoder(wanted, dec_hook=_decode_hook)
        except Exception as error:  # resolving a user's annotations may raise anything
            raise PayloadError(f"the annotation {wanted!r}", _reason(error)) from error

    def decode(self, payload: Payload, *, what: str) -> T:
        """Raises `PayloadError` with the path and the expected type if the value does not fit."""
        raw = _NULL if isinstance(payload, UnsetType) else payload
        try:
            return self._decoder.decode(raw)
        except Exception as error:  # validators of user types may raise anything
            raise PayloadError(what, _reason(error)) from error


_untyped: PayloadDecoder[Any] = PayloadDecoder(cast("type[Any]", Any))
_MOST_DECODERS = 2_000
_by_type: dict[Any, PayloadDecoder[Any]] = {}


def decoder_for(wanted: Any) -> PayloadDecoder[Any]:
    """The (cached) decoder of an annotation; None and `Any` leave the value as plain JSON."""
    if wanted is None or wanted is Any:
        return _untyped
    try:
        found = _by_type.get(wanted)
    except TypeError:  # an unhashable annotation, such as Annotated with a list in it
        return PayloadDecoder(wanted)
    if found is None:
        if len(_by_type) >= _MOST_DECODERS:
            _by_type.clear()  # types made anew on every call would fill it without end
        found = _by_type[wanted] = PayloadDecoder(wanted)
    return found


def plain_json(payload: Payload) -> Any:
    """The value as plain lists, dicts and scalars; None if it is absent or not JSON."""
    if isinstance(payload, UnsetType):
        return None
    try:
        return msgspec.json.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
