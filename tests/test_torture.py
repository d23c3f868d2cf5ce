"""Every hostile file is recognised or refused with a reason, soon, in little memory, and opens nothing.

The work is done in processes that the kernel watches (`tests/torture.py`); here their answers are judged.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests import letters
from tests.letters import printed, wards
from tests.torture import HEAD, SEALABLE

SAMPLES = Path(__file__).parents[2] / "shared" / "samples"
FILES = sorted(
    path for folder in ("torture", "health") for path in (SAMPLES / folder).rglob("*") if path.is_file()
)
HERE = Path(__file__).parents[1]

Row = dict[str, Any]  # Any: a line of JSON

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not SEALABLE, reason="seccomp filters are written for Linux on x86-64 and ARM"),
]


class Campaign(NamedTuple):
    rows: list[Row]
    ended: int  # the return code of the process
    fell_on: str | None  # what it was reading when it ended


def campaign(frames: Iterable[tuple[str, bytes]], *arguments: str) -> Campaign:
    """What one sealed process answers; it is fed one frame after the other."""
    frames = list(frames)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.torture", *arguments], cwd=HERE, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    rows: list[Row] = []
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            for name, content in frames:
                process.stdin.write(HEAD.pack(len(name.encode()), len(content)) + name.encode() + content)
                process.stdin.flush()
                line = process.stdout.readline()
                if not line:
                    break
                rows.append(json.loads(line))
            process.stdin.close()
        except BrokenPipeError:
            pass
        ended = process.wait(60)
    return Campaign(rows, ended, frames[len(rows)][0] if len(rows) < len(frames) else None)


@pytest.fixture(scope="module")
def answers() -> list[Row]:
    """One row for each file of the corpora."""
    if not FILES:
        pytest.skip("the shared samples are not here")
    frames = [(str(path.relative_to(SAMPLES)), path.read_bytes()) for path in FILES]
    sealed = campaign(frames)
    assert (sealed.ended, sealed.fell_on) == (0, None)
    printed_ones = {row["name"] for row in sealed.rows if row.get("pdf")}
    watched = campaign(((name, content) for name, content in frames if name in printed_ones), "--pdf")
    assert (watched.ended, watched.fell_on) == (0, None)
    rows = [row for row in sealed.rows if not row.get("pdf")] + watched.rows
    assert sorted(row["name"] for row in rows) == sorted(name for name, _ in frames)
    return rows


def test_every_file_of_the_corpora_is_recognised_or_refused_with_a_reason(answers: list[Row]) -> None:
    assert len(answers) > 2000
    assert [row["name"] for row in answers if row["outcome"] != "notice" and not row["why"]] == []
    assert [
        row["name"] for row in answers if row["outcome"] == "notice" and row["event"] == "discharge"
    ] == []


def test_every_file_takes_less_than_ten_seconds_and_512_mb(answers: list[Row]) -> None:
    assert [(row["name"], row["seconds"]) for row in answers if row["seconds"] >= 10] == []
    assert [(row["name"], row["peak"]) for row in answers if row["peak"] >= 512 * 1024] == []


def test_no_ordinary_mail_of_any_corpus_is_taken_for_a_notice(answers: list[Row]) -> None:
    mails = [row for row in answers if row["mail"]]
    assert len(mails) > 700
    assert [row["name"] for row in mails if row["outcome"] == "notice"] == []
    held = Counter(row["why"] for row in mails if row["outcome"] == "unclear")
    assert held["two_patients"] == 0
    assert held.total() / len(mails) < 0.12, "a person would have to look at too much of it"


def test_the_campaign_reads_our_own_letters_as_letters() -> None:
    """Refusing everything would pass the tests above."""
    frames = [("a.eml", letters.xdm_mail()), ("b.eml", letters.text_mail()), ("c.pdf", printed.letter()),
              ("d.eml", wards.MAILS["outlook_table"].raw)]  # fmt: skip
    found = campaign(frames, "--pdf")
    assert [row["outcome"] for row in found.rows] == ["notice"] * 4


@pytest.mark.parametrize("temptation", ["file", "entity", "socket", "program"])
def test_the_seal_ends_a_reader_that_opens_something(temptation: str) -> None:
    found = campaign([("a.txt", b"Bonjour")], temptation)
    assert (found.ended, found.fell_on) == (-signal.SIGSYS, "a.txt")


@pytest.mark.parametrize("temptation", ["file", "socket", "program"])
def test_the_watch_over_pdf_readers_ends_them_too(temptation: str) -> None:
    found = campaign([("a.txt", b"Bonjour")], "--pdf", temptation)
    assert found.fell_on == "a.txt"
    assert found.ended != 0


def test_what_takes_too_much_is_measured_and_what_raises_is_seen() -> None:
    (row,) = campaign([("a.txt", b"Bonjour")], "memory").rows
    assert row["peak"] >= 512 * 1024
    (row, after) = campaign([("a.txt", b"Bonjour"), ("b.txt", b"Bonjour")], "time").rows
    assert row["seconds"] >= 0.5
    assert after["peak"] < 512 * 1024
    assert campaign([("a.txt", b"Bonjour")], "error").fell_on == "a.txt"
