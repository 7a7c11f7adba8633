"""The transport's own checks: types, its conformance suite, the tarball that is installed."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.interop.building import TRANSPORT

pytestmark = pytest.mark.usefixtures("operator_main")


def npm(*arguments: str, folder: Path = TRANSPORT, seconds: float = 120, **more: str) -> str:
    done = subprocess.run(
        ["npm", *arguments],
        cwd=folder,
        env={**os.environ, "npm_config_loglevel": "error", **more},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8_000:]
    return done.stdout


def test_the_package_type_checks() -> None:
    npm("run", "check")


def test_the_package_passes_its_conformance_suite_and_its_own_tests(broker_url: str) -> None:
    said = npm("test", seconds=400, AMQP_URL=broker_url)
    assert "fail 0" in said


def test_the_tarball_holds_what_a_user_needs_and_can_be_imported_and_required(
    tmp_path: Path,
) -> None:
    packed = json.loads(
        npm("pack", "--json", "--ignore-scripts", "--pack-destination", str(tmp_path))
    )
    files = {each["path"] for each in packed[0]["files"]}
    assert {"README.md", "package.json"} <= files
    assert {f"dist/index.{end}" for end in ("js", "cjs", "d.ts", "d.cts")} <= files
    assert not any(path.startswith(("src/", "test/")) for path in files)
    (tmp_path / "package.json").write_text('{"private": true}')
    core = json.loads((TRANSPORT / "package.json").read_text())["devDependencies"]
    peer = "@dudousxd/nestjs-durable-core"
    peers = [f"{name}@{core[name]}" for name in (peer, "reflect-metadata", "zod")]
    tarball = str(tmp_path / packed[0]["filename"])
    npm(
        "install", "--legacy-peer-deps", "--no-audit", "--no-fund", tarball, *peers, folder=tmp_path
    )
    for program in (
        "import('nestjs-durable-transport-rabbitmq').then((it) => new it.Names('p'))",
        "new (require('nestjs-durable-transport-rabbitmq').Names)('p')",
    ):
        subprocess.run(["node", "-e", program], cwd=tmp_path, check=True, timeout=60)
