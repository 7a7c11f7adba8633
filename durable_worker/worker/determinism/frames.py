"""Whose code a frame runs."""

import os
from collections.abc import Iterable
from enum import Enum, auto
from types import FrameType

_OURS = os.path.dirname(os.path.dirname(os.path.dirname(__file__))) + os.sep
_STANDARD = os.path.dirname(os.__file__) + os.sep
_MADE_UP = ("<frozen ", "<attrs ")
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


class Whose(Enum):
    USERS = auto()
    OURS = auto()
    STANDARD = auto()
    """The standard library, and code that has no file because something made it up."""
    LIBRARY = auto()


class Frames:
    """`bodies` are the functions whose packages are the user's, wherever they are installed."""

    def __init__(self, bodies: Iterable[object]) -> None:
        self._packages = {_top(getattr(body, "__module__", "")) for body in bodies} - {""}

    def whose(self, frame: FrameType) -> Whose:
        code = frame.f_code
        file = code.co_filename
        if file.startswith(_OURS):
            return Whose.OURS
        if file.startswith("<") and (code.co_name.startswith("__") or file.startswith(_MADE_UP)):
            return Whose.STANDARD
        if module_of(frame) in self._packages:
            return Whose.USERS
        if any(part in file for part in _INSTALLED):
            return Whose.LIBRARY
        if file.startswith(_STANDARD):
            return Whose.STANDARD
        return Whose.USERS


def module_of(frame: FrameType) -> str:
    """The top-level module that the code of `frame` belongs to."""
    return _top(frame.f_globals.get("__name__"))


def _top(module: object) -> str:
    return module.partition(".")[0] if isinstance(module, str) else ""


def place_in(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
