"""The password of the broker is nowhere to be seen: whatever happens, whoever looks.

Its marker is searched for in all that the processes say, in what the machine and the broker show of
them, in everything that travels over the broker, and in the operator's database.
"""

import base64
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aio_pika
import anyio
import pytest
from aio_pika.abc import AbstractIncomingMessage

from durable_worker.cli.app import main
from tests.broker import BrokerNode
from tests.integration.cli.programs import PATIENCE, Program, Serving
from tests.integration.cli.tls import MARKER, PASSWORD, USER, Marked, url_file

pytestmark = pytest.mark.anyio

HIDDEN = (
    MARKER.encode(),
    # However the rest is aligned, one of the three encodings holds the marker.
    *(base64.b64encode(b" " * shift + MARKER.encode())[4:-4] for shift in range(3)),
)

DEFECTS = """
from typing import Any

from durable_worker import Worker, WorkflowContext
from durable_worker.interceptors import Interceptor, Proceed


class Broken(Interceptor):
    async def turn(self, call: Any, proceed: Proceed[Any, Any], /) -> Any:
        raise RuntimeError("a defect")


worker = Worker(interceptors=[Broken()])


@worker.workflow("breaking")
async def breaking(ctx: WorkflowContext) -> None: ...
"""


def exposed(seen: bytes) -> bool:
    return any(each in seen for each in HIDDEN)


def test_of_the_search_itself() -> None:
    for user in ("a", "ab", "abc"):
        login = f"\0{user}\0{MARKER}/p@ss"
        assert exposed(login.encode())
        assert exposed(base64.b64encode(login.encode()))
    assert not exposed(b"nothing of the kind")


class Trace:
    """What travels over a virtual host: each message that is published or delivered, whole."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self._kinds: set[str] = set()
        self._queues: set[str] = set()
        self._news = anyio.Event()

    async def take(self, message: AbstractIncomingMessage) -> None:
        headers: dict[str, Any] = dict(message.headers)
        self.seen.append(repr(headers).encode() + message.body)
        self._kinds.add(headers["properties"].get("type", ""))
        self._queues.update(headers["routing_keys"])
        self._news.set()

    async def until(self, *, kinds: set[str], queue: str) -> None:
        with anyio.fail_after(PATIENCE):
            while not (kinds <= self._kinds and queue in self._queues):
                self._news = anyio.Event()
                await self._news.wait()


class Crew:
    """Serving processes, and what all that ran has said."""

    def __init__(self, program: Program, env: Mapping[str, str]) -> None:
        self.program = program
        self.env = env
        self.said: list[str] = []

    @contextmanager
    def serving(self, *words: str) -> Iterator[Serving]:
        with self.program.serving(*words, env=self.env) as process:
            yield process
            self.look_at(process.pid)
            process.signal(signal.SIGTERM)
            process.ended()
            process.wait_for_end()
        self.said.extend(process.said)

    def run(self, *words: str, code: int | None = 0) -> str:
        done = self.program.run(*words, env=self.env)
        self.said.extend((done.stdout, done.stderr))
        assert code is None or done.returncode == code, done.stderr
        return done.stderr

    def look_at(self, pid: int) -> None:
        """What everybody on this machine may read of a process."""
        for name in ("cmdline", "comm", "status"):
            self.said.append(Path(f"/proc/{pid}/{name}").read_text())
        self.said.append(
            subprocess.check_output(["ps", "-p", str(pid), "-ww", "-o", "args="], text=True)
        )

    def check(self) -> None:
        for each in self.said:
            assert not exposed(each.encode()), each


@pytest.fixture
def vhost(tls_broker: Marked, prefix: str) -> Iterator[str]:
    """One for a test, with everything that travels over it traced."""
    node = tls_broker.node
    node.add_vhost(prefix)
    node.ctl("set_permissions", "-p", prefix, USER, ".*", ".*", ".*")
    node.ctl("trace_on", "-p", prefix)
    yield prefix
    node.ctl("delete_vhost", prefix)


async def test_of_a_login_that_works(tls_broker: Marked, vhost: str, program: Program) -> None:
    node = tls_broker.node
    env = {
        **tls_broker.ca,
        "DURABLE_BROKER_URL": f"{tls_broker.tls_url}{vhost}",
    }
    crew, trace = Crew(program, env), Trace()
    program.write("defects.py", DEFECTS)
    async with await aio_pika.connect(node.url(vhost)) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind("amq.rabbitmq.trace", "#")
        await queue.consume(trace.take, no_ack=True)

        async def send_nonsense() -> None:
            message = aio_pika.Message(b"not JSON")
            await channel.default_exchange.publish(message, "durable-tasks-greet")

        await anyio.to_thread.run_sync(everything, crew, node, vhost, send_nonsense)

        kinds = {"worker-descriptor", "worker-beat", "step-result", "control", "run-reply"}
        await trace.until(kinds=kinds, queue="durable-dead")
    crew.check()
    assert not any(exposed(each) for each in trace.seen)
    for each in program.directory.rglob("op.db*"):
        assert not exposed(each.read_bytes())


def everything(
    crew: Crew, node: BrokerNode, vhost: str, nonsense: Callable[[], Awaitable[None]]
) -> None:
    """Each command at least once, with debug lines, a defect and a message that nobody can read."""
    with crew.serving("operator", "--database", "op.db", "--debug") as operator:
        with (
            crew.serving("run", "app:worker", "--debug", "--log-format", "json") as worker,
            crew.serving("run", "defects:worker", "--debug") as broken,
        ):
            operator.wait_for("lease_acquired")
            for each in (worker, broken):
                each.wait_for("connected")
            crew.run("start", "greeting", "--input", '"you"', "--id", "r1", "--wait", "--debug")
            crew.run("start", "breaking", "--id", "r2", "--debug")
            broken.wait_for("delivery_not_handled")
            crew.run("start", "asking", "--input", '"why"', "--id", "r3")
            crew.run("signal", "why", "--payload", '"because"', "--debug")
            crew.run("cancel", "r2", "--now", "--debug")
            crew.run("runs", "--json", "--debug")
            crew.run("show", "r1", "--debug")
            crew.run("query", "r1", "nosuch", "--debug", code=1)
            crew.run("check", "app:worker", "--debug", code=None)
            crew.run("start", "greeting", "--id", "x" * 300, "--debug", code=1)
            anyio.from_thread.run(nonsense)
            worker.wait_for("message_refused")
            columns = (
                "name",
                "client_properties",
                "user",
                "vhost",
                "peer_cert_subject",
                "auth_mechanism",
            )
            shown = node.ctl("list_connections", *columns)
            assert shown.count("durable-worker (consume)") >= 3
            crew.said.append(shown)
            crew.said.append(node.ctl("list_queues", "-p", vhost, "name", "arguments"))
            crew.said.append(node.ctl("list_consumers", "-p", vhost))
        node.ctl("close_all_user_connections", USER, "for the test")
        operator.wait_for("disconnected")
        operator.wait_for("connected")
        crew.said.append(node.ctl("list_exchanges", "-p", vhost))
    with crew.serving("dev", "app:worker", "--no-reload", "--debug") as dev:
        dev.wait_for("lease_acquired")


def test_of_connections_that_fail(tls_broker: Marked, program: Program) -> None:
    node = tls_broker.node
    login = f"{USER}:{PASSWORD}@localhost"
    run, operator = ["run", "app:worker", "--log-format", "json"], ["operator"]
    cases = [
        (run, f"amqp://guest:{PASSWORD}@localhost:{node.port}/", "wrong user name or password"),
        (["runs"], f"amqp://{login}:{node.port}/nosuch", "refused virtual host"),
        (operator, f"amqps://{login}:{node.tls_port}/", "cannot be verified"),
        (run, f"amqp://{login}:{node.tls_port}/", "speaks TLS on this port"),
        (["runs"], f"amqps://{login}:{node.port}/", "does not speak TLS on this port"),
        (["runs"], f"amqp://{login}:1/", "gave up after"),
    ]
    for command, url, said in cases:
        crew = Crew(program, url_file(program.directory, url))
        assert said in crew.run(*command, "--debug", code=1)
        crew.check()
    crew = Crew(program, {"DURABLE_BROKER_URL": f"amqp://{login}:1/"})
    with crew.serving(*run, "--debug") as process:
        process.wait_for("connect_failed")
    crew.check()


@pytest.mark.parametrize(
    "url",
    [
        f"amqp://u:{MARKER}",
        f"amqp:u:{MARKER}@host",
        f"u:{MARKER}@host:5672/",
        f"http://u:{MARKER}@host/",
        f"amqp://u:{MARKER}@host:port/",
        f"amqp://u:{MARKER}#x@host/",
        f"amqp://u:x/{MARKER}@host/",
        f"amqps://u:{MARKER}@host/?no_verify_ssl=1",
        MARKER,
    ],
)
def test_of_urls_that_cannot_be_used(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*words: str) -> str:
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 2
        captured = capsys.readouterr()
        return captured.out + captured.err

    told = [said("runs", "--broker", url), said("runs", "--debug", "--broker", url)]
    # Where it does not belong, whoever complains about it repeats it.
    if "://" in url:
        told += [said("show", "r1", url), said("runs", f"--brokr={url}"), said("replay", url, "-")]
        told += [said("check", "app:worker", "--operator", url)]
    monkeypatch.setenv("DURABLE_BROKER_URL", url)
    told += [said("runs"), said("runs", "--debug")]
    for each in told:
        assert not exposed(each.encode()), each


def test_of_a_password_on_the_command_line_is_warned(tls_broker: Marked, program: Program) -> None:
    place = f"localhost:{tls_broker.node.tls_port}/"  # where all are turned away at once
    url = f"amqp://{USER}:{PASSWORD}@{place}"
    crew = Crew(program, {})
    for command in (["runs"], ["operator"], ["run", "app:worker"]):
        told = crew.run(*command, "--broker", url, code=1)
        assert told.count("can be read by everybody") == 1
        assert "DURABLE_BROKER_URL_FILE" in told
        quiet = crew.run(*command, "--broker", f"amqp://guest:guest@{place}", code=1)
        assert "can be read" not in quiet
    crew.check()
