"""Nothing that arrives is ever run: no pickle, no eval, no import by a name from outside."""

import ast
from pathlib import Path

import pytest

import durable_worker
from tests.unit.rules.code_from_data import findings

ROOT = Path(durable_worker.__file__).parent

ALLOWED = {
    ("cli/targets.py", "import_module(computed)"): "TARGET, from the command line",
    ("cli/targets.py", "getattr(computed)"): "TARGET, from the command line",
    ("cli/app.py", "import_module(computed)"): "the module of a command, from a table beside it",
    ("cli/dev.py", "import_module(computed)"): "one of two modules, by an option",
    ("worker/determinism/other_clock.py", "getattr(computed)"): "functions of `time`, from a list",
    ("worker/determinism/other_clock.py", "import ctypes"): "the C library's clock, by its name",
    ("worker/interception.py", "getattr(computed)"): "hooks of Interceptor, from a list",
    (
        "transports/rabbitmq/frames.py",
        "getattr(computed)",
    ): "properties of AMQP, from the library's list",
    ("replay/failures.py", "getattr(computed)"): "two fields of an error that a step has raised",
}
"""What is used all the same, and where its names come from: never from a message."""


def used() -> dict[tuple[str, str], list[int]]:
    found: dict[tuple[str, str], list[int]] = {}
    for path in sorted(ROOT.rglob("*.py")):
        for rule, line in findings(ast.parse(path.read_text(), str(path))):
            found.setdefault((path.relative_to(ROOT).as_posix(), rule), []).append(line)
    return found


def test_the_package_has_no_way_from_data_to_code_but_those_that_are_accounted_for() -> None:
    forbidden = {place: lines for place, lines in used().items() if place not in ALLOWED}
    assert forbidden == {}


def test_each_way_that_is_accounted_for_is_still_used() -> None:
    assert ALLOWED.keys() - used().keys() == set()


@pytest.mark.parametrize(
    "source",
    [
        *("import pickle", "from pickle import loads", "import marshal as m", "import shelve"),
        *("eval(text)", "exec(text)", "compile(text, '', 'exec')", "__import__(name)"),
        *("f = eval", "__builtins__['eval']", "from builtins import eval as safe", "import yaml"),
        *("import importlib", "import importlib.util", "from importlib import reload"),
        *("from importlib import import_module as load", "import_module(name)"),
        *("import_module(f'plugins.{name}')", "loader.exec_module(module)", "os.system(text)"),
        *("run(text, shell=True)", "getattr(module, name)", "asyncio.create_subprocess_shell(x)"),
    ],
)
def test_each_way_is_found(source: str) -> None:
    assert list(findings(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        *("import re\nre.compile(text)", "import_module('durable_worker.cli.run')"),
        *("getattr(error, 'code', None)", "from importlib import import_module"),
        *("from importlib.resources import files", "import importlib.metadata"),
        *("import msgspec\nmsgspec.json.decode(body)", "evaluate(text)"),
    ],
)
def test_nothing_else_is_found(source: str) -> None:
    assert not list(findings(ast.parse(source)))
