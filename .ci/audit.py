"""Asks an advisory service about known vulnerabilities of everything that is installed here.

Exit code 1 for a vulnerability. A service that cannot be reached, or does not know our packages, is
no reason to fail, but is never passed over in silence: what was not audited is said. With
AUDIT_REQUIRED=1 that fails, too. OSV_URL is an OSV service to ask instead of the package index.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

SOCKET_SECONDS = 5
ALL_SECONDS = 90


def main() -> int:
    report, problem = _ask()
    return _not_audited(problem) if report is None else verdict(report)


def verdict(report: dict[str, Any]) -> int:
    dependencies: list[dict[str, Any]] = report["dependencies"]
    unknown = [each for each in dependencies if "vulns" not in each]
    vulnerable = [each for each in dependencies if each.get("vulns")]
    for each in vulnerable:
        for found in each["vulns"]:
            fixed = ", ".join(found["fix_versions"]) or "no version so far"
            print(f"vulnerable: {each['name']} {each['version']}: {found['id']}, fixed in {fixed}")
    audited = len(dependencies) - len(unknown)
    if audited:
        print(f"audited: {audited} packages, {len(vulnerable)} with known vulnerabilities")
    problem = _of_unknown(unknown) if audited or unknown else "no package was found"
    return 1 if vulnerable else _not_audited(problem)


def _ask() -> tuple[dict[str, Any] | None, str]:
    """The report of pip-audit, or why there is none."""
    service = os.environ.get("OSV_URL")
    where = ["--vulnerability-service", "osv", "--osv-url", service] if service else []
    command = [
        *(sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off"),
        *("--skip-editable", "--timeout", str(SOCKET_SECONDS), *where),
    ]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, f"no answer within {ALL_SECONDS} s"
    try:
        return json.loads(done.stdout), ""
    except ValueError:
        lines = done.stderr.strip().splitlines() or [f"pip-audit ended with {done.returncode}"]
        return None, lines[-1]


def _of_unknown(unknown: Sequence[dict[str, Any]]) -> str:
    others = [each for each in unknown if "editable" not in each.get("skip_reason", "")]
    names = ", ".join(each["name"] for each in others[:5])
    more = f" and {len(others) - 5} more" if len(others) > 5 else ""
    return f"the service does not know {names}{more}" if others else ""


def _not_audited(problem: str) -> int:
    if not problem:
        return 0
    print(f"not audited: {problem}")
    return int(os.environ.get("AUDIT_REQUIRED") == "1")


if __name__ == "__main__":
    sys.exit(main())
