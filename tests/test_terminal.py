"""What a letter says is shown in a terminal, and never obeyed by it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
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


def test_init_asks_again_what_it_cannot_use_and_loses_no_answer(tmp_path: Path) -> None:
    answers = (
        "",
        "Chirurgie",
        "",
        "demain",
        "2026-11-20",
        "nulle part",
        "chir@chr-exemple.mssante.fr",
        *[""] * 4,
    )
    ours, theirs = os.openpty()
    os.write(ours, "".join(f"{answer}\n" for answer in answers).encode())
    done = subprocess.run(
        [sys.executable, "-m", "relay", "init", tmp_path / "site"],
        stdin=theirs, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60,
    )  # fmt: skip
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 0, done.stderr
    assert "« demain » is neither now, all nor a date" in done.stdout
    assert "« nulle part » is no mail address" in done.stdout
    written = (tmp_path / "site" / "config.toml").read_text("utf-8")
    assert 'since = "2026-11-20"' in written
    assert 'slug = "chirurgie"' in written
    assert 'reply_to = "chir@chr-exemple.mssante.fr"' in written


def test_init_says_in_one_line_where_it_may_not_write(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = relay("init", "--since", "now", tmp_path / "file" / "site")
    assert done.code == 2
    assert "cannot be written (Not a directory)" in done.line
