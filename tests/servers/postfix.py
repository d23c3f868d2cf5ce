"""A real Postfix: submission with TLS and passwords from Dovecot, DSN, delivery into Dovecot by LMTP.

What each address does is data: those that Dovecot knows arrive; `parti@…` is taken and bounces
afterwards; unknown ones are refused with 550; every address at `lent.mssante.fr` is deferred with 450.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

from tests.servers import Unavailable, free_port, need_root, program, spawn, stop, wait_listening

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.dovecot import Dovecot

DEFERRING_DOMAIN = "lent.mssante.fr"
BOUNCING_ADDRESS = "parti@medecin.mssante.fr"  # known to Postfix, unknown to the mail store

MAIN = """
compatibility_level = 3.6
queue_directory = {folder}/spool
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = {daemons}
mail_owner = postfix
setgid_group = postdrop
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = smtp.operateur.mssante.fr
mydestination =
mynetworks =
alias_maps =
alias_database =
local_recipient_maps =
recipient_delimiter = +
relay_domains = {deferring}
virtual_mailbox_domains = {domains}
virtual_mailbox_maps = texthash:{folder}/etc/mailboxes
virtual_transport = lmtp:inet:127.0.0.1:{lmtp}
default_transport = error:5.1.2 nothing leaves the tests
transport_maps = inline:{{ {{{deferring}=retry:4.4.1 try again later}} }}
# Where bounces and reports to the outside would go; the tests keep everything inside.
notify_classes =
message_size_limit = 41943040
virtual_mailbox_limit = 0
smtpd_tls_security_level = encrypt
smtpd_tls_cert_file = {server.cert}
smtpd_tls_key_file = {server.key}
smtpd_tls_CAfile = {ca}
smtpd_tls_auth_only = yes
smtpd_tls_ask_ccert = yes
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = inet:127.0.0.1:{sasl}
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_client_connection_count_limit = 0
smtpd_error_sleep_time = 0
smtpd_soft_error_limit = 1000
smtpd_hard_error_limit = 1000
lmtp_destination_concurrency_limit = 10
queue_run_delay = 2s
minimal_backoff_time = 2s
maillog_file = {folder}/mail.log
maillog_file_prefixes = {folder}
"""
MASTER = """
127.0.0.1:{starttls} inet n - n - 100 smtpd
127.0.0.1:{tls} inet n - n - 100 smtpd
  -o smtpd_tls_wrappermode=yes
127.0.0.1:{incoming} inet n - n - 100 smtpd
  -o smtpd_tls_security_level=none
  -o smtpd_sasl_auth_enable=no
  -o smtpd_relay_restrictions=reject_unauth_destination
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
tlsmgr    unix  -       -       n       1000?   1       tlsmgr
rewrite   unix  -       -       n       -       -       trivial-rewrite
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
proxymap  unix  -       -       n       -       -       proxymap
lmtp      unix  -       -       n       -       -       lmtp
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
anvil     unix  -       -       n       -       1       anvil
scache    unix  -       -       n       -       1       scache
postlog   unix-dgram n  -       n       -       1       postlogd
"""
QUEUES = (
    "active",
    "bounce",
    "corrupt",
    "defer",
    "deferred",
    "flush",
    "hold",
    "incoming",
    "private",
    "saved",
    "trace",
)


class Postfix:
    """One Postfix in front of a Dovecot: `tls_port` (TLS on connect), `starttls_port`, `incoming_port` (no TLS, no password)."""

    def __init__(self, folder: Path, dovecot: Dovecot) -> None:
        need_root("Postfix")
        self.folder, self.dovecot = folder, dovecot
        self.tls_port, self.starttls_port, self.incoming_port = free_port(), free_port(), free_port()
        self._master = program("master", "postfix", "/usr/lib/postfix/sbin", "/usr/libexec/postfix")
        addresses = [*dovecot.accounts, BOUNCING_ADDRESS]
        configuration = folder / "etc"
        for place in (configuration, folder / "data", folder / "spool"):
            place.mkdir(parents=True)
        (configuration / "mailboxes").write_text("".join(f"{address} yes\n" for address in addresses))
        (configuration / "main.cf").write_text(
            MAIN.format(
                folder=folder,
                daemons=os.path.dirname(self._master),
                domains=" ".join(sorted({address.split("@")[1] for address in addresses})),
                deferring=DEFERRING_DOMAIN,
                server=dovecot.pki.server,
                ca=dovecot.pki.ca,
                lmtp=dovecot.lmtp_port,
                sasl=dovecot.sasl_port,
            )
        )
        (configuration / "master.cf").write_text(
            MASTER.format(starttls=self.starttls_port, tls=self.tls_port, incoming=self.incoming_port)
        )
        for file in configuration.iterdir():
            # Postfix waits until its configuration is 2 s old, lest somebody is still writing it.
            os.utime(file, (0, 0))
        self._lay_out_queue()

    def _lay_out_queue(self) -> None:
        # What `postfix start` does among many checks; the master alone starts at once.
        try:
            for queue in QUEUES:
                place = self.folder / "spool" / queue
                place.mkdir(mode=0o700)
                shutil.chown(place, "postfix", "root")
            for queue, mode in (("public", 0o710), ("maildrop", 0o730)):
                place = self.folder / "spool" / queue
                place.mkdir()
                place.chmod(mode)
                shutil.chown(place, "postfix", "postdrop")
            (self.folder / "spool" / "pid").mkdir(mode=0o755)
            shutil.chown(self.folder / "data", "postfix", "postfix")
        except LookupError as missing:
            raise Unavailable(f"user or group missing: {missing}: apt-get install postfix") from missing

    @property
    def log(self) -> Path:
        return self.folder / "mail.log"

    def start(self) -> Postfix:
        self._process = spawn(
            [self._master, "-c", str(self.folder / "etc"), "-d"], self.folder / "output.log"
        )
        for port in (self.tls_port, self.starttls_port, self.incoming_port):
            wait_listening(port, self._process, self.log)
        return self

    def stop(self, how: int = signal.SIGTERM) -> None:
        stop(self._process, how)

    def queue(self) -> str:
        """Return what waits in the queue, one JSON line a message."""
        done = subprocess.run(
            [program("postqueue", "postfix"), "-c", str(self.folder / "etc"), "-j"],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
        return done.stdout
