"""The demo's configuration: written into a folder of its own and read like any other site's."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

from relay.demo import people
from relay.demo.post import HOST, PASSWORD
from relay.vault import FileKeyRing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import date

    from relay.demo.post import PostOffice

RULES = Path(__file__).resolve().parents[2] / "rules" / "sets" / "demo.yaml"
CHAT = "webchat"  # the adapter's name, which the rules use

PATIENTS = ("ins", "ins_oid", "facility", "local_id", "birth_name", "given_names", "birth_date", "sex", "birth_place", "gp_rpps", "consent", "postcode")  # fmt: skip
DIRECTORY = ("rpps", "family_name", "given_name", "profession", "speciality", "mss_address", "mss_kind", "organisation", "postcode", "phone", "active")  # fmt: skip


def write(folder: Path, office: PostOffice, port: int, today: date) -> Path:
    """Write config.toml, keys and the three CSV files; answers the configuration's path."""
    (folder / "demo.password").write_text(PASSWORD, encoding="utf-8")
    FileKeyRing.create(folder / "state" / "keys.json")
    (folder / "patients.csv").write_text(_csv(PATIENTS, map(_patient, people.PATIENTS)), encoding="utf-8")
    (folder / "directory.csv").write_text(_csv(DIRECTORY, map(_doctor, people.DOCTORS)), encoding="utf-8")
    links = ((doctor.rpps, f"webchat:{doctor.chat}") for doctor in people.DOCTORS)
    (folder / "links.csv").write_text(_csv(("rpps", "channel"), links), encoding="utf-8")
    file = folder / "config.toml"
    file.write_text(_configuration(office, port, today), encoding="utf-8")
    return file


def _configuration(office: PostOffice, port: int, today: date) -> str:
    imap = f"""\
kind = "imap"
host = "{HOST}"
port = {office.imap_port}
security = "none"
password = {{ file = "demo.password" }}
since = "all"
"""
    return f"""\
[relay]
name = "Relais de démonstration"
rules = "{RULES}"
domains = ["*.mssante.fr"]
admins = ["{people.ADMIN}"]

[identity]
test_ins = "accept"

[adapters.cardiologie]
{imap}username = "{people.WATCHED}"
senders = ["*@chr-exemple.mssante.fr"]
receipts = "each"
ward = {{ name = "Cardiologie", slug = "cardiologie", unit = "3021", facility = "{people.FINESS}", \
reply_to = "{people.WARD}", phone = "02 38 00 00 00" }}

[adapters.retours]
{imap}username = "{people.RELAY}"
role = "replies"

[adapters.mss]
kind = "smtp"
host = "{HOST}"
port = {office.smtp_port}
security = "none"
from = "{people.RELAY}"
reply = "relais+{{token}}@{people.RELAY.partition("@")[2]}"

[adapters.{CHAT}]
kind = "webchat"

[chat]
dpo_agreed = "{today.isoformat()}"

[facilities]
"{people.FINESS}" = "CHR d'Exemple"

[desks.sorties]
mail = "{people.DESK}"
phone = "02 38 00 00 01"
facility = "{people.FINESS}"
sees = "document"

[console]
listen = "{HOST}:{port}"
"""


def _patient(who: people.Patient) -> Sequence[str]:
    return (
        who.ins, people.INS_TEST, people.FINESS, who.ipp, who.family, " ".join(who.given), who.born.isoformat(),
        who.sex, "45234", who.gp.rpps if who.gp else "", "allowed", "45000",
    )  # fmt: skip


def _doctor(who: people.Doctor) -> Sequence[str]:
    return (
        who.rpps, who.family.upper(), who.given, "Médecin", "Médecine générale", who.address, "PER",
        f"Cabinet de {who.town}", who.postcode, "02 38 00 00 " + who.rpps[-2:], "true",
    )  # fmt: skip


def _csv(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()
