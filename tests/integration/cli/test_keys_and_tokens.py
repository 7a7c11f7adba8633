"""Signed messages and tenant tokens from the command line, over RabbitMQ."""

import json
import secrets
from base64 import b64encode
from datetime import UTC, datetime, timedelta

import pytest

from durable_worker.protocol.codec import MessageType, encode
from durable_worker.protocol.keys import parse_keyring
from durable_worker.protocol.names import Names
from durable_worker.protocol.runs import StartRun
from durable_worker.protocol.tokens import TenantTokens
from durable_worker.transports.base import Envelope
from durable_worker.transports.rabbitmq import RabbitTransport
from tests.integration.cli.programs import Program

pytestmark = pytest.mark.anyio


def write_keys(program: Program, name: str) -> str:
    """A key file; the key that is in it."""
    key = b64encode(secrets.token_bytes(32)).decode()
    program.write(name, json.dumps({"current": "k1", "keys": {"k1": key}}))
    return key


async def test_a_signed_fleet_with_tenants_from_keys_to_output(
    on_broker: Program, broker_url: str, prefix: str
) -> None:
    secret = write_keys(on_broker, "signing.json")
    tenant_secret = write_keys(on_broker, "tenants.json")
    signing = {"DURABLE_SIGNING_KEYS_FILE": "signing.json"}
    bare = Program(on_broker.directory)
    issue = ("token", "--keys", "tenants.json", "--expires", "1h")
    acme, umbrella = (bare.out(*issue, "--tenant", each) for each in ("acme", "umbrella"))
    reader = bare.out(*issue, "--tenant", "acme", "--read-only")
    on_broker.write("worker-token", bare.out(*issue, "--worker"))
    with (
        on_broker.serving(
            *("operator", "--database", "op.db", "--tenant-keys", "tenants.json", "--debug"),
            env=signing,
        ) as operator,
        on_broker.serving(
            *("run", "app:worker", "--signing-keys", "signing.json"),
            *("--token-file", "worker-token", "--debug"),
        ) as worker,
    ):
        operator.wait_for("lease_acquired")
        worker.wait_for("connected")
        start = ("start", "greeting", "--input", '"you"', "--wait")
        done = on_broker.run(*start, "--id", "r1", env={**signing, "DURABLE_TENANT_TOKEN": acme})
        assert (done.returncode, done.stdout) == (0, '"hello you"\n'), done.stderr
        on_broker.write("acme", f"{acme}\n")
        with_file = {**signing, "DURABLE_TENANT_TOKEN_FILE": "acme"}
        assert json.loads(on_broker.run("runs", "--json", env=with_file).stdout)[0]["id"] == "r1"
        shown = on_broker.run("show", "r1", "--token", acme, env=signing)
        assert "greet" in shown.stdout
        assert "can be read by everybody who can list the processes" in shown.stderr

        theirs = on_broker.run("show", "r1", env={**signing, "DURABLE_TENANT_TOKEN": umbrella})
        assert (theirs.returncode, "'r1'" in theirs.stderr) == (1, True)
        refused = on_broker.run("cancel", "r1", env={**signing, "DURABLE_TENANT_TOKEN": reader})
        assert refused.returncode == 1
        assert "it does not allow 'cancel'" in refused.stderr
        nobody = on_broker.run("runs", env=signing)
        assert "there is none" in nobody.stderr

        names = Names(prefix=prefix)
        tokens = TenantTokens(parse_keyring((on_broker.directory / "tenants.json").read_bytes()))
        token = tokens.issue("acme", expires=datetime.now(UTC) + timedelta(hours=1))
        message = StartRun(tenant="acme", workflow="greeting", run_id="forged")
        async with RabbitTransport(broker_url, names=names) as intruder:
            await intruder.wait_connected()
            await intruder.send(
                names.start_run,
                Envelope(
                    MessageType.START_RUN,
                    encode(message),
                    "forged",
                    headers={"durable-tenant-token": token},
                ),
            )
        line = operator.wait_for("signature_refused")
        assert "its signature is missing" in line
        listed = on_broker.run("runs", "--json", env=with_file)
        assert [each["id"] for each in json.loads(listed.stdout)] == ["r1"]
        for line in (*operator.said, *worker.said):
            assert secret not in line
            assert tenant_secret not in line
            assert not any(each in line for each in (acme, umbrella, reader, token))


def test_signatures_and_keys_that_make_no_sense_are_told_of_at_once(on_broker: Program) -> None:
    key = write_keys(on_broker, "signing.json")
    on_broker.write("short.json", '{"current": "k", "keys": {"k": "AAAA"}}')
    on_broker.write("empty", "")
    cases = {
        ("runs", "--signing", "sign"): "nothing can be signed without keys",
        ("run", "app:worker", "--signing-keys", "none.json"): "none.json cannot be read: No such",
        ("operator", "--signing-keys", "short.json"): "short.json cannot be used: key 1 has 3 by",
        ("operator", "--tenant-keys", "app.py"): "app.py cannot be used: expected {",
        ("runs", "--token-file", "empty"): "the token file empty is empty",
        ("runs", "--token-file", "x", "--token", "y"): "--token and --token-file exclude each",
        ("runs", "--token", "nonsense"): "it is no tenant token",
    }
    for words, told in cases.items():
        done = on_broker.run(*words)
        assert done.returncode in (1, 2)
        assert told in done.stderr
        assert key not in done.stderr
    odd = on_broker.run("runs", env={"DURABLE_SIGNING": "perhaps"})
    assert "DURABLE_SIGNING is 'perhaps': expected sign, or require" in odd.stderr
    both = on_broker.run(
        "runs", env={"DURABLE_TENANT_TOKEN": "a", "DURABLE_TENANT_TOKEN_FILE": "b"}
    )
    assert "are both set, and neither wins" in both.stderr


def test_a_token_needs_keys_and_allows_what_there_is(program: Program) -> None:
    write_keys(program, "tenants.json")
    keys = {"DURABLE_TENANT_KEYS_FILE": "tenants.json"}
    issue = ("token", "--tenant", "acme", "--expires", "1h")
    assert "which keys? Give --keys FILE" in program.run(*issue).stderr
    assert program.run(*issue, env=keys).stdout.startswith("v1.k1.")
    unknown = program.run(*issue, "--allow", "everything", env=keys)
    assert "there is no request 'everything'; a token can allow start, cancel," in unknown.stderr
    odd = program.run("token", "--tenant", "a*", "--expires", "1h", env=keys)
    assert "'a*' cannot be a tenant" in odd.stderr
