"""The JSON Schema for editors: what it lets pass, what it refuses, and that it says what the reader does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from jsonschema import Draft7Validator

from rules import cases, conditions, reading, schema
from rules.language import FIELDS, Site, load
from rules.schema import Names, names_in
from rules.source import Listing, Node, Table, as_text, compose
from tests.test_rules import DEFAULT, HEAD, MISTAKES, SETS, SHIPPED, SITE, WHOLE, changed

NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]*)(\.[0-9]*)?([eE][-+]?[0-9]+)?|0[0-9]+")


def as_an_editor_sees(text: str) -> object:
    """The file in YAML 1.2's core schema, which editors apply: only true, false, null and numbers are no text."""

    def value(node: Node) -> object:
        if isinstance(node, Table):
            return {key.text: value(each) for key, each in node.entries}
        if isinstance(node, Listing):
            return [value(each) for each in node.items]
        if not node.plain:
            return node.text
        if node.empty:
            return None
        if node.text in ("true", "false"):
            return node.text == "true"
        return (
            float(node.text)
            if "." in node.text and NUMBER.fullmatch(node.text)
            else (int(node.text) if re.fullmatch(r"[-+]?[0-9]+", node.text) else node.text)
        )

    root = compose(*as_text(text, "routes.yaml"))
    assert root is not None
    return value(root)


def refusals(text: str, document: schema.Json | None = None) -> list[str]:
    validator = Draft7Validator(schema.schema() if document is None else document)
    seen = as_an_editor_sees(text)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(seen)]


def filled(text: str = WHOLE, site: Site = SITE) -> schema.Json:
    return schema.schema(site, names_in(text))


@pytest.mark.parametrize("name", SHIPPED)
def test_each_set_that_comes_along_fits_the_schema_open_and_filled(name):
    text = (SETS / f"{name}.yaml").read_text()
    assert text.startswith(schema.EDITOR_LINE.format(schema.FILE_NAME) + "\n")
    assert refusals(text) == []
    assert refusals(text, schema.schema(None, names_in(text))) == []
    tests = (SETS / f"{name}.test.yaml").read_text()
    assert tests.startswith(schema.EDITOR_LINE.format(schema.TESTS_FILE_NAME) + "\n")
    assert refusals(tests, schema.schema_of_tests()) == []
    assert refusals(tests, schema.schema_of_tests(None, names_in(text))) == []


@pytest.mark.parametrize(
    ("name", "document"),
    [(schema.FILE_NAME, schema.schema()), (schema.TESTS_FILE_NAME, schema.schema_of_tests())],
)
def test_the_schemas_beside_the_sets_are_those_the_code_generates(name, document):
    beside = SETS / name
    assert beside.read_text(encoding="utf-8") == schema.as_file(document), (
        f"run outside a site's folder: relay rules schema [--tests] > rules/sets/{name}"
    )


def test_the_schema_is_a_sound_draft_7_and_never_says_any_of():
    tests = (schema.schema_of_tests(), schema.schema_of_tests(SITE, names_in(WHOLE)))
    for document in (schema.schema(), filled(), *tests):
        Draft7Validator.check_schema(document)
        text = schema.as_file(document)
        assert "anyOf" not in text
        assert "oneOf" not in text
        used = set(re.findall(r"#/definitions/(\w+)", text))
        assert used == set(document.get("definitions", ()))  # type: ignore[call-overload]


def properties(document: schema.Json, *path: str) -> dict[str, dict[str, object]]:
    place: object = document
    for step in path:
        assert isinstance(place, dict)
        place = place[step]
    assert isinstance(place, dict)
    return place["properties"]  # type: ignore[no-any-return]


def test_the_schema_knows_the_keys_that_the_reader_knows_and_no_other():
    document = schema.schema()
    assert set(properties(document)) == set(reading.SECTIONS)
    assert set(properties(document, "definitions", "when")) == {*FIELDS, "during", *conditions.NESTED}
    assert set(properties(document, "definitions", "conditions")) == {*FIELDS, "during"}
    assert set(properties(document, "definitions", "rule")) == set(reading.RULE_KEYS)
    assert set(properties(document, "definitions", "copy")) == set(reading.COPY_KEYS)
    assert set(properties(document, "definitions", "target")) == set(reading.TARGET_KEYS)
    assert set(properties(document, "definitions", "followup")) == set(reading.FOLLOWUP_KEYS)
    assert set(properties(document, "definitions", "step")) == set(reading.STEP_KEYS)
    assert set(properties(document, "definitions", "hours")) == set(reading.HOURS_KEYS)


def test_each_key_an_editor_offers_comes_with_words_in_french():
    document = schema.schema()
    definitions = document["definitions"]
    assert isinstance(definitions, dict)
    for where in ((), *(("definitions", name) for name in definitions)):
        place = document if not where else definitions[where[1]]
        for name, each in (place.get("properties") or {}).items():
            target = definitions[each["$ref"].rpartition("/")[2]] if "$ref" in each else each
            assert len(target.get("description", "")) > 8, (where, name)
    for field in FIELDS.values():
        if field.name in ("event", "identity", "gp", "consent", "document"):
            words = definitions[f"fact_{field.name}"]["description"]
            assert all(value in words for value in field.values), field.name


# What only the reader can tell, because a schema sees no order, no sum, no long list and no other place.
BEYOND = {"E111", "E113", "E130", "E141", "E142", "E203", "W301", "W306"}
BEYOND_TOO = (
    "Europe/Pari",
    "subdiv: Mosele",
    "country: F",
    "2026-02-30",
    "until: 2026-03-01",
    "every-day: [",
)


@pytest.mark.parametrize(
    ("old", "new", "code", "mark", "words"),
    [case for case in MISTAKES if case[2] not in BEYOND],
    ids=lambda value: str(value)[:40],
)
def test_what_the_reader_refuses_the_filled_schema_refuses_too_as_far_as_a_schema_can(
    old, new, code, mark, words
):
    text = WHOLE.replace(old, new, 1)
    if any(each in f"{old} {new}" for each in BEYOND_TOO) or "hand_to: sorties" in old:
        return
    assert refusals(text, filled(text)), "an editor would show nothing here"


GOOD = [
    ("identity: test", "identity: [test, doubtful]"),
    ("identity: test", "identity: test, signed: yes, gp_away: false, registered: [yes, no]"),
    ("identity: test", 'department: [01, "2A", 0123], unit: 17:00, cpts: no, code: 1e3'),
    ("identity: test", 'age: [3, 75], stay_days: { gt: 2, lte: 9.5 }, late_hours: "12"'),
    ("identity: test", 'sender: { matches: "@chr" }, ward: { matches: "^card" }'),
    ("identity: test", "during: nuit, any: [ { identity: test }, { age: { gte: 3 }, during: cabinet } ]"),
    ("identity: test", "all: [ { identity: test } ], unless: { document: addendum }"),
    ("    followup: standard", "    followup: none\n    mode: on\n    grace: 5m\n    if_unknown: skip"),
    ("    followup: standard", "    followup: standard\n    from: 2026-03-01\n    until: 2026-03-02"),
    ("[gp, gp_ping]\n", "gp\n    was: [avant, jadis]\n"),
    ("holidays: closed }", "2026-12-24: closed, exceptions: { 2026-08-01..2026-08-15: closed } }"),
    ("mon-fri:", "sat-sun: closed, fri-mon: closed, tue-thu:"),
    ('every-day: ["20:00-08:00"]', 'every-day: "20:00 - 24:00", sun: closed'),
    ("    ladder:", "    ack_expires: 9d\n    close: { when: acknowledged, quiet_for: 1d }\n    ladder:"),
    ("via: [mss], carries: document, basis", "via: mss, carries: document, basis"),
    ('chute: [chute, "tomb(é|ée)s?"]', 'chute: chute\n  x: [ { matches: "a+" }, 12 ]'),
    ('reason: "Aucune règle"', "reason: 12"),
    (', reason: "Aucune règle"', ""),
    ("version: 1", 'version: "1"'),
    ("subdiv: Moselle", "subdiv: 67"),
    (", subdiv: Moselle", ""),
]


@pytest.mark.parametrize(("old", "new"), GOOD, ids=lambda value: str(value)[:40])
def test_what_the_reader_takes_the_schema_takes_too(old, new):
    text = changed(old, new) if WHOLE.count(old) == 1 else WHOLE.replace(old, new, 1)
    rules, findings = load(text, "routes.yaml", SITE)
    assert rules is not None, [f.text() for f in findings]
    assert refusals(text) == []
    assert refusals(text, filled(text)) == []


def test_a_file_of_what_is_mandatory_alone_fits():
    text = "version: 1\ntargets: { s: { who: desk/s, via: mss, carries: document } }\ndefault: { hold: s }\n"
    assert load(text, "routes.yaml")[0] is not None
    assert refusals(text, filled(text, Site(desks={"s": "document"}))) == []


def test_empty_sections_fit_as_they_load():
    empty = (
        WHOLE.replace(HEAD, HEAD + "also:\n").partition("rules:\n")[0]
        + "rules:\n"
        + DEFAULT.replace("sorties", "sorties")
    )
    assert load(empty, "routes.yaml")[0] is not None
    assert refusals(empty, filled(empty)) == []


def test_filled_with_a_site_only_its_own_names_may_stand_there():
    definitions = filled()["definitions"]
    assert isinstance(definitions, dict)
    assert definitions["target_name"]["enum"] == ["gp", "gp_ping", "garde", "sorties", "pharma"]
    assert definitions["desk_name"]["enum"] == ["sorties"]
    assert definitions["clock_name"]["enum"] == ["cabinet", "nuit", "real"]
    assert definitions["followup_name"]["enum"] == ["standard", "none"]
    assert definitions["keyword_name"]["enum"] == ["chute"]
    assert "Cardiologie" in json.dumps(definitions["fact_ward"])
    assert "rota/garde" in json.dumps(definitions["target"])
    for old, new in (("identity: test", "ward: cardio"), ("desk/sorties", "desk/sortie")):
        assert refusals(changed(old, new), filled())
        assert refusals(changed(old, new)) == []


def test_an_adapter_that_the_configuration_calls_a_chat_carries_only_pointers():
    text = changed(
        "via: [mss], carries: document }\n  gp_ping", "via: [salon], carries: document }\n  gp_ping"
    )
    site = Site(adapters={"salon": "matrix", "mss": "smtp"}, desks=SITE.desks, rotas=SITE.rotas)
    assert refusals(text, filled(text, site))
    assert refusals(text, filled(text)) == []


@pytest.mark.parametrize(
    "text", ["", "a: [", "\x00", "targets: x", "targets: { a: 1 }", "[]", b"\xff\xfe", "a: &b c"]
)
def test_the_names_of_a_broken_file_are_those_that_can_be_read(text):
    assert names_in(text) in (Names(), Names(targets=("a",)))
    Draft7Validator.check_schema(schema.schema(None, names_in(text)))


CASE_OF_TESTS = "tests: [ {{ name: x, given: {{ {} }}, expect: {{ {} }} }} ]\n"
EXPECTED = "rule: sortie"


@pytest.mark.parametrize(
    ("given", "expect"),
    [
        ("event: discharge, urgency: unknown, signed: yes, age: 75.5, mentions: chute", EXPECTED),
        (
            "age: unknown, mentions: [], ward: [Cardiologie, cardiologie], code: 11490-0, department: 45",
            EXPECTED,
        ),
        ("", "rule: default, hold: sorties, why: floor_gp, undecided_at: none, followup: none, action: hold"),
        (
            "event: birth",
            'send: [gp, gp_ping], copy: [], observed: copie, ack_due: "2026-12-04T18:45", file: yes',
        ),
    ],
)
def test_a_case_the_reader_takes_fits_the_schema_of_tests(given, expect):
    text = CASE_OF_TESTS.format(given, expect)
    rules, _ = load(WHOLE, "routes.yaml")
    assert rules is not None
    assert {f.code for f in cases.run(rules, text, "routes.test.yaml").findings} <= {"T001"}
    assert refusals(text, schema.schema_of_tests()) == []
    assert refusals(text, schema.schema_of_tests(SITE, names_in(WHOLE))) == []


@pytest.mark.parametrize(
    ("given", "expect"),
    [
        ("evnt: discharge", EXPECTED),
        ("event: sortie", EXPECTED),
        ("age: vieux", EXPECTED),
        ("signed: oui", EXPECTED),
        ("mentions: chutes", EXPECTED),
        ("event: [discharge]", EXPECTED),
        ("event: birth", ""),
        ("event: birth", "rul: sortie"),
        ("event: birth", "rule: sorti"),
        ("event: birth", "rule: copie"),
        ("event: birth", "send: [gpp]"),
        ("event: birth", "why: x"),
        ("event: birth", "action: drop"),
        ("event: birth", "ack_due: demain"),
    ],
)
def test_a_case_the_reader_refuses_the_filled_schema_of_tests_refuses_too(given, expect):
    text = CASE_OF_TESTS.format(given, expect)
    rules, _ = load(WHOLE, "routes.yaml")
    assert rules is not None
    assert {f.code for f in cases.run(rules, text, "routes.test.yaml").findings} - {"T001"}
    assert refusals(text, schema.schema_of_tests(SITE, names_in(WHOLE)))


def test_the_schema_of_tests_knows_the_keys_that_the_reader_knows():
    case = properties(schema.schema_of_tests())["tests"]["items"]
    assert isinstance(case, dict)
    assert set(case["properties"]["given"]["properties"]) == set(FIELDS)
    assert set(case["properties"]["expect"]["properties"]) == set(cases.EXPECTED)


def test_the_package_takes_the_schema_along():
    project = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    assert 'rules = ["sets/*.yaml", "sets/*.json"]' in project
