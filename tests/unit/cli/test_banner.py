"""What a worker says at its start."""

import pytest
import structlog

from durable_worker import Worker
from durable_worker.cli.banner import announce
from durable_worker.cli.options import LogFormat
from durable_worker.protocol.names import Names

WORKER = Worker()


@WORKER.step("pay")
async def pay() -> None: ...


def said(
    capsys: pytest.CaptureFixture[str], partition: str | None, log_format: LogFormat
) -> list[str]:
    where = "broker amqp://there/vhost"
    announce(
        WORKER, "app:worker", where=where, log_format=log_format, names=Names(), partition=partition
    )
    return capsys.readouterr().err.splitlines()


def test_a_worker_of_a_partition_names_it_and_what_its_queues_end_in(
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, second = said(capsys, "eu", LogFormat.CONSOLE)
    assert first.endswith("amqp://there/vhost, partition eu (its queues end in @eu)")
    assert second.split() == ["step", "pay", "durable-tasks-pay@eu"]


@pytest.mark.parametrize("partition", [None, "", "default"])
def test_a_worker_without_partition_says_nothing_of_partitions(
    capsys: pytest.CaptureFixture[str], partition: str | None
) -> None:
    first, _ = said(capsys, partition, LogFormat.CONSOLE)
    assert first.endswith("serves app:worker, broker amqp://there/vhost")


@pytest.mark.parametrize("partition", ["eu", None])
def test_the_start_line_in_json_names_the_partition(partition: str | None) -> None:
    with structlog.testing.capture_logs() as lines:
        announce(
            WORKER,
            "app:worker",
            where="there",
            log_format=LogFormat.JSON,
            names=Names(),
            partition=partition,
        )
    assert lines[0].get("partition") == partition
    suffix = "" if partition is None else "@eu"
    assert lines[0]["queues"] == [f"durable-tasks-pay{suffix}"]
