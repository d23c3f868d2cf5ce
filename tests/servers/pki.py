"""A test certificate authority shaped like IGC-Santé: root, intermediate, server and application certificates.

Beside the good ones there is one certificate for every way to be refused: revoked, expired, signed
by somebody else, and for servers also the wrong host name.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from pathlib import Path

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """A certificate with its chain, and its unencrypted key; both PEM files."""

    cert: Path
    key: Path


@dataclass
class Authority:
    """One certification authority; with a parent it is an intermediate one."""

    name: str
    parent: Authority | None = None
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    revoked: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        signer = self.parent or self
        self.certificate = (
            _builder(self.name, signer, self.key, -DAY, 3650 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0 if self.parent else 1), critical=True)
            .add_extension(_usage(sign_certificates=True), critical=True)
            .sign(signer.key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def chain(self) -> bytes:
        """What a leaf sends along: the intermediates, not the root."""
        return self.pem + self.parent.chain if self.parent else b""

    def issue(
        self,
        folder: Path,
        file: str,
        common_name: str,
        *,
        server_names: tuple[str, ...] = (),
        rsa_key: bool = False,
        days: int = 365,
    ) -> tuple[Pair, x509.Certificate]:
        """Write FILE.pem and FILE.key; with server names a server's certificate, else a client's."""
        key: Key = (
            rsa.generate_private_key(65537, 2048) if rsa_key else ec.generate_private_key(ec.SECP256R1())
        )
        if server_names:
            purposes = [ExtendedKeyUsageOID.SERVER_AUTH]
            names: list[x509.GeneralName] = [_server_name(name) for name in server_names]
        else:
            purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.EMAIL_PROTECTION]
            names = [x509.RFC822Name(common_name)]
        certificate = (
            _builder(common_name, self, key, min(-1, days - 1) * DAY, days * DAY)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(encrypt=rsa_key), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        pair = Pair(folder / f"{file}.pem", folder / f"{file}.key")
        pair.cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + self.chain)
        pair.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        pair.key.chmod(0o600)
        return pair, certificate

    def crl(self) -> bytes:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - DAY)
            .next_update(now + 7 * DAY)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
            .add_extension(x509.CRLNumber(1), critical=False)
        )
        for serial in self.revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - DAY).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@dataclass(frozen=True)
class Pki:
    """Everything a TLS test needs, as files in one folder."""

    folder: Path
    root: Authority
    issuing: Authority
    ca: Path  # root and intermediate: what clients trust
    ca_and_crls: Path  # with the revocation lists of both: what servers check clients against
    server: Pair  # for localhost and 127.0.0.1
    client: Pair  # an application's certificate; RSA, as S/MIME needs it
    revoked: Pair
    expired: Pair
    rogue: Pair  # the same name, signed by somebody else
    server_expired: Pair
    server_elsewhere: Pair  # a good certificate of another host
    server_rogue: Pair

    def issue(self, common_name: str) -> Pair:
        """Write a client certificate for one more name (RSA: also good for S/MIME)."""
        pair, _ = self.issuing.issue(self.folder, common_name, common_name, rsa_key=True)
        return pair


def build(folder: Path, client: str = "relais@relais45.mssante.fr") -> Pki:
    """Make the authority and all certificates in the folder (0.3 s)."""
    folder.mkdir(parents=True, exist_ok=True)
    root = Authority("Relais Test Racine")
    issuing = Authority("Relais Test Organisations", root)
    rogue = Authority("Relais Test Rogue")
    here = ("localhost", "127.0.0.1")

    revoked, certificate = issuing.issue(folder, "revoked", client)
    issuing.revoked.append(certificate.serial_number)
    ca = folder / "ca.pem"
    ca.write_bytes(root.pem + issuing.pem)
    ca_and_crls = folder / "ca-and-crls.pem"
    # A revocation list of every authority in the chain, or the check refuses everybody.
    ca_and_crls.write_bytes(ca.read_bytes() + issuing.crl() + root.crl())
    return Pki(
        folder=folder,
        root=root,
        issuing=issuing,
        ca=ca,
        ca_and_crls=ca_and_crls,
        server=issuing.issue(folder, "server", "localhost", server_names=here)[0],
        client=issuing.issue(folder, "client", client, rsa_key=True)[0],
        revoked=revoked,
        expired=issuing.issue(folder, "expired", client, days=-1)[0],
        rogue=rogue.issue(folder, "rogue", client)[0],
        server_expired=issuing.issue(folder, "server-expired", "localhost", server_names=here, days=-1)[0],
        server_elsewhere=issuing.issue(
            folder, "server-elsewhere", "ailleurs.example", server_names=("ailleurs.example",)
        )[0],
        server_rogue=rogue.issue(folder, "server-rogue", "localhost", server_names=here)[0],
    )


def _builder(
    common_name: str, signer: Authority, key: Key, start: dt.timedelta, end: dt.timedelta
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(common_name))
        .issuer_name(_name(signer.name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + start)
        .not_valid_after(now + end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key()), critical=False
        )
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "FR"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Relais Test"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _server_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, sign_certificates: bool = False, encrypt: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=not sign_certificates,
        key_encipherment=encrypt,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )
