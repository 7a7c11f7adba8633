"""What each command was asked to do: the command line, parsed.

Light to import, because `run` must not pay for the parser that it can do without; structs, because
so many dataclasses would take 25 ms to define.
"""

from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Literal, TypeAlias

from msgspec import Struct

from durable_worker.protocol.names import DEFAULT_NAMESPACE, DEFAULT_PREFIX, Names
from durable_worker.protocol.runs import RunStatus
from durable_worker.stores.address import Address
from durable_worker.worker.determinism.policy import Determinism

DEFAULT_BROKER = "amqp://guest:guest@127.0.0.1:5672/"
BROKER_VARIABLE = "DURABLE_BROKER_URL"
BROKER_FILE_VARIABLE = "DURABLE_BROKER_URL_FILE"
CA_VARIABLE = "DURABLE_BROKER_CA_FILE"
CERT_VARIABLE = "DURABLE_BROKER_CERT_FILE"
KEY_VARIABLE = "DURABLE_BROKER_KEY_FILE"
KEY_PASSWORD_VARIABLE = "DURABLE_BROKER_KEY_PASSWORD"
KEY_PASSWORD_FILE_VARIABLE = "DURABLE_BROKER_KEY_PASSWORD_FILE"
ANY_HOST_NAME_VARIABLE = "DURABLE_BROKER_ACCEPT_ANY_HOST_NAME"
AMQP_LANE_VARIABLE = "DURABLE_AMQP_LANE"
MAX_MESSAGE_VARIABLE = "DURABLE_MAX_MESSAGE_BYTES"
SIGNING_KEYS_VARIABLE = "DURABLE_SIGNING_KEYS_FILE"
SIGNING_VARIABLE = "DURABLE_SIGNING"
TENANT_KEYS_VARIABLE = "DURABLE_TENANT_KEYS_FILE"
TOKEN_VARIABLE = "DURABLE_TENANT_TOKEN"
TOKEN_FILE_VARIABLE = "DURABLE_TENANT_TOKEN_FILE"
LIFELINE_VARIABLE = "DURABLE_DEV_LIFELINE"
"""A file descriptor at whose end the child of `dev` knows that its parent is gone."""

DATABASE_VARIABLE = "DURABLE_DATABASE_URL"
DATABASE_FILE_VARIABLE = "DURABLE_DATABASE_URL_FILE"
DEV_DATABASE_VARIABLE = "DURABLE_DEV_DATABASE_URL"
"""How the child of `dev` is told a URL, which may hold a password."""

DEV_DATABASE = Path(".durable/dev.db")
OPERATOR_DATABASE = Path(".durable/operator.db")
DEFAULT_CONCURRENCY = 100
DEFAULT_GRACE = timedelta(seconds=30)
DEFAULT_RENEW_AFTER = timedelta(seconds=5)
SHORTEST_RENEWAL = timedelta(milliseconds=500)
LONGEST_RENEWAL = timedelta(days=1)
SMALLEST_LIMIT, LARGEST_LIMIT = 65_536, 536_870_912
"""Bytes: room for what a worker says about itself, and the most that a broker takes."""

LONGEST_GRACE = timedelta(seconds=1_000_000_000)


class LogFormat(StrEnum):
    CONSOLE = "console"
    JSON = "json"


class Signing(StrEnum):
    """What happens to messages without a signature, where there are keys."""

    SIGN = "sign"
    REQUIRE = "require"


class AmqpLane(StrEnum):
    """Which AMQP client carries everything."""

    FAST = "fast"
    AIO_PIKA = "aio-pika"


class ConnectOptions(Struct, frozen=True, kw_only=True):
    """How to connect to a broker, as far as the command line says it. Files are for TLS, but for
    `signing_keys` and `token_file`."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    key_password_file: Path | None = None
    accepts_any_host_name: bool = False
    max_message_bytes: int | None = None
    amqp_lane: AmqpLane | None = None
    signing_keys: Path | None = None
    signing: Signing | None = None
    token: str | None = None
    token_file: Path | None = None


class BrokerOptions(Struct, frozen=True):
    """`url` is None where the command line says nothing."""

    url: str | None = None
    prefix: str = DEFAULT_PREFIX
    namespace: str | None = None
    connecting: ConnectOptions = ConnectOptions()

    def __repr__(self) -> str:
        return f"BrokerOptions(prefix={self.prefix!r}, namespace={self.namespace!r})"

    @property
    def names(self) -> Names:
        return Names(prefix=self.prefix, namespace=self.namespace)


class Run(Struct, frozen=True, kw_only=True):
    target: str
    broker: BrokerOptions = BrokerOptions()
    concurrency: int = DEFAULT_CONCURRENCY
    partition: str | None = None
    grace: timedelta = DEFAULT_GRACE
    renew_after: timedelta = DEFAULT_RENEW_AFTER
    determinism: Determinism | None = None
    log_format: LogFormat = LogFormat.CONSOLE
    debug: bool = False


class Dev(Struct, frozen=True, kw_only=True):
    target: str
    database: Address = DEV_DATABASE
    is_reloading: bool = True
    max_message_bytes: int | None = None
    determinism: Determinism | None = None
    log_format: LogFormat = LogFormat.CONSOLE
    debug: bool = False


class Operate(Struct, frozen=True, kw_only=True):
    database: str | None = None
    broker: BrokerOptions = BrokerOptions()
    tenant_keys: Path | None = None
    partition: str | None = None
    log_format: LogFormat = LogFormat.CONSOLE
    debug: bool = False


class Place(Struct, frozen=True, kw_only=True):
    """Where runs are looked for: a database, or an operator behind a broker."""

    database: Address | None = None
    broker: BrokerOptions = BrokerOptions()
    tenant: str | None = None

    @property
    def effective_tenant(self) -> str:
        return self.tenant or self.broker.namespace or DEFAULT_NAMESPACE


class Start(Struct, frozen=True, kw_only=True):
    place: Place
    workflow: str
    input: str | None = None
    run_id: str | None = None
    is_waiting: bool = False
    context: tuple[str, ...] = ()
    codec: str | None = None
    debug: bool = False


class ListRuns(Struct, frozen=True, kw_only=True):
    place: Place
    status: RunStatus | None = None
    workflow: str | None = None
    where: tuple[str, ...] = ()
    limit: int = 20
    is_json: bool = False
    debug: bool = False


class Show(Struct, frozen=True, kw_only=True):
    place: Place
    run_id: str
    is_json: bool = False
    codec: str | None = None
    debug: bool = False


class Signal(Struct, frozen=True, kw_only=True):
    place: Place
    name: str
    payload: str | None = None
    codec: str | None = None
    debug: bool = False


Way: TypeAlias = Literal["retry", "continue", "redispatch"]
"""Of setting a run going again: the kind of the request."""


class Revive(Struct, frozen=True, kw_only=True):
    place: Place
    run_id: str
    way: Way
    debug: bool = False


class Cancel(Struct, frozen=True, kw_only=True):
    """`is_final`: without telling the body."""

    place: Place
    run_id: str
    is_final: bool = False
    debug: bool = False


class Query(Struct, frozen=True, kw_only=True):
    place: Place
    run_id: str
    name: str
    codec: str | None = None
    debug: bool = False


class Replay(Struct, frozen=True, kw_only=True):
    """`files`: JSON files, directories of them, or `-` for standard input."""

    target: str
    files: tuple[str, ...]
    compares_end: bool = True
    is_json: bool = False
    debug: bool = False


class Check(Struct, frozen=True, kw_only=True):
    place: Place
    target: str
    workflow: str | None = None
    is_json: bool = False
    debug: bool = False


class ListDead(Struct, frozen=True, kw_only=True):
    place: Place
    limit: int = 20
    run_id: str | None = None
    is_json: bool = False
    debug: bool = False


class ShowDead(Struct, frozen=True, kw_only=True):
    place: Place
    letter_id: str
    is_json: bool = False
    codec: str | None = None
    debug: bool = False


class RedriveDead(Struct, frozen=True, kw_only=True):
    """`letter_ids` is empty for all; `run_id` bounds these."""

    place: Place
    letter_ids: tuple[str, ...] = ()
    run_id: str | None = None
    debug: bool = False


class Token(Struct, frozen=True, kw_only=True):
    """`tenant` is None for a worker's; `allow` None for all that a tenant may."""

    keys: Path | None
    tenant: str | None
    expires: timedelta
    allow: tuple[str, ...] | None = None
    debug: bool = False


class UpgradeDb(Struct, frozen=True, kw_only=True):
    database: str | None = None
    debug: bool = False


class CheckDb(Struct, frozen=True, kw_only=True):
    database: str | None = None
    debug: bool = False


class ExportDb(Struct, frozen=True, kw_only=True):
    """`file` is None for standard output."""

    database: str | None = None
    file: Path | None = None
    debug: bool = False


class ImportDb(Struct, frozen=True, kw_only=True):
    """`file` is None for standard input. `is_merging`: into a database that has runs already."""

    database: str | None = None
    file: Path | None = None
    is_merging: bool = False
    debug: bool = False


class Simulate(Struct, frozen=True, kw_only=True):
    """`seed`: this one alone, and what happens in it. `stubs`, `signals`: `NAME=JSON` each;
    `real`, `faults`: names, or `all`."""

    target: str
    workflow: str
    input: str | None = None
    seeds: int = 1_000
    seed: int | None = None
    stubs: tuple[str, ...] = ()
    real: tuple[str, ...] = ()
    signals: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    any_end: bool = False
    processes: int | None = None
    is_json: bool = False
    debug: bool = False


AnyOptions = (
    Run
    | Dev
    | Operate
    | Start
    | ListRuns
    | Show
    | Signal
    | Cancel
    | Revive
    | Query
    | Replay
    | Check
    | ListDead
    | ShowDead
    | RedriveDead
    | Token
    | UpgradeDb
    | CheckDb
    | ExportDb
    | ImportDb
    | Simulate
)
