"""Odd but legal sites: what the outside contract says of them, where a plain site would never show it."""

# ruff: noqa: F401, F811 - fixtures
from __future__ import annotations

from dataclasses import replace
from email import message_from_bytes, policy
from pathlib import Path
from typing import Literal

import pytest

from adapters import memory
from relay import metrics, planning
from relay.config import Desk
from relay.dispatch import Dispatch
from relay.errors import Refused
from relay.model import (
    Batch,
    DeliveryState,
    Envelope,
    EnvelopeState,
    Link,
    MailMessage,
    Purpose,
    Verb,
    Why,
    envelope_id,
)
from tests import letters
from tests.letters import DUPONT, MARTIN
from tests.site import REFERENCE
from tests.test_loops import SENDER, House, house, mails
from tests.test_planning import (
    AT,
    GP,
    LATER,
    LINKED,
    RULES,
    WARD,
    _secret,
    after,
    arrive,
    headers,
    letter,
    make_site,
    one,
    opened,
    replied,
    text,
)
from tests.trials import tools

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


async def test_a_letter_held_in_a_known_stay_goes_by_one_reference_wherever_its_ward_reads_of_it(
    house: House,
) -> None:
    await house.take(letter(), letters.text_mail(gp=DUPONT, sender=SENDER, subject="Complément"))
    await house.leave()
    await house.schedule.daily_lists()
    await house.leave()
    (thread,) = await house.store.threads()
    (hold,) = await house.store.holds()
    (row,) = [each for each in await house.store.envelopes() if each["id"] == hold["envelope"]]
    assert row["reference"] == thread["reference"]
    told = [
        str(message_from_bytes(each.message.content, policy=policy.default).get_body().get_content())
        for each in mails(house)
        if each.to == "ward:cardiologie" and isinstance(each.message, MailMessage)
    ]
    assert len(told) == 2  # the hold's note and the day's list
    assert {found for text in told for found in REFERENCE.findall(text)} == {thread["reference"]}


def test_a_desk_of_another_hospital_does_nothing_to_a_follow_up_and_is_handed_none() -> None:
    site = make_site()
    desks = {
        "sorties": replace(site.settings.desks["sorties"], facility="450000088"),
        "ej": Desk("ej", "ej@chr-exemple.mssante.fr", facility="450000013"),
        "ailleurs": Desk("ailleurs", "ailleurs@ch.mssante.fr", facility="750000018"),
        "cpts": Desk("cpts", "cpts@cpts.mssante.fr"),
    }
    names = {"450000088": "CHR d'Exemple", "450000013": "CHR d'Exemple", "750000018": "CH d'Ailleurs"}
    site = replace(site, settings=replace(site.settings, desks=desks, facilities=names))
    _, view = opened(site)
    for verb, by, to in (
        (Verb.ACK, "desk:ailleurs", None),
        (Verb.RECALL, "desk:ailleurs", None),
        (Verb.HAND_OVER, "desk:sorties", "desk:ailleurs"),
    ):
        with pytest.raises(Refused, match="another facility than desk:ailleurs"):
            planning.plan_verb(site, view, verb, by, to, LATER)
    for desk in ("sorties", "ej", "cpts"):
        taken = planning.plan_verb(site, view, Verb.ACK, f"desk:{desk}", None, LATER)
        assert taken.thread is not None
        assert taken.thread.owner == f"desk:{desk}"


def test_each_mail_that_tells_a_gp_something_asks_whether_it_was_read_and_no_other_does() -> None:
    site = make_site(receipts="each")
    plan, view = opened(site)
    letter_, receipt = one(plan, Purpose.LETTER), one(plan, Purpose.RECEIPT)
    asked = planning.plan_verb(site, view, Verb.ASK, f"rpps:{MARTIN.rpps}", "Et le bisoprolol ?", LATER)
    answered = planning.plan_verb(site, after(view, asked), Verb.ANSWER, "ward:cardiologie", "Oui.", LATER)
    recalled = planning.plan_verb(site, view, Verb.RECALL, "ward:cardiologie", None, LATER)
    words = [each for each in answered.deliveries if each.purpose is Purpose.ANSWER and each.adapter == "mss"]
    for mail in (letter_, *words, one(recalled, Purpose.RECALL)):
        assert headers(mail)["Disposition-Notification-To"] == headers(mail)["Reply-To"], mail.purpose
    for mail in (receipt, one(asked, Purpose.QUESTION)):
        assert "Disposition-Notification-To" not in headers(mail), mail.purpose


@pytest.mark.parametrize("language", ["fr", "en"])
def test_the_dpo_is_told_of_an_incident_at_once_without_a_word_about_the_patient(
    language: Literal["fr", "en"],
) -> None:
    site = make_site()
    site = replace(site, settings=replace(site.settings, dpo="dpo@chr-exemple.mssante.fr", language=language))
    _, view = opened(site)
    for verb, by in ((Verb.REFUSE, f"rpps:{MARTIN.rpps}"), (Verb.RECALL, "ward:cardiologie")):
        plan = planning.plan_verb(site, view, verb, by, None, LATER)
        assert plan.incident is not None
        note = one(plan, Purpose.ADMIN, "dpo")
        assert (note.address, note.reference) == ("dpo@chr-exemple.mssante.fr", view.thread.reference)
        said = headers(note)["Subject"] + text(note)
        assert view.thread.reference in said
        assert ("4/12" if language == "fr" else "4 Dec") in said  # 72 hours later
        for hidden in ("CORMERAIS", "Odette", "Martin", "Cardiologie", GP, WARD):
            assert hidden not in said
    observed = replace(site, settings=replace(site.settings, mode="observe"))
    silent = planning.plan_verb(observed, view, Verb.RECALL, "ward:cardiologie", None, LATER)
    assert one(silent, Purpose.ADMIN, "dpo").why is Why.OBSERVE
    alone = replace(site, settings=replace(site.settings, dpo=None))
    unheard = planning.plan_verb(alone, view, Verb.RECALL, "ward:cardiologie", None, LATER)
    assert not [each for each in unheard.deliveries if each.purpose is Purpose.ADMIN]


async def test_the_time_to_an_alert_is_counted_from_the_arrival_of_its_letter(house: House) -> None:
    await house.store.link([Link(MARTIN.rpps or "", "telegram", "9", "9")])
    phone = memory.connect("telegram", memory.Settings(), tools(Path(), house.clock))
    house.dispatch = Dispatch(house.store, {"telegram": phone}, lambda: house.site, house.clock)

    def measured(name: str) -> float:
        return metrics.REGISTRY.get_sample_value(f"relay_arrival_to_alert_seconds_{name}") or 0.0

    before, total = measured("count"), measured("sum")
    came = house.clock.now()
    mail = Envelope(envelope_id("box", "1"), "cardiologie", "box", "1", came, letter())
    house.clock.turn(seconds=90)  # the relay was down, or had others to read first
    await house.store.accept(Batch("box", (mail,), "1"))
    await house.intake.catch_up()
    house.clock.turn(hours=10)  # it may be night where this runs
    while await house.dispatch.turn("telegram", phone) is None:
        pass
    (alert,) = await house.copies(purpose="alert", state="sent")
    assert alert["adapter"] == "telegram"
    assert measured("count") == before + 1
    assert measured("sum") - total == pytest.approx(36_090.0)


def test_what_a_ward_answers_to_a_letter_that_failed_is_read_at_the_desk_and_not_sent_after_it() -> None:
    site = make_site(receipts="each")
    plan, view = opened(site)
    lost, receipt = one(plan, Purpose.LETTER), one(plan, Purpose.RECEIPT)
    words = f"Médecin traitant : Dr Alix Dupont\nRPPS : {DUPONT.rpps}"
    copies = tuple(
        replace(each, state=DeliveryState.FAILED, why=Why.UNKNOWN_MAILBOX) if each.id == lost.id else each
        for each in view.deliveries
    )
    read = replied(site, replace(view, deliveries=copies), receipt, words, sender=WARD)
    assert (read.state, read.why) == (EnvelopeState.HELD, Why.UNKNOWN_MAILBOX)
    assert read.hold is not None
    assert (read.hold.desk, read.hold.candidates) == ("sorties", (DUPONT.rpps,))
    assert read.thread is None
    assert {each.to for each in read.deliveries} == {"desk:sorties"}
    arrived = replied(site, view, receipt, words, sender=WARD)
    assert f"rpps:{MARTIN.rpps}" in {each.to for each in arrived.deliveries}


def test_no_line_is_asked_for_that_would_not_mend_the_letter_of_a_patient_who_objects() -> None:
    """The standard set's rule holds it before the floor would."""
    shipped = Path(__file__).parents[1] / "rules" / "sets" / "standard.yaml"
    said = f"{letters.labelled_lines(letters.ODETTE, MARTIN)}\nLe patient s'oppose à la transmission de cette lettre.\n"
    for rules, why in ((shipped.read_text(encoding="utf-8"), Why.RULE), (RULES, Why.FLOOR_CONSENT)):
        site = make_site(rules=rules)
        plan = planning.plan_notice(site, arrive(site, letter(body=said)), LINKED, AT)
        assert (plan.state, plan.why) == (EnvelopeState.HELD, why)
        note = text(one(plan, Purpose.HOLD_NOTE, "ward:cardiologie"))
        assert "s'oppose" in note
        assert "RPPS" not in note
        assert "complétant" not in note
