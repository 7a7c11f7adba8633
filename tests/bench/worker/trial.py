"""One trial: tasks are loaded, a worker is started on them, its answers pile up and are checked."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.bench.figures import WrongResultError
from tests.bench.processes import Program, environment
from tests.bench.worker.bulk import Bulk
from tests.bench.worker.contender import Contender

LOOK_SECONDS = 0.01
START_SECONDS = 30.0
IDLE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Trial:
    """What was seen from the first answer to the last, without the start of the program: `done`
    answers of `count`, in so many seconds, for so much CPU of the program."""

    count: int
    done: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Steps per second."""
        return self._done / self.seconds

    @property
    def cpu_us(self) -> float:
        """CPU of the program for each step."""
        return 1e6 * self.cpu_seconds / self._done

    @property
    def _done(self) -> int:
        if self.done < self.count / 2:
            raise ValueError(
                f"{self.count - self.done} of {self.count} answers were there at first sight: "
                f"too few tasks to measure by"
            )
        return self.done


def trial(url: str, contender: Contender, count: int) -> Trial:
    """Raises `WrongResultError` unless each task was answered rightly, once, and acknowledged."""
    with Bulk(url) as bulk:
        for queue in (contender.tasks, contender.results):
            bulk.declare(queue, contender.arguments)
        bulk.load(contender.tasks, (contender.task(number) for number in range(count)))
        with started(contender) as program:
            seen = watched(program, lambda: bulk.depth(contender.results), count)
        unacknowledged = bulk.depth(contender.tasks)
        answers = [contender.number(*message) for message in bulk.drain(contender.results)]
        for queue in (contender.tasks, contender.results):
            bulk.delete(queue)
    require_once(contender.name, answers, count)
    if unacknowledged:
        raise WrongResultError(f"{contender.name} left {unacknowledged} tasks unacknowledged")
    return seen


def started(contender: Contender) -> Program:
    return Program(contender.command, cwd=contender.cwd, env=environment(**contender.environment))


def watched(program: Program, answered: Callable[[], int], count: int) -> Trial:
    """From the first look that sees an answer to the first that sees them all."""
    at = first = time.perf_counter()
    before = now = 0
    cpu_before = 0.0
    progress = first
    while now < count:
        time.sleep(LOOK_SECONDS)
        seen, at = answered(), time.perf_counter()
        if now == 0 and seen > 0:
            before, first, cpu_before = seen, at, program.cpu_seconds()
        if seen > now:
            now, progress = seen, at
        elif at - progress > (IDLE_SECONDS if now else START_SECONDS):
            raise TimeoutError(f"{now} of {count} answers, then none: {program.said()}")
        program.require_running()
    spent = program.cpu_seconds() - cpu_before
    return Trial(count=count, done=count - before, seconds=at - first, cpu_seconds=spent)


def require_once(name: str, answers: Iterable[int], count: int) -> None:
    seen = Counter(answers)
    missing = [number for number in range(count) if number not in seen]
    repeated = [number for number, times in seen.items() if times > 1]
    if missing or repeated or len(seen) != count:
        raise WrongResultError(
            f"{name}: of {count} results {len(missing)} are missing and {len(repeated)} came more "
            f"than once"
        )
