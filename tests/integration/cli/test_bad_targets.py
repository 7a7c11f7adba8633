"""A target that cannot be served: one paragraph, exit code 2."""

import pytest

from tests.integration.cli.programs import Program

TWICE = """
from durable_worker import Worker
worker = Worker()
@worker.step("a")
def one(x: int) -> int: ...
@worker.step("a")
def two(x: int) -> int: ...
"""

SYNC_BODY = """
from durable_worker import Worker, WorkflowContext
worker = Worker()
@worker.workflow("w")
def body(ctx: WorkflowContext) -> None: ...
"""

FILES = {
    "raises.py": "import json\n\njson.loads('{')\n",
    "mistyped.py": "def (:\n",
    "needy.py": "import no_such_dependency\n",
    "leaves.py": "raise SystemExit(3)\n",
    "twice.py": TWICE,
    "syncbody.py": SYNC_BODY,
    "empty.py": "from durable_worker import Worker\n\nworker = Worker()\n",
    "inner/json.py": "from app import worker\n",
}


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("nosuch:thing", ["there is no module 'nosuch'"]),
        ("app.inner:worker", ["there is no module 'app.inner'"]),
        ("app:nothing", ["'app' has no attribute 'nothing'", "Found instead: app:worker."]),
        ("app:asyncio", ["of type module, not a Worker", "Found instead: app:worker."]),
        ("app", ["module:attribute", "Found instead: app:worker."]),
        (":worker", ["module:attribute"]),
        ("nosuch.py:worker", ["there is no file nosuch.py"]),
        ("inner/json.py:worker", ["another module is called 'json'"]),
        ("raises:worker", ["raises JSONDecodeError: Expecting property name", "at raises.py:3."]),
        ("mistyped:worker", ["SyntaxError: ", "at mistyped.py:1."]),
        ("needy:worker", ["No module named 'no_such_dependency'", "at needy.py:1."]),
        ("leaves:worker", ["exits with 3 at leaves.py:1."]),
        ("twice:worker", ["step 'a'", "twice.py:4", "twice.py:6"]),
        ("syncbody:worker", ["workflow 'w'", "async def", "syncbody.py:4"]),
        ("empty:worker", ["the worker serves nothing"]),
    ],
)
def test_a_target_that_cannot_be_served_is_told_in_one_paragraph(
    program: Program, target: str, parts: list[str]
) -> None:
    (program.directory / "inner").mkdir()
    for name, text in FILES.items():
        program.write(name, text)
    done = program.run("run", target)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: cannot load {target!r}: ")
    assert done.stderr.count("\n") == 1
    for part in parts:
        assert part in done.stderr


def test_debug_shows_the_whole_traceback(program: Program) -> None:
    program.write("raises.py", FILES["raises.py"])
    done = program.run("run", "raises:worker", "--debug")
    assert done.returncode == 2
    assert "Traceback (most recent call last):" in done.stderr
    assert "JSONDecodeError" in done.stderr


def test_a_module_is_found_by_its_file_inside_a_package(program: Program) -> None:
    package = program.directory / "outer" / "inner"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "names.py").write_text("NAME = 'packaged'\n")
    (package / "module.py").write_text(
        "from durable_worker import Worker\nfrom .names import NAME\n\nworker = Worker()\n\n\n"
        "@worker.step(NAME)\ndef step(x: int) -> int:\n    return x\n"
    )
    with program.serving("dev", "outer/inner/module.py:worker", "--no-reload") as dev:
        assert dev.wait_for("step").split() == ["step", "packaged"]
