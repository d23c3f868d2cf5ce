"""XDM packages: the shapes senders give them are taken, what lies or mixes people is held."""

from __future__ import annotations

import io
import json
import re
import stat
import time
import zipfile
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.formats import xdm
from tests import letters
from tests.campaign import many
from tests.letters import MARTIN, ODETTE, printed

SAMPLES = Path(__file__).parents[2] / "shared" / "samples"
PAUL = letters.patient("LEROUX", "Paul", sex="M")
LETTER = ("DOC00001.XML", letters.cda(), "text/xml")
PAPER = ("DOC00001.PDF", letters.pdf(), "application/pdf")
PRINT = ("DOC00001.PDF", printed.letter(ODETTE, MARTIN), "application/pdf")
SCAN = ("DOC00001.PDF", printed.scan(), "application/pdf")


def problems(package: bytes) -> list[str]:
    notice = xdm.read(package)
    assert notice is not None
    return [problem.code for problem in notice.problems]


def test_a_package_gives_its_letter():
    notice = xdm.read(letters.xdm())
    assert notice is not None
    assert (notice.package, notice.format, notice.event, notice.problems) == ("xdm", "cda", "discharge", ())
    assert notice.patient is not None
    assert notice.patient.ins == ODETTE.ins


@pytest.mark.parametrize(
    "changes",
    [
        {"root": ""},
        {"root": "IHE_XDM/LUCY_0/"},
        {"root": "prefix/IHE_XDM/SUBSET/"},
        {"noise": [("__MACOSX/IHE_XDM/SUBSET01/._METADATA.XML", b"x"), ("IHE_XDM/SUBSET01/.svn/METADATA.XML", b"<x/>"),
                   (".DS_Store", b"x"), ("IHE_XDM/SUBSET01/.METADATA.XML.swp", b"x")]},
        {"documents": [("doc00001.xml", letters.cda(), "text/xml"), PAPER]},
        {"meta": letters.metadata([LETTER, PAPER]).replace(b"DOC00001.XML", b"Doc00001.xml")},
        {"meta": letters.metadata([LETTER]).replace(b'name="hash"', b'name="x"').replace(b'name="URI"', b'name="y"')},
        {"meta": letters.metadata([LETTER]).replace(b"^^^&", b"^^^&amp;")},
        {"root": "IHE_XDM/SUBSET/"},
        {"root": "ihe_xdm/subset01/"},
        {"root": "./IHE_XDM/SUBSET01/"},
        {"root": "IHE_XDM\\SUBSET01\\"},
        {"root": "CCD1/"},
        {"noise": [("Thumbs.db", b"x"), ("IHE_XDM/SUBSET01/Thumbs.db", b"\xd0\xcf"), ("IHE_XDM/SUBSET01/~", b"x"),
                   ("IHE_XDM/SUBSET01/DOC00001.XML~", letters.cda(patient=PAUL)), ("desktop.ini", b"x"),
                   ("__MACOSX/IHE_XDM/SUBSET01/._DOC00001.XML", letters.cda(patient=PAUL)),
                   (".git/METADATA.XML", b"<broken")]},
        {"documents": [("CDA/DOC00001.XML", letters.cda(), "text/xml")]},
        {"meta": letters.metadata([LETTER]).replace(b">DOC00001.XML<", b">./DOC00001.XML<")},
        {"meta": letters.metadata([LETTER]).replace(b">DOC00001.XML<", b">DOC00001%2EXML<")},
        {"meta": letters.metadata([LETTER]).replace(b'name="hash"', b'name="x"').replace(b'name="size"', b'name="y"')
         .replace(b'name="sourcePatientId"', b'name="z"')},
        {"meta": letters.metadata([LETTER]).replace(b'value="279', b'value=" 279')},
        {"meta": b"\xef\xbb\xbf" + letters.metadata([LETTER])},
        {"meta": letters.metadata([LETTER]).decode().replace("UTF-8", "UTF-16").encode("utf-16")},
    ],
)  # fmt: skip
def test_the_shapes_senders_give_it_are_taken(changes: dict[str, object]):
    notice = xdm.read(letters.xdm(**changes))  # type: ignore[arg-type]
    assert notice is not None
    assert (notice.event, notice.problems) == ("discharge", ())


def test_upper_case_hashes_are_hashes():
    meta = letters.metadata([LETTER])
    digest = meta.split(b'name="hash"><ValueList><Value>')[1][:40]
    assert problems(letters.xdm([LETTER], meta=meta.replace(digest, digest.upper()))) == []


@pytest.mark.parametrize("name", ["METADATA.xml", "metadata.xml", "Metadata.XML"])
def test_the_metadata_go_by_any_case_and_need_no_readme(name: str):
    package = letters.zipped([(f"IHE_XDM/SUBSET01/{name}", letters.metadata([LETTER])), (f"IHE_XDM/SUBSET01/{LETTER[0]}", LETTER[1])])  # fmt: skip
    assert problems(package) == []


def test_two_subsets_may_hold_different_files_of_one_name():
    other = ("DOC00001.XML", letters.cda(code="57833-6", document_id="1.2.3.4"), "text/xml")
    second = [
        ("IHE_XDM/SUBSET02/METADATA.XML", letters.metadata([other])),
        ("IHE_XDM/SUBSET02/DOC00001.XML", other[1]),
    ]
    notice = xdm.read(letters.xdm([LETTER], noise=second))
    assert notice is not None
    assert (notice.code, notice.problems) == ("11490-0", ())
    stranger = ("DOC00001.XML", letters.cda(patient=PAUL), "text/xml")
    mixed = [("IHE_XDM/SUBSET02/METADATA.XML", letters.metadata([stranger], patient=PAUL)),
             ("IHE_XDM/SUBSET02/DOC00001.XML", stranger[1])]  # fmt: skip
    assert "two_patients" in problems(letters.xdm([LETTER], noise=mixed))


def test_the_whole_tree_twice_counts_once():
    meta = letters.metadata([LETTER])
    twice = [
        (f"copy/IHE_XDM/SUBSET01/{name}", body)
        for name, body in (("METADATA.XML", meta), ("DOC00001.XML", LETTER[1]))
    ]
    assert problems(letters.xdm([LETTER], meta=meta, noise=twice)) == []


def test_a_package_that_lies_is_broken():
    meta = letters.metadata([LETTER])
    other = letters.cda(title="Une autre lettre de même longueur exactement?")
    assert problems(letters.xdm([("DOC00001.XML", other, "text/xml")], meta=meta)) == ["broken_package"]
    same_size = LETTER[1].replace(b"Dyspn", b"Fatig")
    assert problems(letters.xdm([("DOC00001.XML", same_size, "text/xml")], meta=meta)) == ["broken_package"]
    assert problems(letters.xdm([PAPER], meta=meta)) == ["broken_package"]


def test_metadata_of_the_older_registry_count_no_less():
    meta = letters.metadata([LETTER]).replace(b"urn:oasis:names:tc:ebxml-regrep:xsd:rim:3.0",
                                              b"urn:oasis:names:tc:ebxml-regrep:rim:xsd:2.1")  # fmt: skip
    assert problems(letters.xdm([LETTER], meta=meta)) == []
    assert problems(letters.xdm([PAPER], meta=meta)) == ["broken_package"]
    other = letters.metadata([LETTER], patient=PAUL).replace(b"xsd:rim:3.0", b"rim:xsd:2.1")
    assert "two_patients" in problems(letters.xdm([LETTER], meta=other))


def test_the_packages_own_number_for_the_patient_stands_beside_the_letters():
    meta = letters.metadata([LETTER]).replace(letters.IPP_SYSTEM.encode(), b"1.2.250.1.999.7")
    notice = xdm.read(letters.xdm([LETTER], meta=meta))
    assert notice is not None
    assert notice.patient is not None
    assert [one.system for one in notice.patient.local_ids] == [letters.IPP_SYSTEM, "1.2.250.1.999.7"]
    again = xdm.read(letters.xdm([LETTER])).patient  # type: ignore[union-attr]
    assert again is not None
    assert len(again.local_ids) == 1


def test_two_people_in_a_package_are_two_patients():
    both = [LETTER, ("DOC00002.XML", letters.cda(patient=PAUL, document_id="1.2.3.9"), "text/xml")]
    assert "two_patients" in problems(letters.xdm(both))
    assert "two_patients" in problems(letters.xdm([LETTER], meta=letters.metadata([LETTER], patient=PAUL)))
    ids = [f"{one.ins}^^^&{one.ins_oid}&ISO^NH" for one in (ODETTE, PAUL)]
    assert "two_patients" in problems(
        letters.xdm([LETTER, PAPER], meta=letters.metadata([LETTER, PAPER], patients=ids))
    )


def test_several_letters_of_one_person_are_one_notice_led_by_the_discharge():
    both = [
        ("DOC00001.XML", letters.cda(code="57833-6"), "text/xml"),
        ("DOC00002.XML", letters.cda(document_id="1.2.3"), "text/xml"),
    ]
    notice = xdm.read(letters.xdm(both))
    assert notice is not None
    assert (notice.code, notice.document_id, notice.problems) == ("11490-0", "1.2.3", ())


def test_the_metadata_name_the_patient_where_the_letter_has_no_ins():
    bare = replace(ODETTE, ins=None)
    package = letters.xdm([("DOC00001.XML", letters.cda(patient=bare), "text/xml")])
    assert xdm.read(package).patient.ins == ODETTE.ins  # type: ignore[union-attr]


def test_a_package_of_pdf_alone_says_what_its_metadata_say():
    notice = xdm.read(letters.xdm([SCAN]))
    assert notice is not None
    assert (notice.format, notice.event, notice.code) == (None, "discharge", "11490-0")
    assert notice.patient is not None
    assert notice.patient.ins == ODETTE.ins


def test_without_a_cda_the_pdf_of_the_package_names_patient_and_gp():
    notice = xdm.read(letters.xdm([PRINT]))
    assert notice is not None
    assert (notice.format, notice.package, notice.event) == ("pdf", "xdm", "discharge")
    assert notice.patient is not None
    assert (notice.patient.ins, notice.patient.ins_oid) == (ODETTE.ins, ODETTE.ins_oid)
    assert (notice.patient.birth_name, notice.patient.birth_date) == ("CORMERAIS", ODETTE.birth_date)
    assert notice.registered_gp is not None
    assert notice.registered_gp.rpps == MARTIN.rpps
    assert notice.stay is not None
    assert notice.stay.discharged is not None
    assert notice.problems == ()


def test_an_unreadable_cda_is_held_and_the_pdf_beside_it_tells_whose_it_is():
    broken = ("DOC00001.XML", letters.cda()[:-200], "text/xml")
    notice = xdm.read(letters.xdm([broken, PRINT]))
    assert notice is not None
    assert "unreadable_document" in {one.code for one in notice.problems}
    assert notice.patient is not None
    assert notice.patient.birth_name == "CORMERAIS"


def test_a_pdf_of_somebody_else_than_the_metadata_say_is_two_patients():
    other = ("DOC00001.PDF", printed.letter(PAUL, MARTIN), "application/pdf")
    assert "two_patients" in problems(letters.xdm([other]))
    source = f"<Value>PID-5|{PAUL.birth_name}^Paul^^^^^L</Value><Value>PID-7|19480317</Value><Value>PID-8|M</Value>"
    info = f'<Slot name="sourcePatientInfo"><ValueList>{source}</ValueList></Slot><Classification '.encode()
    named = letters.metadata([PRINT]).replace(b"<Classification ", info, 1)
    assert "two_patients" in problems(letters.xdm([PRINT], meta=named))


def test_the_metadata_alone_name_whom_a_scan_is_about():
    source = "<Value>PID-5|CORMERAIS^Odette^^^^^L~VALBRUNE</Value><Value>PID-5|VALBRUNE^Odette^^^^^D</Value>"
    source += "<Value>PID-7|19480317</Value><Value>PID-8|F</Value>"
    info = f'<Slot name="sourcePatientInfo"><ValueList>{source}</ValueList></Slot><Classification '.encode()
    meta = letters.metadata([SCAN]).replace(b"<Classification ", info, 1)
    notice = xdm.read(letters.xdm([SCAN], meta=meta))
    assert notice is not None
    assert notice.problems == ()
    who = notice.patient
    assert who is not None
    assert (who.birth_name, who.used_name, who.given_names) == ("CORMERAIS", "VALBRUNE", ("Odette",))
    assert (who.birth_date, who.sex, who.ins) == (ODETTE.birth_date, "F", ODETTE.ins)


def test_a_deletion_retracts():
    notice = xdm.read(letters.xdm([LETTER], meta=letters.metadata([LETTER], action="D")))
    assert notice is not None
    assert (notice.document, notice.retracts) == ("retraction", "1.2.250.1.999.1.1.20261201.1")


def related(kind: str) -> bytes:
    one = f'<Association associationType="{kind}" sourceObject="Document01" targetObject="urn:uuid:1"/>'
    return letters.metadata([LETTER]).replace(
        b"</RegistryObjectList>", one.encode() + b"</RegistryObjectList>"
    )


@pytest.mark.parametrize(
    ("meta", "document"),
    [
        (letters.metadata([LETTER], action="C"), "replacement"),
        (letters.metadata([LETTER], action="c"), "replacement"),
        (letters.metadata([LETTER]).replace(b'<Slot name="sub', b'<Slot name="urn:mss:action"><ValueList>'
                                            b'<Value>D</Value></ValueList></Slot><Slot name="sub'), "retraction"),
        (related("urn:ihe:iti:2007:AssociationType:RPLC"), "replacement"),
        (related("urn:ihe:iti:2007:AssociationType:XFRM_RPLC"), "replacement"),
        (related("RPLC"), "replacement"),
        (related("urn:ihe:iti:2007:AssociationType:APND"), "addendum"),
        (related("urn:oasis:names:tc:ebxml-regrep:AssociationType:HasMember"), "letter"),
    ],
    ids=["C", "c", "D under a longer name", "RPLC", "XFRM_RPLC", "RPLC alone", "APND", "HasMember"],
)  # fmt: skip
def test_the_metadata_say_what_the_document_does_to_another(meta: bytes, document: str):
    notice = xdm.read(letters.xdm([LETTER], meta=meta))
    assert notice is not None
    assert (notice.event, notice.document, notice.problems) == ("discharge", document, ())


def test_a_cda_that_names_what_it_replaces_is_a_replacement():
    newer = letters.cda(
        document_id="1.2.250.1.999.1.1.20261201.2", version="2", replaces="1.2.250.1.999.1.1.20261201.1"
    )
    notice = xdm.read(letters.xdm([("DOC00001.XML", newer, "text/xml")]))
    assert notice is not None
    assert (notice.document, notice.replaces) == ("replacement", "1.2.250.1.999.1.1.20261201.1")


def test_masked_to_professionals_is_said():
    masked = b'<Classification classificationScheme="urn:uuid:f4f85eac-e6cb-4883-b524-f2705394840f" nodeRepresentation="MASQUE_PS"/>'
    meta = letters.metadata([LETTER]).replace(b"<ExternalIdentifier", masked + b"<ExternalIdentifier", 1)
    assert xdm.read(letters.xdm([LETTER], meta=meta)).consent == "masked"  # type: ignore[union-attr]


def test_another_zip_is_not_ours():
    assert xdm.read(letters.zipped([("photo.jpg", b"x"), ("notes.xml", b"<x/>")])) is None


def _link(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


def _zip(*members: tuple[zipfile.ZipInfo | str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members:
            archive.writestr(name, body)
    return out.getvalue()


@pytest.mark.parametrize(
    "package",
    [
        _zip(("../METADATA.XML", b"x")),
        _zip(("/METADATA.XML", b"x")),
        _zip(("C:\\METADATA.XML", b"x")),
        _zip(("..\\METADATA.XML", b"x")),
        _zip((_link("METADATA.XML"), b"/etc/passwd")),
        _zip(("bomb.xml", bytes(20 * 2**20))),
        _zip(*((f"f{number}", b"") for number in range(1001))),
        _zip(("inner.zip", _zip(("a", b"x"))), ("METADATA.XML", b"<x/>")),
        _zip(("METADATA.XML", b'<!DOCTYPE x [<!ENTITY a "b">]><x/>')),
        _zip(("METADATA.XML", '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE x><x/>'.encode("utf-16"))),
        _zip(("METADATA.XML", b"<x>" * 5000 + b"</x>" * 5000)),
        _zip(("a/" * 20_000 + "METADATA.XML", b"<x/>")),
        _zip(("METADATA.XML", b"<x/>"), ("METADATB.XML", b"<y/>")).replace(b"METADATB", b"METADATA"),
        _zip(*((f"f{n}", bytes(2**20 - 1)) for n in range(120)), ("METADATA.XML", b"<x/>")),
        letters.xdm()[:-50],
        letters.xdm()[:300] + b"\x00\x00" + letters.xdm()[302:],
    ],
    ids=[
        "traversal",
        "absolute",
        "drive",
        "backslash",
        "link",
        "bomb",
        "entries",
        "nested",
        "doctype",
        "wide doctype",
        "deep XML",
        "long path",
        "same name",
        "many small bombs",
        "cut",
        "damaged",
    ],
)
def test_what_is_unsafe_is_broken_whole(package: bytes):
    began = time.process_time()
    assert problems(package) == ["broken_package"]
    assert time.process_time() - began < 2


def test_an_encrypted_package_is_broken():
    raw = bytearray(_zip(("METADATA.XML", b"x" * 100)))
    raw[6] |= 1
    central = raw.rindex(b"PK\x01\x02")
    raw[central + 8] |= 1
    assert problems(bytes(raw)) == ["broken_package"]


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the shared samples are not here")
@pytest.mark.parametrize("path", sorted((SAMPLES / "french").rglob("*.zip")), ids=lambda path: path.stem)
def test_real_packages_are_read_as_their_truth_says(path: Path):
    truth = json.loads(Path(f"{path}.truth.json").read_text(encoding="utf-8"))
    notice = xdm.read(path.read_bytes())
    assert notice is not None
    assert notice.problems == ()
    assert notice.event != "discharge"  # none of them is French
    for document in truth["documents"]:
        assert (notice.code, notice.title) == (document["code"], document["title"])
        assert notice.patient is not None
        assert notice.patient.birth_name == document["patient"]["family"]
        assert notice.patient.given_names[0] == document["patient"]["given"]
        assert str(notice.patient.birth_date) == document["patient"]["birth_date"]


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the shared samples are not here")
def test_no_odd_zip_raises():
    files = [path for path in (SAMPLES / "torture").rglob("*.zip") if path.is_file()]
    assert len(files) > 30
    for path in files:
        began = time.process_time()
        notice = xdm.read(path.read_bytes())
        assert notice is None or notice.problems
        assert time.process_time() - began < 5, path.name


@settings(max_examples=many(150), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_no_mutation_raises(data: st.DataObject):
    raw = bytearray(letters.xdm())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place : place + data.draw(st.integers(0, 20))] = data.draw(st.binary(max_size=8))
    xdm.read(bytes(raw))


STRANGER = letters.patient(
    "VASSEUR", "Odile", born=date(1944, 7, 2), place="45234", order=33, ipp="900050001"
)


@pytest.mark.parametrize(
    "noise",
    [
        [("COPIES/lettre.xml", letters.cda(patient=STRANGER))],
        [("COPIES/lettre.pdf", printed.letter(STRANGER))],
        [("IHE_XDM/SUBSET01/DOC00009.PDF", printed.letter(STRANGER))],
    ],
    ids=["a CDA beside the tree", "a PDF beside the tree", "a PDF beside the CDA"],
)
def test_a_letter_of_somebody_else_anywhere_in_the_package_holds_it(noise: list[tuple[str, bytes]]):
    notice = xdm.read(letters.xdm(noise=noise))
    assert notice is not None
    assert "two_patients" in [problem.code for problem in notice.problems]


def test_the_patients_own_letter_anywhere_in_the_package_is_no_matter():
    noise = [("COPIES/lettre.xml", letters.cda(level=1)), ("COPIES/lettre.pdf", printed.letter(ODETTE))]
    notice = xdm.read(letters.xdm(noise=noise))
    assert notice is not None
    assert notice.problems == ()
    assert notice.registered_gp is not None


def test_a_pdf_beside_the_cda_that_names_another_gp_leaves_none_certain():
    documents = [
        ("D1.XML", letters.cda(), "text/xml"),
        ("D1.PDF", printed.letter(ODETTE, letters.DURAND), "application/pdf"),
    ]
    notice = xdm.read(letters.xdm(documents))
    assert notice is not None
    assert "registered_gp" in notice.unknown


def test_metadata_that_name_somebody_else_than_the_letter_hold_the_package():
    documents = [("D1.XML", letters.cda(), "text/xml")]
    told = '<Slot name="sourcePatientInfo"><ValueList><Value>PID-5|VASSEUR^Odile^^^^^L</Value><Value>PID-7|19440702</Value></ValueList></Slot>'
    said = letters.metadata(documents, patient=replace(ODETTE, ins=None, ins_oid=None))
    meta = re.sub(rb"(<ExtrinsicObject[^>]*>)", rb"\1" + told.encode(), said)
    assert told.encode() in meta
    notice = xdm.read(letters.xdm(documents, meta=meta))
    assert notice is not None
    assert "two_patients" in [problem.code for problem in notice.problems]
