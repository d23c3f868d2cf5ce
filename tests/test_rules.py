"""Reading a rule file: what loads, and what each mistake is told, where."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.calendar import Duration
from rules import cases
from rules.engine import decide
from rules.language import (
    FIELDS,
    NEEDS_SOMEBODY,
    UNKNOWN,
    FactValue,
    Finding,
    RulesError,
    RuleSet,
    Site,
    load,
    mentioned,
)
from rules.source import MAX_FINDINGS
from tests.campaign import many

SETS = Path(__file__).parent.parent / "rules" / "sets"

HEAD = """\
version: 1
timezone: Europe/Paris
holidays: { country: FR, subdiv: Moselle }
hours:
  cabinet: { mon-fri: ["08:00-12:30", "13:30-19:00"], holidays: closed }
  nuit: { every-day: ["20:00-08:00"] }
targets:
  gp: { who: registered_gp, via: [mss], carries: document }
  gp_ping: { who: registered_gp, via: [telegram, matrix], carries: pointer, quiet: nuit }
  garde: { who: rota/garde, via: [matrix, mss], carries: pointer }
  sorties: { who: desk/sorties, via: [mss], carries: document }
  pharma: { who: pharmacist, via: [mss], carries: document, basis: care_team }
followups:
  standard:
    await: seen
    ack: { within: 2d, clock: cabinet }
    ladder:
      - { after: 1d, remind: gp_ping }
      - { after: 3d, clock: real, hand_to: sorties }
keywords:
  chute: [chute, "tomb(é|ée)s?"]
"""
RULES = """\
rules:
  - id: tests
    when: { identity: test }
    hold: sorties
    reason: "Patient de test"
  - id: sortie
    when: { event: [discharge, er_visit], age: { gte: 18 }, unless: { document: addendum } }
    send: [gp, gp_ping]
    followup: standard
  - id: autres
    when: { event: [admission, other] }
    file: "Gardé avec le séjour"
also:
  - id: copie
    when: { event: discharge, mentions: chute }
    copy: pharma
"""
DEFAULT = 'default: { hold: sorties, reason: "Aucune règle" }\n'
WHOLE = HEAD + RULES + DEFAULT
SITE = Site(
    adapters={"mss": "smtp", "telegram": "telegram", "matrix": "matrix", "cardio": "imap"},
    desks={"sorties": "document"},
    rotas=frozenset({"garde"}),
    wards=frozenset({"Cardiologie", "cardiologie"}),
)


def good(text: str, site: Site | None = None) -> RuleSet:
    rules, findings = load(text, "routes.yaml", site)
    assert rules is not None, "\n".join(f.text() for f in findings)
    return rules


def changed(old: str, new: str, text: str = WHOLE) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)


def findings_of(text: str, site: Site | None = None, lang: str = "fr") -> tuple[Finding, ...]:
    return load(text, "routes.yaml", site, lang)[1]


def only(text: str, site: Site | None = None, lang: str = "fr") -> Finding:
    found = findings_of(text, site, lang)
    assert len(found) == 1, [f.text() for f in found]
    return found[0]


def at(text: str, mark: str, times: int = 1) -> tuple[int, int]:
    """Line and column of the nth place where `mark` stands."""
    offset = -1
    for _ in range(times):
        offset = text.index(mark, offset + 1)
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def test_a_good_file_becomes_an_immutable_rule_set():
    rules = good(WHOLE)
    assert [r.id for r in rules.rules] == ["tests", "sortie", "autres"]
    assert rules.rules[1].targets == ("gp", "gp_ping")
    assert rules.followups["standard"].ladder[0].clock == "cabinet"
    assert rules.followups["standard"].ladder[1].clock == "real"
    assert rules.followups["standard"].close_quiet_for == Duration(2, "d")
    assert rules.targets["sorties"].desk == "sorties"
    assert rules.targets["garde"].rota == "garde"
    assert rules.default.hold == "sorties"
    with pytest.raises(AttributeError):
        rules.version = 2  # type: ignore[misc]


def test_the_digest_tells_texts_apart_and_nothing_else_does():
    assert good(WHOLE).digest == good(WHOLE).digest
    assert good(WHOLE).digest != good(WHOLE + "# un commentaire\n").digest


def test_a_file_with_a_byte_order_mark_loads_and_its_first_line_keeps_its_columns():
    assert good("\ufeff" + WHOLE)
    assert good(b"\xef\xbb\xbf" + WHOLE.encode())
    finding = only("\ufeff" + changed("version: 1", "version: 7"))
    assert (finding.code, finding.line, finding.column) == ("E108", 1, 10)
    # What is kept of it is the same set when it is read again.
    for text in ("\ufeff" + WHOLE, ("\ufeff" + WHOLE).replace("\n", "\r\n"), WHOLE):
        once = good(text.encode())
        assert good(once.text).digest == once.digest


MISTAKES = [
    # what is changed, into what, code, the mark the caret stands under, words of the message
    ("age: { gte: 18 }", "aeg: { gte: 18 }", "E101", "aeg", "Vouliez-vous dire « age » ?"),
    ("identity: test", "identity: testt", "E102", "testt", "Vouliez-vous dire « test » ?"),
    ("identity: test", "identity: unknown", "E102", "unknown", "est retenu"),
    ("identity: test", "signed: oui", "E102", "oui", "yes, no"),
    ("identity: test", "age: vieux", "E102", "vieux", "n'est pas un nombre"),
    ("identity: test", "identity: { gte: 3 }", "E104", "{ gte: 3", "une valeur ou une liste"),
    ("identity: test", "identity: []", "E104", "[]", "liste vide"),
    ("identity: test", 'sender: { matches: "(" }', "E113", '"("', "RE2"),
    ("identity: test", 'sender: { matches: "(?=a)" }', "E113", '"(?=a)"', "RE2"),
    ("identity: test", "during: matin", "E110", "matin", "cabinet, nuit"),
    ("identity: test", "mentions: chutes", "E110", "chutes", "Vouliez-vous dire « chute » ?"),
    ("identity: test", "any: []", "E104", "[]", "liste de conditions"),
    ("identity: test", "any: [ { identity: test }, { } ]", "E109", "{ } ]", "vide"),
    ("identity: test", "any: [ { any: [ { identity: test } ] } ]", "E101", "any: [ { id", "un seul niveau"),
    ("{ identity: test }", "{ }", "E109", "when: { }", "prendrait tout"),
    ("    when: { identity: test }\n", "", "E109", "id: tests", "prendrait tout"),
    ("[gp, gp_ping]", "[medecin]", "E110", "medecin", "Cibles : gp, gp_ping, garde, sorties, pharma."),
    ("remind: gp_ping", "remind: ping", "E110", "ping }", "Cibles"),
    ("followup: standard", "followup: standar", "E110", "standar", "Vouliez-vous dire « standard » ?"),
    ("    followup: standard\n", "", "E103", "send: [gp", "il manque `followup`"),
    ("hold: sorties\n", "hold: gp\n", "E111", "gp\n    reason", "qu'un bureau"),
    ('    reason: "Patient de test"\n', "", "E103", "hold: sorties\n", "il manque `reason`"),
    ("hold: sorties,", "hold: gp,", "E111", "gp, reason", "qu'un bureau"),
    (DEFAULT, "", "E103", "version", "il manque `default`"),
    ("hold: sorties, reason", "send: gp, reason", "E101", "send: gp, r", "default"),
    ("version: 1", "version: 2", "E108", "2\n", "version"),
    ("version: 1\n", "", "E103", "timezone", "il manque `version`"),
    ("Europe/Paris", "Europe/Pari", "E102", "Europe/Pari", "Vouliez-vous dire « Europe/Paris » ?"),
    ("subdiv: Moselle", "subdiv: Mosele", "E102", "Mosele", "Vouliez-vous dire « Moselle » ?"),
    ("subdiv: Moselle", 'subdiv: "45"', "W301", '"45"', "ne change aucun jour férié"),
    ("country: FR", "country: F", "E102", "F,", "country"),
    (
        "via: [telegram, matrix], carries: pointer",
        "via: [mss, matrix], carries: document",
        "E120",
        "gp_ping",
        "par Matrix",
    ),
    (
        "via: [telegram, matrix], carries: pointer",
        "via: [telegram], carries: notice",
        "E120",
        "gp_ping",
        "Telegram",
    ),
    (", basis: care_team", "", "E143", "pharma", "précisez `basis`"),
    ("basis: care_team", "basis: parce_que", "E102", "parce_que", "care_team, consent"),
    ("who: pharmacist", "who: pharmacien", "E102", "pharmacien", "Vouliez-vous dire « pharmacist » ?"),
    ("quiet: nuit", "quiet: nuits", "E110", "nuits", "Vouliez-vous dire « nuit » ?"),
    (", carries: pointer, quiet", ", quiet", "E103", "gp_ping", "il manque `carries`"),
    ('"13:30-19:00"', '"12:00-19:00"', "E130", '"12:00', "chevauchent"),
    ('"20:00-08:00"', '"20:00-08:00", "07:00-09:00"', "E130", '"07:00', "chevauchent"),
    ('"20:00-08:00"', '"20h-8h"', "E131", '"20h', "illisible"),
    ('every-day: ["20:00-08:00"]', "holidays: closed", "E131", "nuit:", "n'ouvre jamais"),
    ("mon-fri", "lun-ven", "E101", "lun-ven", "mon-fri"),
    ("holidays: closed", "holidays: fermé", "E102", "fermé", "as-sunday"),
    ("hand_to: sorties", "remind: gp", "E140", "standard:", "la dernière étape"),
    ("hand_to: sorties", "hand_to: gp", "E140", "standard:", "la dernière étape"),
    (
        "{ after: 1d, remind: gp_ping }",
        "{ after: 1d }",
        "E112",
        "{ after: 1d",
        "soit `remind`, soit `hand_to`",
    ),
    ("{ after: 1d, remind: gp_ping }", "{ after: 1d, hand_to: gp }", "E111", "gp }", "qu'un bureau"),
    ("after: 1d", "after: 1j", "E104", "1j", "durée"),
    ("after: 1d", "after: 4d, clock: real", "W306", "3d, clock", "étape"),
    ("within: 2d", "within: 99999999999d", "E104", "99999", "durée"),
    ("clock: cabinet", "clock: cabine", "E110", "cabine", "real, cabinet, nuit"),
    ("    ladder:", "    ack_expires: 1d\n    ladder:", "E141", "ack_expires", "rouvrirait"),
    ("[admission, other]", "[admission, death]", "E142", "id: autres", "sans suite"),
    ("event: [admission, other]", "document: other", "E142", "id: autres", "sans suite"),
    ("id: autres", "id: sortie", "E203", "id: sortie\n    when: { event: [ad", "déjà utilisé l.27"),
    ("id: copie", "id: sortie", "E203", "id: sortie\n    when: { event: disch", "déjà utilisé l.27"),
    ("id: autres", "id: autres documents", "E104", "autres documents", "un seul mot"),
    ("id: autres", "id: default", "E102", "default\n", "mot du langage"),
    ("  - id: autres\n    when", "  - when", "E103", "when: { event: [ad", "il manque `id`"),
    ('file: "Gardé avec le séjour"', 'drop: "non"', "E101", "drop", "une règle"),
    ('    file: "Gardé avec le séjour"\n', "", "E112", "id: autres", "exactement une action"),
    (
        '    file: "Gardé',
        '    hold: sorties\n    reason: x\n    file: "Gardé',
        "E112",
        "file:",
        "exactement une action",
    ),
    ("    file:", "    grace: 5m\n    file:", "E112", "grace", "ne va qu'avec `send`"),
    ("    followup: standard", "    followup: standard\n    mode: of", "E102", "of\n", "on, observe, off"),
    ("    followup: standard", "    followup: standard\n    from: 2026-02-30", "E104", "2026-02-30", "date"),
    (
        "    followup: standard",
        "    followup: standard\n    from: 2026-03-02\n    until: 2026-03-01",
        "E104",
        "2026-03-01",
        "avant",
    ),
    ("    copy: pharma\n", "", "E103", "id: copie", "il manque `copy`"),
    ("copy: pharma", "copy: pharmacie", "E110", "pharmacie", "Vouliez-vous dire « pharma » ?"),
    ('"tomb(é|ée)s?"', '"tomb(é"', "E113", '"tomb', "RE2"),
]


@pytest.mark.parametrize(("old", "new", "code", "mark", "words"), MISTAKES, ids=lambda value: str(value)[:40])
def test_each_mistake_is_found_alone_at_its_place(old, new, code, mark, words):
    text = WHOLE.replace(old, new, 1)
    finding = only(text)
    assert finding.code == code
    assert words in f"{finding.message} {finding.fix}"
    places = {at(text, mark, n) for n in range(1, text.count(mark) + 1)}
    assert (finding.line, finding.column) in places
    assert finding.fix
    assert finding.severity == ("warning" if code.startswith("W") else "error")
    assert (load(text, "routes.yaml")[0] is None) == (finding.severity == "error")


@pytest.mark.parametrize(("old", "new", "code", "mark", "words"), MISTAKES, ids=lambda value: str(value)[:40])
def test_each_mistake_is_told_in_english_too(old, new, code, mark, words):
    text = WHOLE.replace(old, new, 1)
    french, english = only(text), only(text, lang="en")
    assert (english.code, english.line, english.column) == (french.code, french.line, french.column)
    assert english.message != french.message
    assert english.fix != french.fix or "`" in english.fix
    assert not set("«»") & set(english.message + english.fix)


HOSTILE = [
    ("gp: { who", "gp: &gp { who", "E106", "&gp", "ancre"),
    ("carries: pointer, quiet: nuit", "carries: *gp", "E106", "*gp", "alias"),
    ("gp: { who", "gp: { <<: { via: mss }, who", "E106", "<<", "fusion"),
    ("version: 1", "version: !!int 1", "E106", "!!int", "type"),
    ("version: 1", "version: ! 1", "E106", "! 1", "type"),
    ("version: 1\n", "%YAML 1.1\n---\nversion: 1\n", "E106", "%YAML", "directive"),
    ("rules:\n", "---\nrules:\n", "E106", "---", "second document"),
    ("  garde:", "  gp:", "E107", "gp: { who: rota", "déjà écrite l.8"),
    ("identity: test", "identity: test, identity: doubtful", "E107", "identity: d", "déjà écrite"),
    ("    followup: standard", "\tfollowup: standard", "E105", "\tfollowup", "tabulation"),
    ("Patient de test", "Patient\u202e de test", "E105", "\u202e", "U+202E"),
    ("Patient de test", "Patient\x00 de test", "E105", "\x00", "U+0000"),
    ("Patient de test", "Patient\u2028 de test", "E105", "\u2028", "U+2028"),
    ("[gp, gp_ping]", "[gp, gp_ping", "E105", "", "YAML illisible"),
    ("[gp, gp_ping]", "{ [gp]: 1 }", "E104", "[gp]", "une clé doit être un mot"),
    ("[gp, gp_ping]", "[" * 60 + "]" * 60, "E105", "", "imbrication"),
]


@pytest.mark.parametrize(("old", "new", "code", "mark", "words"), HOSTILE, ids=lambda value: repr(value)[:40])
def test_yaml_that_hides_something_is_refused_at_its_place(old, new, code, mark, words):
    text = WHOLE.replace(old, new, 1)
    finding = findings_of(text)[0]
    assert load(text, "routes.yaml")[0] is None
    assert finding.code == code
    assert words in f"{finding.message} {finding.fix}"
    if mark:
        assert (finding.line, finding.column) == at(text, mark)


def test_a_billion_laughs_is_refused_at_once():
    laughs = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    started = time.monotonic()
    found = findings_of(laughs)
    assert {f.code for f in found} == {"E106"}
    assert (found[0].line, found[0].column) == (1, 4)
    assert time.monotonic() - started < 1


def test_a_file_over_one_megabyte_is_refused_without_being_read():
    assert only("#" * 1_000_001).code == "E105"
    assert only(b"#" * 1_000_001).code == "E105"
    assert good(WHOLE + "#" * (1_000_000 - len(WHOLE.encode())))


def test_a_file_that_is_not_utf8_is_told_where():
    raw = WHOLE.encode("latin-1")
    finding = load(raw, "routes.yaml")[1][0]
    assert (finding.line, finding.column) == at(WHOLE, "é|ée")
    assert "UTF-8" in finding.message


@pytest.mark.parametrize(
    "text", ["", "# rien\n", "null", "[]", "a", "- 1", "1: 2", "{", "\ufeff", "? a\n: b", "\ud800"]
)
def test_a_file_that_is_no_rule_file_is_refused_and_never_crashes(text):
    rules, findings = load(text, "routes.yaml")
    assert rules is None
    assert findings[0].severity == "error"


def test_a_mark_at_the_start_does_not_shift_where_a_bad_byte_is():
    (finding,) = [f for f in load(b"\xef\xbb\xbfab\xff", "routes.yaml")[1] if f.code == "E105"]
    assert (finding.line, finding.column) == (1, 3)


def test_the_traps_of_yaml_1_1_do_not_bite():
    text = changed(
        "identity: test", 'department: [01, "2A", 0123], unit: 17:00, cpts: no, code: 1e3, signed: no'
    )
    tests = {t.field: t.values for t in good(text).rules[0].when.tests}
    assert tests["department"] == {"01", "2a", "0123"}
    assert tests["unit"] == {"17:00"}
    assert tests["cpts"] == {"no"}
    assert tests["code"] == {"1e3"}
    assert tests["signed"] == {False}
    on = changed("copy: pharma", "copy: pharma\n    mode: on")
    assert good(on).also[0].mode == "on"


def test_every_mistake_of_a_file_is_told_at_once_however_many_there_are():
    many = "".join(f"  - id: r{n}\n    when: {{ evnt: x }}\n    hold: nobody\n" for n in range(3000))
    findings = findings_of(HEAD + "rules:\n" + many + DEFAULT)
    assert [f.code for f in findings] == ["E101", "E103", "E110"] * 3000
    assert all("« event »" in f.message for f in findings if f.code == "E101")
    assert findings[-1].line == HEAD.count("\n") + 1 + 3 * 3000
    assert findings[-1].source_line == "    hold: nobody"


def rules_with(mistakes: int) -> str:
    rule = "  - {{ id: r{}, when: {{ event: death }}, send: [x], followup: none }}\n"
    return HEAD + "rules:\n" + "".join(rule.format(n) for n in range(mistakes)) + DEFAULT


@pytest.mark.parametrize("lang", ["fr", "en"])
def test_beyond_ten_thousand_findings_the_last_says_that_there_are_more(lang):
    at_most = findings_of(rules_with(MAX_FINDINGS), lang=lang)
    assert len(at_most) == MAX_FINDINGS
    assert {f.code for f in at_most} == {"E110"}
    *told, last = findings_of(rules_with(MAX_FINDINGS + 1), lang=lang)
    assert tuple(told) == at_most
    assert (last.code, last.severity) == ("E114", "error")
    assert ("ne sont pas montrées" if lang == "fr" else "not shown") in last.message
    assert last.line == told[-1].line + 1


def test_an_error_behind_ten_thousand_warnings_still_keeps_the_file_from_being_put_in_force():
    ways = ", ".join(f"v{n}" for n in range(MAX_FINDINGS + 5))
    warned = WHOLE.replace("via: [mss]", f"via: [mss, {ways}]", 1)
    rules, findings = load(warned, "routes.yaml", SITE)
    assert rules is not None
    assert [f.code for f in findings[MAX_FINDINGS:]] == ["W307"]
    rules, findings = load(warned.replace("identity: test", "identity: tst"), "routes.yaml", SITE)
    assert rules is None
    assert [f.code for f in findings[MAX_FINDINGS:]] == ["E114"]


def test_several_mistakes_are_all_told_in_the_order_of_the_file():
    text = changed("[gp, gp_ping]", "[medecin]", changed("identity: test", "identity: tst"))
    found = findings_of(text)
    assert [f.code for f in found] == ["E102", "E110"]
    assert found[0].line < found[1].line


def test_a_finding_shows_its_line_a_caret_under_the_place_and_one_fix():
    finding = only(changed("[gp, gp_ping]", "[medecin]"))
    first, line, caret, fix = finding.text().split("\n")
    assert first.startswith(
        f"routes.yaml:{finding.line}:{finding.column} E110 cible « medecin » non définie."
    )
    assert line.index("medecin") == caret.index("^")
    assert fix.strip().startswith("Correction :")
    english = only(changed("[gp, gp_ping]", "[medecin]"), lang="en")
    assert "“medecin” is not defined" in english.text("en")
    assert "Fix:" in english.text("en")


def test_a_finding_as_json_has_the_keys_of_the_contract():
    finding = only(changed("[gp, gp_ping]", "[medecin]"))
    assert set(finding.as_json()) == {"code", "severity", "file", "line", "column", "message", "fix"}


def test_an_error_raised_with_findings_says_the_first_error_line():
    findings = findings_of(changed("[gp, gp_ping]", "[medecin]"))
    assert str(RulesError(findings)).startswith("routes.yaml:")
    assert "E110" in str(RulesError(findings))


# -- with a configuration


def test_with_its_configuration_a_good_file_has_no_finding():
    assert load(WHOLE, "routes.yaml", SITE)[1] == ()


@pytest.mark.parametrize(
    ("old", "new", "code", "mark"),
    [
        ("desk/sorties", "desk/sortie", "E110", "desk/sortie"),
        ("rota/garde", "rota/gardes", "E110", "rota/gardes"),
        ("identity: test", "ward: cardio", "E102", "cardio"),
        ("identity: test", "mailbox: cardi", "E102", "cardi"),
        (
            "via: [mss], carries: document }\n  gp_ping",
            "via: [mailing], carries: document }\n  gp_ping",
            "W305",
            "mailing",
        ),
        (
            "via: [mss], carries: document }\n  gp_ping",
            "via: [cardio], carries: document }\n  gp_ping",
            "W305",
            "cardio",
        ),
    ],
)
def test_names_the_configuration_lacks_are_told_and_only_with_a_configuration(old, new, code, mark):
    text = changed(old, new)
    found = [f for f in findings_of(text, SITE) if f.code == code]
    assert [(f.line, f.column) for f in found] == [at(text, mark)]
    assert findings_of(text) == ()


def test_a_ward_may_be_named_or_by_its_slug_in_any_case():
    assert good(changed("identity: test", "ward: [Cardiologie, CARDIOLOGIE]"), SITE)


def test_an_adapter_named_otherwise_is_a_chat_when_the_configuration_says_so():
    text = changed(
        "via: [mss], carries: document }\n  gp_ping", "via: [salon], carries: document }\n  gp_ping"
    )
    site = Site(adapters={"salon": "matrix", "mss": "smtp"}, desks=SITE.desks, rotas=SITE.rotas)
    assert "E120" in {f.code for f in findings_of(text, site)}
    assert findings_of(text) == ()


def test_a_chat_that_the_configuration_lacks_still_carries_no_document():
    text = changed(
        "via: [mss], carries: document }\n  gp_ping", "via: [webchat], carries: document }\n  gp_ping"
    )
    assert {"E120", "W305"} <= {f.code for f in findings_of(text, SITE)}


def test_a_desk_that_sees_only_references_gets_a_pointer_whatever_the_file_says():
    site = Site(adapters=SITE.adapters, desks={"sorties": "reference"}, rotas=SITE.rotas)
    assert good(WHOLE, site).targets["sorties"].carries == "pointer"
    assert good(WHOLE, SITE).targets["sorties"].carries == "document"
    notice = changed(
        "who: desk/sorties, via: [mss], carries: document", "who: desk/sorties, via: [mss], carries: notice"
    )
    assert good(notice, site).targets["sorties"].carries == "pointer"
    assert good(notice, SITE).targets["sorties"].carries == "notice"


# -- details that load


@pytest.mark.parametrize(
    "new",
    [
        "event: [discharge, other], unless: { event: discharge }",
        "any: [ { event: admission }, { event: other, age: 3 } ]",
        "all: [ { event: [discharge, other] }, { event: [other, birth] } ]",
        "unless: { event: [discharge, er_visit, death] }",
    ],
)
def test_a_file_action_is_taken_when_its_own_condition_excludes_discharges(new):
    assert good(changed("event: [admission, other]", new))


@pytest.mark.parametrize(
    "new",
    [
        "any: [ { event: admission }, { age: 3 } ]",
        "unless: { event: discharge }",
        "unless: { event: [discharge, er_visit, death], age: 3 }",
        "all: [ { event: [discharge, other] }, { age: 3 } ]",
    ],
)
def test_a_file_action_is_refused_when_a_discharge_could_slip_through_its_condition(new):
    assert only(changed("event: [admission, other]", new)).code == "E142"


def test_an_acknowledgement_may_expire_after_the_thread_would_close():
    text = changed(
        "    ladder:", "    ack_expires: 9d\n    close: { when: acknowledged, quiet_for: 1d }\n    ladder:"
    )
    assert good(text).followups["standard"].ack_expires == Duration(9, "d")
    text = changed("    ladder:", "    ack_expires: 3d\n    close: { quiet_for: 9d }\n    ladder:")
    assert only(text).code == "E141"


def test_hours_take_exceptions_by_date_and_by_period():
    text = changed(
        "holidays: closed }",
        'holidays: closed, 2026-12-24: ["08:00-12:00"], exceptions: { 2026-08-01..2026-08-15: closed } }',
    )
    special = good(text).hours["cabinet"].exceptions
    assert len(special) == 16
    assert (
        only(changed("holidays: closed }", "exceptions: { 2026-08-15..2026-08-01: closed } }")).code == "E104"
    )


def test_an_expiry_at_the_very_moment_of_closing_re_opens_as_well():
    text = changed("    ladder:", "    ack_expires: 2d\n    close: { quiet_for: 2d }\n    ladder:")
    assert only(text).code == "E141"


def test_windows_overlap_from_sunday_night_into_monday_morning_too():
    text = changed('every-day: ["20:00-08:00"]', 'sun: ["20:00-08:00"], mon: ["07:00-09:00"]')
    assert only(text).code == "E130"
    assert good(changed('every-day: ["20:00-08:00"]', 'sun: ["20:00-08:00"], mon: ["08:00-09:00"]'))


def test_a_pattern_longer_than_a_thousand_characters_is_refused():
    pattern = "sender: {{ matches: {} }}".format
    assert only(changed("identity: test", pattern("a" * 1001))).code == "E113"
    assert good(changed("identity: test", pattern("a" * 1000)))


def test_a_former_id_still_finds_its_rule():
    rules = good(changed("    send: [gp, gp_ping]", "    was: [depart, exit]\n    send: [gp, gp_ping]"))
    found = rules.rule("depart")
    assert found is not None
    assert found.id == "sortie"
    assert rules.rule("nobody") is None


def test_explaining_runs_on_a_file_whose_only_errors_are_among_its_rules():
    twice = changed("id: autres", "id: sortie")
    assert load(twice, "routes.yaml")[0] is None
    assert load(twice, "routes.yaml", explaining=True)[0] is not None
    assert load(changed("[gp, gp_ping]", "[x]", twice), "routes.yaml", explaining=True)[0] is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Patient hospitalisé après une CHUTE à domicile.", True),
        ("Elle est tombée.", True),
        ("TOMBÉE", True),
        ("Le parachute", False),
        ("chuté", True),
        ("chutes", False),
        ("", False),
    ],
)
def test_keyword_groups_are_found_as_whole_words_without_accents_or_by_pattern(text, found):
    assert mentioned(good(WHOLE), text) == (frozenset({"chute"}) if found else frozenset())


# -- the sets that come with the program


SHIPPED = ("standard", "cautious", "cpts", "demo")


@pytest.mark.parametrize("name", SHIPPED)
def test_each_set_that_comes_along_loads_and_passes_its_tests_with_every_rule_covered(name):
    path = SETS / f"{name}.yaml"
    adapters = {"mss": "smtp", "telegram": "telegram", "matrix": "matrix", "webchat": "webchat"}
    site = Site(adapters=adapters, desks={"sorties": "document", "cpts": "reference"})
    rules, findings = load(path.read_text(), path.name, site)
    assert findings == ()
    assert rules is not None
    beside = cases.tests_beside(str(path))
    text = Path(beside).read_text()
    outcome = cases.run(rules, text, beside)
    assert outcome.findings == ()
    assert outcome.ok
    assert "coverage: every-rule" in text


@pytest.mark.parametrize("name", SHIPPED)
def test_each_set_that_comes_along_can_be_read_by_somebody_who_is_no_programmer(name):
    text = (SETS / f"{name}.yaml").read_text()
    rules = good(text)
    reasons = [entry.reason for entry in rules.rules if entry.action != "send"] + [rules.default.reason]
    for reason in reasons:
        assert reason[0].isupper()
        assert 15 < len(reason) < 90
        assert not set("`_{}<>") & set(reason)
    lines = text.splitlines()
    assert sum(line.lstrip().startswith("#") for line in lines) >= 3
    assert max(map(len, lines)) <= 125


@pytest.mark.parametrize("name", SHIPPED)
def test_each_set_that_comes_along_holds_whatever_is_doubtful_and_never_files_a_discharge(name):
    rules = good((SETS / f"{name}.yaml").read_text())
    at = datetime(2026, 12, 4, 10, tzinfo=UTC)
    for event in FIELDS["event"].values:
        for doubt in (
            {"identity": "doubtful"},
            {"consent": "opposed"},
            {"identity": UNKNOWN},
            {"consent": UNKNOWN},
        ):
            decision = decide(rules, {"event": event, "identity": "qualified", "gp": "found", **doubt}, at)
            assert decision.action == "hold"
            assert decision.copies == ()
    for event in NEEDS_SOMEBODY:
        for gp in FIELDS["gp"].values:
            decision = decide(rules, {"event": event, "identity": "qualified", "gp": gp}, at)
            assert decision.action in (("send", "hold") if gp == "found" else ("hold",))


def test_the_cautious_set_sends_nothing_that_is_not_certain_and_leaves_five_minutes():
    rules = good((SETS / "cautious.yaml").read_text())
    assert {str(r.grace) for r in rules.rules if r.action == "send"} == {"5m"}
    at = datetime(2026, 12, 4, 10, tzinfo=UTC)
    certain: dict[str, FactValue] = {"event": "discharge", "identity": "qualified", "gp": "found"}
    assert decide(rules, certain, at).action == "send"
    for doubt in (
        {"identity": "provisional"},
        {"gp_source": "notice"},
        {"gp_away": True},
        {"gp_away": UNKNOWN},
        {"gp": UNKNOWN},
        {"late_hours": 200},
        {"late_hours": UNKNOWN},
        {"event": "other"},
        {"event": "death"},
        {"urgency": UNKNOWN},
    ):
        assert decide(rules, {**certain, **doubt}, at).action == "hold", doubt


def test_the_standard_set_only_warns_a_site_that_has_mail_and_nothing_else():
    site = Site(adapters={"mss": "smtp"}, desks={"sorties": "document"})
    rules, findings = load((SETS / "standard.yaml").read_text(), "standard.yaml", site)
    assert rules is not None
    assert {f.code for f in findings} == {"W305"}


def test_a_desk_the_configuration_lacks_is_told_once_and_not_at_each_hold():
    text = changed("desk/sorties", "desk/sortie")
    assert [f.code for f in findings_of(text, SITE)] == ["E110"]


PIECES = st.sampled_from(
    [
        "{",
        "}",
        "[",
        "]",
        ": ",
        "- ",
        "\n",
        "  ",
        "\t",
        '"',
        "'",
        "|\n",
        ">\n",
        "#",
        "&a ",
        "*a",
        "!!x ",
        "? ",
        "%",
        "\x00",
        "é",
    ]
)


@settings(max_examples=many(300), deadline=None)
@given(st.integers(0, len(WHOLE)), st.integers(0, 40), st.lists(PIECES, max_size=4))
def test_however_a_file_is_damaged_reading_it_ends_in_rules_or_in_errors_at_places_that_exist(
    start, cut, pieces
):
    text = WHOLE[:start] + "".join(pieces) + WHOLE[start + cut :]
    rules, findings = load(text, "routes.yaml", SITE)
    assert (rules is None) == any(f.severity == "error" for f in findings)
    lines = text.split("\n")
    for finding in findings:
        assert 1 <= finding.line <= len(lines)
        assert 1 <= finding.column <= len(lines[finding.line - 1]) + 1
        assert finding.message
        assert finding.fix


@settings(max_examples=many(200), deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200)))
def test_any_bytes_and_any_text_are_refused_without_a_crash(raw):
    rules, findings = load(raw, "routes.yaml")
    assert rules is None
    assert findings


def test_a_file_that_stops_in_the_middle_of_something_is_told_on_its_last_line() -> None:
    text = "version: 1\nhours: { nuit: [\n"
    rules, (finding, *_) = load(text, "routes.yaml")
    assert rules is None
    assert finding.line <= len(text.splitlines())
    assert finding.source_line
