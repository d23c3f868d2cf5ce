"""Files people hand in: good lines kept, bad ones named by number and reason, a wrong header refused."""

from __future__ import annotations

import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import registers
from relay.errors import ConfigurationError, UsageError
from relay.identity import INS_TEST, NIR
from relay.model import Link, Mailbox, Professional, Registration
from relay.registers import ANNUAIRE, BadLine, Duty

HEADER = ",".join(registers.PATIENTS[:12])
ODETTE = "279035121518989,1.2.250.1.213.1.4.8,450000088,42,Cormerais,Hérelle,Marie-Odette Louise,1979-03-28,F,51215,810000000001,allowed"
NOTHING_OF_IT = ("Cormerais", "Hérelle", "279035121518989", "1979")

Row = TypeVar("Row")


def file(*lines: str, bom: bool = False, end: str = "\n") -> list[bytes]:
    text = end.join((*lines, ""))
    return (("\ufeff" if bom else "") + text).encode().splitlines(keepends=True)


def sorted_out(rows: Iterator[Row | BadLine]) -> tuple[list[Row], list[tuple[int, str, str]]]:
    good: list[Row] = []
    bad: list[tuple[int, str, str]] = []
    for row in rows:
        if isinstance(row, BadLine):
            bad.append((row.number, row.code, row.column))
        else:
            good.append(row)
    return good, bad


# ---------------------------------------------------------------------------------------------- patients


def test_a_line_of_the_contract_becomes_a_registration() -> None:
    header = ",".join(registers.PATIENTS)
    line = (
        ODETTE
        + ",45000,279035121518989@patient.mssante.fr,pharma@x.mssante.fr,idel@x.mssante.fr,had@x.mssante.fr"
    )
    (row,) = registers.patients(file(header, line))
    assert row == Registration(
        ins="279035121518989",
        ins_oid=NIR,
        facility="450000088",
        local_id="42",
        birth_name="Cormerais",
        used_name="Hérelle",
        given_names=("Marie-Odette", "Louise"),
        birth_date=date(1979, 3, 28),
        sex="F",
        birth_place="51215",
        gp_rpps=("10000000001",),
        consent="allowed",
        postcode="45000",
        patient_mss="279035121518989@patient.mssante.fr",
        pharmacist_mss="pharma@x.mssante.fr",
        nurse_mss="idel@x.mssante.fr",
        had_mss="had@x.mssante.fr",
    )


@pytest.mark.parametrize("bom", [True, False])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("separator", [",", ";"])
def test_separator_byte_order_mark_and_line_ends_change_nothing(bom: bool, end: str, separator: str) -> None:
    lines = [line.replace(",", separator) for line in (HEADER.upper(), ODETTE)]
    good, bad = sorted_out(registers.patients(file(*lines, bom=bom, end=end)))
    assert bad == []
    assert good == list(registers.patients(file(HEADER, ODETTE)))


def test_missing_columns_are_empty_and_columns_stand_in_any_order() -> None:
    (row,) = registers.patients(
        file("gp_rpps;birth_name;ins;note", "10000000001;Cormerais;2 79 03 51 215 189 89;x")
    )
    assert row == Registration(
        ins="279035121518989", ins_oid=NIR, birth_name="Cormerais", gp_rpps=("10000000001",)
    )


def test_quoted_fields_may_hold_the_separator_and_an_open_quote_eats_no_other_line() -> None:
    good, bad = sorted_out(
        registers.patients(
            file("birth_name,given_names,birth_date", '"Le ""Goff""",Odette,1948-03-17', '"Martin,Odette,1950-01-01',
                 "Durand,Luc,1951-01-01", '"De, La",Luc,1952-01-01')
        )
    )  # fmt: skip
    assert [row.birth_name for row in good] == ['Le "Goff"', "Durand", "De, La"]
    assert bad == [(3, "quotes", "")]


def test_several_lines_of_one_patient_come_out_each_with_its_gp() -> None:
    good, _ = sorted_out(
        registers.patients(file(HEADER, ODETTE, ODETTE.replace("810000000001", "10000000002")))
    )
    assert [row.gp_rpps for row in good] == [("10000000001",), ("10000000002",)]
    assert len({row.key for row in good}) == 1


@pytest.mark.parametrize(
    ("old", "new", "code", "column"),
    [
        ("279035121518989", "27903512151898", "ins", "ins"),
        (NIR, "1.2.250.1.213.1.4.2", "ins_oid", "ins_oid"),
        ("1979-03-28", "28/03/1979", "date", "birth_date"),
        ("1979-03-28", "1979-02-30", "date", "birth_date"),
        ("1979-03-28", "19790328", "date", "birth_date"),
        (",F,", ",X,", "sex", "sex"),
        ("810000000001", "1000000000", "rpps", "gp_rpps"),
        ("allowed", "peut-être", "consent", "consent"),
        ("Cormerais", "Corme\x00rais", "control", ""),
        ("Cormerais", "Corme\u202erais", "control", ""),
        (",allowed", "", "fields", ""),
        (",allowed", ",allowed,45000", "fields", ""),
        ("Cormerais", "x" * 70_000, "too_long", ""),
    ],
)
def test_a_bad_line_is_named_by_number_and_reason_and_the_good_ones_are_kept(
    old: str, new: str, code: str, column: str
) -> None:
    lines = file(HEADER, ODETTE, "", ODETTE.replace(old, new, 1), ODETTE)
    good, bad = sorted_out(registers.patients(lines))
    assert len(good) == 2
    assert bad == [(4, code, column)]


def test_bytes_that_are_not_utf8_are_a_bad_line() -> None:
    lines = [*file(HEADER, ODETTE), ODETTE.encode("latin-1") + b"\n", *file(ODETTE)]
    good, bad = sorted_out(registers.patients(lines))
    assert (len(good), bad) == (2, [(3, "not_utf8", "")])


def test_a_line_that_names_nobody_is_refused_and_half_a_doubt_kept() -> None:
    nobody = ",,450000088,,,,Odette,1979-03-28,F,51215,10000000001,"
    homeless = ",,,42,Cormerais,,Odette,1979-03-28,F,51215,10000000001,"
    wrong_key = ODETTE.replace("279035121518989", "279035121518988")
    rows = list(registers.patients(file(HEADER, nobody, homeless, wrong_key)))
    bad = [row for row in rows if isinstance(row, BadLine)]
    assert [(row.number, row.code, row.kept) for row in bad] == [
        (2, "nobody", False),
        (3, "local_id", True),
        (4, "ins_key", True),
    ]
    good = [row for row in rows if isinstance(row, Registration)]
    assert [(row.local_id, row.ins) for row in good] == [("", ""), ("42", "279035121518988")]


def test_a_test_ins_is_imported_as_what_it_is() -> None:
    (row,) = registers.patients(file(HEADER, ODETTE.replace(NIR, INS_TEST)))
    assert isinstance(row, Registration)
    assert row.ins_oid == INS_TEST


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("ins,birthname", ["birthname", "birth_name"]),
        ("ins,consnet", ["consnet", "consent"]),
        ("nom,prenom", ["birth_name", "missing column"]),
        ("ins,INS", ["twice"]),
    ],
)
def test_a_header_that_cannot_be_right_names_file_line_column_and_the_nearest(
    header: str, words: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as error:
        list(registers.patients(file(header, "1,2"), "patients-2026.csv"))
    for word in ("patients-2026.csv:1", *words):
        assert word in str(error.value)


@pytest.mark.parametrize("content", [[], [b"\xff\xfei\x00n\x00s\x00\n"], [b"\n", b"\n"]])
def test_an_empty_or_undecodable_file_is_one_clear_error(content: list[bytes]) -> None:
    with pytest.raises(ConfigurationError, match=r"patients\.csv"):
        list(registers.patients(content))


def test_reasons_are_told_in_both_languages_and_repeat_no_value() -> None:
    for code in registers._REASONS:
        bad = BadLine(3, code, "birth_date")
        assert bad.reason.startswith("birth_date ")
        assert bad.in_words("fr") != bad.in_words("en")
    _, bad_lines = sorted_out(registers.patients(file(HEADER, ODETTE.replace("1979-03-28", "28/03/1979"))))
    assert bad_lines
    told = BadLine(*bad_lines[0]).in_words("fr")
    assert told == "birth_date n'est pas une date comme 1948-03-17"
    assert not any(value in told for value in NOTHING_OF_IT)


@given(st.lists(st.binary(max_size=80), max_size=12))
def test_no_bytes_break_the_reading_of_patients(lines: list[bytes]) -> None:
    content = [(HEADER + "\n").encode(), *(line.replace(b"\n", b"") + b"\n" for line in lines)]
    for row in registers.patients(content):
        assert isinstance(row, Registration | BadLine)


# --------------------------------------------------------------------------------------------- directory

DOCTOR = "810000000001,Ambre,Lucie,10,SM54,lucie.ambre@medecin.mssante.fr,PER,Cabinet,450000088,45000,0238000000,45-A,{}"


@pytest.mark.parametrize(
    ("word", "active"),
    [("true", True), ("1", True), ("yes", True), ("OUI", True), ("", True), ("false", False), ("0", False), ("no", False), ("non", False)],
)  # fmt: skip
def test_a_line_of_the_directory_is_a_professional_with_one_mailbox(word: str, active: bool) -> None:
    (row,) = registers.directory(file(",".join(registers.DIRECTORY), DOCTOR.format(word)))
    mailbox = Mailbox("lucie.ambre@medecin.mssante.fr", "PER", "Cabinet", "450000088", active)
    assert row == Professional(
        "10000000001", "Ambre", "Lucie", "10", "SM54", (mailbox,), "45000", "0238000000", "45-A", active
    )


@pytest.mark.parametrize(
    ("old", "new", "code", "column"),
    [
        ("810000000001", "", "missing", "rpps"),
        ("810000000001", "0451234567", "rpps", "rpps"),
        ("lucie.ambre@medecin.mssante.fr", "lucie.ambre", "address", "mss_address"),
        ("lucie.ambre@medecin.mssante.fr", "a@b@medecin.mssante.fr", "address", "mss_address"),
        ("PER", "BAL", "mss_kind", "mss_kind"),
        ("{}", "peut-être", "active", "active"),
    ],
)
def test_a_bad_line_of_the_directory_is_named(old: str, new: str, code: str, column: str) -> None:
    lines = file(
        ",".join(registers.DIRECTORY), DOCTOR.replace(old, new).replace("{}", "1"), DOCTOR.format("1")
    )
    good, bad = sorted_out(registers.directory(lines))
    assert (len(good), bad) == (1, [(2, code, column)])


def test_a_directory_without_rpps_column_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"rpps_number.*rpps|missing column"):
        list(registers.directory(file("family_name,rpps_number", "Ambre,1")))


def extraction(
    number: int = 1,
    *,
    kind: str = "PER",
    national: str | None = None,
    address: str | None = None,
    surname: str = "AMBRE",
) -> str:
    fields = [""] * len(ANNUAIRE)
    fields[0], fields[1] = kind, address or f"lucie.ambre{number}@medecin.mssante.fr"
    if national != "":
        fields[2], fields[3] = "8", f"10{number:09d}"
    fields[4] = f"810{number:09d}" if national is None else national
    fields[5], fields[6] = "1", "1450000088"
    fields[9], fields[10], fields[13], fields[14], fields[15] = surname, "Lucie", "10", "Médecin", "SM54"
    fields[18], fields[28], fields[29] = "CABINET DE L'ÉGLISE", "45000", "45"
    return "|".join(fields)


def test_the_annuaire_extraction_is_recognised_by_its_header_and_by_its_columns() -> None:
    expected = Professional(
        "10000000001", "AMBRE", "Lucie", "10", "SM54",
        (Mailbox("lucie.ambre1@medecin.mssante.fr", "PER", "CABINET DE L'ÉGLISE", "450000088"),), "45000",
    )  # fmt: skip
    assert list(registers.directory(file("|".join(ANNUAIRE), extraction()))) == [expected]
    assert list(registers.directory(file("|".join(ANNUAIRE), extraction(), bom=True, end="\r\n"))) == [
        expected
    ]
    assert list(registers.directory(file(extraction()))) == [expected]


def test_boxes_of_organisations_and_people_without_rpps_are_counted_and_left_out() -> None:
    tally: Counter[str] = Counter()
    organisation = extraction(2, kind="ORG", national="")
    adeli = extraction(3, national="0451234567").replace("|10000000003|", "|451234567|")
    good, bad = sorted_out(
        registers.directory(file("|".join(ANNUAIRE), organisation, adeli, extraction(4)), tally=tally)
    )
    assert [row.rpps for row in good] == ["10000000004"]
    assert bad == []
    assert tally == {"organisation": 1, "without_rpps": 1}


def test_bad_lines_of_the_extraction_are_named_and_the_others_kept() -> None:
    lines = [
        *file("|".join(ANNUAIRE), extraction(1), "a|b", extraction(2, address="nobody"), extraction(3, kind="BAL"),
              extraction(4, surname='L"AMI'), extraction(5, surname="AM\x07BRE")),
        extraction(6, surname="AMBRÉ").encode("latin-1") + b"\n",
    ]  # fmt: skip
    good, bad = sorted_out(registers.directory(lines))
    assert [row.family_name for row in good] == ["AMBRE", 'L"AMI']
    assert bad == [
        (3, "fields", ""),
        (4, "address", "Adresse BAL"),
        (5, "mss_kind", "Type de BAL"),
        (7, "control", ""),
        (8, "not_utf8", ""),
    ]


def test_an_extraction_with_other_columns_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="30 columns"):
        list(registers.directory(file("|".join(ANNUAIRE[:-1]), "x")))


def test_a_hundred_thousand_lines_of_the_extraction_pass_in_a_second_and_in_constant_memory() -> None:
    def lines(count: int) -> Iterator[bytes]:
        yield ("|".join(ANNUAIRE) + "\n").encode()
        for number in range(count):
            yield made[number % len(made)]

    made = [(extraction(number) + "\n").encode() for number in range(997)]
    best = 10.0
    for _ in range(3):
        began = time.process_time()
        assert sum(1 for _ in registers.directory(lines(100_000))) == 100_000
        if (best := min(best, time.process_time() - began)) < 1:
            break
    assert best < 1
    tracemalloc.start()
    try:
        for _ in registers.directory(lines(20_000)):
            pass
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


# ----------------------------------------------------------------------------------------- links and rotas


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("telegram:123456", ("telegram", "123456", "123456")),
        ("telegram:-100123:456", ("telegram", "-100123", "456")),
        ("matrix:@lucie:example.fr", ("matrix", "@lucie:example.fr", "@lucie:example.fr")),
        ("webchat:lucie", ("webchat", "lucie", "lucie")),
    ],
)
def test_a_channel_is_kind_chat_and_account(text: str, parts: tuple[str, str, str]) -> None:
    assert registers.channel(text) == parts
    (link,) = registers.links(file("rpps,channel", f"810000000001,{text}"))
    assert link == Link("10000000001", *parts)


@pytest.mark.parametrize(
    "text", ["telegram:-100123", "telegram:abc", "telegram:0", "telegram:@lucie", "matrix:lucie", "sms:06", "", "webchat:a b"]
)  # fmt: skip
def test_what_is_no_channel_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        registers.channel(text)
    good, bad = sorted_out(registers.links(file("rpps,channel", f"10000000001,{text}")))
    assert (good, bad) == ([], [(2, "channel", "channel")])


def test_a_rota_reads_days_and_local_times() -> None:
    good, bad = sorted_out(
        registers.rota(
            file("from,to,rpps", "2026-12-04,2026-12-06,10000000001", "2026-07-01T20:00,2026-07-02T08:00,10000000002",
                 "2026-12-06,2026-12-04,10000000001", "demain,2026-12-04,10000000001", ",2026-12-04,10000000001")
        )
    )  # fmt: skip
    assert good == [
        Duty(datetime(2026, 12, 3, 23, tzinfo=UTC), datetime(2026, 12, 6, 23, tzinfo=UTC), "10000000001"),
        Duty(datetime(2026, 7, 1, 18, tzinfo=UTC), datetime(2026, 7, 2, 6, tzinfo=UTC), "10000000002"),
    ]
    assert bad == [(4, "order", "to"), (5, "moment", "from"), (6, "missing", "from")]
