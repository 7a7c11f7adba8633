"""The database: for whoever runs it."""

from durable_worker.errors.base import DurableError


class StoreError(DurableError):
    """The database cannot be opened, read or written."""

    code = "store"


class StoreUnavailableError(StoreError):
    """The database cannot be reached at present, or has no connection left; nothing else is wrong
    with it, so it may be there again soon."""


class StoreFullError(StoreError):
    """The disk that holds the database is full; nothing was written."""

    code = "store-full"


class LeaseLostError(StoreError):
    """Another operator has taken over this database; this one must stop writing."""

    code = "lease-lost"


class StaleRunsError(StoreError):
    """Another operator was faster with something that this transaction rests on; nothing was
    written. What it applies has to be applied again, to what there is now."""
