"""The Annuaire Santé's API: what becomes of its records, and of every way in which it fails."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from adapters import annuaire
from relay.errors import Deferred, Rejected
from relay.model import Mailbox, Professional, Why
from relay.ports import Adapter, Directory, Inbox, Sender, Tools
from tests.servers import annuaire as double
from tests.servers import free_port
from tests.servers.annuaire import Annuaire, box, organisation, practitioner, role
from tests.stores import HandClock

AMBRE, BREME, CORAIL, DORE = "10000000001", "10000000002", "10000000003", "10000000004"
PRIVATE = {"system": "email", "value": "lea.ambre@orange.example"}
PEOPLE = (
    practitioner(AMBRE, "AMBRE", "Léa", box("Lea.Ambre@medecin.mssante.fr"), PRIVATE),
    role(AMBRE, "1", "a", box("cabinet.ambre@cpts.mssante.fr", "CAB"), {"system": "phone", "value": "0238000000"}),
    role(AMBRE, "2", "b", box("ambre@ancien.mssante.fr"), active=False),
    practitioner(BREME, "Brême", "Paul", active=False),
    role(BREME, "3", "b", box("paul.breme@medecin.mssante.fr")),
    practitioner(CORAIL, "CORAIL", "Zoé", box("zoe.corail@medecin.mssante.fr", red=True)),
    practitioner(DORE, "AMBRE", "Noé", {"system": "email", "value": "noe@gmail.example"}, profession="21"),
    organisation("a", "Maison de santé des Aydes", "450000099", "45770"),
    organisation("b", "Ancien cabinet", "450000107"),
)  # fmt: skip


@pytest.fixture
def server() -> Iterator[Annuaire]:
    started = Annuaire(resources=list(PEOPLE)).start()
    yield started
    started.stop()


@pytest.fixture
async def directory(server: Annuaire) -> AsyncIterator[annuaire.Annuaire]:
    opened = reached(server)
    yield opened
    await opened.close()


def reached(server: Annuaire, **changed: object) -> annuaire.Annuaire:
    given = {"api_key": server.key, "base_url": server.base_url, **changed}
    return annuaire.connect("annuaire", annuaire.Settings.model_validate(given), Tools(HandClock(), Path()))


# ------------------------------------------------------------------------------------------------ its records


async def test_the_adapter_fulfils_the_port_and_no_other(directory: annuaire.Annuaire) -> None:
    assert isinstance(directory, Adapter)
    assert isinstance(directory, Directory)
    assert not isinstance(directory, Inbox | Sender)
    await directory.probe()


async def test_a_doctor_comes_with_the_marked_mailboxes_of_person_and_sites(
    directory: annuaire.Annuaire,
) -> None:
    (found,) = await directory.find([AMBRE], [])
    assert found == Professional(
        AMBRE,
        "AMBRE",
        "Léa",
        "10",
        "",
        (
            Mailbox("cabinet.ambre@cpts.mssante.fr", "CAB", "Maison de santé des Aydes", "450000099"),
            Mailbox("lea.ambre@medecin.mssante.fr", "PER"),
        ),
        "45770",
    )


async def test_of_who_has_left_only_the_number_comes_back_whatever_a_role_still_says(
    directory: annuaire.Annuaire,
) -> None:
    assert await directory.find([BREME], []) == (Professional(BREME, active=False),)


async def test_a_red_listed_mailbox_and_an_ordinary_address_are_none(directory: annuaire.Annuaire) -> None:
    found = await directory.find([CORAIL, DORE], [])
    assert [each.mailboxes for each in found] == [(), ()]
    assert [each.profession for each in found] == ["10", "21"]


async def test_a_mailbox_counts_until_its_period_ends(directory: annuaire.Annuaire, server: Annuaire) -> None:
    gone = box("ambre@ancien.mssante.fr") | {"period": {"end": "2026-01-31"}}
    still = box("ambre@encore.mssante.fr") | {"period": {"end": "2199-01-31"}}
    server.resources = [practitioner(AMBRE, "AMBRE", "Léa", gone, still)]
    (found,) = await directory.find([AMBRE], [])
    assert [each.address for each in found.mailboxes] == ["ambre@encore.mssante.fr"]


async def test_whom_nobody_knows_does_not_come_back(directory: annuaire.Annuaire) -> None:
    assert [each.rpps for each in await directory.find(["10000000009", AMBRE], [])] == [AMBRE]
    assert await directory.find(["no number"], []) == ()


async def test_a_name_finds_all_who_bear_it_and_only_them(
    directory: annuaire.Annuaire, server: Annuaire
) -> None:
    server.resources.append(practitioner("10000000005", "AMBRES", "Éloi"))
    found = await directory.find([], ["ambre"])
    assert [(each.rpps, each.given_name) for each in found] == [(AMBRE, "Léa"), (DORE, "Noé")]


async def test_an_answer_about_another_number_than_was_asked_is_nobodys(
    directory: annuaire.Annuaire, server: Annuaire
) -> None:
    bundle = {"resourceType": "Bundle", "entry": [{"resource": PEOPLE[0]}]}
    server.fail(body=json.dumps(bundle).encode())
    assert await directory.find([DORE], []) == ()


async def test_two_names_under_one_number_are_told_and_two_spellings_are_one(
    directory: annuaire.Annuaire, server: Annuaire
) -> None:
    server.resources.append(practitioner(AMBRE, "AMBRE-DUVAL", "Léa") | {"id": "other"})
    (one,) = await directory.find([AMBRE], [])
    assert not one.two_names
    server.resources.append(practitioner(AMBRE, "Zwiller", "Ursule") | {"id": "third"})
    (torn,) = await directory.find([AMBRE], [])
    assert torn.two_names


async def test_a_person_with_two_numbers_is_nobody(directory: annuaire.Annuaire, server: Annuaire) -> None:
    both = practitioner("10000000006", "Ambre", "Luc", box("luc@medecin.mssante.fr"))
    both["identifier"].append({"system": "https://rpps.esante.gouv.fr", "value": "10000000007"})
    server.resources.append(both)
    assert await directory.find(["10000000006", "10000000007"], []) == ()


async def test_pages_are_followed_to_the_last_and_many_numbers_asked_in_few_calls(
    directory: annuaire.Annuaire, server: Annuaire
) -> None:
    numbers = [f"2{number:010d}" for number in range(100)]
    server.resources = [practitioner(each, "Foule", f"N{each}") for each in numbers]
    server.page = 7
    found = await directory.find(numbers, [])
    assert [each.rpps for each in found] == numbers
    people = [call for call in server.calls if call.kind == "Practitioner"]
    assert len([call for call in people if "_start" not in call.asked]) == 3
    assert len(people) == 6 + 6 + 3


async def test_an_answer_of_more_pages_than_any_name_has_is_none_at_all(
    directory: annuaire.Annuaire, server: Annuaire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(annuaire, "MAX_PAGES", 2)
    server.resources = [practitioner(f"2{number:010d}", "Foule", f"N{number}") for number in range(15)]
    server.page = 7
    with pytest.raises(Rejected) as told:
        await directory.find([], ["Foule"])
    assert told.value.why == Why.PROTOCOL


@pytest.mark.skipif(not double.EXAMPLES.exists(), reason="the shared samples are absent")
async def test_the_official_examples_are_read(directory: annuaire.Annuaire, server: Annuaire) -> None:
    server.resources = double.examples()
    truth = json.loads(double.EXAMPLES.with_name(double.EXAMPLES.name + ".truth.json").read_text())[
        "practitioners"
    ]
    found = await directory.find([each["rpps"] for each in truth], [])
    assert [(each.rpps, each.family_name, each.given_name) for each in found] == [
        (each["rpps"], each["family"], each["given"]) for each in truth
    ]
    assert [(each.mailboxes[0].address, each.mailboxes[0].kind) for each in found] == [
        (each["mss"], each["bal_type"]) for each in truth
    ]
    assert [len(each.mailboxes) for each in found] == [1, 1]


# ------------------------------------------------------------------------------------------------ its failures


@pytest.mark.parametrize(
    ("fault", "why", "retry_after"),
    [
        ({"status": 401}, Why.AUTHENTICATION, 300),
        ({"status": 403}, Why.AUTHENTICATION, 300),
        ({"status": 500}, Why.SERVER_ERROR, None),
        ({"status": 503, "retry_after": "120"}, Why.SERVER_ERROR, 120),
        ({"status": 429, "retry_after": "60"}, Why.RATE_LIMITED, 60),
        ({"status": 429, "times": 9}, Why.RATE_LIMITED, 1),
        ({"status": 302, "location": "https://portail.example/"}, Why.PROTOCOL, 300),
        ({"body": b"<html>portail</html>"}, Why.PROTOCOL, 60),
        ({"body": b"{}"}, Why.PROTOCOL, 60),
        ({"body": b"[" * 100_000}, Why.PROTOCOL, 60),
        ({"status": 200}, Why.PROTOCOL, 60),  # an OperationOutcome where a bundle is due
        ({"drop": True}, Why.PROTOCOL, None),
    ],
)
async def test_what_fails_for_now_is_deferred_with_its_reason(
    directory: annuaire.Annuaire,
    server: Annuaire,
    fault: dict[str, object],
    why: Why,
    retry_after: float | None,
) -> None:
    server.fail(**fault)
    with pytest.raises(Deferred) as told:
        await directory.find([AMBRE], [])
    assert (told.value.why, told.value.retry_after) == (why, retry_after)
    assert server.key not in str(told.value)
    assert "own words" not in str(told.value)


async def test_an_error_within_a_bundle_makes_it_no_answer(
    directory: annuaire.Annuaire, server: Annuaire
) -> None:
    outcome = {"resourceType": "OperationOutcome", "issue": [{"severity": "error"}]}
    server.fail(body=json.dumps({"resourceType": "Bundle", "entry": [{"resource": outcome}]}).encode())
    with pytest.raises(Deferred):
        await directory.find([AMBRE], [])


async def test_a_warning_within_a_bundle_is_passed_over(
    directory: annuaire.Annuaire, server: Annuaire
) -> None:
    outcome = {"resourceType": "OperationOutcome", "issue": [{"severity": "warning"}]}
    bundle = {"resourceType": "Bundle", "entry": [{"resource": outcome}, {"resource": PEOPLE[0]}]}
    server.fail(body=json.dumps(bundle).encode())
    assert [each.rpps for each in await directory.find([AMBRE], [])] == [AMBRE]


async def test_a_search_that_the_server_refuses_is_rejected(
    directory: annuaire.Annuaire, server: Annuaire
) -> None:
    server.fail(status=400)
    with pytest.raises(Rejected):
        await directory.find([AMBRE], [])


async def test_a_short_wait_that_the_server_asks_for_is_waited_out(
    directory: annuaire.Annuaire, server: Annuaire
) -> None:
    server.fail(status=429, retry_after="2")
    assert len(await directory.find([AMBRE], [])) == 1


async def test_a_page_that_fails_takes_the_whole_answer_with_it(
    directory: annuaire.Annuaire, server: Annuaire
) -> None:
    server.resources = [practitioner(f"2{number:010d}", "Foule", "N") for number in range(5)]
    server.page = 2
    server.fail(
        body=json.dumps(server._bundle(double.Call("Practitioner", {"family": ["foule"]}, "", 0))).encode()
    )
    server.fail(status=503)
    with pytest.raises(Deferred):
        await directory.find([], ["foule"])


async def test_the_key_is_sent_nowhere_else(directory: annuaire.Annuaire, server: Annuaire) -> None:
    other = Annuaire().start()
    try:
        server.resources = [practitioner(f"2{number:010d}", "Foule", "N") for number in range(5)]
        server.page, server.elsewhere = 2, other.base_url
        with pytest.raises(Deferred) as told:
            await directory.find([], ["foule"])
        assert told.value.why == Why.PROTOCOL
        assert other.calls == []
    finally:
        other.stop()


async def test_a_server_that_is_away_and_a_key_that_is_wrong_are_deferred(server: Annuaire) -> None:
    away = reached(server, base_url=f"http://127.0.0.1:{free_port()}/fhir/v2")
    with pytest.raises(Deferred) as told:
        await away.probe()
    assert told.value.why == Why.CONNECTION
    await away.close()
    wrong = reached(server, api_key="another-key")
    with pytest.raises(Deferred) as told:
        await wrong.probe()
    assert told.value.why == Why.AUTHENTICATION
    await wrong.close()


async def test_calls_leave_no_faster_than_the_gateway_takes_them(server: Annuaire) -> None:
    clock = HandClock()
    paced = annuaire.connect(
        "annuaire", annuaire.Settings(api_key=server.key, base_url=server.base_url), Tools(clock, Path())  # type: ignore[arg-type]
    )  # fmt: skip
    began = clock.now()
    for _ in range(18):
        await paced.probe()
    await paced.close()
    assert abs((clock.now() - began).total_seconds() - 1) < 0.001


async def test_key_and_question_are_in_no_log(
    server: Annuaire, directory: annuaire.Annuaire, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        await directory.find([AMBRE], [])
        server.fail(status=500)
        with pytest.raises(Deferred):
            await directory.find([AMBRE], [])
    assert server.key not in caplog.text
    assert AMBRE not in caplog.text
    assert server.key not in repr(annuaire.Settings.model_validate({"api_key": server.key}))


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"api_key": ""},
        {"api_key": "two words"},
        {"api_key": "k", "base_url": "http://annuaire.example/fhir"},
        {"api_key": "k", "base_url": "annuaire"},
        {"api_key": "k", "rate": 0},
        {"api_key": "k", "max_age": "soon"},
    ],
)
def test_settings_that_cannot_be_right_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        annuaire.Settings.model_validate(wrong)
