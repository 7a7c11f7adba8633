"""How commands connect: TLS, the URL from a secret's file, and what they say when that fails."""

import signal
from pathlib import Path

import pytest

from tests.integration.cli.programs import Program
from tests.integration.cli.tls import MARKER, Marked, url_file

COMMANDS = [["run", "app:worker"], ["operator"], ["runs"]]


def test_a_run_over_tls_with_client_certificates(
    program: Program, tls_broker: Marked, prefix: str
) -> None:
    client = tls_broker.authority.client(password="pass phrase")
    program.write("password", "pass phrase\n")
    by_options = (
        *("--broker-ca", str(tls_broker.authority.ca_file)),
        *("--broker-cert", str(client.cert_file), "--broker-key", str(client.key_file)),
        *("--broker-key-password-file", "password", "--prefix", prefix),
    )
    by_environment = {
        **tls_broker.ca,
        "DURABLE_BROKER_CERT_FILE": str(client.cert_file),
        "DURABLE_BROKER_KEY_FILE": str(client.key_file),
        "DURABLE_BROKER_KEY_PASSWORD": "pass phrase",
        "DURABLE_BROKER_URL": tls_broker.tls_url,
    }
    url = {"DURABLE_BROKER_URL": tls_broker.tls_url}
    with (
        program.serving("operator", "--database", "op.db", *by_options, env=url) as operator,
        program.serving("run", "app:worker", "--prefix", prefix, env=by_environment) as worker,
    ):
        worker.wait_for("connected  broker=amqps://localhost")
        for env in (url, url_file(program.directory, tls_broker.tls_url)):
            words = ("start", "greeting", "--input", '"you"', "--wait", *by_options)
            done = program.run(*words, env=env)
            assert (done.returncode, done.stdout) == (0, '"hello you"\n'), done.stderr
        shown = tls_broker.node.ctl("list_connections", "ssl", "peer_cert_subject")
        assert len([line for line in shown.splitlines() if "CN=worker" in line]) >= 2
        for each in (worker, operator):
            each.signal(signal.SIGTERM)
        assert [worker.ended(), operator.ended()] == [0, 0]


@pytest.mark.parametrize("command", COMMANDS)
def test_files_that_cannot_be_used_are_usage_errors(program: Program, command: list[str]) -> None:
    url = {"DURABLE_BROKER_URL": f"amqps://u:{MARKER}@localhost:1/"}
    done = program.run(*command, "--broker-ca", "nosuch.pem", env=url)
    assert done.returncode == 2
    said = "error: the CA file (--broker-ca, DURABLE_BROKER_CA_FILE) 'nosuch.pem' cannot be read"
    assert done.stderr.splitlines()[-1].startswith(said)
    done = program.run(*command, "--broker", "amqp://localhost:1/", "--broker-ca", "nosuch.pem")
    assert done.returncode == 2
    assert "asks for a connection without it. Write amqps:// instead" in done.stderr
    assert MARKER not in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_broker_that_cannot_be_trusted_ends_the_program_at_once(
    program: Program, tls_broker: Marked, command: list[str]
) -> None:
    done = program.run(*command, env={"DURABLE_BROKER_URL": tls_broker.tls_url})
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: the certificate of the broker at amqps://localhost")
    assert "name the right ones with --broker-ca" in last


def test_another_host_name_is_refused_unless_told_otherwise_which_is_warned_of(
    program: Program, tls_broker: Marked, prefix: str
) -> None:
    env = {
        **tls_broker.ca,
        "DURABLE_BROKER_URL": tls_broker.tls_url.replace("localhost", "127.0.0.1"),
    }
    run = ("run", "app:worker", "--prefix", prefix)
    refused = program.run(*run, env=env)
    assert refused.returncode == 1
    assert "was issued for another host: IP address mismatch" in refused.stderr
    with program.serving(*run, "--broker-accept-any-host-name", env=env) as worker:
        worker.wait_for("host_name_not_checked")
        worker.wait_for("can pose as the broker")
        worker.wait_for("connected")
    lax = {**env, "DURABLE_BROKER_ACCEPT_ANY_HOST_NAME": "yes"}
    with program.serving(*run, env=lax) as worker:
        worker.wait_for("connected")
    unclear = program.run(*run, env={**env, "DURABLE_BROKER_ACCEPT_ANY_HOST_NAME": "1"})
    assert unclear.returncode == 2
    assert "DURABLE_BROKER_ACCEPT_ANY_HOST_NAME is '1': expected yes, or no." in unclear.stderr


def test_a_password_that_is_rotated_in_its_file_is_used_for_the_next_connection(
    program: Program, tls_broker: Marked, prefix: str
) -> None:
    node = tls_broker.node
    node.ctl("add_user", "rotated", "first")
    node.ctl("set_permissions", "rotated", ".*", ".*", ".*")

    def mounted(password: str) -> dict[str, str]:
        url = f"amqp://rotated:{password}@localhost:{node.port}/"
        return url_file(program.directory, url)

    with program.serving(
        *("run", "app:worker", "--prefix", prefix), env=mounted("first")
    ) as worker:
        worker.wait_for("connected")
        node.ctl("change_password", "rotated", "second")
        node.ctl("close_all_user_connections", "rotated", "rotation")
        worker.wait_for("disconnected")
        worker.wait_for("wrong user name or password")
        Path(program.directory / "broker-url").unlink()
        worker.wait_for("cannot be read: No such file or directory")
        mounted("second")
        worker.wait_for("connected  broker=")
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_a_url_file_that_cannot_be_used_is_a_usage_error(
    program: Program, command: list[str]
) -> None:
    url = f"amqp://u:{MARKER}@localhost:1/"
    for env, problem in (
        ({"DURABLE_BROKER_URL_FILE": "nosuch"}, "'nosuch', cannot be read: No such file"),
        ({"DURABLE_BROKER_URL_FILE": "x", "DURABLE_BROKER_URL": url}, "set, and neither wins"),
    ):
        done = program.run(*command, env=env)
        assert done.returncode == 2
        assert problem in done.stderr
        assert MARKER not in done.stderr
