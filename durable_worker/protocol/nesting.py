"""How deeply JSON may be nested (protocol/README.md, "Encoding").

Readers of JSON give up at some depth, which differs between them and with where they are called.
What is well below that everywhere can be put into other messages, and is read by everybody.
"""

from itertools import accumulate
from typing import Final

MAX_DEPTH: Final = 500

_PASSES = 32
_BRACKETS = b"[]{}"
_ALL_BUT_BRACKETS = bytes(each for each in range(256) if each not in _BRACKETS)


def is_too_deep(text: bytes) -> bool:
    """Whether well-formed JSON is nested more than `MAX_DEPTH` levels deep. Nearly free for what
    is small, and a millisecond per megabyte for what is not."""
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return False
    brackets = text.translate(None, _ALL_BUT_BRACKETS)
    for _ in range(_PASSES):
        outer = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if not outer:
            return False
        if len(outer) == len(brackets):
            break
        brackets = outer
    return _depth(text) > MAX_DEPTH


def _depth(text: bytes) -> int:
    import re

    without_strings = re.sub(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', b"", text, flags=re.DOTALL)
    brackets = without_strings.translate(None, _ALL_BUT_BRACKETS)
    return max(accumulate(map(_steps.__getitem__, brackets)), default=0)


_steps = {each: 1 if each in b"[{" else -1 for each in _BRACKETS}
