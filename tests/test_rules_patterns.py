"""What patterns can match: the same as RE2 says, and texts for any choice of them, or the certainty of none."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.keywords import compile_pattern
from rules.patterns import Machine, Unsupported, spelling, text
from tests.campaign import many

ATOMS = st.sampled_from(
    (
        *(
            "a",
            "b",
            "ab",
            "B",
            "1",
            "-",
            "é",
            r"\.",
            ".",
            r"\d",
            r"\w",
            r"\W",
            r"\s",
            "[ab]",
            "[^a]",
            "[a-c1]",
        ),
        *(r"[\d-]", "[]a]", "[[:alpha:]]", "[^[:digit:]b]", r"\pL", r"\p{Lu}", r"\PL", r"\x61", r"\x{e9}"),
        *(
            "^",
            "$",
            r"\b",
            r"\B",
            r"\A",
            r"\z",
            "(?i:a)",
            "(?i:[a-c]É)",
            "(?i)k",
            "(?s:.)",
            "(?m:^)",
            "(?m:$)",
        ),
        *(r"\Qa.b\E", "(?P<name>a)", "(?:)", "a{2}", "b{1,2}", "(a|b){2,}", "a{,2}", r"\n"),
    )
)
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map("".join),
        st.builds("(?:{}|{})".format, inner, inner),
        st.builds("({}){}".format, inner, st.sampled_from(("*", "+", "?", "??", "{2}", "{0,1}", "{1,}"))),
    ),
    max_leaves=5,
)
WORDS = st.text(alphabet="abBcC1-.é É\nkK_", max_size=6)


def machine(pattern: str) -> Machine:
    return Machine(pattern)


def has(one: Machine, word: str) -> bool:
    state = one.begin
    for letter in word:
        state = one.move(state, ord(letter))
    return one.found(state)


@settings(max_examples=many(300))
@given(PATTERNS, st.lists(WORDS, min_size=1, max_size=8))
def test_a_machine_finds_what_re2_finds(pattern, words):
    try:
        real, own = compile_pattern(pattern), machine(pattern)
    except (ValueError, Unsupported):
        return
    for word in words:
        assert has(own, word) is (real.search(word) is not None), (pattern, word)


@settings(max_examples=many(150))
@given(st.lists(st.tuples(PATTERNS, st.booleans()), min_size=1, max_size=3))
def test_a_text_that_is_found_fits_and_where_none_is_none_of_many_fits(drawn):
    try:
        wanted = [(machine(pattern), truth) for pattern, truth in drawn]
        real = [(compile_pattern(pattern), truth) for pattern, truth in drawn]
        found = text(wanted, frozenset({"a", "b"}))
    except (ValueError, Unsupported):
        return

    def fits(word: str) -> bool:
        return all((pattern.search(word) is not None) is truth for pattern, truth in real)

    if found is not None:
        assert found not in ("", "a", "b")
        assert fits(found)
    else:
        words = (
            "".join(letters) for n in range(1, 4) for letters in itertools.product("abB1-é. \n", repeat=n)
        )
        assert not any(fits(word) for word in words if word not in ("a", "b"))


@pytest.mark.parametrize(
    ("has_them", "lacks_them", "found"),
    [
        (["@ch"], [], "@ch"),
        ([r"@ch\.fr$"], ["@ch"], None),
        (["^a", "b$"], ["ab"], "acb"),
        (["^[ab]$"], [], None),
        (["^[abc]$"], [], "c"),
        (["^a+$"], [], "aa"),
        ([""], [], "c"),
        ([], ["."], "\n"),
        ([], [""], None),
        (["(?i)^k$"], ["[kK]"], "\u212a"),
        ([r"\bchute\b", r"^\w+ \w+$"], [], "a chute"),
    ],
)
def test_what_patterns_leave_is_found_shortest_first_or_known_to_be_nothing(has_them, lacks_them, found):
    wanted = [(machine(p), True) for p in has_them] + [(machine(p), False) for p in lacks_them]
    answer = text(wanted, frozenset({"a", "b"}))
    assert (answer is None) is (found is None)
    if found is not None:
        assert answer == found


@pytest.mark.parametrize(
    ("wanted", "folded", "found"),
    [
        ([("^C", True)], "cardio", "Cardio"),
        ([("^C", True), ("o$", False)], "cardio", "CardiO"),
        ([("^C", True), ("^Ca", False), ("^CA", False)], "cardio", None),
        ([("ß", True)], "strasse", "straße"),
        ([("[a-z]", False), ("0", True)], "11490-0", "11490-0"),
        ([("[a-z]", True)], "11490-0", None),
    ],
)
def test_a_text_has_every_spelling_that_is_the_same_but_for_case(wanted, folded, found):
    assert spelling([(machine(p), truth) for p, truth in wanted], folded) == found


@pytest.mark.parametrize("pattern", [r"\p{Greek}", "(" * 200 + ")" * 200, "(?i)[^a]\\pL", "(a{900}){900}"])
def test_what_is_not_decided_says_so(pattern):
    with pytest.raises(Unsupported):
        machine(pattern)
