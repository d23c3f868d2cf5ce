"""What the console's address answers: probes and metrics to anybody, the rest to nobody yet, foreign names never."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from relay import console, metrics
from relay.console.guard import host_of


async def _tour(_: Request) -> PlainTextResponse:
    return PlainTextResponse("tour", headers={"cache-control": "max-age=60"})


async def _channel(scope: Scope, receive: Receive, send: Send) -> None:
    where = f"{scope['root_path']}|{scope['path']}"
    await PlainTextResponse(where)(scope, receive, send)


@pytest.fixture
def readiness() -> console.Readiness:
    return console.Readiness(adapters={"cardiologie": False, "mss": False})


@pytest.fixture
def channels() -> dict[str, ASGIApp]:
    return {}


@pytest.fixture
async def browser(
    readiness: console.Readiness, channels: dict[str, ASGIApp]
) -> AsyncIterator[httpx.AsyncClient]:
    async def gauges() -> None:
        metrics.standing({"awaiting_ack": 3}, 12.5)

    app = console.app(
        readiness, listen=("127.0.0.1", 8025), channels=channels, pages=[Route("/", _tour)], gauges=gauges
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8025"
    ) as client:
        yield client


async def test_healthz_answers_before_anything_is_ready(browser: httpx.AsyncClient) -> None:
    assert (await browser.get("/healthz")).status_code == 200


async def test_readyz_says_what_is_still_waited_for(
    browser: httpx.AsyncClient, readiness: console.Readiness
) -> None:
    readiness.database = readiness.rules = True
    answer = await browser.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["waiting_for"] == ["listeners", "adapter cardiologie", "adapter mss"]
    readiness.listeners = True
    readiness.adapters["cardiologie"] = True
    assert (await browser.get("/readyz")).status_code == 503
    readiness.adapters["mss"] = True
    assert (await browser.get("/readyz")).status_code == 200


async def test_metrics_bear_the_contracts_names_and_read_the_store_when_asked(
    browser: httpx.AsyncClient,
) -> None:
    metrics.envelope("held")
    metrics.delivery("mss", "sent")
    metrics.alerted(0.04)
    metrics.adapter_up("mss", True)
    metrics.ruleset_ok(True)
    answer = await browser.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    for line in (
        'relay_envelopes_total{outcome="held"}',
        'relay_envelopes_total{outcome="corrupt"} 0.0',
        'relay_deliveries_total{adapter="mss",outcome="sent"}',
        'relay_arrival_to_alert_seconds_bucket{le="0.05"}',
        'relay_threads{state="awaiting_ack"} 3.0',
        'relay_adapter_up{adapter="mss"} 1.0',
        "relay_ruleset_ok 1.0",
        "relay_oldest_waiting_seconds 12.5",
    ):
        assert line in answer.text


@pytest.mark.parametrize("path", ["/admin", "/hold", "/anything/else", "/static/../relay.db"])
async def test_every_other_page_asks_for_a_sign_in(browser: httpx.AsyncClient, path: str) -> None:
    for method in ("GET", "POST"):
        assert (await browser.request(method, path)).status_code == 401


async def test_pages_given_by_the_demo_come_first(browser: httpx.AsyncClient) -> None:
    assert (await browser.get("/")).text == "tour"


async def test_a_channel_that_mounts_itself_later_is_served_under_its_name(
    browser: httpx.AsyncClient, channels: dict[str, ASGIApp]
) -> None:
    assert (await browser.get("/channel/webchat/ambre")).status_code == 404
    channels["webchat"] = _channel
    answer = await browser.get("/channel/webchat/ambre")
    assert answer.text == "/channel/webchat|/channel/webchat/ambre"
    assert (await browser.get("/channel/other/ambre")).status_code == 404


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8025", ""])
async def test_another_name_is_not_served_but_probes_are(browser: httpx.AsyncClient, host: str) -> None:
    assert (await browser.get("/", headers={"host": host})).status_code == 421
    for probe in ("/healthz", "/metrics"):
        assert (await browser.get(probe, headers={"host": host})).status_code == 200


@pytest.mark.parametrize("host", ["localhost:8025", "127.0.0.1", "[::1]:8025", "LOCALHOST"])
async def test_every_name_of_loopback_is_served(browser: httpx.AsyncClient, host: str) -> None:
    assert (await browser.get("/", headers={"host": host})).status_code == 200


def test_a_host_header_is_read_without_its_port() -> None:
    assert [host_of(each) for each in ("a.fr:80", "A.fr", "[::1]:80", "[::1]", "")] == [
        "a.fr", "a.fr", "::1", "::1", "",
    ]  # fmt: skip


@pytest.mark.parametrize("path", ["/", "/healthz", "/admin", "/channel/x/y", "/static/relais.css"])
async def test_every_answer_carries_the_security_headers(browser: httpx.AsyncClient, path: str) -> None:
    headers = (await browser.get(path)).headers
    assert headers["content-security-policy"].startswith("default-src 'self'")
    assert "unsafe" not in headers["content-security-policy"]
    assert "frame-ancestors 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


async def test_a_page_may_set_its_own_caching(browser: httpx.AsyncClient) -> None:
    assert (await browser.get("/")).headers["cache-control"] == "max-age=60"
    assert (await browser.get("/admin")).headers["cache-control"] == "no-store"


def test_templates_escape_everything() -> None:
    page = console.templates().get_template("sign_in.html").render(name="<script>x</script>", version="1")
    assert "<script>x" not in page
