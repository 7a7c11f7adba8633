"""What can be read of a JSON object that cannot be read as a whole."""

import re
from collections.abc import Iterable

from msgspec import Raw

MOST_TOKENS = 200_000
"""Strings and runs of brackets that are looked at: some tenths of a second."""

# Possessive, so that a string without an end costs no second look at each of its bytes.
_string = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+'
_tokens = re.compile(_string + rb'(?:"|\Z)|[\[{]+|[\]}]+', re.DOTALL)
_scalar = re.compile(rb"\s*+:\s*+(" + _string + rb'"|-?[0-9]++(?![.eE]))', re.DOTALL)


def top_level(body: bytes, keys: Iterable[str], names: Iterable[str]) -> dict[str, Raw]:
    """The strings and integers under these keys of the outermost object, by the names given.

    For what is cut off, nested too deeply or not UTF-8. As everywhere, the last of equal keys
    counts. Keys that are written with escapes are not found.
    """
    wanted = {f'"{key}"'.encode(): name for key, name in zip(keys, names, strict=True)}
    found: dict[str, Raw] = {}
    depth = 0
    for count, token in enumerate(_tokens.finditer(body)):
        if count >= MOST_TOKENS:
            break
        text = token[0]
        match text[:1]:
            case b"[" | b"{":
                depth += len(text)
            case b"]" | b"}":
                depth -= len(text)
            case _ if depth == 1 and text in wanted:
                value = _scalar.match(body, token.end())
                if value is not None:
                    found[wanted[text]] = Raw(value[1])
            case _:
                pass
    return found
