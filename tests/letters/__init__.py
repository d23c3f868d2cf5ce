"""Letters written for the project: invented people, the test INS OID, the same bytes for the same arguments.

    text_mail()   a ward's plain-text mail with labelled lines      cda_mail()   a mail with a bare CDA
    xdm_mail()    an MSSanté mail with IHE_XDM.zip and its PDF      cda()        the CDA R2 letter alone
    dsn() mdn() ko() reply() automatic()                            what comes back
    wards, ldl, truths, hl7, hprim                                  letters with what a right reader says of them

Patients are `relay.model.Patient`, doctors `relay.model.Person`; `python -m tests.letters DIR` writes a set of files.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from email.header import Header
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from xml.sax.saxutils import escape, quoteattr

from relay.model import LocalId, Patient, Person

INS_TEST = "1.2.250.1.213.1.4.10"
INS_NIR = "1.2.250.1.213.1.4.8"
IPP_SYSTEM = "1.2.250.1.71.4.2.2.450000088"
LOINC = "2.16.840.1.113883.6.1"
PARIS_WINTER = timezone(timedelta(hours=1))

WARD = "cardiologie@chr-exemple.mssante.fr"
RELAY_IN = "sorties.cardio@chr-exemple.mssante.fr"

Attachment = tuple[str, bytes, str]  # file name, content, media type


def luhn(digits: str) -> str:
    """`digits` and their Luhn check digit: RPPS and FINESS."""
    total = sum(sum(divmod(int(d) * (2 - k % 2), 10)) for k, d in enumerate(reversed(digits)))
    return digits + str(-total % 10)


def ins_of(sex: str, born: date, place: str, order: int = 1) -> str:
    """A well-formed 15-character NIR: 13 digits and their key (2A and 2B as the key's rule reads them)."""
    nir = f"{'1' if sex == 'M' else '2'}{born:%y%m}{place}{order:03d}"
    return f"{nir}{97 - int(nir.replace('2A', '19').replace('2B', '18')) % 97:02d}"


def patient(
    birth_name: str = "CORMERAIS",
    *given: str,
    used_name: str | None = None,
    born: date = date(1948, 3, 17),
    sex: str = "F",
    place: str = "45234",
    order: int = 7,
    ipp: str | None = "900012345",
    oid: str | None = INS_TEST,
) -> Patient:
    """A person who does not exist, with an INS that fits their traits."""
    return Patient(
        ins=ins_of(sex, born, place, order),
        ins_oid=oid,
        ins_key_valid=True,
        birth_name=birth_name,
        used_name=used_name,
        given_names=given or ("Odette", "Marie-Louise"),
        sex=sex,  # type: ignore[arg-type]  # tests may pass anything
        birth_date=born,
        birth_place=place,
        local_ids=(LocalId(IPP_SYSTEM, ipp),) if ipp else (),
        name_kind="birth",
    )


def doctor(family: str, given: str, number: int, *, address: str | None = None) -> Person:
    """A doctor who does not exist; the RPPS passes Luhn."""
    return Person(
        name=f"{given} {family}",
        family_name=family,
        given_name=given,
        rpps=luhn(f"1009990{number:03d}"),
        mss_address=address or f"dr.{family.lower()}@medecin.mssante.fr",
    )


ODETTE = patient(used_name="VALBRUNE")
MARTIN = doctor("Martin", "Camille", 1)
DUPONT = doctor("Dupont", "Alix", 2)
DURAND = doctor("Durand", "Noé", 3)
AUTHOR = replace(
    doctor("Kerbellec", "Solenn", 50, address="solenn.kerbellec@chr-exemple.mssante.fr"), phone="0238000000"
)

ADMITTED = datetime(2026, 11, 23, 9, 30, tzinfo=PARIS_WINTER)
DISCHARGED = datetime(2026, 12, 1, 14, 0, tzinfo=PARIS_WINTER)
SENT = datetime(2026, 12, 1, 17, 41, tzinfo=PARIS_WINTER)

PARAGRAPH = (
    "La patiente a été hospitalisée pour une décompensation cardiaque. L'évolution est favorable sous "
    "diurétiques, avec une perte de poids de 4 kg. À la sortie, la tension est à 128/74 mmHg et la "
    "saturation à 97 % en air ambiant. Une consultation de contrôle est prévue dans quinze jours."
)


# ------------------------------------------------------------------------------------------------ text letters


def labelled_lines(
    who: Patient,
    gp: Person | None,
    *,
    ward: str = "Cardiologie",
    stay: str | None = "S-2026-004217",
    admitted: datetime | None = ADMITTED,
    discharged: datetime | None = DISCHARGED,
) -> str:
    """The head of a ward's text letter, one French labelled line for each datum there is."""
    family = f"{who.used_name} née {who.birth_name}" if who.used_name else f"{who.birth_name}"
    lines = [
        ("Type de document", "Lettre de liaison à la sortie"),
        ("Patient", f"{family} {' '.join(who.given_names)}"),
        ("Né(e) le", f"{who.birth_date:%d/%m/%Y}" if who.birth_date else None),
        ("Sexe", who.sex),
        ("INS", who.ins),
        ("Médecin traitant", f"Dr {gp.given_name} {gp.family_name}" if gp else None),
        ("RPPS", gp.rpps if gp else None),
        ("Service", ward),
        ("Date d'entrée", f"{admitted:%d/%m/%Y %H:%M}" if admitted else None),
        ("Date de sortie", f"{discharged:%d/%m/%Y %H:%M}" if discharged else None),
        ("N° de séjour", stay),
    ]
    return "".join(f"{label} : {value}\n" for label, value in lines if value)


def text_mail(
    *,
    patient: Patient = ODETTE,
    gp: Person | None = MARTIN,
    body: str | None = None,
    ward: str = "Cardiologie",
    stay: str | None = "S-2026-004217",
    admitted: datetime | None = ADMITTED,
    discharged: datetime | None = DISCHARGED,
    attachments: Sequence[Attachment] = (),
    encoding: str = "quoted-printable",
    charset: str = "utf-8",
    html: str | None = None,
    html_only: bool = False,
    sender: str = f"Service de Cardiologie <{WARD}>",
    to: str = RELAY_IN,
    subject: str = "Lettre de liaison à la sortie",
    message_id: str | None = None,
    sent: datetime = SENT,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """A ward's mail with labelled lines. `body` replaces the whole text; `encoding` is the transfer encoding."""
    if body is None:
        lines = labelled_lines(patient, gp, ward=ward, stay=stay, admitted=admitted, discharged=discharged)
        body = f"{lines}\nCher confrère,\n\n{PARAGRAPH}\n\nBien confraternellement,\nDr Solenn Kerbellec\n"
    message = _head(sender, to, subject, message_id, sent, headers, body)
    if html_only:
        rows = "".join(f"<p>{escape(line)}</p>\n" for line in body.splitlines())
        message.set_content(html or f"<html><body>{rows}</body></html>", subtype="html", charset=charset,
                            cte=encoding)  # fmt: skip
    else:
        message.set_content(body, charset=charset, cte=encoding)
        if html:
            message.add_alternative(html, subtype="html", charset=charset, cte=encoding)
    return _written(message, attachments)


def mail(
    body: str,
    *,
    sender: str,
    to: str,
    subject: str = "",
    attachments: Sequence[Attachment] = (),
    message_id: str | None = None,
    sent: datetime = SENT,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """Any other mail."""
    message = _head(sender, to, subject, message_id, sent, headers, body)
    message.set_content(body, cte="quoted-printable")
    return _written(message, attachments)


def _head(
    sender: str,
    to: str,
    subject: str,
    message_id: str | None,
    sent: datetime,
    headers: Mapping[str, str] | None,
    seed: str,
) -> EmailMessage:
    message = EmailMessage(policy=SMTP)
    message["From"] = sender
    message["To"] = to
    message["Subject"] = subject
    message["Date"] = format_datetime(sent)
    token = hashlib.sha256(f"{sender}{to}{subject}{sent}{seed}".encode()).hexdigest()[:20]
    message["Message-ID"] = message_id or f"<{token}@chr-exemple.mssante.fr>"
    for name, value in (headers or {}).items():
        message[name] = value
    return message


def _written(message: EmailMessage, attachments: Sequence[Attachment]) -> bytes:
    for name, content, media_type in attachments:
        main, _, sub = media_type.partition("/")
        message.add_attachment(content, maintype=main, subtype=sub, filename=name)
    for number, part in enumerate(part for part in message.walk() if part.is_multipart()):
        if part.get_content_maintype() == "multipart":
            seed = f"{message['Message-ID']}{number}".encode()
            part.set_boundary(f"=_{hashlib.sha256(seed).hexdigest()[:24]}")
    return message.as_bytes()


# --------------------------------------------------------------------------------------------------- documents


def pdf(text: str = "Lettre de liaison", size: int = 0) -> bytes:
    """A small PDF that readers open; `size` pads it with a deterministic incompressible stream."""
    page = f"BT /F1 12 Tf 72 770 Td ({text.encode('ascii', 'replace').decode()}) Tj ET".encode()
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(page), page),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    if size:
        noise = b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(size // 32 + 1))[:size]
        objects.append(b"<</Length %d>>stream\n%s\nendstream" % (len(noise), noise))
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


def _time(moment: datetime) -> str:
    return f"{moment:%Y%m%d%H%M%S%z}"


def _names(person: Patient, model: int) -> str:
    first = person.given_names[0] if person.given_names else ""
    if model == 2020:
        used = f'<family qualifier="SP">{escape(person.used_name)}</family>' if person.used_name else ""
        given = "".join(f"<given>{escape(name)}</given>" for name in person.given_names)
        return f'<name><family qualifier="BR">{escape(person.birth_name or "")}</family>{used}{given}</name>'
    used = f'<family qualifier="CL">{escape(person.used_name)}</family>' if person.used_name else ""
    every = escape(" ".join(person.given_names))
    return (
        f'<name><family qualifier="BR">{escape(person.birth_name or "")}</family>{used}'
        f'<given qualifier="BR">{escape(first)}</given><given>{every}</given></name>'
    )


def _professional(person: Person) -> str:
    prefix = "8" if person.rpps else ""
    rpps = f'<id root="1.2.250.1.71.4.2.1" extension="{prefix}{person.rpps}"/>' if person.rpps else ""
    address = f'<telecom value="mailto:{person.mss_address}" use="EC"/>' if person.mss_address else ""
    phone = f'<telecom value="tel:{person.phone}" use="WP"/>' if person.phone else ""
    return f"{rpps}{phone}{address}"


def _person(person: Person, tag: str) -> str:
    return (
        f"<{tag}><name><prefix>DR</prefix><given>{escape(person.given_name or '')}</given>"
        f"<family>{escape((person.family_name or '').upper())}</family></name></{tag}>"
    )


def cda(
    *,
    level: int = 3,
    patient: Patient = ODETTE,
    gp: Person | None = MARTIN,
    recipients: Sequence[Person] = (MARTIN,),
    author: Person = AUTHOR,
    code: str = "11490-0",
    title: str = "Lettre de liaison à la sortie de l'établissement",
    display: str = "Lettre de liaison à la sortie d'un établissement de soins",
    document_id: str = "1.2.250.1.999.1.1.20261201.1",
    set_id: str = "1.2.250.1.999.1.1.20261201",
    version: str = "1",
    replaces: str | None = None,
    confidentiality: str = "N",
    ward: str = "Service de Cardiologie",
    facility: str = "450000088",
    facility_name: str = "CHR d'Exemple",
    stay: str | None = "S-2026-004217",
    admitted: datetime | None = ADMITTED,
    discharged: datetime | None = DISCHARGED,
    exit_mode: tuple[str, str] | None = ("160849004", "Domicile"),
    awaited: Sequence[str] = ("Recherche de thrombophilie",),
    follow_up: Sequence[tuple[str, date | None]] = (("Consultation de cardiologie", date(2026, 12, 15)),),
    model: int = 2022,
    realm: str | None = "FR",
    size: int = 0,
    body_pdf: bytes | None = None,
) -> bytes:
    """A CDA R2 discharge letter (LDL-SES): level 1 holds a PDF, level 3 sections. `size` pads the narrative."""
    ids = "".join(f'<id root="{local.system}" extension="{local.value}"/>' for local in patient.local_ids)
    if patient.ins:
        ids = f'<id root="{patient.ins_oid or INS_NIR}" extension="{patient.ins}"/>{ids}'
    born = (
        f'<birthTime value="{patient.birth_date:%Y%m%d}"/>'
        if patient.birth_date
        else '<birthTime nullFlavor="UNK"/>'
    )
    place = (
        f"<birthplace><place><addr><county>{patient.birth_place}</county><city>ORLEANS</city></addr></place></birthplace>"
        if patient.birth_place
        else ""
    )
    pcp = ""
    if gp is not None:
        pcp = f"""
  <participant typeCode="INF">
    <functionCode code="PCP" codeSystem="2.16.840.1.113883.5.88" displayName="Médecin traitant"/>
    <time><low nullFlavor="NA"/></time>
    <associatedEntity classCode="PROV">{_professional(gp)}{_person(gp, "associatedPerson")}
      <scopingOrganization><name>Cabinet médical des Tilleuls</name></scopingOrganization></associatedEntity>
  </participant>"""
    to = "".join(
        f"""
  <informationRecipient{' typeCode="TRC"' if one.copy else ""}>
    <intendedRecipient>{_professional(one)}{_person(one, "informationRecipient")}</intendedRecipient>
  </informationRecipient>"""
        for one in recipients
    )
    relation = (
        f'\n  <relatedDocument typeCode="RPLC"><parentDocument><id root="{replaces}"/></parentDocument></relatedDocument>'
        if replaces
        else ""
    )
    low = f'<low value="{_time(admitted)}"/>' if admitted else ""
    high = f'<high value="{_time(discharged)}"/>' if discharged else ""
    number = f'<id root="1.2.250.1.999.2.3" extension="{stay}"/>' if stay else ""
    if level == 1:
        content = base64.b64encode(body_pdf or pdf(title)).decode()
        body = (
            "<nonXMLBody><text mediaType=\"application/pdf\" representation=\"B64\">"
            f"{content}</text></nonXMLBody>"
        )  # fmt: skip
    else:
        body = _sections(exit_mode, awaited, follow_up, size)
    template = '<templateId root="1.2.250.1.213.1.1.1.29" extension="2022.01"/>' if code == "11490-0" else ""
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<ClinicalDocument xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  {f'<realmCode code="{realm}"/>' if realm else ""}
  <typeId root="2.16.840.1.113883.1.3" extension="POCD_HD000040"/>
  {'<templateId root="2.16.840.1.113883.2.8.2.1"/><templateId root="1.2.250.1.213.1.1.1.1"/>' if realm == "FR" else ""}{template}
  <id root="{document_id}"/>
  <code code="{code}" codeSystem="{LOINC}" displayName={quoteattr(display)}/>
  <title>{escape(title)}</title>
  <effectiveTime value="{_time(SENT)}"/>
  <confidentialityCode code="{confidentiality}" codeSystem="2.16.840.1.113883.5.25"/>
  <languageCode code="fr-FR"/>
  <setId root="{set_id}"/>
  <versionNumber value="{version}"/>
  <recordTarget><patientRole>{ids}
    <addr><postalCode>45000</postalCode><city>ORLEANS</city></addr>
    <patient>{_names(patient, model)}
      <administrativeGenderCode code="{patient.sex or "U"}" codeSystem="2.16.840.1.113883.5.1"/>
      {born}{place}</patient>
  </patientRole></recordTarget>
  <author><time value="{_time(SENT)}"/>
    <assignedAuthor>{_professional(author)}{_person(author, "assignedPerson")}
      <representedOrganization><id root="1.2.250.1.71.4.2.2" extension="1{facility}"/><name>{escape(facility_name)}</name></representedOrganization></assignedAuthor>
  </author>
  <custodian><assignedCustodian><representedCustodianOrganization>
    <id root="1.2.250.1.71.4.2.2" extension="1{facility}"/><name>{escape(facility_name)}</name>
  </representedCustodianOrganization></assignedCustodian></custodian>{to}
  <legalAuthenticator><time value="{_time(SENT)}"/><signatureCode code="S"/>
    <assignedEntity>{_professional(author)}{_person(author, "assignedPerson")}</assignedEntity></legalAuthenticator>{pcp}
  <participant typeCode="INF">
    <functionCode code="CORRE" codeSystem="1.2.250.1.213.1.1.4.2.280"/>
    <associatedEntity classCode="PROV">{_professional(DURAND)}{_person(DURAND, "associatedPerson")}</associatedEntity>
  </participant>
  <documentationOf><serviceEvent>
    <code code="IMP" codeSystem="2.16.840.1.113883.5.4"/>
    <effectiveTime>{low}{high}</effectiveTime>
    <performer typeCode="PRF"><assignedEntity>{_professional(author)}
      <representedOrganization><id root="1.2.250.1.71.4.2.2" extension="1{facility}"/><name>{escape(ward)}</name></representedOrganization></assignedEntity></performer>
  </serviceEvent></documentationOf>{relation}
  <componentOf><encompassingEncounter>{number}
    <code code="IMP" codeSystem="2.16.840.1.113883.5.4"/>
    <effectiveTime>{low}{high}</effectiveTime>
    <location><healthCareFacility><code code="SA01" codeSystem="1.2.250.1.71.4.2.4"/></healthCareFacility></location>
  </encompassingEncounter></componentOf>
  <component>{body}</component>
</ClinicalDocument>
""".encode()


def _sections(
    exit_mode: tuple[str, str] | None,
    awaited: Sequence[str],
    follow_up: Sequence[tuple[str, date | None]],
    size: int,
) -> str:
    mode = ""
    if exit_mode:
        mode = f"""<entry><observation classCode="OBS" moodCode="EVN">
        <code code="ORG-074" codeSystem="1.2.250.1.213.1.1.4.322" displayName="Mode de sortie"/>
        <value xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="CD" code="{exit_mode[0]}" displayName={quoteattr(exit_mode[1])}/>
        </observation></entry>"""
    results = "".join(f"<item>{escape(text)}</item>" for text in awaited)
    steps = "".join(
        f"<item>{escape(what)}{f' {when:%d/%m/%Y}' if when else ''}</item>" for what, when in follow_up
    )
    texts = "".join(
        f"<paragraph>{escape(PARAGRAPH)} ({number})</paragraph>"
        for number in range(max(1, size // (len(PARAGRAPH.encode()) + 30)))
    )

    def section(code: str, title: str, text: str, entry: str = "") -> str:
        return f"""<component><section><templateId root="1.2.250.1.213.1.1.2.999"/>
        <code code="{code}" codeSystem="{LOINC}"/><title>{escape(title)}</title><text>{text}</text>{entry}</section></component>
        """

    out = section(
        "33557-0",
        "Statut du document",
        "<paragraph>Validé</paragraph>",
        """<entry><observation classCode="OBS" moodCode="EVN"><code code="GEN-065"/>
        <value xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="CD" code="9571008" displayName="approuvé"/></observation></entry>""",
    )
    out += section("42349-1", "Motif d'hospitalisation", "<paragraph>Dyspnée</paragraph>")
    out += section("42545-4", "Synthèse médicale", texts, mode)
    out += section("10183-2", "Traitements à la sortie", "<paragraph>Furosémide 40 mg</paragraph>")
    if awaited:
        out += section("30954-2", "Résultats attendus", f"<list>{results}</list>")
    if follow_up:
        out += section("18776-5", "Suites à donner", f"<list>{steps}</list>")
    return f"<structuredBody>{out}</structuredBody>"


# --------------------------------------------------------------------------------------------------------- XDM


def metadata(
    documents: Sequence[Attachment],
    *,
    patient: Patient = ODETTE,
    code: str = "11490-0",
    patients: Sequence[str] = (),
    action: str | None = None,
) -> bytes:
    """METADATA.XML of one submission set (ebRIM 3.0); `patients` overrides the patientId of each document."""
    entries = []
    for number, (name, content, media_type) in enumerate(documents, 1):
        who = patients[number - 1] if patients else f"{patient.ins}^^^&{patient.ins_oid or INS_NIR}&ISO^NH"
        slots = {
            "hash": hashlib.sha1(content).hexdigest(),  # IHE XDM names this hash
            "size": str(len(content)),
            "URI": name.rsplit("/", 1)[-1],
            "creationTime": "20261201164100",
            "sourcePatientId": f"{patient.local_ids[0].value}^^^&{IPP_SYSTEM}&ISO^PI"
            if patient.local_ids
            else "",
        }
        filled = "".join(
            f'<Slot name="{slot}"><ValueList><Value>{escape(value)}</Value></ValueList></Slot>'
            for slot, value in slots.items()
            if value
        )
        entries.append(
            f"""<ExtrinsicObject id="Document{number:02d}" mimeType="{media_type}" objectType="urn:uuid:7edca82f-054d-47f2-a032-9b2a5b5186c1">
    {filled}
    <Classification classificationScheme="urn:uuid:f0306f51-975f-434e-a61c-c59651d33983" classifiedObject="Document{number:02d}" nodeRepresentation="{code}"/>
    <ExternalIdentifier identificationScheme="urn:uuid:58a6f841-87b3-4a3e-92fd-a8ffeff98427" registryObject="Document{number:02d}" value={quoteattr(who)}><Name><LocalizedString value="XDSDocumentEntry.patientId"/></Name></ExternalIdentifier>
    <ExternalIdentifier identificationScheme="urn:uuid:2e82c1f6-a085-4c72-9da3-8640a32e42ab" registryObject="Document{number:02d}" value="1.2.250.1.999.1.1.20261201.{number}"><Name><LocalizedString value="XDSDocumentEntry.uniqueId"/></Name></ExternalIdentifier>
  </ExtrinsicObject>"""
        )
    extra = f'<Slot name="action"><ValueList><Value>{action}</Value></ValueList></Slot>' if action else ""
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<lcm:SubmitObjectsRequest xmlns:lcm="urn:oasis:names:tc:ebxml-regrep:xsd:lcm:3.0" xmlns="urn:oasis:names:tc:ebxml-regrep:xsd:rim:3.0">
<RegistryObjectList>{"".join(entries)}
  <RegistryPackage id="SubmissionSet01"><Slot name="submissionTime"><ValueList><Value>20261201164100</Value></ValueList></Slot>{extra}
    <Name><LocalizedString value="SubmissionSet"/></Name></RegistryPackage>
</RegistryObjectList></lcm:SubmitObjectsRequest>
""".encode()


def xdm(
    documents: Sequence[Attachment] | None = None,
    *,
    patient: Patient = ODETTE,
    meta: bytes | None = None,
    root: str = "IHE_XDM/SUBSET01/",
    noise: Sequence[tuple[str, bytes]] = (),
) -> bytes:
    """IHE_XDM.zip; the same documents give the same bytes. `noise` adds members."""
    if documents is None:
        documents = [
            ("DOC00001.XML", cda(patient=patient), "text/xml"),
            ("DOC00001.PDF", pdf(), "application/pdf"),
        ]
    members = [
        ("INDEX.HTM", b"<html><body>IHE XDM</body></html>"),
        ("README.TXT", b"Lettre de liaison, CHR d'Exemple\r\n"),
        (f"{root}METADATA.XML", meta if meta is not None else metadata(documents, patient=patient)),
        *((f"{root}{name}", content) for name, content, _ in documents),
        *noise,
    ]
    return zipped(members)


def zipped(members: Sequence[tuple[str, bytes]], *, stored: bool = False) -> bytes:
    """A ZIP whose bytes depend on its members alone."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name, (2026, 12, 1, 17, 41, 0)), content,
                             zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED)  # fmt: skip
    return out.getvalue()


def xdm_subject(who: Patient, label: str = "Lettre de liaison a la sortie d'un etablissement") -> str:
    """The subject Référentiel #2 asks for (ECO.2.1.3): the label cut to 40 characters."""
    born = f" {who.birth_date:%d/%m/%Y}" if who.birth_date else ""
    return f"XDM/1.0/DDM+{label[:40]} {who.birth_name} {who.given_names[0] if who.given_names else ''}{born}"


def xdm_mail(
    *,
    patient: Patient = ODETTE,
    gp: Person | None = MARTIN,
    level: int = 3,
    package: bytes | None = None,
    letter: bytes | None = None,
    with_pdf: bool = True,
    pdf_size: int = 0,
    cda_size: int = 0,
    body: str = "Bonjour,\n\nVeuillez trouver ci-joint la lettre de liaison.\n",
    sender: str = f"Service de Cardiologie <{WARD}>",
    to: str = RELAY_IN,
    subject: str | None = None,
    message_id: str | None = None,
    sent: datetime = SENT,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """An MSSanté mail: IHE_XDM.zip with the CDA letter, and the same letter as PDF beside it."""
    paper = pdf(size=pdf_size)
    if package is None:
        letter = letter or cda(level=level, patient=patient, gp=gp, size=cda_size)
        documents: list[Attachment] = [("DOC00001.XML", letter, "text/xml")]
        if with_pdf:
            documents.append(("DOC00001.PDF", paper, "application/pdf"))
        package = xdm(documents, patient=patient)
    first = patient.given_names[0] if patient.given_names else ""
    name = f"20261201_Lettre de liaison à la sortie_{patient.birth_name}_{first}.pdf"
    attachments: list[Attachment] = [("IHE_XDM.zip", package, "application/zip")]
    if with_pdf:
        attachments.append((name, paper, "application/pdf"))
    return mail(
        body,
        sender=sender,
        to=to,
        subject=subject if subject is not None else xdm_subject(patient),
        attachments=attachments,
        message_id=message_id,
        sent=sent,
        headers={"X-MSS-CODECDA": "11490-0", "X-MSS-INS": "N", **(headers or {})},
    )


def cda_mail(
    *,
    patient: Patient = ODETTE,
    gp: Person | None = MARTIN,
    level: int = 3,
    letter: bytes | None = None,
    filename: str = "lettre.xml",
    media_type: str = "text/xml",
    body: str = "Lettre de liaison en pièce jointe.\n",
    sender: str = f"Service de Cardiologie <{WARD}>",
    to: str = RELAY_IN,
    subject: str = "Lettre de liaison",
    message_id: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """A mail with a bare CDA attached, without a package."""
    letter = letter or cda(level=level, patient=patient, gp=gp)
    message = _head(sender, to, subject, message_id, SENT, headers, body)
    message.set_content(body, cte="quoted-printable")
    main, _, sub = media_type.partition("/")
    message.add_attachment(letter, maintype=main, subtype=sub, filename=filename)
    return _written(message, ())


# ----------------------------------------------------------------------------------------------- what comes back


def reply(
    text: str,
    *,
    to_message_id: str,
    sender: str = "dr.martin@medecin.mssante.fr",
    to: str = "retours@relais45.mssante.fr",
    subject: str = "RE: Lettre de liaison",
    quote: bool = True,
    headers: Mapping[str, str] | None = None,
    sent: datetime = SENT + timedelta(hours=2),
) -> bytes:
    """A person's answer, the letter quoted below as French clients do."""
    if quote:
        text += (
            "\n\nLe mar. 1 déc. 2026 à 17:41, Cardiologie – CHR d'Exemple (Relais) <relais@relais45.mssante.fr> a écrit :\n"
            "> Réf. 7F3Q-K2M9 — Répondez par un mot : OK (bien reçu), RAPPEL (rappelez-moi), ERREUR\n> \n> Cher confrère,\n"
        )
    extra = {"In-Reply-To": to_message_id, "References": to_message_id, **(headers or {})}
    return mail(text, sender=sender, to=to, subject=subject, sent=sent, headers=extra)


def automatic(
    *,
    to_message_id: str | None = None,
    sender: str = "dr.martin@medecin.mssante.fr",
    to: str = "retours@relais45.mssante.fr",
    subject: str = "Réponse automatique : absence du cabinet",
    marked: bool = True,
) -> bytes:
    """A practice's automatic answer; not `marked`: its subject alone says so."""
    extra = {"In-Reply-To": to_message_id} if to_message_id else {}
    if marked:
        extra["Auto-Submitted"] = "auto-replied"
    text = "Le cabinet est fermé du 4 au 10 janvier. En cas d'urgence, appelez le 15.\n"
    return mail(text, sender=sender, to=to, subject=subject, headers=extra)


def _report(kind: str, human: str, machine: str, original: bytes, subject: str, to: str, sender: str,
            attachments: Sequence[Attachment] = ()) -> bytes:  # fmt: skip
    title = Header(subject, "utf-8").encode(linesep="\r\n")
    boundary = f"=_{zlib.crc32(machine.encode() + original):08x}report"
    head = (
        f"From: {sender}\r\nTo: {to}\r\nSubject: {title}\r\n"
        f"Date: {format_datetime(SENT)}\r\nMessage-ID: <{zlib.crc32(machine.encode()):08x}.report@operateur.mssante.fr>\r\n"
        f"Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n"
        f'Content-Type: multipart/report; report-type={kind}; boundary="{boundary}"\r\n\r\n'
    )
    kinds = {
        "delivery-status": "message/delivery-status",
        "disposition-notification": "message/disposition-notification",
    }
    parts = [
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        + human.encode(),
        f"Content-Type: {kinds[kind]}\r\n\r\n".encode() + machine.replace("\n", "\r\n").encode(),
        b"Content-Type: message/rfc822\r\n\r\n" + original,
    ]
    lines = b"".join(b"--%s\r\n%s\r\n" % (boundary.encode(), part) for part in parts)
    return head.encode() + lines + f"--{boundary}--\r\n".encode()


def dsn(
    original: bytes = b"",
    *,
    original_message_id: str,
    recipient: str = "dr.martin@medecin.mssante.fr",
    action: str = "delivered",
    status: str = "2.0.0",
    envid: str | None = None,
    to: str = "retours@relais45.mssante.fr",
) -> bytes:
    """A delivery status notification (RFC 3464) with the original, or its headers, inside."""
    original = original or f"Message-ID: {original_message_id}\r\nSubject: Lettre de liaison\r\n\r\n".encode()
    machine = "Reporting-MTA: dns; smtp.operateur.mssante.fr\n"
    if envid:
        machine += f"Original-Envelope-Id: {envid}\n"
    machine += f"\nFinal-Recipient: rfc822; {recipient}\nAction: {action}\nStatus: {status}\n"
    return _report("delivery-status", "Message remis.\r\n", machine, original, "Delivery Status Notification", to,
                   "MAILER-DAEMON@smtp.operateur.mssante.fr")  # fmt: skip


def mdn(
    original: bytes = b"",
    *,
    original_message_id: str,
    recipient: str = "dr.martin@medecin.mssante.fr",
    disposition: str = "manual-action/MDN-sent-manually; displayed",
    error: str | None = None,
    subject: str = "Lu : Lettre de liaison",
    to: str = "retours@relais45.mssante.fr",
) -> bytes:
    """A message disposition notification (RFC 8098); `error` fills its Error field."""
    original = original or f"Message-ID: {original_message_id}\r\n\r\n".encode()
    machine = f"Final-Recipient: rfc822; {recipient}\nOriginal-Message-ID: {original_message_id}\nDisposition: {disposition}\n"
    if error:
        machine += f"Error: {error}\n"
    return _report("disposition-notification", "Message lu.\r\n", machine, original, subject, to, recipient)


def ko(*, code: str = "902", original: bytes, to: str = "retours@relais45.mssante.fr") -> bytes:
    """A plain mail that says a document could not be filed, the package sent back with it."""
    return mail(
        f"Bonjour,\n\nLe document n'a pas pu être intégré.\n\n- Erreur détectée : Identifiant de patient inconnu\n- Code d'erreur : {code}\n",
        sender="logiciel.cabinet@medecin.mssante.fr",
        to=to,
        subject=f"[Erreur d'intégration !][{code}] XDM/1.0/DDM+Lettre de liaison",
        attachments=(("IHE_XDM.zip", original, "application/zip"),),
    )
