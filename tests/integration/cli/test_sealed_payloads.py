"""Codecs and contexts from the command line, and in the process that replays turns for `dev`."""

import json
import signal

from tests.integration.cli.programs import Program

APP = """
from durable_worker import StepContext, Worker, WorkflowContext
from durable_worker.payloads import Encrypt, Keyring, PayloadCodec

codec = PayloadCodec(Encrypt(Keyring({"2026-11": bytes(64)})))
worker = Worker(codec=codec)


@worker.step("greet")
async def greet(name: str, ctx: StepContext) -> str:
    return f"hello {name} of {(ctx.context or {})['tenant']}"


@worker.workflow("greeting")
async def greeting(ctx: WorkflowContext, name: str) -> list[str]:
    await ctx.step(greet, name)
    greeted = await ctx.local_step(greet, name + " and " + ctx.context["tenant"])
    ctx.set_event("greeted", greeted)
    return [greeted, await ctx.wait_signal("answer", returns=str)]
"""


def test_the_command_line_seals_and_opens_and_the_second_replay_knows_the_context(
    program: Program,
) -> None:
    program.write("app.py", APP)
    codec = ("--codec", "app:codec")
    with program.serving("dev", "app:worker", "--no-reload") as dev:
        dev.wait_for("lease_acquired")
        program.out(
            "start",
            "greeting",
            "--input",
            '"Ada"',
            "--id",
            "r1",
            "--context",
            "tenant=acme",
            *codec,
        )
        program.out("signal", "answer", "--payload", '"secret thanks"', *codec)
        done = program.run("start", "greeting", "--id", "r1", "--wait", "--codec", "app:worker")
        expected = ["hello Ada and acme of acme", "secret thanks"]
        assert (done.returncode, json.loads(done.stdout or "null")) == (0, expected), done.stderr

        assert json.loads(program.out("query", "r1", "greeted", *codec)) == expected[0]
        shown = program.out("show", "r1")
        assert "sealed (aes-siv, key 2026-11)" in shown
        assert "Ada" not in shown
        assert "secret thanks" in program.out("show", "r1", *codec)

        stranger = program.run("start", "greeting", "--id", "r1", "--wait")
        assert (stranger.returncode, stranger.stdout) == (0, "sealed (aes-siv, key 2026-11)\n")
        assert "this process has no codec" in stranger.stderr
        refused = program.run("show", "r1", "--codec", "app:greet")
        assert refused.returncode != 0
        assert "not a PayloadCodec" in refused.stderr
        dev.signal(signal.SIGTERM)
        assert dev.ended() == 0
        dev.wait_for("operator_stopped")
    assert not any("diverged" in line or "shadow" in line for line in dev.said)


def test_a_context_that_is_no_pair_is_refused(program: Program) -> None:
    done = program.run("start", "greeting", "--context", "tenant", "--db", "none.db")
    assert done.returncode == 2
    assert "--context reads KEY=VALUE, not 'tenant'" in done.stderr
