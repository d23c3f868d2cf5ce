"""The console's page in a browser, in front of a running relay whose rule file is not what is in force.

A file of its own: while the browser's fixture lives, its loop runs in this thread and no other may.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser import browser  # noqa: F401 - a fixture
from tests.site import Site, free_port

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CONFIG = """\
[relay]
name = "Relais ville-hôpital"
language = "{language}"
rules = "routes.yaml"
domains = ["*.mssante.fr"]
[adapters.mss]
kind = "smtp"
host = "127.0.0.1"
port = {smtp}
security = "none"
from = "relais@relais45.mssante.fr"
[desks.sorties]
mail = "sorties@chr-exemple.mssante.fr"
[console]
listen = "127.0.0.1:{port}"
"""
RULES = """\
version: 1
targets:
  gp: { who: registered_gp, via: [mss], carries: document }
  sorties: { who: desk/sorties, via: [mss], carries: document }
followups:
  standard: { await: ack, ack: { within: 2d }, ladder: [ { after: 3d, hand_to: sorties } ] }
rules:
  - id: sortie
    when: { event: discharge }
    send: [gp]
    followup: standard
default: { hold: sorties, reason: "Rien ne va" }
"""


@pytest.fixture(params=["fr", "en"])
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    port = free_port()
    made = Site(
        tmp_path / "site", CONFIG.format(language=request.param, port=port, smtp=free_port()), port=port
    )
    (made.folder / "routes.yaml").write_text(RULES, encoding="utf-8")
    made.keys()
    made.start()
    yield made
    assert made.stop() == 0


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:  # noqa: F811
    context = browser.new_context(viewport={"width": 900, "height": 600})
    page = context.new_page()
    page.set_default_timeout(10_000)
    yield page
    context.close()


SAID = {
    "fr": re.compile(
        r"Depuis le \d+/\d+ à \d+ h \d\d, le fichier de règles routes\.yaml n'est pas celui qui est en vigueur : "
        r"il contient une erreur\. Les règles en vigueur restent celles du \d+/\d+ à \d+ h \d\d\."
    ),
    "en": re.compile(
        r"Since \d+ \w+ at \d\d:\d\d the rule file routes\.yaml has not been what is in force: it has an error\. "
        r"The rules in force stay those of \d+ \w+ at \d\d:\d\d\."
    ),
}


def test_the_page_says_since_when_the_file_is_not_what_is_in_force(page: Page, site: Site) -> None:
    language = "fr" if 'language = "fr"' in site.config else "en"
    url = f"http://127.0.0.1:{site.port}/"
    file = site.folder / "routes.yaml"
    page.goto(url)
    assert page.locator("html").get_attribute("lang") == language
    assert page.get_by_role("status").count() == 0
    file.write_text(RULES.replace("followup: standard", "followup: standart"), encoding="utf-8")
    site.until(lambda: site.logged("rules_file_refused"))
    page.goto(url)
    warning = page.get_by_role("status")
    assert warning.is_visible()
    assert SAID[language].fullmatch(warning.inner_text())
    file.unlink()
    page.goto(url)
    missing = {"fr": "il est introuvable ou illisible", "en": "it is missing or cannot be read"}
    assert missing[language] in page.get_by_role("status").inner_text()
    file.write_text(RULES, encoding="utf-8")
    page.goto(url)
    assert page.get_by_role("status").count() == 0
