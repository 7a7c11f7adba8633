"""Connects a command to its broker, as the command line and the environment say."""

import os
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from durable_worker.cli.broker import message_limit, stated_place
from durable_worker.cli.options import (
    AMQP_LANE_VARIABLE,
    ANY_HOST_NAME_VARIABLE,
    BROKER_FILE_VARIABLE,
    CA_VARIABLE,
    CERT_VARIABLE,
    DEFAULT_BROKER,
    KEY_PASSWORD_FILE_VARIABLE,
    KEY_PASSWORD_VARIABLE,
    KEY_VARIABLE,
    SIGNING_KEYS_VARIABLE,
    SIGNING_VARIABLE,
    TOKEN_FILE_VARIABLE,
    TOKEN_VARIABLE,
    AmqpLane,
    BrokerOptions,
    ConnectOptions,
    Signing,
)
from durable_worker.errors import UsageError
from durable_worker.protocol.base import TokenSource
from durable_worker.protocol.names import Names
from durable_worker.transports.base import DEFAULT_MAX_MESSAGE_BYTES, Transport
from durable_worker.transports.rabbitmq import (
    RabbitTransport,
    StateListener,
    TlsOptions,
    UrlFile,
)
from durable_worker.transports.rabbitmq.address import (
    BrokerAddress,
    UrlSource,
    has_password,
    parse_address,
)

_YES, _NO = frozenset({"yes"}), frozenset({"", "no"})


class _Signers(Protocol):
    def signed(
        self, transport: Transport, names: Names, *, keys: Path, mode: Signing
    ) -> Transport: ...


def transport_to(options: BrokerOptions, *, on_state: StateListener) -> Transport:
    """Raises `UsageError`."""
    limit = message_limit(options.connecting.max_message_bytes)
    transport = RabbitTransport(
        _source(options),
        names=options.names,
        tls=_tls(options.connecting),
        max_message_bytes=limit or DEFAULT_MAX_MESSAGE_BYTES,
        lane=_lane(options.connecting).value,
        on_state=on_state,
    )
    keys = options.connecting.signing_keys or _path(SIGNING_KEYS_VARIABLE)
    mode = _signing(options.connecting)
    if keys is not None:
        signers = cast("_Signers", import_module("durable_worker.cli.signers"))
        return signers.signed(transport, options.names, keys=keys, mode=mode or Signing.REQUIRE)
    if mode is not None:
        raise UsageError(
            f"nothing can be signed without keys: give --signing-keys, or {SIGNING_KEYS_VARIABLE}."
        )
    return transport


def token_for(options: BrokerOptions) -> TokenSource | None:
    """The tenant token that goes along; read anew from its file each time. Raises `UsageError`."""
    connecting = options.connecting
    if connecting.token and connecting.token_file:
        raise UsageError("--token and --token-file exclude each other.")
    if connecting.token or connecting.token_file:
        return connecting.token or _token_file(connecting.token_file)
    text, file = os.environ.get(TOKEN_VARIABLE), _path(TOKEN_FILE_VARIABLE)
    if text and file:
        raise UsageError(
            f"{TOKEN_VARIABLE} and {TOKEN_FILE_VARIABLE} are both set, and neither wins: unset the "
            f"one that you do not mean."
        )
    return text or _token_file(file)


def address_of(options: BrokerOptions) -> BrokerAddress:
    """Where the broker is at present. Raises `UsageError`."""
    source = _source(options)
    return parse_address(
        source if isinstance(source, str) else source(), tls=_tls(options.connecting)
    )


def risks_of(options: BrokerOptions) -> dict[str, str]:
    """What others could see or do, as the command line has it: names and sentences."""
    risks: dict[str, str] = {}
    if options.url is not None and has_password(options.url):
        risks["password_on_command_line"] = (
            f"The password in --broker can be read by everybody who can list the processes of this "
            f"machine. Put the URL into a file, and the path of that into {BROKER_FILE_VARIABLE}."
        )
    if options.connecting.token is not None:
        risks["token_on_command_line"] = (
            f"The token in --token can be read by everybody who can list the processes of this "
            f"machine. Put it into a file for --token-file or {TOKEN_FILE_VARIABLE}."
        )
    if _accepts_any_host_name(options.connecting):
        risks["host_name_not_checked"] = (
            "The host name of the broker is not checked: whoever has a certificate of the same "
            "authority can pose as the broker."
        )
    return risks


def _token_file(path: Path | None) -> TokenSource | None:
    if path is None:
        return None

    last = _token_in(path)

    def current() -> str:
        nonlocal last
        with suppress(UsageError):  # a file that is being replaced: what it held will do
            last = _token_in(path)
        return last

    return current


def _token_in(path: Path) -> str:
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise UsageError(f"the token file {path} cannot be read: {reason}.") from None
    if not text:
        raise UsageError(f"the token file {path} is empty.")
    return text


def _lane(connecting: ConnectOptions) -> AmqpLane:
    text = os.environ.get(AMQP_LANE_VARIABLE)
    if connecting.amqp_lane is not None or not text:
        return connecting.amqp_lane or AmqpLane.FAST
    if text not in list(AmqpLane):
        raise UsageError(f"{AMQP_LANE_VARIABLE} is {text!r}: expected fast, or aio-pika.")
    return AmqpLane(text)


def _signing(connecting: ConnectOptions) -> Signing | None:
    text = os.environ.get(SIGNING_VARIABLE)
    if connecting.signing is not None or not text:
        return connecting.signing
    if text not in list(Signing):
        raise UsageError(f"{SIGNING_VARIABLE} is {text!r}: expected sign, or require.")
    return Signing(text)


def _source(options: BrokerOptions) -> UrlSource:
    place = stated_place(options)
    return UrlFile(place) if isinstance(place, Path) else place or DEFAULT_BROKER


def _tls(connecting: ConnectOptions) -> TlsOptions | None:
    """None where nothing is said about it: an `amqps` URL then works with the defaults."""
    stated = TlsOptions(
        ca_file=connecting.ca_file or _path(CA_VARIABLE),
        cert_file=connecting.cert_file or _path(CERT_VARIABLE),
        key_file=connecting.key_file or _path(KEY_VARIABLE),
        key_password=os.environ.get(KEY_PASSWORD_VARIABLE) or None,
        key_password_file=connecting.key_password_file or _path(KEY_PASSWORD_FILE_VARIABLE),
        checks_host_name=not _accepts_any_host_name(connecting),
    )
    return None if stated == TlsOptions() else stated


def _path(variable: str) -> Path | None:
    text = os.environ.get(variable)
    return Path(text) if text else None


def _accepts_any_host_name(connecting: ConnectOptions) -> bool:
    text = os.environ.get(ANY_HOST_NAME_VARIABLE, "")
    if text not in _YES | _NO:
        raise UsageError(f"{ANY_HOST_NAME_VARIABLE} is {text!r}: expected yes, or no.")
    return connecting.accepts_any_host_name or text in _YES
