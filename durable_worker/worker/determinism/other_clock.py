"""Another time than the real one, for a process that does nothing but replay bodies.

It is always this much later. The methods of `datetime`, which are written in C and read the system
clock, are replaced where their class keeps them.
"""

import ctypes
import datetime
import gc
import time
from collections.abc import Callable
from typing import Any

SHIFT = datetime.timedelta(days=403, hours=7, minutes=13, seconds=17, microseconds=250_250)
_SECONDS = SHIFT.total_seconds()
_NANOSECONDS = SHIFT // datetime.timedelta(microseconds=1) * 1_000

_FLOATS = ("time", "monotonic", "perf_counter")
_TAKE_A_TIME = ("gmtime", "localtime", "ctime")


def shift_clock() -> None:
    """Call it before anything imports one of these functions by name. Not to be undone."""
    real_now = datetime.datetime.now
    for name in _FLOATS:
        _shift(name, _SECONDS)
        _shift(f"{name}_ns", _NANOSECONDS)
    for name in _TAKE_A_TIME:
        _default_to_shifted(name)

    def now(cls: type[datetime.datetime], tz: datetime.tzinfo | None = None) -> datetime.datetime:
        moment = (real_now(datetime.UTC) + SHIFT).timestamp()
        return cls.fromtimestamp(moment, tz)

    def utcnow(cls: type[datetime.datetime]) -> datetime.datetime:
        moment = real_now(datetime.UTC) + SHIFT
        return cls.fromtimestamp(moment.timestamp(), datetime.UTC).replace(tzinfo=None)

    _replace(datetime.datetime, {"now": classmethod(now), "utcnow": classmethod(utcnow)})


def _shift(name: str, shift: float) -> None:
    real: Callable[[], float] = getattr(time, name)

    def shifted() -> float:
        return real() + shift

    setattr(time, name, shifted)


def _default_to_shifted(name: str) -> None:
    real: Callable[[float], Any] = getattr(time, name)

    def shifted(seconds: float | None = None, /) -> Any:
        return real(time.time() if seconds is None else seconds)

    setattr(time, name, shifted)


def _replace(cls: type, methods: dict[str, object]) -> None:
    found: list[Any] = [each for each in gc.get_referents(cls.__dict__) if type(each) is dict]
    if len(found) == 1:
        found[0].update(methods)
        ctypes.pythonapi.PyType_Modified(ctypes.py_object(cls))
