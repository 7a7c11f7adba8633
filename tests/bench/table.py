"""The rows as text for a terminal, as Markdown for the README, and as JSON."""

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.figures import Row

HEAD = f"{'key':<28}{'median':>10}  {'unit':<8}{'min - max':>19}  {'reach':>8}  reached"


def line(row: Row) -> str:
    reading = row.reading
    start = f"{row.target.key:<28}"
    if reading is None:
        return (
            f"{start}{'-':>10}  {row.target.unit:<8}{'':>19}  {row.target.reach:>8}  {row.reason}"
        )
    spread = f"{number(min(reading.samples))} - {number(max(reading.samples))}"
    return (
        f"{start}{number(reading.value):>10}  {row.target.unit:<8}{spread:>19}  "
        f"{row.target.reach:>8}  {_yes(row.is_reached):<7}  {_details(row)}"
    ).rstrip()


def number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _yes(is_reached: bool | None) -> str:
    return {True: "yes", False: "NO", None: ""}[is_reached]


def _details(row: Row) -> str:
    assert row.reading is not None
    sides = "; ".join(
        f"{side.name} {number(side.median)} {side.unit}" for side in row.reading.sides
    )
    return "; ".join(part for part in (sides, row.reading.note) if part)


def to_json(rows: Sequence[Row], *, is_quick: bool) -> str:
    """Each key with its value, null where there is none; all about them under `rows`."""
    document: dict[str, Any] = {
        row.target.key: None if row.reading is None else row.reading.value for row in rows
    }
    document["machine"] = {
        "quick": is_quick,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
    }
    document["rows"] = [_to_dict(row) for row in rows]
    return json.dumps(document, indent=2) + "\n"


def _to_dict(row: Row) -> dict[str, Any]:
    reading = row.reading
    return {
        "key": row.target.key,
        "what": row.target.what,
        "unit": row.target.unit,
        "reach": row.target.reach,
        "is_reached": row.is_reached,
        "value": None if reading is None else reading.value,
        "samples": [] if reading is None else reading.samples,
        "sides": []
        if reading is None
        else [
            {"name": side.name, "unit": side.unit, "median": side.median, "samples": side.samples}
            for side in reading.sides
        ],
        "note": row.reason if reading is None else reading.note,
    }


def markdown(document: Mapping[str, Any]) -> str:
    """The table of a bench.json, and what it was measured on."""
    machine = document["machine"]
    command = "make bench-quick" if machine["quick"] else "make bench"
    lines = [
        f"`{command}` on {machine['processor']}, Python {machine['python']}; medians:",
        "",
        "| Figure | What | Median | Min - max | Reach | Measured |",
        "|---|---|---|---|---|---|",
    ]
    for row in document["rows"]:
        sides = ", ".join(
            f"{side['name']} {number(side['median'])} {side['unit']}" for side in row["sides"]
        )
        value, spread = "not measured", ""
        if row["value"] is not None:
            value = f"{number(row['value'])} {row['unit']}"
            spread = f"{number(min(row['samples']))} - {number(max(row['samples']))}"
        told = "; ".join(part for part in (sides, row["note"]) if part).replace("|", "\\|")
        lines.append(
            f"| `{row['key']}` | {row['what']} | {value} | {spread} | {row['reach']} | {told} |"
        )
    return "\n".join(lines)


def _processor() -> str:
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    models = [
        text.partition(":")[2].strip() for text in cpuinfo.splitlines() if "model name" in text
    ]
    return f"{len(models)} x {models[0]}" if models else platform.processor()
