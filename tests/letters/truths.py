"""What a right reader says of the project's FHIR and printed letters, in the shape of `relay recognise --json`."""

from __future__ import annotations

from tests import letters
from tests.letters import AUTHOR, DUPONT, DURAND, MARTIN, ODETTE, fhir, printed
from tests.letters.ldl import HOSPITAL, Written
from tests.letters.wards import LUCIEN, SOLANGE, Json, gp, person

_STAY: Json = {
    "admitted": "2026-11-23T09:30:00+01:00",
    "discharged": "2026-12-01T14:00:00+01:00",
    "number": "S-2026-004217",
}
_HERE: Json = {"facility": HOSPITAL, "facility_name": "CHR d'Exemple"}
_LONG = "ins oid key birth used given sex born place"
_PRINTED = "ins key birth used given sex born"


def _ipp(value: str = "900012345") -> list[Json]:
    return [{"system": letters.IPP_SYSTEM, "value": value}]


FHIR: dict[str, Written] = {
    "document.json": Written(
        fhir.dumped(fhir.document(SOLANGE, DUPONT)),
        {
            "outcome": "notice", "format": "fhir", "event": "discharge", "document": "letter", "code": "11490-0",
            "title": "Lettre de liaison à la sortie de l'établissement", "document_id": "1.2.250.1.999.1.1.20261201.1",
            "set_id": "1.2.250.1.999.1.1.20261201", "status": "final",
            "patient": person(SOLANGE, _LONG, local_ids=_ipp("900020002")),
            "stay": _STAY | _HERE | {"ward": "Service de Cardiologie", "exit_mode": "home"},
            "author": {"name": AUTHOR.name, "rpps": AUTHOR.rpps, "phone": "0238000000"},
            "registered_gp": gp(DUPONT, "family given rpps mss"),
            "follow_up": [{"what": "Consultation de cardiologie 15/12/2026", "when": "2026-12-15"}],
            "awaited_results": ["Recherche de thrombophilie"],
        },
    ),
    "movement.json": Written(
        fhir.dumped(fhir.message("A03", LUCIEN, DURAND)),
        {
            "outcome": "notice", "format": "fhir", "event": "discharge", "document": "advance_notice", "code": "A03",
            "patient": person(LUCIEN, _LONG.replace("used ", ""), local_ids=_ipp("900020001")),
            "stay": _STAY | _HERE | {"ward": "Service de Cardiologie", "exit_mode": "home"},
            "registered_gp": gp(DURAND, "family given rpps mss"),
        },
    ),
    "notification.json": Written(
        fhir.dumped(fhir.notification()),
        {
            "outcome": "notice", "format": "fhir", "event": "discharge", "document": "advance_notice", "code": "SOR",
            "title": "Sortie d'un patient", "patient": person(ODETTE, _LONG, local_ids=_ipp()),
            "stay": _HERE | {"discharged": _STAY["discharged"]}, "registered_gp": gp(MARTIN, "family given rpps mss"),
            "recipients": [{"name": "Camille Martin", "rpps": MARTIN.rpps, "copy": False}],
        },
    ),
}  # fmt: skip

PDF: dict[str, Written] = {
    "lines.pdf": Written(
        printed.letter(SOLANGE, DUPONT, pages_of_annex=2),
        {
            "outcome": "notice", "format": "pdf", "event": "discharge", "document": "letter",
            "title": "Lettre de liaison à la sortie", "patient": person(SOLANGE, _PRINTED),
            "stay": _STAY | {"ward": "Cardiologie"}, "registered_gp": gp(DUPONT),
        },
    ),
    "form.pdf": Written(
        printed.form(),
        {
            "outcome": "notice", "format": "pdf", "event": "discharge", "document": "letter",
            "title": "Lettre de liaison à la sortie", "patient": person(ODETTE, _PRINTED),
            "stay": _STAY | {"ward": "Cardiologie"}, "registered_gp": gp(MARTIN),
        },
    ),
    "columns.pdf": Written(
        printed.columns(LUCIEN, DURAND),
        {
            "outcome": "notice", "format": "pdf", "event": "discharge", "document": "letter",
            "patient": person(LUCIEN, "ins key birth given sex born"),
            "stay": {name: value for name, value in _STAY.items() if name != "admitted"} | {"ward": "Cardiologie"},
            "author": {"name": AUTHOR.name, "rpps": AUTHOR.rpps}, "registered_gp": gp(DURAND),
        },
    ),
}  # fmt: skip
