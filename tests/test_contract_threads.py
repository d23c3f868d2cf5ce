"""The outside contract of follow-ups and holds: what a person can do from the command line, and what is then so."""

from __future__ import annotations

from collections.abc import Callable

from tests import letters
from tests.conftest import GP, RELAY, WARD
from tests.letters import DUPONT, INS_NIR, MARTIN, ODETTE, patient
from tests.servers.dovecot import Dovecot
from tests.servers.telegram import Telegram
from tests.site import Site, body, parsed

MakeSite = Callable[..., Site]

SENDER = "sorties.cardio@chr-exemple.mssante.fr"
WARD_REPLIES = "sorties@chr-exemple.mssante.fr"
DESK = "dpo@chr-exemple.mssante.fr"
PAUL = patient("BRIAND", "Paul", sex="M", order=11, oid=INS_NIR)
BY_GP, BY_WARD, BY_DESK = (
    ("--by", f"rpps:{MARTIN.rpps}"),
    ("--by", "ward:cardiologie"),
    ("--by", "desk:sorties"),
)


def ready(site: Site) -> Site:
    site.directory([MARTIN, DUPONT])
    site.patients([(ODETTE, [MARTIN]), (PAUL, [DUPONT])])
    return site


def test_every_verb_of_a_follow_up_from_the_command_line(make_site: MakeSite, dovecot: Dovecot) -> None:
    site = ready(make_site())
    dovecot.deliver(WARD, letters.text_mail(gp=MARTIN), sender=SENDER)
    with site.running():
        dovecot.wait_messages(GP)
        (thread,) = site.json("threads", "list")
        ours = thread["reference"]

        def verb(name: str, *words: str) -> dict[str, object]:
            row: dict[str, object] = site.json("threads", name, ours, *words)
            return row

        site.relay("threads", "answer", ours, *BY_WARD, code=2)  # an answer has words
        assert verb("ask", *BY_GP, "--text", "Faut-il poursuivre ?")["state"] == "awaiting_ward"
        assert "Faut-il poursuivre ?" in body(parsed(dovecot.wait_messages(WARD_REPLIES)[0]))
        assert verb("answer", *BY_WARD, "--text", "Oui, un mois.")["state"] == "awaiting_gp"
        assert "Oui, un mois." in body(parsed(dovecot.wait_messages(GP, 2)[1]))
        before = site.rows("threads")[0]["deadline"]
        verb("snooze", *BY_GP, "--text", "monday")
        assert site.json("threads", "show", ours)["snoozed_until"]
        assert site.rows("threads")[0]["state"] == "awaiting_gp"
        assert before
        assert verb("ack", *BY_GP)["state"] == "acknowledged"
        assert verb("undo", *BY_GP)["owner"] is None
        assert verb("ack", *BY_GP)["owner"] == f"rpps:{MARTIN.rpps}"
        closed = verb("close", *BY_DESK, "--text", "by_phone")
        assert (closed["state"], closed["closed_reason"]) == ("closed", "by_phone")
        assert verb("reopen", *BY_WARD)["state"] != "closed"
        handed = verb("hand_over", *BY_WARD, "--text", "desk:sorties")
        assert (handed["state"], handed["owner"]) == ("with_desk", "desk:sorties")
        dovecot.wait_messages(DESK)
        assert (
            site.json("threads", "show", ours)["owner"] == site.rows("threads")[0]["owner"] == "desk:sorties"
        )
        assert verb("refuse", *BY_GP)["state"] == "with_desk"
        assert site.rows("incidents")[0]["kind"] == "wrong_recipient"
        recalled = verb("recall", *BY_DESK)
        assert (recalled["state"], recalled["closed_reason"]) == ("closed", "recalled")
        for refused in (("ack", "--by", "moi"), ("dance", *BY_GP)):
            site.relay("threads", refused[0], ours, *refused[1:], code=2)
        status = site.json("status")
        assert not any(status["invariants"].values())
        assert sum(status["threads"].values()) == len(site.json("threads", "list")) == 1


def test_each_kind_of_arrival_has_the_state_the_contract_gives_it(
    make_site: MakeSite, dovecot: Dovecot
) -> None:
    site = ready(make_site())
    plain = b"From: sorties.cardio@chr-exemple.mssante.fr\r\nSubject: planning\r\nMessage-ID: <%d@x>\r\n"
    dovecot.deliver(
        WARD,
        plain % 1 + b"\r\nLe planning change lundi.\r\n",
        plain % 2 + b"Auto-Submitted: auto-replied\r\n\r\nJe suis absent.\r\n",
        plain
        % 3
        + b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: application/octet-stream\r\n'
        b'Content-Disposition: attachment; filename="scan.bin"\r\n\r\n\x00\x01\x02\r\n--b--\r\n',
        letters.text_mail(gp=MARTIN),
        sender=SENDER,
    )
    dovecot.deliver(
        RELAY,
        letters.dsn(original_message_id="<unknown@ailleurs.fr>", to=RELAY),
        sender=GP,
    )
    with site.running():
        site.until(lambda: site.json("status")["received"] >= 5)
        site.until(lambda: site.json("status")["open"] == 0)
        rows = {row["message_id"]: (row["kind"], row["state"], row["why"]) for row in site.rows("envelopes")}
        assert rows["<1@x>"] == ("other", "ignored", "not_a_notice")
        assert rows["<2@x>"] == ("automatic", "ignored", "automatic")
        assert rows["<3@x>"][1] == "held"
        assert ("receipt", "ignored", "no_such_delivery") in rows.values()
        status = site.json("status")
        assert status["held"] == len(site.json("hold", "list")) == 1
        assert status["balance"] == 0
        assert status["received"] == len(site.json("envelopes", "list"))


def test_a_hold_is_released_with_a_patient_or_set_aside(
    make_site: MakeSite, dovecot: Dovecot, telegram: Telegram
) -> None:
    site = ready(make_site())
    nobody = letters.text_mail(
        body="Patient : BRIAND Paul\nService : Cardiologie\nDate de sortie : 01/12/2026\nN° de séjour : S-3\n\nCher confrère,\n\nSortie ce jour.\n",
    )
    dovecot.deliver(WARD, nobody, sender=SENDER)
    with site.running():
        held = site.row("hold")
        assert held["since"]
        released = site.json(
            "hold", "release", held["id"], "--patient", str(PAUL.ins), "--gp", str(DUPONT.rpps), *BY_DESK
        )
        assert released["released"] == held["id"]
        assert released["reference"]
        (raw,) = dovecot.wait_messages("dr.dupont@medecin.mssante.fr")
        assert released["reference"] in body(parsed(raw))
        site.relay(
            "hold", "release", held["id"], "--gp", str(DUPONT.rpps), code=1
        )  # there is nothing to release any more
        (row,) = [each for each in site.rows("envelopes") if each["id"] == held["envelope"]]
        assert row["state"] == "decided"
        # Deciding again makes no second copy.
        copies = {each["id"] for each in site.rows("deliveries")}
        assert site.json("envelopes", "replay", row["id"])["state"] == "decided"
        assert {each["id"] for each in site.rows("deliveries")} == copies
        assert len(dovecot.messages("dr.dupont@medecin.mssante.fr")) == 1
        assert site.json("audit", "verify")["ok"] is True


def test_each_part_of_the_daemon_runs_alone(make_site: MakeSite, dovecot: Dovecot) -> None:
    site = ready(make_site())
    dovecot.deliver(WARD, letters.text_mail(gp=MARTIN), sender=SENDER)
    with site.running("--only", "intake"):
        site.row("deliveries", purpose="letter", state="queued")
        assert not dovecot.messages(GP)
    with site.running("--only", "dispatch"):
        dovecot.wait_messages(GP)


def test_parts_side_by_side_are_one_relay(make_site: MakeSite, dovecot: Dovecot) -> None:
    site = ready(make_site())
    intake, dispatch = (
        Site(site.folder, site.config, env=site.env, port=site.port, lives=lives) for lives in (10, 20)
    )

    def states() -> dict[str, str]:
        return {name: each["state"] for name, each in site.json("status")["adapters"].items()}

    all_up = dict.fromkeys(("cardiologie", "retours", "mss", "telegram"), "up")
    with dispatch.running("--only", "dispatch"), intake.running("--only", "intake"):
        dovecot.deliver(WARD, letters.text_mail(gp=MARTIN), sender=SENDER)
        site.until(lambda: states() == all_up)
        dovecot.wait_messages(GP)
        with site.running("--only", "console"):  # it tends no adapter: none is waited for, nor said to start
            assert site.get("/healthz")[0] == 200
            site.until(lambda: site.get("/readyz")[0] == 200)
            assert states() == all_up
            assert 'relay_adapter_up{adapter="mss"} 1.0' in site.get("/metrics")[1]
        assert states() == all_up
