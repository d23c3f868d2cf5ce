"""The schemas beside a rule file: editors check with the names of the file that is in force."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rules import schema
from rules.source import MAX_FINDINGS
from tests.test_rules import SITE, WHOLE
from tests.test_rules_life import MORE, RULES, fill, folder, relay
from tests.test_rules_schema import refusals

__all__ = ["folder", "relay"]


def names_an_editor_knows(folder: Path) -> list[str]:
    document = json.loads((folder / schema.FILE_NAME).read_text(encoding="utf-8"))
    return list(document["definitions"]["target_name"]["enum"])


def test_rules_put_in_force_rewrite_the_schemas_that_stand_beside_the_file(folder: Path, relay: Any) -> None:
    fill(folder, 1)
    relay("rules", "schema", "--write")
    assert names_an_editor_knows(folder) == ["gp", "ping", "sorties"]
    more = "  autre: { who: nurse, via: [mss], carries: pointer }\nfollowups:\n"
    (folder / "routes.yaml").write_text(RULES.replace("followups:\n", more, 1), encoding="utf-8")
    relay("rules", "apply", "--reason", "une cible")
    assert names_an_editor_knows(folder) == ["gp", "ping", "sorties", "autre"]
    tests = json.loads((folder / schema.TESTS_FILE_NAME).read_text(encoding="utf-8"))
    assert "autre" in json.dumps(tests)
    relay("rules", "rollback", "--write")
    assert names_an_editor_knows(folder) == ["gp", "ping", "sorties"]


def test_schemas_that_nobody_filled_are_neither_written_nor_changed(folder: Path, relay: Any) -> None:
    fill(folder, 1)
    shipped = schema.as_file(schema.schema())
    (folder / schema.FILE_NAME).write_text(shipped, encoding="utf-8")
    (folder / "routes.yaml").write_text(MORE, encoding="utf-8")
    relay("rules", "apply", "--reason", "aussi les urgences")
    assert (folder / schema.FILE_NAME).read_text(encoding="utf-8") == shipped
    assert not (folder / schema.TESTS_FILE_NAME).exists()


def test_a_schema_that_cannot_be_rewritten_is_told_and_the_rules_are_in_force(
    folder: Path, relay: Any
) -> None:
    fill(folder, 1)
    (folder / schema.FILE_NAME).symlink_to("/proc/version")
    (folder / "routes.yaml").write_text(MORE, encoding="utf-8")
    said = relay("rules", "apply", "--reason", "aussi les urgences").out
    assert "En vigueur" in said
    assert f"{schema.FILE_NAME} n'a pas pu être réécrit" in said


def test_a_target_is_a_desk_only_where_it_says_which():
    names = schema.names_in("targets: { a: { who: desk/sorties }, b: { who: desk }, c: { who: nurse } }")
    assert (names.targets, names.desks) == (("a", "b", "c"), ("a",))


def test_a_mailbox_that_nobody_configured_is_refused():
    document = schema.schema(SITE)
    for name, sound in (("cardio", True), ("chirurgie", False)):
        text = WHOLE.replace("identity: test", f"mailbox: {name}")
        assert (refusals(text, document) == []) is sound


# -- every way of telling tells all


@pytest.mark.parametrize(("count", "more"), [(300, []), (MAX_FINDINGS + 1, ["E114"])])
def test_as_text_as_json_and_for_reviews_every_finding_is_told(
    tmp_path: Path, relay: Any, count: int, more: list[str]
) -> None:
    rule = "  - {{ id: x{}, when: {{ event: death }}, send: [nobody], followup: none }}\n"
    file = tmp_path / "many.yaml"
    file.write_text(
        RULES.replace("[telegram]", "[mss]").replace(
            "rules:\n", "rules:\n" + "".join(rule.format(n) for n in range(count))
        ),
        encoding="utf-8",
    )
    expected = ["E110"] * min(count, MAX_FINDINGS) + more

    def told(form: str) -> Any:  # Any: JSON, or text
        said = relay("rules", "check", str(file), "--format", form, code=1)
        return said.out if form == "text" else json.loads(said.out)

    assert [each["code"] for each in told("json")["findings"]] == expected
    assert [each["ruleId"] for each in told("sarif")["runs"][0]["results"]] == expected
    assert re.findall(r"(?m)^[^ ]*:\d+:\d+ ([EW]\d+) ", told("text")) == expected
