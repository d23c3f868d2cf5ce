"""What a letter says is shown in a terminal, and never obeyed by it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import letters
from tests.test_contract_commands import ROOT, relay

ORDERS = "\x1b[2J\x1b]0;titre\x07\x9b31m\u202e"
"""Clears a terminal, renames its window, paints, turns the line round."""


@pytest.mark.parametrize(
    "words",
    [
        ("recognise",),
        ("recognise", "--json"),
        ("rules", "explain", "--rules", ROOT / "rules/sets/standard.yaml"),
        ("rules", "explain", "--json", "--rules", ROOT / "rules/sets/standard.yaml"),
    ],
)
def test_no_word_of_a_letter_is_an_order_to_the_terminal(
    words: tuple[str | Path, ...], tmp_path: Path
) -> None:
    file = tmp_path / f"lettre{ORDERS}.eml"
    file.write_bytes(letters.text_mail(ward=f"Cardio{ORDERS}logie", subject=f"Sortie {ORDERS}"))
    done = relay(*words, file)
    assert done.code == 0
    assert "logie" in done.out
    if "recognise" in words and "--json" in words:
        assert done.json["stay"]["ward"] == f"Cardio{ORDERS}logie"
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", done.out + done.err)


def test_no_word_of_an_error_is_an_order_to_the_terminal(tmp_path: Path) -> None:
    done = relay("recognise", tmp_path / f"absente{ORDERS}.eml")
    assert done.code == 2
    assert "absente" in done.line
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", done.err)
