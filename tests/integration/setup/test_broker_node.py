"""The private node: it starts, obeys, survives what it should, and leaves nothing."""

import asyncio
import os
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import aio_pika
import pytest

from tests.broker import BrokerNode, amqp
from tests.broker.programs import Programs
from tests.servers import ServerUnavailableError
from tests.servers.left import processes_of

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def node() -> Iterator[BrokerNode]:
    with BrokerNode() as node:
        yield node


async def test_a_message_survives_an_orderly_restart_and_a_kill(node: BrokerNode) -> None:
    async with await aio_pika.connect(node.url()) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(
            "kept", durable=True, arguments={"x-queue-type": "quorum"}
        )
        await channel.default_exchange.publish(aio_pika.Message(b"one"), routing_key=queue.name)

    node.restart()
    node.kill()
    assert amqp.refusal(node.url()) is not None
    node.start()

    async with await aio_pika.connect(node.url()) as connection:
        channel = await connection.channel()
        message = await (await channel.get_queue("kept")).get()
        assert message.body == b"one"
        await message.ack()


def test_a_new_vhost_lets_guest_in_and_an_unknown_one_does_not(node: BrokerNode) -> None:
    url = node.add_vhost("a b/c")
    assert amqp.refusal(url) is None
    assert amqp.refusal(node.url("nowhere")) is not None


async def test_close_connections_ends_the_clients_connections(node: BrokerNode) -> None:
    connection = await aio_pika.connect(node.url())
    is_closed = asyncio.Event()
    connection.close_callbacks.add(lambda *_: is_closed.set())
    await asyncio.to_thread(node.close_connections)
    async with asyncio.timeout(10):
        await is_closed.wait()


def test_two_nodes_run_side_by_side(node: BrokerNode) -> None:
    with BrokerNode() as other:
        assert other.port != node.port
        assert amqp.refusal(other.url()) is None
        other.add_vhost("elsewhere")
        assert "elsewhere" not in node.ctl("list_vhosts")


def test_a_failing_rabbitmqctl_says_what_it_was_asked(node: BrokerNode) -> None:
    with pytest.raises(ServerUnavailableError, match="rabbitmqctl delete_vhost nosuch failed"):
        node.ctl("delete_vhost", "nosuch")


def test_a_closed_node_leaves_no_process_and_no_file() -> None:
    node = BrokerNode()
    node.start()
    assert any("beam" in command for command in processes_of(node.home))
    assert any("epmd" in command for command in processes_of(node.home))
    node.close()
    assert processes_of(node.home) == []
    assert not node.home.exists()


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_a_session_that_is_killed_takes_its_node_along(sign: signal.Signals) -> None:
    script = textwrap.dedent(
        """
        import sys
        from tests.broker import BrokerNode
        with BrokerNode() as node:
            print(node.home, flush=True)
            sys.stdin.read()
        """
    )
    session = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    with session:
        assert session.stdout is not None
        home = Path(session.stdout.readline().strip())
        assert home.is_dir()
        guards = [pid for pid in children_of(session.pid) if is_alive(pid)]
        os.killpg(session.pid, sign)
    for pid in guards:
        wait_for_end(pid)
    assert processes_of(home) == []
    assert not home.exists()


def test_a_server_that_does_not_start_is_reported_with_its_last_words(tmp_path: Path) -> None:
    server = tmp_path / "rabbitmq-server"
    server.write_text("#!/bin/sh\necho 'the disk is on fire'\nexit 1\n")
    server.chmod(0o755)
    node = BrokerNode(programs=Programs(server=str(server), ctl="false", epmd="true"))
    with pytest.raises(ServerUnavailableError, match="the disk is on fire"):
        node.start()
    assert not node.home.exists()


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def wait_for_end(pid: int) -> None:
    """Block until a process that is not our child has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([handle], [], [], 30)[0], f"process {pid} is still there"
    finally:
        os.close(handle)
