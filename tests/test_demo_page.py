"""The demo's page in a browser, used as a person uses it.

A file of its own: while the browser's fixture lives, its loop runs in this thread and no other may.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.browser import browser  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One demo in a process of its own; each test below sends another of its letters."""
    errors = tmp_path_factory.mktemp("demo") / "stderr"
    log = errors.open("wb")
    running = subprocess.Popen(
        [sys.executable, "-m", "relay", "demo", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    assert running.stdout is not None
    opened = re.search(r"http://127\.0\.0\.1:\d+/", running.stdout.readline())
    assert opened is not None, errors.read_text()
    yield opened[0]
    running.terminate()
    assert running.wait(20) == 0
    running.stdout.close()
    log.close()


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:  # noqa: F811
    """The tour, open; any error of the page's own script fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, locale="fr-FR")
    page = context.new_page()
    page.set_default_timeout(25_000)
    broken: list[str] = []
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.goto(url)
    yield page
    context.close()
    assert not broken


def _send(page: Page, title: str) -> None:
    page.get_by_role("button", name=f"Envoyer : {title}", exact=True).click()


def _mail(page: Page, box: str, subject: str) -> Locator:
    """The newest mail of a mailbox whose subject begins so; a later reminder speaks of it, and is another."""
    heading = page.locator("summary b", has_text=re.compile(f"^{subject}"))
    return page.locator(f"#{box} .mail").filter(has=heading).first


def test_pressing_bien_recu_on_the_phone_ends_the_wait(page: Page) -> None:
    _send(page, "Lettre avec son PDF")
    told = page.locator(".story", has_text="PERVENCHE")
    reference = told.locator("code").inner_text().removeprefix("Réf. ")
    phone = page.frame_locator("#phone")
    alert = phone.locator("article", has_text=reference).first
    alert.get_by_role("button", name="Bien reçu", exact=True).click()
    told.locator(".state", has_text="Bien reçue – Dr Ambre").wait_for()
    alert.get_by_role("button").first.wait_for(state="detached")
    assert "PERVENCHE" not in phone.locator("body").inner_text()
    letter = page.locator("#doctor .mail", has_text="PERVENCHE").first
    letter.locator("summary").click()
    files = letter.locator(".files a")
    assert files.count() == 2
    assert page.evaluate(
        "document.querySelector('#doctor').scrollWidth <= document.querySelector('#doctor').clientWidth"
    )


def test_a_doctor_answers_by_mail_and_the_ward_answers_back(page: Page) -> None:
    _send(page, "Simple courriel")
    mail = page.locator("#doctor .mail", has_text="LORIOT Anselme").filter(has_not_text="onerror").first
    mail.locator("summary").click()
    mail.locator("textarea").fill("Faut-il arrêter le traitement du soir ?")
    mail.get_by_role("button", name="Répondre").click()
    question = _mail(page, "ward", "Question du médecin traitant")
    question.locator("summary").click()
    assert "arrêter le traitement du soir" in question.inner_text()
    question.locator("textarea").fill("Non, le poursuivre.")
    question.get_by_role("button", name="Répondre").click()
    answer = _mail(page, "doctor", "Réponse du service")
    answer.locator("summary").click()
    assert "Non, le poursuivre." in answer.inner_text()


def test_the_ward_corrects_a_held_letter_and_it_leaves(page: Page) -> None:
    _send(page, "« Dr Saule » : lequel ?")
    held = _mail(page, "ward", "Lettre retenue")
    held.locator("summary").click()
    assert "10099900473" in held.locator("textarea").input_value()
    held.get_by_role("button", name="Répondre").click()
    page.get_by_role("tab", name="Dr Dominique Saule").click()
    page.locator("#doctor .mail").wait_for()
    page.frame_locator("#phone").get_by_role("button", name="Bien reçu", exact=True).wait_for()
    page.locator(".story", has_text="Corrigée par le service").wait_for()


def test_the_ward_recalls_a_letter_by_one_word(page: Page) -> None:
    _send(page, "Lettre urgente")
    reference = page.locator(".story", has_text="ORME").locator("code").inner_text()
    receipt = page.locator("#ward .mail", has_text="Lettre reçue et transmise").filter(has_text=reference)
    receipt.locator("summary").click()
    receipt.get_by_role("button", name="ANNULER").click()
    page.locator(".story", has_text="ORME").locator(".state", has_text="Rappelée").wait_for()
    page.get_by_role("tab", name="Dr Claude Saule").click()
    _mail(page, "doctor", "Envoyée par erreur").wait_for()


CANARY = '<img src=x onerror="parent.canary=1;window.canary=1"><script>window.canary=1</script>'


def test_markup_in_a_letter_stays_text(page: Page) -> None:
    page.get_by_text("Écrire une lettre").click()
    text = page.locator("#letter").input_value()
    page.locator("#letter").fill(text.replace("Cher confrère,", f"Cher confrère, {CANARY}").replace(
        "N° de séjour : ", f"N° de séjour : {CANARY}"))  # fmt: skip
    page.locator("#write").get_by_role("button", name="Envoyer").click()
    letter = page.locator("#doctor .mail", has_text="onerror").first
    letter.locator("summary").click()
    assert "onerror" in letter.locator(".words").inner_text()
    assert page.locator("#doctor img").count() == 0
    assert page.evaluate("window.canary") is None


def test_the_page_can_be_used_without_a_mouse(page: Page) -> None:
    page.locator(".letter .main:enabled").first.focus()
    before = page.locator(".story").count()
    page.keyboard.press("Enter")
    page.locator(".story").nth(before).wait_for()
    page.get_by_role("tab").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("tab", selected=True).inner_text().startswith("Dr Claude Saule")


def test_opened_letters_scroll_in_their_column_and_the_page_stays_as_high_as_the_screen(page: Page) -> None:
    page.set_viewport_size({"width": 1400, "height": 900})
    for _ in range(4):
        page.get_by_text("Écrire une lettre").click()
        page.locator("#write").get_by_role("button", name="Envoyer").click()
        # It closes when the letter is taken; before that, the next click would close it instead of opening it.
        page.locator("details.write:not([open])").wait_for()
    page.locator("#doctor .mail").nth(3).wait_for()
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    page.locator("#doctor textarea").nth(3).wait_for()
    assert page.evaluate("document.documentElement.scrollHeight") <= 900


def test_the_page_fits_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 375, "height": 720})
    assert page.evaluate("document.documentElement.scrollWidth") <= 375


def test_another_site_cannot_act_or_look(url: str) -> None:
    with httpx.Client(base_url=url) as stranger:
        assert stranger.get("/demo/state").status_code == 403
        stranger.get("/")
        assert stranger.get("/demo/state").status_code == 200
        assert stranger.post("/demo/send", json={"letter": "xdm"}).status_code == 403
        assert stranger.get("/", headers={"host": "evil.example"}).status_code == 421
