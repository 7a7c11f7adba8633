"""Bad messages out of good ones: a document is taken apart, spoiled in a few places, written again.

Random bytes hardly get past the first brace. What breaks programs is a message that is right but
for one thing, so that is what is made here, with a few bytes flipped now and then.
"""

import json
from collections.abc import Callable
from random import Random
from typing import Any

_JUST_DEEP = 985
"""Nested just so deeply that it can be read here and cannot be read inside something else."""

_LARGE = 200_000

FRAGMENTS: tuple[bytes, ...] = (
    b"null",
    b"true",
    b"[]",
    b"{}",
    b'""',
    b"0",
    b"-0",
    b"-1",
    b"1.0",
    b"1e3",
    b"1e400",
    b"-1e400",
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"0.1e-999",
    b"01",
    b"2147483648",
    b"9007199254740991",
    b"9007199254740992",
    b"-9007199254740992",
    b"9223372036854775808",
    b"18446744073709551616",
    b"9" * 30,
    b"9" * 5_000,
    b"-" + b"9" * 5_000,
    b'"\\ud800"',
    b'"\\udc00\\ud800"',
    b'"\xff"',
    b'"\xed\xa0\x80"',
    b'"\xf5\x80\x80\x80"',
    b'"\\u0000"',
    b'"\x00"',
    b'"\\q"',
    b'"a\nb"',
    b'"\\u001b[31m\\r\\nforged"',
    b'"' + "é".encode() * 200 + b'"',
    b'"' + b"x" * 300 + b'"',
    b'"' + b"x" * 70_000 + b'"',
    b'"default"',
    b'"run-1"',
    b'"run-1#1"',
    b'"run-1:0"',
    b'"run-1.child.2"',
    b"[" * _JUST_DEEP + b"]" * _JUST_DEEP,
    b'{"a":' * 3_000 + b"1" + b"}" * 3_000,
    b"[" * 5_000,
    b'{"$durable":{"v":1}}',
    b'{"$durable":{"v":1,"value":{"$durable":1}}}',
    b'{"$durable":{"v":2,"data":""}}',
    b'{"$durable":{"v":1,"salt":"r","codec":[{"zlib":{"size":9}}],"data":"eJw="}}',
    b'{"__proto__":{"x":1}}',
    b"\xef\xbb\xbf1",
    b"",
)

KEYS = (
    "runId", "seq", "stepId", "taskId", "kind", "commands", "history", "error", "output", "input",
    "events", "name", "group", "attempt", "status", "tenant", "body", "query", "retry", "context",
    "at", "ms", "signal", "workflow", "", "__proto__", "a\\u0000b", "\\ud800",
)  # fmt: skip


class Pairs(list[tuple[str, Any]]):
    """An object whose keys may repeat."""


class Fragment(bytes):
    """JSON, or what only looks like it, that is written as it is."""


def parsed(body: bytes) -> Any:
    """Raises `ValueError`, `RecursionError`."""
    return json.loads(body, object_pairs_hook=Pairs)


def written(value: Any) -> bytes:
    match value:
        case Fragment():
            return bytes(value)
        case Pairs():
            return b"{" + b",".join(_key(k) + b":" + written(v) for k, v in value) + b"}"
        case list():
            return b"[" + b",".join(map(written, value)) + b"]"
        case _:
            return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _key(key: str) -> bytes:
    # Keys of the list above hold escapes that are to be written as they are.
    return b'"' + key.encode("utf-8", "surrogatepass").replace(b'"', b'\\"') + b'"'


def mutated(body: bytes, random: Random, *, most: int = 4) -> bytes:
    """The document with one to `most` places spoiled."""
    try:
        document = parsed(body)
    except (ValueError, RecursionError):
        return _spoiled_bytes(body, random)
    made = body
    for _ in range(random.randint(1, most)):
        document = _spoiled(document, random)
        try:
            made = written(document)
        except RecursionError:
            return made
        if len(made) > _LARGE:
            break  # twice as many of them a thousand times over would not fit anywhere
    return _spoiled_bytes(made, random) if random.random() < 0.1 else made


def _spoiled(document: Any, random: Random) -> Any:
    places = list(_places(document))
    if not places:
        return Fragment(random.choice(FRAGMENTS))
    holder, index = random.choice(places)
    random.choice(_MUTATORS)(holder, index, random)
    return document


def _places(value: Any) -> list[tuple[list[Any], int]]:
    found: list[tuple[list[Any], int]] = []
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            for index, item in enumerate(one):
                found.append((one, index))
                waiting.append(item[1] if isinstance(one, Pairs) else item)
    return found


def _put(holder: list[Any], index: int, value: Any) -> None:
    holder[index] = (holder[index][0], value) if isinstance(holder, Pairs) else value


def _replace(holder: list[Any], index: int, random: Random) -> None:
    _put(holder, index, Fragment(random.choice(FRAGMENTS)))


def _drop(holder: list[Any], index: int, random: Random) -> None:
    del holder[index]


def _repeat(holder: list[Any], index: int, random: Random) -> None:
    holder.insert(random.randint(0, len(holder)), holder[index])
    if random.random() < 0.5:
        _replace(holder, index, random)


def _multiply(holder: list[Any], index: int, random: Random) -> None:
    holder[index:index] = [holder[index]] * random.choice((2, 20, 200))


def _rename(holder: list[Any], index: int, random: Random) -> None:
    if isinstance(holder, Pairs):
        holder[index] = (random.choice(KEYS), holder[index][1])


def _invent(holder: list[Any], index: int, random: Random) -> None:
    value = Fragment(random.choice(FRAGMENTS))
    holder.insert(index, (random.choice(KEYS), value) if isinstance(holder, Pairs) else value)


def _wrap(holder: list[Any], index: int, random: Random) -> None:
    value = holder[index][1] if isinstance(holder, Pairs) else holder[index]
    _put(holder, index, [value] if random.random() < 0.5 else Pairs([("value", value)]))


_MUTATORS: tuple[Callable[[list[Any], int, Random], None], ...] = (
    _replace,
    _replace,
    _replace,
    _drop,
    _repeat,
    _multiply,
    _rename,
    _invent,
    _wrap,
)


def _spoiled_bytes(body: bytes, random: Random) -> bytes:
    made = bytearray(body or b"{}")
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(made) + 1)
        match random.randrange(4):
            case 0:
                del made[at : at + random.randint(1, 8)]
            case 1:
                made[at:at] = random.randbytes(random.randint(1, 4))
            case 2:
                made[at:at] = random.choice(FRAGMENTS)
            case _:
                del made[at:]
    return bytes(made)
