import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import environments, table
from tests.bench.__main__ import rows_of, time_limit
from tests.bench.context import Bench
from tests.bench.figures import Pairs, Reading, Row, Side, Target, UnavailableError
from tests.bench.registry import Measurement, measurements

AT_LEAST = Target("speed", "steps/s over a peer", at_least=8)
AT_MOST = Target("cost", "CPU per step", "us", at_most=100)
TOLD = Target("plain", "a figure without a reach", "ms")


def rows_for(*targets: Target, measure: object) -> list[Row]:
    with Bench() as bench:
        return rows_of(Measurement(targets, measure), bench)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("target", "value", "is_reached"),
    [
        (AT_LEAST, 8.0, True),
        (AT_LEAST, 7.9, False),
        (AT_MOST, 100.0, True),
        (AT_MOST, 100.1, False),
        (TOLD, 1.0, None),
    ],
)
def test_a_reach_is_judged_in_its_direction(
    target: Target, value: float, is_reached: bool | None
) -> None:
    assert Row(target, Reading(target.key, (value,))).is_reached is is_reached


def test_a_reading_is_the_median_of_the_ratios_pair_by_pair() -> None:
    pairs = Pairs(ours=[10.0, 30.0, 80.0], theirs=[10.0, 10.0, 20.0])
    reading = pairs.reading("speed", "steps/s", ("ours", "peer"))
    assert reading == Reading(
        "speed",
        (1.0, 3.0, 4.0),
        (
            Side("ours", "steps/s", (10.0, 30.0, 80.0)),
            Side("peer", "steps/s", (10.0, 10.0, 20.0)),
        ),
    )
    assert (reading.value, reading.sides[0].median) == (3.0, 30.0)


def test_a_peer_that_cannot_be_had_leaves_a_row_that_says_why() -> None:
    def measure(bench: Bench) -> Iterator[Reading]:
        yield Reading("cost", (50.0,))
        raise UnavailableError("peer cannot be installed:\n no network")

    assert rows_for(AT_LEAST, AT_MOST, measure=measure) == [
        Row(AT_MOST, Reading("cost", (50.0,))),
        Row(AT_LEAST, reason="not available: peer cannot be installed: no network"),
    ]


def test_a_measurement_that_raises_is_broken_and_stops_nothing_else() -> None:
    def measure(bench: Bench) -> Iterator[Reading]:
        raise ValueError("a result came twice")
        yield

    expected = Row(AT_LEAST, reason="broken: ValueError: a result came twice", is_broken=True)
    assert rows_for(AT_LEAST, measure=measure) == [expected]


def test_a_figure_that_was_not_asked_for_is_no_row() -> None:
    def measure(bench: Bench) -> Iterator[Reading]:
        yield Reading("unknown", (1.0,))

    (row,) = rows_for(AT_LEAST, measure=measure)
    assert (row.reading, row.is_broken) == (None, True)
    assert "'unknown'" in row.reason


def test_a_measurement_that_hangs_is_broken_off() -> None:
    with pytest.raises(TimeoutError, match=r"not done after 0\.01 s"), time_limit(0.01):
        signal.pause()


def test_the_document_has_a_key_for_each_row_and_null_without_a_figure() -> None:
    rows = [Row(AT_MOST, Reading("cost", (50.0, 60.0, 90.0))), Row(AT_LEAST, reason="no peer")]
    document = json.loads(table.to_json(rows, is_quick=True))
    assert (document["cost"], document["speed"]) == (60.0, None)
    assert [row["is_reached"] for row in document["rows"]] == [True, None]
    assert document["rows"][1]["note"] == "no peer"


def test_the_document_becomes_a_table_that_hides_nothing() -> None:
    pairs = Pairs(ours=[10.0, 30.0], theirs=[10.0, 10.0])
    rows = [
        Row(AT_LEAST, pairs.reading("speed", "steps/s", ("ours", "peer"))),
        Row(AT_MOST, reason="broken: a|b"),
    ]
    document = json.loads(table.to_json(rows, is_quick=True))
    assert table.markdown(document).splitlines()[2:] == [
        "| Figure | What | Median | Min - max | Reach | Measured |",
        "|---|---|---|---|---|---|",
        "| `speed` | steps/s over a peer | 2.00 x | 1.00 - 3.00 | >= 8 | "
        "ours 20.0 steps/s, peer 10.0 steps/s |",
        "| `cost` | CPU per step | not measured |  | <= 100 | broken: a\\|b |",
    ]


def test_a_key_belongs_to_one_measurement_and_an_unknown_one_is_refused() -> None:
    keys = [key for measurement in measurements() for key in measurement.keys]
    assert len(keys) == len(set(keys))
    assert [m.keys for m in measurements(["import_ratio"])] == [("import_ratio",)]
    with pytest.raises(KeyError, match="nothing measures nope"):
        measurements(["nope"])


def test_a_peer_that_is_not_installed_is_not_installed_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "HOME", environments.ROOT / "build" / tmp_path.name)
    with Bench(installs=False) as bench, pytest.raises(UnavailableError, match="is not installed"):
        bench.python("celery")
    assert not environments.HOME.exists()
