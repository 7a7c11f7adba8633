"""TLS to the database: as the URL says, and never without it where it says so."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from durable_worker.errors import StoreError
from durable_worker.stores.address import MysqlAddress, parse_mysql_address
from durable_worker.stores.mysql import MysqlStore
from tests.broker.tls import Authority
from tests.database import MariadbServer, Mysql
from tests.database.mysql import made_database

pytestmark = pytest.mark.anyio


@dataclass(frozen=True, slots=True)
class Secured:
    """A database whose server shows a certificate for `localhost` alone."""

    address: MysqlAddress
    authority: Authority
    stranger: Authority

    def at(self, settings: str, *, host: str = "localhost") -> MysqlAddress:
        url = self.address.url.replace("127.0.0.1", host)
        ca, other = self.authority.ca_file, self.stranger.ca_file
        return parse_mysql_address(f"{url}?{settings.format(ca=ca, other=other)}")


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    server = MariadbServer()
    authority = Authority(server.home / "tls")
    shown = authority.server("localhost")
    server.options = (
        f"--ssl-ca={authority.ca_file}",
        f"--ssl-cert={shown.cert_file}",
        f"--ssl-key={shown.key_file}",
    )
    with server, made_database(Mysql(server.url())) as address:
        yield Secured(address, authority, Authority(server.home / "stranger"))


async def cipher(address: MysqlAddress) -> str:
    async with MysqlStore(address) as store:
        rows = (await store._database.ask(b"SHOW SESSION STATUS LIKE 'Ssl_cipher'")).rows
        return str(rows[0][1].decode())


@pytest.mark.parametrize(
    ("settings", "host"),
    [
        ("ssl-mode=required", "127.0.0.1"),
        ("ssl-ca={ca}", "127.0.0.1"),
        ("ssl-mode=verify-ca&ssl-ca={ca}", "127.0.0.1"),
        ("ssl-mode=verify-identity&ssl-ca={ca}", "localhost"),
    ],
)
async def test_a_connection_is_encrypted_where_the_url_says_so(
    secured: Secured, settings: str, host: str
) -> None:
    assert await cipher(secured.at(settings, host=host)) != ""


async def test_without_a_word_about_it_there_is_none(secured: Secured) -> None:
    assert await cipher(secured.address) == ""


@pytest.mark.parametrize(
    ("settings", "host", "reason"),
    [
        ("ssl-mode=verify-ca", "localhost", "certificate verify failed"),
        ("ssl-mode=verify-ca&ssl-ca={other}", "localhost", "certificate verify failed"),
        ("ssl-mode=verify-identity&ssl-ca={ca}", "127.0.0.1", "IP address mismatch"),
        ("ssl-mode=verify-ca&ssl-ca=/no/such/file", "localhost", "a file of ssl-ca"),
        ("ssl-mode=required&ssl-cert=/no/such/file", "localhost", "a file of ssl-ca, ssl-cert"),
    ],
)
async def test_a_certificate_that_is_not_what_was_asked_for_is_refused(
    secured: Secured, settings: str, host: str, reason: str
) -> None:
    with pytest.raises(StoreError, match=reason):
        async with MysqlStore(secured.at(settings, host=host)):
            pass


async def test_a_server_without_tls_is_not_talked_to_in_the_clear() -> None:
    server = MariadbServer()
    server.options = ("--skip-ssl",)
    with server:
        address = parse_mysql_address(f"{server.url()}?ssl-mode=required")
        with pytest.raises(StoreError, match="cannot be talked to by TLS"):
            async with MysqlStore(address):
                pass


async def test_a_socket_is_another_way_to_the_server(secured: Secured) -> None:
    folder = secured.authority.ca_file.parent.parent
    assert await cipher(secured.at(f"socket={folder}/socket", host="nowhere.invalid")) == ""
