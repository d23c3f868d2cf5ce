"""HL7 v2 messages written for the project: invented people, the test INS OID, the same bytes for the same arguments.

    adt()   a movement: A01, A03, A11, A13, Z99      mdm()   a document in OBX: T02, T04, T10, or ORU^R01
    zam()   a business acknowledgement               batch() several messages between FHS and FTS

`LETTERS` names three messages and what a right reader says of each.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from relay.model import Patient, Person
from tests import letters
from tests.letters import ADMITTED, AUTHOR, DISCHARGED, INS_NIR, MARTIN, ODETTE, SENT

FLAGS = {
    "MASQUE_PS": "N",
    "INVISIBLE_PATIENT": "N",
    "INVISIBLE_REP_LEGAUX": "N",
    "CONNEXION_SECRETE": "N",
    "MODIF_CONF_CODE": "N",
    "DESTDMP": "Y",
    "DESTMSSANTEPS": "Y",
    "DESTMSSANTEPAT": "N",
}


@dataclass(frozen=True)
class Written:
    """A message and the fields of the notice that it stands for."""

    content: bytes
    truth: Mapping[str, object] = field(default_factory=dict)


def _time(moment: datetime | None) -> str:
    return f"{moment:%Y%m%d%H%M%S}" if moment else ""


def xcn(person: Person, kind: str = "RPPS") -> str:
    """A professional; IDNPS puts the digit of its type before the number."""
    number = f"8{person.rpps}" if kind == "IDNPS" else person.rpps or ""
    return f"{number}^{person.family_name}^{person.given_name}^^^^^^ASIP-SANTE-PS&1.2.250.1.71.4.2.1&ISO^D^^^{kind}"


def msh(event: str, *, control: str = "4217", charset: str = "UNICODE UTF-8", processing: str = "P") -> str:
    structure = event.replace("^", "_")
    return f"MSH|^~\\&|GAM|CHR^450000088^FINEJ|RELAIS|GHT|{_time(SENT)}||{event}^{structure}|{control}|{processing}|2.5^FRA^2.11||||||{charset}"


def pid(patient: Patient = ODETTE, *, status: str = "VALI", birth: bool = True) -> str:
    numbers = [f"{one.value}^^^CHR&{one.system}&ISO^PI" for one in patient.local_ids]
    if patient.ins:
        numbers.append(f"{patient.ins}^^^ASIP-SANTE-INS-NIR&{patient.ins_oid or INS_NIR}&ISO^INS")
    first = patient.given_names[0] if patient.given_names else ""
    every = " ".join(patient.given_names)
    names = [f"{patient.birth_name}^{first}^{every}^^^^L"] if birth else []
    if patient.used_name:
        names.append(f"{patient.used_name}^{first}^^^^^D")
    born = f"{patient.birth_date:%Y%m%d}" if patient.birth_date else ""
    places = f"12 RUE DES LILAS^^ORLEANS^^45000^FRA^H~^^ORLEANS^^^FRA^BDL^^{patient.birth_place or ''}"
    values = {3: "~".join(numbers), 5: "~".join(names), 7: born, 8: patient.sex or "", 11: places, 18: "NDA-88^^^CHR^AN",
              30: "Y" if patient.deceased else "", 32: status}  # fmt: skip
    return "PID|" + "|".join(values.get(number, "") for number in range(1, 33))


def rol(
    person: Person = MARTIN, role: str = "ODRP", *, action: str = "UC", ended: str = "", kind: str = "RPPS"
) -> str:
    address = f"|^^X.400^{person.mss_address}" if person.mss_address else "|"
    return f"ROL||{action}|{role}|{xcn(person, kind)}||{ended}|||||3 PLACE DU MARCHE^^ORLEANS^^45000{address}"


def pv1(
    *,
    kind: str = "I",
    number: str = "S-2026-004217",
    admitted: datetime | None = ADMITTED,
    discharged: datetime | str | None = DISCHARGED,
    disposition: str = "3",
    attending: Person = AUTHOR,
    ward: str = "3435",
) -> str:
    left = discharged if isinstance(discharged, str) else _time(discharged)
    values = {2: kind, 3: f"{ward}^12^1^CHR&450000088&FINEG", 7: xcn(attending, "IDNPS"), 8: xcn(letters.DURAND),
              19: f"{number}^^^CHR^VN", 36: disposition, 44: _time(admitted), 45: left}  # fmt: skip
    return "PV1|" + "|".join(values.get(number, "") for number in range(1, 46))


def zbe(
    action: str = "INSERT",
    *,
    trigger: str = "",
    number: str = "77001",
    moved: datetime = DISCHARGED,
    shifted: bool = False,
) -> str:
    more = "|" if shifted else ""
    return f"ZBE|{number}^CHR^^ISO|{_time(moved)}|{more}|{action}|N|{trigger}|CARDIOLOGIE^^^^^CHR&450000088&M^UF^^^3435||HMS"


def adt(
    trigger: str = "A03",
    *,
    patient: Patient = ODETTE,
    gp: Person | None = MARTIN,
    control: str = "4217",
    movement: str | None = None,
    visit: str | None = None,
    expected: datetime | None = None,
    status: str = "VALI",
    shifted: bool = False,
    charset: str = "UNICODE UTF-8",
    encoding: str = "utf-8",
    end: str = "\r",
    more: Sequence[str] = (),
    processing: str = "P",
) -> bytes:
    """A movement of IHE PAM France. `movement` and `visit` replace ZBE and PV1; `expected` fills PV2-9."""
    action = "CANCEL" if trigger in ("A11", "A12", "A13") else "INSERT"
    lines = [
        msh(f"ADT^{trigger}", control=control, charset=charset, processing=processing),
        f"EVN||{_time(SENT)}||||{_time(DISCHARGED)}|CHR D'EXEMPLE^450000088^FINEG",
        pid(patient, status=status),
        "PD1|||||||||||N",
        *([rol(gp)] if gp else []),
        pv1(discharged=None if trigger in ("A01", "A11", "A13") else DISCHARGED) if visit is None else visit,
        f"PV2||||||||{_time(expected)}|{_time(expected)}" if expected else "",
        zbe(action, shifted=shifted) if movement is None else movement,
        *more,
    ]
    return end.join(line for line in [*lines, ""] if line).encode(encoding) + end.encode(encoding)


def obx(number: int, kind: str, code: str, value: str, result: str = "F") -> str:
    return f"OBX|{number}|{kind}|{code}||{value}||||||{result}"


def mdm(
    event: str = "MDM^T02",
    *,
    document: bytes | None = None,
    subtype: str = "XML",
    code: str = "11490-0^Lettre de liaison à la sortie^LN",
    result: str | None = None,
    patient: Patient = ODETTE,
    gp: Person | None = MARTIN,
    flags: Mapping[str, str] = FLAGS,
    recipients: Sequence[Person] = (MARTIN,),
    status: str = "AU",
    parent: str = "",
    wrapped: int = 0,
    end: str = "\r",
    visit: str | None = None,
) -> bytes:
    """A document in an OBX (CI-SIS « Transmission d'un document CDA-R2 en HL7 v2 »); `wrapped` cuts its lines."""
    if document is None:
        document = letters.cda(patient=patient, gp=gp)
    told = {"MDM^T04": "D", "MDM^T10": "C"}
    result = result or told.get(event, "F")
    payload = base64.b64encode(document).decode()
    if wrapped:
        payload = end.join(payload[n : n + wrapped] for n in range(0, len(payload), wrapped))
    kind = "APPLICATION" if subtype == "PDF" else "TEXT"
    head = [
        msh(event),
        f"EVN||{_time(SENT)}",
        pid(patient),
        *([rol(gp)] if gp else []),
        pv1() if visit is None else visit,
    ]
    if event.startswith("MDM"):
        head.append(
            f"TXA|1|{code}||{_time(SENT)}|||||{xcn(AUTHOR)}|||20261201.1^CHR^1.2.250.1.999.2.1^ISO|{parent}||||{status}"
        )
    else:
        head += ["ORC|NW", f"OBR|1|||{code}|||{_time(SENT)}"]
    lines = [*head, obx(1, "ED", code, f"^{kind}^{subtype}^Base64^{payload}", result)]
    lines += [
        f"PRT||UC||RCT^Results Copies To^participation|{xcn(one)}||||||||||^^X.400^{one.mss_address}"
        for one in recipients
    ]
    lines += [
        obx(number, "CE", f"{flag}^Indicateur^MetaDMPMSS", f"{value}^^expandedYes-NoIndicator")
        for number, (flag, value) in enumerate(flags.items(), 2)
    ]
    return end.join([*lines, ""]).encode()


def zam(
    trigger: str = "Z02", *facts: tuple[str, str], original: str = "<v1.a.b.c.d@relais45.mssante.fr>"
) -> bytes:
    """A business acknowledgement: facts are (code of table AckMetierZAM, value of OBX-5)."""
    facts = facts or (("ACK_RECEPTION_MSS", "250"), ("DESTINATAIRE_MSS", f"^^X.400^{MARTIN.mss_address}"))
    lines = [
        f"OBX|{n}|ST|{code}^Accusé^AckMetierZAM|{original}|{value}||||||F"
        for n, (code, value) in enumerate(facts, 1)
    ]
    return "\r".join([msh(f"ZAM^{trigger}"), *lines, ""]).encode()


def batch(*messages: bytes) -> bytes:
    return b"".join(
        [b"FHS|^~\\&|GAM|CHR\r", b"BHS|^~\\&|GAM|CHR\r", *messages, b"BTS|%d\r" % len(messages), b"FTS|1\r"]
    )


ALSACE = letters.patient(
    "D’HAUTERIVE-BÉNÉDICT", "Éléonore", "Zoé", born=letters.date(1931, 2, 7), place="67482", order=12
)
CORSE = letters.patient(
    "CASANÒVA", "Ghjuvan Battista", born=letters.date(1955, 8, 30), sex="M", place="2A004", order=3
)

LETTERS = {
    "a03_cardiologie.hl7": Written(
        adt(),
        {
            "event": "discharge",
            "document": "advance_notice",
            "gp": MARTIN.rpps,
            "patient": ODETTE,
            "number": "S-2026-004217",
        },
    ),
    "mdm_t02_cda.hl7": Written(
        mdm(patient=ALSACE, gp=letters.DUPONT, wrapped=76, end="\r\n"),
        {
            "event": "discharge",
            "document": "letter",
            "gp": letters.DUPONT.rpps,
            "patient": ALSACE,
            "number": "S-2026-004217",
        },
    ),
    "oru_r01_pdf.er7": Written(
        mdm("ORU^R01", document=letters.pdf(), subtype="PDF", patient=CORSE, gp=letters.DURAND),
        {
            "event": "discharge",
            "document": "letter",
            "gp": letters.DURAND.rpps,
            "patient": CORSE,
            "number": "S-2026-004217",
        },
    ),
}
