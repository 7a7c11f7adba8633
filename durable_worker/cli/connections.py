"""The options of how to connect, which every command has that has `--broker`.

They are added to the commands from here: a command need not list them, and cannot lack them.
"""

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, cast, get_type_hints

import typer
from msgspec import structs

from durable_worker.cli.options import (
    AMQP_LANE_VARIABLE,
    ANY_HOST_NAME_VARIABLE,
    CA_VARIABLE,
    CERT_VARIABLE,
    KEY_PASSWORD_FILE_VARIABLE,
    KEY_VARIABLE,
    LARGEST_LIMIT,
    MAX_MESSAGE_VARIABLE,
    SIGNING_KEYS_VARIABLE,
    SIGNING_VARIABLE,
    SMALLEST_LIMIT,
    TOKEN_FILE_VARIABLE,
    TOKEN_VARIABLE,
    AmqpLane,
    AnyOptions,
    ConnectOptions,
    Signing,
)

_PANEL = "Connection"

MaxMessage = Annotated[
    int | None,
    typer.Option(
        "--max-message-bytes",
        min=SMALLEST_LIMIT,
        max=LARGEST_LIMIT,
        metavar="N",
        help=f"Larger messages are refused before they are sent. Default: ${MAX_MESSAGE_VARIABLE}, "
        f"else 16 MiB.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]


def _file(name: str, help: str) -> Any:
    return typer.Option(name, metavar="FILE", help=help, show_default=False, rich_help_panel=_PANEL)


_OPTIONS: dict[str, tuple[Any, object]] = {
    "ca_file": (
        Annotated[
            Path | None,
            _file(
                "--broker-ca",
                f"Authorities to trust, for amqps (PEM). Default: ${CA_VARIABLE}, else those of "
                f"the system.",
            ),
        ],
        None,
    ),
    "cert_file": (
        Annotated[
            Path | None,
            _file("--broker-cert", f"Client certificate (PEM). Default: ${CERT_VARIABLE}."),
        ],
        None,
    ),
    "key_file": (
        Annotated[Path | None, _file("--broker-key", f"Its key. Default: ${KEY_VARIABLE}.")],
        None,
    ),
    "key_password_file": (
        Annotated[
            Path | None,
            _file(
                "--broker-key-password-file",
                f"Password of the key. Default: ${KEY_PASSWORD_FILE_VARIABLE}.",
            ),
        ],
        None,
    ),
    "accepts_any_host_name": (
        Annotated[
            bool,
            typer.Option(
                "--broker-accept-any-host-name",
                help="Take a certificate that was issued for another host. Default: "
                f"${ANY_HOST_NAME_VARIABLE} (yes or no).",
                show_default=False,
                rich_help_panel=_PANEL,
            ),
        ],
        False,
    ),
    "max_message_bytes": (MaxMessage, None),
    "amqp_lane": (
        Annotated[
            AmqpLane | None,
            typer.Option(
                "--amqp-lane",
                help="The AMQP client that everything goes over: our own (fast), or the slow one "
                f"that aio-pika stands on. Default: ${AMQP_LANE_VARIABLE}, else fast.",
                show_default=False,
                rich_help_panel=_PANEL,
            ),
        ],
        None,
    ),
    "signing_keys": (
        Annotated[
            Path | None,
            _file(
                "--signing-keys",
                f"Sign messages with the keys in this file. Default: ${SIGNING_KEYS_VARIABLE}.",
            ),
        ],
        None,
    ),
    "signing": (
        Annotated[
            Signing | None,
            typer.Option(
                "--signing",
                help="With keys: act on signed messages only (require), or on all while signatures "
                f"are introduced (sign). Default: ${SIGNING_VARIABLE}, else require.",
                show_default=False,
                rich_help_panel=_PANEL,
            ),
        ],
        None,
    ),
    "token": (
        Annotated[
            str | None,
            typer.Option(
                "--token",
                metavar="TOKEN",
                help="Tenant token, for an operator that asks for one. Default: "
                f"${TOKEN_VARIABLE} or what is in the file ${TOKEN_FILE_VARIABLE}.",
                show_default=False,
                rich_help_panel=_PANEL,
            ),
        ],
        None,
    ),
    "token_file": (
        Annotated[
            Path | None,
            _file("--token-file", "The file that holds it, read whenever the token is needed."),
        ],
        None,
    ),
}


def add_to(app: typer.Typer) -> None:
    for command in app.registered_commands:
        callback = command.callback
        if callback is not None and "broker" in inspect.signature(callback).parameters:
            command.callback = _extended(callback)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            add_to(group.typer_instance)


def _extended(command: Callable[..., AnyOptions]) -> Callable[..., AnyOptions]:
    """The same command with more options, which end up in the broker that it returns."""

    @wraps(command)
    def parsed(**values: Any) -> AnyOptions:
        stated = {name: values.pop(name) for name in _OPTIONS}
        return _connected(command(**values), ConnectOptions(**stated))

    signature = inspect.signature(command, eval_str=True)
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in _OPTIONS.items()
    ]
    changed = cast("Any", parsed)
    changed.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *more])
    changed.__annotations__ = {
        **get_type_hints(command, include_extras=True),
        **{name: kind for name, (kind, _) in _OPTIONS.items()},
    }
    return parsed


def _connected(options: AnyOptions, how: ConnectOptions) -> AnyOptions:
    """`options` have a broker, or a place that has one."""
    held = cast("Any", options)
    if hasattr(held, "broker"):
        changed = structs.replace(held, broker=structs.replace(held.broker, connecting=how))
    else:
        broker = structs.replace(held.place.broker, connecting=how)
        changed = structs.replace(held, place=structs.replace(held.place, broker=broker))
    return cast("AnyOptions", changed)
