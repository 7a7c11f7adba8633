"""Connects a command to its broker, as the command line and the environment say."""

import os
from pathlib import Path

from durable_worker.cli.broker import message_limit, stated_place
from durable_worker.cli.options import (
    ANY_HOST_NAME_VARIABLE,
    BROKER_FILE_VARIABLE,
    CA_VARIABLE,
    CERT_VARIABLE,
    DEFAULT_BROKER,
    KEY_PASSWORD_FILE_VARIABLE,
    KEY_PASSWORD_VARIABLE,
    KEY_VARIABLE,
    BrokerOptions,
    ConnectOptions,
)
from durable_worker.errors import UsageError
from durable_worker.transports.base import DEFAULT_MAX_MESSAGE_BYTES
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


def transport_to(options: BrokerOptions, *, on_state: StateListener) -> RabbitTransport:
    """Raises `UsageError`."""
    limit = message_limit(options.connecting.max_message_bytes)
    return RabbitTransport(
        _source(options),
        names=options.names,
        tls=_tls(options.connecting),
        max_message_bytes=limit or DEFAULT_MAX_MESSAGE_BYTES,
        on_state=on_state,
    )


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
    if _accepts_any_host_name(options.connecting):
        risks["host_name_not_checked"] = (
            "The host name of the broker is not checked: whoever has a certificate of the same "
            "authority can pose as the broker."
        )
    return risks


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
