"""Blobs wherever fsspec reaches: S3 and what speaks like it, GCS, Azure, SFTP, memory, files."""

from importlib import import_module
from typing import Any, NoReturn

from anyio import to_thread

from durable_worker.edge.errors import BlobMissingError, BlobStoreError
from durable_worker.errors import RegistrationError


class FsspecBlobs:
    """One object for each blob below `url`, as in `s3://bucket/payloads`; the bucket has to exist.

    `storage_options` are those of the fsspec file system (for S3 that is not Amazon's:
    `endpoint_url=`). For plain directories use `FileBlobs`, which writes safely. Needs
    `durable-worker[fsspec]` and the package of the protocol, such as `s3fs`. Raises
    `RegistrationError` without them.
    """

    def __init__(self, url: str, **storage_options: Any) -> None:
        try:
            core: Any = import_module("fsspec.core")
            self._files, root = core.url_to_fs(url, **storage_options)
        except (ImportError, ValueError) as error:
            raise RegistrationError(
                f"blobs at {url!r} need fsspec and its file system for that protocol: pip install "
                f"'durable-worker[fsspec]' ({error})"
            ) from error
        self._root = str(root).rstrip("/")
        self._has_directories = self._root.startswith("/")
        self._place = f"the store {url}"

    async def put(self, key: str, data: bytes) -> None:
        try:
            await to_thread.run_sync(self._write, f"{self._root}/{key}", data)
        except Exception as error:  # each file system raises its own library's errors
            self._fail(error)

    async def get(self, key: str, *, limit: int) -> bytes:
        try:
            return await to_thread.run_sync(self._read, f"{self._root}/{key}", limit)
        except FileNotFoundError as error:
            raise BlobMissingError(key, self._place) from error
        except Exception as error:  # each file system raises its own library's errors
            self._fail(error)

    def _write(self, path: str, data: bytes) -> None:
        files = self._files
        try:
            if files.size(path) == len(data):
                return
        except FileNotFoundError:
            pass
        # A bucket is not ours to make, which is what this would do with one that is misspelt.
        if self._has_directories:
            files.makedirs(path.rpartition("/")[0], exist_ok=True)
        files.pipe_file(path, data)

    def _read(self, path: str, limit: int) -> bytes:
        data: bytes = self._files.cat_file(path, start=0, end=limit)
        return data

    def _fail(self, error: Exception) -> NoReturn:
        raise BlobStoreError(self._place, f"{type(error).__name__}: {error}") from error
