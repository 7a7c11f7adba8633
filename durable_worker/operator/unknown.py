"""Requests of a kind that this release does not know: from a client that is newer."""

import msgspec
from msgspec import Struct

from durable_worker.protocol.base import Name
from durable_worker.protocol.runs import AnyRequest, RequestError, RequestResult, RunReply

_KNOWN = frozenset(str(each.__struct_config__.tag) for each in AnyRequest.__args__)
_LONGEST_KIND = 40


class _Body(Struct):
    kind: Name


class UnknownRequest(Struct, rename="camel"):
    request_id: Name
    tenant: str
    body: _Body

    def refusal(self) -> RunReply:
        kind = self.body.kind[:_LONGEST_KIND]
        message = f"this operator does not answer {kind} requests"
        error = RequestError(message=message, code="unsupported")
        return RunReply(request_id=self.request_id, result=RequestResult(ok=False, error=error))


_decoder = msgspec.json.Decoder(UnknownRequest)


def unknown_request(body: bytes) -> UnknownRequest | None:
    """None for what is no request, or one of a kind that is known and out of shape."""
    try:
        found = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return None if found.body.kind in _KNOWN else found
