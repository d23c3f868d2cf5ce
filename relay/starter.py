"""A new site's folder: configuration, rules, keys and database, written once and never over anything."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from relay import config, daemon
from relay.errors import UsageError
from relay.vault import FileKeyRing

SETS = Path(__file__).resolve().parent.parent / "rules" / "sets"


@dataclass(frozen=True, slots=True)
class Answers:
    """What a new site's admin said; the defaults are an invented hospital's, commented out in the file."""

    since: str = "now"
    name: str = "Relais ville-hôpital"
    ward: str = "Cardiologie"
    watched_mail: str = "sorties.cardiologie@chr-exemple.mssante.fr"
    ward_mail: str = "cardiologie@chr-exemple.mssante.fr"
    relay_mail: str = "relais@relais45.mssante.fr"
    imap_host: str | None = None
    smtp_host: str | None = None
    desk_mail: str = "sorties@chr-exemple.mssante.fr"


def configuration(answers: Answers) -> str:
    """The text of config.toml. Adapters are commented out until somebody named their servers."""
    adapters = _ADAPTERS.format(
        since=answers.since,
        imap=answers.imap_host or "imap.operateur.mssante.fr",
        smtp=answers.smtp_host or "smtp.operateur.mssante.fr",
        ward=_quoted(answers.ward),
        slug=_slug(answers.ward),
        watched_mail=answers.watched_mail,
        ward_mail=answers.ward_mail,
        ward_domain=answers.ward_mail.rpartition("@")[2],
        relay_mail=answers.relay_mail,
        relay_user=answers.relay_mail.partition("@")[0],
        relay_domain=answers.relay_mail.rpartition("@")[2],
    )
    if answers.imap_host is None:
        adapters = "".join(
            f"# {line}" if line.strip() else line for line in adapters.splitlines(keepends=True)
        )
    return _HEAD.format(name=_quoted(answers.name), desk_mail=answers.desk_mail) + adapters + _CHAT


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _slug(name: str) -> str:
    from relay.identity import fold

    return "-".join(fold(name).split()) or "service"


async def write(folder: Path, answers: Answers) -> list[Path]:
    """Write the folder and make keys and database. Answers what was written.

    Raises UsageError, before writing anything, when one of the files is there already.
    """
    file, keys, rules = folder / "config.toml", folder / "state" / "keys.json", folder / "rules" / "sets"
    database = folder / "state" / "relay.db"
    for each in (file, keys, database, folder / "rules"):
        if each.exists():
            raise UsageError(f"{each} is there already; nothing was written")
    text = configuration(answers)
    # The secrets' files come later: only the site's own part is read now.
    settings = config.parse(
        text[: text.index("# [adapters" if answers.imap_host is None else "[adapters")], file
    )
    rules.mkdir(parents=True)
    keys.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    written = [file, keys, database]
    for source in sorted(
        each
        for each in SETS.iterdir()
        if each.suffix in (".yaml", ".json") and each.stem.split(".")[0] != "demo"
    ):
        shutil.copyfile(source, rules / source.name)
        written.append(rules / source.name)
    FileKeyRing.create(keys)
    file.write_text(text, encoding="utf-8")
    store = await daemon.open_store(settings)
    await store.close()
    return written


_HEAD = """\
# Relais. Every key is explained in config.example.toml.

[relay]
name = "{name}"
mode = "live"                          # observe: everything decided and shown, nothing leaves
rules = "rules/sets/standard.yaml"
domains = ["*.mssante.fr"]             # no mail leaves for another domain

[desks.sorties]                        # the people who take what nobody took
mail = "{desk_mail}"
sees = "document"

"""

_ADAPTERS = """\
[adapters.{slug}]
kind = "imap"
host = "{imap}"
username = "{watched_mail}"
password = {{ file = "{slug}.password" }}
since = "{since}"                          # which waiting messages are read at the very first start
senders = ["*@{ward_domain}"]
ward = {{ name = "{ward}", slug = "{slug}", facility = "", reply_to = "{ward_mail}" }}

[adapters.retours]
kind = "imap"
role = "replies"
host = "{imap}"
username = "{relay_mail}"
password = {{ file = "relais.password" }}

[adapters.mss]
kind = "smtp"
host = "{smtp}"
port = 465
username = "{relay_mail}"
password = {{ file = "relais.password" }}
from = "{relay_mail}"
reply = "{relay_user}+{{token}}@{relay_domain}"
"""

_CHAT = """
# The doctors' phones. Chat stays off until the data protection officer agreed, and says so here.
# [chat]
# dpo_agreed = "2026-11-01"

# [adapters.telegram]
# kind = "telegram"
# token = { file = "telegram.token" }
"""
