"""HPRIM Médecin files written for the project: invented people, the same bytes for the same arguments.

hprim()   one patient's letter, or None for the lines to leave out      LETTERS   three files with their truth
"""

from __future__ import annotations

from datetime import date

from relay.model import Patient, Person
from tests import letters
from tests.letters import AUTHOR, DURAND, MARTIN, ODETTE, PARAGRAPH
from tests.letters.hl7 import Written

END = "****FIN****"
END_OF_FILE = "****FINFICHIER****"

LETTER = f"""COMPTE RENDU D'HOSPITALISATION

Cher confrère,

Votre patiente a été hospitalisée dans le service de cardiologie du 23/11/2026 au 01/12/2026.
{PARAGRAPH}

Bien confraternellement,
Dr Solenn Kerbellec"""


def number(patient: Patient) -> str:
    """13 characters, a space, and the key."""
    return f"{patient.ins[:13]} {patient.ins[13:]}" if patient.ins else ""


def hprim(
    patient: Patient = ODETTE,
    body: str = LETTER,
    *,
    code: str = "MME",
    family: str | None = None,
    social: str | None = None,
    born: str | None = None,
    sender: str = f"{AUTHOR.rpps} DR KERBELLEC SOLENN",
    addressee: str | None = f"{MARTIN.rpps} DR MARTIN CAMILLE",
    thirteen: bool = False,
    written: date = date(2026, 12, 1),
    end: str = f"{END}\n{END_OF_FILE}\n",
    newline: str = "\r\n",
    encoding: str = "cp1252",
) -> bytes:
    """`thirteen` writes a third address line; an `addressee` of None leaves line 12 away altogether."""
    lines = [
        code,
        family if family is not None else patient.used_name or patient.birth_name or "",
        patient.given_names[0] if patient.given_names else "",
        "12 rue des Lilas",
        "Bâtiment B",
        *(["Étage 2"] if thirteen else []),
        "45000 ORLEANS",
        born if born is not None else f"{patient.birth_date:%d/%m/%Y}" if patient.birth_date else "",
        social if social is not None else number(patient),
        "2026-88",
        f"{written:%d/%m/%Y}",
        sender,
        *([addressee] if addressee is not None else []),
        body,
        end,
    ]
    return "\n".join(lines).replace("\n", newline).encode(encoding)


PAUL = letters.patient("LEROUX", "Paul", born=date(1962, 5, 4), sex="M", place="45155", order=21)
LINA = letters.patient("BÉRENGÈRE", "Anaëlle", born=date(1990, 1, 15), sex="F", place="18033", order=5)

LETTERS = {
    "liaison_latin1.hpr": Written(
        hprim(),
        {"event": "discharge", "document": "letter", "family": "VALBRUNE", "given": ("Odette",), "gp": None,
         "discharged": date(2026, 12, 1), "ins": ODETTE.ins, "recipient": MARTIN.rpps},
    ),
    "crh_macroman.hpr": Written(
        hprim(PAUL, "Lettre de sortie\nMédecin traitant : Dr Noé Durand\n"
              f"RPPS : {DURAND.rpps}\nDate d'entrée : 28/11/2026\nDate de sortie : 02/12/2026\n\nÉvolution très favorable.",
              code="M", thirteen=True, newline="\r", encoding="mac_roman"),
        {"event": "discharge", "document": "letter", "family": "LEROUX", "given": ("Paul",), "gp": DURAND.rpps,
         "discharged": date(2026, 12, 2), "ins": PAUL.ins, "recipient": MARTIN.rpps},
    ),
    "laboratoire_utf16.hpr": Written(
        hprim(LINA, "Résultats de biologie\n****LAB****\nRES|Hémoglobine|HB|N|12,4|g/dL|12|16|N|F|", code="MLLE",
              addressee="", encoding="utf-16"),
        {"event": "other", "document": "other", "family": "BÉRENGÈRE", "given": ("Anaëlle",), "gp": None,
         "discharged": None, "ins": LINA.ins, "recipient": None},
    ),
}  # fmt: skip


def doctor_line(person: Person) -> str:
    return f"Médecin traitant : Dr {person.given_name} {person.family_name}\nRPPS : {person.rpps}\n"
