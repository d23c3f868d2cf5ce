"""The letters that the demo's ward has ready, written for this project.

Built when the demo starts, so that the patients left hospital today. `prepared()` gives them in the order in
which they are shown; each says where it must end.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, make_msgid
from pathlib import Path
from string import Template
from typing import Literal
from xml.sax.saxutils import escape

from anyascii import anyascii

from relay.demo import people
from relay.demo.people import Doctor, Patient
from relay.model import Why

FOLDER = Path(__file__).parent
STORY = (
    "Hospitalisation pour une décompensation cardiaque, sans facteur déclenchant retrouvé.",
    "L'évolution est favorable sous diurétiques, avec une perte de quatre kilos.",
    "À la sortie, la tension est à 128/74 mmHg et la saturation à 97 % en air ambiant.",
    "Retour à domicile. Consultation de contrôle dans quinze jours, bilan sanguin à prévoir d'ici là.",
)

Attachment = tuple[str, bytes, str]  # file name, content, media type


@dataclass(frozen=True, slots=True)
class Letter:
    """One letter in the ward's outbox. `ends`: sent to `gp`, or held for one of `whys`."""

    key: str
    title: str
    hint: str  # what is special about it, for the visitor
    patient: str
    text: str  # what the ward's window shows
    attachments: tuple[str, ...]
    raw: bytes
    message_id: str
    ends: Literal["sent", "held"]
    gp: Doctor | None = None
    urgent: bool = False
    whys: tuple[Why, ...] = ()


def prepared(now: datetime, turn: int = 0) -> tuple[Letter, ...]:
    """The ward's outbox at `now` (aware, local time); another `turn` is about other stays."""
    stay = 4210 + 10 * turn
    return (
        _package(now, stay),
        _plain(now, stay + 1),
        _urgent(now, stay + 2),
        _no_gp(now, stay + 3),
        _homonym(now, stay + 4),
    )


def written(text: str, now: datetime) -> tuple[bytes, str]:
    """A letter that the visitor wrote, as the ward's mail: its bytes and Message-ID."""
    return _mail("Lettre de liaison à la sortie", text, now, ())


def example(now: datetime) -> str:
    """A letter to start from when the visitor writes their own."""
    return _labelled(people.LORIOT, people.AMBRE, now, 9000 + now.minute) + _courtesy(people.LORIOT)


# ------------------------------------------------------------------------------------------------- the five


def _package(now: datetime, stay: int) -> Letter:
    who, gp = people.PERVENCHE, people.AMBRE
    letter = liaison(who, gp, now, stay)
    paper = pdf(["Lettre de liaison à la sortie", who.name, "", *STORY])
    package = xdm(
        who, [("DOC00001.XML", letter, "text/xml"), ("DOC00001.PDF", paper, "application/pdf")], now
    )
    name = f"{now:%Y%m%d}_Lettre de liaison_{who.family}_{who.given[0]}.pdf"
    label = "Lettre de liaison a la sortie d'un etabl"
    subject = f"XDM/1.0/DDM+{label} {anyascii(who.family)} {who.given[0]} {who.born:%d/%m/%Y}"
    text = "Bonjour,\n\nVeuillez trouver ci-joint la lettre de liaison.\n\nService de Cardiologie\n"
    attachments = (("IHE_XDM.zip", package, "application/zip"), (name, paper, "application/pdf"))
    raw, message_id = _mail(subject, text, now, attachments, {"X-MSS-CODECDA": "11490-0", "X-MSS-INS": "N"})
    return Letter("xdm", "Lettre avec son PDF", "écrite par le logiciel", who.name, text,
                  ("IHE_XDM.zip", name), raw, message_id, "sent", gp)  # fmt: skip


def _plain(now: datetime, stay: int) -> Letter:
    who, gp = people.LORIOT, people.AMBRE
    text = _labelled(who, gp, now, stay) + _courtesy(who)
    raw, message_id = _mail("Lettre de liaison à la sortie", text, now, ())
    return Letter("texte", "Simple courriel", "quelques lignes", who.name, text, (),
                  raw, message_id, "sent", gp)  # fmt: skip


def _urgent(now: datetime, stay: int) -> Letter:
    who, gp = people.ORME, people.SAULE
    text = _labelled(who, gp, now, stay, urgency="urgent") + _courtesy(who)
    raw, message_id = _mail("Lettre de liaison à la sortie", text, now, ())
    return Letter("urgente", "Lettre urgente", "à lire aujourd'hui", who.name, text, (),
                  raw, message_id, "sent", gp, urgent=True)  # fmt: skip


def _no_gp(now: datetime, stay: int) -> Letter:
    who = people.TILLEUL
    text = _labelled(who, None, now, stay) + _courtesy(who)
    raw, message_id = _mail("Lettre de liaison à la sortie", text, now, ())
    return Letter("sans-mt", "Sans médecin traitant", "nommé nulle part", who.name, text,
                  (), raw, message_id, "held", whys=(Why.RULE, Why.FLOOR_GP))  # fmt: skip


def _homonym(now: datetime, stay: int) -> Letter:
    who = people.GENET
    text = _labelled(who, None, now, stay, gp_line="Dr Saule") + _courtesy(who)
    raw, message_id = _mail("Lettre de liaison à la sortie", text, now, ())
    return Letter("homonyme", "« Dr Saule » : lequel ?", "ils sont deux", who.name, text, (), raw,
                  message_id, "held", whys=(Why.RULE, Why.FLOOR_GP))  # fmt: skip


# ------------------------------------------------------------------------------------------------ the parts


def _labelled(
    who: Patient,
    gp: Doctor | None,
    now: datetime,
    stay: int,
    *,
    gp_line: str = "",
    urgency: str = "",
) -> str:
    left = now - timedelta(hours=1)
    lines = {
        "Type de document": "Lettre de liaison à la sortie",
        "Patient": f"{who.family} {' '.join(who.given)}",
        "Né(e) le": f"{who.born:%d/%m/%Y}",
        "Sexe": who.sex,
        "Médecin traitant": gp_line or (gp.name if gp else ""),
        "RPPS": gp.rpps if gp else "",
        "Urgence": urgency,
        "Service": "Cardiologie",
        "Date d'entrée": f"{left - timedelta(days=6):%d/%m/%Y}",
        "Date de sortie": f"{left:%d/%m/%Y %H:%M}",
        "N° de séjour": f"S-{now:%Y}-{stay:06d}",
    }
    return "".join(f"{label} : {value}\n" for label, value in lines.items() if value)


def _courtesy(who: Patient) -> str:
    title = "Monsieur" if who.sex == "M" else "Madame"
    story = "\n".join(STORY)
    return f"\nCher confrère,\n\n{title} {who.family} quitte notre service ce jour.\n{story}\n\nBien confraternellement,\n{people.AUTHOR.name}\n"


def liaison(who: Patient, gp: Doctor, now: datetime, stay: int) -> bytes:
    """The CDA R2 level 3 letter (CI-SIS LDL-SES)."""
    left = now - timedelta(hours=1)
    template = Template((FOLDER / "liaison.xml").read_text(encoding="utf-8"))
    fields = {
        "document": f"1.2.250.1.999.1.1.{now:%Y%m%d%H%M%S}.1",
        "set": f"1.2.250.1.999.1.1.{now:%Y%m%d%H%M%S}",
        "written": _time(now),
        "admitted": _time(left - timedelta(days=6)),
        "discharged": _time(left),
        "ins": who.ins,
        "ipp": who.ipp,
        "family": who.family,
        "first": who.given[0],
        "given": " ".join(who.given),
        "sex": who.sex,
        "born": f"{who.born:%Y%m%d}",
        "place": "45234",
        "author_rpps": people.AUTHOR.rpps,
        "author_given": people.AUTHOR.given,
        "author_family": people.AUTHOR.family.upper(),
        "gp_rpps": gp.rpps,
        "gp_given": gp.given,
        "gp_family": gp.family.upper(),
        "stay": f"S-{now:%Y}-{stay:06d}",
    }
    paragraphs = "".join(f"<paragraph>{escape(line)}</paragraph>" for line in STORY)
    return template.substitute(
        {name: escape(value) for name, value in fields.items()}, paragraphs=paragraphs
    ).encode()


def _time(moment: datetime) -> str:
    return f"{moment:%Y%m%d%H%M%S%z}"


def xdm(who: Patient, documents: Sequence[Attachment], now: datetime) -> bytes:
    """IHE_XDM.zip with its metadata (IHE ITI TF-2 3.32)."""
    entry = Template((FOLDER / "entry.xml").read_text(encoding="utf-8"))
    document = f"1.2.250.1.999.1.1.{now:%Y%m%d%H%M%S}"
    entries = "".join(
        entry.substitute(
            id=f"Document{number:02d}",
            number=number,
            type=media_type,
            name=name,
            hash=hashlib.sha1(content).hexdigest(),  # noqa: S324 - the hash that XDM metadata is defined with
            size=len(content),
            written=f"{now:%Y%m%d%H%M%S}",
            ins=who.ins,
            document=document,
        )
        for number, (name, content, media_type) in enumerate(documents, 1)
    )
    metadata = Template((FOLDER / "metadata.xml").read_text(encoding="utf-8"))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("INDEX.HTM", "<html><body>Lettre de liaison</body></html>")
        archive.writestr("README.TXT", "Lettre de liaison, CHR d'Exemple\r\n")
        archive.writestr(
            "IHE_XDM/SUBSET01/METADATA.XML",
            metadata.substitute(entries=entries, written=f"{now:%Y%m%d%H%M%S}"),
        )
        for name, content, _ in documents:
            archive.writestr(f"IHE_XDM/SUBSET01/{name}", content)
    return out.getvalue()


def pdf(lines: Sequence[str]) -> bytes:
    """One A4 page of plain lines, wrapped at 88 characters."""
    wrapped: list[str] = []
    for line in lines:
        words = ""
        for word in line.split(" "):
            if len(words) + len(word) > 88:
                wrapped.append(words)
                words = ""
            words = f"{words} {word}".strip()
        wrapped.append(words)

    def shown(line: str) -> bytes:
        text = line.encode("cp1252", "replace")
        for mark in (b"\\", b"(", b")"):
            text = text.replace(mark, b"\\" + mark)
        return b"(" + text + b") Tj T*\n"

    page = b"BT /F1 11 Tf 16 TL 60 780 Td\n" + b"".join(map(shown, wrapped)) + b"ET"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(page), page),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>",
    ]
    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    places = []
    for number, content in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj%s\nendobj\n" % (number, content)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(out)


def _mail(
    subject: str,
    text: str,
    now: datetime,
    attachments: Sequence[Attachment],
    headers: Mapping[str, str] | None = None,
) -> tuple[bytes, str]:
    message = EmailMessage(policy=SMTP)
    message["From"] = f"Service de Cardiologie <{people.WARD}>"
    message["To"] = people.WATCHED
    message["Subject"] = subject
    message["Date"] = format_datetime(now)
    message_id = make_msgid(domain="chr-exemple.mssante.fr")
    message["Message-ID"] = message_id
    for name, value in (headers or {}).items():
        message[name] = value
    message.set_content(text, cte="quoted-printable")
    for name, content, media_type in attachments:
        main, _, sub = media_type.partition("/")
        message.add_attachment(content, maintype=main, subtype=sub, filename=name)
    return message.as_bytes(), message_id
