"""Odd but legal sites: what the outside contract says of them, where a plain site would never show it."""

from __future__ import annotations

import pytest

from relay import planning
from relay.model import Purpose
from tests.letters import MARTIN
from tests.test_planning import AT, LINKED, RULES, arrive, letter, make_site, one


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_TEST_PASSWORD", "x")


SECOND = """
  gp_aussi: { who: registered_gp, via: [mss], carries: document }
  gp_avis: { who: registered_gp, via: [mss], carries: notice }
  ping_aussi: { who: registered_gp, via: [telegram], carries: pointer }
followups:"""


def test_two_targets_that_mean_one_box_are_one_letter_and_one_alert() -> None:
    rules = RULES.replace("\nfollowups:", SECOND).replace(
        "send: [gp, gp_ping]", "send: [gp, gp_aussi, gp_avis, gp_ping, ping_aussi]"
    )
    also = "\nalso:\n  - id: copie\n    when: { event: discharge }\n    copy: gp_aussi\ndefault: { hold"
    site = make_site(rules=rules.replace("\ndefault: { hold", also))
    plan = planning.plan_notice(site, arrive(site, letter()), LINKED, AT)
    assert one(plan, Purpose.LETTER, f"rpps:{MARTIN.rpps}").recipe.original  # type: ignore[union-attr]
    assert one(plan, Purpose.ALERT, f"rpps:{MARTIN.rpps}").adapter == "telegram"


def test_a_letter_is_not_kept_back_by_the_notice_another_target_sent_first() -> None:
    rules = RULES.replace("\nfollowups:", SECOND).replace("send: [gp, gp_ping]", "send: [gp_avis, gp]")
    site = make_site(rules=rules)
    plan = planning.plan_notice(site, arrive(site, letter()), LINKED, AT)
    carried = [each.recipe.original for each in plan.deliveries if each.purpose is Purpose.LETTER]  # type: ignore[union-attr]
    assert [bool(each) for each in carried] == [False, True]
