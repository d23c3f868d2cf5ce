"""Files of ten thousand rules: read, checked, compared and put in force without harm to the letters meanwhile."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from relay.ruling import Ruling
from rules import cases, engine, reach
from rules.language import RuleSet, load
from rules.weakening import compare
from tests import rulesets
from tests.test_rules_life import folder, house

if TYPE_CHECKING:
    from tests.test_rules_life import House

__all__ = ["folder", "house"]

NOW = datetime(2026, 12, 4, 18, 45, tzinfo=UTC)


def read(text: str) -> RuleSet:
    rules, findings = load(text.encode(), "routes.yaml")
    assert rules is not None, [finding.text() for finding in findings[:3]]
    return rules


def test_a_file_of_ten_thousand_rules_of_every_kind_is_read():
    text = rulesets.written(10_000)
    began = time.process_time()
    assert len(read(text).rules) == 10_000
    assert len(text) > 1_500_000
    assert time.process_time() - began < 10  # two seconds on a machine at rest


@pytest.fixture(scope="module")
def large() -> RuleSet:
    return read(rulesets.by_ward(3_000))


def test_a_large_set_is_compared_with_its_successor_in_a_moment(large: RuleSet):
    text = rulesets.by_ward(3_000)
    sending, holding = "    send: [gp]\n    followup: none\n", "    hold: sorties\n    reason: x\n"
    renamed = read(text.replace("id: service-7-0\n", "id: sept\n    was: service-7-0\n"))
    place = text.rindex(sending)
    less = read(text[:place] + holding + text[place + len(sending) :])
    began = time.process_time()
    assert compare(large, renamed, NOW).harmless
    (weaker,) = compare(large, less, NOW).weaker
    assert (weaker.rule, weaker.instead, weaker.loss.held) == ("service-499-5", "service-499-5", True)
    assert time.process_time() - began < 5  # half a second on a machine at rest


def test_numbers_without_end_are_not_told_apart_for_ever():
    rule = "  - {{ id: r{0}, when: {{ late_hours: {{ gte: {0}, lt: {1} }} }}, hold: sorties, reason: x }}\n"
    text = rulesets.HEAD + "".join(rule.format(n, n + 1) for n in range(3_000))
    began = time.process_time()
    compared = compare(read(text), read(text + "# encore\n"), NOW)
    assert compared.weaker == ()
    assert not compared.complete
    assert time.process_time() - began < 10


def test_each_rule_of_a_large_set_has_its_case_and_all_of_them_run(large: RuleSet):
    written = cases.missing(large, None, "routes.test.yaml")
    assert isinstance(written, cases.Written)
    reached = {"default", *(r.id for r in large.rules if isinstance(reach.answer(large, r), reach.Witness))}
    assert set(written.names) == reached
    outcome = cases.run(large, written.text, "routes.test.yaml")
    assert outcome.ok
    assert len(outcome.results) == len(written.names)


async def test_rules_that_another_process_put_in_force_are_ready_before_their_first_letter(house: House):
    first = await house.ruling.start()
    other = Ruling(house.settings, house.store, house.clock, lambda _: None)
    again = await other.start()
    assert first is not None
    assert again is not None
    assert first is not again
    assert first in engine._PROGRAMS
    assert again in engine._PROGRAMS
