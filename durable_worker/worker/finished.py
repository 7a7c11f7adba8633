"""Results of finished attempts, to answer a redelivery without running again."""

from collections import OrderedDict

from msgspec import UNSET

from durable_worker.protocol.results import StepResult

REMEMBERED = 2_000
"""Results that are kept at the most."""

REMEMBERED_BYTES = 32 * 1024 * 1024
"""Bytes of output in them at the most."""

Key = tuple[str, int]
"""Step id and attempt."""


class FinishedAttempts:
    """The most recent ones; the oldest give way."""

    def __init__(self) -> None:
        self._results: OrderedDict[Key, StepResult] = OrderedDict()
        self._bytes = 0

    def get(self, key: Key) -> StepResult | None:
        return self._results.get(key)

    def put(self, key: Key, result: StepResult) -> None:
        results = self._results
        if key in results:
            self._bytes -= _size(results.pop(key))
        results[key] = result
        self._bytes += _size(result)
        while len(results) > REMEMBERED or self._bytes > REMEMBERED_BYTES:
            self._bytes -= _size(results.popitem(last=False)[1])


def _size(result: StepResult) -> int:
    output = result.output
    return 0 if output is UNSET else len(output)
