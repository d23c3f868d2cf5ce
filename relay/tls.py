"""TLS as a mail account asks for it: which authority is trusted, which certificate is shown, and plain text on loopback only.

Files are read again when they change, so that a renewed certificate needs no restart; when the new ones
cannot be loaded, the old ones stay in use.
"""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from relay import log
from relay.errors import Deferred
from relay.model import Why


def is_loopback(host: str) -> bool:
    """Whether this name or address can only mean this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


@dataclass(slots=True)
class Trust:
    """The files of one account. `ca` None means the system's store; `cert` is the one shown to the server, PEM."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    _context: ssl.SSLContext | None = field(default=None, repr=False)
    _read: tuple[tuple[int, int], ...] = ()

    def context(self) -> ssl.SSLContext:
        """A client context, at least TLS 1.2, server name and chain checked.

        Revocation lists that stand in the `ca` file are honoured (they must cover every authority of the
        chain). Raises Deferred when the files cannot be loaded and never could be.
        """
        try:
            read = tuple((stat.st_mtime_ns, stat.st_size) for stat in map(Path.stat, self._files()))
            if self._context is None or read != self._read:
                self._context, self._read = self._load(), read
        except (OSError, ssl.SSLError) as error:  # SSLError is an OSError; named for the reader
            if self._context is None:
                raise Deferred(Why.CERTIFICATE, retry_after=300, detail="files cannot be loaded") from None
            log.get().warning("certificate_files_kept", error=type(error).__name__)
        return self._context

    def _files(self) -> list[Path]:
        return [Path(file) for file in (self.ca, self.cert, self.key) if file]

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.ca and b"BEGIN X509 CRL" in Path(self.ca).read_bytes():
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
        if self.cert:
            # An encrypted key would ask on the terminal: answer with nothing, and fail.
            context.load_cert_chain(self.cert, self.key, password=lambda: b"")
        return context


def tls_verdict(error: ssl.SSLError) -> Deferred:
    """What a TLS failure asks of us: a certificate is ours or the operator's to mend, a cut is tried again."""
    reason = error.reason or ""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Deferred(Why.CERTIFICATE, retry_after=300, detail="of the server")
    if "ALERT" in reason:
        return Deferred(Why.CERTIFICATE, retry_after=300, detail="refused by the server")
    if "WRONG_VERSION_NUMBER" in reason:
        return Deferred(Why.PROTOCOL, retry_after=300, detail="no TLS on this port")
    return Deferred(Why.CONNECTION)
