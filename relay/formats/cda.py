"""CDA R2 documents of the CI-SIS: the header, which holds all that routing needs, and the few body facts.

Header beats narrative: dates and people in the text of sections are never read. XPaths after the CI-SIS
volet LDL-SES (2022.01) and the header of the « Structuration minimale ».
"""

from __future__ import annotations

import binascii
import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Literal

from lxml import etree

from relay import formats
from relay.formats import pdf
from relay.formats import text as letters
from relay.model import FollowUp, LocalId, Notice, Patient, Person, Problem, Stay
from relay.reading import never_raises

V3 = "{urn:hl7-org:v3}"
_SDTC = "{urn:hl7-org:sdtc}"
_LOINC = "2.16.840.1.113883.6.1"
_OBSOLETE_INS_C = "1.2.250.1.213.1.4.2"
_MAX_ENTRIES = 20
_MAX_MEDICATIONS = 100

# (event, document) by type code, JDV_J07. A rule chooses what to do with each; the code is a fact of its own.
CODES: dict[str, tuple[str, str]] = {
    "11490-0": ("discharge", "letter"),  # CI-SIS LDL-SES
    "34112-3": ("discharge", "letter"),  # compte rendu hospitalier
    "34133-9": ("discharge", "other"),  # synthèse d'épisode; also the generic US CCD
    "83981-1": ("discharge", "letter"),  # liaison, sortie médico-sociale
    "86531-1": ("discharge", "other"),  # attestation de sortie
    "15507-7": ("er_visit", "letter"),  # passage aux urgences
    "60280-5": ("er_visit", "letter"),  # retour des urgences
    "18761-7": ("admission", "letter"),  # liaison à l'entrée: no discharge
    "88348-8": ("admission", "letter"),
    "78341-5": ("transfer", "letter"),
    "78489-2": ("birth", "other"),
    "89235-6": ("birth", "other"),
    "57057-2": ("birth", "other"),
    "57075-4": ("birth", "other"),
}

_EXIT_CODES = {  # observation ORG-074
    "160849004": "home",
    "109": "rehabilitation",
    "127": "home_hospitalisation",
    "500": "nursing_home",
    "GEN-092.06.01": "hospital",
    "GEN-092.06.03": "other",
    "419099009": "death",
}

_ADELI = re.compile(r"0\d{9}")  # the older number of a professional, in IDNPS form
_NOTHING = re.compile(r"(aucune?|neant|sans objet|non|rien|pas de)\b.{0,40}")


@never_raises(Notice(format="cda", problems=(Problem("unreadable_document", "le CDA ne peut pas être lu"),)))
def read(content: bytes) -> Notice | None:
    """A ClinicalDocument; None when the XML has another root. XML that is refused gives a notice with a problem."""
    try:
        root = formats.parse_xml(content)
    except formats.RefusedXml as refusal:
        if b"ClinicalDocument" not in content[: 64 * 1024].replace(b"\x00", b""):
            return None
        return Notice(
            format="cda", problems=(Problem("unreadable_document", f"le CDA est refusé : {refusal}"),)
        )
    return from_root(root)


def from_root(root: etree._Element) -> Notice | None:
    """The same, of XML already parsed."""
    if root.tag != f"{V3}ClinicalDocument":
        return None
    letter = _Letter(root)
    return letter.notice()


class _Letter:
    """One document being read; collects what stands there and cannot be read."""

    def __init__(self, root: etree._Element) -> None:
        self.root = root
        self.unknown: list[str] = []
        self.problems: list[Problem] = []

    def notice(self) -> Notice:
        root = self.root
        kind = root.find(f"{V3}code")
        code = kind.get("code") if kind is not None else None
        event, document = CODES.get(code or "", ("other", "other"))
        if not self.french() or (kind is not None and kind.get("codeSystem") not in (_LOINC, None)):
            # The same codes name other letters abroad (Arztbrief, CCD): no claim without a French mark.
            event, document = "other", "other"
            if code == "11490-0":
                self.problems.append(Problem("foreign_letter", "lettre sans marque française"))
        patient = self.patient()
        stay = self.stay()
        if code == "34133-9" and stay.discharged is None:
            event = "other"
        if event in ("discharge", "er_visit") and (patient.deceased or stay.exit_mode == "death"):
            event = "death"
        replaces = appended = None
        for related in root.findall(f"{V3}relatedDocument"):
            parent = _id_text(related.find(f"{V3}parentDocument/{V3}id"))
            if related.get("typeCode") == "RPLC" and parent:
                replaces = parent
            elif related.get("typeCode") == "APND" and parent:
                appended = parent
        if replaces and document == "letter":
            document = "replacement"
        elif appended and document == "letter":
            document = "addendum"
        gp = self.registered_gp()
        self.check_print(patient, gp)
        version = root.find(f"{V3}versionNumber")
        confidentiality = {
            one.get("code") for said in root.findall(f"{V3}confidentialityCode") for one in said.iter()
        }
        return Notice(
            format="cda",
            event=event,
            document=document,
            code=code,
            title=_words(root.find(f"{V3}title")) or (kind.get("displayName") if kind is not None else None),
            document_id=_id_text(root.find(f"{V3}id")),
            set_id=_id_text(root.find(f"{V3}setId")),
            version=version.get("value") if version is not None else None,
            replaces=replaces,
            status=self.status(),
            patient=patient,
            stay=stay if stay != Stay() else None,
            author=self.author(),
            registered_gp=gp,
            referring_doctor=self.referring_doctor(),
            recipients=self.recipients(),
            follow_up=tuple(self.follow_up()),
            awaited_results=tuple(self.entries("30954-2")[:_MAX_ENTRIES]),
            medications=self.medications("10183-2", "medications"),
            stopped_medications=self.medications("18610-6", "stopped_medications"),
            consent="masked" if "MASQUE_PS" in confidentiality else None,
            unknown=tuple(dict.fromkeys(self.unknown)),
            problems=tuple(self.problems),
        )

    def check_print(self, patient: Patient, gp: Person | None) -> None:
        """The PDF of level 1 is what the GP will read: of another person, or with another GP, it is not sent on."""
        text = self.root.find(f"{V3}component/{V3}nonXMLBody/{V3}text")
        if text is None or text.get("representation") != "B64":
            return
        try:
            content = binascii.a2b_base64("".join(text.itertext()))
        except (binascii.Error, ValueError):
            return  # who opens the document sees that it is damaged; its header stands
        paper = pdf.read(content)
        if paper is None:
            return

        said = paper.patient
        if any(problem.code == "two_patients" for problem in paper.problems) or (
            said is not None
            and (
                formats.contradict(patient, said)
                or bool(patient.ins and said.ins and patient.ins[:13] != said.ins[:13])
            )
        ):
            self.problems.append(formats.TWO_PATIENTS)
        other = paper.registered_gp
        if gp is not None and other is not None and gp.rpps and other.rpps and gp.rpps != other.rpps:
            self.unknown.append("registered_gp")

    def french(self) -> bool:
        """Whether the document says it is made after the French volets."""
        realm = self.root.find(f"{V3}realmCode")
        if realm is not None and realm.get("code") == "FR":
            return True
        return any(
            (one.get("root") or "").startswith(("1.2.250.1.213.1.1.", "2.16.840.1.113883.2.8."))
            for one in self.root.findall(f"{V3}templateId")
        )

    # ------------------------------------------------------------------------------------------------ the patient

    def patient(self) -> Patient:
        targets = self.root.findall(f"{V3}recordTarget")
        if len(targets) > 1:
            self.problems.append(formats.TWO_PATIENTS)
        role = targets[0].find(f"{V3}patientRole") if targets else None
        if role is None:
            return Patient()
        person = role.find(f"{V3}patient")
        patient = self.identifiers(role)
        home = role.find(f"{V3}addr/{V3}postalCode")
        patient = replace(patient, postcode=formats.postcode(_words(home)))
        if person is None:
            return patient
        patient = self.named(patient, person.findall(f"{V3}name"))
        sex = person.find(f"{V3}administrativeGenderCode")
        if sex is not None and sex.get("code"):
            said: Literal["M", "F", "U"] = {"M": "M", "F": "F"}.get(str(sex.get("code")).upper(), "U")  # type: ignore[assignment]
            patient = replace(patient, sex=said)
        elif sex is None or sex.get("nullFlavor"):
            titles = (formats.civility(_words(one)) for one in person.findall(f"{V3}name/{V3}prefix"))
            patient = replace(patient, sex=next((title for title in titles if title), None))
        born = person.find(f"{V3}birthTime")
        if born is not None and born.get("value"):
            day = formats.hl7_day(born.get("value"))
            if day is None:
                self.unknown.append("patient.birth_date")
            patient = replace(patient, birth_date=day)
        place = person.find(f"{V3}birthplace/{V3}place/{V3}addr/{V3}county")
        cog = _words(place) or ""
        if re.fullmatch(r"\d[\dAB]\d{3}", cog):
            patient = replace(patient, birth_place=cog)
        dead = person.find(f"{_SDTC}deceasedInd")
        return replace(
            patient,
            deceased=(dead is not None and dead.get("value") in ("true", "1"))
            or (person.find(f"{_SDTC}deceasedTime") is not None),
        )

    def named(self, patient: Patient, every: list[etree._Element]) -> Patient:
        """Of several names those that are the person's own; two different birth names are none."""
        names = [one for one in every if len(one) or (one.text or "").strip()]
        own = [one for one in names if not {"A", "P"} & set((one.get("use") or "").split())]  # aliases
        found = [_named(patient, one) for one in own]
        if not found:
            if names:
                self.unknown.append("patient.birth_name")
            return patient
        families = {
            words
            for one in own
            for family in one.findall(f"{V3}family")
            if "BR" in (family.get("qualifier") or "").split()
            and (words := formats.fold(_words(family) or ""))
        }
        if (
            len(families) > 1
            or len(
                {formats.fold(one.birth_name or "") for one in found if one.name_kind == "unstated"} - {""}
            )
            > 1
        ):
            self.unknown.append("patient.birth_name")
        best = next((one for one in found if one.name_kind == "birth"), found[0])
        used = next((one.used_name for one in found if one.used_name), None)
        return replace(best, used_name=best.used_name or used)

    def identifiers(self, role: etree._Element) -> Patient:
        found: dict[str, list[str]] = {}
        local: list[LocalId] = []
        for one in role.findall(f"{V3}id"):
            system, value = one.get("root") or "", (one.get("extension") or "").strip()
            if not value:
                continue
            if system in formats.INS_OIDS:
                number = formats.matricule(value)
                if number is None:
                    self.unknown.append("patient.ins")
                elif number not in found.setdefault(system, []):
                    found[system].append(number)
            elif system != _OBSOLETE_INS_C:
                local.append(LocalId(system, value))
        if any(len({number[:13] for number in numbers}) > 1 for numbers in found.values()):
            self.problems.append(formats.TWO_PATIENTS)
        for oid in formats.INS_OIDS:  # the NIR before the provisional NIA, real before test
            if oid in found:
                return Patient(ins=found[oid][0], ins_oid=oid, local_ids=tuple(local))
        return Patient(local_ids=tuple(local))

    # ------------------------------------------------------------------------------------------------ the people

    def registered_gp(self) -> Person | None:
        """The participant or performer with functionCode PCP, and nobody else: a recipient is no registered GP."""
        people: list[Person] = []
        performers = f"{V3}documentationOf/{V3}serviceEvent/{V3}performer"
        for one in (*self.root.findall(f"{V3}participant"), *self.root.findall(performers)):
            function = one.find(f"{V3}functionCode")
            if function is None or function.get("code") != "PCP":
                continue
            if (entity := one.find(f"{V3}associatedEntity")) is not None:
                who, where = f"{V3}associatedPerson", f"{V3}scopingOrganization"
            elif (entity := one.find(f"{V3}assignedEntity")) is not None:
                who, where = f"{V3}assignedPerson", f"{V3}representedOrganization"
            else:
                continue
            person = self.person(entity, who, where, "registered_gp")
            if person is not None and person not in people:
                people.append(person)
        if len({one.rpps or one.name for one in people}) > 1:
            self.unknown.append("registered_gp")
            self.problems.append(Problem("many_gps", "plusieurs médecins traitants dans le document"))
            return None
        return people[0] if people else None

    def referring_doctor(self) -> Person | None:
        """The participant REFB, in either place where it is written; of two, nobody."""
        people: list[Person] = []
        for one in self.root.findall(f"{V3}participant"):
            function, entity = one.find(f"{V3}functionCode"), one.find(f"{V3}associatedEntity")
            if entity is None or "REFB" not in (
                one.get("typeCode"),
                function.get("code") if function is not None else None,
            ):
                continue
            person = self.person(entity, f"{V3}associatedPerson", f"{V3}scopingOrganization")
            if person is not None and person not in people:
                people.append(person)
        return people[0] if len(people) == 1 else None

    def recipients(self) -> tuple[Person, ...]:
        people = []
        for one in self.root.findall(f"{V3}informationRecipient"):
            entity = one.find(f"{V3}intendedRecipient")
            if entity is not None:
                person = self.person(entity, f"{V3}informationRecipient", f"{V3}receivedOrganization")
                if person is not None:
                    people.append(replace(person, copy=one.get("typeCode") == "TRC"))
        return tuple(people)

    def author(self) -> Person | None:
        for one in self.root.findall(f"{V3}author/{V3}assignedAuthor"):
            person = self.person(one, f"{V3}assignedPerson", f"{V3}representedOrganization")
            if person is not None and (person.name or person.rpps):
                return person
        return None

    def person(self, entity: etree._Element, who: str, where: str, field: str | None = None) -> Person | None:
        """Somebody of the header; None when nothing is said. `field` names what an unreadable RPPS makes unknown."""
        numbers = {
            (one.get("extension") or "").strip()
            for one in entity.findall(f"{V3}id")
            if one.get("root") == formats.PROFESSIONALS_OID
        } - {""}
        read = {formats.bare_rpps(one) for one in numbers} - {None}
        rpps = read.pop() if len(read) == 1 else None
        if field and rpps is None and (read or not all(_ADELI.fullmatch(one) for one in numbers)):
            self.unknown.append(f"{field}.rpps")
        person = entity.find(who)
        name = person.find(f"{V3}name") if person is not None else None
        family = given = None
        if name is not None:
            family = _words(name.find(f"{V3}family"))
            given = _words(name.find(f"{V3}given"))
            if family is None:
                family = _words(name)
        organisation = entity.find(where)
        address = phone = None
        for telecom in entity.findall(f"{V3}telecom"):
            value = (telecom.get("value") or "").strip()
            if value.lower().startswith("mailto:") and "@" in value:
                written = value[7:].strip().lower()
                if address is None or (written.endswith("mssante.fr") and not address.endswith("mssante.fr")):
                    address = written  # doctors give their everyday address, too
            elif value.lower().startswith("tel:"):
                phone = phone or value[4:].strip() or None
        result = Person(
            name=" ".join(part for part in (given, family) if part) or None,
            family_name=family,
            given_name=given,
            rpps=rpps,
            mss_address=address,
            organisation=_words(organisation.find(f"{V3}name")) if organisation is not None else None,
            phone=phone,
        )
        return result if result != Person() else None

    # -------------------------------------------------------------------------------------------------- the stay

    def stay(self) -> Stay:
        root = self.root
        encounter = root.find(f"{V3}componentOf/{V3}encompassingEncounter")
        event = root.find(f"{V3}documentationOf/{V3}serviceEvent")
        stay = Stay()
        # Abroad the event documented is any span of care, a life long at times; here it is the stay (LDL-SES).
        for source in (encounter, event) if self.french() else (encounter,):
            times = source.find(f"{V3}effectiveTime") if source is not None else None
            if times is None:
                continue
            for edge, name in (("low", "admitted"), ("high", "discharged")):
                bound = times.find(f"{V3}{edge}")
                value = bound.get("value") if bound is not None else None
                if not value or getattr(stay, name) is not None:
                    continue
                moment = formats.hl7_time(value)
                if moment is None:
                    self.unknown.append(f"stay.{name}")
                elif edge == "low":
                    stay = replace(stay, admitted=moment[0], admitted_exact=moment[1])
                else:
                    stay = replace(stay, discharged=moment[0], discharged_exact=moment[1])
            if stay.admitted or stay.discharged:
                break  # both edges of one source: the other may speak of another stay
        if encounter is not None:
            for one in encounter.findall(f"{V3}id"):
                if one.get("extension"):
                    stay = replace(stay, number=(one.get("extension") or "").strip() or None)
                    break
        ward = root.find(
            f"{V3}documentationOf/{V3}serviceEvent/{V3}performer/{V3}assignedEntity/{V3}representedOrganization/{V3}name"
        )
        if ward is None and encounter is not None:
            ward = encounter.find(f"{V3}location/{V3}healthCareFacility/{V3}location/{V3}name")
        facility: str | None = None
        called: str | None = None
        for path in (
            f"{V3}custodian/{V3}assignedCustodian/{V3}representedCustodianOrganization",
            f"{V3}author/{V3}assignedAuthor/{V3}representedOrganization",
        ):
            organisation = root.find(path)
            if organisation is None or facility:
                continue
            for one in organisation.findall(f"{V3}id"):
                if one.get("root") == formats.STRUCTURES_OID:
                    facility = facility or formats.bare_finess(one.get("extension"))
            called = called or _words(organisation.find(f"{V3}name"))
        mode = None
        disposition = encounter.find(f"{V3}dischargeDispositionCode") if encounter is not None else None
        if disposition is not None:
            mode = _exit(disposition)
        for observed in () if mode else self.observations("ORG-074"):
            mode = _exit(observed)
        came = None
        for observed in self.observations("ORG-070"):
            came = formats.entry_mode(observed.get("displayName") or _words(observed) or "") or came
        return replace(
            stay,
            facility=facility,
            facility_name=called,
            ward=_words(ward),
            exit_mode=mode,
            entry_mode=came,
        )

    def status(self) -> str | None:
        """Of the observation GEN-065; a signed document without it is final."""
        for value in self.observations("GEN-065"):
            return "draft" if value.get("code") == "385651009" else "final"
        return "final" if self.root.find(f"{V3}legalAuthenticator") is not None else None

    def observations(self, code: str) -> Iterator[etree._Element]:
        """The values of the body's observations with this code."""
        body = self.root.find(f"{V3}component/{V3}structuredBody")
        if body is None:
            return
        for kind in body.iter(f"{V3}code"):
            if kind.get("code") == code:
                observation = kind.getparent()
                value = observation.find(f"{V3}value") if observation is not None else None
                if value is not None:
                    yield value

    # --------------------------------------------------------------------------------------------------- sections

    @functools.cached_property
    def _sections(self) -> Mapping[str | None, list[etree._Element]]:
        """The narratives of the body by the code of their section."""
        body = self.root.find(f"{V3}component/{V3}structuredBody")
        found: dict[str | None, list[etree._Element]] = {}
        for section in body.iter(f"{V3}section") if body is not None else ():
            kind, text = section.find(f"{V3}code"), section.find(f"{V3}text")
            if kind is not None and text is not None:
                found.setdefault(kind.get("code"), []).append(text)
        return found

    def entries(self, code: str) -> list[str]:
        """The lines of one section: items, rows, paragraphs and loose words; « Aucun » says nothing."""
        found: list[str] = []
        for text in self._sections.get(code, ()):
            found += [words[:300] for words in _lines(text) if not _NOTHING.fullmatch(formats.fold(words))]
        return found

    def medications(self, code: str, field: str) -> tuple[str, ...]:
        """The lines of a list of treatments: whole or not at all, half a list being worse than none."""
        found = self.entries(code)
        if len(found) > _MAX_MEDICATIONS or any(len(words) == 300 for words in found):
            self.unknown.append(field)
            return ()
        return tuple(found)

    def follow_up(self) -> Iterator[FollowUp]:
        for line in self.entries("18776-5")[:_MAX_ENTRIES]:
            day = formats.find_day(formats.fold(line))
            yield FollowUp(line, day[0] if day else None)


def _lines(text: etree._Element) -> Iterator[str]:
    """The lines of a narrative (CDA R2 §4.3.5): rows with cells, items, paragraphs, and the words between them."""
    loose: list[str] = []

    def said() -> Iterator[str]:
        words = " ".join("".join(loose).split())
        loose.clear()
        if words:
            yield words

    loose.append(text.text or "")
    for one in text:
        tag = etree.QName(one).localname
        if tag in ("list", "table", "thead", "tbody", "tfoot"):
            yield from said()
            yield from _lines(one)
        elif tag in ("item", "paragraph", "tr"):
            yield from said()
            if tag != "tr" or one.find(f"{V3}td") is not None:  # a row of headings alone names nothing
                loose.append(_kept(one))
            yield from said()
        elif tag == "br":
            yield from said()
        elif tag not in ("caption", "col", "colgroup", "footnote", "footnoteRef"):
            loose.append(_kept(one))
        loose.append(one.tail or "")
    yield from said()


_APART = frozenset({"list", "table", "item", "paragraph", "tr", "td", "th", "br"})


def _kept(element: etree._Element) -> str:
    """The words of an element without those that were struck out (`revised="delete"`); blocks stand apart."""
    parts = [element.text or ""]
    for one in element:
        tag = etree.QName(one).localname
        if one.get("revised") != "delete" and tag != "caption":
            parts += [" ", _kept(one), " "] if tag in _APART else [_kept(one)]
        parts.append(one.tail or "")
    return "".join(parts)


def _exit(value: etree._Element) -> str | None:
    code = value.get("code")
    if not code:
        return None
    return _EXIT_CODES.get(code) or formats.exit_mode(value.get("displayName") or "") or "other"


def _named(patient: Patient, name: etree._Element) -> Patient:
    """Both models of names: BR and CL (2022), BR and SP with one `given` for each name (2020); or words alone."""
    if name.find(f"{V3}family") is None and name.find(f"{V3}given") is None:
        shown = letters.read(f"Patient : {_words(name) or ''}").notice.patient or Patient()
        return replace(patient, birth_name=shown.birth_name, used_name=shown.used_name, given_names=shown.given_names,
                       name_kind=shown.name_kind, order_unsure=shown.order_unsure)  # fmt: skip
    birth = used = plain = None
    for one in name.findall(f"{V3}family"):
        words, kind = _words(one), (one.get("qualifier") or "").split()
        if "BR" in kind:
            birth = birth or words
        elif "CL" in kind or "SP" in kind:
            used = used or words
        else:
            plain = plain or words
    first = None
    given: list[str] = []
    for one in name.findall(f"{V3}given"):
        words, kind = _words(one), (one.get("qualifier") or "").split()
        if not words or "CL" in kind:
            continue
        if "BR" in kind:
            first = first or words
        else:
            given.append(words)
    return replace(
        patient,
        birth_name=birth or plain,
        used_name=used,
        given_names=_given(first, given),
        name_kind="birth" if birth else "unstated" if plain else "used" if used else "unstated",
    )


def _given(first: str | None, others: list[str]) -> tuple[str, ...]:
    """The first given name kept whole, then each further one: a list may repeat the first."""
    names = [first] if first else []
    for words in others:
        if first and (words == first or words.startswith(f"{first} ")):
            names += words[len(first) :].split()
        elif len(others) > 1 and not first:
            names.append(words)
        else:
            names += words.split()
    return tuple(dict.fromkeys(names))


def _words(element: etree._Element | None) -> str | None:
    """The text of an element on one line."""
    if element is None:
        return None
    return " ".join("".join(element.itertext()).split()) or None


def _id_text(element: etree._Element | None) -> str | None:
    """`root`, or `root^extension`."""
    if element is None or not element.get("root"):
        return None
    return (
        f"{element.get('root')}^{element.get('extension')}"
        if element.get("extension")
        else element.get("root")
    )
