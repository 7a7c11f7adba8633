"""A session with tests that hang: each is named, and costs nobody else anything."""

import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CONFTEST = """
import pytest
from tests import hangs

hangs.CLOSING_SECONDS = 3

def pytest_configure(config):
    hangs.watch(config)

@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"

@pytest.fixture
async def resource():
    yield
"""
WILL_NOT_END = """
import asyncio

async def test_hangs():
    print(file=open("tried", "a"))
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass

def test_passes():
    pass
"""
# pytest lifts every bound when a test fails.
FAILS_AND_CLOSES_NEVER = """
import threading
import pytest

@pytest.fixture
def endless():
    yield
    threading.Event().wait()

def test_hangs(endless):
    print(file=open("tried", "a"))
    assert False

def test_passes():
    pass
"""
MANY = ("-n", "2", "--dist", "loadfile")


@pytest.fixture
def session(tmp_path: Path) -> "Session":
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\nanyio_mode = auto\ntimeout = 1\n")
    return Session(tmp_path)


class Session:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, name: str, code: str) -> None:
        (self.folder / f"test_{name}.py").write_text(textwrap.dedent(code))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def output(self, *arguments: str) -> str:
        with self.start(*arguments) as running:
            return running.communicate()[0]


def test_a_test_that_hangs_fails_where_it_is_and_the_next_one_runs(session: Session) -> None:
    session.file(
        "hangs",
        """
        import asyncio, threading, time
        from hypothesis import given, settings, strategies

        async def a_signal_that_nobody_sends():
            await asyncio.Event().wait()

        async def test_waits(resource):
            async with asyncio.TaskGroup() as group:
                group.create_task(a_signal_that_nobody_sends())

        async def test_passes_with_the_loop(resource):
            async with asyncio.timeout(3):
                await asyncio.sleep(0)

        def test_takes_a_lock_twice():
            lock = threading.Lock()
            with lock, lock:
                pass

        @settings(deadline=None, database=None)
        @given(strategies.integers())
        def test_is_tried_once(number):
            with open("tried", "a") as tried:
                tried.write("x")
            time.sleep(10)

        def test_passes():
            pass
        """,
    )
    output = session.output()
    assert "3 failed, 2 passed" in output
    for name in ("test_waits", "test_takes_a_lock_twice", "test_is_tried_once"):
        assert f"test_hangs.py::{name} hangs, after 1 seconds here:" in output
    assert "in a_signal_that_nobody_sends" in output
    assert "with lock, lock" in output
    assert (session.folder / "tried").read_text() == "x"


@pytest.mark.parametrize("code", [WILL_NOT_END, FAILS_AND_CLOSES_NEVER])
def test_what_resists_ends_its_process_once_and_the_session_goes_on(
    code: str, session: Session
) -> None:
    session.file("hangs", code)
    session.file("others", "def test_passes(): pass")
    output = session.output(*MANY)
    assert re.search(r"worker 'gw\d' crashed while running 'test_hangs.py::test_hangs'", output)
    assert "2 passed" in output
    assert (session.folder / "tried").read_text() == "\n"


def test_a_fixture_that_skips_while_it_closes_leaves_no_bound_behind(session: Session) -> None:
    session.file(
        "closing",
        """
        import time
        import pytest

        @pytest.fixture
        def broken():
            yield
            pytest.skip("on its way out")

        def test_closes_badly(broken):
            pass

        @pytest.mark.timeout(0)
        def test_takes_its_time():
            time.sleep(4)
        """,
    )
    assert "2 passed, 1 skipped" in session.output()


@pytest.mark.parametrize("arguments", [(), MANY], ids=["one process", "many"])
def test_a_session_that_is_terminated_tells_what_it_was_running(
    arguments: tuple[str, ...], session: Session
) -> None:
    session.file("hangs", "import time\ndef test_waits(): time.sleep(100)\n")
    with session.start(*arguments, "-s", "--timeout", "60") as running:
        assert running.stdout is not None
        told = ""
        while "::test_waits" not in told:
            told += running.stdout.read(1)
        running.send_signal(signal.SIGTERM)
        told += running.communicate()[0]
    assert re.search(r"terminated while it ran: test_hangs.py::test_waits \(for \d+ s\)", told)
