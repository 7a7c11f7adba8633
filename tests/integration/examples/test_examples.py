"""Every example runs as it stands."""

import os
import subprocess
import sys
from pathlib import Path

from tests.interop.building import require_node

ROOT = Path(__file__).parents[3]


def test_the_demo_survives_its_kill_and_nothing_recorded_happens_twice() -> None:
    demo = subprocess.run(
        [sys.executable, "examples/checkout/demo.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "reserved o-1   1 x" in demo.stdout
    assert '"tracking":"NL-O-1"' in demo.stdout
    assert "Traceback" not in demo.stderr


def test_a_nestjs_operator_and_a_python_worker_survive_their_kills(broker_url: str) -> None:
    require_node()
    demo = subprocess.run(
        [sys.executable, "examples/nestjs-operator/demo.py"],
        cwd=ROOT,
        env={**os.environ, "AMQP_URL": broker_url},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "read the passport of ada     1 x" in demo.stdout


def test_interceptors_see_an_order_from_the_first_call_to_the_last() -> None:
    demo = subprocess.run(
        [sys.executable, "examples/interceptors/demo.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert demo.stdout.startswith("o-1  decided   ctx.set_event('state')\n")
    assert demo.stdout.count("o-1  asked     ctx.step('payments.charge')") == 1
    assert demo.stdout.count("o-1  answered  ctx.step('parcels.book')") == 1
    assert 'parcels.book timed {"seconds":' in demo.stdout


def test_a_web_application_starts_a_run_and_streams_its_events() -> None:
    demo = subprocess.run(
        [sys.executable, "examples/fastapi_app/demo.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    lines = [line for line in demo.stdout.splitlines() if not line.startswith("step.progress")]
    assert lines == [
        "ordered: (201, {'runId': 'order-o-1'})",
        'run.started             ""',
        'step.completed  charge  "pay-o-1"',
        "packed: (202, None)",
        'run.completed           {"order": "o-1", "payment": "pay-o-1"}',
        "receipt: {'order': 'o-1', 'payment': 'pay-o-1'}",
        "ordered again: 409",
        "packed again: 409",
        "packed nothing: 404",
    ]
    assert "Traceback" not in demo.stderr


def test_every_example_is_run_by_a_test_here() -> None:
    assert {path.name for path in (ROOT / "examples").iterdir()} == {
        "checkout",
        "fastapi_app",
        "interceptors",
        "nestjs-operator",
    }
