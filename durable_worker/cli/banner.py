"""What a worker serves, said once at the start."""

from collections.abc import Sequence

import structlog

from durable_worker.cli.options import LogFormat
from durable_worker.cli.page import Block, Line, Table, plain_text
from durable_worker.cli.serving import tell
from durable_worker.protocol.names import Names, is_default, routing_token
from durable_worker.version import VERSION
from durable_worker.worker.registry import Worker

log = structlog.get_logger("durable_worker")


def announce(
    worker: Worker,
    target: str,
    *,
    where: str,
    log_format: LogFormat,
    names: Names | None = None,
    partition: str | None = None,
) -> None:
    """Say what is served and where; with its queues if `names` tells how they are called."""
    versions = _versions(worker)
    queues = {
        name: names.tasks(routing_token(name, partition)) if names is not None else ""
        for name in [*worker.steps, *versions]
    }
    if log_format is LogFormat.JSON:
        log.info(
            "serving",
            version=VERSION,
            target=target,
            place=where,
            steps=list(worker.steps),
            workflows=versions,
            queues=sorted({queue for queue in queues.values() if queue}),
            **({} if is_default(partition) else {"partition": partition}),
        )
        return
    suffix = "" if is_default(partition) else f"@{partition}"
    if suffix:
        where += f", partition {partition} (its queues end in {suffix})"
    rows = [
        *(["  step", name, queues[name]] for name in worker.steps),
        *(
            ["  workflow", f"{name} {', '.join(each)}", queues[name]]
            for name, each in versions.items()
        ),
    ]
    blocks: list[Block] = [
        Line([f"durable-worker {VERSION} serves {target}, {where}"]),
        Table((), rows),
    ]
    tell(plain_text(blocks))


def _versions(worker: Worker) -> dict[str, Sequence[str]]:
    versions: dict[str, list[str]] = {}
    for name, version in worker.workflows:
        versions.setdefault(name, []).append(version)
    return {**versions}
