"""A town of invented patients and doctors, and the discharge letters their ward sends.

The same number gives the same letter, byte for byte. Each carries its own stay number (`S000042-…`), by
which the sinks recognise it at the other end.
"""

from __future__ import annotations

import csv
import hashlib
import random
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from functools import cached_property
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

PATIENTS, DOCTORS = 1000, 200
FACILITY = "450000088"
WARD_MAIL = "cardiologie@chr-exemple.mssante.fr"
WATCHED = "sorties.cardio@chr-exemple.mssante.fr"
PDF_BYTES = 148_000  # 200 kB once in base64

Size = Literal["small", "large"]
MARK = re.compile(rb"S\d{6}-[0-9a-f]{6}")

_GIVEN = [
    "Odette",
    "Marcel",
    "Ninon",
    "Gaspard",
    "Élise",
    "Côme",
    "Apolline",
    "Rémi",
    "Josèphe",
    "Léandre",
    "Maïwenn",
    "Anselme",
    "Zélie",
    "Théodore",
]
_FAMILY = [
    "Cormerais",
    "Valbrune",
    "Hautefeuille",
    "Tréguier",
    "Lagarrigue",
    "Quémeneur",
    "Désormeaux",
    "Aubépin",
    "Fontvielle",
    "Maucourant",
    "Çaylar",
]
_SYLLABLES = [
    "bel",
    "cor",
    "dan",
    "fer",
    "gal",
    "lin",
    "mar",
    "nor",
    "pel",
    "rin",
    "sau",
    "tor",
    "vau",
    "zel",
]
_PARAGRAPH = (
    "La patiente ou le patient a été hospitalisé pour une décompensation cardiaque. L'évolution est favorable sous "
    "diurétiques, avec une perte de poids de 4 kg. À la sortie, la tension est à 128/74 mmHg et la saturation "
    "à 97 % en air ambiant. Une consultation de contrôle est prévue dans quinze jours, après un bilan sanguin."
)


@dataclass(frozen=True, slots=True)
class Doctor:
    """A registered GP who does not exist."""

    rpps: str
    family: str
    given: str
    address: str
    chat: str


@dataclass(frozen=True, slots=True)
class Inhabitant:
    """A patient who does not exist; the INS has a right key and a birth place that no town has."""

    ins: str
    family: str
    given: str
    sex: Literal["M", "F"]
    born: date
    place: str
    doctor: Doctor


@dataclass(frozen=True)
class Letter:
    """One letter of the ward: what stands in the mailbox, and where it must end."""

    number: int
    mark: str
    patient: Inhabitant
    content: bytes
    documents: tuple[str, ...]  # SHA-256 of each attachment


class Town:
    """Everybody, made once."""

    @cached_property
    def doctors(self) -> list[Doctor]:
        draw = random.Random(1)
        return [
            Doctor(
                rpps=_luhn(f"1009{number:06d}"),
                family=_family(draw),
                given=draw.choice(_GIVEN),
                address=f"medecin{number:03d}@medecin.mssante.fr",
                chat=str(700_000 + number),
            )
            for number in range(DOCTORS)
        ]

    @cached_property
    def patients(self) -> list[Inhabitant]:
        draw = random.Random(2)
        return [self._patient(number, draw) for number in range(PATIENTS)]

    def _patient(self, number: int, draw: random.Random) -> Inhabitant:
        born = date(1930, 1, 1) + timedelta(days=draw.randrange(30_000))
        sex: Literal["M", "F"] = "MF"[number % 2]  # type: ignore[assignment]  # mypy sees a str
        place = "45990"
        bare = f"{1 + number % 2}{born:%y%m}{place}{number % 999 + 1:03d}"
        return Inhabitant(
            ins=f"{bare}{97 - int(bare) % 97:02d}",
            family=_family(draw),
            given=draw.choice(_GIVEN),
            sex=sex,
            born=born,
            place=place,
            doctor=self.doctors[draw.randrange(DOCTORS)],
        )

    def letter(self, number: int, size: Size) -> Letter:
        """The letter of that number: 5 kB of text, or 200 kB with a PDF that no compression helps."""
        patient = self.patients[number * 37 % PATIENTS]
        mark = f"S{number:06d}-{hashlib.sha256(b'%d' % number).hexdigest()[:6]}"
        sent = datetime(2026, 1, 5, 8, tzinfo=UTC) + timedelta(seconds=number)
        message = EmailMessage(policy=SMTP)
        message["From"] = f"Service de Cardiologie <{WARD_MAIL}>"
        message["To"] = WATCHED
        message["Subject"] = "Lettre de liaison à la sortie"
        message["Date"] = format_datetime(sent)
        message["Message-ID"] = f"<{mark}@chr-exemple.mssante.fr>"
        message.set_content(_text(patient, mark, 11 if size == "small" else 3), cte="quoted-printable")
        documents: tuple[str, ...] = ()
        if size == "large":
            pdf = b"%PDF-1.5\n" + random.Random(number).randbytes(PDF_BYTES - 16) + b"\n%%EOF\n"
            message.add_attachment(pdf, maintype="application", subtype="pdf", filename=f"CR-{mark}.pdf")
            documents = (hashlib.sha256(pdf).hexdigest(),)
        return Letter(number, mark, patient, message.as_bytes(), documents)

    def write_registers(self, folder: Path) -> tuple[Path, Path, Path]:
        """patients.csv, directory.csv and links.csv, as the relay's own commands import them."""
        patients = [
            (p.ins, "1.2.250.1.213.1.4.8", FACILITY, p.family.upper(), p.given, p.born.isoformat(), p.sex, p.place, p.doctor.rpps, "allowed")
            for p in self.patients
        ]  # fmt: skip
        return (
            _write(
                folder / "patients.csv",
                "ins,ins_oid,facility,birth_name,given_names,birth_date,sex,birth_place,gp_rpps,consent",
                patients,
            ),
            _write(
                folder / "directory.csv",
                "rpps,family_name,given_name,profession,speciality,mss_address,mss_kind,active",
                [(d.rpps, d.family, d.given, "10", "SM26", d.address, "PER", "1") for d in self.doctors],
            ),
            _write(
                folder / "links.csv", "rpps,channel", [(d.rpps, f"telegram:{d.chat}") for d in self.doctors]
            ),
        )


def _text(patient: Inhabitant, mark: str, paragraphs: int) -> str:
    lines = [
        ("Type de document", "Lettre de liaison à la sortie"),
        ("Patient", f"{patient.family.upper()} {patient.given}"),
        ("Né(e) le", f"{patient.born:%d/%m/%Y}"),
        ("Sexe", patient.sex),
        ("INS", patient.ins),
        ("Médecin traitant", f"Dr {patient.doctor.given} {patient.doctor.family}"),
        ("RPPS", patient.doctor.rpps),
        ("Service", "Cardiologie"),
        ("Date d'entrée", "28/12/2025 09:30"),
        ("Date de sortie", "05/01/2026 14:00"),
        ("N° de séjour", mark),
    ]
    head = "".join(f"{label} : {value}\n" for label, value in lines)
    body = "\n\n".join([_PARAGRAPH] * paragraphs)
    return f"{head}\nCher confrère,\n\n{body}\n\nBien confraternellement,\nDr Solenn Kerbellec\n"


def _family(draw: random.Random) -> str:
    """Families of two words from a small stock: many share one of them, as in a real town."""
    return f"{draw.choice(_FAMILY)}-{''.join(draw.choices(_SYLLABLES, k=3)).capitalize()}"


def _luhn(digits: str) -> str:
    total = sum(sum(divmod(int(d) * (2 - k % 2), 10)) for k, d in enumerate(reversed(digits)))
    return digits + str(-total % 10)


def _write(file: Path, head: str, rows: Iterable[tuple[str, ...]]) -> Path:
    with file.open("w", newline="", encoding="utf-8") as stream:
        out = csv.writer(stream)
        out.writerow(head.split(","))
        out.writerows(rows)
    return file
