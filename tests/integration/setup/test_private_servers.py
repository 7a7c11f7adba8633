"""What all private servers share: none can hold up the session that owns it."""

import os
import signal
import sys

import pytest

from tests.servers import PrivateServer, Program, ServerUnavailableError, private
from tests.servers.left import processes_of

ECHO = "import sys, time; print(sys.argv[1], flush=True); time.sleep(600)"


class Scripted(PrivateServer):
    """Runs Python that prints what it is told, one after the other at each attempt."""

    def __init__(self, *says: str) -> None:
        self.says = list(says)
        super().__init__("the server", folder="durable-scripted-")

    def prepared(self) -> Program:
        (self.home / "data").write_text("kept")
        said = self.says.pop(0)
        program = ECHO if said else "print('the port is taken')"
        return Program((sys.executable, "-c", program, said, str(self.home)), ready="ready")

    def guard_id(self) -> int:
        assert self._guard is not None
        return self._guard.pid


def test_a_server_that_fails_at_first_is_prepared_and_started_again() -> None:
    with Scripted("", "ready") as server:
        assert (server.home / "data").read_text() == "kept"
    assert not server.home.exists()


def test_data_survives_a_stop_and_a_kill() -> None:
    with Scripted("ready") as server:
        (server.home / "more").write_text("kept")
        server.restart()
        server.kill()
        server.start()
        assert (server.home / "more").read_text() == "kept"


def test_a_server_that_never_gets_ready_is_reported_and_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(private, "ANSWER_SECONDS", 1)
    monkeypatch.setattr(private, "CLOSE_SECONDS", 1)
    server = Scripted("not yet", "not yet", "not yet")
    with pytest.raises(ServerUnavailableError, match=r"did not start \(no answer\)") as caught:
        server.start()
    assert "not yet" in str(caught.value)
    assert not server.home.exists()
    assert processes_of(server.home) == []


def test_a_guard_that_hangs_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "CLOSE_SECONDS", 1)
    with Scripted("ready") as server:
        os.kill(server.guard_id(), signal.SIGSTOP)
    assert not server.home.exists()
    assert processes_of(server.home) == []


def test_a_guard_that_was_killed_is_an_error_and_no_hang() -> None:
    with Scripted("ready") as server:
        os.killpg(server.guard_id(), signal.SIGKILL)
        with pytest.raises(ServerUnavailableError, match=r"did not stop \(no answer\)"):
            server.stop()
