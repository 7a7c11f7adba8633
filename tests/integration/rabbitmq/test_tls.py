"""TLS to a real node: what it takes to be let in, and what is said where that fails."""

import asyncio
import socket
import ssl
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from durable_worker.errors import BrokerRefusedError, UsageError
from durable_worker.protocol.names import Names
from durable_worker.transports.base import Delivery, Envelope
from durable_worker.transports.rabbitmq import (
    Connected,
    ConnectFailed,
    Disconnected,
    Lane,
    RabbitTransport,
    TlsOptions,
)
from tests.broker import BrokerNode
from tests.broker.tls import Authority, Certificate, NodeTls
from tests.conformance.transports.inbox import Inbox
from tests.integration.rabbitmq.conftest import PATIENCE, States
from tests.integration.rabbitmq.proxy import Proxy

pytestmark = pytest.mark.broker

AGO = timedelta(days=2)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that nobody trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"), name="somebody else")


@pytest.fixture(scope="module")
def node(authority: Authority) -> Iterator[BrokerNode]:
    """A node that lets nobody in without a client certificate."""
    tls = NodeTls(authority, authority.server(), requires_client=True)
    with BrokerNode(tls=tls) as node:
        yield node


def trusting(authority: Authority, client: Certificate | None = None, **more: object) -> TlsOptions:
    if client is not None:
        more = {"cert_file": client.cert_file, "key_file": client.key_file, **more}
    return TlsOptions(ca_file=authority.ca_file, **more)  # type: ignore[arg-type]


async def exchange_a_message(url: str, names: Names, tls: TlsOptions) -> None:
    inbox = Inbox[Delivery]()
    async with asyncio.timeout(PATIENCE), RabbitTransport(url, names=names, tls=tls) as transport:
        await transport.consume([names.results], inbox, prefetch=1)
        body = b" " * 1_000_000
        await transport.send(names.results, Envelope("step-result", body, message_id="m"))
        delivery = await inbox.next()
        assert delivery.envelope.body == body
        await delivery.ack()


async def refusal(url: str, names: Names, tls: TlsOptions | None = None) -> str:
    """What a client is told that is given up at once."""
    async with asyncio.timeout(PATIENCE), RabbitTransport(url, names=names, tls=tls) as transport:
        with pytest.raises(BrokerRefusedError) as caught:
            await transport.wait_connected()
    assert "guest:guest" not in str(caught.value)
    return str(caught.value)


async def test_messages_travel_over_tls(
    node: BrokerNode, authority: Authority, names: Names
) -> None:
    client = authority.client()
    for host in ("localhost", "127.0.0.1"):
        await exchange_a_message(node.tls_url(host=host), names, trusting(authority, client))


async def test_a_client_certificate_is_shown_to_a_broker_that_wants_one(
    node: BrokerNode, authority: Authority, names: Names, tmp_path: Path
) -> None:
    url = node.tls_url()
    await exchange_a_message(url, names, trusting(authority, authority.client()))
    sealed = authority.client(password="pass phrase")
    await exchange_a_message(url, names, trusting(authority, sealed, key_password="pass phrase"))
    secret, both = tmp_path / "password", tmp_path / "both.pem"
    secret.write_text("pass phrase\n")
    await exchange_a_message(url, names, trusting(authority, sealed, key_password_file=secret))
    both.write_text(sealed.cert_file.read_text() + sealed.key_file.read_text())
    tls = TlsOptions(ca_file=authority.ca_file, cert_file=both, key_password="pass phrase")
    await exchange_a_message(url, names, tls)


async def test_a_client_certificate_can_take_the_place_of_a_password(
    node: BrokerNode, authority: Authority, names: Names, lane: Lane
) -> None:
    user = f"by-certificate-{lane}"
    node.ctl("add_user", user, "a password that nobody knows")
    node.ctl("set_permissions", user, ".*", ".*", ".*")
    url = f"amqps://localhost:{node.tls_port}/?auth=external"
    await exchange_a_message(url, names, trusting(authority, authority.client(user)))
    told = await refusal(url, names, trusting(authority, authority.client("unknown")))
    assert "refused the login" in told


async def test_a_broker_that_wants_a_client_certificate_and_gets_none_is_named(
    node: BrokerNode, authority: Authority, names: Names
) -> None:
    told = await refusal(node.tls_url(), names, trusting(authority))
    assert "it may want a client certificate, and none is given (--broker-cert" in told


async def test_a_client_certificate_that_the_broker_refuses_is_named(
    node: BrokerNode, authority: Authority, stranger: Authority, names: Names
) -> None:
    for client in (authority.client(ended=AGO), stranger.client()):
        states = States()
        async with (
            asyncio.timeout(PATIENCE),
            RabbitTransport(
                node.tls_url(),
                names=names,
                tls=trusting(authority, client),
                on_state=states,
            ) as transport,
        ):
            with pytest.raises(BrokerRefusedError) as caught:
                await transport.wait_connected()
        # The broker may cut the connection before its reason can be read: that is tried again.
        early = [each.reason for each in states.seen if isinstance(each, ConnectFailed)]
        for told in (str(caught.value), *early):
            assert f"it does not take the client certificate in {str(client.cert_file)!r}" in told


async def test_a_broker_of_an_authority_that_is_not_trusted_is_refused(
    node: BrokerNode, stranger: Authority, names: Names
) -> None:
    url = node.tls_url()
    told = await refusal(url, names, trusting(stranger))
    assert "its authority is not among those in the CA file" in told
    assert str(stranger.ca_file) in told
    assert "name the right ones with --broker-ca" in await refusal(url, names)


async def test_the_host_name_is_checked_unless_told_otherwise(
    node: BrokerNode, authority: Authority, names: Names
) -> None:
    tls = showing(authority.server("broker.example", "10.0.0.1"))
    async with Proxy(node.url(), tls=tls) as proxy:
        by_name = proxy.url.replace("127.0.0.1", "localhost")
        for url, host in ((by_name, "'localhost'"), (proxy.url, "'127.0.0.1'")):
            told = await refusal(url, names, trusting(authority))
            assert "was issued for another host" in told
            assert host in told
        await exchange_a_message(by_name, names, trusting(authority, checks_host_name=False))


async def test_the_authority_is_checked_even_where_the_host_name_is_not(
    node: BrokerNode, stranger: Authority, names: Names
) -> None:
    lax = trusting(stranger, checks_host_name=False)
    assert "cannot be verified" in await refusal(node.tls_url(), names, lax)


async def test_an_expired_certificate_of_the_broker_is_named(
    node: BrokerNode, authority: Authority, names: Names
) -> None:
    async with Proxy(node.url(), tls=showing(authority.server(ended=AGO))) as proxy:
        told = await refusal(proxy.url, names, trusting(authority))
    assert "the certificate of the broker at amqps://127.0.0.1" in told
    assert "has expired. Renew it on the broker" in told


async def test_a_broker_that_only_speaks_old_versions_is_refused(
    authority: Authority, names: Names
) -> None:
    context = showing(authority.server(), newest=ssl.TLSVersion.TLSv1_1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # Not asyncio's: it goes away without the alert that every other server sends.
        serving = asyncio.ensure_future(asyncio.to_thread(refuse_one, listener, context))
        url = f"amqps://localhost:{listener.getsockname()[1]}/"
        told = await refusal(url, names, trusting(authority))
        await serving
    assert "speaks no version of TLS from 1.2 on" in told


async def test_tls_to_a_port_without_it_and_the_other_way_round_are_named(
    node: BrokerNode, authority: Authority, names: Names
) -> None:
    there = f"amqps://guest:guest@localhost:{node.port}/"
    assert "does not speak TLS on this port" in await refusal(there, names, trusting(authority))
    there = f"amqp://guest:guest@localhost:{node.tls_port}/"
    assert "speaks TLS on this port. Write amqps://" in await refusal(there, names)


async def test_a_port_where_nobody_listens_is_tried_again(
    node: BrokerNode, authority: Authority, names: Names, states: States
) -> None:
    async with Proxy(node.tls_url(), is_listening=False) as nobody:
        tls = trusting(authority, authority.client())
        async with RabbitTransport(nobody.url, names=names, tls=tls, on_state=states):
            failed = await states.until(ConnectFailed, count=2)
            assert "cannot connect to amqps://127.0.0.1" in failed.reason
            assert "certificate" not in failed.reason
            await nobody.listen()
            await states.until(Connected)


async def test_files_that_are_renewed_come_into_use_with_the_next_connection(
    node: BrokerNode, authority: Authority, names: Names, states: States, tmp_path: Path
) -> None:
    mounted = Certificate(tmp_path / "tls.crt", tmp_path / "tls.key")

    def mount(certificate: Certificate) -> None:
        mounted.cert_file.write_bytes(certificate.cert_file.read_bytes())
        mounted.key_file.write_bytes(certificate.key_file.read_bytes())

    mount(authority.client())
    async with (
        asyncio.timeout(PATIENCE),
        Proxy(node.tls_url()) as proxy,
        RabbitTransport(
            proxy.url, names=names, tls=trusting(authority, mounted), on_state=states
        ) as transport,
    ):
        await transport.wait_connected()
        mount(authority.client(ended=AGO))
        proxy.cut()
        await states.until(Disconnected)
        failed = await states.until(ConnectFailed)
        assert "does not take the client certificate" in failed.reason
        mount(authority.client())
        assert (await states.until(Connected, count=2)).generation > 1


def test_what_a_url_says_about_tls_is_refused_and_not_half_heeded(authority: Authority) -> None:
    for parameter in ("no_verify_ssl=1", "cafile=/x", "verify=verify_none", "cacertfile=/x"):
        with pytest.raises(UsageError, match="TLS is not set up in the URL"):
            RabbitTransport(f"amqps://u:s3cret@host/?{parameter}", names=Names())
    with pytest.raises(UsageError, match="asks for a connection without it") as caught:
        RabbitTransport("amqp://u:s3cret@host/", names=Names(), tls=trusting(authority))
    assert "s3cret" not in str(caught.value)


def test_files_that_cannot_be_used_are_named_at_once(authority: Authority, tmp_path: Path) -> None:
    client, sealed = authority.client(), authority.client(password="pass phrase")
    empty, noise = tmp_path / "empty.pem", tmp_path / "noise.pem"
    empty.write_text("")
    noise.write_bytes(b"\xff\xfe\x00")
    ca_file = authority.ca_file
    cases: list[tuple[TlsOptions, str]] = [
        (TlsOptions(ca_file=tmp_path / "none"), "CA file .*none' cannot be read: No such file"),
        (TlsOptions(ca_file=tmp_path), "CA file .* cannot be read: Is a directory"),
        (TlsOptions(ca_file=empty), "CA file .*empty.pem' holds no certificate"),
        (TlsOptions(ca_file=noise), "CA file .*noise.pem' is no text"),
        (TlsOptions(ca_file=client.key_file), "CA file .* holds no certificate"),
        (TlsOptions(key_file=client.key_file), "client key .* without the client certificate"),
        (
            TlsOptions(cert_file=client.key_file, key_file=client.key_file),
            "client certificate .* holds no certificate",
        ),
        (TlsOptions(cert_file=client.cert_file), "client key .* holds no private key"),
        (
            TlsOptions(cert_file=ca_file, key_file=client.key_file),
            f"client key .* does not belong to the certificate in '{ca_file}'",
        ),
        (trusting(authority, sealed), "is encrypted, and no password is given"),
        (trusting(authority, sealed, key_password="guess"), "its password is another one"),
        (trusting(authority, sealed, key_password_file=empty), "password file .* is empty"),
    ]
    for options, said in cases:
        with pytest.raises(UsageError, match=said) as caught:
            RabbitTransport("amqps://localhost/", names=Names(), tls=options)
        assert "guess" not in str(caught.value)
    assert "pass phrase" not in repr(trusting(authority, sealed, key_password="pass phrase"))


def showing(certificate: Certificate, *, newest: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """For a proxy that ends TLS in front of a node."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert_file, certificate.key_file)
    if newest is not None:
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            context.maximum_version = newest
    return context


def refuse_one(listener: socket.socket, context: ssl.SSLContext) -> None:
    connection, _ = listener.accept()
    with connection, pytest.raises(ssl.SSLError):
        context.wrap_socket(connection, server_side=True)
