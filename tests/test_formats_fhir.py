"""FHIR says who, when and whose patient by references: what they do not lead to, nobody guesses."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.formats import fhir
from relay.model import FollowUp, LocalId, Notice, Outcome, Patient, Person, Stay, Why
from relay.reading import read as read_mail
from relay.reading import read_file
from relay.recognition import recognise
from tests import letters
from tests.campaign import many
from tests.letters import DUPONT, MARTIN, ODETTE, ldl
from tests.letters import fhir as build

SAMPLES = Path(__file__).parents[2] / "shared" / "samples"
KNOWN = replace(ODETTE, ins_key_valid=None, postcode="45000")
Json = dict[str, Any]


def read(thing: Json) -> Notice:
    notice = fhir.read(build.dumped(thing))
    assert notice is not None
    return notice


def resource_of(thing: Json, kind: str) -> Json:
    """The first resource of a kind in a bundle, to be bent."""
    return next(e["resource"] for e in thing["entry"] if e["resource"]["resourceType"] == kind)  # type: ignore[attr-defined]


def codes(notice: Notice) -> set[str]:
    return {problem.code for problem in notice.problems}


# ------------------------------------------------------------------------------------------------ the project's letters


def test_a_document_bundle_says_all_that_routing_needs():
    notice = read(build.document())
    assert (notice.format, notice.event, notice.document, notice.code, notice.status) == (
        "fhir", "discharge", "letter", "11490-0", "final",
    )  # fmt: skip
    assert notice.document_id == "1.2.250.1.999.1.1.20261201.1"
    assert notice.set_id == "1.2.250.1.999.1.1.20261201"
    assert notice.patient == KNOWN
    assert notice.stay == Stay(
        admitted=datetime(2026, 11, 23, 8, 30, tzinfo=UTC), discharged=datetime(2026, 12, 1, 13, 0, tzinfo=UTC),
        discharged_exact=True, admitted_exact=True, number="S-2026-004217", facility="450000088",
        facility_name="CHR d'Exemple", ward="Service de Cardiologie", exit_mode="home",
    )  # fmt: skip
    assert notice.registered_gp == replace(MARTIN, phone=None)
    assert notice.author == letters.AUTHOR
    assert notice.awaited_results == ("Recherche de thrombophilie",)
    assert notice.follow_up == (FollowUp("Consultation de cardiologie 15/12/2026", date(2026, 12, 15)),)
    assert (notice.unknown, notice.problems, notice.recipients) == ((), (), ())


def told(*sections: Json, **of_stay: Any) -> Json:
    """The letter with these sections, and more said of its stay."""
    whole = build.document()
    one = next(
        each["resource"] for each in whole["entry"] if each["resource"]["resourceType"] == "Composition"
    )
    one["section"] = list(sections)
    stay = next(
        each["resource"] for each in whole["entry"] if each["resource"]["resourceType"] == "Encounter"
    )
    stay["hospitalization"] |= of_stay.pop("hospitalization", {})
    stay |= of_stay
    return whole


def referred(*people: Person) -> list[Json]:
    kind = build.concept("http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "REF")
    return [
        {"type": [kind], "individual": {"identifier": {"system": "urn:oid:1.2.250.1.71.4.2.1", "value": f"8{who.rpps}"},
                                        "display": f"Dr {who.name}"}}
        for who in people
    ]  # fmt: skip


def test_who_sent_the_patient_takes_part_in_the_stay_and_two_are_nobody():
    notice = read(told(participant=referred(DUPONT)))
    assert notice.referring_doctor is not None
    assert (notice.referring_doctor.name, notice.referring_doctor.rpps) == (DUPONT.name, DUPONT.rpps)
    assert notice.registered_gp == replace(MARTIN, phone=None)
    assert read(told(participant=referred(DUPONT, letters.DURAND))).referring_doctor is None
    assert read(told()).referring_doctor is None


@pytest.mark.parametrize(
    ("code", "words", "mode"),
    [("emd", "", "emergency"), ("hosp-trans", "", "hospital"), ("nursing", "", "nursing_home"),
     ("x", "Venu de son domicile", "home"), ("gp", "", None)],
)  # fmt: skip
def test_the_admit_source_is_the_entry_mode(code: str, words: str, mode: str | None):
    source = build.concept("http://terminology.hl7.org/CodeSystem/admit-source", code, words)
    notice = read(told(hospitalization={"admitSource": source}))
    assert notice.stay is not None
    assert (notice.stay.entry_mode, notice.stay.exit_mode) == (mode, "home")


def test_lists_of_treatments_are_read_whole_or_not_at_all():
    at_home = build.section("10183-2", "Bisoprolol 2,5 mg : 1 le matin", "Apixaban 5 mg : 1 matin et soir")
    stopped = build.section("18610-6", "Previscan")
    notice = read(told(at_home, stopped))
    assert notice.medications == ("Bisoprolol 2,5 mg : 1 le matin", "Apixaban 5 mg : 1 matin et soir")
    assert notice.stopped_medications == ("Previscan",)
    assert "medications" not in notice.unknown
    table = "<table><thead><tr><th>Produit</th></tr></thead><tbody><tr><td>Apixaban</td><td>5 mg</td></tr></tbody></table>"
    at_home["text"]["div"] = f"<div>{table}</div>"
    assert read(told(at_home)).medications == ("Apixaban 5 mg",)
    at_home["text"]["div"] = f"<div>{table}{'<thead>' * 30_000}</div>"
    began = time.process_time()
    read(told(at_home))
    assert time.process_time() - began < 2
    for div in ("<div><ul><li>Apixaban</li><li><del>Previscan</del></li></ul></div>",
                f"<div><ul>{'<li>Un autre</li>' * 101}</ul></div>", f"<div><p>{'mot ' * 100}</p></div>", ""):  # fmt: skip
        at_home["text"]["div"] = div
        spoilt = read(told(at_home))
        assert (spoilt.medications, "medications" in spoilt.unknown) == ((), True), div
    assert read(told(build.section("10183-2", "Aucun"))).medications == ()


def test_what_is_registered_without_a_result_is_awaited_and_an_appointment_is_a_follow_up():
    whole = build.document()
    waiting = {"resourceType": "Observation", "status": "registered", "code": {"text": "Sérologie Lyme"}}
    done = {**waiting, "status": "final", "code": {"text": "Ionogramme"}}
    kept = {
        "resourceType": "Appointment",
        "status": "booked",
        "description": "Écho-Doppler",
        "start": "2026-12-14T23:30:00Z",
    }
    gone = {**kept, "status": "cancelled", "description": "Scanner"}
    whole["entry"] += [{"resource": one} for one in (waiting, done, kept, gone)]
    notice = read(whole)
    assert notice.awaited_results == ("Recherche de thrombophilie", "Sérologie Lyme")
    assert [one.what for one in notice.follow_up] == ["Consultation de cardiologie 15/12/2026"], (
        "the letter's own first"
    )
    whole["entry"][0]["resource"]["section"] = []
    assert read(whole).follow_up == (FollowUp("Écho-Doppler", date(2026, 12, 15)),)


def test_a_letter_inside_brings_its_treatments_and_who_sent_the_patient():
    notice = read(build.reference(ldl.full(), who=None))
    assert "Furosémide 20 mg 1 le matin 1 mois" in notice.medications
    assert notice.referring_doctor is not None
    assert notice.referring_doctor.rpps == ldl.REFERRER.rpps


def test_a_notification_of_the_event_guide_is_a_discharge_whose_letter_is_to_come():
    notice = read(build.notification())
    assert (notice.event, notice.document, notice.code) == ("discharge", "advance_notice", "SOR")
    assert notice.patient == KNOWN
    assert notice.stay is not None
    assert (notice.stay.discharged, notice.stay.facility) == (
        datetime(2026, 12, 1, 13, 0, tzinfo=UTC),
        "450000088",
    )
    assert notice.registered_gp == replace(MARTIN, phone=None)
    assert [one.mss_address for one in notice.recipients] == [MARTIN.mss_address]
    assert read(build.notification(code="ADM")).event == "other"
    assert read({**build.notification(), "status": "revoked"}).document == "retraction"


@pytest.mark.parametrize(
    ("event", "told", "document"),
    [("A03", "discharge", "advance_notice"), ("A01", "admission", "advance_notice"), ("A13", "discharge", "retraction"),
     ("A11", "admission", "retraction"), ("A08", "other", "advance_notice")],
)  # fmt: skip
def test_a_message_tells_its_movement(event: str, told: str, document: str):
    notice = read(build.message(event))
    assert (notice.event, notice.document, notice.patient) == (told, document, KNOWN)


def test_a_document_reference_is_its_letter_completed_by_the_patient_around_it():
    notice = read(build.reference(letters.cda(patient=replace(ODETTE, ins=None, ins_oid=None))))
    assert (notice.format, notice.event, notice.document) == ("fhir", "discharge", "letter")
    assert notice.patient == KNOWN
    assert notice.registered_gp is not None
    assert notice.registered_gp.rpps == MARTIN.rpps
    empty = build.reference()
    empty["content"] = [{"attachment": {"url": "https://dpi.example/Binary/1"}}]
    assert read(empty).document == "advance_notice"


def test_a_binary_of_the_bundle_is_the_letter_its_reference_names():
    pointing = build.reference(who=None)
    data = pointing["content"][0]["attachment"].pop("data")  # type: ignore[index]
    pointing["content"][0]["attachment"]["url"] = "urn:uuid:b"  # type: ignore[index]
    bundle = build.bundle(
        "transaction", {"urn:uuid:d": pointing, "urn:uuid:b": {"resourceType": "Binary", "data": data}}
    )
    notice = read(bundle)
    assert (notice.event, notice.document, notice.problems) == ("discharge", "letter", ())
    assert notice.patient is not None
    assert notice.patient.ins == ODETTE.ins


def test_a_stay_alone_is_a_discharge_only_when_it_is_over_and_was_spent_in_a_bed():
    assert read(build.stay()).event == "discharge"
    for change, event in (({"status": "in-progress"}, None), ({"class": {"code": "AMB"}}, "other"),
                          ({"class": {"code": "EMER"}}, "er_visit"), ({"period": {"start": "2026-11-23"}}, None)):  # fmt: skip
        bent = build.stay()
        resource_of(bent, "Encounter").update(change)
        assert read(bent).event == event


def test_a_planned_end_is_no_discharge_time():
    bent = build.message("A01")
    resource_of(bent, "Encounter")["status"] = "in-progress"
    stay = read(bent).stay
    assert stay is not None
    assert (stay.admitted, stay.discharged) == (datetime(2026, 11, 23, 8, 30, tzinfo=UTC), None)


# ------------------------------------------------------------------------------------------------------- the patient


@pytest.mark.parametrize(
    ("names", "birth", "used", "kind"),
    [
        ([{"use": "official", "family": "CORMERAIS"}, {"use": "usual", "family": "VALBRUNE"}], "CORMERAIS", "VALBRUNE", "birth"),
        ([{"use": "official", "family": "VALBRUNE"}, {"use": "maiden", "family": "CORMERAIS"}], "CORMERAIS", "VALBRUNE", "birth"),
        ([{"use": "usual", "family": "VALBRUNE"}], None, "VALBRUNE", "used"),
        ([{"family": "VALBRUNE"}], "VALBRUNE", None, "unstated"),
        ([{"use": "old", "family": "X"}, {"use": "official", "family": "CORMERAIS"}], "CORMERAIS", None, "birth"),
        ([{"use": "official", "family": "X", "period": {"end": "2001"}}, {"use": "official", "family": "CORMERAIS"}],
         "CORMERAIS", None, "birth"),
    ],
)  # fmt: skip
def test_each_use_of_a_name_has_its_place(names: list[Json], birth: str | None, used: str | None, kind: str):
    bent = build.message()
    resource_of(bent, "Patient")["name"] = names
    patient = read(bent).patient
    assert patient is not None
    assert (patient.birth_name, patient.used_name, patient.name_kind) == (birth, used, kind)


def test_two_official_names_are_none():
    bent = build.message()
    resource_of(bent, "Patient")["name"] = [
        {"use": "official", "family": name} for name in ("CORMERAIS", "MOREL")
    ]
    notice = read(bent)
    assert notice.patient is not None
    assert notice.patient.birth_name is None
    assert notice.unknown == ("patient.birth_name",)


def test_an_identity_number_counts_by_its_oid():
    bent = build.message()
    resource_of(bent, "Patient")["identifier"] = [
        {"system": "http://hl7.org/fhir/sid/us-ssn", "value": "1", "type": {"coding": [{"code": "SS"}]}},
        {"system": "urn:oid:1.2.250.1.213.1.4.2", "value": "0123456789012345678901"},
        {"system": "urn:oid:1.2.250.1.213.1.4.9", "value": "248034523400724"},
        {"system": "urn:oid:1.2.250.1.213.1.4.8", "value": "2 48 03 45 234 007 24"},
        {"system": "urn:oid:1.2.3", "value": "12", "use": "old"},
        {"system": "urn:oid:1.2.4", "value": "13"},
    ]  # fmt: skip
    patient = read(bent).patient
    assert patient is not None
    assert (patient.ins, patient.ins_oid) == ("248034523400724", "1.2.250.1.213.1.4.8")
    assert patient.local_ids == (LocalId("1.2.4", "13"),)


@pytest.mark.parametrize("born", ["1948", "1948-03", "1948-02-31", "17/03/1948", 19480317])
def test_half_a_birth_date_is_unknown(born: object):
    bent = build.message()
    resource_of(bent, "Patient")["birthDate"] = born
    notice = read(bent)
    assert notice.patient is not None
    assert notice.patient.birth_date is None
    assert "patient.birth_date" in notice.unknown


def test_who_has_died_is_no_discharge():
    for change in ({"deceasedBoolean": True}, {"deceasedDateTime": "2026-12-01"}):
        bent = build.document()
        resource_of(bent, "Patient").update(change)
        assert read(bent).event == "death"
    bent = build.document()
    resource_of(bent, "Encounter")["hospitalization"] = {
        "dischargeDisposition": {"coding": [{"code": "exp"}]}
    }
    assert read(bent).event == "death"


def test_two_patients_are_two_unless_they_agree_on_who_they_are():
    other = letters.patient("MOREL", "Jean", born=date(1950, 1, 2), sex="M")
    bent = build.message()
    bent["entry"].append({"fullUrl": "urn:uuid:x", "resource": build.patient(other, ())})  # type: ignore[attr-defined]
    assert "two_patients" in codes(read(bent))
    twice = build.message()
    copy = {key: value for key, value in build.patient().items() if key != "address"}
    twice["entry"].append({"fullUrl": "urn:uuid:x", "resource": copy})  # type: ignore[attr-defined]
    assert codes(read(twice)) == set()


@pytest.mark.parametrize("kind", ["Composition", "Encounter"])
def test_a_letter_about_somebody_who_is_not_in_the_file_is_held(kind: str):
    bent = build.document()
    resource_of(bent, kind)["subject"] = {"reference": "Patient/somebody-else"}
    assert "two_patients" in codes(read(bent))
    resource_of(bent, kind)["subject"] = {
        "identifier": {"system": f"urn:oid:{ODETTE.ins_oid}", "value": ODETTE.ins}
    }
    assert read(bent).problems == ()


def test_the_same_number_on_another_server_is_another_person():
    bent = build.message()
    bent["entry"] = [  # type: ignore[index]
        {
            **entry,
            "fullUrl": f"https://a.example/fhir/{entry['resource']['resourceType']}/{entry['resource'].get('id', 1)}",
        }
        for entry in bent["entry"]  # type: ignore[attr-defined]
    ]
    patient, stay = resource_of(bent, "Patient"), resource_of(bent, "Encounter")
    stay["subject"] = {"reference": "Patient/odette"}
    resource_of(bent, "MessageHeader")["focus"] = [{"reference": "Encounter/stay"}]
    patient["generalPractitioner"] = [{"reference": "Practitioner/martin/_history/2"}]
    assert read(bent).registered_gp == replace(MARTIN, phone=None)
    for entry in bent["entry"]:  # type: ignore[attr-defined]
        if entry["resource"].get("id") == "martin":
            entry["fullUrl"] = "https://b.example/fhir/Practitioner/martin"
    notice = read(bent)
    assert notice.registered_gp is None
    assert "registered_gp" in notice.unknown


# ----------------------------------------------------------------------------------------------------------- the GP


def gp_of(*references: Json, more: tuple[Json, ...] = ()) -> Notice:
    bent = build.message()
    resource_of(bent, "Patient")["generalPractitioner"] = [*references]
    for number, one in enumerate(more):
        bent["entry"].append({"fullUrl": f"urn:uuid:more-{number}", "resource": one})  # type: ignore[attr-defined]
    return read(bent)


def test_a_gp_may_stand_as_a_role_at_a_practice():
    role = {"resourceType": "PractitionerRole", "practitioner": {"reference": build.DOCTOR},
            "organization": {"display": "Cabinet des Tilleuls"},
            "telecom": [{"system": "email", "value": "cabinet.tilleuls@medecin.mssante.fr"}]}  # fmt: skip
    gp = gp_of({"reference": "urn:uuid:more-0"}, more=(role,)).registered_gp
    assert gp is not None
    assert (gp.rpps, gp.organisation, gp.mss_address) == (
        MARTIN.rpps, "Cabinet des Tilleuls", "cabinet.tilleuls@medecin.mssante.fr",
    )  # fmt: skip


def test_a_gp_may_stand_by_their_number_alone():
    number = {"system": "https://rpps.esante.gouv.fr", "value": MARTIN.rpps}
    gp = gp_of({"identifier": number, "display": "Dr Camille MARTIN"}).registered_gp
    assert gp is not None
    assert (gp.rpps, gp.family_name, gp.given_name) == (MARTIN.rpps, "MARTIN", "Camille")


@pytest.mark.parametrize(
    "reference",
    [{"reference": "Practitioner/elsewhere"}, {"reference": "https://annuaire.example/Practitioner/1"}, {"reference": "#x"},
     {"reference": "urn:uuid:none", "display": "Dr Camille MARTIN"},
     {"reference": build.PATIENT}],
)  # fmt: skip
def test_a_reference_that_leads_to_no_doctor_makes_the_gp_unknown(reference: Json):
    notice = gp_of(reference)
    assert notice.registered_gp is None
    assert "registered_gp" in notice.unknown
    beside = gp_of({"reference": build.DOCTOR}, reference)
    assert beside.registered_gp is None, "the one who cannot be found may be the right one"


def test_two_gps_are_nobodys_to_choose_from():
    notice = gp_of(
        {"reference": build.DOCTOR}, {"reference": "urn:uuid:more-0"}, more=(build.practitioner(DUPONT),)
    )
    assert notice.registered_gp is None
    assert "registered_gp" in notice.unknown
    assert codes(notice) == {"many_gps"}


def test_a_number_that_contradicts_the_doctor_it_stands_beside_is_nobodys():
    notice = gp_of(
        {
            "reference": build.DOCTOR,
            "identifier": {"system": "urn:oid:1.2.250.1.71.4.2.1", "value": DUPONT.rpps},
        }
    )
    assert notice.registered_gp is None
    assert "registered_gp" in notice.unknown


def test_a_gp_number_that_cannot_be_read_is_unknown_not_absent():
    bent = build.message()
    for entry in bent["entry"]:  # type: ignore[attr-defined]
        if entry["resource"].get("id") == "martin":
            entry["resource"]["identifier"][0]["value"] = "8123"
    notice = read(bent)
    assert notice.registered_gp is not None
    assert notice.registered_gp.rpps is None
    assert "registered_gp.rpps" in notice.unknown


def test_recipients_and_authors_are_no_registered_gp_and_a_centre_is_one():
    bent = build.document(gp=None)
    assert read(bent).registered_gp is None
    assert read(bent).unknown == ()
    centre = {"resourceType": "Organization", "name": "Centre de santé des Quais"}
    gp = gp_of({"reference": "urn:uuid:more-0"}, more=(centre,)).registered_gp
    assert gp is not None
    assert (gp.name, gp.rpps, gp.organisation) == (None, None, "Centre de santé des Quais")


def test_an_ordinary_address_is_no_secure_mailbox():
    bent = build.message()
    for entry in bent["entry"]:  # type: ignore[attr-defined]
        if entry["resource"].get("id") == "martin":
            entry["resource"]["telecom"] = [{"system": "email", "value": "dr.martin@orange.example"}]
    gp = read(bent).registered_gp
    assert gp is not None
    assert gp.mss_address is None


# ------------------------------------------------------------------------------------------------- codes and safety


@pytest.mark.parametrize(
    ("code", "event", "document"),
    [("34112-3", "discharge", "letter"), ("18761-7", "admission", "letter"), ("15507-7", "er_visit", "letter"),
     ("11502-2", "other", "other")],
)  # fmt: skip
def test_a_neighbouring_code_keeps_its_own_meaning(code: str, event: str, document: str):
    notice = read(build.document(code=code))
    assert (notice.code, notice.event, notice.document) == (code, event, document)


def test_the_code_alone_makes_no_lettre_de_liaison():
    raw = build.dumped(build.document()).replace(b"1.2.250.1.", b"1.2.276.0.").replace(b"hl7.fr", b"hl7.de")
    notice = fhir.read(raw)
    assert notice is not None
    assert (notice.event, codes(notice)) == ("other", {"foreign_letter"})


def test_what_replaces_appends_or_withdraws_says_so():
    bent = build.document()
    letter = resource_of(bent, "Composition")
    old = {"system": "urn:ietf:rfc:3986", "value": "urn:oid:1.2.3"}
    letter["relatesTo"] = [{"code": "replaces", "targetIdentifier": old}]
    assert (read(bent).document, read(bent).replaces) == ("replacement", "1.2.3")
    letter["relatesTo"] = [{"code": "replaces", "targetReference": {"reference": "Composition/gone"}}]
    assert "replaces" in read(bent).unknown
    letter["relatesTo"] = [{"code": "appends", "targetIdentifier": old}]
    assert read(bent).document == "addendum"
    letter.update({"relatesTo": [], "status": "entered-in-error"})
    assert (read(bent).document, read(bent).retracts) == ("retraction", "1.2.250.1.999.1.1.20261201.1")
    letter["status"] = "preliminary"
    assert read(bent).status == "draft"
    assert read({**build.reference(), "status": "superseded"}).problems != ()


def test_a_mask_or_an_objection_is_seen_wherever_it_stands():
    for place in ("Composition", "Patient"):
        bent = build.document()
        resource_of(bent, place)["meta"] = {"security": [{"code": "MASQUE_PS"}]}
        assert read(bent).consent == "masked"
    bent = build.document()
    consent: Json = {"resourceType": "Consent", "status": "active", "provision": {"type": "deny"}}
    bent["entry"].append({"fullUrl": "urn:uuid:c", "resource": consent})  # type: ignore[attr-defined]
    assert read(bent).consent == "opposed"
    consent["provision"] = {"type": "permit", "provision": [{"type": "deny"}]}
    assert (read(bent).consent, read(bent).unknown) == (None, ("consent",))


def test_an_embedded_letter_of_somebody_else_holds_the_whole():
    other = letters.patient("MOREL", "Jean", born=date(1950, 1, 2), sex="M")
    assert "two_patients" in codes(read(build.reference(letters.cda(patient=other))))


def test_an_embedded_letter_with_another_gp_leaves_none():
    bent = build.reference(letters.cda(gp=DUPONT), who=None)
    bent["contained"] = [
        {**build.patient(gps=[{"reference": "#gp"}]), "id": "pat"},
        {**build.practitioner(MARTIN), "id": "gp"},
    ]
    bent["subject"] = {"reference": "#pat"}
    notice = read(bent)
    assert notice.registered_gp is None
    assert "registered_gp" in notice.unknown


@pytest.mark.parametrize("change", [{"size": 12}, {"hash": "AAAA"}, {"data": "%%%"}])
def test_a_document_that_is_not_the_one_announced_breaks_the_package(change: Json):
    bent = build.reference()
    bent["content"][0]["attachment"].update(change)  # type: ignore[index]
    assert "broken_package" in codes(read(bent))


@pytest.mark.parametrize(
    "break_it",
    [
        lambda raw: raw[:-2],
        lambda raw: raw.replace(b'"status": "final"', b'"status": NaN'),
        lambda raw: raw.replace(b'"status": "final"', b'"status": 1' + b"0" * 5000),
        lambda raw: raw.replace(b'"status": "final"', b'"status": "final", "status": "final"'),
        lambda raw: raw.replace(b'"status": "final"', b'"status": ' + b"[" * 200 + b"]" * 200),
        lambda raw: raw.replace(b'"status": "final"', b'"status": ' + b"[" * 200_000 + b"]" * 200_000),
        lambda raw: raw.replace(b'"status": "final"', b'"status": [' + b"1," * 400_000 + b"1]"),
        lambda raw: raw.replace(b"CORMERAIS", b"\xff\xfe\xff"),
        lambda raw: raw + b" " * (fhir.MAX_JSON + 1),
    ],
    ids=["cut", "NaN", "long number", "twice", "deep", "very deep", "many", "charset", "large"],
)
def test_json_that_breaks_a_bound_is_refused_with_a_reason(break_it: Callable[[bytes], bytes]):
    raw = build.dumped(build.document())
    notice = fhir.read(break_it(raw))
    assert notice is not None
    assert (notice.patient, codes(notice)) == (None, {"unreadable_document"})
    found = recognise(read_file("lettre.json", break_it(raw)))
    assert (found.outcome, found.why) == (Outcome.UNCLEAR, Why.BROKEN_PACKAGE)


def test_text_that_no_store_takes_is_cleaned():
    bent = build.document()
    resource_of(bent, "Patient")["name"] = [
        {"use": "official", "family": "COR\x00ME\ud800RAIS\u202e", "given": ["Odette"]}
    ]
    notice = fhir.read(json.dumps(bent).encode())
    assert notice is not None
    assert notice.patient is not None
    assert notice.patient.birth_name == "CORMERAIS"


def test_other_json_is_not_ours():
    for other in (b"{}", b"[]", b'{"a": 1}', b'{"a":', b'{"resourceType": 3}', b"nothing", b""):
        assert fhir.read(other) is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_every_encoding_of_json_is_read(encoding: str):
    notice = fhir.read(build.dumped(build.document()).decode().encode(encoding))
    assert notice is not None
    assert notice.patient == KNOWN


# -------------------------------------------------------------------------------------------------- as it arrives


def test_a_file_and_an_attachment_are_recognised():
    raw = build.dumped(build.document())
    found = recognise(read_file("sortie.json", raw))
    assert (found.outcome, found.notice.format, found.notice.event) == (Outcome.NOTICE, "fhir", "discharge")
    assert found.notice.patient is not None
    assert found.notice.patient.ins_key_valid is True
    mail = letters.mail("Voir.", sender=letters.WARD, to=letters.RELAY_IN,
                        attachments=[("sortie.json", raw, "application/fhir+json")])  # fmt: skip
    by_mail = recognise(read_mail(mail))
    assert (by_mail.outcome, by_mail.notice.package) == (Outcome.NOTICE, "mime")


def test_a_communication_that_was_sent_tells_its_event_like_the_request_for_one():
    asked = build.notification()
    sent = {**asked, "resourceType": "Communication", "status": "completed", "sender": asked["requester"]}
    found, wanted = read(sent), read(asked)
    assert (found.event, found.document, found.code) == ("discharge", "advance_notice", "SOR")
    assert (found.patient, found.registered_gp) == (wanted.patient, wanted.registered_gp)
    with_letter = {**sent, "payload": [{"contentAttachment": {"contentType": "application/pdf",
                                                              "data": base64.b64encode(letters.pdf()).decode()}}]}  # fmt: skip
    assert read(with_letter).document == "letter"
    noted = {
        **sent,
        "payload": [{"contentAttachment": {"contentType": "text/plain", "data": "Qm9uam91cg=="}}],
    }
    assert read(noted).document == "advance_notice"


@pytest.mark.parametrize("event", ["A11", "A12", "A13"])
def test_a_cancelled_movement_takes_back_no_document_of_its_own_name(event: str):
    notice = read(
        {**build.message(event), "identifier": {"system": "urn:ietf:rfc:3986", "value": "urn:uuid:1-2-3"}}
    )
    assert (notice.document, notice.retracts, notice.document_id) == ("retraction", None, "1-2-3")


def test_a_subscription_is_no_event():
    subscription = {**build.notification(), "resourceType": "Subscription"}
    found = recognise(read_file("abonnement.json", build.dumped(subscription)))
    assert (found.outcome, found.notice.event, codes(found.notice)) == (
        Outcome.UNCLEAR,
        None,
        {"subscription"},
    )


# ------------------------------------------------------------------------------------------------- shared samples

_LISTS = frozenset({"contained", "extension", "coding", "identifier", "name", "given", "prefix", "suffix", "telecom", "address",
                    "line", "payload", "recipient", "medium", "basedOn"})  # fmt: skip


def from_shorthand(text: str, beside: str) -> Json:
    """The JSON of a FHIR Shorthand instance as the event guide writes it; `beside` holds those it contains."""
    instances: dict[str, Json] = {}
    for block in re.split(r"(?m)^(?=Instance: )", f"{text}\n{beside}"):
        if not block.startswith("Instance: "):
            continue
        profile = re.search(r"InstanceOf: (\S+)", block)[1]  # type: ignore[index]
        kind = next(one for one in ("Subscription", "Notification", "Declaration", "Patient", "Organization", "Practitioner")
                    if one in profile)  # fmt: skip
        kind = {"Notification": "CommunicationRequest", "Declaration": "CommunicationRequest"}.get(kind, kind)
        root: Json = {"resourceType": kind, "id": block.split()[1]}
        instances[block.split()[1]] = root
        for path, value in re.findall(r"(?m)^\* (\S+) = (.+?)\s*$", block):
            _set(root, path, value)
    first = next(iter(instances.values()))
    first["contained"] = [instances[str(one)] for one in first.pop("contained", [])]  # type: ignore[attr-defined]
    return first


def _set(root: Json, path: str, text: str) -> None:
    value: object = text
    if text.startswith('"'):
        value = text.strip('"')
    elif inner := re.fullmatch(r"Reference\((.+)\)", text):
        value = {"reference": inner[1] if ":" in inner[1] else f"#{inner[1]}"}
    elif coded := re.fullmatch(r'(\S*)#(\S+)(?: "(.*)")?', text):
        value = coded[2] if not coded[1] and not coded[3] else {"system": coded[1], "code": coded[2]}
    steps = re.findall(r"([\w]+)(?:\[([^\]]*)\])?", path)
    place: Json = root
    for number, (name, index) in enumerate(steps):
        last = number == len(steps) - 1
        if name not in _LISTS and not index:
            if last:
                if isinstance(value, dict) and isinstance(place.get(name), dict):
                    value = {**place[name], **value}  # type: ignore[dict-item]
                place[name] = value
            else:
                place = place.setdefault(name, {})  # type: ignore[assignment]
            continue
        items: list[object] = place.setdefault(name, [])  # type: ignore[assignment]
        if index and not index.isdigit() and index not in "+=":  # a slice: extensions are known by their URL
            known = [
                one for one in items if isinstance(one, dict) and one.get("url") == f"https://example/{index}"
            ]
            if not known:
                items.append({"url": f"https://example/{index}"} if name == "extension" else {})
                known = [items[-1]]  # type: ignore[list-item]
            place = known[0]  # type: ignore[assignment]
            continue
        if last:
            if items and isinstance(items[0], dict) and isinstance(value, dict):
                items[0].update(value)
            else:
                items.append(value)
        else:
            if index == "+" or not items:
                items.append({})
            place = items[-1]  # type: ignore[assignment]


@pytest.mark.parametrize("number", [1, 3, 4])
def test_the_examples_of_the_event_guide_say_what_their_truth_says(number: int):
    """They come as shorthand. The names stand as `usual`: used names, for nobody says that they are birth names."""
    folder = SAMPLES / "french" / "ansforge+interop-ig-fhir-notification-evenements"
    if not folder.is_dir():
        pytest.skip("shared samples are not here")
    truth = json.loads((folder / f"Exemple{number}_SOR.fsh.truth.json").read_text("utf-8"))
    beside = (folder / "Exemple1_SOR.fsh").read_text("utf-8")
    thing = from_shorthand((folder / f"Exemple{number}_SOR.fsh").read_text("utf-8"), beside)
    assert thing["resourceType"] == truth["resource"]
    notice = read(thing)
    assert notice.code == truth["event_type"]
    assert (notice.event == "discharge") == (truth.get("discharge_notice") == "yes")
    if time_ := truth.get("event_time"):
        assert notice.stay is not None
        assert notice.stay.discharged == datetime.fromisoformat(time_.replace("Z", "+00:00"))
        assert notice.document == "advance_notice"
    if who := truth.get("patient"):
        assert notice.patient is not None
        assert notice.patient == Patient(used_name=who["family"], given_names=(who["given"],), sex=who["sex"],
                                         birth_date=date.fromisoformat(who["birth_date"]), name_kind="used")  # fmt: skip
    for one in notice.recipients:
        assert one.mss_address is None, "the endpoint of the example is no secure mailbox"


def test_a_directory_extract_that_is_no_json_is_refused_with_a_reason():
    files = sorted((SAMPLES / "french" / "ansforge+annuaire-sante-fhir-documentation").glob("*-?.json"))
    if not files:
        pytest.skip("shared samples are not here")
    for file in files:
        assert json.loads(file.with_name(file.name + ".truth.json").read_text("utf-8"))["valid_json"] is False
        notice = fhir.read(file.read_bytes())
        assert notice is not None
        assert codes(notice) == {"unreadable_document"}


@pytest.mark.parametrize(
    ("name", "event"),
    [("admit-notification-message-bundle-01", "admission"), ("transfer-notification-message-bundle-01", "transfer"),
     ("admit-notification-intermediate-transmit-bundle", "admission")],
)  # fmt: skip
def test_a_foreign_alert_is_no_discharge_here(name: str, event: str):
    file = SAMPLES / "health" / "davinci_alerts" / f"{name}.json"
    if not file.is_file():
        pytest.skip("shared samples are not here")
    notice = fhir.read(file.read_bytes())
    assert notice is not None
    assert (notice.event, notice.registered_gp) == (event, None)
    assert notice.patient is not None
    assert (notice.patient.birth_name, notice.patient.birth_date) == ("Halvorson124", date(2000, 10, 15))
    assert notice.stay is not None
    assert notice.stay.discharged is None, "the stay goes on"


def test_no_hostile_json_raises_or_takes_long():
    files = [
        file
        for folder in ("fhir-test-cases", "json-test-suite")
        for file in sorted((SAMPLES / "torture" / folder).rglob("*.json"))
    ]
    if not files:
        pytest.skip("shared samples are not here")
    for file in files:
        started = time.perf_counter()
        found = recognise(read_file(file.name, file.read_bytes()))
        assert time.perf_counter() - started < 2
        assert found.notice.event != "discharge"
        assert found.outcome is Outcome.NOTICE or found.why is not None, file.name


# ---------------------------------------------------------------------------------------------------------- fuzzing

_SEEDS = [
    build.dumped(one) for one in (build.document(), build.message(), build.notification(), build.stay())
]


@settings(max_examples=many(150), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(raw=st.sampled_from(_SEEDS), data=st.data())
def test_no_mutation_raises(raw: bytes, data: st.DataObject):
    place = data.draw(st.integers(0, len(raw) - 1))
    length = data.draw(st.integers(0, 60))
    new = data.draw(
        st.sampled_from(
            [b"", b"null", b"[]", b"{}", b'"', b"1e999", b"\xff", b'"#"', b"[[", b'{"reference":"#"}']
        )
    )
    fhir.read(raw[:place] + new + raw[place + length :])


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "#", "Patient/1", "urn:uuid:0", "SOR", "2026", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["reference", "identifier", "system", "value", "coding", "code", "extension", "url"]), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=many(150), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(kind=st.sampled_from([build.document, build.message, build.stay]), data=st.data())
def test_no_value_in_any_place_raises_or_makes_the_reading_fail(
    kind: Callable[[], Json], data: st.DataObject
):
    thing = kind()
    inside: Json = data.draw(st.sampled_from(thing["entry"]))["resource"]  # type: ignore[call-overload]
    name = data.draw(st.sampled_from(sorted(inside)))
    if name != "resourceType":
        inside[name] = data.draw(_VALUES)
    notice = fhir.read(json.dumps(thing).encode())
    assert notice is not None
    assert "unreadable_document" not in codes(notice)


def test_a_document_is_read_fast():
    raw = build.dumped(build.reference(base64.b64encode(bytes(75_000)), "application/octet-stream"))
    started = time.process_time()
    for _ in range(20):
        fhir.read(raw)
    assert (time.process_time() - started) / 20 < 0.02


# ------------------------------------------------------------------------ what senders write instead of the profiles


def test_a_gp_named_by_words_alone_is_a_name_without_a_number():
    thing = build.document()
    resource_of(thing, "Patient")["generalPractitioner"] = [{"display": "Dr Camille MARTIN"}]
    notice = read(thing)
    assert notice.registered_gp == Person(name="Camille MARTIN", family_name="MARTIN", given_name="Camille")
    assert notice.unknown == ()


@pytest.mark.parametrize("system", [None, "https://identifiant.esante.gouv.fr/NamingSystem/ins-nir"])
def test_an_ins_without_its_oid_stands_there_unread(system: str | None):
    thing = build.document()
    said = {
        "type": {"coding": [{"code": "INS-NIR"}]},
        "value": ODETTE.ins,
        **({"system": system} if system else {}),
    }
    resource_of(thing, "Patient")["identifier"] = [said]
    notice = read(thing)
    assert notice.patient is not None
    assert notice.patient.ins is None
    assert "patient.ins" in notice.unknown


def test_a_name_in_words_alone_is_taken_apart():
    thing = build.document()
    resource_of(thing, "Patient")["name"] = [{"text": "Mme VALBRUNE née CORMERAIS Odette"}]
    patient = read(thing).patient
    assert patient is not None
    assert (patient.birth_name, patient.used_name, patient.given_names) == (
        "CORMERAIS",
        "VALBRUNE",
        ("Odette",),
    )


def test_a_prefix_states_the_sex_where_none_is_given():
    thing = build.document()
    who = resource_of(thing, "Patient")
    del who["gender"]
    who["name"][0]["prefix"] = ["MME"]
    patient = read(thing).patient
    assert patient is not None
    assert patient.sex == "F"
