"""What each word of the language does once a letter is planned: targets, quiet hours, grace, copies, observed rules."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy

import pytest

from relay import planning, threads
from relay.model import (
    Absence,
    Context,
    DeliveryState,
    EnvelopeState,
    Link,
    MailMessage,
    Person,
    Plan,
    Purpose,
    ThreadState,
    Why,
)
from relay.planning import Arrival, Site
from relay.planning.site import people_meant, recipients
from rules import engine
from rules.language import UNKNOWN, load
from tests import test_loops, test_planning
from tests.letters import DUPONT, DURAND, MARTIN
from tests.site import answer
from tests.test_loops import House
from tests.test_planning import (
    AT,
    DESK,
    GP,
    LINK,
    LINKED,
    RULES,
    WARD,
    after,
    arrive,
    doctor,
    fire,
    letter,
    make_site,
    one,
    sent,
)

house, _secret = test_loops.house, test_planning._secret  # fixtures

NIGHT = datetime(2026, 12, 1, 21, 30, tzinfo=UTC)  # 22:30 in Paris
MORNING = datetime(2026, 12, 2, 7, 0, tzinfo=UTC)  # the end of `nuit`
OFFICINE = "officine@pharma.mssante.fr"
PHARMA = "  pharma: { who: pharmacist, via: [mss], carries: document, basis: care_team }\n"


def rules(
    *, targets: str = "", rule: str = "", also: str = "", changes: tuple[tuple[str, str], ...] = ()
) -> str:
    """The rules of the planning tests with more targets, more lines for « sortie », and copies."""
    made = RULES.replace("followups:\n", f"{targets}followups:\n")
    made = made.replace("    followup: court\n", f"    followup: court\n{rule}")
    made = made.replace("default: {", f"{'also:' if also else ''}\n{also}default: {{")
    for old, new in changes:
        assert old in made, old
        made = made.replace(old, new)
    return made


def with_pharmacy(arrival: Arrival) -> Arrival:
    assert arrival.resolution is not None
    assert arrival.resolution.registration is not None
    known = replace(arrival.resolution.registration, pharmacist_mss=OFFICINE)
    return replace(arrival, resolution=replace(arrival.resolution, registration=known))


def planned(site: Site, at: datetime = AT, *, context: Context = LINKED, **facts: object) -> Plan:
    return planning.plan_notice(site, with_pharmacy(arrive(site, letter(), at=at, **facts)), context, at)


# -- targets


WHO = {
    "registered_gp": [(f"rpps:{MARTIN.rpps}", GP)],
    "practice": [(f"rpps:{MARTIN.rpps}", "cabinet@medecin.mssante.fr")],
    "substitute": [(f"rpps:{DUPONT.rpps}", DUPONT.mss_address)],
    "referring_doctor": [(f"rpps:{DUPONT.rpps}", DUPONT.mss_address)],
    "letter_recipients": [(f"rpps:{DUPONT.rpps}", DUPONT.mss_address)],
    "pharmacist": [("pharmacist", OFFICINE)],
    "nurse": [("nurse", "")],
    "home_hospitalisation": [("had", "")],
    "sending_ward": [("ward:cardiologie", WARD)],
    "patient": [("patient", "")],
    "desk/sorties": [("desk:sorties", DESK)],
    "rota/garde": [(f"rpps:{DUPONT.rpps}", DUPONT.mss_address)],
}


@pytest.mark.parametrize("who", WHO)
def test_each_who_means_whom_it_says(who):
    loaded, findings = load(
        rules(targets=f"  x: {{ who: {who}, via: [mss], carries: pointer }}\n"), "test.yaml"
    )
    assert loaded is not None, findings
    site = replace(
        make_site(), rules=loaded, on_duty=lambda rota, at: DUPONT.rpps if rota == "garde" else None
    )
    arrival = with_pharmacy(arrive(site, letter()))
    assert arrival.resolution is not None
    box = replace(doctor(MARTIN).mailboxes[0], address="cabinet@medecin.mssante.fr", kind="CAB")
    gp = replace(doctor(MARTIN), mailboxes=(*doctor(MARTIN).mailboxes, box))
    notice = replace(arrival.notice, recipients=(DUPONT,))
    arrival = replace(
        arrival,
        resolution=replace(arrival.resolution, professional=gp),
        recognised=replace(arrival.recognised, notice=notice),
        people={DUPONT.rpps or "": doctor(DUPONT)},
    )
    away = Absence(MARTIN.rpps or "", AT.date(), AT.date(), DUPONT.rpps)
    found = recipients(site, loaded.targets["x"], arrival, Context(absences=(away,)), AT)
    assert [(each.key, each.address) for each in found] == WHO[who]


@pytest.mark.parametrize(
    ("sender", "expected"),
    [
        (DURAND, [f"rpps:{DURAND.rpps}"]),
        (replace(DURAND, rpps=None), []),  # a name alone finds nobody, and nobody else stands in
        (MARTIN, []),  # the GP gets the letter anyway
        (None, [f"rpps:{DUPONT.rpps}"]),
    ],
)
def test_the_referring_doctor_is_who_sent_the_patient_where_the_letter_says_it(
    sender: Person | None, expected: list[str]
):
    loaded, _ = load(rules(targets="  x: { who: referring_doctor, via: [mss], carries: document }\n"), "t")
    assert loaded is not None
    site = replace(make_site(), rules=loaded)
    arrival = arrive(site, letter())
    notice = replace(arrival.notice, recipients=(DUPONT,), referring_doctor=sender)
    arrival = replace(
        arrival,
        recognised=replace(arrival.recognised, notice=notice),
        people={str(one.rpps): doctor(one) for one in (DUPONT, DURAND)},
    )
    assert [each.key for each in recipients(site, loaded.targets["x"], arrival, Context(), AT)] == expected
    if sender is DURAND:
        assert DURAND.rpps in people_meant(site, arrival, Context(), AT)
        other = replace(arrival, people={str(DURAND.rpps): replace(doctor(DURAND), family_name="Autre")})
        (found,) = recipients(site, loaded.targets["x"], other, Context(), AT)
        assert found.address == "", "their number is somebody else's"


def test_who_is_a_closed_list_and_these_tests_know_it_whole():
    from rules.ruleset import PEOPLE

    assert {*PEOPLE, "desk/sorties", "rota/garde"} == set(WHO)
    assert load(rules(targets="  x: { who: le_maire, via: [mss], carries: pointer }\n"), "t")[0] is None


def test_the_first_channel_that_the_site_has_and_that_reaches_the_person_is_taken():
    made = rules(
        changes=(("via: [telegram], carries: pointer", "via: [matrix, telegram], carries: pointer"),)
    )
    assert one(planned(make_site(rules=made)), Purpose.ALERT).adapter == "telegram"


def test_a_document_with_nowhere_to_go_holds_the_letter_and_a_copy_without_address_does_not():
    only = rules(
        targets="  infirmiere: { who: nurse, via: [mss], carries: document, basis: care_team }\n",
        changes=(("send: [gp, gp_ping]", "send: [gp, infirmiere]"),),
    )
    held = planned(make_site(rules=only))
    assert (held.state, held.why) == (EnvelopeState.HELD, Why.NO_ADDRESS)
    copied = rules(
        targets="  infirmiere: { who: nurse, via: [mss], carries: document, basis: care_team }\n",
        also="  - { id: c, when: { event: discharge }, copy: infirmiere }\n",
    )
    plan = planned(make_site(rules=copied))
    assert plan.state is EnvelopeState.DECIDED
    assert one(plan, Purpose.LETTER, "nurse").why is Why.NO_ADDRESS


@pytest.mark.parametrize("target", ["gp_ping", "garde", "remplacant"])
def test_a_letter_that_would_reach_nobody_at_all_and_that_nobody_follows_up_is_held(target):
    more = (
        "  garde: { who: rota/garde, via: [telegram, mss], carries: pointer }\n"
        "  remplacant: { who: substitute, via: [mss], carries: pointer }\n"
    )
    for followup, state in (("none", EnvelopeState.HELD), ("court", EnvelopeState.DECIDED)):
        made = rules(
            targets=more,
            changes=(
                ("send: [gp, gp_ping]\n    followup: court", f"send: [{target}]\n    followup: {followup}"),
            ),
        )
        assert planned(make_site(rules=made), context=Context()).state is state


def test_nobody_on_duty_is_recorded():
    made = rules(
        targets="  garde: { who: rota/garde, via: [telegram, mss], carries: pointer }\n",
        changes=(("send: [gp, gp_ping]", "send: [gp, garde]"),),
    )
    unsent = one(planned(make_site(rules=made)), Purpose.ALERT)
    assert (unsent.to, unsent.state, unsent.why) == ("rota:garde", DeliveryState.CANCELLED, Why.NO_CHANNEL)


def test_a_notice_target_gets_our_own_words_and_no_document():
    made = rules(
        changes=(("via: [mss], carries: document }\n  gp_ping", "via: [mss], carries: notice }\n  gp_ping"),)
    )
    mail = one(planned(make_site(rules=made)), Purpose.LETTER)
    assert mail.recipe.carries == "none"  # type: ignore[union-attr]
    assert mail.recipe.original is None  # type: ignore[union-attr]


# -- quiet hours


@pytest.mark.parametrize("target", ["gp", "gp_ping"])
def test_quiet_hours_defer_mail_and_chat_alike_and_mute_neither(target):
    made = rules(
        changes=(
            (
                "who: registered_gp, via: [mss], carries: document",
                "who: registered_gp, via: [mss], carries: document, quiet: nuit",
            ),
        )
    )
    plan = planned(make_site(rules=made), NIGHT)
    copy = one(plan, Purpose.LETTER if target == "gp" else Purpose.ALERT)
    assert (copy.state, copy.not_before) == (DeliveryState.QUEUED, MORNING)
    assert copy.give_up_at is not None
    assert copy.give_up_at > MORNING + timedelta(days=4)


def test_urgent_letters_ignore_quiet_hours_whatever_carries_them():
    made = rules(
        changes=(
            (
                "who: registered_gp, via: [mss], carries: document",
                "who: registered_gp, via: [mss], carries: document, quiet: nuit",
            ),
        )
    )
    site = make_site(rules=made)
    arrival = arrive(site, letter(), at=NIGHT, urgency="urgent")
    urgent = replace(arrival.notice, urgency="urgent")
    arrival = replace(arrival, recognised=replace(arrival.recognised, notice=urgent))
    plan = planning.plan_notice(site, arrival, LINKED, NIGHT)
    assert one(plan, Purpose.LETTER).not_before is None
    assert one(plan, Purpose.ALERT).not_before is None
    assert plan.timers[0].due == NIGHT + timedelta(hours=1)


def test_a_ladder_and_its_deadline_count_from_when_a_deferred_letter_leaves():
    made = rules(
        changes=(
            (
                "who: registered_gp, via: [mss], carries: document",
                "who: registered_gp, via: [mss], carries: document, quiet: nuit",
            ),
        )
    )
    site = make_site(rules=made)
    plan = planned(site, NIGHT)
    assert [timer.due - MORNING for timer in plan.timers] == [timedelta(hours=h) for h in (1, 2, 4)]
    assert plan.thread is not None
    assert plan.thread.deadline == MORNING + timedelta(hours=2)
    assert site.rules is not None
    told = engine.explain(site.rules, {"event": "discharge", "identity": "qualified", "gp": "found"}, NIGHT)
    assert told["ack_due"] == "2026-12-02T10:00:00+01:00"
    assert told["not_before"] == {"gp": "2026-12-02T08:00:00+01:00", "gp_ping": "2026-12-02T08:00:00+01:00"}


def test_a_reminder_by_mail_waits_for_the_end_of_its_targets_quiet_hours():
    site = make_site()
    first = planned(site, NIGHT - timedelta(minutes=70), context=Context())
    view = replace(sent(after(None, first)), links=())
    plan = fire(site, view, 0, NIGHT)
    assert (one(plan, Purpose.REMINDER).address, one(plan, Purpose.REMINDER).not_before) == (GP, MORNING)


def test_quiet_hours_count_after_the_grace():
    evening = datetime(2026, 12, 1, 18, 58, tzinfo=UTC)  # two minutes before `nuit`
    plan = planned(make_site(rules=rules(rule="    grace: 5m\n")), evening)
    assert one(plan, Purpose.LETTER).not_before == evening + timedelta(minutes=5)
    assert one(plan, Purpose.ALERT).not_before == MORNING


# -- grace

GRACE = rules(rule="    grace: 5m\n")


async def test_a_ward_that_says_annuler_within_the_grace_lets_nothing_leave(house: House) -> None:
    house.site = make_site(receipts="each", rules=GRACE)
    await house.store.link([LINK])
    await house.take(test_loops.letter())
    await house.leave()
    (receipt,) = test_loops.mails(house)
    assert receipt.purpose == Purpose.RECEIPT
    house.clock.turn(seconds=240)
    assert isinstance(receipt.message, MailMessage)
    shown = message_from_bytes(receipt.message.content, policy=policy.default)
    await house.take(answer(shown, "ANNULER", sender=WARD), adapter="retours")
    for _ in range(5):
        house.clock.turn(hours=1)
        await house.schedule.turn()
        await house.leave()
    assert {each.purpose for each in test_loops.mails(house)} <= {Purpose.RECEIPT, Purpose.WARD_NOTE}
    assert {each.to for each in test_loops.mails(house)} == {"ward:cardiologie"}
    states = {row["purpose"]: row["state"] for row in await house.copies(to=f"rpps:{MARTIN.rpps}")}
    assert set(states.values()) == {"cancelled"}
    assert set(states) >= {"letter"}


async def test_after_the_grace_the_letter_leaves(house: House) -> None:
    house.site = make_site(rules=GRACE)
    await house.take(test_loops.letter())
    house.clock.turn(seconds=290)
    await house.leave()
    assert test_loops.mails(house) == []
    house.clock.turn(seconds=20)
    await house.leave()
    assert [each.purpose for each in test_loops.mails(house)] == [Purpose.LETTER]


# -- copies, observed rules, files

COPY = "  - {{ id: copie, when: {{ {} }}, copy: pharma{} }}\n"


def copies(when: str, more: str = "") -> Site:
    return make_site(rules=rules(targets=PHARMA, also=COPY.format(when, more)))


def test_an_undecided_copy_is_not_made_and_the_trace_says_so():
    plan = planned(copies("age: { gte: 75 }"), age=UNKNOWN)
    assert not [each for each in plan.deliveries if each.to == "pharmacist"]
    assert plan.decision is not None
    assert (plan.decision.copies, plan.decision.undecided) == ((), ("copie",))
    assert one(planned(copies("age: { gte: 75 }"), age=80), Purpose.LETTER, "pharmacist").address == OFFICINE


def test_an_observed_copy_is_recorded_and_sent_to_nobody():
    plan = planned(copies("event: discharge", ", mode: observe"))
    assert not [each for each in plan.deliveries if each.to == "pharmacist"]
    assert plan.decision is not None
    assert (plan.decision.copies, plan.decision.observed) == ((), ("copie",))


def test_an_observed_rule_is_recorded_and_the_next_decides():
    extra = "  - { id: essai, when: { event: discharge }, hold: sorties, reason: Essai, mode: observe }\n  - id: sortie\n"
    plan = planned(make_site(rules=rules(changes=(("  - id: sortie\n", extra),))))
    assert plan.state is EnvelopeState.DECIDED
    assert plan.decision is not None
    assert (plan.decision.rule, plan.decision.observed) == ("sortie", ("essai",))


def test_a_copy_before_its_day_is_not_made():
    assert not [
        e
        for e in planned(copies("event: discharge", ", from: 2026-12-02")).deliveries
        if e.to == "pharmacist"
    ]
    assert [
        e
        for e in planned(copies("event: discharge", ", until: 2026-12-01")).deliveries
        if e.to == "pharmacist"
    ]


def test_the_copies_of_a_held_letter_wait_with_it_for_a_person():
    plan = planned(copies("event: discharge"), gp="none")
    assert plan.state is EnvelopeState.HELD
    assert {each.to for each in plan.deliveries} == {"desk:sorties", "ward:cardiologie"}


def filing(also: str = "") -> Site:
    filed = '  - { id: rangee, when: { event: transfer }, file: "Gardée" }\n  - id: sortie\n'
    return make_site(rules=rules(targets=PHARMA, also=also, changes=(("  - id: sortie\n", filed),)))


def test_a_filed_letter_asks_nobody():
    plan = planned(filing(), event="transfer")
    assert (plan.state, plan.why, plan.deliveries, plan.thread, plan.hold) == (
        EnvelopeState.DECIDED, Why.RULE, (), None, None,
    )  # fmt: skip
    assert [event.act for event in plan.audit] == ["filed"]


def test_a_filed_letter_has_its_copies_all_the_same_and_is_followed_up_by_nobody():
    plan = planned(filing(COPY.format("event: transfer", "")), event="transfer")
    assert [(each.to, each.purpose) for each in plan.deliveries] == [("pharmacist", Purpose.LETTER)]
    assert plan.thread is not None
    assert plan.thread.state is ThreadState.CLOSED
    assert plan.timers == ()


def test_the_letter_that_comes_after_a_filed_one_with_copies_is_news_to_its_gp():
    site = filing(COPY.format("event: transfer", ""))
    first = planned(site, event="transfer")
    view = sent(after(None, first))
    second = with_pharmacy(arrive(site, letter(subject="Sortie"), at=AT + timedelta(minutes=10)))
    second = replace(second, envelope=replace(second.envelope, id="second"))
    assert second.stay is not None
    context = replace(LINKED, threads=(view,), stays=dict.fromkeys(second.stay.asked, view.thread.id))
    plan = planning.plan_notice(site, second, context, AT + timedelta(minutes=10))
    assert one(plan, Purpose.LETTER, f"rpps:{MARTIN.rpps}").state is DeliveryState.QUEUED
    assert one(plan, Purpose.ALERT).state is DeliveryState.QUEUED
    assert plan.thread is not None
    assert plan.thread.state is ThreadState.AWAITING_ACK


# -- follow-ups


def test_without_a_follow_up_nobody_is_reminded_and_an_answer_still_finds_its_thread():
    plan = planned(make_site(rules=rules(changes=(("    followup: court\n", "    followup: none\n"),))))
    assert plan.thread is not None
    assert (plan.thread.state, plan.timers) == (ThreadState.CLOSED, ())
    assert one(plan, Purpose.LETTER).thread == plan.thread.id
    assert plan.thread.followup is not None
    assert threads.last_desk(plan.thread.followup) == "sorties"


def test_a_step_counts_on_its_own_clock_and_without_one_on_that_of_the_acknowledgement():
    made = rules(
        changes=(
            ("  nuit:", '  cabinet: { mon-fri: ["08:00-12:30", "13:30-19:00"] }\n  nuit:'),
            ("ack: { within: 2h, clock: real }", "ack: { within: 2d, clock: cabinet }"),
            ("{ after: 2h, remind: gp }", "{ after: 2h, clock: real, remind: gp }"),
        )
    )  # fmt: skip
    plan = planned(make_site(rules=made))
    dues = [timer.due for timer in plan.timers]
    # 17:45 on a Tuesday: an open hour later; two hours by the wall clock; four open hours.
    assert dues == [
        datetime(2026, 12, 1, 17, 45, tzinfo=UTC),
        AT + timedelta(hours=2),
        datetime(2026, 12, 2, 9, 45, tzinfo=UTC),
    ]
    assert plan.thread is not None
    assert plan.thread.deadline == datetime(2026, 12, 3, 18, 0, tzinfo=UTC)


def test_a_rung_that_names_who_is_on_duty_reminds_them_and_not_the_gp():
    made = rules(
        targets="  garde: { who: rota/garde, via: [telegram, mss], carries: pointer }\n",
        changes=(("send: [gp, gp_ping]", "send: [gp, garde]"), ("{ after: 1h, remind: gp_ping }", "{ after: 1h, remind: garde }")),
    )  # fmt: skip
    site = replace(make_site(rules=made), on_duty=lambda rota, at: DUPONT.rpps)
    arrival = replace(arrive(site, letter()), people={DUPONT.rpps or "": doctor(DUPONT)})
    theirs = Link(DUPONT.rpps or "", "telegram", "777", "777")
    plan = planning.plan_notice(site, arrival, Context(links=(LINK, theirs)), AT)
    view = replace(sent(after(None, plan)), links=(LINK, theirs))
    assert one(fire(site, view, 0, AT + timedelta(hours=1)), Purpose.REMINDER).address == "777"
    nobody = replace(site, on_duty=lambda rota, at: None)
    assert one(fire(nobody, view, 0, AT + timedelta(hours=1)), Purpose.REMINDER).to == f"rpps:{MARTIN.rpps}"


def test_a_released_letter_goes_by_the_first_rule_that_sends_and_no_floor_is_lowered():
    loaded = make_site(
        rules=rules(
            also="",
            changes=(
                (
                    "  - id: sortie\n",
                    "  - { id: relire, when: { event: discharge }, hold: sorties, reason: Relire }\n  - id: sortie\n",
                ),
            ),
        )
    ).rules
    assert loaded is not None
    facts = {"event": "discharge", "identity": "qualified", "gp": "found"}
    assert engine.decide(loaded, facts, AT).rule == "relire"
    assert engine.decide_released(loaded, facts, AT).rule == "sortie"
    assert engine.decide_released(loaded, {**facts, "identity": "doubtful"}, AT).why == "floor_identity"
