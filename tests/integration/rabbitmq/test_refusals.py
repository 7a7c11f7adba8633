"""What the broker refuses, as a sentence that says what to do and never holds the password."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel

from durable_worker.errors import (
    BrokerRefusedError,
    HeadersTooLargeError,
    PayloadTooLargeError,
    UsageError,
)
from durable_worker.protocol.names import Names
from durable_worker.transports.base import Delivery, Envelope
from durable_worker.transports.rabbitmq import (
    ConsumerLost,
    ConsumerRestored,
    Disconnected,
    RabbitTransport,
    UrlFile,
)
from durable_worker.transports.rabbitmq.address import AddressSource, parse_address
from tests.conformance.transports.inbox import Inbox
from tests.integration.rabbitmq.conftest import States

pytestmark = pytest.mark.broker


@pytest.fixture
async def other(broker_url: str) -> AsyncIterator[AbstractChannel]:
    """A channel of somebody else on the same broker."""
    async with await aio_pika.connect(broker_url) as connection:
        yield await connection.channel()


async def test_a_wrong_password_is_refused_by_name(broker_url: str, names: Names) -> None:
    parts = urlsplit(broker_url)
    user = parts.username or "guest"
    wrong = parts._replace(netloc=f"{user}:s3cret-typo@{parts.netloc.rpartition('@')[2]}").geturl()
    async with RabbitTransport(wrong, names=names) as transport:
        with pytest.raises(BrokerRefusedError, match="wrong user name or password") as caught:
            await transport.wait_connected()
        assert f"user {user!r}" in str(caught.value)
        assert "s3cret" not in str(caught.value)
        with pytest.raises(BrokerRefusedError):
            await transport.send(names.results, Envelope("step-result", b"{}"))
        with pytest.raises(BrokerRefusedError):
            await transport.consume([names.results], Inbox[Delivery](), prefetch=1)
        with pytest.raises(BrokerRefusedError):
            await transport.declare([names.results])


async def test_an_unknown_virtual_host_is_refused_by_name(broker_url: str, names: Names) -> None:
    nowhere = urlsplit(broker_url)._replace(path="/no-such-vhost").geturl()
    async with RabbitTransport(nowhere, names=names) as transport:
        consuming = asyncio.ensure_future(
            transport.consume([names.results], Inbox[Delivery](), prefetch=1)
        )
        with pytest.raises(BrokerRefusedError, match="virtual host 'no-such-vhost'"):
            await transport.wait_connected()
        with pytest.raises(BrokerRefusedError, match="virtual host 'no-such-vhost'"):
            await consuming


@pytest.mark.parametrize(
    "url",
    [
        *("", "localhost", "http://127.0.0.1:5672/", "amqp://", "amqp://u:s3cret@host:notaport/"),
        *("amqp://u:s3cret", "amqp:u:s3cret", "u:s3cret", "amqp://u:s3cret@", "s3cret"),
        *("http://u:s3cret@host/?s3cret", "amqp://u:s3cret@[host/", "//u:s3cret@host"),
    ],
)
def test_a_url_that_is_none_is_a_usage_error(url: str) -> None:
    with pytest.raises(UsageError, match="amqp://USER:PASSWORD@HOST") as caught:
        RabbitTransport(url, names=Names())
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "  \n\n"])
def test_a_url_is_read_from_a_file_without_what_ends_its_line(tmp_path: Path, end: str) -> None:
    path = tmp_path / "url"
    path.write_text(f"amqp://u:s3cret@host/v{end}")
    address = AddressSource(UrlFile(path)).latest
    assert (address.password, address.vhost) == ("s3cret", "v")
    assert "s3cret" not in repr(address)


def test_a_url_file_that_cannot_be_used_is_named_and_not_shown(tmp_path: Path) -> None:
    url = "amqp://u:s3cret@host/"
    path = tmp_path / "url"
    for content, problem in (
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (f"{url}\n{url}".encode(), "holds more than one line"),
        (b"amqp://u:s3cret", "cannot be used"),
        (b"\xff\xfes3cret", "is no text"),
    ):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=problem) as caught:
            RabbitTransport(UrlFile(path), names=Names())
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "amqp://user:12#3secret@127.0.0.1:5672/",
        "amqp://admin:2024/topsecret@127.0.0.1:5672/v",
        "amqp://u:12?secret@host/",
        "amqp://u:sec#secret@host/",
        "amqp://u:p@host/v#secret",
    ],
)
def test_a_password_that_is_not_percent_encoded_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(UsageError, match="percent-encode") as caught:
        RabbitTransport(url, names=Names())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["u:secret@host:5672/", "amqp://u:secret\n1@host:x/"])
def test_what_is_no_url_is_shown_without_its_credentials(url: str) -> None:
    with pytest.raises(UsageError, match="host") as caught:
        RabbitTransport(url, names=Names())
    assert "secret" not in str(caught.value)


def test_a_percent_encoded_password_is_taken_and_not_shown() -> None:
    address = parse_address("amqp://u:1%232%2F3%40s@host:5672/a%2Fb")
    assert (address.password, address.vhost) == ("1#2/3@s", "a/b")
    assert address.safe == "amqp://host:5672/a%2Fb"


async def test_a_queue_with_other_arguments_is_refused_and_the_rest_works(
    broker_url: str, names: Names, other: AbstractChannel
) -> None:
    await other.declare_queue(names.results, durable=True)
    async with RabbitTransport(broker_url, names=names) as transport:
        with pytest.raises(BrokerRefusedError, match="other properties") as caught:
            await transport.consume([names.results], Inbox[Delivery](), prefetch=1)
        assert repr(names.results) in str(caught.value)
        with pytest.raises(BrokerRefusedError, match="other properties"):
            await transport.declare([names.decisions, names.results])
        inbox = Inbox[Delivery]()
        await transport.consume([names.decisions], inbox, prefetch=1)
        await transport.send(names.decisions, Envelope("workflow-decision", b"{}"))
        await inbox.next()
    await other.queue_delete(names.results)


async def test_an_exchange_of_another_type_is_refused(
    broker_url: str, names: Names, other: AbstractChannel
) -> None:
    await other.declare_exchange(names.control, aio_pika.ExchangeType.DIRECT, durable=True)
    async with RabbitTransport(broker_url, names=names) as transport:
        await transport.wait_connected()
        with pytest.raises(BrokerRefusedError, match="other properties"):
            await transport.listen(names.control, Inbox[Envelope]())
    await other.exchange_delete(names.control)


async def test_a_consumer_whose_queue_is_deleted_comes_back(
    broker_url: str, names: Names, other: AbstractChannel, states: States
) -> None:
    inbox = Inbox[Delivery]()
    async with RabbitTransport(broker_url, names=names, on_state=states) as transport:
        await transport.consume([names.results], inbox, prefetch=1)
        await other.queue_delete(names.results)
        await states.until(ConsumerLost)
        await states.until(ConsumerRestored)
        await transport.send(names.results, Envelope("step-result", b"{}", message_id="m"))
        assert (await inbox.next()).envelope.message_id == "m"


async def test_what_the_broker_finds_too_large_fails_alone(broker_url: str, names: Names) -> None:
    inbox = Inbox[Delivery]()
    async with RabbitTransport(
        broker_url, names=names, max_message_bytes=200 * 1024 * 1024
    ) as transport:
        await transport.consume([names.results], inbox, prefetch=1)
        large = Envelope("step-result", b" " * (135 * 1024 * 1024), message_id="large")
        with pytest.raises(PayloadTooLargeError):
            await transport.send(names.results, large)
        await transport.send(names.results, Envelope("step-result", b"{}", message_id="small"))
        assert (await inbox.next()).envelope.message_id == "small"


async def test_headers_that_fit_into_no_frame_are_refused_and_cost_no_connection(
    broker_url: str, names: Names, states: States
) -> None:
    async with RabbitTransport(broker_url, names=names, on_state=states) as transport:
        await transport.declare([names.results])
        with pytest.raises(HeadersTooLargeError, match="payload what is large") as caught:
            await transport.send(
                names.results, Envelope("step-result", b"{}", "m", headers={"x": "y" * 131_072})
            )
        assert caught.value.field == "headers"
        await transport.send(
            names.results, Envelope("step-result", b"{}", "m", headers={"x": "y" * 130_000})
        )
    assert not [each for each in states.seen if isinstance(each, Disconnected)]
