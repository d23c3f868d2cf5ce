"""Discharges in FHIR R4: bundles and resources as French hospitals write them, built as plain JSON.

    document()      a document bundle, Composition 11490-0          message()      A03 of a MessageHeader
    notification()  CommunicationRequest of the event guide (SOR)   reference()    DocumentReference with its letter
    stay()          a collection of Patient and Encounter           dumped()       any of them as bytes

Every function gives a dict that a test may bend before `dumped`.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from datetime import datetime

from relay.model import Patient, Person
from tests import letters
from tests.letters import ADMITTED, AUTHOR, DISCHARGED, MARTIN, ODETTE, SENT

Json = dict[str, object]

INSEE = "https://hl7.fr/ig/fhir/core/StructureDefinition/fr-core-address-insee-code"
LIST = "https://hl7.fr/ig/fhir/core/StructureDefinition/fr-core-patient-birth-list-given-name"
EVENTS = "https://mos.esante.gouv.fr/NOS/TRE_R254-TypeEvenement/FHIR/TRE-R254-TypeEvenement"
NDE = "https://interop.esante.gouv.fr/ig/fhir/nde/StructureDefinition/"
PATIENT, DOCTOR, WRITER, WARD, HOSPITAL, STAY = (
    f"urn:uuid:00000000-0000-4000-8000-00000000000{n}" for n in range(6)
)


def dumped(resource: Json) -> bytes:
    """As it travels."""
    return json.dumps(resource, ensure_ascii=False, indent=1).encode()


def concept(system: str, code: str, display: str = "") -> Json:
    return {"coding": [{"system": system, "code": code, "display": display}]}


def patient(who: Patient = ODETTE, gps: Sequence[Json] = ({"reference": DOCTOR},)) -> Json:
    """The FR Core patient: official is the birth name, usual the used one."""
    names: list[Json] = [
        {"use": "official", "family": who.birth_name, "given": [*who.given_names[:1]],
         "extension": [{"url": LIST, "valueString": " ".join(who.given_names)}]}
    ]  # fmt: skip
    if who.used_name:
        names.append({"use": "usual", "family": who.used_name, "given": [*who.given_names[:1]]})
    identifiers: list[Json] = [
        {"use": "usual", "type": concept("http://terminology.hl7.org/CodeSystem/v2-0203", "PI"),
         "system": f"urn:oid:{one.system}", "value": one.value}
        for one in who.local_ids
    ]  # fmt: skip
    if who.ins:
        kind = concept("https://hl7.fr/ig/fhir/core/CodeSystem/fr-core-cs-v2-0203", "INS-NIR")
        identifiers.append(
            {"use": "official", "type": kind, "system": f"urn:oid:{who.ins_oid}", "value": who.ins}
        )
    place = {"city": "Orléans", "extension": [{"url": INSEE, "valueCoding": {"code": who.birth_place}}]}
    return {
        "resourceType": "Patient",
        "id": "odette",
        "identifier": identifiers,
        "name": names,
        "gender": {"F": "female", "M": "male"}.get(who.sex or "", "unknown"),
        "birthDate": who.birth_date.isoformat() if who.birth_date else None,
        "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/patient-birthPlace", "valueAddress": place}],
        "address": [{"use": "home", "postalCode": "45000", "city": "Orléans"}],
        "generalPractitioner": [*gps],
    }  # fmt: skip


def practitioner(who: Person, identifier: str | None = None) -> Json:
    """A doctor with RPPS and secure mailbox."""
    telecom: list[Json] = [{"system": "email", "value": who.mss_address}] if who.mss_address else []
    if who.phone:
        telecom.append({"system": "phone", "value": who.phone})
    return {
        "resourceType": "Practitioner",
        "id": identifier or (who.family_name or "").lower(),
        "identifier": [{"system": "urn:oid:1.2.250.1.71.4.2.1", "value": f"8{who.rpps}"}] if who.rpps else [],
        "name": [{"family": who.family_name, "given": [who.given_name], "prefix": ["DR"]}],
        "telecom": telecom,
    }


def encounter(end: datetime | None = DISCHARGED, code: str = "home", status: str = "finished") -> Json:
    period = {"start": ADMITTED.isoformat()} | ({"end": end.isoformat()} if end else {})
    return {
        "resourceType": "Encounter",
        "id": "stay",
        "identifier": [{"system": "urn:oid:1.2.250.1.999.2.3", "value": "S-2026-004217"}],
        "status": status,
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
        "subject": {"reference": PATIENT},
        "period": period,
        "hospitalization": {
            "dischargeDisposition": concept("http://terminology.hl7.org/CodeSystem/discharge-disposition", code)
        },
        "serviceProvider": {"reference": WARD},
    }  # fmt: skip


def organisations() -> dict[str, Json]:
    """The ward and the hospital it belongs to."""
    return {
        WARD: {"resourceType": "Organization", "id": "ward", "name": "Service de Cardiologie",
               "partOf": {"reference": HOSPITAL}},
        HOSPITAL: {"resourceType": "Organization", "id": "hospital", "name": "CHR d'Exemple",
                   "identifier": [{"system": "urn:oid:1.2.250.1.71.4.2.2", "value": "1450000088"}]},
    }  # fmt: skip


def bundle(kind: str, resources: dict[str, Json]) -> Json:
    entries = [{"fullUrl": url, "resource": resource} for url, resource in resources.items()]
    return {"resourceType": "Bundle", "type": kind, "entry": entries}


def people(who: Patient = ODETTE, gp: Person | None = MARTIN) -> dict[str, Json]:
    """Patient, GP, author, ward, hospital and stay."""
    found = {PATIENT: patient(who, ({"reference": DOCTOR},) if gp else ())}
    if gp:
        found[DOCTOR] = practitioner(gp)
    return found | {WRITER: practitioner(AUTHOR)} | organisations() | {STAY: encounter()}


def section(code: str, *rows: str) -> Json:
    items = "".join(f"<li>{row}</li>" for row in rows)
    return {"code": concept("http://loinc.org", code),
            "text": {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml"><ul>{items}</ul></div>'}}  # fmt: skip


def document(who: Patient = ODETTE, gp: Person | None = MARTIN, *, code: str = "11490-0") -> Json:
    """The letter itself as FHIR."""
    composition: Json = {
        "resourceType": "Composition",
        "id": "letter",
        "identifier": {"system": "urn:ietf:rfc:3986", "value": "urn:oid:1.2.250.1.999.1.1.20261201"},
        "status": "final",
        "type": concept("http://loinc.org", code, "Lettre de liaison à la sortie"),
        "subject": {"reference": PATIENT},
        "encounter": {"reference": STAY},
        "date": SENT.isoformat(),
        "author": [{"reference": WRITER}],
        "title": "Lettre de liaison à la sortie de l'établissement",
        "custodian": {"reference": HOSPITAL},
        "section": [section("30954-2", "Recherche de thrombophilie", "Aucun"),
                    section("18776-5", "Consultation de cardiologie 15/12/2026")],
    }  # fmt: skip
    found = bundle(
        "document", {"urn:uuid:00000000-0000-4000-8000-000000000009": composition, **people(who, gp)}
    )
    found["identifier"] = {"system": "urn:ietf:rfc:3986", "value": "urn:oid:1.2.250.1.999.1.1.20261201.1"}
    return found


def message(event: str = "A03", who: Patient = ODETTE, gp: Person | None = MARTIN) -> Json:
    """A movement as a FHIR message."""
    header: Json = {
        "resourceType": "MessageHeader",
        "eventCoding": {"system": "http://terminology.hl7.org/CodeSystem/v2-0003", "code": event},
        "source": {"endpoint": "https://dpi.chr-exemple.example/fhir"},
        "sender": {"reference": HOSPITAL},
        "focus": [{"reference": STAY}],
    }
    return bundle("message", {"urn:uuid:00000000-0000-4000-8000-000000000008": header, **people(who, gp)})


def notification(who: Patient = ODETTE, gp: Person | None = MARTIN, *, code: str = "SOR") -> Json:
    """A notification request of the guide, everything contained."""
    doctor = [{**practitioner(gp), "id": "gp"}] if gp else []
    home = {"resourceType": "Organization", "id": "org", "name": "CHR d'Exemple",
            "identifier": [{"system": "https://finess.esante.gouv.fr", "value": "450000088"}]}  # fmt: skip
    return {
        "resourceType": "CommunicationRequest",
        "contained": [{**patient(who, [{"reference": "#gp"}] if gp else []), "id": "pat"}, *doctor, home],
        "extension": [
            {"url": f"{NDE}nde-event-time", "valueDateTime": DISCHARGED.isoformat()},
            {"url": f"{NDE}nde-event-emission-time", "valueDateTime": SENT.isoformat()},
            {"url": f"{NDE}nde-event-type", "valueCodeableConcept": concept(EVENTS, code, "Sortie d'un patient")},
        ],
        "status": "active",
        "subject": {"reference": "#pat"},
        "requester": {"reference": "#org"},
        "recipient": [
            {"reference": "#gp", "extension": [{"url": f"{NDE}nde-recipient-endpoint",
                                                "valueUrl": f"mailto:mailto:{gp.mss_address}"}]}
        ] if gp else [],
        "payload": [{"contentString": "Notification de sortie"}],
    }  # fmt: skip


def reference(
    content: bytes | None = None, media_type: str = "text/xml", *, who: Patient | None = ODETTE
) -> Json:
    """A DocumentReference that carries its letter; None: the CDA of Odette."""
    content = letters.cda() if content is None else content
    found: Json = {
        "resourceType": "DocumentReference",
        "contained": [{**patient(who, ()), "id": "pat"}] if who else [],
        "masterIdentifier": {"system": "urn:ietf:rfc:3986", "value": "urn:oid:1.2.250.1.999.1.1.20261201.1"},
        "status": "current",
        "type": concept("http://loinc.org", "11490-0", "Lettre de liaison à la sortie"),
        "description": "Lettre de liaison",
        "content": [{"attachment": {
            "contentType": media_type,
            "data": base64.b64encode(content).decode(),
            "size": len(content),
            "hash": base64.b64encode(hashlib.sha1(content).digest()).decode(),
        }}],
    }  # fmt: skip
    if who:
        found["subject"] = {"reference": "#pat"}
    return found


def stay(who: Patient = ODETTE, gp: Person | None = MARTIN) -> Json:
    """Only who was there, and that they have left."""
    return bundle("collection", people(who, gp))
