"""Instants and durations in words."""

from datetime import UTC, datetime, timedelta

from durable_worker.errors import PayloadError

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def in_words(duration: timedelta) -> str:
    """Two digits of what matters: `12 ms`, `3.4 s`, `5 min 10 s`, `2 h`, `3 d 4 h`."""
    seconds = max(0.0, duration.total_seconds())
    if seconds < 0.9995:
        return f"{round(seconds * 1000)} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, smaller, sub_unit in (
        (_DAY, "d", _HOUR, "h"),
        (_HOUR, "h", _MINUTE, "min"),
        (_MINUTE, "min", 1, "s"),
    ):
        if whole >= size:
            count, rest = divmod(whole, size)
            return f"{count} {unit}" + (f" {rest // smaller} {sub_unit}" if rest // smaller else "")
    return f"{whole} s"


_EARLIEST = datetime(1, 1, 3, tzinfo=UTC)
_LATEST = datetime(9999, 12, 29, tzinfo=UTC)
"""Instants that have a date in every time zone."""


def instant(iso: str) -> datetime:
    """An instant as an operator tells it, in ISO 8601. Raises `PayloadError`."""
    try:
        parsed = datetime.fromisoformat(iso)
    except ValueError as error:
        raise PayloadError("a time that the operator tells", f"is no date: {error}") from error
    return _held(parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC))


def at_ms(epoch_ms: int) -> datetime:
    try:
        return _held(datetime.fromtimestamp(epoch_ms / 1000, UTC))
    except (ValueError, OverflowError, OSError):
        return _LATEST if epoch_ms > 0 else _EARLIEST


def _held(moment: datetime) -> datetime:
    return max(_EARLIEST, min(moment, _LATEST))


def local_time(moment: datetime) -> str:
    """Date and time on this machine's clock."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def clock_time(moment: datetime) -> str:
    """Time of day on this machine's clock, with milliseconds."""
    return moment.astimezone().strftime("%H:%M:%S.%f")[:-3]
