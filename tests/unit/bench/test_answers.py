import msgspec
import pytest
from pamqp.commands import Basic

from durable_worker.protocol.results import ResultStatus, StepResult
from tests.bench.figures import WrongResultError
from tests.bench.worker.ours import number_of, step_task
from tests.bench.worker.trial import require_once


def result(number: int, *, output: bytes, status: ResultStatus = ResultStatus.COMPLETED) -> bytes:
    answer = StepResult(
        run_id=f"run-{number}",
        seq=0,
        step_id=f"run-{number}:0",
        status=status,
        output=msgspec.Raw(output),
    )
    return msgspec.json.encode(answer)


def test_every_task_must_be_answered_and_only_once() -> None:
    require_once("it", [2, 0, 1], 3)
    for answers in ([0, 1], [0, 1, 1], [0, 1, 2, 2], [0, 1, 2, 3], []):
        with pytest.raises(WrongResultError):
            require_once("it", answers, 3)


def test_an_answer_counts_for_the_task_whose_number_it_gives_back() -> None:
    properties, task = step_task(7)
    assert properties.message_id == "run-7:0:1"
    assert 300 < len(task) < 500
    assert number_of(Basic.Properties(message_id="run-7:0:1"), result(7, output=b"7")) == 7


@pytest.mark.parametrize(
    ("message_id", "body"),
    [
        ("run-7:0:1", result(7, output=b"8")),
        ("run-7:0:1", result(7, output=b"7", status=ResultStatus.FAILED)),
        ("run-7:0:2", result(7, output=b"7")),
    ],
)
def test_a_wrong_answer_is_none(message_id: str, body: bytes) -> None:
    with pytest.raises(WrongResultError, match="step 7 was answered by"):
        number_of(Basic.Properties(message_id=message_id), body)
