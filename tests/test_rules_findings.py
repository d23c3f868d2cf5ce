"""What an admin is told: every finding at its exact place, all of a file in one pass, whatever the bytes."""

from __future__ import annotations

import re
import time
from datetime import date
from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules import cases, language
from rules.conditions import NESTED
from rules.facts import FIELDS
from rules.language import Finding, load, observed_long
from rules.meant import FRENCH, day_meant, duration_meant, instant_meant, window_meant
from rules.reading import (
    COPY_KEYS,
    FOLLOWUP_KEYS,
    HOURS_KEYS,
    RULE_KEYS,
    SECTIONS,
    STEP_KEYS,
    TARGET_KEYS,
)
from rules.ruleset import PEOPLE
from rules.source import MAX_BYTES, MAX_FINDINGS, MAX_NODES, RulesError
from rules.words import DID_YOU_MEAN, PARSER, RE2_SAYS, WORDS
from tests.campaign import many
from tests.test_rules import DEFAULT, HEAD, SITE, WHOLE, findings_of, good

CARET = "§"


def marked(text: str) -> tuple[str, tuple[int, int]]:
    """A text without its one §, and the line and column where that stood."""
    before, _, after = text.partition(CARET)
    assert CARET not in after
    return before + after, (before.count("\n") + 1, len(before) - before.rfind("\n"))


# What stands there (once), what is written instead with § where the caret must be, code and entry of words.
PLACES = [
    ("urgence", "identity: test", "§urgenc: test", "E101", "unknown_key"),
    ("section", "rules:\n", "§rule:\n", "E101", "unknown_key"),
    ("target key", "who: pharmacist", "§whom: pharmacist", "E101", "unknown_key"),
    ("step key", "remind: gp_ping", "§remindd: gp_ping", "E101", "unknown_key"),
    ("day", "mon-fri:", "§lun-ven:", "E101", "unknown_key"),
    ("any in any", "{ identity: test }", "{ any: [ { §any: [ { age: 3 } ] } ] }", "E101", "too_nested"),
    ("value", "identity: test", "identity: §testt", "E102", "unknown_value"),
    ("third of a list", "identity: test", "identity: [test, doubtful, §sur]", "E102", "unknown_value"),
    ("quoted value", "identity: test", 'identity: §"testt"', "E102", "unknown_value"),
    ("zone", "Europe/Paris", "§Europe/Lutece", "E102", "unknown_zone"),
    ("unknown", "identity: test", "identity: §unknown", "E102", "unknown_matched"),
    ("quotes", "identity: test", "facility: §“450000088”", "W308", "curly_quotes"),
    ("star", "identity: test", "sender: [a@b.fr, §'*@chr-exemple.fr']", "W308", "star"),
    ("number", "gte: 18", "gte: §dix-huit", "E102", "no_number"),
    ("reserved name", "  garde:", "  §real: { who: nurse, via: mss, carries: pointer }\n  garde:", "E102", "reserved"),
    ("no version", "version: 1\n", "§", "E103", "missing"),
    ("no followup", "    send: [gp, gp_ping]\n    followup: standard\n", "    §send: [gp, gp_ping]\n", "E103", "missing"),
    ("no table", "{ who: rota/garde, via: [matrix, mss], carries: pointer }", "§rota/garde", "E104", "no_table"),
    ("no list", "also:\n  - id: copie\n    when: { event: discharge, mentions: chute }\n    copy: pharma\n", "also: §x\n", "E104", "no_list"),
    ("empty list", "send: [gp, gp_ping]", "send: §[]", "E104", "empty_list"),
    ("no word", "followup: standard", "followup: §[standard]", "E104", "no_word"),
    ("no conditions", "{ identity: test }", "{ any: §{ identity: test } }", "E104", "no_conditions"),
    ("no comparison", "identity: test", "identity: §{ gte: 3 }", "E104", "no_comparison"),
    ("duration", "after: 1d", "after: §1 jour", "E104", "duration"),
    ("date", "    followup: standard", "    followup: standard\n    from: §01/03/2026", "E104", "date"),
    (
        "dates",
        "    followup: standard",
        "    followup: standard\n    from: 2026-03-02\n    until: §2026-03-01",
        "E104",
        "dates_reversed",
    ),
    ("period", "holidays: closed }", "§2026-08-15..2026-08-01: closed }", "E104", "period"),
    ("id", "id: autres", "id: §autres documents", "E104", "id_words"),
    ("key", "gp: { who: registered_gp, via: [mss], carries: document }", "gp: { §[who]: x }", "E104", "key_no_word"),
    ("tab", "    followup: standard", "  §\t  followup: standard", "E105", "tab"),
    ("no-break space", "    followup: standard", "§\xa0   followup: standard", "E105", "no_break_space"),
    ("no-break space in a key", "identity: test", "§identity\xa0: test", "E101", "unknown_key"),
    ("unseen", "Patient de test", "Patient§\u202e de test", "E105", "hidden_character"),
    ("unseen, escaped", '"Patient de test"', '§"Patient \\e[31m"', "E105", "hidden_character"),
    ("bracket", "send: [gp, gp_ping]\n    followup:", "send: [gp, gp_ping\n    followup§:", "E105", "syntax"),
    ("deep", "send: [gp, gp_ping]", "send: " + "[" * 13 + "§" + "[" * 9, "E105", "too_deep"),
    ("no-break space after a colon", "    followup: standard", "    followup:§\xa0standard", "E105", "no_break_space"),
    ("no-break space after a dash", "  - id: copie", "  -§\u202fid: copie", "E105", "no_break_space"),
    ("second document", "\ndefault:", "\n§---\ndefault:", "E106", "second_document"),
    ("directive", "version: 1", "§%YAML 1.1\n---\nversion: 1", "E106", "second_document"),
    ("anchor", "gp: { who", "gp: §&ici { who", "E106", "refused"),
    ("tag", "version: 1", "version: §!!int 1", "E106", "refused"),
    ("twice", "  garde:", "  §gp:", "E107", "key_twice"),
    ("version", "version: 1", "version: §2", "E108", "version"),
    ("when", "when: { identity: test }", "§when: {}", "E109", "when_empty"),
    ("condition", "{ identity: test }", "{ any: [ { identity: test }, §{} ] }", "E109", "condition_empty"),
    ("target", "send: [gp, gp_ping]", "send: [gp, §ping]", "E110", "undefined"),
    ("clock", "clock: cabinet", "clock: §cabine", "E110", "undefined"),
    ("desk", "hold: sorties\n", "hold: §gp\n", "E111", "no_desk"),
    ("two actions", '    file: "Gardé', '    hold: sorties\n    reason: x\n    §file: "Gardé', "E112", "two_actions"),
    ("no action", '  - id: autres\n    when: { event: [admission, other] }\n    file: "Gardé avec le séjour"\n', "  - §id: autres\n    when: { event: [admission, other] }\n", "E112", "one_action"),
    ("only send", "    file:", "    §grace: 5m\n    file:", "E112", "only_send"),
    ("one step", "{ after: 1d, remind: gp_ping }", "§{ after: 1d, remind: gp_ping, hand_to: sorties }", "E112", "one_step"),
    ("pattern", "identity: test", 'sender: { matches: §"a(b" }', "E113", "pattern"),
    ("chat", "  gp: { who: registered_gp, via: [mss]", "  §gp: { who: registered_gp, via: [mss, matrix]", "E120", "chat_document"),
    ("overlap", '"13:30-19:00"', '§"12:00-19:00"', "E130", "overlap"),
    ("closed day that opens", 'nuit: { every-day: ["20:00-08:00"] }', 'nuit: { tue-sat: ["20:00-08:00"], §mon-fri: closed }', "E130", "open_anyway"),
    ("a day twice", 'nuit: { every-day: ["20:00-08:00"] }', "nuit: { sat: 20:00-21:00, 2026-08-15: closed, exceptions: { §2026-08-15: 08:00-09:00 } }", "E130", "day_twice"),
    ("closed in French", "holidays: closed }", "holidays: closed, 2026-08-15: §fermé }", "E131", "window"),
    ("window", '"13:30-19:00"', "§13h30-19h", "E131", "window"),
    ("never", 'nuit: { every-day: ["20:00-08:00"] }', "§nuit: { holidays: closed }", "E131", "never_open"),
    ("never ends", 'nuit: { every-day: ["20:00-08:00"] }\ntargets:\n  gp: { who: registered_gp, via: [mss], carries: document }\n  gp_ping: { who: registered_gp, via: [telegram, matrix], carries: pointer, quiet: nuit }', 'nuit: { every-day: ["20:00-08:00", "08:00-20:00"] }\ntargets:\n  gp: { who: registered_gp, via: [mss], carries: document }\n  gp_ping: { who: registered_gp, via: [matrix], carries: pointer, quiet: §nuit }', "E131", "never_ends"),
    ("ladder", "  standard:\n    await: seen\n    ack: { within: 2d, clock: cabinet }\n    ladder:\n      - { after: 1d, remind: gp_ping }\n      - { after: 3d, clock: real, hand_to: sorties }", "  §standard:\n    ladder:\n      - { after: 1d, remind: gp_ping }", "E140", "last_step"),
    ("expires", "    ladder:", "    §ack_expires: 1d\n    ladder:", "E141", "reopens"),
    ("files", "  - id: autres\n    when: { event: [admission, other] }", "  - §id: autres\n    when: { event: [admission, er_visit] }", "E142", "files_discharge"),
    ("basis", "  pharma: { who: pharmacist, via: [mss], carries: document, basis: care_team }", "  §pharma: { who: pharmacist, via: [mss], carries: document }", "E143", "no_basis"),
    ("id twice", "  - id: autres", "  - §id: sortie", "E203", "id_twice"),
    ("former id twice", "    copy: pharma", "    was: [jadis, §tests]\n    copy: pharma", "E203", "id_twice"),
    ("holidays", "subdiv: Moselle", 'subdiv: §"45"', "W301", "same_holidays"),
    ("order", "after: 1d, remind: gp_ping }\n      - { after: 3d", "after: 5d, clock: real, remind: gp_ping }\n      - { after: §3d", "W306", "step_order"),
]  # fmt: skip


def edited(old: str, new: str) -> tuple[str, tuple[int, int]]:
    assert WHOLE.count(old) == 1, old
    return marked(WHOLE.replace(old, new))


def is_entry(entry: str, finding: Finding, lang: str) -> bool:
    """Whether a finding's words are those of an entry of the table, filled, or those of a guess."""
    code, *texts = WORDS[entry]
    guessed = DID_YOU_MEAN[lang == "en"][:10] in finding.message
    for text, said in ((texts[lang == "en"], finding.message), (texts[2 + (lang == "en")], finding.fix)):
        template = re.escape(text.replace("{{", "{").replace("}}", "}"))
        pattern = re.sub(r"\\{\w+\\}", ".*", template)
        if not re.match(pattern, said, re.DOTALL) and not (guessed and said is finding.fix):
            return False
    return code == finding.code


def check_as_shown(finding: Finding, text: str, lang: str = "fr") -> None:
    """The place, the line itself, a caret under the place, one fix."""
    first, shown, caret, *_, fix = finding.text(lang).split("\n")
    assert first == f"routes.yaml:{finding.line}:{finding.column} {finding.code} {finding.message}"
    line = text.split("\n")[finding.line - 1]
    head = f"  {finding.line} | "
    assert shown[len(head) :].replace("\ufffd", "") == re.sub("[\u202e]", "", line)
    assert caret.index("^") == len(head) + finding.column - 1
    assert fix == f"  {'Fix:' if lang == 'en' else 'Correction :'} {finding.fix}"
    assert finding.fix


@pytest.mark.parametrize("lang", ["fr", "en"])
@pytest.mark.parametrize(("name", "old", "new", "code", "entry"), PLACES, ids=[each[0] for each in PLACES])
def test_each_finding_stands_exactly_where_the_mistake_is(name, old, new, code, entry, lang):
    text, place = edited(old, new)
    (finding,) = findings_of(text, lang=lang)
    assert (finding.code, finding.line, finding.column) == (code, *place)
    assert is_entry(entry, finding, lang), finding
    check_as_shown(finding, text, lang)


CASE = "  - { name: x, given: { event: birth }, expect: { rule: default } }\n"
IN_TESTS = [
    ("tests:\n  - { name: x, given: { event: birth }, §expect: {} }\n", "E109", "expect_empty"),
    ("tests:\n  - { name: x, at: §demain, given: { event: birth }, expect: { rule: default } }\n", "E104", "instant"),
    (f"tests:\n{CASE}{CASE.replace('name: x', 'name: §x')}", "E203", "case_twice"),
    (f"tests: [ {CASE[4:-1]}, {CASE[4:-1].replace('name: x', 'name: §x')} ]\n", "E203", "case_twice"),
    (f"tests:\n{CASE.replace('- {', '- §{').replace('rule: default', 'rule: sortie')}", "T001", "case_failed"),
    ("tests:\n  §name: x\n  given: { event: birth }\n", "E104", "no_list"),
    ("tests:\n  - { name: x, given: { event: birth }, expect: { file: §non } }\n", "E102", "unknown_value"),
    ("tests:\n  - §{ name: x, given: { event: birth } }\n", "E103", "missing"),
    ("tests:\n  - { name: x, given: { event: birth }, expect: { rule: §sorti } }\n", "E110", "undefined"),
    ("tests:\n  - { name: x, given: { event: §sortie }, expect: { rule: sortie } }\n", "E102", "unknown_value"),
    (f"tests:\n{CASE}coverage: §all\n", "E102", "unknown_value"),
]  # fmt: skip


@pytest.mark.parametrize("lang", ["fr", "en"])
@pytest.mark.parametrize(("text", "code", "entry"), IN_TESTS)
def test_a_mistake_among_the_tests_stands_where_it_is(text, code, entry, lang):
    text, place = marked(text)
    (finding,) = cases.run(good(WHOLE), text, "routes.yaml", lang).findings
    assert (finding.code, finding.line, finding.column) == (code, *place)
    assert is_entry(entry, finding, lang), finding
    check_as_shown(finding, text, lang)


def test_a_rule_without_a_case_is_shown_with_its_line_though_it_is_found_in_the_tests():
    outcome = cases.run(good(WHOLE), f"tests:\n{CASE}coverage: every-rule\n", "routes.test.yaml")
    assert {f.code for f in outcome.findings} == {"E304"}
    for finding in outcome.findings:
        check_as_shown(finding, WHOLE)
        assert WHOLE.split("\n")[finding.line - 1][finding.column - 1 :].startswith("id: ")


def test_a_rule_observed_for_long_is_told_at_its_id_with_the_figures():
    text, place = marked(
        WHOLE.replace("  - id: copie", "  - §id: copie").replace(
            "copy: pharma", "copy: pharma\n    mode: observe"
        )
    )
    rules = good(text)
    assert observed_long(rules, {"copie": (29, 900)}) == ()
    assert observed_long(rules, {"sortie": (90, 900)}) == ()
    (finding,) = observed_long(rules, {"copie": (42, 311)})
    assert (finding.code, finding.severity, finding.line, finding.column) == ("W302", "warning", *place)
    assert finding.message == "« copie » en `observe` depuis 42 j, 311 avis observés : promouvoir ou retirer."
    check_as_shown(finding, text)
    (finding,) = observed_long(rules, {"copie": (30, 1)}, "en")
    assert "for 30 days, 1 notice observed" in finding.message


def test_no_words_wait_for_a_finding_that_is_never_told():
    told = {each[-1] for each in (*PLACES, *IN_TESTS)} | {"observed_long"}
    elsewhere = {"too_large", "not_utf8", "empty_file", "channel", "no_case", "no_case_but", "no_tests"}
    elsewhere |= {"too_many", "too_many_doubts", "too_many_nodes"}
    # What only reasoning over all the rules together finds is proved with that reasoning.
    together = {
        name for name, (code, *_) in WORDS.items() if code in ("E201", "W202", "W203", "W204", "W205")
    }
    assert set(WORDS) - together == told | elsewhere
    used = "".join(
        file.read_text() for file in Path(language.__file__).parent.glob("*.py") if file.stem != "words"
    )
    assert {name for name in WORDS if f'"{name}"' not in used} == set()


# -- all of a file at once


def places(text: str) -> tuple[str, list[tuple[int, int]]]:
    """A text without its § marks, and every place where one stood, in order."""
    first, *others = text.split(CARET)
    found: list[tuple[int, int]] = []
    for other in others:
        found.append((first.count("\n") + 1, len(first) - first.rfind("\n")))
        first += other
    return first, found


def test_every_mistake_of_a_file_is_told_in_one_pass_in_the_order_of_the_file():
    text, expected = places(
        """\
version: 1
timezone: §Europe/Pari
hours:
  nuit: { every-day: [§"20h"] }
targets:
  gp: { who: §medecin, via: [mss], carries: document }
  §ping: { who: registered_gp, via: [telegram], carries: notice }
  sorties: { who: desk/sorties, via: [mss], carries: document }
followups:
  §suite: { ladder: [ { after: 1h, remind: sorties } ] }
rules:
  - id: a
    when: { event: §sortie, §urgncy: urgent }
    send: [§gpp]
    followup: §suit
  - §id: a
    when: { event: discharge }
    hold: §gp
    reason: x
  - id: b
    §when: {}
    file: x
also:
  - id: §c d
    when: { event: discharge }
    copy: gp
default: { hold: sorties, raison: x }
""".replace("raison", "§raison")
    )
    found = findings_of(text)
    assert [(f.line, f.column) for f in found] == expected, "\n".join(f.text() for f in found)


def test_a_misspelt_section_is_one_mistake_and_not_one_more_for_each_name_it_defines():
    text, expected = places(
        WHOLE.replace("version: 1", "§verison: 1")
        .replace("\ntargets:", "\n§Targets:")
        .replace("\nhours:", "\n§horaires:")
        .replace("\nfollowups:", "\n§suites:")
        .replace("\ndefault:", "\n§defaut:")
        .replace("identity: test", "identity: §tst")
    )
    found = findings_of(text)
    assert [(f.line, f.column) for f in found] == expected, "\n".join(f.text() for f in found)
    assert [f.code for f in found] == ["E101"] * 4 + ["E102", "E101"]


def test_a_misspelt_key_of_a_rule_is_not_missed_beside_it():
    text, expected = places(
        WHOLE.replace("when: { identity: test }", "§whn: { identity: test }").replace(
            "- id: copie", "- §nom: copie"
        )
    )
    found = findings_of(text)
    assert [(f.line, f.column, f.code) for f in found] == [(*place, "E101") for place in expected]


def test_a_desk_that_cannot_be_read_is_one_mistake_and_not_one_more_wherever_it_holds():
    text, expected = places(WHOLE.replace("who: desk/sorties", "who: §desk"))
    assert [(f.line, f.column, f.code) for f in findings_of(text)] == [(*at, "E102") for at in expected]
    text, expected = places(WHOLE.replace("who: desk/sorties", "§whoo: desk/sorties"))
    assert [(f.line, f.column, f.code) for f in findings_of(text)] == [(*at, "E101") for at in expected]


def test_what_is_said_of_a_date_twice_may_agree():
    kept = "holidays: closed, 2026-08-17: closed, 2026-08-10..2026-08-18: closed }"
    hours = good(WHOLE.replace("holidays: closed }", kept)).hours
    opens = [day for day in range(7, 20) if hours["cabinet"].windows(date(2026, 8, day))]
    assert opens == [7, 19]


@pytest.mark.parametrize(
    ("week", "opens"),
    [
        ("every-day: 20:00-08:00, sun: closed", [0, 1, 2, 3, 4, 5]),
        ("wed: closed, mon-fri: 20:00-22:00", [0, 1, 3, 4]),
        ("every-day: closed, tue: 20:00-22:00", [1]),
        ("mon-fri: closed, every-day: 20:00-22:00, tue: 23:00-24:00", [1, 5, 6]),
        ("sat-sun: closed, mon: 20:00-22:00", [0]),
    ],
)
def test_of_a_day_that_opens_and_is_closed_the_key_of_fewer_days_says_which(week, opens):
    hours = good(WHOLE.replace('every-day: ["20:00-08:00"]', week)).hours["nuit"]
    assert [day for day in range(7) if hours.windows(date(2026, 6, 8 + day))] == opens


def test_every_trick_of_yaml_in_a_file_is_told_in_one_pass():
    text, expected = places(
        "a: §&x 1\nb: §*x\nc: §!!str 1\nd:\n  §<<: §*x\n  e: §!y { f: §&z g }\nh: { §? [1] : 2 }\n§h: 3\n".replace(
            "§? [", "? §["
        )
    )
    assert [(f.line, f.column) for f in findings_of(text)] == expected


def test_beside_an_anchor_or_a_tag_the_other_mistakes_are_told_as_well():
    text, expected = places(
        WHOLE.replace("gp: { who", "gp: §&ici { who").replace("identity: test", "identity: §tst")
    )
    assert [(f.line, f.column) for f in findings_of(text)] == expected


def test_beside_tabs_and_unseen_characters_the_other_mistakes_are_told_as_well():
    text, expected = places(
        WHOLE.replace("Patient de test", "Patient§\u200b de§\u202e test")
        .replace("    followup: standard", "  §\t followup: §standar")
        .replace('    file: "Gardé', '  §\xa0 file: "Gardé§\x00')
    )
    assert [(f.line, f.column) for f in findings_of(text)] == expected


@pytest.mark.parametrize(
    "new", ["copy: phar§\u200bma", "copy: §\ufeffpharma", "copy: pharma§\xad", 'copy§\u200b: "pharma§\u200b"', "copy:§\u200bpharma"]
)  # fmt: skip
def test_a_character_that_nobody_sees_makes_no_other_name_of_a_name(new):
    text, expected = places(WHOLE.replace("copy: pharma", new))
    assert [(f.line, f.column, f.code) for f in findings_of(text)] == [(*at, "E105") for at in expected]


def test_a_line_of_nothing_but_a_tab_is_told_as_one():
    text, expected = places(WHOLE.replace("\nrules:\n", "\n§\t\nrules:\n"))
    (finding,) = findings_of(text)
    assert [(finding.line, finding.column)] == expected
    assert "tabulation" in finding.message


def test_a_quote_that_is_missing_is_looked_for_where_the_text_began():
    text, expected = places(
        WHOLE.replace('"Patient de test"', '"Patient de test').replace('"Gardé', '"§Gardé')
    )
    (finding,) = findings_of(text)
    assert [(finding.line, finding.column)] == expected
    opened = text[: text.index('"Patient')].count("\n") + 1
    assert f"guillemet ouvert l.{opened})" in finding.message
    assert f"quote opened on line {opened})" in findings_of(text, lang="en")[0].message
    (other,) = findings_of(WHOLE.replace('"Gardé avec le séjour"', "'Gardé avec l'avis'"))
    assert "apostrophe" in other.message
    assert "apostrophe" in findings_of(other.source_line, lang="en")[0].message


def test_rules_of_one_name_are_told_though_they_stand_in_one_line():
    start, end = WHOLE.index("rules:\n"), WHOLE.index("also:\n")
    rule = "id: sortie, was: depart, when: { event: %s }, send: gp, followup: none"
    for name, told in (("sortie", "§id: sortie"), ("depart", "§id: depart")):
        other = (rule % "birth").replace("id: sortie, was: depart", told)
        listed = f"rules: [ {{ {rule % 'discharge'} }}, {{ {other} }} ]\n"
        text, (expected,) = places(WHOLE[:start] + listed + WHOLE[end:])
        (finding,) = findings_of(text)
        assert (finding.line, finding.column, finding.code) == (*expected, "E203"), name
        assert f"l.{finding.line}" in finding.message


def test_an_accent_counts_as_the_same_however_it_was_typed():
    one, two = (normalize(form, "sortie-éclair") for form in ("NFC", "NFD"))
    assert len(one) < len(two)
    text, (expected,) = places(
        WHOLE.replace("id: autres", f"id: {one}").replace("- id: copie", f"- §id: {two}")
    )
    (finding,) = findings_of(text)
    assert (finding.line, finding.column, finding.code) == (*expected, "E203")
    good(WHOLE.replace("sorties", "départs").replace("hold: départs", "hold: de\u0301parts"))


def test_what_stands_before_a_syntax_error_is_checked_and_nothing_is_made_up_about_the_rest():
    text, expected = places(
        WHOLE.replace("subdiv: Moselle", "subdiv: §Mosele")
        .replace("identity: test", "identity: §tst")
        .replace("send: [gp, gp_ping]\n    followup:", "send: [gp, gp_ping\n    followup§:")
    )
    assert [(f.line, f.column) for f in findings_of(text)] == expected


def test_a_file_in_another_encoding_is_told_where_and_its_other_mistakes_too():
    text, expected = places(WHOLE.replace("tomb(é", "tomb(§é").replace("identity: test", "identity: §tst"))
    found = load(text.encode("cp1252"), "routes.yaml")[1]
    assert [(f.line, f.column) for f in found] == expected
    assert [f.code for f in found] == ["E105", "E102"]


# -- words about YAML and patterns


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [b, c\n\nd: e\n", "virgule ou un crochet fermant `]` manque ; crochet ouvert l.1"),
        ("a: {b: c\nd: e\n", "virgule ou une accolade fermante `}` manque ; accolade ouverte l.1"),
        ("a: 'x\nb: c\n", "guillemet jamais fermé ; guillemet ouvert l.1"),
        ("a: b: c\n", "deux-points inattendu"),
        ("a:\n  - b\n c: d\n", "mauvais alignement"),
        ("a: - b\n", "tiret inattendu"),
        ("- a\nb: c\n", "un tiret était attendu"),
        ("a: @b\n", "ne commence pas par ce caractère"),
        ('a: "\\q"\n', "caractère inconnu"),
        ("a: ]\n", "une valeur était attendue"),
        ("a: b\nc\n", "un deux-points manque après la clé"),
        ("a: |x\n b", "rien ne suit"),
        ("a: *\n", "va entre guillemets"),
        ("%FOO\na: 1\n", "structure incompréhensible"),
    ],
)
def test_what_the_yaml_reader_says_is_said_in_words_an_admin_can_act_on(text, words):
    told = [f for f in findings_of(text) if f.code == "E105"]
    assert words in told[0].message
    english = [f for f in findings_of(text, lang="en") if f.code == "E105"]
    assert "did not find" not in english[0].message
    assert len(PARSER) > 12


@pytest.mark.parametrize(
    ("pattern", "words"),
    [("a(b", "une parenthèse fermante manque : a(b"), ("[a", "crochet"), ("*a", "rien à répéter"), ("(?=a)", "RE2 n'a pas"),
     ("a{1001}", "répétition"), ("a**", "deux répétitions"), ("[z-a]", "intervalle"), ("a)", "de trop"), ("b" * 1001, "plus de 1000")],
)  # fmt: skip
def test_what_is_wrong_with_an_expression_is_said_in_french(pattern, words):
    text = WHOLE.replace("identity: test", f"sender: {{ matches: '{pattern}' }}")
    (finding,) = findings_of(text)
    assert words in finding.message
    assert len(RE2_SAYS) > 8


# -- what a terminal shows


@pytest.mark.parametrize("word", ["followup:standard", "followup = standard", "gp;mss;oui"])
def test_a_colon_that_is_missing_is_told_where_it_is_missing(word):
    text, (expected,) = places(WHOLE.replace("    followup: standard\n", f"    §{word}\n", 1))
    (finding,) = findings_of(text)
    assert (finding.line, finding.column, finding.code) == (*expected, "E105")
    assert "deux-points manque après la clé" in finding.message
    check_as_shown(finding, text)


@pytest.mark.parametrize(
    ("before", "room"), [("é", 1), ("e\u0301", 1), ("心", 2), ("🫀", 2), ("a\tb", None), ("ﬁ", 1)]
)
def test_the_caret_stands_under_the_place_however_wide_what_stands_before_it_is(before, room):
    text, (expected,) = places(WHOLE.replace("identity: test", f'cpts: "{before}", §idntity: test'))
    (finding,) = findings_of(text)
    assert (finding.line, finding.column) == expected
    _, shown, caret, *_ = finding.text().split("\n")
    at = shown.index("idntity") - len(before)
    assert caret.index("^") == at + (room if room is not None else len(before))
    assert ("\t" in caret) is ("\t" in before)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [("*@chr.fr", r"@chr\.fr$"), ("dim@*", "^dim@"), ("*", "."), ("a*b*c.fr", r"^a.*b.*c\.fr$")],
)
def test_a_text_with_an_asterisk_comes_with_the_pattern_that_was_meant(text, pattern):
    (finding,) = findings_of(WHOLE.replace("identity: test", f"sender: '{text}'"))
    assert f"'{pattern}'" in finding.fix


def test_a_long_line_is_shown_around_the_place():
    text = WHOLE.replace("identity: test", f"sender: [{', '.join('a@b' for _ in range(120))}], identity: tst")
    (finding,) = findings_of(text)
    _, shown, caret, _ = finding.text().split("\n")
    assert len(shown) < 230
    assert shown[caret.index("^") :].startswith("tst")


def test_nothing_a_terminal_would_obey_is_ever_printed():
    for text in (
        WHOLE.replace("Patient de test", "Patient \x1b[2J\x07"),
        WHOLE.replace("identity: test", 'identity: "\\e[2Jtest"'),
        WHOLE.replace("  garde:", '  "\\e[2J":'),
        WHOLE.replace("id: autres", 'id: "\\u202eautres"'),
        "\x1b[31m: \x9b1\n",
    ):
        found = findings_of(text)
        assert found
        for finding in found:
            assert all(c.isprintable() or c == "\n" for c in finding.text()), finding


def test_the_error_raised_for_a_bad_file_is_one_printable_line():
    error = RulesError(findings_of(WHOLE.replace("identity: test", 'identity: "a\\nb\\e"')))
    assert "\n" not in str(error)
    assert str(error).isprintable()


# -- hostile files end soon


def big(line: str) -> str:
    return line * ((MAX_BYTES - 2_000) // len(line))


HOSTILE = {
    "10 MB": b"a" * 10_000_000,
    "10 MB of rules": (WHOLE * 9_000).encode()[:10_000_000],
    "aliases": big("- *a\n"),
    "anchors": big("- &a b\n"),
    "brackets": big("["),
    "braces": big("{"),
    "nested keys": big("a: "),
    "dashes": big("- "),
    "keys": "".join(f"k{n}: 1\n" for n in range(240_000)),
    "more keys": "".join(f"k{n}: 1\n" for n in range(300_000)),
    "one key": big("k: 1\n"),
    "tabs": big("\t\n"),
    "indented tabs": big(" \tx\n"),
    "unseen": big("\x00"),
    "unseen on lines": big("\x00\n"),
    "blank lines": big("\n"),
    "one line": big("x"),
    "one long key": "? " + big("x"),
    "quotes": '"' + big("\\n"),
    "comments": big("# x\n"),
    "unknown targets": HEAD + "rules:\n" + "".join(
        f"  - {{ id: r{n}, when: {{ event: death }}, send: [x{n}], followup: none }}\n" for n in range(40_000)
    ) + DEFAULT,
    "many targets": "version: 1\ntargets:\n" + "".join(
        f"  t{n}: {{ who: nurse, via: [mss], carries: pointer }}\n" for n in range(15_000)
    ) + "rules:\n" + "".join(f"  - {{ id: r{n}, when: {{ event: death }}, send: [u{n}], followup: none }}\n" for n in range(6_000)),
    "many windows": HEAD.replace('"20:00-08:00"', ", ".join(['"01:00-02:00"'] * 100_000)) + DEFAULT,
    "many words": HEAD.replace("chute: [chute", "chute: [" + ", ".join(f"mot{n}" for n in range(300_000))) + DEFAULT,
    "many values": WHOLE.replace("identity: test", "ward: [" + ", ".join(f"s{n}" for n in range(200_000)) + "]"),
    "many ways": WHOLE.replace("via: [mss]", "via: [" + ", ".join(f"v{n}" for n in range(400_000)) + "]", 1),
    "many exceptions": HEAD.replace("holidays: closed }", ", ".join(f"20{n:02}-01-01..20{n:02}-12-31: closed" for n in range(99)) + " }") + DEFAULT,
    "many conditions": WHOLE.replace("{ identity: test }", "{ any: [" + ", ".join(["{ age: 3 }"] * 80_000) + "] }"),
    "bad bytes": b"\xff" * 900_000,
    "utf-16": WHOLE.encode("utf-16"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_answered_within_seconds(name):
    raw = HOSTILE[name]
    started = time.process_time()
    _, findings = load(raw, "routes.yaml", SITE)
    assert time.process_time() - started < 10
    assert len(findings) <= MAX_FINDINGS + 1
    assert sum(len(f.text()) for f in findings) < 1_000 * MAX_FINDINGS


@pytest.mark.parametrize("name", ["10 MB", "10 MB of rules"])
def test_ten_megabytes_are_refused_at_once_and_not_looked_through(name):
    started = time.process_time()
    rules, findings = load(HOSTILE[name], "routes.yaml", SITE)
    assert time.process_time() - started < 0.2
    assert rules is None
    assert [(f.code, f.line, f.column) for f in findings] == [("E105", 1, 1)]
    assert "4 Mo" in findings[0].message


def test_a_file_of_as_many_bytes_as_are_admitted_is_read_and_of_one_more_is_not():
    for more, admitted in ((0, True), (1, False)):
        text = WHOLE + "#" * (MAX_BYTES - len(WHOLE.encode()) + more)
        for raw in (text, text.encode()):
            assert (load(raw, "routes.yaml", SITE)[0] is not None) is admitted


def test_more_words_than_ten_thousand_rules_have_are_refused_where_they_begin_to_be_too_many():
    head = "version: 1\nkeywords:\n  a:\n"
    before = 6  # the file, two keys, the version, the table and its key
    for count, code in ((MAX_NODES - before - 1, "E103"), (MAX_NODES - before, "E105")):
        _, findings = load(head + "    - b\n" * count, "routes.yaml", SITE)
        assert findings[0].code == code, findings[:2]
    assert (findings[0].line, findings[0].column) == (3 + count, 7)


# -- fuzz


WORD = st.sampled_from(
    [*SECTIONS, *RULE_KEYS, *FIELDS, "who", "via", "carries", "await", "ack", "ladder", "after", "remind", "hand_to",
     "within", "clock", "any", "all", "unless", "during", "gte", "matches", "mon-fri", "every-day", "2026-01-01", "hold",
     "registered_gp", "desk/sorties", "rota/x", "document", "pointer", "mss", "telegram", "none", "real", "default",
     "1", "2d", "1h", "-1", "", "~", "unknown", "yes", "no", "08:00-12:00", "20:00-08:00", "FR", "Moselle", "é", "((",
     "discharge", "urgent", "sorties", "gp", "2026-01-01..2027-01-01", "tests", "given", "expect", "coverage", "name"]
)  # fmt: skip
TREE = st.recursive(
    WORD,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(st.tuples(WORD, inner), max_size=5).map(lambda pairs: {"pairs": pairs})
    ),
    max_leaves=40,
)


def as_yaml(tree: object) -> str:
    if isinstance(tree, list):
        return "[" + ", ".join(map(as_yaml, tree)) + "]"
    if isinstance(tree, dict):
        return "{" + ", ".join(f'"{key}": {as_yaml(value)}' for key, value in tree["pairs"]) + "}"
    return f"'{tree}'" if tree == "" else str(tree)


def check_findings(text: str, findings: tuple[Finding, ...]) -> None:
    lines = re.split("\r\n|\n|\r", text)
    for finding in findings:
        assert 1 <= finding.line <= len(lines)
        assert 1 <= finding.column <= len(lines[finding.line - 1]) + 1
        assert finding.message
        assert finding.fix
        assert finding.text().isprintable() or "\n" in finding.text()


@settings(max_examples=many(250), deadline=None)
@given(st.lists(st.tuples(st.sampled_from(SECTIONS), TREE), max_size=8), st.sampled_from(["fr", "en"]))
def test_any_tree_of_the_language_s_own_words_ends_in_rules_or_in_findings(sections, lang):
    text = "version: 1\n" + "".join(f"{name}: {as_yaml(tree)}\n" for name, tree in sections)
    rules, findings = load(text, "routes.yaml", SITE, lang)
    assert (rules is None) == any(f.severity == "error" for f in findings)
    check_findings(text, findings)


@settings(max_examples=many(100), deadline=None)
@given(TREE, TREE)
def test_any_tree_among_good_sections_ends_in_rules_or_in_findings(when, value):
    text = f"{HEAD}rules:\n  - id: r\n    when: {as_yaml(when)}\n    send: {as_yaml(value)}\n    followup: none\n{DEFAULT}"
    rules, findings = load(text, "routes.yaml", SITE)
    assert (rules is None) == any(f.severity == "error" for f in findings)
    check_findings(text, findings)


@settings(max_examples=many(100), deadline=None)
@given(TREE)
def test_any_tree_as_a_test_file_ends_in_cases_or_in_findings(tree):
    outcome = cases.run(RULES, f"tests: {as_yaml(tree)}\n", "routes.test.yaml")
    assert outcome.ok or outcome.findings


@settings(max_examples=many(100), deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_as_a_test_file_are_told_and_never_crash(raw):
    outcome = cases.run(RULES, raw, "routes.test.yaml")
    assert not outcome.ok
    assert outcome.findings


RULES = good(WHOLE)


# -- what was probably meant


@pytest.mark.parametrize(
    ("old", "new", "guess"),
    [
        ("event: [admission, other]", "évènement: [admission, other]", "event"),
        ("event: [admission, other]", "event: [admission, décès]", "death"),
        ("event: [discharge, er_visit]", "event: [sortie, er_visit]", "discharge"),
        ("age: { gte: 18 }", "âge: { gte: 18 }", "age"),
        ("identity: test", "identity: douteuse", "doubtful"),
        ("identity: test", "signed: oui", "yes"),
        ("identity: test", "gp: parti", "left"),
        ("identity: test", "exit_mode: domicile", "home"),
        ("identity: test", "exit_mode: EHPAD", "nursing_home"),
        ("mon-fri", "lun-ven", "mon-fri"),
        ("mon-fri", "Lundi-jeudi", "mon-thu"),
        ("mon-fri", "week-end", "sat-sun"),
        ("identity: test", "code: « 11490-0 »", "11490-0"),
        ("identity: test", "or: [ { identity: test } ]", "any"),
        ("identity: test", "not: { identity: test }", "unless"),
        ("identity: test", "signed: on", "yes"),
        ("identity: test", "signed: 0", "no"),
        ("    followup: standard", "    followup: standard\n    mode: Off", "off"),
        ("    followup: standard", "    followup: standard\n    mode: yes", "on"),
        ("    followup: standard", "    followup: standard\n    grace: 1h30", "90m"),
        ("after: 1d", "after: 1 semaine", "7d"),
        ('"13:30-19:00"', "13.30-19.00", "13:30-19:00"),
        ('"20:00-08:00"', "24:00-08:00", "00:00-08:00"),
        ("    followup: standard", "    followup: standard\n    from: 1/3/26", "2026-03-01"),
        ("    followup: standard", "    followup: standard\n    from: 2026-3-1", "2026-03-01"),
        ("mon-fri", "Samedi", "sat"),
        ("every-day", "tous-les-jours", "every-day"),
        ("holidays: closed", "holidays: fermé", "closed"),
        ("who: pharmacist", "who: pharmacien", "pharmacist"),
        ("who: pharmacist", "qui: pharmacist", "who"),
        ("    send: [gp", "    envoyer: [gp", "send"),
        ('    file: "Gardé', '    supprimer: "Gardé', "file"),
        ("    followup:", "    suivi:", "followup"),
        ("await: seen", "await: lu", "seen"),
        ("within: 2d", "within: 2 jours", "2d"),
        ("after: 1d", "after: 1j", "1d"),
        ("after: 1d", "after: 30 min", "30m"),
        ("after: 1d", "after: 1 heure", "1h"),
        ('"13:30-19:00"', "13h30-19h", "13:30-19:00"),
        ('"20:00-08:00"', "20h à 8h", "20:00-08:00"),
        ('"20:00-08:00"', "“20:00-08:00”", "20:00-08:00"),
        ('"20:00-08:00"', "«20h-8h»", "20:00-08:00"),
        ("    followup: standard", "    followup: standard\n    from: 01/03/2026", "2026-03-01"),
        ("subdiv: Moselle", "subdiv: Reunion", "La Réunion"),
        ("subdiv: Moselle", "subdiv: guadeloupe", "Guadeloupe"),
        ("hold: sorties\n", "hold: sortie\n", "sorties"),
    ],
)
def test_what_was_probably_meant_is_offered_and_mends_the_file(old, new, guess):
    text = WHOLE.replace(old, new, 1)
    (finding,) = findings_of(text)
    assert f"Vouliez-vous dire « {guess} » ?" in finding.message
    assert finding.fix.endswith(f"par « {guess} ».")
    assert finding.meant is not None
    lines = text.split("\n")
    line = lines[finding.line - 1]
    end = finding.column - 1 + len(finding.meant[0])
    lines[finding.line - 1] = line[: finding.column - 1] + guess + line[end:]
    mended = findings_of("\n".join(lines))
    assert finding.code not in {f.code for f in mended} or "tests" in mended[0].message


@pytest.mark.parametrize(
    ("old", "new", "guess"),
    [
        ("send: [gp, gp_ping]", "send: gp, gp_ping", "[gp, gp_ping]"),
        ("send: [gp, gp_ping]", "send: gp et gp_pin", "[gp, gp_ping]"),
        ("event: [admission, other]", "event: admission ou other", "[admission, other]"),
        ("event: [admission, other]", "event: [admission ou other]", None),
        ("hold: sorties\n", "hold: sorties, gp\n", None),
        ("send: [gp, gp_ping]", "send: gp, qui donc", None),
    ],
)
def test_of_several_names_without_brackets_none_is_lost_by_the_fix(old, new, guess):
    text = WHOLE.replace(old, new, 1)
    assert text != WHOLE
    told = [finding for finding in findings_of(text) if finding.code in ("E102", "E110")]
    for finding in told:
        assert ("Vouliez-vous dire" in finding.message) is (guess is not None), finding.message
        if guess is not None:
            assert finding.fix.endswith(f"par « {guess} ».")
            mended = text.replace(finding.meant[0] if finding.meant else "", guess)
            assert findings_of(mended) == ()
    assert told


@pytest.mark.parametrize(
    ("written", "guess"),
    [("[Mss]", "mss"), ("matrix et mss", "[matrix, mss]"), ("[sms]", "mss"), ("[fax]", None)],
)
def test_a_channel_that_is_misspelt_is_offered_as_the_site_has_it(written, guess):
    text = WHOLE.replace("via: [matrix, mss]", f"via: {written}", 1)
    (finding,) = load(text, "routes.yaml", SITE)[1]
    assert finding.code == "W305"
    assert ("Vouliez-vous dire" in finding.message) is (guess is not None)
    assert guess is None or f"« {guess} »" in finding.fix


@pytest.mark.parametrize("word", ["32/01/2026", "1 siècle", "99999 jours", "25h-26h", "0h-0h", "hier", ""])
def test_nothing_is_guessed_that_would_be_refused_as_well(word):
    assert day_meant(word) is None
    assert duration_meant(word) is None
    assert window_meant(word) is None
    assert instant_meant(word) is None
    assert instant_meant(f"{word} 18:45") is None
    assert instant_meant(f"04/12/2026 {word}") is None


def test_each_french_word_stands_for_words_of_the_language():
    words = {
        *SECTIONS,
        *RULE_KEYS,
        *COPY_KEYS,
        *TARGET_KEYS,
        *FOLLOWUP_KEYS,
        *STEP_KEYS,
        *HOURS_KEYS,
        *NESTED,
    }
    words |= {
        *FIELDS,
        *(value for field in FIELDS.values() for value in field.values),
        *PEOPLE,
        *cases.EXPECTED,
    }
    words |= {"during", "within", "expect", "tests", "given", "name", "country", "none", "unknown", "real"}
    words |= {
        "document",
        "notice",
        "pointer",
        "care_team",
        "consent",
        "delivered",
        "seen",
        "ack",
        "yes",
        "no",
    }
    words |= {"closed", "open", "as-sunday", "on", "observe", "off"}
    for french, meant in FRENCH.items():
        assert french == french.casefold()
        assert set(meant) <= words, french


# -- how lines and columns are counted


@pytest.mark.parametrize("newline", ["\r\n", "\r"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_places_are_the_same_whatever_ends_a_line_and_whatever_marks_the_start(newline, start):
    for name, old, new, code, _ in PLACES:
        text, place = edited(old, new)
        (finding,) = findings_of(start + text.replace("\n", newline))
        assert (finding.code, finding.line, finding.column) == (code, *place), name
        raw = (start + text.replace("\n", newline)).encode()
        assert [(f.code, f.line, f.column) for f in load(raw, "routes.yaml")[1]] == [(code, *place)], name


def test_columns_count_characters_and_not_bytes():
    text, place = marked(
        WHOLE.replace("{ identity: test }", '{ ward: "Gériâtrie 𝒜 œ", identity: §tst, sender: [é, "😀"] }')
    )
    (finding,) = findings_of(text)
    assert (finding.line, finding.column) == place
    check_as_shown(finding, text)


# -- what is quoted


def test_a_long_word_is_quoted_by_its_beginning():
    (finding,) = findings_of(WHOLE.replace("identity: test", f"identity: {'x' * 5_000}"))
    assert f"« {'x' * 59}… »" in finding.message
    assert len(finding.message) < 300


@pytest.mark.parametrize("coding", ["utf-16", "utf-32"])
def test_a_file_in_another_coding_is_told_once_and_not_letter_by_letter(coding):
    _, findings = load(WHOLE.encode(coding), "routes.yaml", SITE)
    assert [(f.code, f.line, f.column) for f in findings] == [("E105", 1, 1)]
    assert "UTF-8" in findings[0].message


def test_a_key_in_quotes_is_a_key_whatever_it_looks_like():
    (finding,) = findings_of(WHOLE.replace("    hold: sorties\n", '    hold: sorties\n    "<<": x\n', 1))
    assert (finding.code, finding.source_line) == ("E101", '    "<<": x')


@pytest.mark.parametrize("word", ["null", "~", "Null"])
def test_a_word_in_quotes_is_a_word_and_without_them_nothing(word):
    quoted = good(WHOLE.replace('reason: "Patient de test"', f'reason: "{word}"'))
    assert quoted.rules[0].reason == word
    (finding,) = findings_of(WHOLE.replace('reason: "Patient de test"', f"reason: {word}"))
    assert finding.code == "E104"


def test_a_reason_of_spaces_is_none():
    (finding,) = findings_of(WHOLE.replace('reason: "Patient de test"', 'reason: "  "'))
    assert finding.code == "E104"


def test_what_was_meant_is_put_in_place_only_of_a_word_that_stands_there_as_it_is():
    for written, meant in (("tst", ("tst", "test")), ('"tst"', None)):
        (finding,) = findings_of(WHOLE.replace("identity: test", f"identity: {written}"))
        assert "« test »" in finding.fix
        assert finding.meant == meant


@pytest.mark.parametrize(
    ("day", "sound"),
    [("2000-01-01", True), ("2099-12-31", True), ("1999-12-31", False), ("2100-01-01", False)],
)
def test_days_are_those_of_this_century(day, sound):
    codes = [
        f.code for f in findings_of(WHOLE.replace("identity: test }", f"identity: test }}\n    from: {day}"))
    ]
    assert codes == ([] if sound else ["E104"])


def test_where_no_name_is_defined_none_is_listed():
    text = WHOLE.replace('keywords:\n  chute: [chute, "tomb(é|ée)s?"]\n', "")
    assert text != WHOLE
    (finding,) = findings_of(text)
    assert finding.message.endswith("Listes : —.")
