"""The outside contract of a running relay: what leaves, in which words, and what its commands say of it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from datetime import date, timedelta

from tests import letters
from tests.conftest import GP, RELAY, WARD
from tests.letters import DUPONT, INS_NIR, MARTIN, ODETTE, doctor, patient
from tests.servers import free_port
from tests.servers.dovecot import Dovecot
from tests.servers.telegram import Telegram
from tests.site import Site, answer, body, documents, parsed, reference

MakeSite = Callable[..., Site]

SENDER = "sorties.cardio@chr-exemple.mssante.fr"
WARD_REPLIES = "sorties@chr-exemple.mssante.fr"
DESK = "dpo@chr-exemple.mssante.fr"
OTHER_GP = "dr.dupont@medecin.mssante.fr"
CHAT, OTHER_CHAT = 9001, 9002
PAUL = patient("BRIAND", "Paul", sex="M", order=11, oid=INS_NIR)
ENVELOPE = {"id", "adapter", "ref", "message_id", "kind", "state", "why", "rule", "reference", "received_at"}
DELIVERY = {
    "id", "envelope", "reference", "adapter", "to", "purpose", "state", "attempts", "message_id", "next_at", "why",
}  # fmt: skip
THREAD = {"id", "reference", "state", "owner", "level", "deadline", "closed_reason"}
HOLD = {"id", "envelope", "why", "reason", "rule", "since", "candidates"}
INCIDENT = {"id", "reference", "kind", "opened", "due", "closed"}


def ready(site: Site) -> Site:
    site.directory([MARTIN, DUPONT])
    site.patients([(ODETTE, [MARTIN]), (PAUL, [DUPONT])])
    links = site.folder / "links.csv"
    links.write_text(f"rpps,channel\n{MARTIN.rpps},telegram:{CHAT}\n{DUPONT.rpps},telegram:{OTHER_CHAT}\n")
    site.relay("directory", "link", "--file", links, "--no-notice")
    return site


def edit(site: Site, *changes: tuple[str, str]) -> Site:
    """Change the configuration before the daemon starts."""
    text = site.file.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    site.file.write_text(text, encoding="utf-8")
    return site


def test_a_text_letter_with_attachments_and_everything_said_of_it(
    make_site: MakeSite, dovecot: Dovecot, telegram: Telegram
) -> None:
    site = ready(make_site())
    scan, table = letters.pdf("Compte rendu"), b"a;b\n1;2\n"
    mail = letters.text_mail(
        gp=MARTIN,
        attachments=[("Compte rendu été.pdf", scan, "application/pdf"), ("bio.csv", table, "text/csv")],
    )
    dovecot.deliver(WARD, mail, sender=SENDER)
    with site.running():
        (raw,) = dovecot.wait_messages(GP)
        sent = parsed(raw)
        ours = reference(body(sent))
        # Exactly this subject; the original text verbatim; attachments under their names, byte for byte.
        assert str(sent["Subject"]) == f"Lettre de liaison – Réf. {ours}"
        assert body(parsed(mail)).strip() in body(sent)
        assert documents(sent) == {"Compte rendu été.pdf": scan, "bio.csv": table}
        assert str(sent["From"].addresses[0].display_name) == "Cardiologie – CHR d'Exemple (Relais)"
        assert sent["From"].addresses[0].addr_spec == RELAY
        assert sent["X-Auto-Response-Suppress"] == "All"
        assert sent["Disposition-Notification-To"]
        assert str(sent["Reply-To"]).startswith("relais+")
        assert str(sent["Return-Path"]).strip("<>").startswith("relais+")
        assert str(sent["Message-ID"]).startswith("<v1.")
        for hidden in (WARD, WARD_REPLIES, SENDER):
            assert hidden.encode() not in raw.replace(letters.RELAY_IN.encode(), b"")
        # The chat: these words and no others; the first button of the first row acknowledges.
        (alert,) = telegram.wait("sendMessage")
        assert alert["text"] == (
            f"Lettre de sortie à lire dans votre messagerie sécurisée. Non urgente. Réf. {ours}"
        )
        assert alert["reply_markup"]["inline_keyboard"][0][0]["text"] == "Bien reçu"
        # Lists: the contract's columns, narrowed by state, age and number.
        site.row("deliveries", purpose="letter", state="accepted")
        copies = site.json("deliveries", "list")
        assert {each["purpose"] for each in copies} == {"letter", "alert"}
        assert all(set(each) >= DELIVERY for each in copies)
        (copy,) = [each for each in copies if each["purpose"] == "letter"]
        assert copy["to"] == f"rpps:{MARTIN.rpps}"
        assert (copy["adapter"], copy["reference"]) == ("mss", ours)
        assert copy["message_id"] == str(sent["Message-ID"])
        assert [each["id"] for each in site.json("deliveries", "list", "--state", "accepted")] == [copy["id"]]
        assert len(site.json("deliveries", "list", "--limit", "1")) == 1
        assert site.json("deliveries", "list", "--since", (date.today() + timedelta(2)).isoformat()) == []  # noqa: DTZ011
        (arrived,) = [
            each for each in site.json("envelopes", "list", "--since", "1h") if each["kind"] == "notice"
        ]
        assert set(arrived) >= ENVELOPE
        assert (arrived["state"], arrived["rule"], arrived["why"]) == ("decided", "sortie", "rule")
        shown = site.json("envelopes", "show", arrived["id"], "--raw", site.folder / "brut.eml")
        assert shown["decision"]["rule"] == "sortie"
        assert parsed((site.folder / "brut.eml").read_bytes())["Message-ID"] == parsed(mail)["Message-ID"]
        assert documents(parsed((site.folder / "brut.eml").read_bytes())) == documents(parsed(mail))
        (thread,) = site.json("threads", "list")
        assert set(thread) >= THREAD
        assert (thread["reference"], thread["level"], thread["owner"]) == (ours, 0, None)
        assert len(site.json("threads", "show", ours)["deliveries"]) == 2
        status = site.json("status")
        assert sum(status["threads"].values()) == 1
        assert status["rules"]["file_matches"] is True
        assert status["rules"]["digest"]
        assert {name: each["state"] for name, each in status["adapters"].items()} == dict.fromkeys(
            ("cardiologie", "retours", "mss", "telegram"), "up"
        )
        page = site.get("/metrics")[1]
        for metric in (
            'relay_envelopes_total{outcome="decided"}', "relay_deliveries_total{adapter=",
            "relay_arrival_to_alert_seconds_bucket", 'relay_threads{state="awaiting_ack"} 1.0',
            "relay_ruleset_ok 1.0", "relay_oldest_waiting_seconds",
        ):  # fmt: skip
            assert metric in page, metric
        # Verbs from the command line: the ward and a person of the practice act; others may not.
        site.relay("threads", "ack", ours, "--by", f"rpps:{DUPONT.rpps}", code=1)
        acked = site.json("threads", "ack", ours, "--by", f"rpps:{MARTIN.rpps}")
        assert (acked["state"], acked["owner"]) == ("acknowledged", f"rpps:{MARTIN.rpps}")
        recalled = site.json("recall", ours, "--by", "admin", "--reason", "mauvais dossier")
        assert (recalled["state"], recalled["closed_reason"]) == ("closed", "recalled")
        told = parsed(dovecot.wait_messages(GP, 2)[1])
        assert "Envoyée par erreur : merci de supprimer sans lire." in body(told)
        (incident,) = site.json("incidents", "list")
        assert set(incident) >= INCIDENT
        assert (incident["reference"], incident["kind"]) == (ours, "recall")
        telegram.wait_for(lambda: any("retirée" in each["text"] for each in telegram.messages.values()))
    assert site.json("status")["adapters"]["mss"]["state"] == "down"  # a relay that was stopped is not up
    for secret in ("CORMERAIS", "Odette", str(ODETTE.ins), "bisoprolol", "Compte rendu", GP):
        assert secret not in site.logs


def test_what_is_held_tells_its_desk_the_reference_and_its_ward_what_to_correct(
    make_site: MakeSite, dovecot: Dovecot
) -> None:
    site = ready(edit(
        make_site(), ('done = "Traités"\n', ""), ('senders = ["*@chr-exemple.mssante.fr"]\n', ""),
        ('sees = "document"', 'sees = "reference"'),
    ))  # fmt: skip
    first, second = letters.text_mail(gp=MARTIN), letters.text_mail(patient=PAUL, gp=DUPONT, stay="S-2")
    dovecot.deliver(WARD, first, second, sender=SENDER)
    with site.running():
        site.until(lambda: len(site.rows("hold")) == 2)
        held = site.rows("hold")
        assert all(set(each) >= HOLD for each in held)
        assert {each["why"] for each in held} == {"unlisted_sender"}
        (note,) = dovecot.wait_messages(DESK)
        told = parsed(note)
        ours = reference(body(told))
        assert ours in str(told["Subject"])
        for hidden in ("CORMERAIS", "BRIAND", "Odette", "diurétiques", str(ODETTE.ins)):
            assert hidden not in told.as_string() + body(told)
        assert documents(told) == {}
        notes = [parsed(each) for each in dovecot.wait_messages(WARD_REPLIES, 2)]
        originals = {str(parsed(each)["Message-ID"]) for each in (first, second)}
        assert {str(each["In-Reply-To"]) for each in notes} == originals
        assert not any("CORMERAIS" in str(each["Subject"]) for each in notes)
        # No second mail to the desk within the minute; what was read stays where it is, flagged.
        (waiting,) = site.rows("deliveries", to="desk:sorties", state="deferred")
        assert waiting["next_at"]
        assert len(dovecot.messages(DESK)) == 1
        site.until(
            lambda: [flags for flags in dovecot.flags(WARD) if "\\Seen" in flags] == dovecot.flags(WARD)
        )
        assert len(dovecot.messages(WARD)) == 2
        assert site.json("status")["held"] == 2
        assert not dovecot.messages(GP)
        # A person releases one as another doctor's, and the hold may be named by its envelope too.
        (odette,) = [
            each
            for each in held
            if ODETTE.ins in each["candidates"] or each["envelope"] == held[0]["envelope"]
        ]
        site.relay("hold", "release", odette["id"], "--gp", str(MARTIN.rpps), "--by", "desk:sorties")
        dovecot.wait_messages(GP)
        assert site.json("status")["held"] == 1


def test_no_mail_leaves_for_a_domain_that_is_not_on_the_list(make_site: MakeSite, dovecot: Dovecot) -> None:
    site = make_site()
    elsewhere = doctor("Ailleurs", "Léa", 9, address="lea@gmail.exemple.fr")
    site.directory([elsewhere])
    site.patients([(ODETTE, [elsewhere])])
    dovecot.deliver(WARD, letters.text_mail(gp=elsewhere), sender=SENDER)
    with site.running():
        held = site.row("hold")
        assert held["rule"] == "mt-introuvable"
        site.relay("hold", "release", held["id"], "--gp", str(elsewhere.rpps), code=1)
        assert site.json("status")["held"] == 1
        assert not [each for each in site.rows("deliveries") if each["to"].startswith("rpps:")]


def test_one_mailbox_observes_while_chat_stays_off_without_the_dpo(
    make_site: MakeSite, dovecot: Dovecot, telegram: Telegram
) -> None:
    chirurgie = (
        '[adapters.chirurgie]\nkind = "imap"\nmode = "observe"\n'
        + make_site()
        .config.split("[adapters.cardiologie]\n")[1]
        .split("[adapters.retours]")[0]
        .split("\n", 1)[1]
    )
    chirurgie = chirurgie.replace(WARD, "chirurgie@chr-exemple.mssante.fr").replace(
        "Cardiologie", "Chirurgie"
    )
    chirurgie = chirurgie.replace('slug = "cardiologie"', 'slug = "chirurgie"')
    site = make_site()
    edit(site, ('dpo_agreed = "2026-11-01"', ""), ("[adapters.retours]", chirurgie + "[adapters.retours]"))
    ready(site)
    dovecot.deliver(
        "chirurgie@chr-exemple.mssante.fr",
        letters.text_mail(patient=PAUL, gp=DUPONT, stay="S-2"),
        sender=SENDER,
    )
    dovecot.deliver(WARD, letters.text_mail(gp=MARTIN), sender=SENDER)
    with site.running():
        dovecot.wait_messages(GP)
        row = site.row("envelopes", adapter="chirurgie")
        assert row["state"] == "decided"
        copies = [each for each in site.rows("deliveries") if each["envelope"] == row["id"]]
        assert copies
        assert {(each["state"], each["why"]) for each in copies} == {("cancelled", "observe")}
        assert not dovecot.messages(OTHER_GP)
        alert = site.row("deliveries", purpose="alert", to=f"rpps:{MARTIN.rpps}")
        assert (alert["state"], alert["why"]) == ("cancelled", "no_channel")
        assert not telegram.calls


def test_an_absent_doctor_gets_the_letter_and_the_substitute_the_alert(
    make_site: MakeSite, dovecot: Dovecot, telegram: Telegram
) -> None:
    site = ready(make_site())
    today = date.today()  # noqa: DTZ011 - the command reads local days
    site.relay(
        "directory", "away", str(MARTIN.rpps), "--from", (today - timedelta(1)).isoformat(),
        "--to", (today + timedelta(3)).isoformat(), "--substitute", str(DUPONT.rpps),
    )  # fmt: skip
    dovecot.deliver(WARD, letters.text_mail(gp=MARTIN), sender=SENDER)
    with site.running():
        (raw,) = dovecot.wait_messages(GP)
        (alert,) = telegram.wait("sendMessage")
        assert int(alert["chat_id"]) == OTHER_CHAT
        assert "Martin" not in alert["text"]
        assert not dovecot.messages(OTHER_GP)
        assert reference(body(parsed(raw))) in alert["text"]


def test_what_cannot_leave_waits_is_cancelled_retried_or_given_up(
    make_site: MakeSite, dovecot: Dovecot, telegram: Telegram
) -> None:
    site = make_site(smtp=free_port())  # nobody listens there
    ready(site)
    dovecot.deliver(
        WARD,
        letters.text_mail(gp=MARTIN),
        letters.text_mail(patient=PAUL, gp=DUPONT, stay="S-2"),
        sender=SENDER,
    )
    with site.running():
        site.until(lambda: len(site.rows("deliveries", purpose="letter", state="deferred")) == 2)
        first, second = sorted(
            site.rows("deliveries", purpose="letter"), key=lambda row: row["to"] != f"rpps:{MARTIN.rpps}"
        )
        assert first["next_at"]
        assert first["attempts"] >= 1
        assert first["why"] == "connection"
        assert site.json("status")["adapters"]["mss"]["state"] == "down"
        assert site.json("status")["oldest_waiting_s"] > 0
        assert site.json("deliveries", "retry", first["id"])["state"] == "queued"
        # An objection stops at once what is queued.
        alert = site.row("deliveries", purpose="alert", to=f"rpps:{DUPONT.rpps}", state="sent")
        stopped = site.json("patients", "object", str(PAUL.ins), "--scope", "all", "--by", "mme Roy")
        assert stopped["cancelled"] == [second["id"]]
        assert stopped["left"] == [alert["id"]]  # not what waits, nor the desk's own note
        assert site.row("deliveries", id=second["id"])["why"] == "objection"
        assert site.json("deliveries", "cancel", first["id"])["state"] == "cancelled"
        site.relay("deliveries", "cancel", first["id"], code=None)
        site.relay("deliveries", "retry", second["id"], code=1)


def test_a_copy_that_cannot_leave_for_too_long_fails_and_says_why(
    make_site: MakeSite, dovecot: Dovecot
) -> None:
    site = ready(edit(make_site(smtp=free_port()), ("[console]", '[delivery]\ngive_up = "1s"\n[console]')))
    dovecot.deliver(WARD, letters.text_mail(gp=MARTIN), sender=SENDER)
    with site.running():
        failed = site.row("deliveries", purpose="letter", state="failed")
        assert failed["why"] == "gave_up"
        site.row("deliveries", purpose="ward_note")
        assert not any(site.json("status")["invariants"].values())


def test_a_reply_whose_authentication_failed_is_never_appended(make_site: MakeSite, dovecot: Dovecot) -> None:
    site = ready(
        edit(make_site(), (f'from = "{RELAY}"', f'from = "{RELAY}"\nauthserv_id = "mx.operateur.fr"'))
    )
    dovecot.deliver(WARD, letters.text_mail(gp=MARTIN), sender=SENDER)
    with site.running():
        (raw,) = dovecot.wait_messages(GP)
        forged = answer(parsed(raw), "OK", sender=GP)
        mark = b"Authentication-Results: mx.operateur.fr; spf=pass; dkim=fail; dmarc=fail\r\n"
        dovecot.deliver(RELAY, mark + forged, sender=GP)
        assert site.row("hold")["why"] == "authentication_failed"
        assert site.rows("threads")[0]["state"] == "awaiting_ack"
        honest = answer(parsed(raw), "OK", sender=GP)
        dovecot.deliver(RELAY, b"Authentication-Results: mx.operateur.fr; dmarc=pass\r\n" + honest, sender=GP)
        site.row("threads", state="acknowledged")


def test_without_a_token_in_the_address_the_message_id_and_the_reference_are_enough(
    make_site: MakeSite, dovecot: Dovecot
) -> None:
    site = ready(edit(make_site(), ('reply = "relais+{token}@relais45.mssante.fr"', f'reply = "{RELAY}"')))
    dovecot.deliver(WARD, letters.text_mail(gp=MARTIN), sender=SENDER)
    with site.running():
        (raw,) = dovecot.wait_messages(GP)
        assert str(parsed(raw)["Reply-To"]) == RELAY
        dovecot.deliver(RELAY, answer(parsed(raw), "OK", sender=GP), sender=GP)
        site.row("threads", state="acknowledged")


def test_the_same_mail_with_other_received_lines_is_a_duplicate(
    make_site: MakeSite, dovecot: Dovecot
) -> None:
    site = ready(make_site())
    mail = letters.text_mail(gp=MARTIN)
    dovecot.deliver(
        WARD, mail, b"Received: from mx2 by mx1; Tue, 1 Dec 2026 17:50:00 +0100\r\n" + mail, sender=SENDER
    )
    with site.running():
        assert site.row("envelopes", why="duplicate")["state"] == "ignored"
        dovecot.wait_messages(GP)
        assert len(dovecot.messages(GP)) == 1


def test_pause_survives_processes_and_new_rules_come_with_a_hangup(
    make_site: MakeSite, dovecot: Dovecot, telegram: Telegram
) -> None:
    site = ready(make_site())
    assert site.json("pause", "mss") == {"paused": ["mss"]}
    rules = site.folder / "routes.yaml"
    with site.running():
        site.until(lambda: site.get("/readyz")[0] == 200)
        dovecot.deliver(WARD, letters.text_mail(gp=MARTIN), sender=SENDER)
        telegram.wait("sendMessage")  # another adapter's copies go on
        assert site.json("status")["adapters"]["mss"]["state"] == "paused"
        assert not dovecot.messages(GP)
        # A bad file: the rules in force stay, and status says that the file differs.
        good = rules.read_text(encoding="utf-8")
        rules.write_text(good.replace("followup: standard", "followup: standart"), encoding="utf-8")
        assert site.process is not None
        site.process.send_signal(signal.SIGHUP)
        site.until(lambda: site.logged("rules_file_refused"))
        assert site.json("status")["rules"]["file_matches"] is False
        digest = site.json("status")["rules"]["digest"]
        rules.write_text(
            good.replace("- id: sortie\n", "- id: sortie-ordinaire\n    was: sortie\n"), encoding="utf-8"
        )
        site.process.send_signal(signal.SIGHUP)
        site.until(lambda: site.json("status")["rules"]["digest"] != digest)
        dovecot.deliver(WARD, letters.text_mail(patient=PAUL, gp=DUPONT, stay="S-2"), sender=SENDER)
        site.row("envelopes", rule="sortie-ordinaire")
        site.relay("pause", "cardiologie", code=2)  # nothing leaves by a watched mailbox
        assert site.json("pause") == {"paused": ["mss", "telegram"]}
        states = {name: each["state"] for name, each in site.json("status")["adapters"].items()}
        assert states == {"cardiologie": "up", "retours": "up", "mss": "paused", "telegram": "paused"}
        assert site.json("resume") == {"resumed": ["mss", "telegram"]}
        dovecot.wait_messages(GP)
        dovecot.wait_messages(OTHER_GP)


def test_check_connects_and_authenticates_to_every_adapter(make_site: MakeSite, dovecot: Dovecot) -> None:
    site = ready(make_site())
    found = site.json("check", "--online")
    assert found["ok"] is True, found
    reached = {each["name"]: each["ok"] for each in found["checks"] if each["name"].startswith("online ")}
    assert reached == {f"online {name}": True for name in ("cardiologie", "retours", "mss", "telegram")}
    away = ready(make_site(smtp=free_port()))
    away.relay("check")  # nothing is wrong in the file
    away.relay("check", "--online", code=3)
    site.relay("check", "--online", env={"RELAIS_TEST_PASSWORD": "faux"}, code=3)
