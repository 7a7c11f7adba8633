"""Reads a plain `run` line without Typer, whose import would delay the first message.

`grammar` stays the definition: whatever is not plain (help, mistakes) is left to it.
"""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from durable_worker.cli.options import (
    DEFAULT_CONCURRENCY,
    DEFAULT_GRACE,
    DEFAULT_RENEW_AFTER,
    LARGEST_LIMIT,
    LONGEST_RENEWAL,
    SHORTEST_RENEWAL,
    SMALLEST_LIMIT,
    AmqpLane,
    BrokerOptions,
    ConnectOptions,
    LogFormat,
    Run,
    Signing,
)
from durable_worker.protocol.names import DEFAULT_PREFIX
from durable_worker.worker.determinism.policy import Determinism

_VALUED = frozenset(
    [
        "--broker",
        "--concurrency",
        "--partition",
        "--namespace",
        "--prefix",
        "--log-format",
        "--grace",
        "--renew-after",
        "--determinism",
        "--broker-ca",
        "--broker-cert",
        "--broker-key",
        "--broker-key-password-file",
        "--max-message-bytes",
        "--amqp-lane",
        "--signing-keys",
        "--signing",
        "--token",
        "--token-file",
    ]
)


def parse_run(arguments: Sequence[str]) -> Run | None:
    """What the arguments after `run` ask for; None if only the full parser can tell."""
    targets: list[str] = []
    values: dict[str, str] = {}
    debug = False
    rest = iter(arguments)
    for word in rest:
        name, has_value, value = word.partition("=")
        if word == "--debug":
            debug = True
        elif name in _VALUED:
            taken = value if has_value else next(rest, "-")
            if not has_value and taken.startswith("-"):
                return None
            values[name] = taken
        elif word.startswith("-"):
            return None
        else:
            targets.append(word)
    return _run(targets[0], values, debug=debug) if len(targets) == 1 else None


def _run(target: str, values: dict[str, str], *, debug: bool) -> Run | None:
    concurrency = values.get("--concurrency", str(DEFAULT_CONCURRENCY))
    grace = values.get("--grace", str(DEFAULT_GRACE.total_seconds()))
    log_format = values.get("--log-format", LogFormat.CONSOLE)
    determinism = values.get("--determinism")
    limit = values.get("--max-message-bytes")
    renew_after = values.get("--renew-after", str(DEFAULT_RENEW_AFTER.total_seconds()))
    seconds = [each.replace(".", "", 1) for each in (grace, renew_after)]
    if not all(_is_digits(each) for each in (concurrency, *seconds)):
        return None
    if (
        not SHORTEST_RENEWAL.total_seconds()
        <= float(renew_after)
        <= LONGEST_RENEWAL.total_seconds()
    ):
        return None
    if int(concurrency) < 1 or log_format not in list(LogFormat):
        return None
    if limit is not None and not _is_limit(limit):
        return None
    signing = values.get("--signing")
    if signing is not None and signing not in list(Signing):
        return None
    lane = values.get("--amqp-lane")
    if lane is not None and lane not in list(AmqpLane):
        return None
    if determinism is not None and determinism not in list(Determinism):
        return None
    return Run(
        target=target,
        broker=BrokerOptions(
            values.get("--broker"),
            values.get("--prefix", DEFAULT_PREFIX),
            values.get("--namespace"),
            ConnectOptions(
                ca_file=_path(values, "--broker-ca"),
                cert_file=_path(values, "--broker-cert"),
                key_file=_path(values, "--broker-key"),
                key_password_file=_path(values, "--broker-key-password-file"),
                max_message_bytes=None if limit is None else int(limit),
                amqp_lane=None if lane is None else AmqpLane(lane),
                signing_keys=_path(values, "--signing-keys"),
                signing=None if signing is None else Signing(signing),
                token=values.get("--token"),
                token_file=_path(values, "--token-file"),
            ),
        ),
        concurrency=int(concurrency),
        partition=values.get("--partition"),
        grace=timedelta(seconds=float(grace)),
        renew_after=timedelta(seconds=float(renew_after)),
        determinism=None if determinism is None else Determinism(determinism),
        log_format=LogFormat(log_format),
        debug=debug,
    )


def _is_limit(text: str) -> bool:
    return _is_digits(text) and SMALLEST_LIMIT <= int(text) <= LARGEST_LIMIT


def _path(values: dict[str, str], name: str) -> Path | None:
    return Path(values[name]) if name in values else None


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10
