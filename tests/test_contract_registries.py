"""The outside contract of the registries: patients, professionals, chat accounts, absences, objections."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.letters import DUPONT, INS_NIR, MARTIN, ODETTE, doctor, ins_of, patient
from tests.test_contract_commands import Done, relay

PATIENTS = "ins,ins_oid,facility,local_id,birth_name,used_name,given_names,birth_date,sex,birth_place,gp_rpps,consent"
DIRECTORY = "rpps,family_name,given_name,profession,speciality,mss_address,mss_kind,organisation,finess,postcode,phone,cpts,active"
PAUL = patient("BRIAND", "Paul", sex="M", order=11, oid=INS_NIR)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    assert relay("init", tmp_path / "site", "--since", "now").code == 0
    return tmp_path / "site" / "config.toml"


def imported(site: Path, what: str, text: str | bytes, *more: str) -> Done:
    file = site.parent / f"{what}.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return relay(what, "import", file, *more, "--json", "--config", site)


def line_of(who: object = ODETTE, gp: str | None = MARTIN.rpps, consent: str = "allowed") -> str:
    p = ODETTE if who is ODETTE else PAUL
    return (
        f"{p.ins},{p.ins_oid},450000088,,{p.birth_name},{p.used_name or ''},{' '.join(p.given_names)},"
        f"{p.birth_date},{p.sex},{p.birth_place},{gp or ''},{consent}"
    )


def professional(one: object = MARTIN, address: str | None = None, active: str = "true") -> str:
    p = MARTIN if one is MARTIN else DUPONT
    return (
        f"{p.rpps},{p.family_name},{p.given_name},10,SM26,{address or p.mss_address},PER,,,45000,,,{active}"
    )


def gp_of(site: Path, ins: str | None) -> list[str]:
    found = relay("patients", "show", str(ins), "--json", "--config", site)
    assert found.code == 0, found.err
    return list(found.json["gp_rpps"])


def test_good_lines_are_kept_and_bad_ones_named_with_number_and_reason(site: Path) -> None:
    done = imported(site, "patients", "\n".join([
        PATIENTS, line_of(), "x,y,z", line_of(PAUL).replace(str(PAUL.birth_date), "hier"), line_of(PAUL), "",
    ]))  # fmt: skip
    assert done.code == 1
    assert [each["line"] for each in done.json["bad"]] == [3, 4]
    assert "birth_date" in done.json["bad"][1]["reason"]
    assert "hier" not in done.out + done.err
    assert done.json["new"] == 2
    assert gp_of(site, ODETTE.ins) == [MARTIN.rpps]
    people = relay("patients", "import", site.parent / "patients.csv", "--config", site)
    assert people.code == 1
    assert "patients.csv:3: " in people.err
    assert "\x1b" not in people.out + people.err  # no progress bar where nobody looks


def test_semicolons_a_byte_order_mark_and_missing_columns_are_read(site: Path) -> None:
    text = "\ufeffbirth_name;given_names;birth_date;sex;ins;gp_rpps\r\n"
    text += f"CORMERAIS;Odette;1948-03-17;F;{ODETTE.ins};{MARTIN.rpps}\r\n"
    done = imported(site, "patients", text)
    assert (done.code, done.json["new"]) == (0, 1)


def test_a_doubt_about_a_kept_line_is_a_warning_and_no_failure(site: Path) -> None:
    wrong_key = str(ODETTE.ins)[:-2] + ("00" if not str(ODETTE.ins).endswith("00") else "01")
    done = imported(site, "patients", f"{PATIENTS}\n{line_of().replace(str(ODETTE.ins), wrong_key)}\n")
    assert (done.code, done.json["new"], done.json["bad"]) == (0, 1, [])
    (doubt,) = done.json["warnings"]
    assert doubt["line"] == 2


def test_a_header_that_cannot_be_right_is_refused_whole(site: Path) -> None:
    done = imported(site, "patients", "nom,prenom\nX,Y\n")
    assert done.code == 2
    assert "patients.csv" in done.line


def test_a_correction_survives_the_next_import_and_is_shown_as_differing(site: Path) -> None:
    imported(site, "patients", f"{PATIENTS}\n{line_of()}\n")
    assert (
        relay(
            "patients", "set-gp", str(ODETTE.ins), str(DUPONT.rpps), "--by", "mme Roy", "--config", site
        ).code
        == 0
    )
    again = imported(site, "patients", f"{PATIENTS}\n{line_of()}\n")
    assert (again.code, again.json["differing"]) == (0, 1)
    assert gp_of(site, ODETTE.ins) == [DUPONT.rpps]


def test_rows_a_later_file_lacks_stay_unless_it_is_complete(site: Path) -> None:
    imported(site, "patients", f"{PATIENTS}\n{line_of()}\n{line_of(PAUL)}\n")
    assert imported(site, "patients", f"{PATIENTS}\n{line_of(PAUL)}\n").json["ended"] == 0
    assert gp_of(site, ODETTE.ins) == [MARTIN.rpps]
    assert imported(site, "patients", f"{PATIENTS}\n{line_of(PAUL)}\n", "--complete").json["ended"] == 1
    assert relay("patients", "show", str(ODETTE.ins), "--config", site).code == 1
    assert gp_of(site, PAUL.ins) == [MARTIN.rpps]


def test_a_complete_file_with_bad_lines_ends_nobody_on_their_account(site: Path) -> None:
    """A row that stands there but could not be read is no row that went away."""
    imported(site, "patients", f"{PATIENTS}\n{line_of()}\n{line_of(PAUL)}\n")
    broken = line_of().replace("1948-03-17", "17 mars")
    done = imported(site, "patients", f"{PATIENTS}\n{broken}\n{line_of(PAUL)}\n", "--complete")
    assert done.code == 1
    assert done.json["ended"] == 0
    assert gp_of(site, ODETTE.ins) == [MARTIN.rpps]


def test_an_objection_is_recorded_and_lists_what_left(site: Path) -> None:
    imported(site, "patients", f"{PATIENTS}\n{line_of()}\n")
    done = relay(
        "patients", "object", str(ODETTE.ins), "--scope", "gp", "--by", "mme Roy", "--json", "--config", site
    )
    assert done.code == 0, done.err
    assert done.json["cancelled"] == done.json["left"] == []
    assert relay("patients", "show", str(ODETTE.ins), "--json", "--config", site).json["consent"] == "opposed"
    assert (
        relay("patients", "object", str(ODETTE.ins), "--scope", "x", "--by", "y", "--config", site).code == 2
    )
    assert relay("patients", "object", str(ODETTE.ins), "--scope", "gp", "--config", site).code == 2


def test_an_objection_survives_the_next_import(site: Path) -> None:
    imported(site, "patients", f"{PATIENTS}\n{line_of()}\n")
    relay("patients", "object", str(ODETTE.ins), "--scope", "all", "--by", "mme Roy", "--config", site)
    imported(site, "patients", f"{PATIENTS}\n{line_of()}\n")
    assert relay("patients", "show", str(ODETTE.ins), "--json", "--config", site).json["consent"] == "opposed"


def test_several_lines_of_one_professional_are_several_mailboxes(site: Path) -> None:
    done = imported(site, "directory", "\n".join([
        DIRECTORY, professional(active="0"), professional(address="cabinet@medecin.mssante.fr", active="yes"),
        professional(DUPONT, active="no"), "12,,,,,,,,,,,,", "",
    ]))  # fmt: skip
    assert done.code == 1
    assert [each["line"] for each in done.json["bad"]] == [5]
    (found,) = relay("directory", "find", "martin", "--json", "--config", site).json
    assert found["rpps"] == MARTIN.rpps
    assert set(found["mailboxes"]) == {MARTIN.mss_address, "cabinet@medecin.mssante.fr"}
    assert found["active"] is True
    assert relay("directory", "find", str(DUPONT.rpps), "--json", "--config", site).json[0]["active"] is False
    assert (
        relay("directory", "find", "cabinet@medecin.mssante.fr", "--json", "--config", site).json[0]["rpps"]
        == MARTIN.rpps
    )
    nobody = relay("directory", "find", "zzz", "--json", "--config", site)
    assert (nobody.code, nobody.json) == (0, [])


def test_chat_accounts_are_linked_one_by_one_or_from_a_file(site: Path) -> None:
    imported(site, "directory", f"{DIRECTORY}\n{professional()}\n{professional(DUPONT)}\n")
    one = relay("directory", "link", str(MARTIN.rpps), "telegram:9001", "--json", "--config", site)
    assert (one.code, one.json["linked"]) == (0, 1)
    stranger = doctor("Personne", "Ici", 77)
    links = site.parent / "links.csv"
    links.write_text(
        f"rpps,channel\n{DUPONT.rpps},telegram:9002:77\n{DUPONT.rpps},matrix:@dupont:exemple.fr\n"
        f"{stranger.rpps},telegram:1\n{DUPONT.rpps},pigeon:1\n"
    )
    done = relay("directory", "link", "--file", links, "--no-notice", "--json", "--config", site)
    assert done.code == 1
    assert done.json["linked"] == 2
    assert done.json["not_in_directory"] == [stranger.rpps]
    assert [each["line"] for each in done.json["bad"]] == [5]
    (found,) = relay("directory", "find", str(DUPONT.rpps), "--json", "--config", site).json
    assert set(found["channels"]) == {"telegram:9002", "matrix:@dupont:exemple.fr"}
    # The notice is a delivery of purpose `account`; the bulk load made none, and here nothing sends mail yet.
    assert relay("deliveries", "list", "--json", "--config", site).json == []
    assert relay("directory", "unlink", str(DUPONT.rpps), "--json", "--config", site).json["unlinked"] == 2
    assert relay("directory", "unlink", str(DUPONT.rpps), "--config", site).code == 1
    for words in (["12", "telegram:1"], [MARTIN.rpps, "pigeon:1"], [MARTIN.rpps], []):
        assert relay("directory", "link", *map(str, words), "--config", site).code == 2
    assert relay("directory", "link", str(stranger.rpps), "telegram:1", "--config", site).code == 1


def test_an_absence_has_dates_and_perhaps_a_substitute(site: Path) -> None:
    imported(site, "directory", f"{DIRECTORY}\n{professional()}\n{professional(DUPONT)}\n")

    def away(*words: str) -> int:
        return relay("directory", "away", *words, "--config", site).code

    assert (
        away(str(MARTIN.rpps), "--from", "2999-01-01", "--to", "2999-01-09", "--substitute", str(DUPONT.rpps))
        == 0
    )
    assert away(str(MARTIN.rpps), "--from", "2999-01-09", "--to", "2999-01-01") == 2
    assert away(str(MARTIN.rpps), "--from", "demain", "--to", "2999-01-01") == 2
    assert (
        away(str(MARTIN.rpps), "--from", "2999-01-01", "--to", "2999-01-09", "--substitute", str(MARTIN.rpps))
        == 2
    )
    stranger = str(doctor("Personne", "Ici", 77).rpps)
    assert away(stranger, "--from", "2999-01-01", "--to", "2999-01-09") == 1


def test_an_ins_that_is_none_is_refused(site: Path) -> None:
    assert relay("patients", "show", "12", "--config", site).code == 2
    assert relay("patients", "set-gp", str(ODETTE.ins), "12", "--config", site).code == 2
    nobody = ins_of("F", ODETTE.birth_date, "45234", 500)  # type: ignore[arg-type]
    assert relay("patients", "show", nobody, "--config", site).code == 1
    assert relay("patients", "set-gp", nobody, str(MARTIN.rpps), "--config", site).code == 1
