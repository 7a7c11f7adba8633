"""What a command line is read as."""

import inspect
import shlex
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from durable_worker.cli.grammar import app, parse
from durable_worker.cli.options import (
    AmqpLane,
    BrokerOptions,
    Cancel,
    Check,
    ConnectOptions,
    Dev,
    ListRuns,
    LogFormat,
    Operate,
    Place,
    Replay,
    Revive,
    Run,
    Show,
    Signal,
    Signing,
    Simulate,
    Start,
    Token,
)
from durable_worker.cli.quick import parse_run
from durable_worker.cli.watching import child_command
from durable_worker.errors import UsageError
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tokens import READS
from durable_worker.worker.determinism.policy import Determinism

COMMANDS = {
    "run app:worker": Run(target="app:worker"),
    "run app:worker --broker amqp://b/ --concurrency 5 --partition p --namespace n --prefix x "
    "--log-format json --grace 2.5 --renew-after 60 --determinism raise --debug": Run(
        target="app:worker",
        broker=BrokerOptions("amqp://b/", "x", "n"),
        concurrency=5,
        partition="p",
        grace=timedelta(seconds=2.5),
        renew_after=timedelta(minutes=1),
        determinism=Determinism.RAISE,
        log_format=LogFormat.JSON,
        debug=True,
    ),
    "run app:worker --broker-ca ca --broker-cert cert --broker-key key "
    "--broker-key-password-file word --max-message-bytes 500000": Run(
        target="app:worker",
        broker=BrokerOptions(
            connecting=ConnectOptions(
                ca_file=Path("ca"),
                cert_file=Path("cert"),
                key_file=Path("key"),
                key_password_file=Path("word"),
                max_message_bytes=500_000,
            )
        ),
    ),
    "run app:worker --signing-keys keys --signing sign --token-file token": Run(
        target="app:worker",
        broker=BrokerOptions(
            connecting=ConnectOptions(
                signing_keys=Path("keys"), signing=Signing.SIGN, token_file=Path("token")
            )
        ),
    ),
    "run app:worker --amqp-lane aio-pika": Run(
        target="app:worker",
        broker=BrokerOptions(connecting=ConnectOptions(amqp_lane=AmqpLane.AIO_PIKA)),
    ),
    "operator --amqp-lane fast": Operate(
        broker=BrokerOptions(connecting=ConnectOptions(amqp_lane=AmqpLane.FAST)),
    ),
    "operator --tenant-keys tenants --signing-keys keys": Operate(
        broker=BrokerOptions(connecting=ConnectOptions(signing_keys=Path("keys"))),
        tenant_keys=Path("tenants"),
    ),
    "cancel r1 --token abc": Cancel(
        place=Place(broker=BrokerOptions(connecting=ConnectOptions(token="abc"))), run_id="r1"
    ),
    "token --tenant acme --keys k --expires 15m --read-only --allow start": Token(
        keys=Path("k"),
        tenant="acme",
        expires=timedelta(minutes=15),
        allow=(*READS, "start"),
    ),
    "token --worker --expires 30d": Token(keys=None, tenant=None, expires=timedelta(days=30)),
    "operator --broker-accept-any-host-name --max-message-bytes 500000": Operate(
        broker=BrokerOptions(
            connecting=ConnectOptions(accepts_any_host_name=True, max_message_bytes=500_000)
        ),
    ),
    "show r1 --broker-ca ca": Show(
        place=Place(broker=BrokerOptions(connecting=ConnectOptions(ca_file=Path("ca")))),
        run_id="r1",
    ),
    "check app:worker --operator amqps://b/ --broker-ca ca": Check(
        place=Place(
            broker=BrokerOptions("amqps://b/", connecting=ConnectOptions(ca_file=Path("ca")))
        ),
        target="app:worker",
    ),
    "dev app:worker --max-message-bytes 500000": Dev(
        target="app:worker", max_message_bytes=500_000
    ),
    "dev app:worker": Dev(target="app:worker", database=Path(".durable/dev.db")),
    "dev app:worker --db x.db --no-reload": Dev(
        target="app:worker", database=Path("x.db"), is_reloading=False
    ),
    "dev app:worker --determinism off": Dev(target="app:worker", determinism=Determinism.OFF),
    "operator --database x.db": Operate(database="x.db"),
    "operator": Operate(),
    "start pay --input 3 --id r1 --wait --db x.db": Start(
        place=Place(database=Path("x.db")),
        workflow="pay",
        input="3",
        run_id="r1",
        is_waiting=True,
    ),
    "runs --status failed --workflow w --limit 5 --json --broker amqp://b/": ListRuns(
        place=Place(broker=BrokerOptions("amqp://b/")),
        status=RunStatus.FAILED,
        workflow="w",
        limit=5,
        is_json=True,
    ),
    "show r1 --json --tenant t": Show(place=Place(tenant="t"), run_id="r1", is_json=True),
    "signal s --payload {} --namespace n": Signal(
        place=Place(broker=BrokerOptions(namespace="n")), name="s", payload="{}"
    ),
    "cancel r1": Cancel(place=Place(), run_id="r1"),
    "runs --where customer=c-1 --where items=2": ListRuns(
        place=Place(), where=("customer=c-1", "items=2")
    ),
    "retry r1": Revive(place=Place(), run_id="r1", way="retry"),
    "continue r1": Revive(place=Place(), run_id="r1", way="continue"),
    "redispatch r1 --debug": Revive(place=Place(), run_id="r1", way="redispatch", debug=True),
    "replay app:worker a.json recorded - --ignore-output --json": Replay(
        target="app:worker", files=("a.json", "recorded", "-"), compares_end=False, is_json=True
    ),
    "simulate app:worker --workflow w --input 1 --seeds 9 --seed 3 --stub a=1 --stub b=2 --real c "
    "--signal s=1 --faults cut --any-end --processes 2 --json": Simulate(
        target="app:worker",
        workflow="w",
        input="1",
        seeds=9,
        seed=3,
        stubs=("a=1", "b=2"),
        real=("c",),
        signals=("s=1",),
        faults=("cut",),
        any_end=True,
        processes=2,
        is_json=True,
    ),
    "check app:worker": Check(place=Place(), target="app:worker"),
    "check app:worker --operator amqps://b/ --namespace n --tenant t --workflow w --json": Check(
        place=Place(broker=BrokerOptions("amqps://b/", namespace="n"), tenant="t"),
        target="app:worker",
        workflow="w",
        is_json=True,
    ),
    "check app:worker --operator sqlite:///x.db": Check(
        place=Place(database=Path("x.db")), target="app:worker"
    ),
    "check app:worker --db x.db": Check(place=Place(database=Path("x.db")), target="app:worker"),
}


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_line_is_read_into_options(line: str) -> None:
    assert parse(shlex.split(line)) == COMMANDS[line]


WORDS = st.lists(
    st.sampled_from(
        [
            "app:worker",
            "other",
            "--broker",
            "--broker=amqp://b/",
            "amqp://b/",
            "--concurrency",
            "--concurrency=7",
            "--concurrency=0",
            "7",
            "-1",
            "--grace",
            "--determinism",
            "--determinism=warn",
            "off",
            "--grace=1.5",
            "--renew-after=0.5",
            "--renew-after=0.4",
            "--renew-after=86401",
            "1.5",
            ".5",
            "5.",
            "--partition",
            "--partition=",
            "p",
            "--prefix=x",
            "--namespace=n",
            "--log-format",
            "json",
            "--log-format=xml",
            "--debug",
            "--debug=1",
            "--broker-ca=ca",
            "--broker-key",
            "--broker-accept-any-host-name",
            "--max-message-bytes",
            "--max-message-bytes=65535",
            "--max-message-bytes=65536",
            "--max-message-bytes=9999999999",
            "--signing-keys=k",
            "--signing=require",
            "--signing=never",
            "--amqp-lane=fast",
            "--amqp-lane=slow",
            "--token",
            "--token-file=t",
            "--help-me",
            "--",
        ]
    ),
    max_size=6,
)


@settings(deadline=None)
@given(words=WORDS)
def test_the_quick_reading_of_run_is_the_full_one_or_none(words: list[str]) -> None:
    quick = parse_run(words)
    if quick is not None:
        assert parse(["run", *words]) == quick


def test_every_plain_line_is_read_quickly() -> None:
    for line, options in COMMANDS.items():
        if isinstance(options, Run):
            assert parse_run(shlex.split(line)[1:]) == options


def test_the_process_that_dev_watches_is_given_all_that_dev_was() -> None:
    for options in COMMANDS.values():
        if isinstance(options, Dev):
            _python, _m, _package, *words = child_command(options)
            assert parse(words) == structs.replace(options, is_reloading=False)


def test_every_command_that_knows_a_broker_knows_how_to_connect_to_it() -> None:
    for command in app.registered_commands:
        assert command.callback is not None
        parameters = inspect.signature(command.callback).parameters
        assert ("broker" in parameters) == ("ca_file" in parameters), command.name


@pytest.mark.parametrize(
    ("line", "place", "reason"),
    [
        ("start ''", "WORKFLOW", "it is empty"),
        ("start x --id ''", "--id", "it is empty"),
        ("start x --id=", "--id", "it is empty"),
        ("show ''", "RUN", "it is empty"),
        ("cancel ''", "RUN", "it is empty"),
        ("signal ''", "NAME", "it is empty"),
        ("show \udcff", "RUN", "it is not UTF-8 text"),
        ("runs --limit 99999999999999999999", "--limit", "less than"),
        ("run app:worker --grace inf", "--grace", "less than"),
        ("run app:worker --renew-after 0", "--renew-after", "greater than"),
        ("run app:worker --grace nan", "--grace", ""),
        ("run app:worker --grace 1e300", "--grace", "less than"),
        ("run app:worker --grace=-inf", "--grace", "greater than"),
    ],
)
def test_a_value_that_means_nothing_is_a_usage_error_that_names_its_place(
    line: str, place: str, reason: str
) -> None:
    with pytest.raises(UsageError, match=f"Invalid value for '{place}': .*{reason}"):
        parse(shlex.split(line))


@pytest.mark.parametrize("text", ["", "s", "1", "1x", "0s", "-1h", "1.5h", "٣h", "99999999999s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no duration: expected a number and s, m, h or d"):
        parse(["token", "--tenant", "acme", f"--expires={text}"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nosuch", "No such command 'nosuch'. `durable-worker --help` says what there is."),
        (
            "token --expires 1h",
            "a token is for a tenant (--tenant NAME) or for a worker (--worker).",
        ),
        (
            "token --worker --tenant a --expires 1h",
            "a token is for a tenant (--tenant NAME) or for a worker (--worker).",
        ),
        (
            "token --worker --read-only --expires 1h",
            "what a worker's token allows is fixed: leave out --read-only and --allow",
        ),
        ("show", "Missing argument 'RUN'. `durable-worker show --help` says what there is."),
    ],
)
def test_a_mistake_is_a_usage_error_that_names_the_help(line: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(shlex.split(line))
    assert str(caught.value) == message
