"""What every store of large payloads promises."""

import hashlib
import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw
from msgspec import json as msgjson

from durable_worker import RegistrationError
from durable_worker.payloads import (
    BlobMissingError,
    BlobStore,
    BlobStoreError,
    ClaimCheck,
    FileBlobs,
    FsspecBlobs,
    PayloadCodec,
    PayloadSealedError,
    PayloadTamperedError,
    PayloadTooBigError,
)
from durable_worker.payloads.claim_check import folder_of

pytestmark = pytest.mark.anyio

KEY = f"run-1/{'a' * 64}"


def files(root: Path) -> BlobStore:
    return FileBlobs(root / "not" / "there" / "yet")


def fsspec_files(root: Path) -> BlobStore:
    return FsspecBlobs(f"file://{root}/blobs")


def fsspec_memory(root: Path) -> BlobStore:
    return FsspecBlobs(f"memory://{root.name}")


ACCESS = {"key": "id", "secret": "of its own"}


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """URL of a server that speaks S3, with a bucket `there`."""
    wanted = "needs `pip install --group s3`, which takes its time"
    moto = pytest.importorskip("moto.server", reason=wanted)
    s3fs = pytest.importorskip("s3fs", reason=wanted)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    s3fs.S3FileSystem(endpoint_url=url, **ACCESS).mkdir("there")
    yield url
    server.stop()


@pytest.fixture(params=["files", "fsspec files", "fsspec memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    match request.param:
        case "files":
            return files(tmp_path)
        case "fsspec files":
            return fsspec_files(tmp_path)
        case "fsspec memory":
            return fsspec_memory(tmp_path)
        case _:
            url: str = request.getfixturevalue("s3")
            return FsspecBlobs(f"s3://there/{tmp_path.name}", endpoint_url=url, **ACCESS)


async def test_what_was_put_is_there_as_often_as_it_is_put(store: BlobStore) -> None:
    for _ in range(2):
        await store.put(KEY, b"large")
    assert await store.get(KEY, limit=100) == b"large"


async def test_no_more_is_read_than_is_allowed(store: BlobStore) -> None:
    await store.put(KEY, b"0123456789")
    assert await store.get(KEY, limit=4) == b"0123"


async def test_what_is_not_there_is_missing(store: BlobStore) -> None:
    with pytest.raises(BlobMissingError) as caught:
        await store.get(KEY, limit=1)
    assert (caught.value.key, caught.value.code) == (KEY, "blob-missing")


async def test_a_torn_blob_is_written_anew(store: BlobStore) -> None:
    await store.put(KEY, b"lar")
    await store.put(KEY, b"large")
    assert await store.get(KEY, limit=100) == b"large"


async def test_large_payloads_travel_as_a_reference_and_small_ones_do_not(store: BlobStore) -> None:
    codec = PayloadCodec(ClaimCheck(store, threshold=100))
    small, large = Raw(b'"small"'), Raw(msgjson.encode("large" * 100))
    assert await codec.seal(small, salt="run-1") == small
    sealed = await codec.seal(large, salt="run-1")
    assert isinstance(sealed, Raw)
    assert len(sealed) < 300
    assert (await codec.open(sealed, what="it")).value == large
    with pytest.raises(PayloadSealedError, match="has no ClaimCheck"):
        await PayloadCodec().open(sealed, what="it")
    with pytest.raises(PayloadTooBigError):
        await PayloadCodec(ClaimCheck(store, max_size=100)).open(sealed, what="it")


async def test_a_blob_that_was_changed_is_noticed(store: BlobStore) -> None:
    codec = PayloadCodec(ClaimCheck(store, threshold=1))
    sealed = await codec.seal(Raw(b'"abc"'), salt="run-1")
    key = "run-1/" + hashlib.sha256(b'"abc"').hexdigest()
    await _overwrite(store, key, b'"abd"')
    with pytest.raises(PayloadTamperedError, match="is not what was stored"):
        await codec.open(sealed, what="it")


async def _overwrite(store: Any, key: str, data: bytes) -> None:
    await store.put(key, b"")  # of another size, so it is replaced
    await store.put(key, data)


@pytest.mark.parametrize(
    "key", ["../../etc/passwd", f"../{'a' * 64}", f"/{'a' * 64}", f"a/b/{'a' * 64}", "a", ""]
)
async def test_a_key_that_leads_out_of_the_store_is_refused(key: str, tmp_path: Path) -> None:
    codec = PayloadCodec(ClaimCheck(FileBlobs(tmp_path)))
    digest = key.rpartition("/")[2]
    envelope = {"$durable": {"v": 1, "ref": {"key": key, "size": 1, "sha256": digest}}}
    with pytest.raises(PayloadTamperedError, match="is not a key"):
        await codec.open(Raw(msgjson.encode(envelope)), what="it")


@pytest.mark.parametrize("run_id", ["..", ".", "", "a/b", "ünï\n", "x" * 160, "ü" * 80, "~", "a%b"])
async def test_every_run_id_makes_a_folder_of_its_own(run_id: str, tmp_path: Path) -> None:
    codec = PayloadCodec(ClaimCheck(FileBlobs(tmp_path / "store"), threshold=1))
    sealed = await codec.seal(Raw(b"1"), salt=run_id)
    assert (await codec.open(sealed, what="it")).value == Raw(b"1")
    (folder,) = (tmp_path / "store").iterdir()
    assert folder.name == folder_of(run_id)
    assert [each.name for each in tmp_path.iterdir()] == ["store"]  # noqa: ASYNC240


def test_folders_of_different_runs_differ() -> None:
    ids = ["..", ".", "%2E", "%2E.", "", "a/b", "a%2Fb", "x" * 300, "x" * 301, "~"]
    assert len({folder_of(each) for each in ids}) == len(ids)


async def test_a_failed_write_leaves_no_part_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BlobStoreError, match="No space left"):
        await FileBlobs(tmp_path).put(KEY, b"large")
    assert list((tmp_path / "run-1").iterdir()) == []


async def test_a_store_that_fails_for_a_moment_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Shaky:
        def __init__(self, failures: int) -> None:
            self.failures = failures
            self.blobs: dict[str, bytes] = {}

        def _stumble(self) -> None:
            if self.failures:
                self.failures -= 1
                raise BlobStoreError("the shaky store", "a moment")

        async def put(self, key: str, data: bytes) -> None:
            self._stumble()
            self.blobs[key] = data

        async def get(self, key: str, *, limit: int) -> bytes:
            self._stumble()
            return self.blobs[key]

    async def at_once(_seconds: float) -> None:
        return None

    monkeypatch.setattr("asyncio.sleep", at_once)
    shaky = Shaky(3)
    codec = PayloadCodec(ClaimCheck(shaky, threshold=1))
    sealed = await codec.seal(Raw(b"1"), salt="r")
    shaky.failures = 3
    assert (await codec.open(sealed, what="it")).value == Raw(b"1")
    shaky.failures = 4
    with pytest.raises(BlobStoreError, match="it is stored outside the message"):
        await codec.open(sealed, what="it")


async def test_a_bucket_that_is_misspelt_is_an_error_and_not_made(s3: str) -> None:
    with pytest.raises(BlobStoreError, match="s3://their"):
        await FsspecBlobs("s3://their/payloads", endpoint_url=s3, **ACCESS).put(KEY, b"large")
    assert not import_module("s3fs").S3FileSystem(endpoint_url=s3, **ACCESS).exists("their")


def test_a_store_that_fsspec_cannot_reach_is_a_mistake_of_the_setup() -> None:
    with pytest.raises(RegistrationError, match=r"durable-worker\[fsspec\]"):
        FsspecBlobs("nosuch://place")
