"""IHE_XDM.zip: tolerant to the shapes senders give it, strict on what could hide or mix something.

The archive is read in memory through its central directory, under bounds, and never unpacked. A package
that lies (hash, size, a missing document) or speaks of two people keeps its problem in the notice.
"""

from __future__ import annotations

import hashlib
import io
import re
import stat
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from urllib.parse import unquote

from lxml import etree

from relay import formats
from relay.formats import cda, pdf
from relay.model import LocalId, Notice, Patient, Problem, Stay
from relay.reading import never_raises

MAX_EXPANDED = 100 * 2**20
MAX_ENTRIES = 1000
MAX_RATIO = 100
MAX_DEPTH = 20  # folders within folders
_SMALL = 2**20  # below this a high ratio is ordinary: blank forms compress well

_RIM = "{*}"  # ebRIM 3.0; XDS.a senders still write 2.1, whose hashes and patients count no less
_PATIENT_ID = "urn:uuid:58a6f841-87b3-4a3e-92fd-a8ffeff98427"  # IHE ITI TF-3 §4.2.3.2: XDSDocumentEntry
_UNIQUE_ID = "urn:uuid:2e82c1f6-a085-4c72-9da3-8640a32e42ab"
_TYPE_CODE = "urn:uuid:f0306f51-975f-434e-a61c-c59651d33983"
_CONFIDENTIALITY = "urn:uuid:f4f85eac-e6cb-4883-b524-f2705394840f"

_NOISE = re.compile(
    r"(^|/)(__macosx|\.svn|\.git)(/|$)|(^|/)(\.ds_store|thumbs\.db|\._[^/]*|\.[^/]*\.sw[a-p]|[^/]*~)$"
)
_RANK = {"discharge": 0, "death": 0, "er_visit": 1, "birth": 2, "transfer": 3, "admission": 4}


class _Broken(Exception):
    """The package cannot be trusted; the text says why without naming a member."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """One ExtrinsicObject of METADATA.XML."""

    uri: str | None = None
    sha1: str | None = None
    size: int | None = None
    patient: tuple[str, str] | None = None  # (OID, value)
    local: tuple[str, str] | None = None
    code: str | None = None
    unique_id: str | None = None
    title: str | None = None
    masked: bool = False
    person: Patient = field(default_factory=Patient)


def looks_like_zip(content: bytes) -> bool:
    """By its first bytes."""
    return content[:4] in (b"PK\x03\x04", b"PK\x05\x06")


def read(content: bytes) -> Notice | None:
    """What the package says; None for a ZIP that holds neither METADATA.XML nor a CDA. Never raises."""
    try:
        return _guarded(content)
    except _Broken as broken:
        return Notice(package="xdm", problems=(formats.broken_package(str(broken)),))


def _guarded(content: bytes) -> Notice | None:
    try:
        members = _members(content)
        return _read(members)
    except _Broken:
        raise
    except Exception:  # noqa: BLE001  # zipfile answers damage with a dozen kinds of error, some of them its own
        raise _Broken("l'archive est abîmée") from None


@never_raises(None)
def members(content: bytes) -> dict[str, bytes] | None:
    """The files of an archive by their path, noise left out; None for one that is damaged or unsafe."""
    return _members(content)


def _members(content: bytes) -> dict[str, bytes]:
    """The files of the archive, noise left out. Raises _Broken on anything unsafe."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = archive.infolist()
        if len(entries) > MAX_ENTRIES:
            raise _Broken("trop de fichiers dans l'archive")
        if sum(entry.file_size for entry in entries) > MAX_EXPANDED:
            raise _Broken("l'archive est trop grande une fois ouverte")
        out: dict[str, bytes] = {}
        for entry in entries:
            name = entry.filename.replace("\\", "/")
            if (
                name.startswith("/")
                or ":" in name
                or "\x00" in entry.orig_filename
                or ".." in name.split("/")
            ):
                raise _Broken("un chemin sort de l'archive")
            if name.count("/") > MAX_DEPTH:
                raise _Broken("l'archive est trop profonde")
            if entry.flag_bits & 0x1:
                raise _Broken("l'archive est chiffrée")
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise _Broken("l'archive contient un lien")
            if entry.file_size > _SMALL and entry.file_size > MAX_RATIO * max(1, entry.compress_size):
                raise _Broken("l'archive se dilate trop")
            if entry.is_dir() or _NOISE.search(name.lower()):
                continue
            with archive.open(entry) as opened:
                body = opened.read(entry.file_size + 1)
            if len(body) != entry.file_size or zlib.crc32(body) != entry.CRC:
                raise _Broken("un fichier de l'archive est abîmé")
            if name in out and out[name] != body:
                raise _Broken("deux fichiers du même nom")
            if looks_like_zip(body):
                raise _Broken("une archive dans l'archive")
            out[name] = body
    return out


def _read(members: dict[str, bytes]) -> Notice | None:
    subsets: dict[bytes, str] = {}  # the same tree twice counts once
    for name, body in members.items():
        if name.rsplit("/", 1)[-1].upper() == "METADATA.XML":
            subsets.setdefault(body, name)
    if not subsets:
        letters = _letters(members.items())
        if not letters:
            return None
        missing = Problem("no_metadata", "paquet sans METADATA.XML")
        return _joined(letters, [], None, _printed(members.items()), (missing,))
    letters: list[tuple[bytes, Notice]] = []  # type: ignore[no-redef]
    papers: list[Notice] = []
    read: set[bytes] = set()
    entries: list[_Entry] = []
    action = None
    for body, path in subsets.items():
        folder = path[: len(path) - len("METADATA.XML")]
        beside = {
            name: content for name, content in members.items() if name.startswith(folder) and name != path
        }
        try:
            root = formats.parse_xml(body)
        except formats.RefusedXml as refusal:
            raise _Broken(f"METADATA.XML est refusé : {refusal}") from None
        found = [_entry(one) for one in root.iter(f"{_RIM}ExtrinsicObject")]
        announced = [_announced(entry, folder, beside) for entry in found if entry.uri]
        action = action or _action(root)
        entries += found
        here = [*announced, *beside.items()]
        here = [(name, content) for name, content in here if content not in read]
        read |= {content for _, content in here}
        letters += _letters(here)
        papers += _printed(here)
    # What no METADATA.XML speaks of leaves with the package, too.
    apart = [(name, content) for name, content in members.items() if content not in read]
    strangers = [*(notice for _, notice in _letters(apart)), *_printed(apart)]
    return _joined(letters, entries, action, papers, (), strangers)


def _announced(entry: _Entry, folder: str, beside: dict[str, bytes]) -> tuple[str, bytes]:
    """The member an entry names, its hash and size checked; names agree whatever their case."""
    wanted = unquote(entry.uri or "").replace("\\", "/").lower().removeprefix("./")
    choices = [name for name in beside if name[len(folder) :].lower() == wanted] or [
        name for name in beside if name.lower().rsplit("/", 1)[-1] == wanted.rsplit("/", 1)[-1]
    ]
    if not choices:
        raise _Broken("un document annoncé manque")
    content = beside[choices[0]]
    if entry.size is not None and entry.size != len(content):
        raise _Broken("un document n'a pas la taille annoncée")
    # IHE XDM prescribes SHA-1 (ITI TF-3 §4.2.3.2.10): it finds damage, it proves no origin.
    if entry.sha1 and entry.sha1 != hashlib.sha1(content, usedforsecurity=False).hexdigest():
        raise _Broken("un document n'a pas l'empreinte annoncée")
    return choices[0], content


def _letters(members: Iterable[tuple[str, bytes]]) -> list[tuple[bytes, Notice]]:
    """Every CDA among the members, each content once."""
    out: dict[bytes, Notice] = {}
    for name, content in members:
        if content in out or not _is_xml(name, content):
            continue
        notice = cda.read(content)
        if notice is not None:
            out[content] = notice
    return list(out.items())


def _printed(members: Iterable[tuple[str, bytes]]) -> list[Notice]:
    """What the PDFs say, each content once."""
    contents = dict.fromkeys(content for _, content in members if pdf.looks_like_pdf(content))
    return [notice for content in contents if (notice := pdf.read(content)) is not None]


def _is_xml(name: str, content: bytes) -> bool:
    return b"ClinicalDocument" in content[: 64 * 1024] or (
        name.lower().endswith((".xml", ".cda")) and content[:2] in (b"\xff\xfe", b"\xfe\xff")
    )


def _joined(
    letters: list[tuple[bytes, Notice]],
    entries: list[_Entry],
    action: str | None,
    papers: list[Notice],
    problems: tuple[Problem, ...],
    strangers: Iterable[Notice] = (),
) -> Notice:
    """One notice of the package: its chief letter, the metadata beside it, and whether all speak of one person.

    A PDF beside a CDA is its rendition: it may contradict, and adds nothing.
    """
    notices = sorted((one for _, one in letters), key=lambda one: _RANK.get(one.event or "", 9))
    people = [one.patient for one in (*notices, *papers, *strangers) if one.patient is not None]
    if notices and notices[0].event not in (
        None,
        "other",
    ):  # abroad, packages come with the traits of an example
        people += [one.person for one in entries if one.person != Patient()]
    numbers = {entry.patient for entry in entries if entry.patient}
    numbers |= {
        (one.patient.ins_oid or "", one.patient.ins) for one in notices if one.patient and one.patient.ins
    }
    values = {value[:13] for _, value in numbers} | {one.ins[:13] for one in people if one.ins}
    two = len(values) > 1 or any(formats.contradict(people[0], one) for one in people[1:])
    if two:
        problems += (formats.TWO_PATIENTS,)
    entry = entries[0] if entries else _Entry()
    if notices:
        chief = notices[0]
        if len(notices) == len(entries) == 1:
            around = Notice(document_id=entry.unique_id)
            chief = replace(chief, other_ids=formats.further(chief, around))
        problems += tuple(one for other in notices for one in other.problems)
    else:
        event, document = cda.CODES.get(entry.code or "", (None, "other"))
        french = entry.patient is not None and entry.patient[0] in formats.INS_OIDS
        chief = Notice(
            event=event if french else None,
            document=document if french and event else None,
            code=entry.code,
            title=entry.title,
            document_id=entry.unique_id,
            patient=entry.person if entry.person != Patient() or entry.patient or entry.local else None,
        )
    if chief.patient is not None and chief.patient.ins is None and len(numbers) == 1:
        oid, value = next(iter(numbers))
        chief = replace(chief, patient=replace(chief.patient, ins=value, ins_oid=oid))
    written = any(one.patient is not None for one in notices)
    for paper in papers:
        problems += tuple(one for one in paper.problems if one.code == "two_patients")
        if written:
            chief = _beside(chief, paper)
            continue
        if (
            chief.patient is not None
            and paper.patient is not None
            and formats.contradict(chief.patient, paper.patient)
        ):
            problems += (formats.TWO_PATIENTS,)
        chief = _read_from(chief, paper)
    patient = chief.patient
    known = {*formats.INS_OIDS, *(one.system for one in patient.local_ids)} if patient is not None else set()
    if patient is not None and entry.local and entry.local[0] not in known:
        patient = replace(patient, local_ids=(*patient.local_ids, LocalId(*entry.local)))
    if action == "D":  # MDM volet, extra-metadata: the documents named are withdrawn
        chief = replace(chief, document="retraction", retracts=chief.document_id or entry.unique_id)
    elif action in ("C", "RPLC") and chief.document == "letter":
        chief = replace(chief, document="replacement")
    elif action == "APND" and chief.document == "letter":
        chief = replace(chief, document="addendum")
    masked = any(one.masked for one in entries) or any(one.consent == "masked" for one in notices)
    return replace(
        chief,
        package="xdm",
        patient=patient,
        consent="masked" if masked else chief.consent,
        problems=tuple(dict.fromkeys((*problems, *chief.problems))),
    )


def _beside(chief: Notice, paper: Notice) -> Notice:
    """What the printed letter forbids is forbidden, and a second registered GP leaves none certain."""
    gp, said = chief.registered_gp, paper.registered_gp
    two = gp is not None and said is not None and gp.rpps and said.rpps and gp.rpps != said.rpps
    unknown = [
        *chief.unknown,
        *(["registered_gp"] if two else []),
        *(name for name in paper.unknown if name == "consent"),
    ]
    consent = paper.consent if paper.consent == "opposed" else chief.consent
    return replace(chief, consent=consent, unknown=tuple(dict.fromkeys(unknown)))


def _read_from(chief: Notice, paper: Notice) -> Notice:
    """A PDF fills what neither a CDA nor the metadata say; what it says of the patient must not contradict them."""
    if paper.patient is None and paper.event is None:
        return chief
    who, named = chief.patient or Patient(), paper.patient
    if named is not None and not formats.contradict(who, named):
        gaps = {
            one.name: getattr(named, one.name)
            for one in fields(Patient)
            if getattr(who, one.name) in (None, (), "unstated")
        }
        who = replace(who, **gaps)
    stay = replace(chief.stay or Stay(), **{
        one.name: getattr(paper.stay or Stay(), one.name)
        for one in fields(Stay) if not getattr(chief.stay or Stay(), one.name)
    })  # fmt: skip
    known = chief.event not in (None, "other")
    return replace(
        chief,
        format=chief.format or "pdf",
        event=chief.event if known else paper.event or chief.event,
        document=chief.document if known else paper.document,
        title=chief.title or paper.title,
        patient=who if who != Patient() else None,
        stay=stay if stay != Stay() else None,
        registered_gp=chief.registered_gp or paper.registered_gp,
        author=chief.author or paper.author,
        recipients=chief.recipients or paper.recipients,
        consent=chief.consent or paper.consent,
        urgency=chief.urgency or paper.urgency,
        follow_up=chief.follow_up or paper.follow_up,
        awaited_results=chief.awaited_results or paper.awaited_results,
        referring_doctor=chief.referring_doctor or paper.referring_doctor,
        unknown=tuple(dict.fromkeys((*chief.unknown, *paper.unknown))),
    )


# -------------------------------------------------------------------------------------------------------- metadata


@never_raises(_Entry())
def _entry(node: etree._Element) -> _Entry:
    slots: dict[str, str] = {}
    info: list[str] = []
    for slot in node.findall(f"{_RIM}Slot"):
        values = ["".join(one.itertext()).strip() for one in slot.iter(f"{_RIM}Value")]
        slots[(slot.get("name") or "").lower()] = (
            "".join(values) if slot.get("name") == "URI" else next(iter(values), "")
        )
        if (slot.get("name") or "").lower() == "sourcepatientinfo":
            info = values
    patient = unique = None
    for one in node.findall(f"{_RIM}ExternalIdentifier"):
        if one.get("identificationScheme") == _PATIENT_ID:
            patient = _cx(one.get("value"))
        elif one.get("identificationScheme") == _UNIQUE_ID:
            unique = one.get("value")
    code, masked = None, False
    for one in node.findall(f"{_RIM}Classification"):
        if one.get("classificationScheme") == _TYPE_CODE:
            code = one.get("nodeRepresentation")
        elif one.get("classificationScheme") == _CONFIDENTIALITY:
            masked = masked or one.get("nodeRepresentation") == "MASQUE_PS"
    title = node.find(f"{_RIM}Name/{_RIM}LocalizedString")
    if patient is not None and patient[0] in formats.INS_OIDS:
        number = formats.matricule(patient[1])
        patient = (patient[0], number) if number else None
    else:
        patient = None
    return _Entry(
        uri=slots.get("uri") or None,
        sha1=slots.get("hash", "").lower() or None,
        size=int(slots["size"]) if slots.get("size", "").isdigit() else None,
        patient=patient,
        local=_cx(slots.get("sourcepatientid")),
        code=code,
        unique_id=unique,
        title=title.get("value") if title is not None else None,
        masked=masked,
        person=_person(info),
    )


def _person(info: list[str]) -> Patient:
    """The traits of sourcePatientInfo: fields of PID, one a value (IHE ITI TF-3 §4.2.3.2.23)."""
    who = Patient()
    for value in info:
        name, _, said = value.partition("|")
        parts = [*said.split("^"), "", "", "", "", "", "", ""]
        if name == "PID-5" and parts[0].strip():
            given = tuple(dict.fromkeys(" ".join(parts[1:3]).split()))
            kind = parts[6].strip().upper()
            if kind == "D":
                who = replace(who, used_name=parts[0].strip(), given_names=who.given_names or given)
            else:
                who = replace(who, birth_name=parts[0].strip(), given_names=given or who.given_names,
                              name_kind="birth" if kind == "L" else "unstated")  # fmt: skip
        elif name == "PID-7":
            who = replace(who, birth_date=formats.hl7_day(said))
        elif name == "PID-8" and said.strip() in ("M", "F"):
            who = replace(who, sex="M" if said.strip() == "M" else "F")
    return who


def _cx(value: str | None) -> tuple[str, str] | None:
    """(OID, value) of `value^^^&OID&ISO^NH`; some senders escape the ampersand twice."""
    found = re.match(r"([^^]+)\^\^\^&([\d.]+)&", (value or "").replace("&amp;", "&"))
    return (found[2], found[1].strip()) if found else None


def _action(root: etree._Element) -> str | None:
    """The extra-metadata `action` of the submission: D withdraws, C changes; else how its documents relate to others."""
    for slot in root.iter(f"{_RIM}Slot"):
        if (slot.get("name") or "").lower().rsplit(":", 1)[-1] == "action":
            word = "".join(slot.itertext()).strip().upper()
            if word in ("D", "C"):
                return word
    for one in root.iter(f"{_RIM}Association"):  # IHE ITI TF-3 §4.2.2: RPLC, XFRM_RPLC, APND
        kind = re.split(r"[:_]", one.get("associationType") or "")[-1].upper()
        if kind in ("RPLC", "APND"):
            return kind
    return None
