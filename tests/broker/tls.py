"""Certificates of a test's own, made by an authority that nobody else trusts."""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LOCAL = ("localhost", "127.0.0.1")
DAY = timedelta(days=1)
LIFE = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Certificate:
    """Two PEM files that belong together."""

    cert_file: Path
    key_file: Path


@dataclass(frozen=True, slots=True)
class NodeTls:
    """What a private node is to show and to ask for on its TLS port, where a client may also log in
    by the common name of its certificate."""

    authority: "Authority"
    certificate: Certificate
    requires_client: bool = False


class Authority:
    """Issues certificates into `folder`; `ca_file` is what a client has to trust."""

    def __init__(self, folder: Path, *, name: str = "durable test authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name_of(name)
        self._issued = 0
        folder.mkdir(parents=True, exist_ok=True)
        certificate = (
            _builder(self._name, self._name, self._key.public_key(), datetime.now(UTC), LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_bytes(certificate.public_bytes(Encoding.PEM))

    def server(self, *hosts: str, ended: timedelta | None = None) -> Certificate:
        """For a broker at `hosts` (default: this machine); `ended` ago it expired."""
        return self._issue(
            "broker", ExtendedKeyUsageOID.SERVER_AUTH, hosts or LOCAL, ended=ended, password=None
        )

    def client(
        self, name: str = "worker", *, ended: timedelta | None = None, password: str | None = None
    ) -> Certificate:
        """For a client; its key is encrypted with `password`, if there is one."""
        return self._issue(
            name, ExtendedKeyUsageOID.CLIENT_AUTH, (), ended=ended, password=password
        )

    def _issue(
        self,
        name: str,
        purpose: x509.ObjectIdentifier,
        hosts: tuple[str, ...],
        *,
        ended: timedelta | None,
        password: str | None,
    ) -> Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        end = datetime.now(UTC) + LIFE if ended is None else datetime.now(UTC) - ended
        builder = (
            _builder(_name_of(name), self._name, key.public_key(), end - LIFE, LIFE)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        if hosts:
            names = x509.SubjectAlternativeName([_host(each) for each in hosts])
            builder = builder.add_extension(names, critical=False)
        self._issued += 1
        stem = f"{name}-{self._issued}"
        cert_file, key_file = self._folder / f"{stem}.pem", self._folder / f"{stem}-key.pem"
        cert_file.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        seal = NoEncryption() if password is None else BestAvailableEncryption(password.encode())
        key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, seal))
        return Certificate(cert_file, key_file)


def _name_of(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    start: datetime,
    life: timedelta,
) -> x509.CertificateBuilder:
    # A day early: whoever reads it may have a clock that is late.
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - DAY)
        .not_valid_after(start + life)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
