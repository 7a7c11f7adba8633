"""What a measurement is given: how thorough to be, a broker of its own, and the peers."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from tests.bench import environments
from tests.bench.figures import Pairs, UnavailableError
from tests.broker import Broker, open_broker
from tests.servers import ServerUnavailableError

T = TypeVar("T")


@dataclass
class Bench:
    """`is_quick` asks for the small counts. Peers are installed only if `installs`."""

    is_quick: bool = False
    installs: bool = True
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @cached_property
    def broker(self) -> Broker:
        """A broker in a virtual host of its own. Raises `UnavailableError`."""
        try:
            return self._stack.enter_context(open_broker())
        except ServerUnavailableError as error:
            raise UnavailableError(str(error)) from error

    def pick(self, quick: T, full: T) -> T:
        return quick if self.is_quick else full

    def pairs(
        self, ours: Callable[[], float], theirs: Callable[[], float], *, quick: int, full: int
    ) -> Pairs:
        """So many samples of each side, in turn."""
        pairs = Pairs()
        for _ in range(self.pick(quick, full)):
            pairs.ours.append(ours())
            pairs.theirs.append(theirs())
        return pairs

    def python(self, peer: str) -> Path:
        """The interpreter of the environment of tests/bench/peers/`peer`/requirements.txt.
        Raises `UnavailableError`."""
        return environments.python_for(peer, installs=self.installs)

    def node(self, peer: str) -> Path:
        """A copy of tests/bench/peers/`peer` with what its package-lock.json names installed.
        Raises `UnavailableError`."""
        return environments.node_for(peer, installs=self.installs)
