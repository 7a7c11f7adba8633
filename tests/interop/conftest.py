"""A NestJS operator and Python workers, as processes; what they said is shown when a test fails."""

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.broker import new_prefix
from tests.interop.building import build_operator, require_node
from tests.interop.control import Control
from tests.interop.processes import House, running

SHOWN = 6_000


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for process in running:
            report.sections.append((f"last words of the {process.name}", process.output()[-SHOWN:]))
    return report


@pytest.fixture(scope="session")
def operator_main() -> Path:
    """The operator's main module, built if it was not."""
    require_node()
    return build_operator()


@pytest.fixture(scope="module")
def shared_house(
    operator_main: Path, broker_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    """An operator and a worker that the tests of a module share: they only look at own runs."""
    folder = tmp_path_factory.mktemp("interop")
    with House(operator_main, broker_url, new_prefix(), folder) as house:
        control = house.start_operator()
        house.start_worker()
        control.wait_for_groups("py.sum", "py.add")
        yield house


@pytest.fixture
def control(shared_house: House) -> Control:
    return shared_house.control


@pytest.fixture
def house(operator_main: Path, broker_url: str, prefix: str, tmp_path: Path) -> Iterator[House]:
    """Nothing runs in it yet; what the test starts is ended with it."""
    with House(operator_main, broker_url, prefix, tmp_path) as house:
        yield house
