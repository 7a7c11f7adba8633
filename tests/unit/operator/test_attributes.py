"""Search attributes that bodies set."""

import pytest
from msgspec import UNSET, Raw

from durable_worker.protocol.commands import DecisionStatus, RecordStep, WaitSignal
from durable_worker.protocol.tasks import HistoryKind
from tests.unit.operator.samples import a_run, decision, moved, pending

WAIT = WaitSignal(seq=9, signal="go")


def sets(seq: int, text: bytes) -> RecordStep:
    return RecordStep(seq=seq, name="durable:search-attributes", output=Raw(text))


def test_they_are_put_over_those_that_the_run_has_and_null_takes_one_away() -> None:
    before = a_run(search_attributes=Raw(b'{"customer":"c-1","stage":"new","old":1}'))
    by = decision(sets(0, b'{"stage":"paid","old":null}'), sets(1, b'{"stage":"sent"}'), WAIT)
    found = moved(before, by=by)
    assert found.run is not None
    assert found.run.search_attributes == Raw(b'{"customer":"c-1","stage":"sent"}')


def test_a_run_without_any_gets_its_first() -> None:
    for status in (DecisionStatus.CONTINUE, DecisionStatus.COMPLETED, DecisionStatus.CONTINUED):
        asked = [sets(0, b'{"a":1}'), *([WAIT] if status is DecisionStatus.CONTINUE else [])]
        found = moved(a_run(), by=decision(*asked, status=status, ordered=0))
        assert found.run is not None
        assert found.run.search_attributes == Raw(b'{"a":1}')


def test_what_is_recorded_already_changes_nothing_again() -> None:
    before = a_run(search_attributes=Raw(b'{"a":2}'))
    first = moved(a_run(), by=decision(sets(0, b'{"a":1}'), WAIT, ordered=0))
    waits = pending(9, HistoryKind.SIGNAL, name="go")
    known = next(each for each in first.checkpoints if each.seq == 0)
    found = moved(before, known, waits, by=decision(sets(0, b'{"a":1}'), WAIT, ordered=0))
    assert found.run is not None
    assert found.run.search_attributes == Raw(b'{"a":2}')


@pytest.mark.parametrize("text", [b"null", b"[1]", b'"x"'])
def test_what_is_no_object_sets_nothing(text: bytes) -> None:
    found = moved(a_run(), by=decision(sets(0, text), WAIT, ordered=0))
    assert found.run is not None
    assert found.run.search_attributes in (UNSET, Raw(b"{}"))
