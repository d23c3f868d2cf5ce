"""Every way in which a letter's registered GP can stand: one row each, with its outcome, the rule that matches it, and the words.

A row is decided as the relay decides it: letter, registry and directory → resolution → facts → rules. The
words are those that desk and ward read when such a letter is held.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from relay import resolution
from relay.identity import INS_TEST, NIR, fold
from relay.model import (
    Absence,
    LocalId,
    Mailbox,
    Notice,
    Patient,
    Person,
    Professional,
    Registration,
    Resolution,
    Stay,
)
from relay.wording import GP_BECAUSE, IDENTITY_BECAUSE, Words
from rules import engine, language
from tests.letters import DUPONT, MARTIN, doctor
from tests.population import DOMAINS, FACILITY
from tests.stores import Place
from tests.test_loops import SENDER, House, house, letters  # noqa: F401 - fixture
from tests.test_planning import _secret, make_site  # noqa: F401 - fixture

INS, MOTHERS = "279035121518989", "277076322082910"
AMBRE, BREME, CORAIL, NOBODY = "10000000001", "10000000002", "10000000003", "10000000009"
ARRIVED = datetime(2026, 12, 4, 17, tzinfo=UTC)

ODETTE = Patient(
    ins=INS, ins_oid=NIR, ins_key_valid=True, birth_name="CORMERAIS", given_names=("Odette",),
    birth_date=date(1979, 3, 28), sex="F", name_kind="birth",
)  # fmt: skip
KNOWN = Registration(
    ins=INS, ins_oid=NIR, facility=FACILITY, local_id="42", birth_name="Cormerais", given_names=("Odette",),
    birth_date=date(1979, 3, 28), sex="F", gp_rpps=(AMBRE,), consent="allowed",
)  # fmt: skip
BABY = Patient(
    birth_name="CORMERAIS", given_names=("Ulysse",), birth_date=date(2026, 12, 1), sex="M", name_kind="birth"
)


def gp(rpps: str, family: str, given: str, *boxes: Mailbox, **more: Any) -> Professional:
    return Professional(rpps, family, given, more.pop("profession", "10"), "SM54", boxes, **more)


OWN = Mailbox("lea.ambre@medecin.mssante.fr", "PER")
PRACTICE = Mailbox("cabinet.ambre@cpts.mssante.fr", "CAB", "Cabinet des Aydes")
AT_CENTRE = Mailbox("lea.ambre@centre.mssante.fr", "PER", "Centre de santé des Aydes")
TEAM = Mailbox("accueil@centre.mssante.fr", "ORG", "Centre de santé des Aydes")
LEA = gp(AMBRE, "AMBRE", "Léa", OWN)
PAUL = gp(BREME, "Brême", "Paul", Mailbox("paul.breme@medecin.mssante.fr"))
COUSIN = gp(CORAIL, "Ambre", "Noé", Mailbox("noe.ambre@medecin.mssante.fr"))
EVERYBODY = (LEA, PAUL, COUSIN)
LEFT = Professional(AMBRE, active=False)  # of whom the directory keeps the number only

NAMED = Person(family_name="Ambre", given_name="Léa", rpps=AMBRE)
BY_NAME = Person(name="Dr Léa AMBRE", family_name="AMBRE", given_name="Léa")

RULES = """\
version: 1
timezone: Europe/Paris
targets:
  gp: { who: registered_gp, via: [mss], carries: document }
  sorties: { who: desk/sorties, via: [mss], carries: document }
followups:
  court:
    await: ack
    ack: { within: 2h, clock: real }
    ladder: [ { after: 4h, hand_to: sorties } ]
rules:
  - { id: opposition, when: { consent: opposed }, hold: sorties, reason: "x" }
  - { id: masque, when: { consent: masked }, hold: sorties, reason: "x" }
  - { id: douteuse, when: { identity: [doubtful, test] }, hold: sorties, reason: "x" }
  - { id: sans, when: { gp: none }, hold: sorties, reason: "x" }
  - { id: plusieurs, when: { gp: many }, hold: sorties, reason: "x" }
  - { id: contredit, when: { gp: conflict }, hold: sorties, reason: "x" }
  - { id: parti, when: { gp: left }, hold: sorties, reason: "x" }
  - { id: sans-boite, when: { gp: no_mailbox }, hold: sorties, reason: "x" }
  - { id: deces, when: { event: death }, send: gp, followup: court }
  - { id: naissance, when: { age: { lt: 1 } }, send: gp, followup: court }
  - { id: deja-adressee, when: { addressed: yes }, send: gp, followup: court }
  - { id: lettre, when: { gp_source: notice }, send: gp, followup: court }
  - { id: registre, when: { gp_source: registry }, send: gp, followup: court }
  - { id: accord, when: { gp_source: both }, send: gp, followup: court }
default: { hold: sorties, reason: "Aucune règle ne correspond" }
"""


@dataclass(frozen=True)
class Row:
    """One way; what is left out stands as in an ordinary letter."""

    name: str
    gp: str
    rule: str
    mailbox: str = ""
    says: tuple[str, ...] = ()  # notes whose words the reader of a hold gets, all and in order
    stated: Person | None = None
    patient: Patient = ODETTE
    registered: tuple[str, ...] | None = ()
    directory: tuple[Professional, ...] = EVERYBODY
    identity: str = "qualified"
    event: str = "discharge"
    known: Registration = KNOWN
    owners: tuple[tuple[str, str], ...] = ()
    letter: tuple[tuple[str, Any], ...] = ()  # further fields of the notice
    candidates: tuple[str, ...] | None = None


def boxes(*some: Mailbox) -> tuple[Professional, ...]:
    return (replace(LEA, mailboxes=some), PAUL)


def lettre(**fields: Any) -> tuple[tuple[str, Any], ...]:
    return tuple(fields.items())


ROWS = (
    # ------------------------------------------------------------------------------------------- order
    Row("the letter names one by RPPS, the registry is silent", "found", "lettre", OWN.address, stated=NAMED),
    Row("letter and registry agree", "found", "accord", OWN.address, stated=NAMED, registered=(AMBRE,)),
    Row("the letter is silent, the registry names one", "found", "registre", OWN.address, registered=(AMBRE,)),
    Row("a recipient is no registered GP", "none", "sans", says=("no_gp",),
        letter=lettre(recipients=(Person(name="Dr Paul BRÊME", rpps=BREME),))),
    Row("a recipient does not outweigh the registered GP", "found", "registre", OWN.address, registered=(AMBRE,),
        letter=lettre(recipients=(Person(name="Dr Paul BRÊME", rpps=BREME),))),
    Row("the doctor who sent the patient is no registered GP", "none", "sans", says=("no_gp",),
        letter=lettre(referring_doctor=Person(name="Dr Paul BRÊME", rpps=BREME))),
    Row("the author is no registered GP", "none", "sans", says=("no_gp",),
        letter=lettre(author=Person(name="Dr Paul BRÊME", rpps=BREME))),
    # --------------------------------------------------------------------------------------- conflicts
    Row("letter and registry name two", "conflict", "contredit", says=("registry_other_gp",), stated=NAMED,
        registered=(BREME,), candidates=(AMBRE, BREME)),
    Row("the registered one is in no directory and still contradicts", "conflict", "contredit",
        says=("registry_other_gp",), stated=NAMED, registered=(NOBODY,)),
    Row("the RPPS is that of a doctor of another name", "conflict", "contredit", says=("rpps_other_name",),
        stated=replace(NAMED, family_name="Zwiller")),
    Row("all in capitals the given name stands first, the number is hers", "found", "lettre", OWN.address,
        stated=Person(name="AMBRE LÉA", family_name="LÉA", given_name="AMBRE", rpps=AMBRE)),
    Row("the words of the name are hers but for one", "conflict", "contredit", says=("rpps_other_name",),
        stated=Person(name="AMBRE NOÉ", family_name="NOÉ", given_name="AMBRE", rpps=AMBRE)),
    Row("the directory gives the RPPS two names", "conflict", "contredit", says=("rpps_two_names",), stated=NAMED,
        directory=(replace(LEA, two_names=True),)),
    Row("two names under the registered RPPS", "conflict", "contredit", says=("rpps_two_names",), registered=(AMBRE,),
        directory=(replace(LEA, two_names=True),)),
    Row("the letter's address is another professional's", "conflict", "contredit", says=("address_of_another",),
        stated=replace(NAMED, mss_address="paul.breme@medecin.mssante.fr"),
        owners=(("paul.breme@medecin.mssante.fr", BREME),), candidates=(AMBRE, BREME)),
    Row("the RPPS is a pharmacist's", "conflict", "contredit", says=("not_a_doctor",), stated=NAMED,
        directory=(replace(LEA, profession="21"),)),
    Row("an RPPS that cannot be read, beside a registered GP", "conflict", "contredit", says=("gp_unreadable",),
        stated=Person(family_name="Ambre", rpps="1000000000X"), registered=(AMBRE,)),
    Row("an RPPS that cannot be read, alone", "none", "sans", says=("gp_unreadable",),
        stated=Person(family_name="Ambre", rpps="1000000000X")),
    Row("two GPs in one letter", "none", "sans", says=("gp_unreadable",), letter=lettre(unknown=("registered_gp",))),
    Row("a name that is not the registered GP's", "conflict", "contredit", says=("registry_other_name",),
        stated=BY_NAME, registered=(BREME,)),
    Row("another given name than the registered GP's", "conflict", "contredit", says=("registry_other_name",),
        stated=BY_NAME, registered=(CORAIL,)),
    # -------------------------------------------------------------------------------------------- left
    Row("the letter's GP has left, only the number remains", "left", "parti", says=("gp_left",), stated=NAMED,
        directory=(LEFT, PAUL), candidates=(AMBRE,)),
    Row("the letter's GP has left, the registry names a living one", "conflict", "contredit", says=("gp_left",),
        stated=NAMED, registered=(BREME,), directory=(LEFT, PAUL), candidates=(BREME,)),
    Row("the registered GP has left", "left", "parti", says=("registered_gp_left",), registered=(AMBRE,),
        directory=(LEFT, PAUL)),
    Row("the registered GP has left, the letter names the successor", "found", "lettre", "paul.breme@medecin.mssante.fr",
        stated=Person(family_name="BREME", rpps=BREME), registered=(AMBRE,), directory=(LEFT, PAUL)),
    Row("an RPPS that no directory knows", "none", "sans", says=("gp_unknown",), stated=replace(NAMED, rpps=NOBODY),
        candidates=(NOBODY,)),
    Row("an unknown RPPS beside a living registered GP", "conflict", "contredit", says=("gp_unknown",),
        stated=replace(NAMED, rpps=NOBODY), registered=(AMBRE,)),
    Row("a registered GP whom no directory knows", "none", "sans", says=("registered_gp_unknown",), registered=(NOBODY,)),
    # --------------------------------------------------------------------------------- several mailboxes
    Row("the personal box before the practice's", "found", "lettre", OWN.address, stated=NAMED,
        directory=boxes(TEAM, PRACTICE, OWN)),
    Row("the practice's box where there is no personal one", "found", "lettre", PRACTICE.address, stated=NAMED,
        directory=boxes(TEAM, PRACTICE)),
    Row("the box of the site that the letter names", "found", "lettre", AT_CENTRE.address,
        stated=replace(NAMED, organisation="CENTRE DE SANTE DES AYDES"), directory=boxes(OWN, PRACTICE, AT_CENTRE)),
    Row("the box that the letter names", "found", "lettre", PRACTICE.address,
        stated=replace(NAMED, mss_address=PRACTICE.address.upper()), directory=boxes(OWN, PRACTICE)),
    Row("a box that the letter names and the directory does not give them", "found", "lettre", OWN.address,
        stated=replace(NAMED, mss_address="lea@ailleurs.mssante.fr"), directory=boxes(OWN, PRACTICE)),
    Row("a team's box only where nothing else is listed", "found", "lettre", TEAM.address, stated=NAMED,
        directory=boxes(TEAM)),
    Row("no box", "no_mailbox", "sans-boite", says=("no_mailbox",), stated=NAMED, directory=boxes()),
    Row("a closed box", "no_mailbox", "sans-boite", says=("no_mailbox",), registered=(AMBRE,),
        directory=boxes(replace(OWN, active=False))),
    Row("a box outside the white list", "no_mailbox", "sans-boite", says=("outside_domain",), stated=NAMED,
        directory=boxes(Mailbox("lea.ambre@orange.example")), candidates=(AMBRE,)),
    Row("a patient's own box", "no_mailbox", "sans-boite", says=("outside_domain",), stated=NAMED,
        directory=boxes(Mailbox(f"{INS}@patient.mssante.fr"))),
    # ---------------------------------------------------------------------------------------- homonyms
    Row("a name that two bear", "many", "plusieurs", says=("name_alone",), stated=Person(family_name="AMBRE"),
        candidates=(AMBRE, CORAIL)),
    Row("a name that one bears finds nobody", "none", "sans", says=("name_alone",), stated=BY_NAME, candidates=(AMBRE,)),
    Row("a homonym's name that is the registered GP's", "found", "accord", OWN.address, stated=BY_NAME,
        registered=(AMBRE,)),
    # ----------------------------------------------------------------------------------------- centres
    Row("a centre, and nobody registered", "none", "sans", says=("gp_is_a_centre",),
        stated=Person(organisation="Centre de santé des Aydes"), directory=boxes(AT_CENTRE)),
    Row("a centre in the line for a name, and nobody registered", "none", "sans", says=("gp_is_a_centre",),
        stated=Person(name="Centre de santé des Aydes"), directory=boxes(AT_CENTRE)),
    Row("the centre of the registered GP", "found", "registre", AT_CENTRE.address, registered=(AMBRE,),
        stated=Person(name="CENTRE DE SANTE DES AYDES"), directory=boxes(OWN, AT_CENTRE)),
    Row("a centre where the registered GP is not known", "conflict", "contredit", says=("registry_other_centre",),
        stated=Person(organisation="Maison médicale du Port"), registered=(AMBRE,), directory=boxes(OWN, AT_CENTRE)),
    Row("a centre, and the directory knows no organisation of the registered GP", "found", "registre", OWN.address,
        stated=Person(organisation="Maison médicale du Port"), registered=(AMBRE,)),
    Row("a doctor whose name is that of a building", "found", "accord", "b.maison@medecin.mssante.fr",
        stated=Person(name="MAISON Benoît"), registered=(AMBRE,),
        directory=(gp(AMBRE, "Maison", "Benoît", Mailbox("b.maison@medecin.mssante.fr")),)),
    # ------------------------------------------------------------------------------------ several, none
    Row("two registered GPs", "many", "plusieurs", says=("several_registered",), registered=(AMBRE, BREME),
        candidates=(AMBRE, BREME)),
    Row("two registered GPs, the letter names one", "found", "accord", OWN.address, stated=NAMED,
        registered=(BREME, AMBRE)),
    Row("two registered GPs, the letter gives a name", "many", "plusieurs", says=("several_registered",),
        stated=BY_NAME, registered=(BREME, AMBRE)),
    Row("nobody at all", "none", "sans", says=("no_gp",), candidates=()),
    # ---------------------------------------------------------------------------------------- newborns
    Row("a newborn without INS, the GP named in the letter", "found", "naissance", OWN.address, stated=NAMED, patient=BABY,
        registered=None, says=("nobody_registered",),
        identity="provisional", event="birth"),
    Row("a newborn without INS never takes the mother's registered GP", "none", "sans", patient=BABY,
        says=("nobody_registered", "no_gp"), registered=(AMBRE,), identity="provisional"),
    Row("a newborn under the mother's INS", "none", "douteuse", says=("other_given", "other_born", "other_sex"),
        patient=replace(BABY, ins=INS, ins_oid=NIR, ins_key_valid=True), registered=(AMBRE,), identity="doubtful"),
    Row("a newborn who has no given name yet", "found", "douteuse", says=("incomplete_traits",), stated=NAMED,
        patient=replace(BABY, given_names=("Sans prénom",)), registered=None, identity="doubtful"),
    # ---------------------------------------------------------------------------------------- deceased
    Row("a patient who died in hospital", "found", "deces", OWN.address, stated=NAMED, event="death",
        patient=replace(ODETTE, deceased=True)),
    # ----------------------------------------------------------------------------- opposition, MASQUE_PS
    Row("a patient who objects", "found", "opposition", OWN.address, registered=(AMBRE,),
        known=replace(KNOWN, consent="opposed")),
    Row("a letter that is masked from professionals", "found", "masque", OWN.address, stated=NAMED,
        letter=lettre(consent="masked")),
    Row("an objection outweighs a mask", "found", "opposition", OWN.address, registered=(AMBRE,),
        known=replace(KNOWN, consent="opposed"), letter=lettre(consent="masked")),
    # ------------------------------------------------------------------------------------ the patient
    Row("a doubtful patient never takes the registered GP", "none", "douteuse", says=("other_born",), registered=(AMBRE,),
        patient=replace(ODETTE, birth_date=date(1979, 3, 29)), identity="doubtful"),
    Row("a wrong key", "none", "douteuse", says=("ins_bad_key",), registered=(AMBRE,), identity="doubtful",
        patient=replace(ODETTE, ins=INS[:13] + "00", ins_key_valid=False)),
    Row("a test number", "found", "douteuse", says=("test_ins",), stated=NAMED, identity="test",
        patient=replace(ODETTE, ins_oid=INS_TEST)),
    Row("a local number that is another patient's", "none", "douteuse", says=("local_id_of_another",), identity="doubtful",
        registered=(AMBRE,), patient=replace(ODETTE, ins=MOTHERS, birth_name="NESSI", local_ids=(LocalId(FACILITY, "42"),))),
)  # fmt: skip


def decided(row: Row) -> tuple[Resolution, engine.Decision]:
    notice = Notice(
        format="cda", event=row.event, document="letter", patient=row.patient, registered_gp=row.stated,
        stay=Stay(facility=FACILITY, discharged=ARRIVED - timedelta(hours=2), discharged_exact=True),
        **dict(row.letter),
    )  # fmt: skip
    registry = () if row.registered is None else (replace(row.known, gp_rpps=row.registered),)
    asked = resolution.professional_asks(notice, registry, facility=FACILITY)
    directory = tuple(
        each for each in row.directory if each.rpps in asked[0] or fold(each.family_name) in asked[1]
    )
    found = resolution.resolve(
        notice, registry, directory, domains=DOMAINS, facility=FACILITY, owners=dict(row.owners)
    )
    facts = resolution.facts(
        notice, found, unknown=language.UNKNOWN, mailbox="cardiologie", sender="ward@chr.mssante.fr", signed=None,
        arrived=ARRIVED, timezone="Europe/Paris", facility=FACILITY,
    )  # fmt: skip
    rules, findings = language.load(RULES, "rows.yaml")
    assert rules is not None, findings
    return found, engine.decide(rules, facts, ARRIVED)  # type: ignore[arg-type]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_registered_gp(row: Row) -> None:
    found, decision = decided(row)
    assert (found.identity, found.gp) == (row.identity, row.gp)
    assert (found.mailbox or "") == row.mailbox or not row.mailbox
    assert (found.professional is not None) == (row.gp == "found")
    if row.candidates is not None:
        assert found.candidates == row.candidates
    assert decision.rule == row.rule
    sends = (
        row.gp == "found"
        and row.identity not in ("doubtful", "test")
        and row.rule not in ("opposition", "masque")
    )
    assert (decision.action == "send") == sends
    for words in (Words("fr"), Words("en")):
        known = IDENTITY_BECAUSE | GP_BECAUSE
        assert words.because(found) == " ; ".join(words.say(known[note]) for note in row.says)


def test_every_reason_has_a_row_and_english_words() -> None:
    said = {note for row in ROWS for note in row.says}
    assert set(GP_BECAUSE) <= said
    english = Words("en")
    for french in (IDENTITY_BECAUSE | GP_BECAUSE).values():
        assert english.say(french) != french


def test_every_outcome_has_a_row() -> None:
    assert {row.gp for row in ROWS} == {"found", "none", "many", "conflict", "left", "no_mailbox"}
    assert {row.rule for row in ROWS} | {"deja-adressee"} == {
        line.split("id: ")[1].split(",")[0] for line in RULES.splitlines() if "id: " in line
    }


# ------------------------------------------------------------------------------------- with the store behind it


async def facts(house: House) -> dict[str, Any]:  # noqa: F811
    (row, *_) = await house.store.envelopes()
    decision = (await house.store.envelope(row["id"]))["decision"]
    return dict(decision["facts"])


def mail(**more: Any) -> bytes:
    return letters.text_mail(gp=MARTIN, sender=SENDER, **more)


@pytest.mark.parametrize(
    ("since", "until", "substitute", "away"),
    [(0, 3, DUPONT.rpps, True), (-3, 0, DUPONT.rpps, True), (1, 3, DUPONT.rpps, False), (0, 3, None, False)],
    ids=["first day", "last day", "not yet", "nobody stands in"],
)
async def test_an_absence_with_a_substitute_is_a_fact_and_the_letter_still_goes_to_the_gps_box(
    house: House,  # noqa: F811
    since: int,
    until: int,
    substitute: str | None,
    away: bool,
) -> None:
    today = house.clock.now().date()
    await house.store.away(
        Absence(MARTIN.rpps or "", today + timedelta(days=since), today + timedelta(days=until), substitute)
    )
    await house.take(mail())
    assert (await facts(house))["gp_away"] is away
    await house.leave()
    assert [each.address for each in house.sender.sent] == [(MARTIN.mss_address or "").lower()]


@pytest.mark.parametrize(
    ("box", "addressed"),
    [
        (Mailbox(MARTIN.mss_address or "", "PER"), True),
        (Mailbox("cabinet@medecin.mssante.fr", "CAB"), True),
        (Mailbox("ancien@medecin.mssante.fr", "PER", active=False), False),
        (Mailbox("accueil@centre.mssante.fr", "ORG"), False),
        (Mailbox("logiciel@centre.mssante.fr", "APP"), False),
        (Mailbox("autre@medecin.mssante.fr", "PER"), None),
    ],
    ids=["own", "practice", "closed", "team", "machine", "somebody else's"],
)
async def test_only_a_box_that_the_gp_opens_counts_as_already_written_to(
    house: House,  # noqa: F811
    place: Place,
    box: Mailbox,
    addressed: bool | None,
) -> None:
    own = (Mailbox(MARTIN.mss_address or ""), *([] if addressed is None else [box]))
    place.clock.turn(minutes=1)
    await house.store.import_professionals(
        [Professional(MARTIN.rpps or "", "Martin", "Camille", mailboxes=own)], fold
    )
    ward = "cardiologie@chr-exemple.mssante.fr"
    await house.take(mail(to=f"{ward}, {box.address}"))
    assert (await facts(house))["addressed"] is bool(addressed)
    await house.leave()
    letters_sent = [each for each in house.sender.sent if each.purpose == "letter"]
    assert len(letters_sent) == (0 if addressed else 1)


async def test_desk_and_ward_read_why_and_the_list_says_it_too(house: House) -> None:  # noqa: F811
    stranger = letters.patient("BOISGARD", "Rémi", born=date(1951, 4, 2), sex="M", order=11)
    unknown = doctor("Inconnu", "Zoé", 77)
    await house.take(letters.text_mail(gp=unknown, patient=stranger, sender=SENDER))
    (held,) = await house.store.holds()
    assert held["detail"] == GP_BECAUSE["gp_unknown"]
    assert held["candidates"] == [unknown.rpps]
    await house.leave()
    notes = [each for each in house.sender.sent if each.purpose == "hold_note"]
    assert {each.to.partition(":")[0] for each in notes} == {"desk", "ward"}
    for note in notes:
        assert f"Précision : {GP_BECAUSE['gp_unknown']}." in note.recipe.text


async def test_two_numbers_of_one_establishment_are_one_stay(house: House) -> None:  # noqa: F811
    names = {"450000088": "CHR d'Exemple", "450000013": "CHR d’EXEMPLE", "570000018": "CH d'Ailleurs"}
    notice = Notice(patient=ODETTE, stay=Stay(number="S1", facility="450000013"))
    sure = Resolution("qualified", "none", KNOWN)

    def key(facility: str, known: dict[str, str]) -> str:
        stay = replace(notice.stay or Stay(), facility=facility)
        return resolution.stay_keys(replace(notice, stay=stay), sure, "", names=known).primary

    assert key("450000013", names) == key("450000088", names)
    assert key("450000013", {}) != key("450000088", {})
    assert key("570000018", names) != key("450000088", names)
    assert make_site().settings.facilities
