"""TLS to the broker: what a connection needs, and what its failures mean.

Imported only where an `amqps` URL is used.
"""

import asyncio
import ssl
from pathlib import Path
from typing import Final

from durable_worker.errors import (
    BrokerRefusedError,
    ConnectionLostError,
    TransportError,
    UsageError,
)
from durable_worker.transports.rabbitmq.address import BrokerAddress, TlsOptions
from durable_worker.transports.rabbitmq.greeting import TlsSpokenError

_CA: Final = "CA file (--broker-ca, DURABLE_BROKER_CA_FILE)"
_CERT: Final = "client certificate (--broker-cert, DURABLE_BROKER_CERT_FILE)"
_KEY: Final = "client key (--broker-key, DURABLE_BROKER_KEY_FILE)"
_PASSWORD: Final = "key password file (--broker-key-password-file)"

_CERTIFICATE: Final = "-----BEGIN CERTIFICATE-----"

_REASON_SECONDS: Final = 3.0

_EXPIRED, _NOT_YET_VALID = 10, 9
_OTHER_HOST = frozenset({62, 64})
_UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21})
"""Numbers of X509_V_ERR_*, which OpenSSL keeps."""

_NO_TLS_THERE = frozenset(
    {
        *("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNKNOWN_PROTOCOL"),
        *("PACKET_LENGTH_TOO_LONG", "BAD_RECORD_TYPE", "ENCRYPTED_LENGTH_TOO_LONG"),
    }
)
_CERTIFICATE_WANTED = ("CERTIFICATE_REQUIRED", "ALERT_HANDSHAKE_FAILURE", "ALERT_NO_CERTIFICATE")
_CERTIFICATE_REFUSED = (
    *("ALERT_UNKNOWN_CA", "ALERT_BAD_CERTIFICATE", "ALERT_UNSUPPORTED_CERTIFICATE"),
    *("ALERT_CERTIFICATE_EXPIRED", "ALERT_CERTIFICATE_REVOKED", "ALERT_CERTIFICATE_UNKNOWN"),
    *("ALERT_ACCESS_DENIED", "ALERT_DECRYPT_ERROR", "ALERT_HANDSHAKE_FAILURE"),
)
_TOO_OLD = ("PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "VERSION_TOO_LOW")


async def context_for(options: TlsOptions) -> ssl.SSLContext:
    """As `client_context`, off the event loop; raises `BrokerRefusedError`."""
    try:
        return await asyncio.to_thread(client_context, options)
    except UsageError as error:
        raise BrokerRefusedError(str(error)) from error


def client_context(options: TlsOptions) -> ssl.SSLContext:
    """TLS 1.2 at least, the broker's certificate verified. Reads the files; raises `UsageError`."""
    context = _trusting(options)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = options.checks_host_name
    _load_certificate(context, options)
    return context


def _trusting(options: TlsOptions) -> ssl.SSLContext:
    if options.ca_file is None:
        return ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    text = _read(options.ca_file, _CA)
    try:
        # Without any certificate, it would be the system's authorities that are trusted.
        if _CERTIFICATE in text:
            return ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cadata=text)
    except (ssl.SSLError, ValueError):
        pass
    raise UsageError(
        f"the {_CA} {str(options.ca_file)!r} holds no certificate that can be read. Expected the "
        f"certificate of the authority that issued the broker's, as PEM."
    )


def _load_certificate(context: ssl.SSLContext, options: TlsOptions) -> None:
    cert_file, key_file = options.cert_file, options.key_file
    if cert_file is None:
        if key_file is not None:
            raise UsageError(f"a {_KEY} is given without the {_CERT} that it belongs to.")
        return
    certificate = _read(cert_file, _CERT)
    if _CERTIFICATE not in certificate:
        raise UsageError(f"the {_CERT} {str(cert_file)!r} holds no certificate as PEM.")
    key = certificate if key_file is None else _read(key_file, _KEY)
    key_name = str(key_file or cert_file)
    if "PRIVATE KEY-----" not in key:
        raise UsageError(f"the {_KEY} {key_name!r} holds no private key as PEM.")
    password = _password(options)

    def decrypt() -> str:
        # Without this the library would ask at the terminal.
        if password is None:
            raise UsageError(
                f"the {_KEY} {key_name!r} is encrypted, and no password is given. Put it into a "
                f"{_PASSWORD}, or into DURABLE_BROKER_KEY_PASSWORD."
            )
        return password

    try:
        context.load_cert_chain(cert_file, key_file, password=decrypt)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            problem = f"does not belong to the certificate in {str(cert_file)!r}"
        elif "ENCRYPTED" in key:
            problem = "cannot be decrypted: its password is another one"
        else:
            problem = f"or the certificate in {str(cert_file)!r} cannot be read as PEM"
        raise UsageError(f"the {_KEY} {key_name!r} {problem}.") from None


def _password(options: TlsOptions) -> str | None:
    if options.key_password_file is None:
        return options.key_password
    lines = _read(options.key_password_file, _PASSWORD).splitlines()
    if not lines or not lines[0]:
        raise UsageError(f"the {_PASSWORD} {str(options.key_password_file)!r} is empty.")
    return lines[0]


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise UsageError(
            f"the {what} {str(path)!r} cannot be read: {error.strerror or error}."
        ) from None
    except UnicodeDecodeError:
        raise UsageError(f"the {what} {str(path)!r} is no text: expected PEM.") from None


async def reason_of_cut(
    error: BaseException, address: BrokerAddress, context: ssl.SSLContext
) -> ssl.SSLError | None:
    """Why the broker cut a connection after the TLS handshake, if it says so.

    In TLS 1.3 it judges a client certificate only then, and the end of a connection on which the
    client has spoken already can overtake the reason. So it is asked once more, in silence.
    """
    cause = error if error.__cause__ is None else error.__cause__
    is_cut = isinstance(cause, (asyncio.IncompleteReadError, ConnectionError))
    if not is_cut or isinstance(cause, ConnectionRefusedError):
        return None
    try:
        async with asyncio.timeout(_REASON_SECONDS):
            reader, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
            try:
                await reader.read(1)
            finally:
                writer.transport.abort()
    except ssl.SSLError as told:
        return told
    except OSError:
        return None  # a TimeoutError is one, too
    return None


def explained(error: BaseException, address: BrokerAddress) -> TransportError | None:
    """What a failed attempt to connect says about TLS; None if it says nothing about it."""
    cause = error if error.__cause__ is None else error.__cause__
    match cause:
        case ssl.SSLCertVerificationError():
            return BrokerRefusedError(_distrust(cause, address))
        case ssl.SSLError(reason=str(reason)):
            return _refusal(reason, address)
        case TlsSpokenError():
            return BrokerRefusedError(
                f"the broker at {address.safe} speaks TLS on this port. Write amqps:// instead of "
                f"amqp://, or use its port for connections without TLS (5672 by default)."
            )
        case ConnectionRefusedError():
            return None
        case asyncio.IncompleteReadError() | ConnectionError() if address.tls is not None:
            return ConnectionLostError(
                f"the broker at {address.safe} ended the connection during the TLS handshake or "
                f"right after it: {_of_clients(address.tls)}"
            )
        case _:
            return None


def _distrust(error: ssl.SSLCertVerificationError, address: BrokerAddress) -> str:
    subject = f"the certificate of the broker at {address.safe}"
    ca_file = None if address.tls is None else address.tls.ca_file
    match error.verify_code:
        case code if code == _EXPIRED:
            return f"{subject} has expired. Renew it on the broker, or correct this clock."
        case code if code == _NOT_YET_VALID:
            return f"{subject} is not valid yet. Compare the clocks of both machines."
        case code if code in _OTHER_HOST:
            return (
                f"{subject} was issued for another host: {error.verify_message} Use a name that "
                f"it holds, or issue one that holds this name."
            )
        case code if code in _UNKNOWN_AUTHORITY:
            trusted = (
                "those that this system trusts; name the right ones with --broker-ca "
                "(DURABLE_BROKER_CA_FILE, TlsOptions.ca_file)"
                if ca_file is None
                else f"those in the {_CA} {str(ca_file)!r}"
            )
            return (
                f"{subject} cannot be verified ({error.verify_message}): its authority is not "
                f"among {trusted}."
            )
        case _:
            return f"{subject} cannot be verified: {error.verify_message}"


def _refusal(reason: str, address: BrokerAddress) -> TransportError | None:
    where, tls = address.safe, address.tls or TlsOptions()
    if reason in _NO_TLS_THERE:
        return BrokerRefusedError(
            f"the broker at {where} does not speak TLS on this port. Use its port for TLS (5671 by "
            f"default), or write amqp:// if the connection is not to be encrypted."
        )
    if reason.endswith(_TOO_OLD):
        return BrokerRefusedError(f"the broker at {where} speaks no version of TLS from 1.2 on.")
    is_refused = tls.cert_file is not None and reason.endswith(_CERTIFICATE_REFUSED)
    if is_refused or reason.endswith(_CERTIFICATE_WANTED):
        return BrokerRefusedError(
            f"the broker at {where} ended the TLS handshake ({_said(reason)}): {_of_clients(tls)}"
        )
    return None


def _of_clients(tls: TlsOptions) -> str:
    if tls.cert_file is None:
        return (
            "it may want a client certificate, and none is given (--broker-cert and --broker-key, "
            "DURABLE_BROKER_CERT_FILE and DURABLE_BROKER_KEY_FILE)."
        )
    return (
        f"it does not take the client certificate in {str(tls.cert_file)!r}. Has it expired, and "
        f"does the broker trust the authority that issued it?"
    )


def _said(reason: str) -> str:
    return reason.partition("_ALERT_")[2].replace("_", " ").lower() or reason
