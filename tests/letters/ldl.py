"""Discharge letters in CDA R2 as hospitals publish them, each with what a right reader says of it.

full()       the lettre de liaison à la sortie, level 3, every header datum and every section of the volet
LETTERS      the mails that carry them, with their truth in the shape of `relay recognise --json`
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from relay.model import Person
from tests import letters
from tests.letters import AUTHOR, DUPONT, DURAND, INS_TEST, LOINC, MARTIN, ODETTE
from tests.letters.wards import Json, gp, person

HOSPITAL = "450000088"
REFERRER = letters.doctor("Aubert", "Ismaël", 70)
CARDIOLOGIST = letters.doctor("Quéméner", "Nolwenn", 71)
ANES = letters.patient("ÇELIK", "Inès", "Aylin", used_name="DE L’ÉPINE", born=date(1979, 3, 28), place="51215", order=12,
                       ipp="900030001")  # fmt: skip
JOAN = letters.patient(
    "MENGUY", "Joan", born=date(2001, 10, 9), sex="M", place="2B033", order=77, ipp="900030002"
)


def _who(role: Person, holder: str) -> str:
    number = f'<id root="1.2.250.1.71.4.2.1" extension="8{role.rpps}"/>'
    code = '<code code="G15_10/SM04" codeSystem="1.2.250.1.213.1.1.4.5" displayName="Médecin - Cardiologie (SM)"/>'
    where = "<addr><streetAddressLine>12, rue des Tilleuls</streetAddressLine><postalCode>45000</postalCode></addr>"
    reach = f'<telecom value="tel:0238000001" use="WP"/><telecom value="mailto:{role.mss_address}"/>'
    name = f"<name><prefix>DR</prefix><given>{role.given_name}</given><family>{(role.family_name or '').upper()}</family></name>"
    return f"{number}{code}{where}{reach}<{holder}>{name}</{holder}>"


def _organisation(tag: str, name: str, finess: str = HOSPITAL) -> str:
    return f'<{tag}><id root="1.2.250.1.71.4.2.2" extension="1{finess}"/><name>{name}</name></{tag}>'


def _section(code: str, title: str, text: str, entry: str = "") -> str:
    return (
        f'<component><section><code code="{code}" codeSystem="{LOINC}"/><title>{title}</title>'
        f"<text>{text}</text>{entry}</section></component>"
    )


def _observed(code: str, value: str, display: str) -> str:
    return (
        f'<entry><observation classCode="OBS" moodCode="EVN"><code code="{code}" codeSystem="1.2.250.1.213.1.1.4.322"/>'
        f'<value xsi:type="CD" code="{value}" displayName="{display}"/></observation></entry>'
    )


SECTIONS = "".join((
    _section("33557-0", "Statut du document", "Validé", _observed("GEN-065", "9571008", "Approuvé")),
    _section("42349-1", "Motif d'hospitalisation", "<paragraph>Douleur thoracique le 05/11/2018.</paragraph>"),
    _section("42545-4", "Synthèse médicale", "<paragraph>Sortie le 05/11/2018, Dr Autre, RPPS 10000000000.</paragraph>",
             _observed("ORG-070", "8", "Entrée par les urgences") + _observed("ORG-074", "160849004", "Domicile")),
    _section("48765-2", "Allergies", "<list><item>Pénicilline</item></list>"),
    _section("18610-6", "Traitements arrêtés",
             "<table><thead><tr><th>Médicament</th><th>Motif</th></tr></thead><tbody>"
             "<tr><td>Ramipril 5 mg</td><td>toux</td></tr></tbody></table>"),
    _section("10183-2", "Traitements à la sortie",
             "<paragraph>Traitement habituel repris :</paragraph>"
             "<table><thead><tr><th>Médicament</th><th>Posologie</th><th>Durée</th></tr></thead><tbody>"
             '<tr><td>Bisoprolol 2,5 mg</td><td>1 le matin</td><td>3 mois</td></tr>'
             '<tr><td>Furosémide <content revised="delete">40</content><content revised="insert">20</content> mg</td>'
             "<td>1 le matin</td><td>1 mois</td></tr></tbody></table>"),
    _section("30954-2", "Résultats attendus",
             "<list><item>Recherche de thrombophilie</item><item>Holter : lecture en cours</item></list>"),
    _section("18776-5", "Suites à donner",
             "<table><thead><tr><th>Acte</th><th>Date</th></tr></thead><tbody>"
             "<tr><td>Consultations : médecin traitant (recontacter pour fixer le rendez-vous)</td><td>05/12/2026</td></tr>"
             "<tr><td>Échographie cardiaque</td><td>15 janvier 2027</td></tr></tbody></table>"
             "<paragraph>Kinésithérapie respiratoire à domicile</paragraph>"),
    _section("46264-8", "Dispositifs médicaux", "Aucun"),
))  # fmt: skip


def full() -> bytes:
    """A lettre de liaison à la sortie with people of every role around the patient, only one of them the GP."""
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<?xml-stylesheet type="text/xsl" href="cda-fo.xsl"?>
<ClinicalDocument xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <realmCode code="FR"/>
  <typeId root="2.16.840.1.113883.1.3" extension="POCD_HD000040"/>
  <templateId root="2.16.840.1.113883.2.8.2.1"/>
  <templateId root="1.2.250.1.213.1.1.1.1"/>
  <templateId root="1.2.250.1.213.1.1.1.29" extension="2022.01"/>
  <id root="1.2.250.1.999.1.7.1234.5678.3" extension="LDL-7731"/>
  <code code="11490-0" codeSystem="{LOINC}" displayName="Lettre de liaison à la sortie d'un établissement de soins"/>
  <title>Lettre de liaison à la sortie</title>
  <effectiveTime value="20261203161000+0100"/>
  <confidentialityCode code="N" codeSystem="2.16.840.1.113883.5.25" displayName="Normal"/>
  <languageCode code="fr-FR"/>
  <setId root="1.2.250.1.999.1.7" extension="LDL-77"/>
  <versionNumber value="3"/>
  <recordTarget><patientRole>
    <id root="{INS_TEST}" extension="{ANES.ins}"/>
    <id root="1.2.250.1.999.5.1" extension="900030001"/>
    <addr use="H"><houseNumber>4</houseNumber><streetName>rue Haute</streetName><postalCode>45160</postalCode><city>Olivet</city></addr>
    <telecom value="tel:0600000000" use="MC"/>
    <telecom value="mailto:{ANES.ins}@patient.mssante.fr"/>
    <patient>
      <name><family qualifier="BR">ÇELIK</family><family qualifier="CL">DE L’ÉPINE</family>
        <given qualifier="BR">Inès</given><given qualifier="CL">Inaya</given><given>Inès Aylin</given></name>
      <administrativeGenderCode code="F" codeSystem="2.16.840.1.113883.5.1"/>
      <birthTime value="19790328"/>
      <guardian><guardianPerson><name><given>Autre</given><family>TUTEUR</family></name></guardianPerson></guardian>
      <birthplace><place><addr><county>51215</county><city>Coulommes-la-Montagne</city></addr></place></birthplace>
    </patient></patientRole></recordTarget>
  <author><time value="20261203160000+0100"/><assignedAuthor>{_who(AUTHOR, "assignedPerson")}
    {_organisation("representedOrganization", "CHR d'Exemple")}</assignedAuthor></author>
  <dataEnterer><assignedEntity>{_who(DURAND, "assignedPerson")}</assignedEntity></dataEnterer>
  <informant><relatedEntity classCode="NOK"><code code="HUSB"/><relatedPerson><name><given>Noé</given><family>DE L’ÉPINE</family></name></relatedPerson></relatedEntity></informant>
  <informant><relatedEntity classCode="ECON"><relatedPerson><name><given>Noé</given><family>DE L’ÉPINE</family></name></relatedPerson></relatedEntity></informant>
  <custodian><assignedCustodian>{_organisation("representedCustodianOrganization", "CHR d'Exemple")}</assignedCustodian></custodian>
  <informationRecipient typeCode="PRCP"><intendedRecipient>{_who(CARDIOLOGIST, "informationRecipient")}
    <receivedOrganization><name>Cabinet de cardiologie</name></receivedOrganization></intendedRecipient></informationRecipient>
  <informationRecipient typeCode="TRC"><intendedRecipient>{_who(DUPONT, "informationRecipient")}</intendedRecipient></informationRecipient>
  <legalAuthenticator><time value="20261203161000+0100"/><signatureCode code="S"/><assignedEntity>{_who(AUTHOR, "assignedPerson")}</assignedEntity></legalAuthenticator>
  <participant typeCode="REFB"><time nullFlavor="UNK"/><associatedEntity classCode="PROV">{_who(REFERRER, "associatedPerson")}</associatedEntity></participant>
  <participant typeCode="INF"><functionCode code="CORRE" codeSystem="1.2.250.1.213.1.1.4.2.280"/><associatedEntity classCode="PROV">{_who(CARDIOLOGIST, "associatedPerson")}</associatedEntity></participant>
  <participant typeCode="INF"><functionCode code="ATTPHYS" codeSystem="2.16.840.1.113883.5.88"/><associatedEntity classCode="PROV">{_who(DURAND, "associatedPerson")}</associatedEntity></participant>
  <participant typeCode="INF"><functionCode code="PCP" codeSystem="2.16.840.1.113883.5.88" displayName="Médecin traitant"/><time><low nullFlavor="NA"/></time>
    <associatedEntity classCode="PROV">{_who(MARTIN, "associatedPerson")}<scopingOrganization><name>Maison de santé de l'Étape</name></scopingOrganization></associatedEntity></participant>
  <documentationOf><serviceEvent><code code="IMP" codeSystem="2.16.840.1.113883.5.4"/>
    <effectiveTime><low value="20261129101500+0100"/><high value="20261203143000+0100"/></effectiveTime>
    <performer typeCode="PRF"><assignedEntity>{_who(AUTHOR, "assignedPerson")}{_organisation("representedOrganization", "Service de cardiologie A")}</assignedEntity></performer>
  </serviceEvent></documentationOf>
  <relatedDocument typeCode="RPLC"><parentDocument><id root="1.2.250.1.999.1.7.1234.5678.2" extension="LDL-7730"/></parentDocument></relatedDocument>
  <componentOf><encompassingEncounter><id root="1.2.250.1.999.6" extension="26113377"/><code code="IMP" codeSystem="2.16.840.1.113883.5.4"/>
    <effectiveTime><low value="20261129101500+0100"/><high value="20261203143000+0100"/></effectiveTime>
    <responsibleParty><assignedEntity>{_who(DURAND, "assignedPerson")}</assignedEntity></responsibleParty>
    <location><healthCareFacility><code code="SA01" codeSystem="1.2.250.1.71.4.2.4"/><location><name>Bâtiment B</name></location></healthCareFacility></location>
  </encompassingEncounter></componentOf>
  <component><structuredBody>{SECTIONS}</structuredBody></component>
</ClinicalDocument>
""".encode()


@dataclass(frozen=True, slots=True)
class Written:
    """A mail and what it says."""

    content: bytes
    truth: Json


_STAY: Json = {"admitted": "2026-11-23T09:30:00+01:00", "discharged": "2026-12-01T14:00:00+01:00", "number": "S-2026-004217",
               "facility": HOSPITAL, "facility_name": "CHR d'Exemple", "ward": "Service de Cardiologie"}  # fmt: skip
_AUTHOR: Json = {"name": "Solenn KERBELLEC", "rpps": AUTHOR.rpps, "phone": "0238000000"}
_TO_MARTIN: list[Json] = [{"name": "Camille MARTIN", "rpps": MARTIN.rpps, "copy": False}]
_IPP: list[Json] = [{"system": letters.IPP_SYSTEM, "value": "900012345"}]

LETTERS: dict[str, Written] = {
    "ldl_level_3.eml": Written(
        letters.xdm_mail(patient=ANES, letter=full()),
        {
            "outcome": "notice", "format": "cda", "package": "xdm", "event": "discharge", "document": "replacement",
            "code": "11490-0", "title": "Lettre de liaison à la sortie", "document_id": "1.2.250.1.999.1.7.1234.5678.3^LDL-7731",
            "set_id": "1.2.250.1.999.1.7^LDL-77", "version": "3", "replaces": "1.2.250.1.999.1.7.1234.5678.2^LDL-7730",
            "status": "final",
            "patient": person(ANES, "ins oid key birth used given sex born place", local_ids=[
                {"system": "1.2.250.1.999.5.1", "value": "900030001"}, {"system": letters.IPP_SYSTEM, "value": "900030001"}]),
            "stay": {"admitted": "2026-11-29T10:15:00+01:00", "discharged": "2026-12-03T14:30:00+01:00", "number": "26113377",
                     "facility": HOSPITAL, "facility_name": "CHR d'Exemple", "ward": "Service de cardiologie A",
                     "exit_mode": "home", "entry_mode": "emergency"},
            "author": {"name": "Solenn KERBELLEC", "rpps": AUTHOR.rpps, "phone": "0238000001"},
            "registered_gp": gp(MARTIN, "given rpps mss", family_name="MARTIN", organisation="Maison de santé de l'Étape"),
            "referring_doctor": {"name": "Ismaël AUBERT", "rpps": REFERRER.rpps},
            "recipients": [{"name": "Nolwenn QUÉMÉNER", "rpps": CARDIOLOGIST.rpps, "copy": False},
                           {"name": "Alix DUPONT", "rpps": DUPONT.rpps, "copy": True}],
            "follow_up": [
                {"what": "Consultations : médecin traitant (recontacter pour fixer le rendez-vous) 05/12/2026", "when": "2026-12-05"},
                {"what": "Échographie cardiaque 15 janvier 2027", "when": "2027-01-15"},
                {"what": "Kinésithérapie respiratoire à domicile", "when": None}],
            "awaited_results": ["Recherche de thrombophilie", "Holter : lecture en cours"],
            "medications": ["Traitement habituel repris :", "Bisoprolol 2,5 mg 1 le matin 3 mois", "Furosémide 20 mg 1 le matin 1 mois"],
            "stopped_medications": ["Ramipril 5 mg toux"],
        },
    ),
    "ldl_level_1.eml": Written(
        letters.xdm_mail(level=1),
        {
            "outcome": "notice", "format": "cda", "package": "xdm", "event": "discharge", "document": "letter",
            "code": "11490-0", "title": "Lettre de liaison à la sortie de l'établissement",
            "document_id": "1.2.250.1.999.1.1.20261201.1", "set_id": "1.2.250.1.999.1.1.20261201", "version": "1",
            "status": "final", "patient": person(ODETTE, "ins oid key birth used given sex born place", local_ids=_IPP),
            "stay": _STAY, "author": _AUTHOR,
            "registered_gp": gp(MARTIN, "given rpps mss", family_name="MARTIN", organisation="Cabinet médical des Tilleuls"),
            "recipients": _TO_MARTIN,
        },
    ),
    "crh_without_gp.eml": Written(
        letters.cda_mail(letter=letters.cda(
            code="34112-3", title="Compte rendu hospitalier", patient=JOAN, gp=None, model=2020, recipients=(), stay=None,
            exit_mode=("500", "EHPAD"), awaited=("Aucun",), follow_up=(), document_id="1.2.250.1.999.9.1", set_id="1.2.250.1.999.9")),
        {
            "outcome": "notice", "format": "cda", "package": "mime", "event": "discharge", "document": "letter",
            "code": "34112-3", "title": "Compte rendu hospitalier", "document_id": "1.2.250.1.999.9.1",
            "set_id": "1.2.250.1.999.9", "version": "1", "status": "final",
            "patient": person(JOAN, "ins oid key birth given sex born place", local_ids=[
                {"system": letters.IPP_SYSTEM, "value": "900030002"}]),
            "stay": {name: value for name, value in _STAY.items() if name != "number"} | {"exit_mode": "nursing_home"},
            "author": _AUTHOR, "medications": ["Furosémide 40 mg"],
        },
    ),
}  # fmt: skip
