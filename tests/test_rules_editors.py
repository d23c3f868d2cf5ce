"""The schemas beside a rule file: editors check with the names of the file that is in force."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rules import schema
from tests.test_rules_life import MORE, RULES, fill, folder, relay

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
