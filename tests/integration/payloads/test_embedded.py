"""Sealed payloads and contexts with the real operator, its database read as raw bytes."""

import shutil
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import anyio
import msgspec
import pytest

from durable_worker.client import Client
from durable_worker.embedded import Embedded
from durable_worker.errors import PayloadError, QueryFailedError, RunFailedError
from durable_worker.payloads import (
    BlobStoreError,
    ClaimCheck,
    Compress,
    Encrypt,
    FileBlobs,
    PayloadCodec,
    PayloadKeyMissingError,
    PayloadSealedError,
)
from durable_worker.payloads.claim_check import ATTEMPTS
from durable_worker.protocol.runs import RunStatus
from tests.integration.payloads.secrets import SECRET, context_worker, parts, secret_worker
from tests.unit.payloads.keys import ring

pytestmark = pytest.mark.anyio

PATIENCE = timedelta(seconds=20)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def sealing(*keys: str, current: str | None = None) -> PayloadCodec:
    return PayloadCodec(Compress(minimum=16), Encrypt(ring(*keys, current=current)))


def bytes_in(directory: Path) -> bytes:
    return b"".join(each.read_bytes() for each in sorted(directory.rglob("*")) if each.is_file())


async def until(there: Callable[[], Awaitable[bool]]) -> None:
    with anyio.fail_after(PATIENCE.total_seconds()):
        while not await there():  # noqa: ASYNC110
            await anyio.sleep(0.02)


async def answers(client: Client, run_id: str, name: str) -> bool:
    try:
        await client.query(run_id, name)
    except QueryFailedError:
        return False
    return True


async def run_everything(client: Client) -> object:
    handle = await client.start("everything", SECRET, run_id="all")
    await until(lambda: answers(client, "all", "state"))
    assert await handle.query("state") == {"is": SECRET}
    await client.signal("go-all", SECRET)
    return await handle.result(timeout=PATIENCE)


async def test_no_part_of_a_run_is_in_the_database_in_clear(tmp_path: Path) -> None:
    worker = secret_worker(sealing("k1"))
    async with Embedded(worker, database=tmp_path / "runs.db") as client:
        assert await run_everything(client) == {"all": [SECRET] * 6}
        failed = await client.start("failing", SECRET, run_id="bad")
        with pytest.raises(RunFailedError) as caught:
            await failed.result(timeout=PATIENCE)
        assert (caught.value.code, caught.value.details) == ("no-good", {"value": SECRET})
        assert SECRET in str(caught.value)
        told = await client.start("told", SECRET)
        assert SECRET in str(await told.result(timeout=PATIENCE))

        detail = await client.detail("all")
        assert [e.message for each in detail.timeline for e in each.events or ()] == [
            f"echoing {SECRET}"
        ] * 2
        stored = bytes_in(tmp_path)
    assert b"no-good" in stored
    assert SECRET.encode() not in stored
    assert SECRET.encode() not in bytes_in(tmp_path)


async def test_the_same_run_without_a_codec_is_in_the_database_in_clear(tmp_path: Path) -> None:
    async with Embedded(secret_worker(None), database=tmp_path / "runs.db") as client:
        assert await run_everything(client) == {"all": [SECRET] * 6}
        assert bytes_in(tmp_path).count(SECRET.encode()) >= 9


async def test_a_cancelled_run_undoes_what_it_did_with_opened_payloads(tmp_path: Path) -> None:
    undone: list[str] = []
    worker = secret_worker(sealing("k1"), undone=undone)
    async with Embedded(worker, database=tmp_path / "runs.db") as client:
        handle = await client.start("undoing", SECRET, run_id="back")
        await until(lambda: answers(client, "back", "echoed"))
        await handle.cancel()
        assert (await handle.wait(timeout=PATIENCE)).status is RunStatus.CANCELLED
        assert SECRET.encode() not in bytes_in(tmp_path)
    assert undone == [SECRET]


async def waiting_run(database: Path, codec: PayloadCodec) -> None:
    """Leaves a run behind that waits for a signal, and the signal."""
    async with Embedded(secret_worker(codec), database=database) as client:
        await client.start("everything", SECRET, run_id="all")
        await until(lambda: answers(client, "all", "state"))


@pytest.mark.parametrize(
    ("codec", "code", "error"),
    [
        (sealing("k2"), "payload-key-missing", PayloadKeyMissingError),
        (None, "payload-sealed", PayloadSealedError),
    ],
    ids=["another key", "no codec"],
)
async def test_a_worker_that_cannot_open_a_run_fails_it_and_says_what_it_lacks(
    tmp_path: Path, codec: PayloadCodec | None, code: str, error: type[Exception]
) -> None:
    database = tmp_path / "runs.db"
    await waiting_run(database, sealing("k1"))
    async with Embedded(secret_worker(codec), database=database) as client:
        await client.signal("go-all", SECRET)
        with pytest.raises(RunFailedError) as failed:
            await client.handle("all").result(timeout=PATIENCE)
        assert failed.value.code == code
        assert "k1" in str(failed.value)
        with pytest.raises(error, match="the input of run 'all'"):
            await client.detail("all")
        sealed = await client.detail("all", keep_sealed=True)
        assert b"aes-siv" in msgspec.json.encode(sealed.run.input)


async def test_a_run_goes_on_after_its_key_was_rotated(tmp_path: Path) -> None:
    database = tmp_path / "runs.db"
    await waiting_run(database, sealing("k1"))
    rotated = sealing("k1", "k2", current="k2")
    async with Embedded(secret_worker(rotated), database=database) as client:
        await client.signal("go-all", SECRET)
        result = await client.handle("all").result(timeout=PATIENCE)
        assert result == {"all": [SECRET] * 6}
        detail = await client.detail("all", keep_sealed=False)
        assert detail.run.input is not None
    assert b'"key":"k2"' in bytes_in(tmp_path)


async def test_large_payloads_are_in_the_blob_store_and_not_in_the_database(tmp_path: Path) -> None:
    blobs, database = tmp_path / "blobs", tmp_path / "runs"
    database.mkdir()
    codec = PayloadCodec(ClaimCheck(FileBlobs(blobs), threshold=10_000))
    async with Embedded(secret_worker(codec), database=database / "runs.db") as client:
        handle = await client.start("large", 50_000, run_id="big")
        assert await handle.result(timeout=PATIENCE) == 50_000 + len(SECRET)
        assert SECRET.encode() not in bytes_in(database)
        assert SECRET.encode() in bytes_in(blobs)
        assert [each.name for each in blobs.iterdir()] == ["big"]

        shutil.rmtree(blobs / "big")
        assert await handle.result(timeout=PATIENCE) == 50_000 + len(SECRET)
        with pytest.raises(Exception, match="big/") as missing:
            await handle.detail()
        assert getattr(missing.value, "code", None) == "blob-missing"


async def test_a_turn_whose_blob_is_gone_fails_the_run_with_a_code_of_its_own(
    tmp_path: Path,
) -> None:
    blobs, database = tmp_path / "blobs", tmp_path / "runs.db"
    codec = PayloadCodec(ClaimCheck(FileBlobs(blobs), threshold=1))
    await waiting_run(database, codec)
    shutil.rmtree(blobs / "all")
    async with Embedded(secret_worker(codec), database=database) as client:
        await client.signal("go-all", SECRET)
        with pytest.raises(RunFailedError) as failed:
            await client.handle("all").result(timeout=PATIENCE)
    assert failed.value.code == "blob-missing"


class FailingStore(FileBlobs):
    """A store that cannot be read while it `is_down`."""

    is_down = False
    refused = 0

    async def get(self, key: str, *, limit: int) -> bytes:
        if self.is_down:
            self.refused += 1
            raise BlobStoreError("the test", "it is down")
        return await super().get(key, limit=limit)


async def test_a_turn_waits_for_a_store_that_fails(tmp_path: Path) -> None:
    store = FailingStore(tmp_path / "blobs")
    codec = PayloadCodec(ClaimCheck(store, threshold=1))
    await waiting_run(tmp_path / "runs.db", codec)
    async with Embedded(secret_worker(codec), database=tmp_path / "runs.db") as client:
        store.is_down = True
        await client.signal("go-all")

        async def was_given_up() -> bool:
            return store.refused > ATTEMPTS

        await until(was_given_up)
        store.is_down = False
        with pytest.raises(RunFailedError) as failed:
            await client.handle("all").result(timeout=PATIENCE)
    assert failed.value.code == "payload"  # the signal carried nothing: the turn was reached


async def test_a_context_reaches_body_steps_child_and_its_steps() -> None:
    seen: list[tuple[str, object]] = []
    told = {"tenant": "acme", "traceparent": TRACE}
    async with Embedded(context_worker(seen)) as client:
        handle = await client.start("above", context=told)
        assert await handle.result(timeout=PATIENCE) == [[told, TRACE], [told, TRACE]]
    assert parts(seen) == dict.fromkeys(("step", "local step", "child's step"), (told, TRACE))


async def test_a_run_without_context_has_none_anywhere() -> None:
    seen: list[tuple[str, object]] = []
    async with Embedded(context_worker(seen)) as client:
        handle = await client.start("above")
        assert await handle.result(timeout=PATIENCE) == [[{}, None], [{}, None]]
    assert parts(seen) == {part: ({}, None) for part in ("step", "local step", "child's step")}


@pytest.mark.parametrize(
    "context",
    [{"traceparent": "not one"}, {"a": object()}, {"a": "x" * 9_000}, ["a"], {1: 2}],
    ids=["traceparent", "no JSON", "too long", "no mapping", "no text as key"],
)
async def test_what_is_no_context_is_refused_before_anything_starts(context: object) -> None:
    async with Embedded(context_worker([])) as client:
        with pytest.raises(PayloadError, match="context"):
            await client.start("above", context=context)  # type: ignore[arg-type]
        assert await client.list() == []
