"""TLS of a mail account: whom it trusts, and what happens when the files change under it."""

from __future__ import annotations

import os
import shutil
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from relay.errors import Deferred
from relay.model import Why
from relay.tls import Trust, is_loopback

if TYPE_CHECKING:
    from tests.servers.pki import Pki


def handshake(pki: Pki, client: ssl.SSLContext, name: str = "server") -> None:
    """A whole handshake in memory, on both sides. Raises ssl.SSLError."""
    pair = getattr(pki, name)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(pair.cert, pair.key)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(down, up, server_hostname="localhost")
    theirs = server.wrap_bio(up, down, server_side=True)
    for side in (ours, theirs, ours, theirs):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue


def test_the_accounts_own_authority_is_trusted_and_no_other(pki: Pki) -> None:
    context = Trust(str(pki.ca)).context()
    handshake(pki, context)
    for name in ("server_rogue", "server_expired", "server_elsewhere"):
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(pki, context, name)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(pki, Trust().context())


def test_revocation_lists_in_the_authoritys_file_are_honoured(pki: Pki, tmp_path: Path) -> None:
    handshake(pki, Trust(str(pki.ca_and_crls)).context())
    revoked, certificate = pki.issuing.issue(tmp_path, "gone", "localhost", server_names=("localhost",))
    pki.issuing.revoked.append(certificate.serial_number)
    lists = tmp_path / "ca.pem"
    lists.write_bytes(pki.ca.read_bytes() + pki.issuing.crl() + pki.root.crl())
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(revoked.cert, revoked.key)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = Trust(str(lists)).context().wrap_bio(down, up, server_hostname="localhost")
    theirs = server.wrap_bio(up, down, server_side=True)
    with pytest.raises(ssl.SSLWantReadError):
        ours.do_handshake()
    with pytest.raises(ssl.SSLWantReadError):
        theirs.do_handshake()
    with pytest.raises(ssl.SSLCertVerificationError, match="revoked"):
        ours.do_handshake()


def test_old_versions_of_tls_are_refused(pki: Pki) -> None:
    context = Trust(str(pki.ca)).context()
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_a_renewed_certificate_is_taken_up_and_a_broken_one_leaves_the_old_in_use(
    pki: Pki, tmp_path: Path
) -> None:
    cert, key = tmp_path / "app.pem", tmp_path / "app.key"
    shutil.copy(pki.client.cert, cert)
    shutil.copy(pki.client.key, key)
    trust = Trust(str(pki.ca), str(cert), str(key))
    first = trust.context()
    assert trust.context() is first, "unchanged files are not read again"
    renewed = pki.issue("relais@relais45.mssante.fr")
    shutil.copy(renewed.cert, cert)
    assert trust.context() is first, "half of it is written: certificate and key do not match"
    shutil.copy(renewed.key, key)
    second = trust.context()
    assert second is not first
    cert.write_text("half")
    os.utime(cert, (1, 1))
    assert trust.context() is second
    cert.unlink()
    assert trust.context() is second


def test_files_that_never_could_be_read_are_said(pki: Pki, tmp_path: Path) -> None:
    for trust in (
        Trust(str(tmp_path / "none.pem")),
        Trust(str(pki.ca), str(pki.client.cert), str(pki.rogue.key)),
    ):
        with pytest.raises(Deferred) as deferred:
            trust.context()
        assert deferred.value.why == Why.CERTIFICATE
        assert str(tmp_path) not in str(deferred.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "LOCALHOST"])
def test_loopback_is_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["10.0.0.1", "localhost.example.fr", "127.0.0.1.example.fr", "", "0.0.0.0"])
def test_nothing_else_passes_for_loopback(host: str) -> None:
    assert not is_loopback(host)
