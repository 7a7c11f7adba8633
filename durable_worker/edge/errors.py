"""Why a payload cannot be opened or sealed (protocol/README.md, "Payload envelope")."""

from collections.abc import Sequence

from durable_worker.errors import DurableError


class SealError(DurableError):
    """Base of what goes wrong between a value and its sealed form.

    `what` names the payload, `reason` says what happened to it. `is_retryable`: another process, or
    a later attempt, may be able to do it.
    """

    code = "payload-seal"
    is_retryable = False

    def __init__(self, reason: str, *, what: str = "the payload") -> None:
        super().__init__(reason)
        self.what = what
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.what} {self.reason}"


class PayloadSealedError(SealError):
    """A payload is sealed in a way that this process knows nothing of."""

    code = "payload-sealed"
    is_retryable = True


class PayloadKeyMissingError(SealError):
    """A payload is sealed with a key that this process does not have.

    Attributes: `stage`, `key` (its id), `known` (the ids that are there).
    """

    code = "payload-key-missing"
    is_retryable = True

    def __init__(self, stage: str, key: str, known: Sequence[str]) -> None:
        super().__init__(
            f"is sealed by {stage} with key {key!r}, and this process has only "
            f"{', '.join(map(repr, known))}; add {key!r} to its key ring"
        )
        self.stage = stage
        self.key = key
        self.known = tuple(known)


class PayloadTamperedError(SealError):
    """A payload is not what was sealed: changed, damaged, or under another key of the same id."""

    code = "payload-tampered"

    def __init__(self, reason: str) -> None:
        super().__init__(f"was changed on its way, or was damaged: {reason}")


class PayloadNotSealedError(SealError):
    """A payload came without the protection that this process demands."""

    code = "payload-not-sealed"

    def __init__(self, missing: Sequence[str]) -> None:
        super().__init__(
            f"is not sealed by {' and '.join(missing)}, as this process demands: whoever sent it "
            f"has another codec or none. `PayloadCodec(..., accept_plain=True)` lets it in"
        )
        self.missing = tuple(missing)


class PayloadTooBigError(SealError):
    """A payload would be larger, once it is open, than this process allows. Sizes in bytes."""

    code = "payload-too-big"

    def __init__(self, *, size: int, limit: int) -> None:
        super().__init__(
            f"has {size:,} bytes or more once it is opened, the limit is {limit:,}; raise "
            f"`max_size` where it is set, if that is what was sent"
        )
        self.size = size
        self.limit = limit


class BlobMissingError(SealError):
    """A payload travels as a reference, and its store does not hold it."""

    code = "blob-missing"
    is_retryable = True

    def __init__(self, key: str, place: str) -> None:
        super().__init__(
            f"is stored outside the message as {key!r}, which {place} does not hold: it was "
            f"deleted before its run ended, or this process looks into another store"
        )
        self.key = key
        self.place = place


class BlobStoreError(SealError):
    """The store of large payloads cannot be read or written."""

    code = "blob-store"
    is_retryable = True

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"is stored outside the message, and {place} fails: {reason}")
        self.place = place
