"""Dead letters for human eyes."""

from collections.abc import Sequence

import msgspec

from durable_worker.cli.durations import instant, local_time
from durable_worker.cli.page import Block, Cell, Line, Table, Text
from durable_worker.protocol.letters import DeadLetterRecord

_MOST_BYTES = 4_096
"""Of a body that is not JSON."""

_BYTES_A_LINE = 16

_STYLES = {
    "failed-step": "red",
    "failed-run": "red",
    "kept": "yellow",
    "redriven": "green",
    "sent-again": "cyan",
}


def letter_table(letters: Sequence[DeadLetterRecord]) -> list[Block]:
    if not letters:
        return [Line(["no dead letters"])]
    rows: list[Sequence[Cell] | Line] = []
    for letter in letters:
        rows.append(
            [
                letter.id,
                local_time(instant(letter.received_at)),
                _status(letter),
                letter.type or "untyped",
                subject_of(letter),
            ]
        )
        rows.append(Line([Text(letter.reason, "dim")], indent=8))
    return [Table(["LETTER", "CAME", "STATUS", "TYPE", "ABOUT"], rows)]


def letter_page(letter: DeadLetterRecord, body: bytes) -> list[Block]:
    facts: list[tuple[str, Cell]] = [
        ("letter", letter.id),
        ("status", _status(letter)),
        ("came", local_time(instant(letter.received_at))),
        ("reason", Text(letter.reason, "red")),
        ("type", letter.type or "untyped"),
        ("about", subject_of(letter) or "nothing that is known here"),
    ]
    if letter.queue is not None:
        facts.append(("queue", letter.queue))
    if letter.message_id is not None:
        facts.append(("message", letter.message_id))
    if letter.redrives:
        facts.append(("redriven", _redrives(letter)))
    lines: list[Block] = [Line([Text(f"{name:<10}", "dim"), said]) for name, said in facts]
    for name, value in sorted((letter.headers or {}).items()):
        lines.append(Line([Text("header    ", "dim"), f"{name}: {value}"]))
    return [*lines, Line([]), *(Line([line]) for line in body_lines(body))]


def body_lines(body: bytes) -> list[str]:
    """JSON as a person reads it, anything else in hexadecimal."""
    try:
        return msgspec.json.format(body, indent=2).decode().splitlines()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _hexadecimal(body)


def _hexadecimal(body: bytes) -> list[str]:
    lines: list[str] = []
    for start in range(0, min(len(body), _MOST_BYTES), _BYTES_A_LINE):
        part = body[start : start + _BYTES_A_LINE]
        text = "".join(chr(each) if 32 <= each < 127 else "." for each in part)
        lines.append(f"{start:08x}  {part.hex(' '):<{3 * _BYTES_A_LINE}} {text}")
    if len(body) > _MOST_BYTES:
        lines.append(f"... {len(body) - _MOST_BYTES:,} more bytes; --json has them all")
    return lines or ["(empty)"]


def subject_of(letter: DeadLetterRecord) -> str:
    """What the letter is about, in words; empty if nobody knows."""
    if letter.run_id is None:
        return ""
    if letter.seq is not None:
        name = "a step" if letter.name is None else f"step {letter.name!r}"
        attempt = "" if letter.attempt is None else f", attempt {letter.attempt}"
        return f"{name} of run {letter.run_id} (seq {letter.seq}{attempt})"
    if letter.task_id is not None:
        return f"turn {letter.task_id} of run {letter.run_id}"
    return f"run {letter.run_id}"


def _status(letter: DeadLetterRecord) -> Text:
    return Text(letter.status, _STYLES.get(letter.status, ""))


def _redrives(letter: DeadLetterRecord) -> str:
    times = "once" if letter.redrives == 1 else f"{letter.redrives} times"
    if letter.redriven_at is None:
        return f"{times}, and failed again"
    return f"{times}, last at {local_time(instant(letter.redriven_at))}"
