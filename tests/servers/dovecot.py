"""A real Dovecot: IMAPS that demands a client certificate, or plain IMAP and STARTTLS on loopback; LMTP; SASL.

One instance asks for certificates or it does not, as the setting holds for a whole master process.
Two instances may share one `mail` folder: what is delivered through one shows in the other.
"""

from __future__ import annotations

import contextlib
import email.policy
import imaplib
import itertools
import os
import pwd
import shutil
import signal
import smtplib
import ssl
import subprocess
import time
from typing import TYPE_CHECKING

from tests.servers import (
    LOOPBACK,
    Unavailable,
    free_port,
    need_root,
    program,
    spawn,
    stop,
    until,
    wait_listening,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from email.message import EmailMessage
    from pathlib import Path

    from tests.servers.pki import Pki

CONFIGURATION = """
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/dovecot.log
auth_verbose = yes
protocols = imap lmtp
listen = 127.0.0.1
default_internal_user = dovecot
default_internal_group = dovecot
default_login_user = dovenull

ssl = {tls}
ssl_cert = <{server.cert}
ssl_key = <{server.key}
ssl_ca = <{ca}
ssl_verify_client_cert = {verify}
ssl_require_crl = {verify}
ssl_min_protocol = TLSv1.2
# Postfix asks for SASL without a certificate; the mailboxes do not open without one.
protocol !smtp {{
  auth_ssl_require_client_cert = {verify}
}}
auth_ssl_username_from_cert = {external}
ssl_cert_username_field = commonName
auth_mechanisms = plain login xoauth2 {mechanisms}
disable_plaintext_auth = no
auth_failure_delay = 0

mail_location = maildir:{mail}/%u
mail_uid = {uid}
mail_gid = {gid}
first_valid_uid = 1
recipient_delimiter = +
mail_max_userip_connections = 500
lmtp_save_to_detail_mailbox = no

{external_passdb}
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {folder}/users
}}
passdb {{
  driver = oauth2
  mechanisms = xoauth2
  args = {folder}/oauth2.conf.ext
}}
userdb {{
  driver = passwd-file
  args = username_format=%u {folder}/users
  override_fields = uid={uid} gid={gid} home={mail}/%u
}}

namespace inbox {{
  inbox = yes
  separator = /
  mailbox Sent {{
    auto = subscribe
    special_use = \\Sent
  }}
  mailbox Trash {{
    auto = subscribe
    special_use = \\Trash
  }}
}}

service imap-login {{
  inet_listener imap {{
    address = 127.0.0.1
    port = {imap}
  }}
  inet_listener imaps {{
    address = 127.0.0.1
    port = {imaps}
    ssl = yes
  }}
  process_min_avail = 1
  service_count = 0
}}
service imap {{
  process_limit = 500
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {lmtp}
  }}
}}
service auth {{
  inet_listener sasl {{
    address = 127.0.0.1
    port = {sasl}
  }}
}}
service anvil {{
  client_limit = 3000
}}
service stats {{
  client_limit = 3000
}}
"""
EXTERNAL_PASSDB = """
passdb {
  driver = static
  mechanisms = external
  args = nopassword=y
}
"""


class Dovecot:
    """One Dovecot and its mailboxes; `accounts` maps each address to its password."""

    def __init__(
        self,
        folder: Path,
        pki: Pki,
        accounts: Mapping[str, str],
        *,
        client_certificates: bool = True,
        external: bool = False,
        mail: Path | None = None,
    ) -> None:
        need_root("Dovecot")
        self.folder, self.pki, self.accounts = folder, pki, dict(accounts)
        self.mail = mail or folder / "mail"
        self.imaps_port = free_port()
        # No listener at all where a certificate is demanded: `ssl = required` would still show a banner.
        self.imap_port = 0 if client_certificates else free_port()
        self.lmtp_port, self.sasl_port = free_port(), free_port()
        self._binary = program("dovecot", "dovecot-imapd dovecot-lmtpd")
        self._configuration = folder / "dovecot.conf"
        self._numbers = itertools.count(1)
        try:
            # Not "nobody": other programs' leftovers would be readable to the mail processes.
            self._owner = pwd.getpwnam("mail")
            authenticator = pwd.getpwnam("dovecot")
        except KeyError as missing:
            raise Unavailable(f"user missing: {missing}") from missing
        for place in (folder / "run", folder / "state", self.mail):
            place.mkdir(parents=True, exist_ok=True)
        shutil.chown(self.mail, self._owner.pw_uid, self._owner.pw_gid)
        users = folder / "users"
        users.write_text("".join(f"{user}:{password}::::::\n" for user, password in accounts.items()))
        users.chmod(0o600)
        shutil.chown(users, authenticator.pw_uid)
        # Nobody answers there: a bearer token is refused as a failed XOAUTH2, after its `+` challenge.
        (folder / "oauth2.conf.ext").write_text(
            "introspection_mode = post\nintrospection_url = http://127.0.0.1:9/\nusername_attribute = username\n"
        )
        self._configuration.write_text(
            CONFIGURATION.format(
                folder=folder,
                mail=self.mail,
                server=pki.server,
                ca=pki.ca_and_crls,
                tls="required" if client_certificates else "yes",
                verify="yes" if client_certificates else "no",
                external="yes" if external else "no",
                external_passdb=EXTERNAL_PASSDB if external else "",
                mechanisms="external" if external else "",
                uid=self._owner.pw_uid,
                gid=self._owner.pw_gid,
                imap=self.imap_port,
                imaps=self.imaps_port,
                lmtp=self.lmtp_port,
                sasl=self.sasl_port,
            )
        )

    @property
    def log(self) -> Path:
        return self.folder / "dovecot.log"

    def start(self) -> Dovecot:
        self._process = spawn(
            [self._binary, "-F", "-c", str(self._configuration)], self.folder / "output.log"
        )
        for port in (self.imaps_port, self.imap_port, self.lmtp_port, self.sasl_port):
            if port:
                wait_listening(port, self._process, self.log)
        return self

    def stop(self, how: int = signal.SIGKILL) -> None:
        # Asked politely it takes a second, and nothing here has to be kept.
        stop(self._process, how)
        # What a killed master leaves there makes the next one believe that it is already running.
        shutil.rmtree(self.folder / "run", ignore_errors=True)
        (self.folder / "run").mkdir()

    def restart(self) -> None:
        self.stop(signal.SIGTERM)
        self.start()

    # What arrives

    def deliver(
        self, to: str, *messages: bytes | EmailMessage, sender: str = "externe@chr-exemple.mssante.fr"
    ) -> None:
        """Hand messages over by LMTP, as a mail server does; returns once they stand in the mailbox."""
        with smtplib.LMTP(LOOPBACK, self.lmtp_port) as lmtp:
            for message in messages:
                lmtp.sendmail(sender, [to], raw(message))

    def fill(self, user: str, messages: Iterable[bytes | EmailMessage]) -> None:
        """Put many messages in a mailbox at once, straight into its Maildir (20,000 a second)."""
        maildir = self.mail / user
        if not (maildir / "tmp").is_dir():
            self.doveadm("mailbox", "status", "-u", user, "messages", "INBOX")
        new = maildir / "new"
        for message in messages:
            name = f"{int(time.time())}.M{next(self._numbers):08d}P{id(self)}.test"
            path = maildir / "tmp" / name
            path.write_bytes(raw(message).replace(b"\r\n", b"\n"))
            shutil.chown(path, self._owner.pw_uid, self._owner.pw_gid)
            path.rename(new / name)

    # What stands there

    def messages(self, user: str, mailbox: str = "INBOX") -> list[bytes]:
        """Return the whole messages of a mailbox, oldest first."""
        with self.session(user) as imap:
            answer, _ = imap.select(quoted(mailbox), readonly=True)
            if answer != "OK":
                return []
            _, rows = imap.uid("FETCH", "1:*", "(UID BODY.PEEK[])")
            return [row[1] for row in rows if isinstance(row, tuple)]

    def wait_messages(
        self, user: str, count: int = 1, mailbox: str = "INBOX", seconds: float = 20
    ) -> list[bytes]:
        """Wait until the mailbox holds at least so many messages, and return them all."""
        until(lambda: len(self.messages(user, mailbox)) >= count, seconds)
        found = self.messages(user, mailbox)
        assert len(found) >= count, f"{len(found)} of {count} messages in {user}/{mailbox} after {seconds} s"
        return found

    def flags(self, user: str, mailbox: str = "INBOX") -> list[tuple[str, ...]]:
        """Return the flags of each message of a mailbox, oldest first."""
        with self.session(user) as imap:
            imap.select(quoted(mailbox), readonly=True)
            _, rows = imap.uid("FETCH", "1:*", "(FLAGS)")
            return [
                tuple(sorted({flag.decode() for flag in imaplib.ParseFlags(row)} - {"\\Recent"}))
                for row in rows
                if isinstance(row, bytes)
            ]

    @contextlib.contextmanager
    def session(self, user: str) -> Iterator[imaplib.IMAP4]:
        """A second client of the mailbox: what a person with a mail program sees and does."""
        imap: imaplib.IMAP4
        if self.imap_port:
            imap = imaplib.IMAP4(LOOPBACK, self.imap_port, timeout=20)
        else:
            context = ssl.create_default_context(cafile=str(self.pki.ca))
            context.load_cert_chain(self.pki.client.cert, self.pki.client.key)
            imap = imaplib.IMAP4_SSL(LOOPBACK, self.imaps_port, ssl_context=context, timeout=20)
        try:
            imap.login(user, self.accounts[user])
            yield imap
        finally:
            with contextlib.suppress(OSError, imaplib.IMAP4.error):
                imap.logout()

    def empty(self, user: str) -> None:
        """Throw the whole account away; the next delivery makes a new one, with another UIDVALIDITY."""
        self.kill_sessions(user)
        shutil.rmtree(self.mail / user, ignore_errors=True)

    def renumber(self, user: str) -> None:
        """Give the INBOX another UIDVALIDITY and other UIDs, as a restored or migrated server does."""
        self.kill_sessions(user)
        for name in (
            "dovecot-uidlist",
            "dovecot-uidvalidity",
            "dovecot.index",
            "dovecot.index.log",
            "dovecot.index.cache",
        ):
            (self.mail / user / name).unlink(missing_ok=True)
        for old in (self.mail / user).glob("dovecot-uidvalidity.*"):
            old.unlink()
        self.doveadm(
            "mailbox",
            "update",
            "-u",
            user,
            "--uid-validity",
            str(int(time.time()) + next(self._numbers)),
            "INBOX",
        )

    # What breaks

    def sessions(self, user: str) -> list[int]:
        """Return the process ids of the open IMAP sessions of this user."""
        lines = self.doveadm("-f", "tab", "who", "-1", user).splitlines()[1:]
        return [int(line.split("\t")[2]) for line in lines if line.split("\t")[1] == "imap"]

    def kill_sessions(self, user: str) -> int:
        """Kill the IMAP processes of this user, as a crash would; return how many there were."""
        killed = 0
        for pid in self.sessions(user):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
        return killed

    def doveadm(self, *arguments: str) -> str:
        done = subprocess.run(
            [program("doveadm", "dovecot-core"), "-c", str(self._configuration), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
        if done.returncode not in {0, 68}:  # 68: no such user or session
            raise RuntimeError(f"doveadm {arguments}: {done.stderr}")
        return done.stdout


def raw(message: bytes | EmailMessage) -> bytes:
    return message if isinstance(message, bytes) else message.as_bytes(policy=email.policy.SMTP)


def quoted(mailbox: str) -> str:
    """Return a mailbox name as it goes on the wire (RFC 3501 §5.1.3, modified UTF-7)."""
    encoded = mailbox.replace("&", "&-").encode("utf-7").replace(b"+", b"&").replace(b"/", b",").decode()
    return f'"{mailbox if mailbox.isascii() else encoded}"'
