"""`make audit` with advisory services of the test's own: it fails for what is vulnerable, and says
what it could not find out."""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
PATIENCE = 120

ADVISORY = {
    "schema_version": "1.6.0",
    "id": "PYSEC-0-1",
    "summary": "a hole",
    "affected": [
        {
            "package": {"name": "msgspec", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.1"}]}],
        }
    ],
}


@contextmanager
def service(answer: Callable[[str], object | None]) -> Iterator[str]:
    """An OSV service; an answer of None is an error of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            body = answer(asked["package"]["name"])
            self.send_response(500 if body is None else 200)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def audit(url: str, **more: str) -> tuple[int, str]:
    inherited = {key: value for key, value in os.environ.items() if key != "AUDIT_REQUIRED"}
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "audit.py"],
        env={**inherited, "OSV_URL": url, "NO_PROXY": "127.0.0.1", **more},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_known_vulnerability_fails_and_is_named() -> None:
    with service(lambda name: {"vulns": [ADVISORY]} if name == "msgspec" else {}) as url:
        status, said = audit(url)
    assert status == 1
    assert "vulnerable: msgspec " in said
    assert ": PYSEC-0-1, fixed in 99.1" in said
    assert " packages, 1 with known vulnerabilities" in said


def test_none_is_told_with_how_much_was_looked_at() -> None:
    with service(lambda _: {}) as url:
        status, said = audit(url)
    assert status == 0
    assert "not audited" not in said
    packages = int(said.partition("audited: ")[2].partition(" packages, 0 with known")[0])
    assert packages > 30


def test_a_service_that_is_away_or_broken_is_said_and_fails_only_on_demand() -> None:
    status, said = audit("http://127.0.0.1:1/v1/query")
    assert status == 0
    assert said.startswith("not audited: ")
    assert "127.0.0.1" in said
    with service(lambda _: None) as url:
        status, said = audit(url, AUDIT_REQUIRED="1")
    assert status == 1
    assert said.startswith("not audited: ")


def test_packages_that_the_service_does_not_know_are_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # As the package index answers where it is a mirror without advisories.
    verdict = runpy.run_path(str(ROOT / ".ci" / "audit.py"))["verdict"]
    unknown = {"name": "x", "skip_reason": "Dependency not found on PyPI"}
    ours = {"name": "durable-worker", "skip_reason": "distribution marked as editable"}
    known = {"name": "y", "version": "1", "vulns": []}
    assert verdict({"dependencies": [ours, *[unknown] * 7]}) == 0
    assert capsys.readouterr().out == (
        "not audited: the service does not know x, x, x, x, x and 2 more\n"
    )
    assert verdict({"dependencies": [ours, known, unknown]}) == 0
    assert capsys.readouterr().out == (
        "audited: 1 packages, 0 with known vulnerabilities\n"
        "not audited: the service does not know x\n"
    )
    assert verdict({"dependencies": [ours, known]}) == 0
    assert capsys.readouterr().out == "audited: 1 packages, 0 with known vulnerabilities\n"
