"""Decisions and events become plans: who gets what, with which words, and what waits for whom."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay import composing, config, planning, reading, recognition, registers, resolution, threads
from relay.errors import Refused
from relay.model import (
    Absence,
    Ask,
    ChatKind,
    ChatRecipe,
    Context,
    Delivery,
    DeliveryState,
    Envelope,
    EnvelopeState,
    Link,
    Mailbox,
    MailRecipe,
    Plan,
    Press,
    Professional,
    Purpose,
    Registration,
    Thread,
    ThreadState,
    ThreadView,
    Typed,
    Verb,
    Why,
)
from relay.planning import Arrival, Correction, Site
from relay.tokens import Tokens
from relay.wording import chat_text
from rules import engine, language
from tests import letters
from tests.campaign import many
from tests.letters import DUPONT, MARTIN, ODETTE, hl7

GP = "dr.martin@medecin.mssante.fr"
WARD = "secretariat.cardio@chr-exemple.mssante.fr"
PEOPLE = "cardiologie@chr-exemple.mssante.fr"
DESK = "sorties@chr-exemple.mssante.fr"
AT = datetime(2026, 12, 1, 16, 45, tzinfo=UTC)
LATER = AT + timedelta(minutes=10)

CONFIG = """
[relay]
domains = ["*.mssante.fr"]
mode = "{mode}"
admins = ["informatique@chr-exemple.mssante.fr"]
[keys]
file = "keys.json"
[adapters.cardiologie]
kind = "imap"
host = "127.0.0.1"
username = "relais-cardio"
password = {{ env = "RELAY_TEST_PASSWORD" }}
senders = ["*@chr-exemple.mssante.fr"]
receipts = "{receipts}"
ward = {{ name = "Cardiologie", slug = "cardiologie", facility = "450000088", reply_to = "secretariat.cardio@chr-exemple.mssante.fr", phone = "02 38 00 00 00" }}
[adapters.retours]
kind = "imap"
role = "replies"
host = "127.0.0.1"
username = "relais"
password = {{ env = "RELAY_TEST_PASSWORD" }}
[adapters.mss]
kind = "smtp"
host = "127.0.0.1"
from = "relais@relais45.mssante.fr"
reply = "relais+{{token}}@relais45.mssante.fr"
authserv_id = "operateur.mssante.fr"
[chat]
dpo_agreed = "2026-11-01"
[adapters.telegram]
kind = "telegram"
token = {{ env = "RELAY_TEST_PASSWORD" }}
[facilities]
"450000088" = "CHR d'Exemple"
[desks.sorties]
mail = "sorties@chr-exemple.mssante.fr"
sees = "{sees}"
"""

RULES = """
version: 1
timezone: Europe/Paris
hours:
  nuit: { every-day: ["20:00-08:00"] }
targets:
  gp: { who: registered_gp, via: [mss], carries: document }
  gp_ping: { who: registered_gp, via: [telegram], carries: pointer, quiet: nuit }
  sorties: { who: desk/sorties, via: [mss], carries: document }
followups:
  court:
    await: ack
    ack: { within: 2h, clock: real }
    ladder:
      - { after: 1h, remind: gp_ping }
      - { after: 2h, remind: gp }
      - { after: 4h, hand_to: sorties }
rules:
  - id: mt
    when: { gp: [none, many, conflict, left, no_mailbox] }
    hold: sorties
    reason: "Médecin traitant à trouver"
  - id: sortie
    when: { event: discharge }
    send: [gp, gp_ping]
    followup: court
default: { hold: sorties, reason: "Aucune règle ne correspond" }
"""


@pytest.fixture(autouse=True, scope="module")
def _secret() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RELAY_TEST_PASSWORD", "x")
        yield


def make_site(
    *, mode: str = "live", receipts: str = "problems", sees: str = "document", rules: str = RULES
) -> Site:
    settings = config.parse(
        CONFIG.format(mode=mode, receipts=receipts, sees=sees), Path("/nowhere/config.toml")
    )
    loaded, findings = language.load(rules, "test.yaml")
    assert loaded is not None, findings
    return Site(settings, loaded, Tokens(b"k" * 32, "relais45.mssante.fr"))


def doctor(person: Any, **more: Any) -> Professional:
    box = Mailbox(person.mss_address)
    return Professional(
        person.rpps, person.family_name, person.given_name, "10", mailboxes=(box,), postcode="45000", **more
    )


def envelope(raw: bytes, adapter: str = "cardiologie", at: datetime = AT) -> Envelope:
    return Envelope(
        planning.site.thread_id(repr(raw)), adapter, adapter, str(len(raw)), at - timedelta(minutes=4), raw
    )


def arrive(
    site: Site,
    raw: bytes,
    *,
    at: datetime = AT,
    adapter: str = "cardiologie",
    gps: Any = (MARTIN,),
    **facts: Any,
) -> Arrival:
    """Mail as intake hands it over, read, recognised, resolved and decided for real."""
    document = reading.read(raw)
    recognised = recognition.recognise(document, is_ours=site.is_ours)
    table = site.settings.adapters[adapter]
    arrival = Arrival(envelope(raw, adapter, at), document, recognised, reading.fingerprint(raw), table=table)
    if recognised.outcome.value != "notice":
        return arrival
    # An INS in a text letter stands without its OID and is taken as a NIR.
    registered = Registration(
        ODETTE.ins or "", "1.2.250.1.213.1.4.8", birth_name=ODETTE.birth_name or "", used_name="VALBRUNE",
        given_names=ODETTE.given_names, birth_date=ODETTE.birth_date, sex=ODETTE.sex or "",
        gp_rpps=(MARTIN.rpps or "",), consent="allowed",
    )  # fmt: skip
    found = resolution.resolve(
        recognised.notice, (registered,), [doctor(g) for g in gps], domains=site.settings.domains,
        test_ins="accept", facility="450000088",
    )  # fmt: skip
    known = {
        "event": recognised.notice.event, "identity": found.identity, "gp": found.gp,
        "consent": found.consent, "urgency": recognised.notice.urgency, **facts,
    }  # fmt: skip
    given = {name: value for name, value in known.items() if value is not None}
    assert site.rules is not None
    return replace(
        arrival,
        resolution=found,
        stay=resolution.stay_keys(recognised.notice, found, "450000088"),
        facts=given,
        decision=engine.decide(site.rules, given, at),
    )


LINK = Link(MARTIN.rpps or "", "telegram", "9001", "9001")
LINKED = Context(links=(LINK,))


def letter(**more: Any) -> bytes:
    return letters.text_mail(gp=MARTIN, **more)


def after(view: ThreadView | None, plan: Plan) -> ThreadView:
    """The thread as it stands once the plan is written."""
    old = view or ThreadView(plan.thread or pytest.fail("no thread"))
    thread = plan.thread or old.thread
    if view is not None and plan.thread is not None:
        assert plan.thread.version == view.thread.version + 1
    news = {each.delivery: each.state for each in plan.news}
    stopped = set(plan.cancel_purposes) if plan.cancel_queued else None
    known = []
    for each in old.deliveries:
        state = news.get(each.id, each.state)
        if stopped is not None and state is DeliveryState.QUEUED and (not stopped or each.purpose in stopped):
            state = DeliveryState.CANCELLED
        known.append(replace(each, state=state))
    ids = {each.id for each in known}
    known += [each for each in plan.deliveries if each.id not in ids and each.thread == thread.id]
    timers = [t for t in old.timers if t.id not in plan.done_timers]
    if thread.id in plan.drop_timers:
        timers = [t for t in timers if t.revision == thread.revision]
    timers += plan.timers
    made = ThreadView(thread, tuple(known), tuple(timers), links=(LINK,))
    assert not threads.problems(thread, timers)
    return made


def sent(view: ThreadView) -> ThreadView:
    """Everything queued has left."""
    return replace(
        view,
        deliveries=tuple(
            replace(d, state=DeliveryState.SENT, remote=f"r{n}") if d.state is DeliveryState.QUEUED else d
            for n, d in enumerate(view.deliveries)
        ),
    )


def opened(site: Site) -> tuple[Plan, ThreadView]:
    plan = planning.plan_notice(site, arrive(site, letter()), LINKED, AT)
    return plan, sent(after(None, plan))


def one(plan: Plan, purpose: Purpose, to: str | None = None) -> Delivery:
    (found,) = [d for d in plan.deliveries if d.purpose is purpose and to in (None, d.to)]
    return found


def headers(delivery: Delivery) -> dict[str, str]:
    assert isinstance(delivery.recipe, MailRecipe)
    return dict(delivery.recipe.headers)


def text(delivery: Delivery) -> str:
    assert isinstance(delivery.recipe, MailRecipe)
    return delivery.recipe.text


def chat(delivery: Delivery) -> ChatRecipe:
    assert isinstance(delivery.recipe, ChatRecipe)
    return delivery.recipe


def nonce(delivery: Delivery, verb: Verb, choice: str = "") -> str:
    return next(
        b.nonce for row in chat(delivery).buttons for b in row if (b.verb, b.choice) == (verb, choice)
    )


def answer_to(site: Site, to: Delivery, words: str, *, sender: str, **more: Any) -> Arrival:
    """A person's reply to one of our mails, by its Reply-To and In-Reply-To."""
    raw = letters.reply(
        words, to_message_id=headers(to)["Message-ID"], sender=sender, to=headers(to)["Reply-To"], **more
    )
    return arrive(site, raw, at=LATER, adapter="retours")


def replied(site: Site, view: ThreadView, to: Delivery, words: str, *, sender: str = GP, **more: Any) -> Plan:
    made = planning.plan_reply(
        site, answer_to(site, to, words, sender=sender, **more), Context(threads=(view,)), LATER
    )
    assert isinstance(made, Plan)
    return made


# ------------------------------------------------------------------------------------------------- a sent letter


def test_a_letter_goes_to_the_gp_with_an_alert_a_thread_and_its_ladder():
    site = make_site()
    plan, view = opened(site)
    mail, ping = one(plan, Purpose.LETTER), one(plan, Purpose.ALERT)
    assert (plan.state, plan.why) == (EnvelopeState.DECIDED, Why.RULE)
    assert (mail.to, mail.address) == (f"rpps:{MARTIN.rpps}", GP)
    assert text(mail).splitlines()[0] == (
        f"Réf. {view.thread.reference} — Répondez par un mot : OK (bien reçu), RAPPEL (rappelez-moi), "
        "ERREUR (pas mon patient), ou écrivez votre question."
    )
    assert headers(mail)["Subject"] == f"Lettre de liaison – Réf. {view.thread.reference}"
    assert headers(mail)["From"] == '"Cardiologie – CHR d\'Exemple (Relais)" <relais@relais45.mssante.fr>'
    assert headers(mail)["Auto-Submitted"] == "auto-generated"
    assert headers(mail)["X-Auto-Response-Suppress"] == "All"
    assert headers(mail)["Disposition-Notification-To"] == headers(mail)["Reply-To"]
    assert "references" not in {name.lower() for name in headers(mail)}
    assert (ping.address, ping.thread) == ("9001", view.thread.id)
    assert [b.verb for b in chat(ping).buttons[0]] == [Verb.ACK]
    assert view.thread.state is ThreadState.AWAITING_ACK
    assert [t.level for t in plan.timers] == [0, 1, 2]
    assert view.thread.deadline == AT + timedelta(hours=2)
    assert plan.decision is not None
    assert plan.decision.rule == "sortie"


def test_deciding_again_writes_the_same_rows():
    site = make_site(receipts="each")
    arrival = arrive(site, letter())
    assert planning.plan_notice(site, arrival, LINKED, AT) == planning.plan_notice(site, arrival, LINKED, AT)


def test_the_gps_mail_names_no_address_of_the_ward_and_carries_the_documents():
    site = make_site()
    arrival = arrive(site, letter(attachments=[("bilan.pdf", letters.pdf(), "application/pdf")]))
    mail = one(planning.plan_notice(site, arrival, LINKED, AT), Purpose.LETTER)
    assert isinstance(mail.recipe, MailRecipe)
    made = composing.compose(mail.recipe, arrival.envelope.raw)
    read = email.message_from_bytes(made, policy=email.policy.default)
    (part,) = [p for p in read.walk() if p.get_filename()]
    assert part.get_content() == letters.pdf()
    assert b"chr-exemple.mssante.fr" not in made
    assert str(read["From"]) == "Cardiologie – CHR d'Exemple (Relais) <relais@relais45.mssante.fr>" or (
        "CHR d'Exemple (Relais)" in str(read["From"])
    )
    assert site.tokens.read_message_id(str(read["Message-ID"])) is not None
    assert site.tokens.read_token(str(read["Reply-To"])) is not None


def test_an_xdm_letter_keeps_its_subject():
    site = make_site()
    raw = letters.xdm_mail(gp=MARTIN)
    mail = one(planning.plan_notice(site, arrive(site, raw), LINKED, AT), Purpose.LETTER)
    assert headers(mail)["Subject"] == reading.read(raw).subject
    assert headers(mail)["Subject"].startswith("XDM/1.0/DDM+")


@pytest.mark.parametrize(
    "named",
    ["GAUDRY Paul 03/05/1960", "CORMERAIS Lucie 17/03/1948", "CORMERAIS Odette 18/03/1948", "GAUDRY Odette"],
)
def test_a_subject_that_names_somebody_else_than_the_package_is_written_anew(named):
    site = make_site()
    stated = letters.xdm_subject(letters.ODETTE)
    raw = letters.xdm_mail(gp=MARTIN)
    other = raw.replace(b"CORMERAIS Odette\r\n 17/03/1948", named.encode(), 1)
    assert reading.read(other).subject == stated.replace("CORMERAIS Odette 17/03/1948", named)
    mail = one(planning.plan_notice(site, arrive(site, other), LINKED, AT), Purpose.LETTER)
    subject = headers(mail)["Subject"]
    assert subject.startswith("XDM/1.0/DDM+")
    assert subject.endswith(" CORMERAIS Odette 17/03/1948")


def test_nobody_linked_is_recorded_and_the_letter_goes_all_the_same():
    plan = planning.plan_notice(make_site(), arrive(make_site(), letter()), Context(), AT)
    assert one(plan, Purpose.LETTER).state is DeliveryState.QUEUED
    missing = one(plan, Purpose.ALERT)
    assert (missing.state, missing.why) == (DeliveryState.CANCELLED, Why.NO_CHANNEL)


def test_an_alert_at_night_waits_until_the_morning_and_an_urgent_one_does_not():
    site, night = make_site(), datetime(2026, 12, 1, 21, 30, tzinfo=UTC)
    quiet = one(planning.plan_notice(site, arrive(site, letter(), at=night), LINKED, night), Purpose.ALERT)
    assert quiet.not_before == datetime(2026, 12, 2, 7, 0, tzinfo=UTC)
    assert chat(quiet).silent
    arrival = arrive(site, letter(), at=night)
    urgent = replace(
        arrival, recognised=replace(arrival.recognised, notice=replace(arrival.notice, urgency="urgent"))
    )
    rings = one(planning.plan_notice(site, urgent, LINKED, night), Purpose.ALERT)
    assert rings.not_before is None
    assert not chat(rings).silent
    assert chat(rings).fields.urgent


def test_a_grace_period_delays_everything_that_leaves():
    rules = RULES.replace("    followup: court\n", "    followup: court\n    grace: 5m\n")
    plan = planning.plan_notice(make_site(rules=rules), arrive(make_site(rules=rules), letter()), LINKED, AT)
    assert one(plan, Purpose.LETTER).not_before == AT + timedelta(minutes=5)
    assert one(plan, Purpose.ALERT).not_before == AT + timedelta(minutes=5)
    assert plan.timers[0].due == AT + timedelta(minutes=65)


def test_observing_records_each_copy_and_opens_no_thread():
    plan = planning.plan_notice(make_site(mode="observe"), arrive(make_site(), letter()), LINKED, AT)
    assert plan.state is EnvelopeState.DECIDED
    assert plan.thread is None
    assert not plan.timers
    assert not plan.grants
    assert {(d.state, d.why) for d in plan.deliveries} == {(DeliveryState.CANCELLED, Why.OBSERVE)}
    assert {d.purpose for d in plan.deliveries} == {Purpose.LETTER, Purpose.ALERT}


def test_a_ward_that_asked_gets_a_receipt_beneath_its_own_letter():
    site = make_site(receipts="each")
    arrival = arrive(site, letter())
    receipt = one(planning.plan_notice(site, arrival, LINKED, AT), Purpose.RECEIPT)
    assert (
        text(receipt).splitlines()[0]
        == "Reçue 17 h 41, envoyée au Dr Martin, 45000. Erreur ? Répondez ANNULER."
    )
    assert receipt.address == WARD
    assert headers(receipt)["In-Reply-To"] == arrival.document.message_id
    assert GP not in text(receipt)


def test_the_letter_the_ward_sent_to_the_gp_itself_is_not_sent_again():
    site = make_site()
    plan = planning.plan_notice(site, arrive(site, letter(), addressed=True), LINKED, AT)
    assert {d.purpose for d in plan.deliveries} == {Purpose.ALERT}
    view = after(None, plan)
    assert view.thread.started_at == AT
    assert any(p.address == GP for p in view.thread.participants)


def test_a_letter_too_large_for_the_operator_is_held_and_the_ward_told():
    site = make_site()
    site = replace(site, limits={"mss": replace(site.limits_of("mss"), max_bytes=15_000)})
    plan = planning.plan_notice(site, arrive(site, letter()), LINKED, AT)
    assert (plan.state, plan.why) == (EnvelopeState.HELD, Why.TOO_LARGE)
    assert one(plan, Purpose.HOLD_NOTE, "ward:cardiologie").address == WARD
    assert plan.thread is None


def test_a_copy_for_somebody_else_says_that_no_answer_is_expected_and_never_stops_the_letter():
    extra = """
also:
  - id: copie
    when: { event: discharge }
    copy: pharma
default: { hold"""
    rules = RULES.replace("\ndefault: { hold", extra).replace(
        "followups:",
        "  pharma: { who: pharmacist, via: [mss], carries: document, basis: care_team }\nfollowups:",
    )
    site = make_site(rules=rules)
    arrival = arrive(site, letter())
    assert arrival.resolution is not None
    assert arrival.resolution.registration is not None
    without = planning.plan_notice(site, arrival, LINKED, AT)
    assert one(without, Purpose.LETTER, f"rpps:{MARTIN.rpps}").state is DeliveryState.QUEUED
    assert one(without, Purpose.LETTER, "pharmacist").why is Why.NO_ADDRESS
    registration = replace(arrival.resolution.registration, pharmacist_mss="officine@pharma.mssante.fr")
    with_box = replace(arrival, resolution=replace(arrival.resolution, registration=registration))
    plan = planning.plan_notice(site, with_box, LINKED, AT)
    copy = one(plan, Purpose.LETTER, "pharmacist")
    assert "Copie pour information, aucune réponse attendue." in text(copy)
    assert copy.recipe.original == arrival.envelope.id  # type: ignore[union-attr]
    assert headers(copy)["Reply-To"] != headers(one(plan, Purpose.LETTER, f"rpps:{MARTIN.rpps}"))["Reply-To"]


def test_an_alert_goes_to_the_substitute_of_somebody_away_and_the_letter_does_not():
    site = make_site()
    away = Absence(MARTIN.rpps or "", AT.date(), AT.date(), DUPONT.rpps)
    other = Link(DUPONT.rpps or "", "telegram", "777", "777")
    plan = planning.plan_notice(
        site, arrive(site, letter()), Context(links=(LINK, other), absences=(away,)), AT
    )
    assert one(plan, Purpose.LETTER).address == GP
    assert one(plan, Purpose.ALERT).address == "777"
    assert plan.thread is not None
    assert f"rpps:{DUPONT.rpps}" in {p.key for p in plan.thread.participants}


def test_no_alert_goes_to_a_substitute_who_has_left():
    site = make_site()
    away = Absence(MARTIN.rpps or "", AT.date(), AT.date(), DUPONT.rpps)
    other = Link(DUPONT.rpps or "", "telegram", "777", "777")
    for active, rings in ((True, "777"), (False, LINK.chat)):
        known = Professional(DUPONT.rpps or "", "Dupont", "Alix", active=active)
        arrival = replace(arrive(site, letter()), people={known.rpps: known})
        plan = planning.plan_notice(site, arrival, Context(links=(LINK, other), absences=(away,)), AT)
        assert one(plan, Purpose.ALERT).address == rings


# ---------------------------------------------------------------------------------------------- joining a stay


def test_a_second_letter_of_the_same_stay_joins_its_thread():
    site = make_site()
    first, view = opened(site)
    second = arrive(site, letter(body=None, subject="Complément"), at=LATER)
    second = replace(second, envelope=replace(second.envelope, id="second"))
    assert second.stay is not None
    context = Context(
        threads=(view,),
        stays=dict.fromkeys([*first.stay_keys, view.thread.stay], view.thread.id),
        links=(LINK,),
        documents=dict.fromkeys(first.document_keys, "first"),
    )
    plan = planning.plan_notice(site, second, context, LATER)
    assert plan.thread is not None
    assert plan.thread.id == view.thread.id
    assert plan.thread.letter == "second"
    assert "Complète la lettre précédente" in text(one(plan, Purpose.LETTER))
    references = headers(one(plan, Purpose.LETTER))["References"]
    assert one(first, Purpose.LETTER).message_id in references
    after(view, plan)


def test_the_same_discharge_in_another_form_gives_no_second_alert():
    site = make_site()
    first, view = opened(site)
    package = arrive(site, letters.xdm_mail(gp=MARTIN), at=LATER)
    assert package.stay is not None
    ask = planning.ask_of_notice(package.notice, package.stay, Ask())
    known = {key: "first" for key in first.document_keys if key in ask.document_keys}
    assert known, "the other form is looked up"
    context = Context(
        threads=(view,), links=(LINK,), documents=known,
        stays=dict.fromkeys([*first.stay_keys, view.thread.stay], view.thread.id),
    )  # fmt: skip
    plan = planning.plan_notice(site, package, context, LATER)
    assert [d.purpose for d in plan.deliveries] == [Purpose.LETTER]
    assert plan.thread is not None
    assert plan.thread.state is ThreadState.AWAITING_ACK
    assert not plan.timers


def test_a_document_that_was_withdrawn_before_it_came_is_kept_and_not_sent():
    site = make_site()
    arrival = arrive(site, letters.xdm_mail(gp=MARTIN))
    (own, *_) = resolution.document_keys(arrival.notice)
    plan = planning.plan_notice(site, arrival, Context(documents={f"void-{own}": "other"}), AT)
    assert (plan.state, plan.why) == (EnvelopeState.DECIDED, Why.SUPERSEDED)
    assert not plan.deliveries


def test_the_same_document_in_another_mail_is_a_duplicate():
    site = make_site()
    arrival = arrive(site, letters.xdm_mail(gp=MARTIN))
    (own, *_) = resolution.document_keys(arrival.notice)
    plan = planning.plan_notice(site, arrival, Context(documents={own: "other"}), AT)
    assert (plan.state, plan.why) == (EnvelopeState.IGNORED, Why.DUPLICATE)
    assert not plan.deliveries


# ------------------------------------------------------------------------------------------------------- holding


def held(site: Site) -> Plan:
    return planning.plan_notice(site, arrive(site, letters.text_mail(gp=None), gps=()), Context(), AT)


def test_a_held_letter_tells_its_desk_and_its_ward_with_lines_to_fill_in():
    site = make_site()
    plan = held(site)
    assert plan.state is EnvelopeState.HELD
    assert plan.hold is not None
    assert (plan.hold.desk, plan.hold.reason) == ("sorties", "Médecin traitant à trouver")
    note = one(plan, Purpose.HOLD_NOTE, "ward:cardiologie")
    assert note.address == WARD
    assert headers(note)["In-Reply-To"]
    for line in ("Médecin traitant :", "RPPS :", "Né(e) le :"):
        assert line in text(note)
    assert "Réf. " + (plan.reference or "?") in text(note)
    desk = one(plan, Purpose.HOLD_NOTE, "desk:sorties")
    assert desk.recipe.original == plan.envelope  # type: ignore[union-attr]
    assert "LANGLOIS" not in headers(desk)["Subject"]
    assert (ODETTE.birth_name or "?") not in headers(note)["Subject"]


def test_a_desk_that_sees_references_only_gets_no_letter_and_no_name():
    desk = one(held(make_site(sees="reference")), Purpose.HOLD_NOTE, "desk:sorties")
    assert desk.recipe.original is None  # type: ignore[union-attr]
    assert (ODETTE.birth_name or "?") not in text(desk)
    assert "Cardiologie" not in text(desk)


def test_a_ward_that_fills_in_the_lines_corrects_its_held_letter():
    site = make_site()
    plan = held(site)
    note = one(plan, Purpose.HOLD_NOTE, "ward:cardiologie")
    assert plan.hold is not None
    context = Context(deliveries=(note,), holds=(plan.hold,))
    reply = answer_to(site, note, f"Médecin traitant : Dr Martin\nRPPS : {MARTIN.rpps}", sender=PEOPLE)
    made = planning.plan_reply(site, reply, context, LATER)
    assert isinstance(made, Correction)
    assert (made.hold, made.gp, made.by) == (plan.hold.id, MARTIN.rpps, "ward:cardiologie")


def test_somebody_elses_answer_corrects_nothing():
    site = make_site()
    plan = held(site)
    note = one(plan, Purpose.HOLD_NOTE, "ward:cardiologie")
    assert plan.hold is not None
    context = Context(deliveries=(note,), holds=(plan.hold,))
    reply = answer_to(site, note, f"RPPS : {MARTIN.rpps}", sender="x@ailleurs.mssante.fr")
    made = planning.plan_reply(site, reply, context, LATER)
    assert isinstance(made, Plan)
    assert (made.state, made.why) == (EnvelopeState.HELD, Why.UNKNOWN_SENDER)


def test_a_release_ends_the_hold_and_keeps_the_reference():
    site = make_site()
    plan = held(site)
    assert plan.hold is not None
    arrival = arrive(site, letter())
    arrival = replace(
        arrival,
        envelope=replace(arrival.envelope, id=plan.envelope or ""),
        released=Correction("admin:x", plan.hold.id, gp=MARTIN.rpps),
    )
    made = planning.plan_release(site, arrival, LINKED, plan.hold, LATER)
    assert made.state is EnvelopeState.DECIDED
    assert made.end_hold == (plan.hold.id,)
    assert made.reference == plan.reference


def test_a_release_that_a_floor_forbids_says_so():
    site = make_site()
    plan = held(site)
    assert plan.hold is not None
    with pytest.raises(Refused, match="still held"):
        planning.plan_release(
            site, arrive(site, letters.text_mail(gp=None), gps=()), Context(), plan.hold, LATER
        )


# -------------------------------------------------------------------------------------------------------- replies


@pytest.mark.parametrize("word", ["OK", "ok !", "Ok.", "« ok »"])
def test_ok_acknowledges_and_the_phone_shows_it(word: str):
    site = make_site()
    first, view = opened(site)
    plan = replied(site, view, one(first, Purpose.LETTER), word)
    assert plan.thread is not None
    assert plan.thread.state is ThreadState.ACKNOWLEDGED
    assert plan.thread.owner == f"rpps:{MARTIN.rpps}"
    assert plan.thread.acknowledged_by == "Dr Martin"
    (edited,) = plan.deliveries
    assert chat(edited).edits == one(first, Purpose.ALERT).id
    assert chat(edited).fields.kind is ChatKind.TAKEN
    assert plan.void_grants_of == (view.thread.id,)
    after(view, plan)


def test_what_follows_ok_reaches_the_ward_without_the_gps_address():
    site = make_site()
    first, view = opened(site)
    plan = replied(site, view, one(first, Purpose.LETTER), f"OK\nJe la vois jeudi.\n{GP}")
    note = one(plan, Purpose.WARD_NOTE)
    assert (note.address, "Je la vois jeudi." in text(note)) == (WARD, True)
    assert GP not in str(note.recipe)


def test_a_question_goes_to_the_ward_and_its_answer_comes_back():
    site = make_site()
    first, view = opened(site)
    asked = replied(site, view, one(first, Purpose.LETTER), "Le bisoprolol est-il maintenu ?")
    question = one(asked, Purpose.QUESTION)
    assert asked.thread is not None
    assert asked.thread.state is ThreadState.AWAITING_WARD
    assert "Le bisoprolol est-il maintenu ?" in text(question)
    assert question.address == WARD
    assert GP not in str(question.recipe)
    view = sent(after(view, asked))
    back = replied(site, view, question, "Oui, à 2,5 mg.", sender=WARD)
    answered = next(d for d in back.deliveries if d.purpose is Purpose.ANSWER and d.address == GP)
    assert "Oui, à 2,5 mg." in text(answered)
    assert WARD not in str(answered.recipe)
    assert one(first, Purpose.LETTER).message_id in headers(answered)["References"]
    pointer = next(d for d in back.deliveries if d.purpose is Purpose.ANSWER and d.adapter == "telegram")
    assert chat(pointer).fields.kind is ChatKind.ANSWERED
    assert after(view, back).thread.state is ThreadState.AWAITING_GP


def test_rappel_is_a_coded_question_and_no_acknowledgement():
    site = make_site()
    first, view = opened(site)
    plan = replied(site, view, one(first, Purpose.LETTER), "rappel")
    assert "demande un rappel téléphonique" in text(one(plan, Purpose.QUESTION))
    state = after(view, plan).thread
    assert (state.state, state.acknowledged_at, state.owner) == (ThreadState.AWAITING_WARD, None, None)


def test_erreur_stops_everything_asks_for_deletion_and_opens_an_incident():
    site = make_site()
    first, view = opened(site)
    plan = replied(site, view, one(first, Purpose.LETTER), "ERREUR")
    gone = after(view, plan)
    assert (gone.thread.state, gone.thread.desk) == (ThreadState.WITH_DESK, "sorties")
    assert plan.incident is not None
    assert plan.incident.kind == "wrong_recipient"
    assert plan.incident.due == LATER + timedelta(hours=72)
    assert "supprimer" in text(one(plan, Purpose.RECALL))
    assert {d.to for d in plan.deliveries if d.purpose is Purpose.WARD_NOTE} == {
        "ward:cardiologie",
        "desk:sorties",
    }
    again = replied(site, sent(gone), one(first, Purpose.LETTER), "OK")
    assert again.thread is None or again.thread.state is ThreadState.WITH_DESK


def test_a_ward_takes_its_letter_back():
    site = make_site(receipts="each")
    plan = planning.plan_notice(site, arrive(site, letter()), LINKED, AT)
    view = sent(after(None, plan))
    receipt = one(plan, Purpose.RECEIPT)
    back = replied(site, view, receipt, "ANNULER", sender=WARD)
    closed = after(view, back).thread
    assert (closed.state, closed.closed_reason) == (ThreadState.CLOSED, "recalled")
    assert "Envoyée par erreur : merci de supprimer sans lire." in text(one(back, Purpose.RECALL))
    assert back.cancel_queued == ((view.thread.id, Why.RECALLED),)
    assert Purpose.LETTER in back.cancel_purposes
    assert Purpose.RECALL not in back.cancel_purposes
    assert back.incident is not None
    assert back.incident.kind == "recall"
    (edited,) = [d for d in back.deliveries if d.purpose is Purpose.EDIT]
    assert chat(edited).fields.kind is ChatKind.WITHDRAWN


def test_a_recall_before_the_letter_left_tells_nobody_but_the_ward():
    site = make_site(receipts="each")
    plan = planning.plan_notice(site, arrive(site, letter()), LINKED, AT)
    view = after(None, plan)
    back = planning.plan_recall(site, view, "ward:cardiologie", "erreur", LATER)
    assert {d.purpose for d in back.deliveries} == {Purpose.WARD_NOTE}
    states = {d.purpose: d.state for d in after(view, back).deliveries}
    assert states[Purpose.LETTER] is DeliveryState.CANCELLED
    assert back.incident is None


@pytest.mark.parametrize("state", [DeliveryState.IN_FLIGHT, DeliveryState.AMBIGUOUS, DeliveryState.SENT])
def test_a_recall_of_a_letter_that_may_have_left_is_an_incident(state: DeliveryState):
    site = make_site()
    _, view = opened(site)
    copies = tuple(
        replace(d, state=state if d.purpose is Purpose.LETTER else DeliveryState.CANCELLED)
        for d in view.deliveries
    )
    back = planning.plan_recall(site, replace(view, deliveries=copies), "ward:cardiologie", "erreur", LATER)
    assert back.incident is not None
    assert back.incident.kind == "recall"


def test_a_colleague_with_the_token_gets_no_content_and_a_desk_decides():
    site = make_site()
    first, view = opened(site)
    plan = replied(site, view, one(first, Purpose.LETTER), "OK", sender="dr.dupont@medecin.mssante.fr")
    assert (plan.state, plan.why) == (EnvelopeState.HELD, Why.UNKNOWN_SENDER)
    neutral = one(plan, Purpose.ACCOUNT)
    assert neutral.address == "dr.dupont@medecin.mssante.fr"
    assert "Cardiologie" not in str(neutral.recipe)
    assert after(view, plan).thread.state is ThreadState.WITH_DESK


def test_a_stranger_is_told_once_whatever_answers():
    site = make_site()
    first, view = opened(site)
    stranger = "dr.dupont@medecin.mssante.fr"
    plan = replied(site, view, one(first, Purpose.LETTER), "Absent", sender=stranger)
    view = sent(after(view, plan))
    again = replied(site, view, one(first, Purpose.LETTER), "Absent du cabinet", sender=stranger)
    assert not [d for d in again.deliveries if d.purpose is Purpose.ACCOUNT]


def test_two_machines_that_answer_each_other_through_the_relay_are_stopped():
    site = make_site()
    first, view = opened(site)
    turns = 0
    mail, sender = one(first, Purpose.LETTER), GP
    while turns < 30:
        plan = replied(site, view, mail, f"Bonjour, message {turns}", sender=sender)
        if plan.state is EnvelopeState.HELD:
            break
        turns += 1
        wanted, sender = (Purpose.QUESTION, WARD) if sender == GP else (Purpose.ANSWER, GP)
        mail = next(d for d in plan.deliveries if d.purpose is wanted and d.message_id)
        view = sent(after(view, plan))
    assert turns == 8
    assert plan.why is Why.AUTOMATIC
    assert replied(site, view, one(first, Purpose.LETTER), "OK").state is EnvelopeState.DECIDED


def test_another_mailbox_of_the_same_gp_is_the_same_gp():
    site = make_site()
    first, view = opened(site)
    reply = answer_to(site, one(first, Purpose.LETTER), "OK", sender="cabinet@medecin.mssante.fr")
    context = Context(threads=(view,), owners={"cabinet@medecin.mssante.fr": MARTIN.rpps or ""})
    plan = planning.plan_reply(site, reply, context, LATER)
    assert isinstance(plan, Plan)
    assert plan.thread is not None
    assert plan.thread.state is ThreadState.ACKNOWLEDGED


def test_a_forward_is_never_appended():
    site = make_site()
    first, view = opened(site)
    plan = replied(site, view, one(first, Purpose.LETTER), "OK", subject="TR: Lettre de liaison")
    assert (plan.state, plan.why) == (EnvelopeState.HELD, Why.FORWARDED_REPLY)
    assert plan.thread is None


def test_a_token_and_references_of_different_threads_are_held():
    site = make_site()
    first, view = opened(site)
    other = site.tokens.message_id(planning.site.thread_id("x"), f"rpps:{MARTIN.rpps}", "b" * 24)
    plan = replied(site, view, one(first, Purpose.LETTER), "OK", headers={"References": other})
    assert (plan.state, plan.why) == (EnvelopeState.HELD, Why.TOKEN_MISMATCH)


def test_a_sender_whom_the_operator_calls_forged_is_held():
    site = make_site()
    first, view = opened(site)
    results = {"Authentication-Results": "operateur.mssante.fr; spf=pass; dkim=fail header.d=mssante.fr"}
    plan = replied(site, view, one(first, Purpose.LETTER), "OK", headers=results)
    assert (plan.state, plan.why) == (EnvelopeState.HELD, Why.AUTHENTICATION_FAILED)
    assert plan.reference == view.thread.reference
    assert plan.hold is not None
    assert plan.hold.thread == view.thread.id
    assert "Une réponse est à lire" in text(one(plan, Purpose.HOLD_NOTE, "desk:sorties"))
    assert {d.to for d in plan.deliveries} == {"desk:sorties"}
    other = {"Authentication-Results": "autre.example; dkim=fail"}
    fine = replied(site, view, one(first, Purpose.LETTER), "OK", headers=other)
    assert fine.state is EnvelopeState.DECIDED


def test_a_visible_reference_alone_proves_nothing():
    site = make_site()
    _, view = opened(site)
    raw = letters.mail(
        "OK", sender=GP, to="relais@relais45.mssante.fr", subject=f"Re: Réf. {view.thread.reference}"
    )
    plan = planning.plan_reply(site, arrive(site, raw, adapter="retours"), Context(threads=(view,)), LATER)
    assert isinstance(plan, Plan)
    assert (plan.state, plan.why) == (EnvelopeState.HELD, Why.UNCLEAR)


def test_matching_asks_for_the_thread_that_token_and_message_id_name():
    site = make_site()
    first, view = opened(site)
    mail = one(first, Purpose.LETTER)
    reply = answer_to(site, mail, "OK", sender=GP)
    ask = planning.ask_of_mail(site, reply.document, reply.recognised, Ask())
    assert ask.threads == (view.thread.id,)
    assert ask.deliveries == (mail.id,)
    assert mail.message_id in ask.message_ids
    assert ask.addresses == (GP,)


# ------------------------------------------------------------------------------------------------------- receipts


def report(site: Site, view: ThreadView, raw: bytes) -> Plan:
    arrival = arrive(site, raw, adapter="retours")
    return planning.plan_receipt(site, arrival, Context(threads=(view,), deliveries=view.deliveries), LATER)


def test_a_delivery_report_moves_the_copy_and_acknowledges_nothing():
    site = make_site()
    first, view = opened(site)
    mail = one(first, Purpose.LETTER)
    plan = report(site, view, letters.dsn(original_message_id=mail.message_id or "", envid=mail.id))
    assert [(n.delivery, n.state) for n in plan.news] == [(mail.id, DeliveryState.ACCEPTED)]
    assert after(view, plan).thread.state is ThreadState.AWAITING_ACK
    read = report(site, view, letters.mdn(original_message_id=mail.message_id or ""))
    assert [(n.delivery, n.state) for n in read.news] == [(mail.id, DeliveryState.SEEN)]
    assert after(view, read).thread.state is ThreadState.AWAITING_ACK


def test_where_reading_is_awaited_a_read_receipt_closes_as_read_without_answer():
    site = make_site(rules=RULES.replace("await: ack", "await: seen"))
    first, view = opened(site)
    plan = report(site, view, letters.mdn(original_message_id=one(first, Purpose.LETTER).message_id or ""))
    closed = after(view, plan).thread
    assert (closed.state, closed.closed_reason) == (ThreadState.CLOSED, Why.SEEN_NO_ANSWER)
    assert closed.acknowledged_at is None


def test_a_refused_letter_is_told_to_the_ward_and_a_desk_takes_it():
    site = make_site()
    first, view = opened(site)
    mail = one(first, Purpose.LETTER)
    raw = letters.dsn(
        original_message_id=mail.message_id or "", envid=mail.id, action="failed", status="5.1.1"
    )
    plan = report(site, view, raw)
    assert [(n.state, n.why) for n in plan.news] == [(DeliveryState.FAILED, Why.UNKNOWN_MAILBOX)]
    assert after(view, plan).thread.state is ThreadState.WITH_DESK
    note = one(plan, Purpose.HOLD_NOTE, "ward:cardiologie")
    assert "la boîte du destinataire n'existe pas" in text(note)
    for line in ("Médecin traitant :", "RPPS :", "Né(e) le :"):
        assert line in text(note)
    assert GP not in str(note.recipe)


def test_a_report_about_nothing_we_sent_is_ignored_with_its_reason():
    site = make_site()
    _, view = opened(site)
    plan = report(site, view, letters.dsn(original_message_id="<x@example.org>"))
    assert (plan.state, plan.why) == (EnvelopeState.IGNORED, Why.NO_SUCH_DELIVERY)


# ----------------------------------------------------------------------------------------------- sending, timers


def test_the_ladder_counts_from_the_sending():
    site = make_site()
    first, view = opened(site)
    mail = one(first, Purpose.LETTER)
    assert planning.wants_sent(site, mail, LATER)
    assert not planning.wants_sent(site, one(first, Purpose.ALERT), LATER)
    plan = planning.plan_sent(site, view, mail, LATER)
    assert plan is not None
    assert next(t.due for t in plan.timers if t.kind == "step") == LATER + timedelta(hours=1)
    assert [t.due for t in plan.timers if t.kind == "evidence"] == [LATER + timedelta(hours=1)]
    view = after(view, plan)
    assert planning.plan_sent(site, view, mail, LATER) is None


def fire(site: Site, view: ThreadView, level: int, at: datetime, kind: str = "step") -> Plan:
    timer = next(t for t in view.timers if t.kind == kind and t.level == level)
    return planning.plan_timer(site, timer, view, at)


def test_silence_is_reminded_by_chat_then_by_mail_and_ends_at_the_desk():
    site = make_site()
    _, view = opened(site)
    first = fire(site, view, 0, AT + timedelta(hours=1))
    reminder = one(first, Purpose.REMINDER)
    assert (reminder.adapter, chat(reminder).fields.kind) == ("telegram", ChatKind.REMINDER)
    assert len(first.grants) == 5
    view = sent(after(view, first))
    second = fire(site, view, 1, AT + timedelta(hours=2))
    view = sent(after(view, second))
    third = fire(site, view, 2, AT + timedelta(hours=4))
    gone = after(view, third)
    assert (gone.thread.state, gone.thread.desk, gone.thread.level) == (ThreadState.WITH_DESK, "sorties", 3)
    desk = one(third, Purpose.WARD_NOTE, "desk:sorties")
    assert desk.recipe.original == gone.thread.letter  # type: ignore[union-attr]
    assert "Personne n'a répondu" in text(one(third, Purpose.WARD_NOTE, "ward:cardiologie"))


def test_a_ward_that_is_reminded_before_anybody_asked_reads_of_no_question():
    rules = RULES.replace("remind: gp_ping", "remind: ward").replace(
        "followups:", "  ward: { who: sending_ward, via: [mss], carries: pointer }\nfollowups:"
    )
    site = make_site(rules=rules)
    _, view = opened(site)
    mail = one(fire(site, view, 0, AT + timedelta(hours=1)), Purpose.REMINDER, "ward:cardiologie")
    assert headers(mail)["Subject"].startswith("Lettre encore sans réponse – Réf. ")
    assert "question" not in text(mail).lower()


def test_the_second_rung_names_the_mailbox_and_a_mail_goes_there():
    site = make_site()
    _, view = opened(site)
    plan = fire(site, view, 1, AT + timedelta(hours=2))
    mails = [d for d in plan.deliveries if d.purpose is Purpose.REMINDER]
    assert [(d.adapter, d.address) for d in mails] == [("mss", GP)]
    assert (ODETTE.birth_name or "?") not in str(mails)


def test_a_reminder_without_a_linked_account_goes_to_the_mailbox():
    site = make_site()
    _, view = opened(site)
    plan = fire(site, replace(view, links=()), 0, AT + timedelta(hours=1))
    assert [(d.adapter, d.address) for d in plan.deliveries] == [("mss", GP)]


def test_of_steps_missed_while_down_only_the_latest_acts():
    site = make_site()
    _, view = opened(site)
    late = AT + timedelta(hours=9)
    for level in (0, 1):
        void = fire(site, view, level, late)
        assert not void.deliveries
        assert void.done_timers
        view = after(view, void)
    last = fire(site, view, 2, late)
    assert after(view, last).thread.state is ThreadState.WITH_DESK
    assert any("late" in each.note for each in last.audit)


def test_a_timer_of_an_older_revision_does_nothing():
    site = make_site()
    first, view = opened(site)
    timer = view.timers[0]
    plan = replied(site, view, one(first, Purpose.LETTER), "OK")
    void = planning.plan_timer(site, timer, after(view, plan), LATER)
    assert not void.deliveries
    assert void.thread is None
    assert void.done_timers == (timer.id,)


def test_a_refusal_on_the_wire_tells_the_ward_and_a_desk():
    site = make_site()
    first, view = opened(site)
    plan = planning.plan_failed(site, view, one(first, Purpose.LETTER), Why.UNKNOWN_MAILBOX, LATER)
    assert plan is not None
    assert after(view, plan).thread.state is ThreadState.WITH_DESK
    assert {d.to for d in plan.deliveries} == {"ward:cardiologie", "desk:sorties"}
    assert planning.plan_failed(site, view, one(first, Purpose.ALERT), Why.BLOCKED, LATER) is None


# -------------------------------------------------------------------------------------------------------- presses


def press(
    site: Site,
    view: ThreadView,
    first: Plan,
    verb: Verb,
    *,
    choice: str = "",
    sender: str = "9001",
    **grant: Any,
) -> tuple[Plan, str]:
    granted = next(g for g in first.grants if (g.verb, g.choice) == (verb, choice))
    event = Press("telegram", sender, "9001", "r1", granted.nonce, "cb")
    arrival = Envelope("press-" + granted.nonce, "telegram", "bot", "1", LATER, b"{}", event)
    context = Context(threads=(view,), grant=replace(granted, **grant), links=view.links)
    return planning.plan_press(site, arrival, event, context, LATER)


def test_one_press_acknowledges_and_uses_its_button_up():
    site = make_site()
    first, view = opened(site)
    plan, words = press(site, view, first, Verb.ACK)
    assert plan.thread is not None
    assert (plan.thread.state, plan.why) == (ThreadState.ACKNOWLEDGED, Why.PRESS)
    assert plan.used_grant == nonce(one(first, Purpose.ALERT), Verb.ACK)
    assert words == "Merci, c'est noté."
    after(view, plan)


def test_a_press_of_somebody_else_is_refused_and_answered():
    site = make_site()
    first, view = opened(site)
    plan, words = press(site, view, first, Verb.ACK, sender="666")
    assert (plan.thread, plan.why, plan.state) == (None, Why.PRESS_NOT_YOURS, EnvelopeState.DECIDED)
    assert words == "ce bouton ne vous est pas destiné"


def test_another_account_of_the_same_doctor_has_buttons_of_its_own():
    site = make_site()
    first, view = opened(site)
    second = replace(LINK, chat="9002", account="9002")
    plan, _ = press(site, replace(view, links=(LINK, second)), first, Verb.ACK, sender="9002")
    assert (plan.thread, plan.why) == (None, Why.PRESS_NOT_YOURS)


def test_a_press_of_an_account_no_longer_linked_is_refused():
    site = make_site()
    first, view = opened(site)
    plan, _ = press(site, replace(view, links=()), first, Verb.ACK)
    assert (plan.thread, plan.why) == (None, Why.PRESS_NOT_YOURS)


def test_a_used_and_an_expired_button_are_refused():
    site = make_site()
    first, view = opened(site)
    assert press(site, view, first, Verb.ACK, used_at=AT)[0].why is Why.PRESS_USED
    assert press(site, view, first, Verb.ACK, expires=LATER)[0].why is Why.PRESS_EXPIRED


def test_a_press_after_a_colleague_says_who_took_it_and_when():
    site = make_site()
    first, view = opened(site)
    taken = replace(
        view.thread, state=ThreadState.ACKNOWLEDGED, owner="rpps:10009990027", acknowledged_by="Dr Dupont",
        acknowledged_at=datetime(2026, 12, 1, 13, 2, tzinfo=UTC),
    )  # fmt: skip
    plan, words = press(site, replace(view, thread=taken), first, Verb.ACK)
    assert plan.why is Why.PRESS_TAKEN
    assert words == "déjà prise par Dr Dupont à 14:02"


def test_a_secretary_acknowledges_in_the_doctors_name():
    site = make_site()
    first, view = opened(site)
    plan, _ = press(site, replace(view, links=(replace(LINK, role="secrétariat"),)), first, Verb.ACK)
    assert plan.thread is not None
    assert plan.thread.acknowledged_by == "par le secrétariat du Dr Martin"


def test_question_opens_coded_choices_and_a_choice_reaches_the_ward():
    site = make_site()
    first, view = opened(site)
    more, words = press(site, view, first, Verb.MORE, choice="ask")
    assert words == ""
    (changed,) = more.deliveries
    verbs = [(b.verb, b.choice) for row in chat(changed).buttons for b in row]
    assert verbs[0] == (Verb.ACK, "")
    assert (Verb.ASK, "treatment") in verbs
    assert nonce(changed, Verb.ACK) == nonce(one(first, Purpose.ALERT), Verb.ACK)
    plan, _ = press(site, view, more, Verb.ASK, choice="treatment")
    question = one(plan, Purpose.QUESTION)
    assert "traitement" in text(question)
    assert after(view, plan).thread.state is ThreadState.AWAITING_WARD


def test_later_stops_the_clock_and_wakes_again():
    site = make_site()
    first, view = opened(site)
    more, _ = press(site, view, first, Verb.MORE, choice="snooze")
    plan, words = press(site, view, more, Verb.SNOOZE, choice="tomorrow")
    assert words == "Rappel prévu le 2/12 à 8 h 00."
    snoozed = sent(after(view, plan))
    wake = fire(site, snoozed, 0, datetime(2026, 12, 2, 7, tzinfo=UTC), "wake")
    assert one(wake, Purpose.REMINDER).adapter == "telegram"
    assert after(snoozed, wake).thread.snoozed_until is None


def test_not_my_patient_by_phone_does_what_the_mail_does():
    site = make_site()
    first, view = opened(site)
    plan, _ = press(site, view, first, Verb.REFUSE)
    assert after(view, plan).thread.state is ThreadState.WITH_DESK
    assert plan.incident is not None
    assert "supprimer" in text(one(plan, Purpose.RECALL))


def test_typed_text_is_sent_to_secure_mail_and_kept_nowhere():
    site = make_site()
    typed = Typed("telegram", "9001", "9001", "5", None)
    arrival = Envelope("typed", "telegram", "bot", "2", LATER, b"{}", typed)
    plan, _ = planning.plan_typed(site, arrival, typed, LINKED, LATER)
    assert plan.why is Why.FREE_TEXT
    assert chat(plan.deliveries[0]).fields.kind is ChatKind.REDIRECT
    stranger, _ = planning.plan_typed(site, arrival, typed, Context(), LATER)
    assert chat(stranger.deliveries[0]).fields.kind is ChatKind.UNKNOWN


def test_somebody_not_linked_yet_reads_what_the_hospital_links_them_by():
    site = make_site()
    for typed, account in (
        (Typed("telegram", "9001", "9001", "5", "/start"), "telegram:9001"),
        (Typed("telegram", "9001", "-77", "5", None), "telegram:-77:9001"),
        (Typed("webchat", "alice", "alice", "5", None), ""),
    ):
        arrival = Envelope("typed", typed.channel, "bot", "2", LATER, b"{}", typed)
        said = chat(planning.plan_typed(site, arrival, typed, Context(), LATER)[0].deliveries[0]).fields
        assert said.account == account
        shown = chat_text(said)
        assert "n'est relié à aucun professionnel" in shown
        assert account in shown
        if account:
            assert registers.link("10002422979", account).account == "9001"
        linked = planning.plan_typed(site, arrival, typed, LINKED, LATER)[0]
        assert typed.channel != "telegram" or not chat(linked.deliveries[0]).fields.account


def test_the_letters_that_wait_for_a_doctor_are_those_without_their_answer():
    site = make_site()
    first, view = opened(site)
    taken = after(view, press(site, view, first, Verb.ACK)[0])
    typed = Typed("telegram", "9001", "9001", "5", "/lettres")
    arrival = Envelope("typed", "telegram", "bot", "2", LATER, b"{}", typed)

    def listed(each: ThreadView) -> list[str]:
        plan, _ = planning.plan_typed(site, arrival, typed, replace(LINKED, threads=(each,)), LATER)
        return [reference for reference, _ in chat(plan.deliveries[0]).fields.references]

    assert listed(view) == [view.thread.reference]
    assert listed(taken) == []


# ------------------------------------------------------------------------------------------------------- commands


def test_a_command_does_what_a_person_may_and_says_why_not():
    site = make_site()
    _, view = opened(site)
    plan = planning.plan_verb(site, view, Verb.ACK, f"rpps:{MARTIN.rpps}", None, LATER)
    acknowledged = after(view, plan)
    assert acknowledged.thread.state is ThreadState.ACKNOWLEDGED
    with pytest.raises(Refused):
        planning.plan_verb(site, view, Verb.ACK, f"rpps:{DUPONT.rpps}", None, LATER)
    with pytest.raises(Refused, match="no desk"):
        planning.plan_verb(site, view, Verb.HAND_OVER, "ward:cardiologie", "desk:nulle-part", LATER)
    handed = planning.plan_verb(site, view, Verb.HAND_OVER, "ward:cardiologie", "desk:sorties", LATER)
    assert after(view, handed).thread.desk == "sorties"
    closed = planning.plan_verb(site, view, Verb.CLOSE, "desk:sorties", "by_phone", LATER)
    assert after(view, closed).thread.closed_reason == "by_phone"


def test_an_answer_from_the_command_line_reaches_the_gp():
    site = make_site()
    _, view = opened(site)
    plan = planning.plan_verb(site, view, Verb.ANSWER, "ward:cardiologie", "Oui, à 2,5 mg.", LATER)
    assert any("Oui, à 2,5 mg." in str(d.recipe) and d.address == GP for d in plan.deliveries)


def test_an_objection_stops_what_is_queued_and_leaves_what_left():
    site = make_site()
    first = planning.plan_notice(site, arrive(site, letter()), LINKED, AT)
    view = after(None, first)
    plan = planning.plan_objection(site, view, "all", "admin:x", LATER)
    assert plan is not None
    assert {n.why for n in plan.news} == {Why.OBJECTION}
    assert {n.delivery for n in plan.news} == {d.id for d in first.deliveries}
    left = planning.plan_objection(site, sent(view), "all", "admin:x", LATER)
    assert left is not None
    assert not left.news


def test_admins_are_told_once_when_an_adapter_breaks():
    site = make_site()
    plan = planning.plan_admin(site, "broken", "mss", "connection", 600.0, LATER)
    assert plan is not None
    mail = one(plan, Purpose.ADMIN)
    assert mail.address == "informatique@chr-exemple.mssante.fr"
    assert "10 min" in text(mail)


def test_no_mail_is_planned_for_another_domain():
    site = make_site()
    site = replace(site, settings=replace(site.settings, domains=("apicrypt.org",)))
    plan = planning.plan_notice(site, arrive(make_site(), letter()), LINKED, AT)
    assert (plan.state, plan.why) == (EnvelopeState.HELD, Why.OUTSIDE_DOMAIN)
    assert {(d.state, d.why) for d in plan.deliveries} == {(DeliveryState.CANCELLED, Why.OUTSIDE_DOMAIN)}


def test_chat_copies_never_carry_a_document_or_a_name():
    site = make_site()
    first, view = opened(site)
    plans = [first, *(press(site, view, first, verb)[0] for verb in (Verb.ACK, Verb.CALL_ME, Verb.REFUSE))]
    said = [d.recipe for plan in plans for d in plan.deliveries if isinstance(d.recipe, ChatRecipe)]
    assert said
    for word in ("VALBRUNE", ODETTE.birth_name or "?", "Cardiologie", "Martin", GP, WARD):
        assert all(word not in str(recipe) for recipe in said)


def test_threads_of_copies_are_what_they_say():
    site = make_site()
    plan, view = opened(site)
    assert isinstance(view.thread, Thread)
    assert all(d.thread == view.thread.id and d.reference == view.thread.reference for d in plan.deliveries)


# ------------------------------------------------------------------------------------------------------ late corners


def test_a_reminder_at_night_waits_until_the_morning():
    site = make_site()
    night = datetime(2026, 12, 1, 19, 30, tzinfo=UTC)
    first = planning.plan_notice(site, arrive(site, letter(), at=night), LINKED, night)
    plan = fire(site, sent(after(None, first)), 0, night + timedelta(hours=1))
    assert one(plan, Purpose.REMINDER).not_before == datetime(2026, 12, 2, 7, 0, tzinfo=UTC)


def test_a_site_that_only_observes_lets_no_thread_speak_either():
    first, view = opened(make_site())
    quiet = make_site(mode="observe")
    for plan in (
        replied(quiet, view, one(first, Purpose.LETTER), "Une question ?"),
        fire(quiet, view, 2, AT + timedelta(hours=4)),
        press(quiet, view, first, Verb.REFUSE)[0],
    ):
        assert plan.deliveries
        assert {d.state for d in plan.deliveries} == {DeliveryState.CANCELLED}


@pytest.mark.parametrize("state", ThreadState)
def test_how_a_try_ended_stops_no_other_copy(state: ThreadState):
    """The dispatcher marks what goes next in the commit that enters the tries before, whether or not one is planned
    again: that is right as long as no such plan takes anything back."""
    site = make_site()
    first, view = opened(site)
    view = replace(view, thread=replace(view.thread, state=state))
    some = one(first, Purpose.LETTER)
    to = {d.to: d for d in first.deliveries}
    plans = [
        planned
        for purpose in Purpose
        for delivery in (*to.values(), replace(some, to="desk:sorties"), replace(some, to="ward:cardiologie"))
        for copy in (replace(delivery, purpose=purpose),)
        for planned in (
            planning.plan_sent(site, view, copy, LATER),
            *(planning.plan_failed(site, view, copy, why, LATER) for why in Why),
        )
        if planned is not None
    ]
    assert plans
    assert not any(plan.news or plan.cancel_queued or plan.void_grants_of for plan in plans)


def test_a_desk_out_of_reach_is_the_admins_business():
    site = make_site()
    desk = one(held(site), Purpose.HOLD_NOTE, "desk:sorties")
    plan = planning.plan_failed(site, None, desk, Why.MAILBOX_FULL, LATER)
    assert plan is not None
    assert one(plan, Purpose.ADMIN).address == "informatique@chr-exemple.mssante.fr"
    assert "la boîte du destinataire est pleine" in text(one(plan, Purpose.ADMIN))
    assert headers(one(plan, Purpose.ADMIN))["Subject"].endswith(
        "une adresse de l'hôpital n'est pas joignable"
    )


@pytest.mark.parametrize("language", ["fr", "en"])
def test_the_admins_learn_of_a_letter_that_opens_no_more_and_not_of_an_address(language: str):
    site = make_site()
    site = replace(site, settings=replace(site.settings, language=language))
    notes = [one(held(site), Purpose.HOLD_NOTE, to) for to in ("desk:sorties", "ward:cardiologie")]
    desk, ward = (planning.plan_failed(site, None, note, Why.NOT_OPENED, LATER) for note in notes)
    assert desk is not None
    assert ward is not None
    for plan in (desk, ward):
        mail = one(plan, Purpose.ADMIN)
        assert headers(mail)["Subject"] == (
            "Relais : une lettre chiffrée ne s'ouvre plus"
            if language == "fr"
            else "Relais: an encrypted letter can no longer be opened"
        )
        assert "[smime]" in text(mail)
    # Only a desk is written to again, without the letter.
    assert one(desk, Purpose.HOLD_NOTE, "desk:sorties")
    said = "sans la lettre" if language == "fr" else "without the letter"
    assert [said in text(one(plan, Purpose.ADMIN)) for plan in (desk, ward)] == [True, False]


def test_a_ward_that_takes_back_a_letter_released_meanwhile_is_heard():
    site = make_site()
    plan = held(site)
    note = one(plan, Purpose.HOLD_NOTE, "ward:cardiologie")
    arrival = arrive(site, letter())
    arrival = replace(arrival, envelope=replace(arrival.envelope, id=plan.envelope or ""))
    assert plan.hold is not None
    released = planning.plan_release(site, arrival, LINKED, plan.hold, LATER)
    view = sent(after(None, released))
    reply = answer_to(site, note, "ANNULER", sender=PEOPLE)
    back = planning.plan_reply(site, reply, Context(threads=(view,), deliveries=(note,)), LATER)
    assert isinstance(back, Plan)
    assert after(view, back).thread.closed_reason == "recalled"
    other = answer_to(site, note, "Merci", sender=PEOPLE)
    kept = planning.plan_reply(site, other, Context(threads=(view,), deliveries=(note,)), LATER)
    assert isinstance(kept, Plan)
    assert kept.state is EnvelopeState.HELD


def test_what_was_attached_to_an_answer_is_said_to_be_missing():
    site = make_site()
    first, view = opened(site)
    raw = letters.mail(
        "Voici l'ECG.", sender=GP, to=headers(one(first, Purpose.LETTER))["Reply-To"], subject="RE: Lettre",
        attachments=[("ecg.pdf", letters.pdf(), "application/pdf")],
        headers={"In-Reply-To": headers(one(first, Purpose.LETTER))["Message-ID"]},
    )  # fmt: skip
    plan = planning.plan_reply(site, arrive(site, raw, adapter="retours"), Context(threads=(view,)), LATER)
    assert isinstance(plan, Plan)
    assert "(Pièces jointes non transmises par le relais : 1.)" in text(one(plan, Purpose.QUESTION))


def test_pressing_again_after_an_acknowledgement_says_that_it_is_done():
    site = make_site()
    first, view = opened(site)
    plan, _ = press(site, view, first, Verb.ACK)
    again, words = press(site, sent(after(view, plan)), first, Verb.ACK, expires=LATER)
    assert (again.why, words) == (Why.PRESS_USED, "c'est déjà fait")


@pytest.mark.parametrize("header", ["From", "Subject", "To"])
def test_no_name_of_a_ward_or_letter_can_add_a_header(header: str):
    site = make_site()
    raw = letters.xdm_mail(gp=MARTIN)
    arrival = arrive(site, raw)
    assert arrival.table is not None
    assert arrival.table.ward is not None
    nasty = replace(arrival.table.ward, name='Car"dio\r\nBcc: x@y.fr')
    arrival = replace(arrival, table=replace(arrival.table, ward=nasty))
    value = headers(one(planning.plan_notice(site, arrival, LINKED, AT), Purpose.LETTER))[header]
    assert "\n" not in value
    assert "\r" not in value


def copied(site: Site) -> tuple[Plan, ThreadView, Delivery]:
    """A letter whose pharmacist got a copy."""
    arrival = arrive(site, letter())
    assert arrival.resolution is not None
    assert arrival.resolution.registration is not None
    registration = replace(arrival.resolution.registration, pharmacist_mss="officine@pharma.mssante.fr")
    arrival = replace(arrival, resolution=replace(arrival.resolution, registration=registration))
    plan = planning.plan_notice(site, arrival, LINKED, AT)
    return plan, sent(after(None, plan)), one(plan, Purpose.LETTER, "pharmacist")


WITH_COPY = RULES.replace(
    "\ndefault: { hold",
    "\nalso:\n  - id: copie\n    when: { event: discharge }\n    copy: pharma\ndefault: { hold",
).replace(
    "followups:", "  pharma: { who: pharmacist, via: [mss], carries: document, basis: care_team }\nfollowups:"
)


def test_the_reader_of_a_copy_has_an_exchange_of_their_own_and_answers_for_nothing():
    site = make_site(rules=WITH_COPY)
    _, view, copy = copied(site)
    pharmacy = "officine@pharma.mssante.fr"
    nothing = replied(site, view, copy, "OK", sender=pharmacy)
    assert nothing.thread is None
    assert not nothing.deliveries
    asked = replied(site, view, copy, "Le traitement est-il poursuivi ?", sender=pharmacy)
    assert asked.thread is None
    question = one(asked, Purpose.QUESTION)
    assert "Le pharmacien écrit" in text(question)
    assert headers(question)["Subject"].startswith("Question du pharmacien – Réf. ")
    called = one(replied(site, view, copy, "RAPPEL", sender=pharmacy), Purpose.QUESTION)
    assert headers(called)["Subject"].startswith("Question du pharmacien – Réf. ")
    assert pharmacy not in str(question.recipe)
    view = sent(after(view, asked))
    back = replied(site, view, question, "Oui, trois mois.", sender=WARD)
    assert [d.address for d in back.deliveries] == [pharmacy]
    assert back.thread is None


@pytest.mark.parametrize(
    ("who", "column", "subject"),
    [
        ("nurse", "nurse_mss", "Question de l'infirmier ou de l'infirmière – Réf. "),
        ("home_hospitalisation", "had_mss", "Question de l'hospitalisation à domicile – Réf. "),
    ],
)
def test_a_question_to_the_ward_says_who_asks(who: str, column: str, subject: str):
    site = make_site(rules=WITH_COPY.replace("who: pharmacist", f"who: {who}"))
    arrival = arrive(site, letter())
    assert arrival.resolution is not None
    assert arrival.resolution.registration is not None
    registration = replace(arrival.resolution.registration, **{column: "soins@exemple.mssante.fr"})
    arrival = replace(arrival, resolution=replace(arrival.resolution, registration=registration))
    view = sent(after(None, planning.plan_notice(site, arrival, LINKED, AT)))
    (copy,) = [d for d in view.deliveries if d.address == "soins@exemple.mssante.fr"]
    asked = replied(site, view, copy, "À quelle heure ?", sender="soins@exemple.mssante.fr")
    assert headers(one(asked, Purpose.QUESTION))["Subject"].startswith(subject)
    own = one(replied(site, view, view.deliveries[0], "Une question.", sender=GP), Purpose.QUESTION)
    assert headers(own)["Subject"].startswith("Question du médecin traitant – Réf. ")


def test_a_copy_that_reached_the_wrong_pharmacy_is_an_incident_and_the_gp_goes_on():
    site = make_site(rules=WITH_COPY)
    _, view, copy = copied(site)
    plan = replied(site, view, copy, "ERREUR", sender="officine@pharma.mssante.fr")
    assert plan.incident is not None
    assert after(view, plan).thread.state is ThreadState.AWAITING_ACK
    assert one(plan, Purpose.RECALL).address == "officine@pharma.mssante.fr"


def test_a_patient_who_objects_to_copies_gets_none_made():
    site = make_site(rules=WITH_COPY)
    arrival = arrive(site, letter())
    assert arrival.resolution is not None
    assert arrival.resolution.registration is not None
    registration = replace(
        arrival.resolution.registration, pharmacist_mss="officine@pharma.mssante.fr", copies_opposed=True
    )
    arrival = replace(arrival, resolution=replace(arrival.resolution, registration=registration))
    plan = planning.plan_notice(site, arrival, LINKED, AT)
    copy = one(plan, Purpose.LETTER, "pharmacist")
    assert (copy.state, copy.why) == (DeliveryState.CANCELLED, Why.OBJECTION)
    assert one(plan, Purpose.LETTER, f"rpps:{MARTIN.rpps}").state is DeliveryState.QUEUED


def movement(arrival: Arrival) -> Arrival:
    """The same discharge as the hospital's system tells it."""
    notice = replace(arrival.notice, document="advance_notice", format="hl7v2")
    document = reading.read_file("a03.hl7", hl7.adt())
    return replace(arrival, document=document, recognised=replace(arrival.recognised, notice=notice))


def notified(site: Site, at: datetime = AT) -> tuple[Plan, ThreadView]:
    """An event of the hospital's system, without any letter."""
    arrival = movement(arrive(site, letter(), at=at))
    plan = planning.plan_notice(site, arrival, LINKED, at)
    return plan, sent(after(None, plan))


def follows(site: Site, first: Plan, view: ThreadView, arrival: Arrival) -> Plan:
    """What comes later for the same stay."""
    arrival = replace(arrival, envelope=replace(arrival.envelope, id="later"))
    ask = planning.ask_of_notice(arrival.notice, arrival.stay, Ask())
    context = Context(
        threads=(view,), links=(LINK,),
        documents={key: "first" for key in first.document_keys if key in ask.document_keys},
        stays=dict.fromkeys([*first.stay_keys, view.thread.stay], view.thread.id),
    )  # fmt: skip
    return planning.plan_notice(site, arrival, context, LATER)


def test_an_event_without_a_letter_is_told_in_our_own_words():
    site = make_site()
    plan, view = notified(site)
    mail = one(plan, Purpose.LETTER)
    assert "Sorti ce jour, lettre à venir." in text(mail)
    assert "Patient : " in text(mail)
    assert mail.recipe.original is None  # type: ignore[union-attr]
    assert headers(mail)["Subject"] == f"Lettre de liaison – Réf. {view.thread.reference}"


def test_the_letter_after_its_notice_is_followed_up_and_rings_once():
    site = make_site()
    first, view = notified(site)
    plan = follows(site, first, view, arrive(site, letter(), at=LATER))
    assert [d.purpose for d in plan.deliveries] == [Purpose.LETTER]
    assert [t.level for t in plan.timers] == [0, 1, 2]
    assert plan.thread is not None
    assert plan.thread.letter == "later"
    settled = replied(site, view, one(first, Purpose.LETTER), "OK")
    again = follows(site, first, after(view, settled), arrive(site, letter(), at=LATER))
    assert {d.purpose for d in again.deliveries} == {Purpose.LETTER, Purpose.ALERT}
    assert again.thread is not None
    assert again.thread.state is ThreadState.AWAITING_ACK


def test_a_notice_that_comes_after_its_letter_is_kept_and_told_to_nobody():
    site = make_site()
    first, view = opened(site)
    late = movement(arrive(site, letter(subject="A03"), at=LATER))
    plan = follows(site, first, view, late)
    assert plan.state is EnvelopeState.DECIDED
    assert not plan.deliveries
    assert plan.thread is not None
    assert plan.thread.letter == view.thread.letter


def test_a_retraction_tells_those_who_got_the_letter_and_closes_its_thread():
    site = make_site()
    first, view = opened(site)
    arrival = arrive(site, letter(subject="Retrait"), at=LATER)
    notice = replace(arrival.notice, document="retraction", retracts="1.2.3.4.5.6.7.8.9.10.11")
    plan = follows(site, first, view, replace(arrival, recognised=replace(arrival.recognised, notice=notice)))
    assert "L'hôpital a retiré cette lettre" in text(one(plan, Purpose.RECALL))
    closed = after(view, plan).thread
    assert (closed.state, closed.closed_reason) == (ThreadState.CLOSED, "superseded")
    (edited,) = [d for d in plan.deliveries if d.purpose is Purpose.EDIT]
    assert chat(edited).fields.kind is ChatKind.WITHDRAWN


def test_a_replacement_says_so_and_asks_anew():
    site = make_site()
    first, view = opened(site)
    arrival = arrive(site, letter(subject="Remplace"), at=LATER)
    notice = replace(arrival.notice, document="replacement")
    plan = follows(site, first, view, replace(arrival, recognised=replace(arrival.recognised, notice=notice)))
    mail = one(plan, Purpose.LETTER)
    assert headers(mail)["Subject"].startswith("[Annule et remplace] ")
    assert "Annule et remplace la lettre précédente" in text(mail)
    assert one(plan, Purpose.ALERT).state is DeliveryState.QUEUED


# ------------------------------------------------------------------------------------------- whatever they all do

ACTS = (
    "ok", "question", "rappel", "erreur", "absent", "answer", "annuler", "accepted", "read", "failed", "timer",
    "press_ack", "press_ask", "press_refuse", "sent", "close", "hand_over", "reopen",
)  # fmt: skip
WORDS = {"ok": "OK", "question": f"Et le potassium ? {GP}", "rappel": "RAPPEL", "erreur": "ERREUR",
         "absent": "ABSENT 04/01 10/01 Dr Y"}  # fmt: skip
PRESSES = {"press_ack": Verb.ACK, "press_ask": Verb.CALL_ME, "press_refuse": Verb.REFUSE}


def act(site: Site, first: Plan, view: ThreadView, what: str) -> Plan | None:
    """One thing that somebody or something does now."""
    mail = one(first, Purpose.LETTER)
    if what in WORDS:
        return replied(site, view, mail, WORDS[what])
    if what in PRESSES:
        return press(site, view, first, PRESSES[what])[0]
    if what in ("answer", "annuler"):
        receipt = one(first, Purpose.RECEIPT)
        words = f"Oui. {WARD}" if what == "answer" else "ANNULER"
        return replied(site, view, receipt, words, sender=WARD)
    if what in ("accepted", "failed"):
        action, status = ("delivered", "2.0.0") if what == "accepted" else ("failed", "5.2.2")
        raw = letters.dsn(
            original_message_id=mail.message_id or "", envid=mail.id, action=action, status=status
        )
        return report(site, view, raw)
    if what == "read":
        return report(site, view, letters.mdn(original_message_id=mail.message_id or ""))
    if what == "sent":
        return planning.plan_sent(site, view, mail, LATER)
    if what == "timer":
        due = min(view.timers, key=lambda t: t.due, default=None)
        return planning.plan_timer(site, due, view, max(due.due, LATER)) if due else None
    verb = {"close": Verb.CLOSE, "hand_over": Verb.HAND_OVER, "reopen": Verb.REOPEN}[what]
    try:
        return planning.plan_verb(site, view, verb, "desk:sorties", "desk:sorties", LATER)
    except Refused:
        return None


@settings(max_examples=many(80), deadline=None)
@given(st.sampled_from(["ack", "seen", "delivered"]), st.lists(st.sampled_from(ACTS), max_size=9))
def test_whatever_they_do_nobody_sees_the_others_address_and_no_chat_names_anybody(
    awaits: str, acts: list[str]
):
    site = make_site(receipts="each", rules=RULES.replace("await: ack", f"await: {awaits}"))
    first = planning.plan_notice(site, arrive(site, letter()), LINKED, AT)
    view = sent(after(None, first))
    for what in acts:
        plan = act(site, first, view, what)
        if plan is None:
            continue
        assert len({d.id for d in plan.deliveries}) == len(plan.deliveries)
        for copy in plan.deliveries:
            recipe = str(copy.recipe)
            if isinstance(copy.recipe, ChatRecipe):
                assert not any(
                    word in recipe for word in ("Cardiologie", "VALBRUNE", "Martin", "potassium", "@")
                )
            elif copy.to.startswith("rpps:"):
                assert WARD not in recipe
                assert PEOPLE not in recipe
            elif copy.to.startswith("ward:"):
                assert GP not in recipe
        # `after` itself checks that an open thread keeps a timer or a desk.
        view = sent(after(view, plan))


# ------------------------------------------------------------------------------------- what nobody would hear of


def test_a_stay_number_that_is_another_patients_holds_the_letter_until_a_person_looked():
    site = make_site()
    arrival = arrive(site, letter(stay="S-77"))
    assert arrival.stay is not None
    assert len(arrival.stay.asked) > 1
    for name in arrival.stay.asked:  # whichever of its names the other stay has
        context = replace(LINKED, stays={name: "another"}, strangers=frozenset({"another"}))
        plan = planning.plan_notice(site, arrival, context, AT)
        assert (plan.state, plan.why, plan.thread) == (EnvelopeState.HELD, Why.STAY_OF_ANOTHER, None)
        assert {d.purpose for d in plan.deliveries} == {Purpose.HOLD_NOTE}
    context = replace(context, stays=dict.fromkeys(arrival.stay.asked, "another"))
    looked = replace(arrival, released=Correction(by="desk:sorties", hold="h"))
    let_go = planning.plan_notice(site, looked, context, AT, ends=("h",))
    assert let_go.state is EnvelopeState.DECIDED
    assert let_go.thread is not None
    assert let_go.thread.stay == "", "a thread of its own, without the number that is another's"


def test_a_letter_that_nobody_would_hear_of_is_held():
    alone = RULES.replace("send: [gp, gp_ping]\n    followup: court", "send: [gp_ping]\n    followup: none")
    site = make_site(rules=alone)
    unheard = planning.plan_notice(site, arrive(site, letter()), Context(), AT)
    assert (unheard.state, unheard.why, unheard.thread) == (EnvelopeState.HELD, Why.NO_CHANNEL, None)
    assert one(unheard, Purpose.HOLD_NOTE, "desk:sorties").state is DeliveryState.QUEUED
    rung = planning.plan_notice(site, arrive(site, letter()), LINKED, AT)
    assert rung.state is EnvelopeState.DECIDED
    assert one(rung, Purpose.ALERT).state is DeliveryState.QUEUED
    followed = make_site(rules=alone.replace("followup: none", "followup: court"))
    reminded = planning.plan_notice(followed, arrive(followed, letter()), Context(), AT)
    assert reminded.state is EnvelopeState.DECIDED, "its reminders and its desk are still to come"
    written = planning.plan_notice(site, arrive(site, letter(), addressed=True), Context(), AT)
    assert written.state is EnvelopeState.DECIDED, "the ward wrote to that mailbox itself"
