"""`relay check`: everything that can be known to be wrong before the daemon runs."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import stat
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from cryptography import x509

from relay import daemon, registers, ruling
from relay.clock import SystemClock
from relay.config import DIRECTORY_KINDS
from relay.errors import RelaisError, Unavailable, Verdict
from relay.ports import Tools
from relay.tls import is_loopback
from relay.tokens import TOKEN_LENGTH

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from relay.config import Settings

WARN_BEFORE = timedelta(days=30)
DIRECTORY_OLD = timedelta(days=30)
LOCAL_PART = 64  # RFC 5321 §4.5.3.1.1


@dataclass(frozen=True, slots=True)
class Found:
    """One thing that was looked at."""

    name: str
    severity: Literal["ok", "warning", "error"]
    text: str
    unavailable: bool = False

    @property
    def wrong(self) -> bool:
        """Whether `relay check` fails for it."""
        return self.severity == "error"


async def examine(settings: Settings, *, online: bool = False) -> list[Found]:
    """Look at everything, in the order a person would mend it; never stops at the first.

    Raises ConfigurationError for a file that `relay run` would refuse: nothing else can be known then.
    """
    found = [Found("configuration", "ok", str(settings.file))]
    found += _adapters(settings)
    found += watched(settings)
    found += _certificates(settings)
    found += sealing(settings, datetime.now(UTC))
    found += rotas(settings)
    if settings.gp_page:
        found.append(Found("gp_page", "warning", "this version serves no page for GPs"))
    found += _keys(settings)
    found += _open_to_others(settings)
    found += await _database_and_rules(settings)
    found += _clock()
    if online:
        found += await _online(settings)
    return found


def _adapters(settings: Settings) -> Iterator[Found]:
    if not settings.adapters:
        yield Found("adapters", "warning", "none is configured: nothing is watched and nothing leaves")
    for name, table in settings.adapters.items():
        daemon.check_adapter(settings, table)
        yield Found(f"adapter {name}", "ok", table.kind)
    if any(table.kind in ("telegram", "matrix", "webchat") for table in settings.adapters.values()):
        agreed = settings.chat_agreed
        yield (
            Found("chat", "ok", f"agreed by the DPO on {agreed}")
            if agreed
            else Found("chat", "warning", "off: [chat] dpo_agreed is not set")
        )


def watched(settings: Settings) -> Iterator[Found]:
    """Answers and receipts come back to the address mail is sent from: somebody must read it."""
    mail = settings.mail
    if mail is None:
        return
    if not mail.sender:
        yield Found("sending address", "error", f"[adapters.{mail.name}] needs `from`")
        return
    if not any(fnmatchcase(mail.sender.rpartition("@")[2].lower(), glob) for glob in settings.domains):
        yield Found("sending address", "warning", "its domain is not in [relay] domains")
    local = (mail.reply or "").rpartition("@")[0].replace("{token}", "x" * TOKEN_LENGTH)
    if len(local) > LOCAL_PART:
        yield Found(
            "reply address",
            "error",
            f"{len(local)} characters before the @ once {{token}} is filled in; mail servers take {LOCAL_PART}",
        )
    people = [(f"ward {ward.slug}", ward.reply_to) for ward in settings.wards.values()]
    people += [(f"desk {desk.name}", desk.mail) for desk in settings.desks.values()]
    people += [("admins", address) for address in settings.admins]
    people += [("dpo", settings.dpo)] if settings.dpo else []
    for who, address in people:
        # Nothing would ever reach them, and a held letter would wait unseen.
        if not any(fnmatchcase(address.rpartition("@")[2].lower(), glob) for glob in settings.domains):
            yield Found(who, "error", "their mail address is in no domain of [relay] domains")
    if any(table.role == "replies" for table in settings.adapters.values()):
        yield Found("replies", "ok", "the relay's own mailbox is watched")
    else:
        yield Found(
            "replies", "error",
            "nothing watches the address mail is sent from: add an imap adapter with role = \"replies\"",
        )  # fmt: skip


def _open_to_others(settings: Settings) -> Iterator[Found]:
    """Secrets that every account of this machine can read, and a door through which anybody may hand letters in."""
    for file in settings.secret_files:
        with contextlib.suppress(OSError):  # who needs the file says that it is missing
            if file.stat().st_mode & 0o004:
                yield Found(f"secret {file.name}", "warning", f"{file} may be read by others: chmod 600")
    for name, table in settings.adapters.items():
        host = str(table.raw.get("listen", "")).rpartition(":")[0]
        if table.kind == "mllp" and not is_loopback(host) and "ca" not in table.raw:
            yield Found(
                f"adapter {name}", "warning",
                "anybody in the network may hand letters in: `ca` says whose certificates its clients must show",
            )  # fmt: skip


_OURS = ("client_cert", "client_key", "cert", "key")
"""What we show as a client, and what a listener of ours shows."""


def _certificates(settings: Settings) -> Iterator[Found]:
    """Files of each TLS connection: there, readable, a pair, not about to expire."""
    for name, table in settings.adapters.items():
        title = f"certificate {name}"
        for key in ("ca", *_OURS):
            file = table.raw.get(key)
            if not isinstance(file, str):
                continue
            try:
                content = Path(file).read_bytes()
            except OSError as error:
                raise settings.error(
                    ("adapters", name, key), f"{file} cannot be read ({type(error).__name__})"
                ) from None
            if key in ("client_key", "key"):
                continue
            try:
                held = x509.load_pem_x509_certificates(content)
            except ValueError:
                raise settings.error(("adapters", name, key), f"{file} holds no certificate") from None
            yield _lasting(title, held[0] if key != "ca" else max(held, key=_ends))
        listens = "cert" in table.raw
        certificate = table.raw.get("cert" if listens else "client_cert")
        secret = table.raw.get("key" if listens else "client_key")
        if isinstance(certificate, str):
            try:
                ssl.create_default_context().load_cert_chain(
                    certificate, secret if isinstance(secret, str) else None, password=_no_prompt
                )
            except (ssl.SSLError, ValueError):
                yield Found(title, "error", "certificate and key are no pair, or the key is locked")


def sealing(settings: Settings, at: datetime) -> Iterator[Found]:
    """The files of [smime]: what others encrypt to, and lists that a signature cannot be checked without."""
    daemon.opener(settings)
    if isinstance(file := settings.smime.get("certificate"), str):
        ours = x509.load_pem_x509_certificates(Path(file).read_bytes())
        yield _lasting("certificate smime", max(ours, key=_ends), at)
    if isinstance(file := settings.smime.get("crl"), str):
        marks = re.findall(
            rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", Path(file).read_bytes(), re.DOTALL
        )
        ends = [end for each in marks if (end := x509.load_pem_x509_crl(each).next_update_utc)]
        if ends and min(ends) < at:
            text = f"one expired on {min(ends):%Y-%m-%d}: every signature is held until it is renewed"
            yield Found("revocation lists smime", "error", text)
        else:
            yield Found("revocation lists smime", "ok", f"{len(marks)} of them")


def rotas(settings: Settings) -> Iterator[Found]:
    """Who is on duty: a line that cannot be read is an hour in which nobody is."""
    for name, file in settings.rotas.items():
        try:
            with file.open("rb") as stream:
                rows = list(registers.rota(stream, str(file), settings.timezone))
        except OSError as error:
            raise settings.error(
                ("rotas", name, "file"), f"{file} cannot be read ({type(error).__name__})"
            ) from None
        if bad := [row for row in rows if isinstance(row, registers.BadLine)]:
            text = f"{file}:{bad[0].number}: {bad[0].reason}; {len(bad)} of {len(rows)} lines are left out"
            yield Found(f"rota {name}", "error", text)
        else:
            yield Found(f"rota {name}", "ok", f"{len(rows)} duties")


def _no_prompt() -> str:
    """OpenSSL would ask the terminal for a key's password."""
    return ""


def _ends(certificate: x509.Certificate) -> datetime:
    return certificate.not_valid_after_utc


def _lasting(title: str, certificate: x509.Certificate, at: datetime | None = None) -> Found:
    left = _ends(certificate) - (at or datetime.now(UTC))
    if left < timedelta(0):
        return Found(title, "error", f"expired on {_ends(certificate):%Y-%m-%d}")
    if left < WARN_BEFORE:
        return Found(title, "warning", f"expires in {left.days} days")
    return Found(title, "ok", f"valid until {_ends(certificate):%Y-%m-%d}")


def _keys(settings: Settings) -> Iterator[Found]:
    try:
        daemon.key_ring(settings).long_key("token")
        mode = stat.S_IMODE(settings.keys_file.stat().st_mode)
    except (RelaisError, KeyError, OSError) as error:
        text = str(error) if isinstance(error, RelaisError) else "the key ring cannot be read"
        yield Found("keys", "error", text)
        return
    if mode & 0o077:
        yield Found("keys", "error", f"{settings.keys_file} may be read by others: chmod 600")
    else:
        yield Found("keys", "ok", str(settings.keys_file))


async def _database_and_rules(settings: Settings) -> list[Found]:
    found: list[Found] = []
    found += _rules(settings)
    try:
        store = await daemon.open_store(settings)
    except RelaisError as error:
        return [*found, Found("database", "error", str(error), unavailable=isinstance(error, Unavailable))]
    try:
        broken = {name: rows for name, rows in (await store.invariants()).items() if rows}
        sources = await store.directory_sources()
    finally:
        await store.close()
    if broken:
        words = ", ".join(f"{name} {rows}" for name, rows in broken.items())
        found.append(Found("database", "error", f"invariants are broken: {words}"))
    else:
        found.append(Found("database", "ok", settings.database_url.partition("://")[0]))
    return [*found, *_directory(settings, sources, datetime.now(UTC))]


def _directory(
    settings: Settings, sources: Mapping[str, Mapping[str, object]], now: datetime
) -> Iterator[Found]:
    """How old the copy is that letters go by; a directory that is asked each time needs no import."""
    asked = any(table.kind in DIRECTORY_KINDS for table in settings.adapters.values())
    if not sources and not asked:
        yield Found(
            "directory", "warning",
            "empty: no doctor is known, so every letter will be held; `relay directory import FILE`",
        )  # fmt: skip
    for name, source in sources.items():
        as_of = source["as_of"]
        assert isinstance(as_of, datetime)  # noqa: S101 - the store's own
        days = (now - as_of).days
        old = name not in settings.adapters and not asked and now - as_of > DIRECTORY_OLD
        text = f"{name}: {source['entries']} people, {days} days old"
        yield Found("directory", "warning" if old else "ok", f"{text}: import it again" if old else text)


def _rules(settings: Settings) -> list[Found]:
    from rules import cases, language, reach

    file = settings.rules
    try:
        text = file.read_bytes()
    except OSError as error:
        return [Found("rules", "error", f"{file} cannot be read ({type(error).__name__})")]
    rules, findings = language.load(text, str(file), ruling.rules_site(settings), settings.language)
    if rules is not None:
        findings = (*findings, *reach.findings(rules))
    beside = Path(cases.tests_beside(str(file)))
    if rules is not None and beside.exists():
        findings = (*findings, *cases.run(rules, beside.read_bytes(), str(beside)).findings)
    lines = [
        Found(
            "rules",
            "error" if each.severity == "error" else "warning",
            each.text(settings.language).split("\n")[0],
        )
        for each in findings
    ]
    return lines or [Found("rules", "ok", str(file))]


def _clock() -> Iterator[Found]:
    now = datetime.now(UTC)
    if now.year < 2025:
        yield Found("clock", "error", f"the machine believes it is {now:%Y-%m-%d}")
    else:
        yield Found("clock", "ok", f"{now:%Y-%m-%d %H:%M} UTC")


async def _online(settings: Settings) -> list[Found]:
    tools = Tools(SystemClock(), settings.state, settings.language, settings.timezone, lambda *_: None)
    adapters = daemon.connect(settings, tools)

    async def one(name: str) -> Found:
        try:
            async with asyncio.timeout(30):
                await adapters[name].probe()
        except Verdict as verdict:
            return Found(f"online {name}", "error", str(verdict), unavailable=True)
        except TimeoutError:
            return Found(f"online {name}", "error", "no answer within 30 s", unavailable=True)
        return Found(f"online {name}", "ok", "connected and authenticated")

    try:
        return list(await asyncio.gather(*(one(name) for name in adapters)))
    finally:
        for adapter in adapters.values():
            await adapter.close()


_PORTS = {"imap": 993, "smtp": 465}
_URLS = {"telegram": "https://api.telegram.org", "annuaire": "https://gateway.api.esante.gouv.fr/fhir/v2"}


def flow_matrix(settings: Settings) -> list[Mapping[str, object]]:
    """Every connection the relay makes or accepts, for a firewall's admin."""
    rows: list[Mapping[str, object]] = []
    row: dict[str, object]
    for name, table in settings.adapters.items():
        raw = table.raw
        if table.kind in _PORTS:
            row = {
                "from": "relay",
                "to": raw.get("host"),
                "port": raw.get("port", _PORTS[table.kind]),
                "protocol": f"{table.kind} ({raw.get('security', 'tls')})",
            }
        elif "listen" in raw:
            host, _, listening = str(raw["listen"]).rpartition(":")
            row = {"from": "hospital", "to": host, "port": int(listening), "protocol": table.kind}
        elif "base_url" in raw or table.kind in _URLS:
            url = urlsplit(str(raw.get("base_url", _URLS.get(table.kind))))
            port = url.port or (80 if url.scheme == "http" else 443)
            row = {"from": "relay", "to": url.hostname, "port": port, "protocol": url.scheme}
        elif "homeserver" in raw:
            row = {
                "from": "relay",
                "to": str(raw["homeserver"]).split("//")[1],
                "port": 443,
                "protocol": "https",
            }
        else:
            continue
        rows.append({**row, "why": name})
    host, port = settings.console
    rows.append({"from": "admins", "to": host, "port": port, "protocol": "http", "why": "console"})
    if settings.gp_page:
        page = {"to": settings.gp_page[0], "port": settings.gp_page[1]}
        rows.append({"from": "reverse proxy", **page, "protocol": "http", "why": "GP page"})
    if settings.database_url.startswith("postgresql"):
        rows.append(
            {"from": "relay", "to": settings.database_url.rpartition("@")[2].partition("/")[0], "port": 5432,
             "protocol": "postgresql", "why": "database"}
        )  # fmt: skip
    return rows
