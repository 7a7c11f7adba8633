"""Check recorded runs against today's code, in a test."""

from os import PathLike
from pathlib import Path

import msgspec

from durable_worker.client import Client
from durable_worker.protocol.runs import RunDetail
from durable_worker.protocol.tasks import WorkflowTask
from durable_worker.replay.diff import side_by_side
from durable_worker.replay.documents import read_recorded_run
from durable_worker.replay.timeline import RecordedRun, recorded_run
from durable_worker.worker.registry import Worker
from durable_worker.worker.replaying import mismatch_with

History = str | PathLike[str] | RunDetail | WorkflowTask


def replay_history(worker: Worker, history: History, *, compares_end: bool = True) -> None:
    """Replay a recorded run on the workflows of `worker`; no step and no side effect is run.

    `history` is a JSON file with what `durable-worker show RUN --json` prints (or a WorkflowTask),
    or such a value. The end of a run that has ended is compared, too; its output or failure only
    with `compares_end`.

    Raises `NondeterminismError`, with both sides by seq in a note, if the code asks for something
    else than is recorded; `RegistrationError` if the worker lacks the workflow or its version;
    `ProtocolError` for a file that holds no history.
    """
    error = mismatch_with(worker, _recorded(history), compares_end=compares_end)
    if error is not None:
        error.add_note(side_by_side(error, root=str(Path.cwd())))
        raise error


def histories(directory: str | PathLike[str]) -> list[Path]:
    """The JSON files in a directory by name: parameters for a test. Raises `FileNotFoundError`."""
    found = sorted(Path(directory).glob("*.json"))
    if not found:
        raise FileNotFoundError(f"there is no *.json in {directory}")
    return found


async def save_history(client: Client, run_id: str, path: str | PathLike[str]) -> None:
    """Write what an operator has recorded of a run to a file, for `replay_history`.

    It holds the inputs and outputs of the run and its steps. Raises `RunNotFoundError`.
    """
    detail = await client.detail(run_id)
    document = msgspec.json.format(msgspec.json.encode(detail), indent=2)
    _write(Path(path), document + b"\n")


def _write(target: Path, document: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(document)


def _recorded(history: History) -> RecordedRun:
    match history:
        case RunDetail():
            return recorded_run(history)
        case WorkflowTask():
            return RecordedRun(task=history)
        case _:
            return read_recorded_run(Path(history).read_bytes())
