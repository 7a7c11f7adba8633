"""Every operation that the context of a Python body offers, on runs that NestJS drives.

Their turns go to two workers: one that keeps bodies between turns, one that never does.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from anyio.to_thread import run_sync

from durable_worker.client import broker_client
from durable_worker.protocol.names import Names
from durable_worker.transports.rabbitmq import RabbitTransport
from tests.broker import new_prefix
from tests.interop.control import Control, Run, until
from tests.interop.journal import Entry, read_journal
from tests.interop.payloads import Everything
from tests.interop.processes import BODIES, House

pytestmark = [pytest.mark.anyio, pytest.mark.broker]

TASKS = ("b.act", "b.undo", "b.echo", "b.run", "b.versioned")


@pytest.fixture(scope="module")
def shared_house(
    operator_main: Path, broker_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("operations")
    with House(operator_main, broker_url, new_prefix(), folder) as house:
        control = house.start_operator()
        house.start_telling_worker(BODIES)
        house.start_telling_worker(BODIES, KEPT_RUNS="0")
        control.wait_for_groups(*TASKS)
        yield house


def start(control: Control, body: str, key: str, more: object = None) -> str:
    return control.start("b.run", {"body": body, "key": key, "more": more})


def calls_of(house: House, key: str) -> list[str]:
    """What steps were called to do for this key, in order, without the key."""
    return [each.attempt.replace(f"{key} ", "") for each in entries_of(house, key, "call")]


def entries_of(house: House, key: str, what: str) -> list[Entry]:
    return [
        each for each in read_journal(house.journal) if each.what == what and key in each.attempt
    ]


def failure_of(run: Run) -> tuple[str | None, str, Any]:
    assert run.status == "failed"
    assert run.error is not None
    return run.error.code, run.error.message, run.error.details


def test_a_step_that_takes_too_long_is_tried_again_and_in_the_end_given_up(
    shared_house: House, control: Control, prefix: str
) -> None:
    output = control.output(start(control, "timeouts", prefix))

    assert output["second"] == f"did {prefix} slow"
    assert output["caught"].pop("seq") > 0
    assert output["caught"] == {
        "code": "timeout",
        "text": "step 'b.act' failed [timeout]: no result came within 0.1 s",
    }
    assert output["last"] == f"did {prefix} last"
    assert calls_of(shared_house, prefix) == ["slow", "slow", "late", "last"]


def test_what_a_saga_and_then_a_body_have_done_is_undone_latest_first(
    shared_house: House, control: Control, prefix: str
) -> None:
    run_id = start(control, "sagas", prefix)

    run = control.outcome(run_id)
    assert failure_of(run) == ("withdrawn", "the order was withdrawn", {"key": prefix})
    assert calls_of(shared_house, prefix) == [
        *("outer", "a", "b flaky", "fails"),
        *("added", "undo b flaky", "undo b flaky", "undo a"),
        *("kept", "undo outer"),
    ]
    assert control.published(run_id, "caught") == "flaky"


def test_children_are_awaited_at_once_later_or_never_and_outlive_their_parent(
    control: Control, prefix: str
) -> None:
    run_id = start(control, "children", prefix)

    output = control.output(run_id)
    forgotten = control.look(output["forgotten"]).run
    assert forgotten is not None
    assert forgotten.status not in ("completed", "failed")
    assert output["step"] == f"did {prefix} beside"
    assert output["failure"] == f"{prefix} broken is broken"
    assert output["results"] == [f"did {prefix} later", f"did {prefix} awaited"]
    children = {run for run in control.statuses() if run.startswith(f"{run_id}.child.")}
    assert {control.output(run) for run in children - {f"{run_id}.child.1"}} == {
        f"did {prefix} {name}" for name in ("later", "forgotten", "awaited", "last")
    }
    assert control.outcome(f"{run_id}.child.1").status == "failed"


def test_a_body_catches_the_cancellation_of_a_child_that_it_has_started(
    control: Control, prefix: str
) -> None:
    run_id = start(control, "awaits_child", prefix)
    control.wait_for_waiter(prefix)
    control.ask("POST", "/cancel", {"runId": control.published(run_id, "child")})

    assert "cancelled" in control.output(run_id)


def test_a_body_goes_on_from_a_breakpoint_and_takes_what_others_have_done_for_it(
    control: Control, prefix: str
) -> None:
    run_id = start(control, "outside", prefix)
    control.complete_task(run_id, "approval", {"limit": 5})  # too early: it is kept
    control.wait_for_waiter(f"bp:{run_id}:0")

    control.signal(f"bp:{run_id}:0")
    control.wait_for_waiter(f"task:{run_id}:refusal")
    refusal = {"message": "over the limit", "code": "limit", "details": [5]}
    control.fail_task(run_id, "refusal", refusal)

    assert control.output(run_id) == [{"limit": 5}, ["over the limit", "limit", [5]]]


def test_signals_are_handled_one_after_the_other_beside_the_body(
    shared_house: House, control: Control, prefix: str
) -> None:
    run_id = start(control, "listens", prefix, 6)
    for number in range(6):
        control.signal(prefix, number)

    assert control.output(run_id) == list(range(6))
    calls = calls_of(shared_house, prefix)
    assert [each for each in calls if "signal" in each] == [f"signal {n}" for n in range(6)]
    assert [each for each in calls if "turn" in each] == [f"turn {n}" for n in range(3)]


def test_no_signal_is_lost_that_comes_while_a_decision_of_its_run_is_applied(
    control: Control, prefix: str
) -> None:
    keys = [f"{prefix} {number}" for number in range(3)]
    runs = [start(control, "crowded", key, 20) for key in keys]
    for number in range(20):
        for key in keys:
            control.signal(key, number)

    assert [control.output(run) for run in runs] == [list(range(20))] * 3


def test_a_body_sees_who_comes_first_the_same_way_at_every_replay(
    control: Control, prefix: str
) -> None:
    run_id = start(control, "races", prefix)
    control.wait_for_waiter(f"{prefix} 2")
    control.signal(f"{prefix} 2")

    assert control.output(run_id) == {
        "winners": ["step", "timer", "signal"],
        "arrivals": [f"did {prefix} {pace}" for pace in (0.0, 0.3, 0.6)],
    }


def test_failures_beside_running_work_reach_the_body_as_asyncio_says(
    control: Control, prefix: str
) -> None:
    assert control.output(start(control, "groups", prefix)) == {
        "outcome": [
            f"did {prefix} good",
            "broken",
            "1 failed",
            "sibling cancelled: True",
            "too slow",
        ],
        "waited": f"did {prefix} in time",
    }


def test_a_retry_policy_backs_off_and_knows_what_is_not_worth_a_retry(
    shared_house: House, control: Control, prefix: str
) -> None:
    output = control.output(start(control, "policies", prefix))

    assert output == [
        f"did {prefix} flaky",
        [f"call 1 of {prefix} listed", "hopeless"],
        [f"call 1 of {prefix} class", "ConnectionError"],
        [f"call 1 of {prefix} fatal", "declined"],
        [f"call 4 of {prefix} spent", "other"],
    ]
    times = [each.at for each in entries_of(shared_house, f"{prefix} flaky", "call")]
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert len(waits) == 3
    assert all(
        wait >= 0.8 * least - 5 for wait, least in zip(waits, (100, 300, 400), strict=True)
    ), waits


def test_a_step_goes_to_the_workers_of_the_partition_that_the_call_names(
    shared_house: House, control: Control, prefix: str
) -> None:
    run_id = start(control, "elsewhere", prefix)
    checkpoint = until(
        lambda: next(iter(control.look(run_id).checkpoints), None), lambda: "no call"
    )
    assert (checkpoint.worker_group, checkpoint.status) == ("b.act@blue", "pending")

    worker = shared_house.start_telling_worker(BODIES, PARTITION="blue")

    assert control.output(run_id) == f"did {prefix}"
    (call,) = entries_of(shared_house, prefix, "call")
    assert call.pid == worker.pid
    worker.stop()


def test_runs_stay_on_the_version_that_the_operator_has_started_them_on(
    control: Control, prefix: str
) -> None:
    first = control.start("b.versioned", f"{prefix} 1")
    control.wait_for_waiter(f"{prefix} 1")
    control.ask("POST", "/remote", {"name": "b.versioned", "version": "2"})
    second = control.start("b.versioned", f"{prefix} 2")
    control.wait_for_waiter(f"{prefix} 2")

    for number in (1, 2):
        control.signal(f"{prefix} {number}")
    assert control.output(first) == ["1", "first"]
    assert control.output(second) == ["2", "second"]


def test_payloads_of_every_type_come_back_from_the_operators_store_as_they_were(
    control: Control, prefix: str
) -> None:
    run_id = start(control, "echoes", prefix)
    control.wait_for_waiter(prefix)
    published = control.published(run_id, "everything")
    control.signal(prefix, published)

    output = control.output(run_id)
    ways = ("step", "local step", "side effect", "child", "signal")
    assert output["ways"] == dict.fromkeys(ways, True)
    for value in (published, output["value"]):
        assert msgspec.convert(value, Everything, strict=False) == Everything.example()


@pytest.mark.parametrize("length", [1, 60_000], ids=["awkward", "large"])
def test_a_text_comes_back_from_the_operators_store_as_it_was(
    control: Control, prefix: str, length: int
) -> None:
    same, also_same, given = control.output(start(control, "texts", prefix, length))

    assert (same, also_same) == (True, True)
    assert given == 'ß\N{GRINNING FACE}\x00\n"\\' * length


@pytest.mark.parametrize(
    ("operation", "capability"),
    [
        ("ctx.continue_as_new", "continue-as-new"),
        ("ctx.upsert_search_attributes", "search-attributes"),
        ("ctx.call_entity", "entities"),
    ],
)
def test_what_no_command_can_express_fails_the_run_and_says_what_is_missing(
    control: Control, prefix: str, operation: str, capability: str
) -> None:
    code, message, _ = failure_of(
        control.outcome(start(control, "unsupported", prefix, capability))
    )

    assert code == "unsupported-by-operator"
    assert message.startswith(f"{operation} cannot be used")
    assert f"capability {capability!r}" in message


async def test_a_query_is_answered_and_an_update_that_is_not_valid_is_rejected(
    shared_house: House, control: Control, prefix: str
) -> None:
    run_id = start(control, "answers", prefix)
    names = Names(prefix=shared_house.prefix)
    signal = f"update:{run_id}:name"
    async with broker_client(RabbitTransport(shared_house.url, names=names), names=names) as client:
        await run_sync(control.wait_for_waiter, signal)
        assert await client.query(run_id, "at") == "waiting"
        await run_sync(control.signal, signal, "4711")
        await run_sync(published, control, run_id, "update-rejected:name")
        await run_sync(control.signal, signal, "Ada")
        assert await run_sync(control.output, run_id) == f"did {prefix} Ada"
        assert await client.query(run_id, "at", returns=str) == "done"
        reason = await client.query(run_id, "update-rejected:name")
        assert reason == "the argument is not valid"
    assert control.published(run_id, "at") == "done"


def published(control: Control, run_id: str, key: str) -> Any:
    return until(lambda: control.published(run_id, key), lambda: f"{run_id} has not said {key}")
