"""Findings as SARIF: the shape the standard asks for, a help for each code, and no place but relative ones."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from jsonschema import Draft7Validator

from rules.language import Finding
from rules.sarif import sarif
from rules.words import CODES, WORDS
from tests.test_rules import SITE, WHOLE, changed, findings_of, only


def strict(required: str = "", **properties: object) -> dict[str, object]:
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


def several(each: object, at_least: int = 0) -> dict[str, object]:
    return {"type": "array", "items": each, "minItems": at_least}


TEXT = {"type": "string", "minLength": 1}
NUMBER = {"type": "integer", "minimum": 1}
LEVEL = {"enum": ["none", "note", "warning", "error"]}
BAG = {"type": "object"}
MESSAGE = strict("text", text=TEXT)
PLACE = strict("uri", uri={"type": "string", "pattern": r"^(?!/)(?![A-Za-z]+:)(?!.*\.\.)[^\s\\]+$"})
REGION = strict(
    "startLine", startLine=NUMBER, startColumn=NUMBER, endLine=NUMBER, endColumn=NUMBER, snippet=MESSAGE
)
# The parts of the standard's own schema that this file uses, with what they require (SARIF 2.1.0 §3).
SARIF = strict(
    "version runs",
    **{"$schema": TEXT},
    version={"const": "2.1.0"},
    runs=several(
        strict(
            "tool results",
            tool=strict(
                "driver",
                driver=strict(
                    "name",
                    name=TEXT,
                    semanticVersion=TEXT,
                    language={"type": "string", "pattern": "^[a-z]{2}$"},
                    rules=several(
                        strict(
                            "id name shortDescription fullDescription help defaultConfiguration",
                            id=TEXT,
                            name=TEXT,
                            shortDescription=MESSAGE,
                            fullDescription=MESSAGE,
                            help=MESSAGE,
                            defaultConfiguration=strict("level", level=LEVEL),
                            properties=BAG,
                        ),
                        1,
                    ),
                ),
            ),
            language={"enum": ["fr", "en"]},
            columnKind={"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
            results=several(
                strict(
                    "message ruleId ruleIndex level locations",
                    ruleId=TEXT,
                    ruleIndex={"type": "integer", "minimum": 0},
                    level=LEVEL,
                    message=MESSAGE,
                    locations=several(
                        strict(
                            "physicalLocation",
                            physicalLocation=strict(
                                "artifactLocation region", artifactLocation=PLACE, region=REGION
                            ),
                        ),
                        1,
                    ),
                    fixes=several(
                        strict(
                            "artifactChanges",
                            description=MESSAGE,
                            artifactChanges=several(
                                strict(
                                    "artifactLocation replacements",
                                    artifactLocation=PLACE,
                                    replacements=several(
                                        strict(
                                            "deletedRegion", deletedRegion=REGION, insertedContent=MESSAGE
                                        ),
                                        1,
                                    ),
                                ),
                                1,
                            ),
                        )
                    ),
                )
            ),
        ),
        1,
    ),
)


def log_of(findings: tuple[Finding, ...], root: str = "", lang: str = "fr") -> Any:  # Any: JSON
    document = json.loads(json.dumps(sarif(findings, "1.2.3", root, lang)))
    Draft7Validator(SARIF).validate(document)
    return document["runs"][0]


def test_findings_become_a_log_with_the_shape_the_standard_asks_for():
    text = changed("[gp, gp_ping]", "[medecin]", changed("identity: test", "identity: testt"))
    run = log_of(findings_of(text, SITE))
    assert [r["ruleId"] for r in run["results"]] == ["E102", "E110"]
    rules = run["tool"]["driver"]["rules"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
    region = run["results"][0]["locations"][0]["physicalLocation"]["region"]
    assert region["snippet"]["text"][region["startColumn"] - 1 :].startswith("testt")


def test_a_result_says_what_to_do_and_how_grave_it_is():
    text = changed(
        "via: [telegram, matrix]", "via: [telegram, signal]", changed("[gp, gp_ping]", "[medecin]")
    )
    found = findings_of(text, SITE)
    run = log_of(found)
    for finding, result in zip(found, run["results"], strict=True):
        assert result["message"]["text"] == f"{finding.message}\n{finding.fix}"
    assert [(r["ruleId"], r["level"]) for r in run["results"]] == [("W305", "warning"), ("E110", "error")]
    usual = {rule["id"]: rule["defaultConfiguration"]["level"] for rule in run["tool"]["driver"]["rules"]}
    assert (usual["W305"], usual["E110"], usual["T001"]) == ("warning", "error", "error")


def test_no_finding_is_an_empty_list_and_the_codes_stand_there_all_the_same():
    run = log_of(findings_of(WHOLE, SITE))
    assert run["results"] == []
    assert {rule["id"] for rule in run["tool"]["driver"]["rules"]} == set(CODES)


def test_every_code_the_checker_knows_has_a_name_and_a_help_in_both_languages():
    assert {entry[0] for entry in WORDS.values()} <= set(CODES)
    for code, words in CODES.items():
        assert len(set(words)) == 4, code
        assert all(word.strip() for word in words)
    french = log_of((), lang="fr")["tool"]["driver"]["rules"][0]
    english = log_of((), lang="en")["tool"]["driver"]["rules"][0]
    assert french["help"] != english["help"]
    assert french["properties"] == english["properties"]


def test_a_guess_is_a_fix_that_a_tool_can_apply():
    text = changed("identity: test", "identity: testt")
    (result,) = log_of(findings_of(text))["results"]
    ((change,),) = [c["replacements"] for fix in result["fixes"] for c in fix["artifactChanges"]]
    where = change["deletedRegion"]
    lines = text.split("\n")
    line = lines[where["startLine"] - 1]
    lines[where["startLine"] - 1] = (
        line[: where["startColumn"] - 1] + change["insertedContent"]["text"] + line[where["endColumn"] - 1 :]
    )
    assert "\n".join(lines) == WHOLE


def test_a_finding_without_a_guess_offers_no_change():
    (result,) = log_of(findings_of(changed(", basis: care_team", "")))["results"]
    assert "fixes" not in result


@pytest.mark.parametrize(
    ("file", "root", "uri"),
    [
        ("rules/sets/a.yaml", "", "rules/sets/a.yaml"),
        ("/etc/relais/rules/a.yaml", "/etc/relais", "rules/a.yaml"),
        ("/etc/relais/rules/a.yaml", "/srv", "a.yaml"),
        ("/etc/relais/rules/a.yaml", "", "a.yaml"),
        ("../a.yaml", "/srv", "a.yaml"),
        ("règles d'ici.yaml", "", "r%C3%A8gles%20d%27ici.yaml"),
        ("C:\\relais\\a.yaml", "", "a.yaml"),
        ("C:/relais/a.yaml", "", "a.yaml"),
    ],
)
def test_a_file_is_named_relative_to_the_project_or_by_its_name_alone(file, root, uri):
    finding = replace(only(changed("identity: test", "identity: testt")), file=file)
    run = log_of((finding,), root)
    (place,) = {
        json.dumps(each)
        for each in (
            run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"],
            run["results"][0]["fixes"][0]["artifactChanges"][0]["artifactLocation"],
        )
    }
    assert json.loads(place) == {"uri": uri}
