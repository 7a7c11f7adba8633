"""Blobs in a directory that all processes share."""

import os
import uuid
from os import PathLike
from pathlib import Path

from anyio import to_thread

from durable_worker.edge.errors import BlobMissingError, BlobStoreError


class FileBlobs:
    """One file for each blob, in a directory for each run, below `root`, which is made if need be.

    A file appears whole or not at all, and has reached the disk when a message refers to it.
    """

    def __init__(self, root: str | PathLike[str]) -> None:
        self._root = Path(root)
        self._place = f"the directory {self._root}"

    async def put(self, key: str, data: bytes) -> None:
        try:
            await to_thread.run_sync(self._write, self._root / key, data)
        except OSError as error:
            raise BlobStoreError(self._place, str(error)) from error

    async def get(self, key: str, *, limit: int) -> bytes:
        try:
            return await to_thread.run_sync(_read, self._root / key, limit)
        except FileNotFoundError as error:
            raise BlobMissingError(key, self._place) from error
        except OSError as error:
            raise BlobStoreError(self._place, str(error)) from error

    def _write(self, path: Path, data: bytes) -> None:
        if path.is_file() and path.stat().st_size == len(data):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            with unfinished.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        _sync(path.parent)


def _read(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        return file.read(limit)


def _sync(directory: Path) -> None:
    """The name of a new file is an entry of its directory, which has to reach the disk as well."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
