"""Mails as wards write them: other words, other order, other programs, and what a careful reader finds in each.

    MAILS    every mail by its name: the text as the ward typed it, the program that sent it, and its truth
    full()   a truth with its unsaid fields left out, as `relay recognise --json` is compared with it

Nobody here exists; the INS are of the test OID. A truth names every field that is there: what it does not name
must be null. `python -m tests.letters DIR` writes them as files.
"""

from __future__ import annotations

import base64
import quopri
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from email.header import Header
from html import escape
from typing import Any

from relay.model import Patient, Person
from tests.letters import (
    AUTHOR,
    DUPONT,
    DURAND,
    INS_TEST,
    MARTIN,
    ODETTE,
    RELAY_IN,
    doctor,
    ins_of,
    patient,
)

Json = dict[str, Any]  # Any: the shape of `relay recognise --json`

LUCIEN = patient(
    "PELLERIN", "Lucien", born=date(1939, 5, 2), sex="M", place="18033", order=11, ipp="900020001"
)
SOLANGE = patient("TAVERNIER", "Solange", "Berthe", used_name="BRISSEAU", born=date(1952, 11, 30), place="37261",
                  order=42, ipp="900020002")  # fmt: skip
YANN = patient("LE GOFF", "Yann", born=date(1971, 7, 14), sex="M", place="29232", order=5, ipp="900020003")
ANGELE = patient("SANTONI", "Angèle", born=date(1960, 8, 9), place="2A004", order=18, ipp="900020004")
HUGUES = patient(
    "D'ARVOR", "Jean-Hugues", born=date(1964, 1, 31), sex="M", place="45147", order=90, ipp="900020005"
)
NINON = patient("ŒUVRARD", "Ninon", "Zoé", born=date(1987, 2, 6), place="45234", order=61, ipp="900020006")

LE_BIHAN = doctor("Le Bihan", "Gwenaël", 60)
TESSIER = doctor("Tessier", "Claire", 61)
OUDINOT = doctor("Oudinot", "Marc", 62)


# ------------------------------------------------------------------------------------------------- the programs


def _head(subject: str, sender: str, lines: str, *, coding: str = "q", message_id: str) -> bytes:
    if coding == "raw":
        title = subject
    elif coding == "b":
        title = f"=?utf-8?B?{base64.b64encode(subject.encode()).decode()}?="
    else:
        title = Header(
            subject, "iso-8859-1" if coding == "latin" else "utf-8", header_name="Subject"
        ).encode()
    return (
        f"From: {sender}\nTo: {RELAY_IN}\nSubject: {title}\nDate: Tue, 01 Dec 2026 16:12:44 +0100\n"
        f"Message-ID: <{message_id}@chr-exemple.mssante.fr>\nMIME-Version: 1.0\n{lines}"
    ).encode("latin-1" if coding == "raw" else "ascii")


def _packed(text: str, coding: str, charset: str) -> bytes:
    raw = text.encode(charset)
    if coding == "base64":
        return base64.encodebytes(raw)
    return quopri.encodestring(raw) if coding == "quoted-printable" else raw


def _plain(charset: str = "utf-8", coding: str = "quoted-printable", said: str | None = None) -> str:
    return f"Content-Type: text/plain; charset={said or charset}\nContent-Transfer-Encoding: {coding}\n"


def _both(text: str, html: str, charset: str, coding: str, boundary: str) -> bytes:
    return b"".join((
        f"\n--{boundary}\n{_plain(charset, coding)}\n".encode(), _packed(text, coding, charset),
        f"\n--{boundary}\n{_plain(charset, coding).replace('plain', 'html')}\n".encode(), _packed(html, coding, charset),
        f"\n--{boundary}--\n".encode(),
    ))  # fmt: skip


Program = Callable[["WardMail"], bytes]


def outlook(mail: WardMail) -> bytes:
    """Outlook: HTML alone, a paragraph for each line, windows-1252; HTML that the mail brings goes in as it is."""
    body = mail.text if "<table" in mail.text else "".join(
        f'<p class=MsoNormal>{escape(line, quote=False).replace(" :", "&nbsp;:") or "&nbsp;"}<o:p></o:p></p>\n'
        for line in mail.text.split("\n")
    )  # fmt: skip
    html = (
        '<html xmlns:o="urn:schemas-microsoft-com:office:office"><head><meta name=Generator content="Microsoft Word 15">\n'
        "<!--[if gte mso 9]><xml><o:shapedefaults/></xml><![endif]--><style><!-- p.MsoNormal {margin:0cm} --></style></head>\n"
        f'<body lang=FR link="#0563C1"><div class=WordSection1>\n{body}</div></body></html>\n'
    )
    head = 'X-Mailer: Microsoft Outlook 16.0\nContent-Type: text/html; charset="windows-1252"\nContent-Transfer-Encoding: quoted-printable\n\n'
    return _head(mail.subject, mail.sender, head, coding="latin", message_id=mail.name) + _packed(html, "quoted-printable", "cp1252")  # fmt: skip


def thunderbird(mail: WardMail) -> bytes:
    """Thunderbird: plain text, UTF-8 as it is, lines broken softly at 72 characters (RFC 3676)."""
    lines = []
    for line in mail.text.split("\n"):
        while len(line) > 72 and " " in line[1:72]:
            cut = line.rindex(" ", 1, 72)
            lines.append(line[: cut + 1])
            line = line[cut + 1 :]
        lines.append(line)
    head = "User-Agent: Mozilla Thunderbird\nContent-Type: text/plain; charset=UTF-8; format=flowed\nContent-Transfer-Encoding: 8bit\nContent-Language: fr\n\n"
    return _head(mail.subject, mail.sender, head, message_id=mail.name) + "\n".join(lines).encode()


def latin1(mail: WardMail) -> bytes:
    """An old program: ISO-8859-1 bytes, also in the subject, which nothing declares."""
    head = _plain("iso-8859-1", "8bit") + "\n"
    return _head(mail.subject, mail.sender, head, coding="raw", message_id=mail.name) + mail.text.encode(
        "latin-1", "replace"
    )


def undeclared(mail: WardMail) -> bytes:
    """A script of the hospital's: windows-1252 bytes and no charset at all."""
    return _head(mail.subject, mail.sender, "\n", message_id=mail.name) + mail.text.encode("cp1252")


def liar(mail: WardMail) -> bytes:
    """It says US-ASCII and sends UTF-8."""
    head = _plain("utf-8", "8bit", said="us-ascii") + "\n"
    return _head(mail.subject, mail.sender, head, coding="b", message_id=mail.name) + mail.text.encode()


def export(mail: WardMail) -> bytes:
    """The hospital system's own mailer: Latin-1 in base64, CRLF."""
    head = "X-Mailer: HIS export 4.2\n" + _plain("iso-8859-15", "base64") + "\n"
    text = mail.text.replace("\n", "\r\n")
    return _head(mail.subject, mail.sender, head, coding="latin", message_id=mail.name) + _packed(
        text, "base64", "iso-8859-15"
    )


def zimbra(mail: WardMail) -> bytes:
    """Zimbra: text and HTML, a div for each line."""
    html = "<html><body><div style=\"font-family: arial\">" + "".join(
        f"<div>{escape(line, quote=False) or '<br />'}</div>" for line in mail.text.split("\n")
    ) + "</div></body></html>"  # fmt: skip
    head = 'X-Mailer: Zimbra 8.8.15 (ZimbraWebClient - GC)\nContent-Type: multipart/alternative; boundary="=_zimbra-1"\n'
    return _head(mail.subject, mail.sender, head, coding="b", message_id=mail.name) + _both(
        mail.text, html, "utf-8", "quoted-printable", "=_zimbra-1"
    )


def apple(mail: WardMail) -> bytes:
    """Apple Mail: text and HTML, no-break spaces, typographic apostrophes."""
    text = mail.text.replace(" :", "\u00a0:").replace("'", "’")
    lines = '<br class="">'.join(escape(line, quote=False) for line in text.split("\n"))
    html = f'<html><body style="word-wrap: break-word;">{lines}</body></html>'
    head = 'X-Mailer: Apple Mail (2.3654.120.0.1.15)\nContent-Type: multipart/alternative;\n\tboundary="Apple-Mail=_7F"\n'
    return _head(mail.subject, mail.sender, head, message_id=mail.name) + _both(
        text, html, "utf-8", "quoted-printable", "Apple-Mail=_7F"
    )


def iphone(mail: WardMail) -> bytes:
    """A telephone: UTF-8 in base64, its own signature below."""
    head = "X-Mailer: iPhone Mail (21F90)\n" + _plain("utf-8", "base64") + "\n"
    return _head(mail.subject, mail.sender, head, coding="b", message_id=mail.name) + _packed(
        f"{mail.text}\nEnvoyé de mon iPhone\n", "base64", "utf-8"
    )


def webmail(mail: WardMail) -> bytes:
    """A webmail: quoted-printable HTML and text, the signature of who writes and the hospital's disclaimer."""
    foot = (
        f"-- \nDr Solenn Kerbellec\nService de cardiologie - Poste 4217\nRPPS : {AUTHOR.rpps}\n\n"
        "Ce message et ses pièces jointes sont confidentiels et destinés à leur seul destinataire. Si vous le recevez\n"
        "par erreur, merci de le détruire et d'en avertir l'expéditeur : dsi@chr-exemple.mssante.fr\n"
        "This message is confidential. Recipient: if you are not the intended recipient, please delete it.\n"
    )
    text = f"{mail.text}\n{foot}"
    html = (
        "<html><body>"
        + "".join(f"{escape(line, quote=False)}<br>\n" for line in text.split("\n"))
        + "</body></html>"
    )
    head = 'User-Agent: Roundcube Webmail/1.6.6\nContent-Type: multipart/alternative; boundary="=_rc"\n'
    return _head(mail.subject, mail.sender, head, message_id=mail.name) + _both(
        text, html, "utf-8", "quoted-printable", "=_rc"
    )


def attached(mail: WardMail) -> bytes:
    """The letter sent on as a whole message by the ward's secretary."""
    inner = thunderbird(mail).replace(b"Subject: ", b"X-Old: 1\nSubject: ", 1)
    head = 'Content-Type: multipart/mixed; boundary="=_fw"\n'
    return (
        _head("TR: " + mail.subject, mail.sender, head, message_id=f"{mail.name}.fw")
        + f"\n--=_fw\n{_plain()}\nPour le relais, merci.\n\n--=_fw\nContent-Type: message/rfc822\n\n".encode()
        + inner
        + b"\n--=_fw--\n"
    )


# ---------------------------------------------------------------------------------------------------- the truths


@dataclass(frozen=True, slots=True)
class WardMail:
    """One mail of a ward: what was typed, by which program, and what stands in it."""

    name: str
    subject: str
    text: str
    program: Program
    truth: Json
    sender: str = "Service de cardiologie <cardiologie@chr-exemple.mssante.fr>"

    @property
    def raw(self) -> bytes:
        """The mail as it arrives, CRLF at the line ends."""
        return re.sub(rb"\r?\n", b"\r\n", self.program(self))


def person(who: Patient, says: str, **other: object) -> Json:
    """The truth of a patient of whom a mail `says` these words; `other` where it says something else."""
    every: Json = {
        "ins": who.ins, "oid": INS_TEST, "key": True, "birth": who.birth_name, "used": who.used_name,
        "first": list(who.given_names[:1]), "given": list(who.given_names), "sex": who.sex,
        "born": who.birth_date.isoformat() if who.birth_date else None, "place": who.birth_place,
        "ipp": [{"system": None, "value": who.local_ids[0].value}],
    }  # fmt: skip
    names = {"oid": "ins_oid", "key": "ins_key_valid", "birth": "birth_name", "used": "used_name", "first": "given_names",
             "given": "given_names", "born": "birth_date", "place": "birth_place", "ipp": "local_ids"}  # fmt: skip
    return {names.get(word, word): every[word] for word in says.split()} | other


def gp(who: Person, says: str = "family given rpps", **other: object) -> Json:
    """The truth of a registered GP."""
    every = {"family": who.family_name, "given": who.given_name, "rpps": who.rpps, "mss": who.mss_address}
    names = {"family": "family_name", "given": "given_name", "mss": "mss_address"}
    return {names.get(word, word): every[word] for word in says.split()} | other


def notice(event: str = "discharge", document: str = "letter", **said: object) -> Json:
    """The truth of a mail that is a notice."""
    return {"outcome": "notice", "format": "text", "event": event, "document": document, **said}


def held(why: str, **said: object) -> Json:
    """The truth of a mail that a person must look at."""
    return {"outcome": "unclear", "why": why, **said}


def full(value: object) -> object:
    """Without what is null or empty: both sides are compared so."""
    if isinstance(value, dict):
        kept = {name: full(inner) for name, inner in value.items()}
        return {name: inner for name, inner in kept.items() if inner not in (None, [], {}, "")}
    return [full(inner) for inner in value] if isinstance(value, list) else value


WHOLE = "ins oid key birth used given sex born"

MAILS: dict[str, WardMail] = {
    mail.name: mail
    for mail in (
        # ------------------------------------------------------------------------- the same letter, other programs
        WardMail("outlook_paragraphs", "Lettre de liaison", f"""\
Bonjour,
Veuillez trouver ci-dessous la lettre de liaison de notre patiente.

Nom de naissance : CORMERAIS
Nom d'usage : VALBRUNE
Prénoms : Odette Marie-Louise
Date de naissance : 17/03/1948
Sexe : F
INS : {ODETTE.ins} (OID {INS_TEST})
Médecin traitant : Dr Camille MARTIN
RPPS : {MARTIN.rpps}
Service : Cardiologie
Date d'entrée : 23/11/2026
Date de sortie : 01/12/2026 à 14h00

Cordialement,
Le secrétariat
""", outlook, notice(
            patient=person(ODETTE, WHOLE), registered_gp=gp(MARTIN, family_name="MARTIN"),
            stay={"admitted": "2026-11-23", "discharged": "2026-12-01T14:00:00+01:00", "ward": "Cardiologie"})),
        WardMail("outlook_table", "Sortie d'hospitalisation", f"""\
<p class=MsoNormal>Bonjour,</p>
<table class=MsoTableGrid border=1 cellspacing=0><tbody>
<tr><td><p class=MsoNormal><b>Nom de naissance</b></p></td><td><p class=MsoNormal>PELLERIN</p></td></tr>
<tr><td><p class=MsoNormal><b>Pr&eacute;nom</b></p></td><td><p class=MsoNormal>Lucien</p></td></tr>
<tr><td><p class=MsoNormal><b>N&eacute; le</b></p></td><td><p class=MsoNormal>02/05/1939</p></td></tr>
<tr><td><p class=MsoNormal><b>Sexe</b></p></td><td><p class=MsoNormal>Masculin</p></td></tr>
<tr><td><p class=MsoNormal><b>INS</b></p></td><td><p class=MsoNormal>{LUCIEN.ins}</p></td></tr>
<tr><td><p class=MsoNormal><b>M&eacute;decin traitant</b></p></td><td><p class=MsoNormal>Dr Alix Dupont</p></td></tr>
<tr><td><p class=MsoNormal><b>RPPS</b></p></td><td><p class=MsoNormal>{DUPONT.rpps}</p></td></tr>
<tr><td><p class=MsoNormal><b>Date de sortie</b></p></td><td><p class=MsoNormal>01/12/2026</p></td></tr>
</tbody></table><p class=MsoNormal>Bien &agrave; vous</p>
""", outlook, notice(
            patient=person(LUCIEN, "ins key birth given sex born"), registered_gp=gp(DUPONT),
            stay={"discharged": "2026-12-01"})),
        WardMail("outlook_wide_table", "Avis de sortie", f"""\
<table><tr><td>Nom</td><td>LE GOFF</td><td>Pr&eacute;nom</td><td>Yann</td></tr>
<tr><td>Date de naissance</td><td>14/07/1971</td><td>Sexe</td><td>M</td></tr>
<tr><td>M&eacute;decin traitant</td><td>Dr Gwena&euml;l LE BIHAN</td><td>RPPS</td><td>{LE_BIHAN.rpps}</td></tr>
<tr><td>Entr&eacute;e le</td><td>28/11/2026</td><td>Sortie le</td><td>01/12/2026</td></tr></table>
""", outlook, notice(
            patient=person(YANN, "birth given sex born"), registered_gp=gp(LE_BIHAN, family_name="LE BIHAN"),
            stay={"admitted": "2026-11-28", "discharged": "2026-12-01"})),
        WardMail("thunderbird_flowed", "Lettre de sortie", f"""\
Bonjour à tous,

Patient : M. Lucien PELLERIN, né le 02/05/1939
INS : {LUCIEN.ins}
Médecin traitant : Docteur Marc OUDINOT, 12 rue des Tilleuls prolongée, 45160 Olivet
RPPS : {OUDINOT.rpps}
Service : Médecine polyvalente
Sortie le : mardi 1er décembre 2026
Mode de sortie : retour à domicile avec passage d'une infirmière deux fois par jour
""", thunderbird, notice(
            patient=person(LUCIEN, "ins key birth given sex born"), registered_gp=gp(OUDINOT, family_name="OUDINOT"),
            stay={"ward": "Médecine polyvalente", "discharged": "2026-12-01", "exit_mode": "home"})),
        WardMail("latin1_subject_too", "Lettre de liaison à la sortie", f"""\
Identité : Mme TAVERNIER épouse BRISSEAU Solange
DDN : 30/11/1952
Médecin traitant déclaré : Dr Claire TESSIER (RPPS {TESSIER.rpps})
Séjour : du 20/11/2026 au 01/12/2026
N° de séjour : 26/118842
""", latin1, notice(
            patient=person(SOLANGE, "birth used first sex born"), registered_gp=gp(TESSIER, family_name="TESSIER"),
            stay={"admitted": "2026-11-20", "discharged": "2026-12-01", "number": "26/118842"})),
        WardMail("undeclared_windows", "CRH", f"""\
Patiente : ŒUVRARD Ninon, Zoé
Née le : 06/02/1987
Sexe : féminin
Médecin traitant : Dr Noé Durand – RPPS n° {DURAND.rpps}
Date de sortie : 01/12/2026 – « état satisfaisant »
""", undeclared, notice(
            patient=person(NINON, "birth given sex born"), registered_gp=gp(DURAND), stay={"discharged": "2026-12-01"})),
        WardMail("says_ascii_sends_utf8", "Lettre de liaison – sortie", f"""\
Nom de naissance : D'ARVOR
Prénom : Jean-Hugues
Né le : 31 janvier 1964
Sexe : H
Médecin traitant : Dr Alix Dupont
N° RPPS : {DUPONT.rpps}
Hospitalisé du 25/11/2026 au 01/12/2026
""", liar, notice(
            patient=person(HUGUES, "birth given sex born"), registered_gp=gp(DUPONT),
            stay={"admitted": "2026-11-25", "discharged": "2026-12-01"})),
        WardMail("export_with_tabs", "Bulletin de sortie", f"""\
CENTRE HOSPITALIER D'EXEMPLE
BULLETIN DE SORTIE

NOM DE NAISSANCE\t: PELLERIN
PRENOM\t\t: LUCIEN
DATE NAISSANCE\t: 02/05/1939
SEXE\t\t: M
IPP\t\t: 900020001
IEP\t\t: 126004471
UF\t\t: 3021
DATE ENTREE\t: 19/11/2026 08:15
DATE SORTIE\t: 01/12/2026 11:40
MODE DE SORTIE\t: MUTATION SSR
MEDECIN TRAITANT\t: DR OUDINOT MARC
RPPS\t\t: {OUDINOT.rpps}
""", export, notice(
            patient=person(LUCIEN, "birth sex born ipp", given_names=["LUCIEN"]),
            registered_gp=gp(OUDINOT, family_name="OUDINOT", given_name="MARC"),
            stay={"admitted": "2026-11-19T08:15:00+01:00", "discharged": "2026-12-01T11:40:00+01:00", "unit": "3021",
                  "number": "126004471", "exit_mode": "rehabilitation"})),
        WardMail("zimbra_bullets", "Sortie d'hospitalisation", f"""\
Bonjour,

• Patient : SANTONI Angèle
• Née le : 09/08/1960
• INS : {ANGELE.ins}
• Médecin traitant : Dr Gwenaël Le Bihan
• RPPS : {LE_BIHAN.rpps}
• Service : Pneumologie (UF 4410)
• Date de sortie : 01/12/2026

Bonne journée
""", zimbra, notice(
            patient=person(ANGELE, "ins key birth given born"), registered_gp=gp(LE_BIHAN),
            stay={"ward": "Pneumologie", "unit": "4410", "discharged": "2026-12-01"})),
        WardMail("apple_typography", "Lettre de liaison", f"""\
Nom d'usage : BRISSEAU
Nom de naissance : TAVERNIER
Prénoms : Solange Berthe
Née le : 30 nov. 1952
N° INS : {SOLANGE.ins}
Médecin traitant : Mme le Dr Claire Tessier
RPPS du médecin traitant : {TESSIER.rpps}
Date d'entrée : 20.11.2026
Date de sortie : 1.12.2026
""", apple, notice(
            patient=person(SOLANGE, "ins key birth used given born"), registered_gp=gp(TESSIER),
            stay={"admitted": "2026-11-20", "discharged": "2026-12-01"})),
        WardMail("iphone_short", "Avis de sortie", f"""\
Mme VALBRUNE née CORMERAIS Odette
Patient : VALBRUNE née CORMERAIS Odette
DDN : 17/03/1948
MT : Dr Camille Martin {MARTIN.rpps}
Sortie : 01/12/2026 14h
Lettre de liaison à venir.
""", iphone, notice(
            document="advance_notice", patient=person(ODETTE, "birth used first born"), registered_gp=gp(MARTIN),
            stay={"discharged": "2026-12-01T14:00:00+01:00"})),
        WardMail("webmail_signature_and_disclaimer", "Lettre de sortie", """\
Patient : PELLERIN Lucien
Né le : 02/05/1939
Médecin traitant : Dr Marc Oudinot
Date de sortie : 01/12/2026

Bien confraternellement
""", webmail, notice(  # the RPPS of the signature is not the GP's
            patient=person(LUCIEN, "birth given born"), registered_gp=gp(OUDINOT, "family given"),
            stay={"discharged": "2026-12-01"})),
        # ------------------------------------------------------------------------------- other words, other order
        WardMail("gp_first_author_last", "Lettre de liaison", f"""\
Médecin traitant : Dr Alix Dupont
RPPS : {DUPONT.rpps}
MSSanté : dr.dupont@medecin.mssante.fr

Patient : LE GOFF Yann (M)
Date de naissance : 14/07/1971
Date de sortie : 01/12/2026

Médecin hospitalier : Dr Solenn Kerbellec
RPPS : {AUTHOR.rpps}
""", zimbra, notice(
            patient=person(YANN, "birth given sex born"), registered_gp=gp(DUPONT, "family given rpps mss"),
            author={"name": "Solenn Kerbellec", "rpps": AUTHOR.rpps}, stay={"discharged": "2026-12-01"})),
        WardMail("author_first_gp_without_number", "Compte rendu d'hospitalisation", f"""\
Rédigé par : Dr Solenn Kerbellec
RPPS : {AUTHOR.rpps}
Patient : LE GOFF Yann
Né le : 14/07/1971
Médecin traitant : Dr Dupont
Sortie le : 01/12/2026
""", latin1, notice(
            patient=person(YANN, "birth given born"), registered_gp={"family_name": "Dupont"},
            author={"name": "Solenn Kerbellec", "rpps": AUTHOR.rpps}, stay={"discharged": "2026-12-01"})),
        WardMail("bilingual_labels", "Lettre de liaison / Discharge letter", f"""\
Nom de naissance / Birth name : SANTONI
Prénom / Given name : Angèle
Date de naissance / Date of birth : 09/08/1960
Sexe / Sex : F
Médecin traitant / Registered GP : Dr Noé Durand
RPPS : {DURAND.rpps}
Date de sortie / Discharge date : 01/12/2026
""", thunderbird, notice(
            patient=person(ANGELE, "birth given sex born"), registered_gp=gp(DURAND), stay={"discharged": "2026-12-01"})),
        WardMail("english_ward", "Discharge summary", f"""\
Dear colleague,

Patient name: Yann LE GOFF
DOB: 14 July 1971
Gender: male
MRN: 900020003
GP: Dr Claire Tessier
GP RPPS: {TESSIER.rpps}
Ward: Emergency short stay
Admitted: 2026-11-30 22:10
Discharged: 2026-12-01 11:00
Discharged to: home
Follow-up: cardiology clinic on 15 December 2026
Pending results: blood cultures
""", apple, notice(
            patient=person(YANN, "birth given sex born ipp"), registered_gp=gp(TESSIER),
            stay={"ward": "Emergency short stay", "admitted": "2026-11-30T22:10:00+01:00",
                  "discharged": "2026-12-01T11:00:00+01:00", "exit_mode": "home"},
            follow_up=[{"what": "cardiology clinic on 15 December 2026", "when": "2026-12-15"}],
            awaited_results=["blood cultures"])),
        WardMail("typing_mistakes", "Lettre de liason", f"""\
Nom de naissence : PELLERIN
Prenom : Lucien
Date de naisance : 02/05/1939
Medecin traitan : Dr Marc Oudinot
RPPS : {OUDINOT.rpps}
Date de sotrie : 01/12/2026
""", iphone, notice(
            patient=person(LUCIEN, "birth given born"), registered_gp=gp(OUDINOT), stay={"discharged": "2026-12-01"})),
        WardMail("no_accents_capitals", "LETTRE DE LIAISON", f"""\
NOM DE NAISSANCE : OEUVRARD
PRENOMS : NINON ZOE
NEE LE : 06/02/1987
SEXE : F
MEDECIN TRAITANT : DR NOE DURAND
RPPS : {DURAND.rpps}
DATE DE SORTIE : 01/12/2026
""", export, notice(
            patient=person(NINON, "sex born", birth_name="OEUVRARD", given_names=["NINON", "ZOE"]),
            registered_gp=gp(DURAND, "rpps", family_name="NOE", given_name="DURAND"),  # capitals: the order is unsure
            stay={"discharged": "2026-12-01"})),
        WardMail("labels_on_their_own_lines", "Lettre de liaison", f"""\
Patient
SANTONI Angèle

Patient :
SANTONI Angèle

Date de naissance :
09/08/1960

Médecin traitant :
Dr Gwenaël Le Bihan
RPPS :
{LE_BIHAN.rpps}

Date de sortie :
01/12/2026 à 10 h 05
""", webmail, notice(
            patient=person(ANGELE, "birth given born"), registered_gp=gp(LE_BIHAN),
            stay={"discharged": "2026-12-01T10:05:00+01:00"})),
        WardMail("several_on_a_line", "Lettre de liaison", f"""\
Nom de naissance : D'ARVOR    Prénom : Jean-Hugues    Sexe : M
Né le : 31/01/1964 ; IPP : 900020005 ; INS : {HUGUES.ins}
Entrée : 25/11/2026 | Sortie : 01/12/2026
Médecin traitant : Dr Alix Dupont ; RPPS : {DUPONT.rpps}
""", thunderbird, notice(
            patient=person(HUGUES, "ins key birth given sex born ipp"), registered_gp=gp(DUPONT),
            stay={"admitted": "2026-11-25", "discharged": "2026-12-01"})),
        WardMail("ins_spaced_with_its_key_apart", "Lettre de liaison", f"""\
Patient : VALBRUNE Odette
INS (NIR) : 2 48 03 45 234 007 / clé {ODETTE.ins[13:] if ODETTE.ins else ""}
Née le : 17/03/1948
Médecin traitant : Dr Camille Martin, RPPS : {MARTIN.rpps}
Date de sortie : 01/12/2026
""", apple, notice(
            patient=person(ODETTE, "ins key first born", birth_name="VALBRUNE"), registered_gp=gp(MARTIN),
            stay={"discharged": "2026-12-01"})),
        WardMail("urgent_with_copies_and_follow_up", "Lettre de liaison", f"""\
Type de document : Lettre de liaison
Patient : PELLERIN Lucien
Né le : 02/05/1939
Médecin traitant : Dr Marc Oudinot
RPPS : {OUDINOT.rpps}
Copie à : Dr Noé Durand ; Dr Alix Dupont
Date de sortie : 01/12/2026
Degré d'urgence : URGENT
Rendez-vous : Consultation de cardiologie le 15/12/2026
Résultats attendus : anatomopathologie
Opposition du patient : non
""", zimbra, notice(
            title="Lettre de liaison", patient=person(LUCIEN, "birth given born"), registered_gp=gp(OUDINOT),
            stay={"discharged": "2026-12-01"}, urgency="urgent", consent="allowed",
            recipients=[{"name": "Noé Durand", "copy": True}, {"name": "Alix Dupont", "copy": True}],
            follow_up=[{"what": "Consultation de cardiologie le 15/12/2026", "when": "2026-12-15"}],
            awaited_results=["anatomopathologie"])),
        WardMail("the_patient_objects", "Lettre de liaison", f"""\
Patient : LE GOFF Yann
Né le : 14/07/1971
Médecin traitant : Dr Claire Tessier
RPPS : {TESSIER.rpps}
Date de sortie : 01/12/2026

Attention : le patient s'oppose à la transmission de cette lettre à son médecin traitant.
""", outlook, notice(
            patient=person(YANN, "birth given born"), registered_gp=gp(TESSIER), stay={"discharged": "2026-12-01"},
            consent="opposed")),
        WardMail("a_death", "Avis de décès", """\
Patient : PELLERIN Lucien
Né le : 02/05/1939
Médecin traitant : Dr Marc Oudinot
Mode de sortie : décès
Date de sortie : 01/12/2026 03:20
""", zimbra, notice(
            event="death", patient=person(LUCIEN, "birth given born"), registered_gp=gp(OUDINOT, "family given"),
            stay={"discharged": "2026-12-01T03:20:00+01:00", "exit_mode": "death"})),
        WardMail("replaces_the_first", "[Annule et remplace] Lettre de liaison", f"""\
Cette lettre annule et remplace celle de ce matin.
Patient : LE GOFF Yann
Né le : 14/07/1971
Médecin traitant : Dr Claire Tessier
RPPS : {TESSIER.rpps}
Date de sortie : 01/12/2026
""", outlook, notice(
            document="replacement", patient=person(YANN, "birth given born"), registered_gp=gp(TESSIER),
            stay={"discharged": "2026-12-01"})),
        WardMail("emergency_visit", "Compte rendu de passage aux urgences", f"""\
Patient : D'ARVOR Jean-Hugues
Né le : 31/01/1964
Médecin traitant : Dr Alix Dupont
RPPS : {DUPONT.rpps}
Date d'arrivée : 01/12/2026 à 02:14
Date de sortie : 01/12/2026 à 06:30
""", export, notice(
            event="er_visit", patient=person(HUGUES, "birth given born"), registered_gp=gp(DUPONT),
            stay={"admitted": "2026-12-01T02:14:00+01:00", "discharged": "2026-12-01T06:30:00+01:00"})),
        WardMail("an_admission", "Avis d'admission", """\
Patient : SANTONI Angèle
Née le : 09/08/1960
Date d'entrée : 01/12/2026
Médecin traitant : Dr Gwenaël Le Bihan
""", apple, notice(
            event="admission", patient=person(ANGELE, "birth given born"), registered_gp=gp(LE_BIHAN, "family given"),
            stay={"admitted": "2026-12-01"})),
        # ------------------------------------------------------------------------------------------- lines missing
        WardMail("no_gp_line", "Lettre de liaison", """\
Patient : TAVERNIER Solange
Née le : 30/11/1952
Date de sortie : 01/12/2026
Destinataire : Dr Claire Tessier
""", thunderbird, notice(
            patient=person(SOLANGE, "birth first born"), stay={"discharged": "2026-12-01"},
            recipients=[{"name": "Claire Tessier", "copy": False}])),
        WardMail("gp_not_declared", "Lettre de liaison", f"""\
Patient : TAVERNIER Solange
Née le : 30/11/1952
Médecin traitant : non déclaré
RPPS : {AUTHOR.rpps}
Date de sortie : 01/12/2026
""", outlook, notice(patient=person(SOLANGE, "birth first born"), stay={"discharged": "2026-12-01"})),
        WardMail("no_birth_date", "Lettre de liaison", f"""\
Nom : TAVERNIER
Prénom : Solange
Sexe : F
Date de naissance :
Médecin traitant : Dr Claire Tessier
RPPS : {TESSIER.rpps}
Date de sortie : 01/12/2026
""", zimbra, notice(
            patient=person(SOLANGE, "birth first sex"), registered_gp=gp(TESSIER), stay={"discharged": "2026-12-01"})),
        # ------------------------------------------------------------------------------------- sent on, and quoted
        WardMail("forwarded_by_outlook", "TR: Lettre de liaison", f"""\
Pour le relais.

De : Solenn Kerbellec <solenn.kerbellec@chr-exemple.mssante.fr>
Envoyé : mardi 1 décembre 2026 15:02
À : Secrétariat cardiologie
Objet : Lettre de liaison

Patient : PELLERIN Lucien
Né le : 02/05/1939
Médecin traitant : Dr Marc Oudinot
RPPS : {OUDINOT.rpps}
Date de sortie : 01/12/2026
""", outlook, notice(
            title="Lettre de liaison", patient=person(LUCIEN, "birth given born"), registered_gp=gp(OUDINOT),
            stay={"discharged": "2026-12-01"}, problems=["forwarded"])),
        WardMail("forwarded_twice", "Fwd: Fwd: Lettre de liaison", f"""\
---------- Forwarded message ---------
De : Secrétariat <secretariat@chr-exemple.mssante.fr>
Date : mar. 1 déc. 2026 à 15:10
Subject: Fwd: Lettre de liaison

> > Patient : SANTONI Angèle
> > Née le : 09/08/1960
> > Médecin traitant : Dr Gwenaël Le Bihan
> > RPPS : {LE_BIHAN.rpps}
> > Date de sortie : 01/12/2026
""", zimbra, notice(
            title="Fwd: Lettre de liaison", patient=person(ANGELE, "birth given born"), registered_gp=gp(LE_BIHAN),
            stay={"discharged": "2026-12-01"}, problems=["forwarded"])),
        WardMail("forwarded_as_a_message", "Lettre de liaison", f"""\
Patient : LE GOFF Yann
Né le : 14/07/1971
Médecin traitant : Dr Claire Tessier
RPPS : {TESSIER.rpps}
Date de sortie : 01/12/2026
""", attached, notice(
            patient=person(YANN, "birth given born"), registered_gp=gp(TESSIER), stay={"discharged": "2026-12-01"},
            problems=["forwarded"])),
        WardMail("an_older_letter_quoted_below", "Lettre de liaison", f"""\
Patient : LE GOFF Yann
Né le : 14/07/1971
Médecin traitant : Dr Claire Tessier
RPPS : {TESSIER.rpps}
Date de sortie : 01/12/2026

Le lun. 30 nov. 2026 à 17:02, Cardiologie <cardiologie@chr-exemple.mssante.fr> a écrit :
> Patient : PELLERIN Lucien
> Né le : 02/05/1939
> Médecin traitant : Dr Marc Oudinot
> RPPS : {OUDINOT.rpps}
> Date de sortie : 30/11/2026
""", thunderbird, held("two_patients")),  # the mail leaves as it is, with the other patient's letter in it
        WardMail("the_same_patient_quoted_below", "Lettre de liaison", f"""\
Patient : LE GOFF Yann
Né le : 14/07/1971
Médecin traitant : Dr Claire Tessier
RPPS : {TESSIER.rpps}
Date de sortie : 01/12/2026

Le lun. 30 nov. 2026 à 17:02, Secrétariat <secretariat@chr-exemple.mssante.fr> a écrit :
> Merci d'envoyer la lettre de
> Patient : LE GOFF Yann
> Né le : 14/07/1971
> Médecin traitant : Dr Alix Dupont
> RPPS : {DUPONT.rpps}
""", zimbra, notice(  # what is quoted does not speak for this mail
            patient=person(YANN, "birth given born"), registered_gp=gp(TESSIER), stay={"discharged": "2026-12-01"})),
        WardMail("a_new_letter_over_an_answer", "RE: Lettre de liaison", f"""\
Patient : LE GOFF Yann
Né le : 14/07/1971
Médecin traitant : Dr Claire Tessier
RPPS : {TESSIER.rpps}
Date de sortie : 01/12/2026

-----Message d'origine-----
De : Cardiologie
Envoyé : lundi 30 novembre 2026 17:02
Objet : Lettre de liaison

Patient : PELLERIN Lucien
Né le : 02/05/1939
Médecin traitant : Dr Marc Oudinot
RPPS : {OUDINOT.rpps}
""", outlook, held("two_patients")),
        WardMail("prose_over_an_older_letter", "Sortie de M. Le Goff", f"""\
Bonjour, M. Yann Le Goff est sorti ce jour, merci de prévenir son médecin.

De : Cardiologie
Envoyé : lundi 30 novembre 2026 17:02
Objet : Lettre de liaison

Patient : PELLERIN Lucien
Né le : 02/05/1939
Médecin traitant : Dr Marc Oudinot
RPPS : {OUDINOT.rpps}
Date de sortie : 30/11/2026
""", outlook, held("unclear")),
        # -------------------------------------------------------------------- traps that leave the letter a notice
        WardMail("two_gps", "Lettre de liaison", f"""\
Patient : PELLERIN Lucien
Né le : 02/05/1939
Médecin traitant : Dr Marc Oudinot
RPPS : {OUDINOT.rpps}
Médecin traitant : Dr Claire Tessier
RPPS : {TESSIER.rpps}
Date de sortie : 01/12/2026
""", latin1, notice(
            patient=person(LUCIEN, "birth given born"), stay={"discharged": "2026-12-01"},
            unknown=["registered_gp"], problems=["many_gps"])),
        WardMail("bad_key", "Lettre de liaison", f"""\
Patient : PELLERIN Lucien
Né le : 02/05/1939
INS : {(LUCIEN.ins or "")[:13]}01
Médecin traitant : Dr Marc Oudinot
RPPS : {OUDINOT.rpps}
Date de sortie : 01/12/2026
""", apple, notice(
            patient=person(LUCIEN, "birth given born", ins=f"{(LUCIEN.ins or '')[:13]}01", ins_key_valid=False),
            registered_gp=gp(OUDINOT), stay={"discharged": "2026-12-01"})),
        WardMail("impossible_dates", "Lettre de liaison", f"""\
Patient : PELLERIN Lucien
Né le : 31/02/1939
INS : {LUCIEN.ins}
Médecin traitant : Dr Marc Oudinot
RPPS : {OUDINOT.rpps}
Date de sortie : 32/12/2026
""", zimbra, notice(
            patient=person(LUCIEN, "ins key birth given"), registered_gp=gp(OUDINOT),
            unknown=["patient.birth_date", "stay.discharged"])),
        WardMail("two_days_of_discharge", "Lettre de liaison", f"""\
Patient : LE GOFF Yann
Né le : 14/07/1971
Médecin traitant : Dr Claire Tessier
RPPS : {TESSIER.rpps}
Date de sortie : 01/12/2026
Sortie du service le : 02/12/2026
""", thunderbird, notice(
            patient=person(YANN, "birth given born"), registered_gp=gp(TESSIER), stay={"discharged": "2026-12-01"},
            unknown=["stay.discharged"])),
        WardMail("half_an_rpps", "Lettre de liaison", f"""\
Patient : LE GOFF Yann
Né le : 14/07/1971
Médecin traitant : Dr Claire Tessier
RPPS : {TESSIER.rpps[:7] if TESSIER.rpps else ""}
Date de sortie : 01/12/2026
""", webmail, notice(
            patient=person(YANN, "birth given born"), registered_gp=gp(TESSIER, "family given"),
            stay={"discharged": "2026-12-01"}, unknown=["registered_gp.rpps"])),
        # ------------------------------------------------------------------------------------- a person must look
        WardMail("two_patients", "Lettres de liaison", f"""\
Patient : PELLERIN Lucien
Né le : 02/05/1939
Médecin traitant : Dr Marc Oudinot
RPPS : {OUDINOT.rpps}
Date de sortie : 01/12/2026

Patient : LE GOFF Yann
Né le : 14/07/1971
Médecin traitant : Dr Claire Tessier
RPPS : {TESSIER.rpps}
Date de sortie : 01/12/2026
""", outlook, held("two_patients")),
        WardMail("two_ins_of_one_name", "Lettre de liaison", f"""\
Patient : PELLERIN Lucien
INS : {LUCIEN.ins}
Né le : 02/05/1939
Date de sortie : 01/12/2026

Rappel identité : INS {ins_of("M", date(1939, 5, 2), "18033", 12)}
INS : {ins_of("M", date(1939, 5, 2), "18033", 12)}
""", zimbra, held("two_patients")),
        WardMail("a_list_of_the_day", "Sorties du jour", """\
<p>Bonjour, voici les sorties du jour :</p>
<table><tr><th>Nom</th><th>Pr&eacute;nom</th><th>N&eacute;(e) le</th><th>M&eacute;decin traitant</th></tr>
<tr><td>PELLERIN</td><td>Lucien</td><td>02/05/1939</td><td>Dr Oudinot</td></tr>
<tr><td>LE GOFF</td><td>Yann</td><td>14/07/1971</td><td>Dr Tessier</td></tr></table>
""", outlook, held("two_patients")),
        WardMail("prose_only", "Mme Valbrune", """\
Bonjour,

Mme Odette VALBRUNE, 78 ans, est sortie ce jour du service. Merci de prévenir son médecin traitant,
le Dr Martin, à Orléans. La lettre suivra.

L'équipe de cardiologie
""", iphone, held("unclear")),
        WardMail("announced_attachment_missing", "Lettre de liaison de M. Pellerin", """\
Bonjour,
Veuillez trouver la lettre en pièce jointe.
Cordialement
""", webmail, held("unclear")),
        WardMail("patient_without_event", "Bilan", f"""\
Patient : PELLERIN Lucien
INS : {LUCIEN.ins}
Merci de nous rappeler.
""", apple, held("unclear")),
        WardMail("quoted_other_patient_without_marks", "Lettre de liaison", f"""\
Patient : LE GOFF Yann
Né le : 14/07/1971
Médecin traitant : Dr Claire Tessier
RPPS : {TESSIER.rpps}
Date de sortie : 01/12/2026

Pour mémoire, la précédente :
Patient : PELLERIN Lucien
Né le : 02/05/1939
Médecin traitant : Dr Marc Oudinot
RPPS : {OUDINOT.rpps}
""", zimbra, held("two_patients")),
        # ---------------------------------------------------------------------------------------------- no letter
        WardMail("an_answer_that_quotes_a_letter", "RE: Lettre de liaison de M. Pellerin", """\
Bien reçu, merci.

Le mar. 1 déc. 2026 à 17:02, Cardiologie <cardiologie@chr-exemple.mssante.fr> a écrit :
> Patient : PELLERIN Lucien
> Né le : 02/05/1939
> Médecin traitant : Dr Marc Oudinot
> Date de sortie : 01/12/2026
""", thunderbird, held("unclear"), sender="dr.oudinot@medecin.mssante.fr"),
        WardMail("a_meeting", "Réunion de service", """\
Bonjour à toutes et tous,
Objet : réunion mensuelle
Service : Cardiologie
Date : 04/12/2026 à 14 h, salle B
Ordre du jour : planning des gardes ; sorties avant midi ; commande de matériel.
""", outlook, {"outcome": "other", "why": "not_a_notice"}),
        WardMail("an_absence", "Réponse automatique : Lettre de liaison", """\
Je suis absente jusqu'au 7 décembre. En cas d'urgence : poste 4217.
""", outlook, {"outcome": "automatic", "why": "automatic"}),
    )
}  # fmt: skip
