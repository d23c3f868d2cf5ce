"""Keyword groups: words and patterns looked for in the letter; only the names of those found become a fact."""

from __future__ import annotations

import json
import time

import pytest

from rules import keywords
from rules.language import RuleSet, load, mentioned

HEAD = """\
version: 1
targets: { sorties: { who: desk/sorties, via: [mss], carries: document } }
default: { hold: sorties }
"""
GROUPS = {
    "chute": ["chute"],
    "palliatif": ["soins palliatifs", {"matches": r"\bLATA\b"}],
    "coeur": "Cœur d'œuvre",
    "etat": {"matches": "état (grave|critique)"},
}


def good(groups: dict[str, object]) -> RuleSet:
    loaded, findings = load(f"{HEAD}keywords: {json.dumps(groups)}\n", "routes.yaml")
    assert loaded is not None, [finding.text() for finding in findings]
    return loaded


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("SOINS PALLIATIFS", {"palliatif"}),
        ("soins-palliatifs", {"palliatif"}),
        ("des soins\r\n   palliatifs, à domicile", {"palliatif"}),
        ("des soins\xa0palliatifs", {"palliatif"}),
        ("des soins pallia-\n  tifs", {"palliatif"}),
        ("des soins pallia\xadtifs", {"palliatif"}),
        ("soins\tpalliatifs.", {"palliatif"}),
        ("soins, palliatifs", set()),
        ("lata décidée", {"palliatif"}),
        ("palatale", set()),
        ("cœur d’œuvre", {"coeur"}),
        ("COEUR D'OEUVRE", {"coeur"}),
        ("E\u0301TAT CRITIQUE", {"etat"}),
        ("etat grave", set()),
        ("une chute, état grave", {"chute", "etat"}),
        ("chuter", set()),
        ("chute2", set()),
        ("(chute)", {"chute"}),
        ("«chute»", {"chute"}),
        ("a-chute", {"chute"}),
        ("chu\ud800te, chute", {"chute"}),
    ],
)
def test_words_are_found_whatever_accents_case_hyphens_and_line_breaks_and_nothing_else(text, names):
    assert mentioned(good(GROUPS), text) == names


@pytest.mark.parametrize(
    ("pattern", "found", "not_found"),
    [
        (r"\béchec\b", ("l'échec total", "ÉCHEC", "un e\u0301chec"), ("échecs", "rééchec", "echec")),
        (r"\bopéré(?:e|s)?\b", ("patient opéré de", "opérées, opérée"), ("réopéré", "opéra")),
        (r"(?:\bcôté\b|\bété) *(?:a|x\b|\bé\b)", ("l'été x", "à côté a"), ("étéxx", "ete x", "étéé")),
        (r"\\bé", (r"a\bé",), ("é", " é")),
        (r"[|(\]é]\b", ("a(b",), ("a",)),
        (r"(?:\bé\b){900}", (), ("é",)),
    ],
)  # fmt: skip
def test_the_edges_of_a_word_in_a_pattern_know_accents(pattern, found, not_found):
    rules = good({"groupe": {"matches": pattern}})
    assert [text for text in found if not mentioned(rules, text)] == []
    assert [text for text in not_found if mentioned(rules, text)] == []


def test_a_group_that_the_automaton_has_no_room_for_is_found_all_the_same(monkeypatch):
    monkeypatch.setattr(keywords, "_SET_MEMORY", 1 << 12)
    assert keywords._Searched([("a", "(?i)(x|y){0,30}chute"), ("b", "fugue")]).found_in("une chute") == {"a"}


def test_two_million_letters_are_gone_through_in_well_under_a_few_seconds():
    text = "Le patient âgé de 80 ans a été hospitalisé, retour à domicile. " * 32_000
    began = time.process_time()
    assert mentioned(good(GROUPS), text + "soins palliatifs") == {"palliatif"}
    assert time.process_time() - began < 2


def test_what_a_pattern_cannot_make_slow():
    rules = good({"a": {"matches": "(a+)+$"}})
    began = time.process_time()
    assert mentioned(rules, "a" * 200_000 + "!") == frozenset()
    assert time.process_time() - began < 2


@pytest.mark.parametrize("words", ["---", ["chute", "'"], []])
def test_a_word_without_a_letter_is_a_mistake_of_the_file(words):
    loaded, findings = load(f"{HEAD}keywords: {json.dumps({'x': words})}\n", "routes.yaml")
    assert loaded is None
    assert [finding.line for finding in findings] == [4]


def test_no_group_asks_nothing_of_the_letter():
    assert mentioned(good({}), "chute") == frozenset()
