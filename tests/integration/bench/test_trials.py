import sys
from dataclasses import replace

import pytest
from pamqp.commands import Basic

from tests.bench.figures import WrongResultError
from tests.bench.worker.bulk import Bulk, BulkError
from tests.bench.worker.contender import QUORUM, Contender
from tests.bench.worker.ours import number_of, step_task
from tests.bench.worker.trial import trial
from tests.broker import Broker, new_prefix

pytestmark = pytest.mark.broker

STEPS = 300

ANSWERS = """
import signal, sys
from pamqp.commands import Basic
from tests.bench.worker.bare_loop import answer
from tests.bench.worker.bulk import Bulk
url, tasks, results, times = sys.argv[1:]
with Bulk(url) as bulk:
    for _, body in [*bulk.drain(tasks)]:
        message_id, result = answer(body)
        message = Basic.Properties(message_id=message_id, delivery_mode=2), result
        bulk.load(results, [message] * int(times))
    signal.sigwait({signal.SIGTERM})
"""


def contender(url: str, *, times: int) -> Contender:
    """Answers each task so many times."""
    prefix = new_prefix()
    tasks, results = f"{prefix}-tasks", f"{prefix}-results"
    command = [sys.executable, "-c", ANSWERS, url, tasks, results, str(times)]
    return Contender("it", command, tasks, results, step_task, number_of)


def test_a_trial_counts_what_was_answered_and_leaves_no_queue(broker: Broker) -> None:
    it = contender(broker.url, times=1)
    seen = trial(broker.url, it, STEPS)
    assert seen.count == STEPS
    assert 0 <= seen.done < STEPS
    for queue in (it.tasks, it.results):
        with Bulk(broker.url) as bulk, pytest.raises(BulkError, match="404"):
            bulk.depth(queue)


def test_a_trial_with_answers_that_came_twice_counts_for_nothing(broker: Broker) -> None:
    with pytest.raises(WrongResultError, match="came more than once"):
        trial(broker.url, contender(broker.url, times=2), STEPS)


def test_a_trial_of_a_program_that_ends_says_what_it_said_last(broker: Broker) -> None:
    it = replace(contender(broker.url, times=1), command=[sys.executable, "-c", "exit('oh')"])
    with pytest.raises(Exception, match="status 1: oh"):
        trial(broker.url, it, STEPS)


def test_messages_come_back_as_they_were_loaded(broker: Broker) -> None:
    queue = f"{new_prefix()}-bulk"
    bodies = [b"", b"1", b"x" * 300_000, *(b"%d" % number for number in range(1_200))]
    with Bulk(broker.url) as bulk:
        bulk.declare(queue, QUORUM)
        bulk.load(queue, ((Basic.Properties(delivery_mode=2), body) for body in bodies))
        assert bulk.depth(queue) == len(bodies)
        assert [body for _, body in bulk.drain(queue)] == bodies
        assert bulk.depth(queue) == 0
        bulk.delete(queue)
        with pytest.raises(BulkError, match="unroutable"):
            bulk.load(queue, [(Basic.Properties(), b"nowhere")])
