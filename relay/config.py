"""config.toml → frozen settings. Every error names file, line and key, and the nearest known key.

Adapter tables stay raw, with their positions: the daemon and the command line check them against
`adapters.<kind>.Settings`. Secrets are never strings: `{ file = … }`, `{ env = … }`, `{ credential = … }`.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Protocol, TypeVar
from urllib.parse import parse_qsl, urlencode
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from relay.errors import ConfigurationError

SECRET_KEYS = frozenset({"password", "token", "secret", "access_token", "key_password", "api_key"})
PATH_KEYS = frozenset({"ca", "cert", "key", "client_cert", "client_key", "path"})
ROUTING_KEYS = frozenset({"ward", "role", "senders", "receipts", "mode", "from", "reply", "authserv_id"})
"""Keys of an adapter's table that the relay reads itself; the adapter need not know them."""
_INBOXES = ("imap", "mllp", "folder")
_CONCERNS = {
    "ward": _INBOXES, "receipts": _INBOXES, "mode": _INBOXES, "role": ("imap",), "senders": ("imap",),
    "from": ("smtp",), "reply": ("smtp",), "authserv_id": ("smtp", "imap"),
}  # fmt: skip
"""Where each of these says something: a key that nobody reads is a mistake that nobody sees."""

MISSING = "is missing"
UNKNOWN = "unknown key"

M = TypeVar("M", bound=BaseModel)

_DURATION = re.compile(r"(\d+)(s|m|h|d|mo)")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "mo": 30 * 86400}


def duration(text: str) -> timedelta:
    """`90d`, `1h`, `12mo` (a month counts 30 days). Raises ValueError."""
    match = _DURATION.fullmatch(text)
    if not match:
        raise ValueError(f"« {text} » is no duration; write a number and s, m, h, d or mo, such as 90d")
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])


# ------------------------------------------------------------------------------------------------ positions


class Positions:
    """Line numbers of tables and keys of a TOML text, which tomllib does not give."""

    _TABLE = re.compile(r"\s*\[\[?\s*([^\]]+?)\s*\]\]?\s*(#.*)?$")
    _KEY = re.compile(r"""\s*("(?:[^"\\]|\\.)*"|'[^']*'|[A-Za-z0-9_-]+(?:\s*\.\s*[A-Za-z0-9_-]+)*)\s*=""")
    _PART = re.compile(r""""((?:[^"\\]|\\.)*)"|'([^']*)'|([A-Za-z0-9_-]+)""")

    def __init__(self, text: str) -> None:
        self.lines: dict[tuple[str, ...], int] = {}
        table: tuple[str, ...] = ()
        for number, line in enumerate(text.splitlines(), 1):
            if header := self._TABLE.match(line):
                table = self._split(header[1])
                self.lines.setdefault(table, number)
            elif key := self._KEY.match(line):
                self.lines.setdefault(table + self._split(key[1]), number)

    def _split(self, dotted: str) -> tuple[str, ...]:
        return tuple(next(filter(None, part), "") for part in self._PART.findall(dotted))

    def of(self, path: Sequence[str]) -> int:
        """The line of the nearest of the path's parents that has one, else of its first child; 1 when none has."""
        for length in range(len(path), 0, -1):
            if (line := self.lines.get(tuple(path[:length]))) is not None:
                return line
        return min((line for key, line in self.lines.items() if key[:1] == tuple(path[:1])), default=1)


# -------------------------------------------------------------------------------------------------- shapes


def _timezone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError(f"unknown time zone « {name} »")
    return name


def _duration(text: str) -> str:
    duration(text)
    return text


def _listen(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"« {text} » is no address to listen on; write 127.0.0.1:8025")
    return text


def _private(text: str) -> str:
    """The console shows what a hospital's people see: it listens on this machine or in a private network."""
    host = _address(_listen(text))[0]
    if _SHORT.fullmatch(host):
        raise ValueError(f"« {host} » stands for an address that nobody reads in it; write 127.0.0.1:8025")
    if is_public(host):
        raise ValueError(f"« {host} » is a public address; write 127.0.0.1 or one of a private network")
    return text


_SHORT = re.compile(r"(?!\d+(\.\d+){3}$)(0x[0-9a-f]*|\d+)(\.(0x[0-9a-f]*|\d+))*", re.IGNORECASE)
"""What a resolver takes for an address though it is none as people write it: « 0 » is every address there is."""


def is_public(host: str) -> bool:
    """Whether this is an address for everybody; a name is none, the system's resolver says what it stands for."""
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return address.is_unspecified or address.is_global


def _slug(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", text):
        raise ValueError(
            f"« {text} » is no slug; write small letters, digits and hyphens, such as soins-intensifs"
        )
    return text


def is_address(text: str) -> bool:
    """Whether mail can be sent to it."""
    return re.fullmatch(r"[^\s@<>(),;:\"\[\]{}]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*", text) is not None


def _mail(text: str) -> str:
    """Nothing would reach an address that is none, and nobody would hear of it."""
    if not is_address(text):
        raise ValueError(f"« {text} » is no mail address")
    return text


def _reply(text: str) -> str:
    """An address, in whose local part `{token}` may stand."""
    try:
        _mail(text.replace("{token}", "x", 1))
    except ValueError:
        raise ValueError(f"« {text} » is no address such as relais+{{token}}@relais45.mssante.fr") from None
    if "{token}" in text.rpartition("@")[2]:
        raise ValueError("{token} stands before the @")
    if re.search(r"[A-Za-z0-9]\{token\}|\{token\}[A-Za-z0-9]", text):
        raise ValueError("a letter beside {token} would be read as part of it; write relais+{token}@…")
    return text


def _sender(text: str) -> str:
    if not {"@", "*"} & set(text):
        raise ValueError(f"« {text} » is nobody's address; write *@{text} or one address")
    return text


def _domain(text: str) -> str:
    if "@" in text or not text.strip() or " " in text.strip():
        raise ValueError(f"« {text} » is no domain; write mssante.fr or *.mssante.fr")
    if found := re.search(r"\*(?!\.)(.*)", text):
        # Anybody may buy a name that ends so, and letters would leave for it.
        raise ValueError(
            f"« {text} » also names strangers, such as autre{found[1] or '.example'}; write *. before a domain"
        )
    return text


_Mail = Annotated[str, AfterValidator(_mail)]
_Duration = Annotated[str, AfterValidator(_duration)]
_Listen = Annotated[str, AfterValidator(_listen)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Relay(_Table):
    name: str = "Relais"
    language: Literal["fr", "en"] = "fr"
    timezone: Annotated[str, AfterValidator(_timezone)] = "Europe/Paris"
    mode: Literal["live", "observe"] = "live"
    state: str = "state"
    rules: str = "rules/sets/standard.yaml"
    domains: list[Annotated[str, AfterValidator(_domain)]] | dict[str, str] = Field(default_factory=list)
    admins: list[_Mail] = Field(default_factory=list)
    dpo: _Mail | None = None


class _Database(_Table):
    url: str
    password: SecretStr | None = None
    ca: str | None = None
    client_cert: str | None = None
    client_key: str | None = None


class _Keys(_Table):
    file: str = "state/keys.json"


class _Identity(_Table):
    test_ins: Literal["hold", "accept"] = "hold"


def _agreed(value: object) -> object:
    """A date, or nothing: words such as "pending" must not open the chats."""
    if not isinstance(value, str):
        return value
    try:
        return date.fromisoformat(value) if value else None
    except ValueError:
        raise ValueError(
            f"« {value} » is no date; write the day the DPO agreed, such as 2026-11-01"
        ) from None


class _Chat(_Table):
    dpo_agreed: Annotated[date | None, BeforeValidator(_agreed)] = None


class _Delivery(_Table):
    evidence: _Duration = "1h"
    give_up: _Duration = "5d"


class _Console(_Table):
    listen: Annotated[str, AfterValidator(_private)] = "127.0.0.1:8025"


class _GpPage(_Table):
    listen: _Listen = "127.0.0.1:8026"
    public_url: str


class _Retention(_Table):
    content: _Duration = "90d"
    facts: _Duration = "400d"
    audit: _Duration = "12mo"


class _Desk(_Table):
    mail: _Mail
    phone: str | None = None
    facility: str = ""
    sees: Literal["document", "reference"] = "document"


class _Rota(_Table):
    file: str


class _Ward(_Table):
    name: str
    slug: Annotated[str, AfterValidator(_slug)]
    unit: str | None = None
    facility: str = ""
    reply_to: _Mail
    phone: str | None = None


class _Common(BaseModel):
    """The keys of an adapter's table that the relay itself reads."""

    model_config = ConfigDict(strict=True, frozen=True, populate_by_name=True)
    kind: str
    ward: _Ward | None = None
    role: Literal["replies"] | None = None
    senders: list[Annotated[str, AfterValidator(_sender)]] | None = None
    receipts: Literal["each", "problems", "daily"] = "problems"
    mode: Literal["live", "observe"] | None = None
    sender: _Mail | None = Field(default=None, alias="from")
    reply: Annotated[str, AfterValidator(_reply)] | None = None
    authserv_id: str | None = None
    max_bytes: int = 10_485_760
    confidential: bool = False


class _File(_Table):
    relay: _Relay = Field(default_factory=_Relay)
    database: _Database | None = None
    keys: _Keys = Field(default_factory=_Keys)
    identity: _Identity = Field(default_factory=_Identity)
    adapters: dict[str, dict[str, object]] = Field(default_factory=dict)
    smime: dict[str, object] = Field(default_factory=dict)
    chat: _Chat = Field(default_factory=_Chat)
    facilities: dict[str, str] = Field(default_factory=dict)
    desks: dict[str, _Desk] = Field(default_factory=dict)
    rotas: dict[str, _Rota] = Field(default_factory=dict)
    delivery: _Delivery = Field(default_factory=_Delivery)
    console: _Console = Field(default_factory=_Console)
    gp_page: _GpPage | None = None
    retention: _Retention = Field(default_factory=_Retention)


# ------------------------------------------------------------------------------------------------- settings


@dataclass(frozen=True, slots=True)
class Ward:
    """The people behind a watched mailbox, MLLP listener or folder."""

    name: str
    slug: str
    facility: str
    reply_to: str
    adapter: str
    unit: str | None = None
    phone: str | None = None
    receipts: Literal["each", "problems", "daily"] = "problems"


@dataclass(frozen=True, slots=True)
class Desk:
    """The hospital's own people who take what nobody took."""

    name: str
    mail: str
    phone: str | None = None
    facility: str = ""
    sees: Literal["document", "reference"] = "reference"


@dataclass(frozen=True, slots=True)
class AdapterTable:
    """One `[adapters.NAME]`: `raw` is what the adapter's Settings check, secrets and paths resolved."""

    name: str
    kind: str
    raw: Mapping[str, object]
    ward: Ward | None = None
    role: str | None = None
    senders: tuple[str, ...] = ()
    mode: Literal["live", "observe"] = "live"
    sender: str | None = None  # smtp: `from`
    reply: str | None = None  # smtp: template of the reply address
    authserv_id: str | None = None
    max_bytes: int = 10_485_760
    confidential: bool = False


CHAT_KINDS = frozenset({"telegram", "matrix", "webchat"})
DIRECTORY_KINDS = frozenset({"annuaire"})


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration, checked. Paths are absolute; durations are timedeltas."""

    file: Path
    name: str
    language: Literal["fr", "en"]
    timezone: str
    mode: Literal["live", "observe"]
    state: Path
    rules: Path
    domains: tuple[str, ...]
    admins: tuple[str, ...]
    dpo: str | None
    database_url: str
    database_password: SecretStr | None
    keys_file: Path
    test_ins: Literal["hold", "accept"]
    adapters: Mapping[str, AdapterTable]
    chat_agreed: str | None
    facilities: Mapping[str, str]
    desks: Mapping[str, Desk]
    rotas: Mapping[str, Path]
    evidence: timedelta
    give_up: timedelta
    console: tuple[str, int]
    gp_page: tuple[str, int, str] | None
    keep_content: timedelta
    keep_facts: timedelta
    keep_audit: timedelta
    smime: Mapping[str, object] = field(default_factory=dict)  # what adapters.smime's Settings check
    positions: Positions | None = field(default=None, compare=False, repr=False)
    secret_files: tuple[Path, ...] = ()  # passwords and private keys that stand in files

    @property
    def zone(self) -> ZoneInfo:
        """The site's time zone."""
        return ZoneInfo(self.timezone)

    @property
    def wards(self) -> Mapping[str, Ward]:
        """By slug."""
        return {table.ward.slug: table.ward for table in self.adapters.values() if table.ward}

    @property
    def mail(self) -> AdapterTable | None:
        """The adapter that mail leaves by: the first of kind smtp."""
        return next((table for table in self.adapters.values() if table.kind == "smtp"), None)

    def error(self, path: Sequence[str], text: str) -> ConfigurationError:
        """An error at a key of this file, for checks that live elsewhere."""
        line = self.positions.of(path) if self.positions else 0
        return ConfigurationError(text, file=str(self.file), line=line, key=".".join(path))


def read(file: Path) -> Settings:
    """Read and check a configuration file.

    Raises ConfigurationError: one line with file, line, key and what to do.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigurationError(
            "no such file; `relay init DIR` writes one, or name yours with --config", file=str(file)
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot be read ({type(error).__name__})", file=str(file)) from None
    return parse(text, file)


def parse(text: str, file: Path) -> Settings:
    """Check the text of a configuration; `file` gives the folder that relative paths count from."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        words = str(error).partition(" (at")[0]
        if words == "Invalid value":
            words += "; a string stands in quotes"
        raise ConfigurationError(
            f"no valid TOML: {words}", file=str(file), line=int(found[1]) if found else 1
        ) from None
    except RecursionError:
        raise ConfigurationError("nested too deeply for a configuration", file=str(file), line=1) from None
    positions = Positions(text)
    folder = file.resolve().parent
    reader = _Reader(file, folder, positions)
    reader.secrets(tree, ())
    checked = reader.check(_File, tree, ())
    return reader.settings(checked)


class _Reader:
    """One pass over one file; knows where everything stands."""

    def __init__(self, file: Path, folder: Path, positions: Positions) -> None:
        self.file, self.folder, self.positions = file, folder, positions
        self.secret_files: list[Path] = []

    def error(self, path: Sequence[str], text: str) -> ConfigurationError:
        return ConfigurationError(
            text, file=str(self.file), line=self.positions.of(path), key=".".join(map(str, path))
        )

    def secrets(self, tree: dict[str, object], path: tuple[str, ...]) -> None:
        """Replace `{ file = … }` and its like by the secret itself; refuse one that stands in the file."""
        for key, value in tree.items():
            here = (*path, key)
            if key in SECRET_KEYS and path and path[0] in ("adapters", "database", "smime"):
                if not isinstance(value, dict) or len(value) != 1:
                    raise self.error(
                        here,
                        "a secret never stands in this file; write "
                        '{ file = "…" }, { env = "NAME" } or { credential = "NAME" }',
                    )
                tree[key] = self.secret(here, value)
            elif isinstance(value, dict):
                self.secrets(value, here)

    def secret(self, path: tuple[str, ...], table: Mapping[str, object]) -> SecretStr:
        """Read one secret. Raises ConfigurationError when it is missing or empty."""
        (source, name), *_ = table.items()
        if not isinstance(name, str) or not name:
            raise self.error(path, f"`{source}` must name something")
        if source == "env":
            value = os.environ.get(name)
            if value is None:
                raise self.error(path, f"the environment variable {name} is not set")
        elif source in ("file", "credential"):
            if source == "credential":
                folder = os.environ.get("CREDENTIALS_DIRECTORY")
                if not folder:
                    raise self.error(path, "no systemd credentials here (CREDENTIALS_DIRECTORY is not set)")
                place = Path(folder) / name
            else:
                place = self.folder / name
                self.secret_files.append(place)
            try:
                value = place.read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                reason = type(error).__name__
                raise self.error(path, f"the secret's file {name} cannot be read ({reason})") from None
        else:
            raise self.error(path, f"unknown source « {source} »; known are file, env, credential")
        if not value:
            raise self.error(path, "the secret is empty")
        return SecretStr(value)

    def check(self, model: type[M], tree: object, path: tuple[str, ...]) -> M:
        """Validate, or raise the first error in the order of the file."""
        try:
            return model.model_validate(tree)
        except ValidationError as error:
            raise first([self.translate(model, path, dict(item)) for item in error.errors()]) from None

    def translate(
        self, model: type[BaseModel], path: tuple[str, ...], item: dict[str, object]
    ) -> ConfigurationError:
        """One pydantic error as one line of ours."""
        return translate(model, path, item, self.error)

    def settings(self, tree: _File) -> Settings:
        relay = tree.relay
        adapters = {name: self.adapter(name, table, relay.mode) for name, table in tree.adapters.items()}
        self.wards_are_distinct(adapters)
        state = self.folder / relay.state
        url = tree.database.url if tree.database else f"sqlite:///{state / 'relay.db'}"
        if tree.database:
            url = self.database(tree.database)
        agreed = tree.chat.dpo_agreed
        return Settings(
            file=self.file,
            name=relay.name,
            language=relay.language,
            timezone=relay.timezone,
            mode=relay.mode,
            state=state,
            rules=self.folder / relay.rules,
            domains=self.domains(relay.domains),
            admins=tuple(relay.admins),
            dpo=relay.dpo,
            database_url=url,
            database_password=tree.database.password if tree.database else None,
            keys_file=self.folder / tree.keys.file,
            test_ins=tree.identity.test_ins,
            adapters=adapters,
            chat_agreed=str(agreed) if agreed else None,
            facilities=tree.facilities,
            desks={
                name: Desk(name, desk.mail, desk.phone, desk.facility, desk.sees)
                for name, desk in tree.desks.items()
            },
            rotas={name: self.folder / rota.file for name, rota in tree.rotas.items()},
            evidence=duration(tree.delivery.evidence),
            give_up=duration(tree.delivery.give_up),
            console=_address(tree.console.listen),
            gp_page=(*_address(tree.gp_page.listen), tree.gp_page.public_url) if tree.gp_page else None,
            keep_content=duration(tree.retention.content),
            keep_facts=duration(tree.retention.facts),
            keep_audit=duration(tree.retention.audit),
            smime={
                key: str(self.folder / value) if isinstance(value, str) else value
                for key, value in tree.smime.items()
            },
            positions=self.positions,
            secret_files=(*self.secret_files, *self.private_keys(tree)),
        )

    def private_keys(self, tree: _File) -> Iterator[Path]:
        """The files of keys; a certificate named without its key holds it too."""
        tables = [*tree.adapters.values(), tree.smime]
        pairs = (("client_key", "client_cert"), ("key", "cert"))
        named = [table.get(key, table.get(both)) for table in tables for key, both in pairs]
        if tree.database:
            named.append(tree.database.client_key or tree.database.client_cert)
        yield from (self.folder / each for each in dict.fromkeys(named) if isinstance(each, str))

    def database(self, table: _Database) -> str:
        """SQLite paths count from the file's folder; a password may not stand in the URL."""
        url = table.url
        files = {"sslrootcert": table.ca, "sslcert": table.client_cert, "sslkey": table.client_key}
        tls = {name: str(self.folder / file) for name, file in files.items() if file}
        if url.startswith("sqlite:///"):
            if tls:
                raise self.error(("database",), "ca, client_cert and client_key concern PostgreSQL")
            return f"sqlite:///{self.folder / url.removeprefix('sqlite:///')}"
        if not url.startswith("postgresql://"):
            raise self.error(("database", "url"), "write sqlite:///FILE or postgresql://USER@HOST/NAME")
        place, _, query = url.removeprefix("postgresql://").partition("?")
        said = [name.lower() for name, _ in parse_qsl(query, keep_blank_values=True)]
        # A password may hold a slash: what stands before the last @ is no host.
        if ("@" in place and ":" in place.rpartition("@")[0]) or {"password", "sslpassword"} & {*said}:
            raise self.error(
                ("database", "url"), 'take the password out of the URL; write password = { env = "NAME" }'
            )
        return f"{url}{'&' if query else '?'}{urlencode(tls)}" if tls else url

    def domains(self, value: list[str] | dict[str, str]) -> tuple[str, ...]:
        if isinstance(value, list):
            return tuple(domain.lower() for domain in value)
        if set(value) != {"file"}:
            raise self.error(("relay", "domains"), 'write a list, or { file = "…" }')
        try:
            lines = (self.folder / value["file"]).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise self.error(
                ("relay", "domains"), f"the file cannot be read ({type(error).__name__})"
            ) from None
        said = [line.strip().lower() for line in lines if line.strip() and not line.strip().startswith("#")]
        for domain in said:
            try:
                _domain(domain)
            except ValueError as error:
                raise self.error(("relay", "domains"), str(error)) from None
        return tuple(said)

    def adapter(self, name: str, table: dict[str, object], mode: Literal["live", "observe"]) -> AdapterTable:
        path = ("adapters", name)
        if not isinstance(table, dict):
            raise self.error(path, "must be a table")
        if "kind" not in table:
            raise self.error(path, f"`kind` is missing; known are {', '.join(known_kinds())}")
        kind = table["kind"]
        if kind not in known_kinds():
            raise self.error((*path, "kind"), f"unknown kind « {kind} »{_nearest(str(kind), known_kinds())}")
        for key in table:
            if kind not in (concerned := _CONCERNS.get(key, (kind,))):
                raise self.error(
                    (*path, key), f"unknown key « {key} »: it concerns kind {_either(concerned)}"
                )
        common = self.check(_Common, {k: v for k, v in table.items() if k in _COMMON_KEYS}, path)
        if kind == "imap" and (common.ward is None) == (common.role is None):
            raise self.error(path, 'an imap adapter has either `ward` or `role = "replies"`')
        if common.ward is None and common.senders:
            raise self.error((*path, "senders"), "`senders` concerns a ward's mailbox only")
        raw = {
            key: str(self.folder / value) if key in PATH_KEYS and isinstance(value, str) else value
            for key, value in table.items()
            if key != "kind"
        }
        ward = None
        if common.ward:
            ward = Ward(
                name=common.ward.name,
                slug=common.ward.slug,
                facility=common.ward.facility,
                reply_to=common.ward.reply_to.lower(),
                adapter=name,
                unit=common.ward.unit,
                phone=common.ward.phone,
                receipts=common.receipts,
            )
        return AdapterTable(
            name=name,
            kind=str(kind),
            raw=raw,
            ward=ward,
            role=common.role,
            senders=tuple(sender.lower() for sender in common.senders or ()),
            mode="observe" if "observe" in (mode, common.mode) else "live",
            sender=common.sender,
            reply=common.reply,
            authserv_id=common.authserv_id,
            max_bytes=common.max_bytes,
            confidential=common.confidential,
        )

    def wards_are_distinct(self, adapters: Mapping[str, AdapterTable]) -> None:
        seen: dict[str, Ward] = {}
        for table in adapters.values():
            if table.ward is None:
                continue
            other = seen.setdefault(table.ward.slug, table.ward)
            if (other.name, other.reply_to) != (table.ward.name, table.ward.reply_to):
                raise self.error(
                    ("adapters", table.name, "ward"),
                    f"the slug « {table.ward.slug} » names another ward already",
                )


def complete(settings: Settings, table: AdapterTable) -> None:
    """What a table must say beside what its adapter asks for. Raises ConfigurationError."""
    if table.kind == "smtp" and not table.sender:
        raise settings.error(("adapters", table.name, "from"), f"{MISSING}: whom mail leaves from")
    if table.kind in ("mllp", "folder") and table.ward is None:
        raise settings.error(("adapters", table.name, "ward"), f"{MISSING}: whose letters come this way")


_COMMON_KEYS = {field.alias or name for name, field in _Common.model_fields.items()}


def known_kinds() -> tuple[str, ...]:
    """Every `kind` there is: the modules of `adapters/` but two. Nothing is registered anywhere."""
    folder = Path(__file__).resolve().parent.parent / "adapters"
    return tuple(
        sorted(
            module.stem
            for module in folder.glob("*.py")
            if module.stem not in ("__init__", "memory", "smime")  # for tests; the table [smime]
        )
    )


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    return host.strip("[]"), int(port)


def _either(kinds: Sequence[str]) -> str:
    """`imap, mllp or folder`."""
    return " or ".join(filter(None, (", ".join(kinds[:-1]), kinds[-1])))


def _nearest(word: str, known: Sequence[str]) -> str:
    """« . Did you mean X? » or the list of what there is."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean « {close[0]} »?"
    return f"; known are {', '.join(sorted(known))}" if known else ""


def first(errors: Sequence[ConfigurationError]) -> ConfigurationError:
    """The error to show of several: the first in the file; in one table a wrong key says more than a missing one."""
    wrong = {each.key.rpartition(".")[0] for each in errors if each.text.startswith(UNKNOWN)}
    told = [each for each in errors if each.text != MISSING or each.key.rpartition(".")[0] not in wrong]
    return min(told, key=lambda each: (each.line, each.text == MISSING))


_WRITE = {
    "string_type": 'write a string, in quotes: "…"',
    "list_type": 'write a list: ["…", "…"]',
    "int_type": "write an integer, without quotes",
    "bool_type": "write true or false, without quotes",
    "dict_type": "write a table: { key = … }",
    "model_type": "write a table: { key = … }",
}
"""Pydantic's words for people who never saw a type."""


class Located(Protocol):
    """Makes an error at a key of the file."""

    def __call__(self, path: Sequence[str], text: str) -> ConfigurationError:
        """The error, with the line of `path`."""


def translate(
    model: type[BaseModel],
    path: tuple[str, ...],
    item: Mapping[str, object],
    error: Located,
) -> ConfigurationError:
    """A pydantic error as a ConfigurationError made by `error(path, text)`; never quotes the value of a secret."""
    places = item["loc"]
    assert isinstance(places, tuple)  # noqa: S101 - pydantic's shape
    location = tuple(str(part) for part in places if not _is_union_mark(part))
    here = (*path, *location)
    kind = str(item["type"])
    if kind == "extra_forbidden":
        known = _keys_at(model, location[:-1])
        if path[:1] == ("adapters",) and len(location) == 1:  # those that the relay reads itself
            known = (*known, *sorted({*ROUTING_KEYS, "kind"} - {*known}))
        text = f"{UNKNOWN} « {location[-1]} »{_nearest(location[-1], known)}"
    elif kind == "missing":
        text = MISSING
    elif kind in _WRITE:
        text = _WRITE[kind]
    else:
        text = str(item["msg"]).removeprefix("Value error, ")
        verb = "write" if kind == "literal_error" else "must be"
        text = re.sub("^Input should be", verb, text)
    return error(here, text)


def _is_union_mark(part: object) -> bool:
    """Pydantic names the branch of a union in the location; people do not."""
    return isinstance(part, str) and ("[" in part or part in ("str", "dict", "list", "date"))


def _keys_at(model: type[BaseModel], location: Sequence[str]) -> tuple[str, ...]:
    """The keys a table may have, at a place below `model`."""
    current: object = model
    for part in location:
        fields = getattr(current, "model_fields", None)
        if fields is None:  # a dict of tables: the part is a name that somebody gave
            current = _table_in(current)
        elif part not in fields:
            return ()
        else:
            annotation = fields[part].annotation
            current = annotation if getattr(annotation, "__origin__", None) is dict else _table_in(annotation)
    fields = getattr(current, "model_fields", None)
    return tuple(field.alias or name for name, field in fields.items()) if fields else ()


def _table_in(annotation: object) -> object:
    """The table's model in `Model`, `Model | None` or `dict[str, Model]`."""
    known = (annotation, *getattr(annotation, "__args__", ()))
    return next((each for each in known if hasattr(each, "model_fields")), None)
