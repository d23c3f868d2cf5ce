"""XDM packages: the shapes senders give them are taken, what lies or mixes people is held."""

from __future__ import annotations

import io
import json
import stat
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.formats import xdm
from tests import letters
from tests.campaign import many
from tests.letters import ODETTE

SAMPLES = Path(__file__).parents[2] / "shared" / "samples"
PAUL = letters.patient("LEROUX", "Paul", sex="M")
LETTER = ("DOC00001.XML", letters.cda(), "text/xml")
PAPER = ("DOC00001.PDF", letters.pdf(), "application/pdf")


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
    notice = xdm.read(letters.xdm([PAPER]))
    assert notice is not None
    assert (notice.format, notice.event, notice.code) == (None, "discharge", "11490-0")
    assert notice.patient is not None
    assert notice.patient.ins == ODETTE.ins


def test_a_deletion_retracts():
    notice = xdm.read(letters.xdm([LETTER], meta=letters.metadata([LETTER], action="D")))
    assert notice is not None
    assert (notice.document, notice.retracts) == ("retraction", "1.2.250.1.999.1.1.20261201.1")


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
