"""Which broker a session gets, and what it leaves there."""

import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import aio_pika
import pytest

from tests.broker import BrokerNode, amqp, new_prefix, open_broker, programs
from tests.broker.vhosts import VhostError, VhostMaker
from tests.servers import ServerUnavailableError, install_package, packages


class NodeVhosts:
    """Makes virtual hosts by the private node's own rabbitmqctl."""

    def __init__(self, node: BrokerNode) -> None:
        self.node = node

    def create(self, name: str) -> None:
        self.node.add_vhost(name)

    def delete(self, name: str) -> None:
        self.node.ctl("delete_vhost", name)


class NoVhosts:
    def create(self, name: str) -> None:
        raise VhostError("not allowed")

    def delete(self, name: str) -> None:
        raise VhostError("not allowed")


class OtherBrokersVhosts:
    """Succeeds, but somewhere else: what rabbitmqctl does when it reaches another broker."""

    def __init__(self) -> None:
        self.deleted: list[str] = []

    def create(self, name: str) -> None: ...

    def delete(self, name: str) -> None:
        self.deleted.append(name)


def no_ways(url: str) -> Sequence[VhostMaker]:
    return []


@pytest.fixture(scope="module")
def node() -> Iterator[BrokerNode]:
    with BrokerNode() as node:
        yield node


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_a_session_gets_a_virtual_host_that_is_gone_afterwards(node: BrokerNode) -> None:
    environment = {"DURABLE_TEST_DEFAULT_PORT": str(node.port)}
    with open_broker(environment, makers=lambda _: [NoVhosts(), NodeVhosts(node)]) as broker:
        assert broker.vhost is not None
        assert broker.vhost in node.ctl("list_vhosts")
        assert broker.url == node.url(broker.vhost)
        assert amqp.refusal(broker.url) is None
    assert broker.vhost not in node.ctl("list_vhosts")


async def test_a_session_can_empty_its_virtual_host_in_between(node: BrokerNode) -> None:
    environment = {"DURABLE_BROKER_URL": node.url()}
    with open_broker(environment, makers=lambda _: [NodeVhosts(node)]) as broker:
        assert broker.vhost is not None
        async with await aio_pika.connect(broker.url) as connection:
            await (await connection.channel()).declare_queue("left-behind", durable=True)
        broker.sweep()
        assert "left-behind" not in node.ctl("list_queues", "-p", broker.vhost, "name")
        assert amqp.refusal(broker.url) is None


def test_the_stated_broker_wins_over_the_default_port(node: BrokerNode, free_port: int) -> None:
    environment = {
        "DURABLE_BROKER_URL": node.url(),
        "DURABLE_TEST_DEFAULT_PORT": str(free_port),
    }
    with open_broker(environment, makers=lambda _: [NodeVhosts(node)]) as broker:
        assert broker.url == node.url(broker.vhost or "")


def test_a_virtual_host_made_on_another_broker_is_removed_and_not_used(node: BrokerNode) -> None:
    stray = OtherBrokersVhosts()
    environment = {"DURABLE_BROKER_URL": node.url()}
    with open_broker(environment, makers=lambda _: [stray]) as broker:
        assert broker.vhost is None
    assert len(stray.deleted) == 1


async def test_a_shared_virtual_host_is_swept_of_what_the_session_declared(
    node: BrokerNode,
) -> None:
    prefix = new_prefix()
    async with await aio_pika.connect(node.url()) as before:
        await (await before.channel()).declare_queue("somebody-elses", durable=True)

    with open_broker({"DURABLE_BROKER_URL": node.url()}, makers=no_ways) as broker:
        async with await aio_pika.connect(broker.url) as connection:
            channel = await connection.channel()
            await channel.declare_queue(f"{prefix}-tasks-a.b", durable=True)
            await channel.declare_queue("somebody-elses", durable=True)
            await channel.declare_exchange(f"{prefix}-control", "fanout", durable=True)
            body = b"x" * 300_000
            await channel.default_exchange.publish(
                aio_pika.Message(body), routing_key=f"{prefix}-tasks-a.b"
            )
            received = await (await channel.get_queue(f"{prefix}-tasks-a.b")).get(no_ack=True)
            assert received.body == body
        assert f"{prefix}-tasks-a.b" in node.ctl("list_queues", "name")

    assert prefix not in node.ctl("list_queues", "name")
    assert prefix not in node.ctl("list_exchanges", "name")
    assert "somebody-elses" in node.ctl("list_queues", "name")


def test_a_private_node_is_started_where_nothing_answers(free_port: int) -> None:
    with open_broker({"DURABLE_TEST_DEFAULT_PORT": str(free_port)}) as broker:
        assert f":{free_port}/" not in broker.url
        assert amqp.refusal(broker.url) is None
    assert amqp.refusal(broker.url) is not None


def test_a_stated_broker_that_refuses_is_named_without_its_password(node: BrokerNode) -> None:
    url = f"amqp://guest:s3cret@127.0.0.1:{node.port}/"
    with (
        pytest.raises(ServerUnavailableError, match="ACCESS_REFUSED") as caught,
        open_broker({"DURABLE_BROKER_URL": url}),
    ):
        pass
    assert "s3cret" not in str(caught.value)
    assert "DURABLE_BROKER_URL" in str(caught.value)


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No RabbitMQ to be found; the folder returned is the whole PATH."""
    monkeypatch.setattr(programs, "SCRIPT_FOLDERS", ())
    monkeypatch.setattr(programs, "EPMD_ROOTS", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_a_machine_without_rabbitmq_or_apt_is_told_what_to_do(
    bare_machine: Path, free_port: int
) -> None:
    with (
        pytest.raises(ServerUnavailableError, match="apt-get install rabbitmq-server") as caught,
        open_broker({"DURABLE_TEST_DEFAULT_PORT": str(free_port)}),
    ):
        pass
    assert "DURABLE_BROKER_URL" in str(caught.value)


def test_apt_installs_without_starting_a_service(bare_machine: Path) -> None:
    policy = bare_machine / "policy-rc.d"
    log = bare_machine / "apt.log"
    apt = bare_machine / "apt-get"
    apt.write_text(f'#!/bin/sh\necho "$@" >> "{log}"\n[ -x "{policy}" ]\n')
    apt.chmod(0o755)

    assert install_package("rabbitmq-server", is_there=lambda: False, policy=policy) is None

    update, install = log.read_text().splitlines()
    assert update.endswith("update")
    assert install.endswith("install --no-install-recommends rabbitmq-server")
    assert not policy.exists()


def test_a_failing_apt_is_quoted(
    bare_machine: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    apt = bare_machine / "apt-get"
    apt.write_text("#!/bin/sh\necho 'E: no network'\nexit 100\n")
    apt.chmod(0o755)
    monkeypatch.setattr(packages, "POLICY", bare_machine / "policy-rc.d")
    with (
        pytest.raises(ServerUnavailableError, match="E: no network"),
        open_broker({"DURABLE_TEST_DEFAULT_PORT": str(free_port)}),
    ):
        pass
