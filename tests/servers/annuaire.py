"""A double of the Annuaire Santé FHIR API v2, in a thread of its own.

No real server can be had without an account. What is kept from the real one: the key header (401 without,
403 for a wrong one), so many calls a second (429), active and inactive records in one search, comma-parted
alternatives, `_include`, pages by `link next`, OperationOutcome beside errors. Every call stands in `calls`.
It can be told to fail. Its people are the official examples where the shared samples are at hand, and
invented ones always.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.servers import LOOPBACK

Json = dict[str, Any]  # Any: FHIR

SAMPLES = Path(__file__).parents[3] / "shared" / "samples" / "french"
EXAMPLES = (
    SAMPLES / "ansforge+interop-ig-fhir-api-messagerie-securisee-sante" / "AsExamplePractitionerBalMssPer.fsh"
)
IDNPS = "urn:oid:1.2.250.1.71.4.2.1"
MARK = "https://interop.esante.gouv.fr/ig/fhir/annuaire/StructureDefinition/as-ext-mailbox-mss-metadata"
NOS = "https://mos.esante.gouv.fr/NOS"


# ------------------------------------------------------------------------------------------- invented people


def box(address: str, kind: str = "PER", *, red: bool = False) -> Json:
    """A telecom that the directory marks as a secure mailbox."""
    code = {"system": f"{NOS}/TRE_R257-TypeBAL/FHIR/TRE-R257-TypeBAL", "code": kind}
    parts = [
        {"url": "type", "valueCodeableConcept": {"coding": [code]}},
        {"url": "listeRouge", "valueBoolean": red},
    ]
    return {"system": "email", "value": address, "extension": [{"url": MARK, "extension": parts}]}


def practitioner(
    rpps: str, family: str, given: str, *telecoms: Json, active: bool = True, profession: str = "10"
) -> Json:
    """Somebody who does not exist. Who is inactive keeps their numbers only."""
    coding = [{"system": f"{NOS}/TRE_G15-ProfessionSante/FHIR/TRE-G15-ProfessionSante", "code": profession}]
    known: Json = {
        "resourceType": "Practitioner",
        "id": f"003-{rpps}",
        "active": active,
        "identifier": [
            {"system": IDNPS, "use": "official", "value": f"8{rpps}"},
            {"system": "https://rpps.esante.gouv.fr", "value": rpps},
        ],
    }
    if not active:
        return known
    return known | {
        "name": [{"use": "official", "family": family, "given": [given]}],
        "qualification": [{"code": {"coding": coding}}],
        "telecom": list(telecoms),
    }


def role(rpps: str, number: str, site: str, *telecoms: Json, active: bool = True) -> Json:
    """What they do at one site."""
    return {
        "resourceType": "PractitionerRole",
        "id": f"005-{number}",
        "active": active,
        "practitioner": {"reference": f"Practitioner/003-{rpps}"},
        "organization": {"reference": f"Organization/001-{site}"},
        "telecom": list(telecoms),
    }


def organisation(site: str, name: str, finess: str, postcode: str = "45000") -> Json:
    """Where they do it; the legal entity's number stands before the site's."""
    return {
        "resourceType": "Organization",
        "id": f"001-{site}",
        "name": name,
        "identifier": [
            {"type": {"coding": [{"code": "FINEJ"}]}, "system": "http://finess.sante.gouv.fr", "value": "450000013"},
            {"type": {"coding": [{"code": "FINEG"}]}, "system": "http://finess.sante.gouv.fr", "value": finess},
        ],
        "address": [{"postalCode": postcode}],
    }  # fmt: skip


def examples(file: Path = EXAMPLES) -> list[Json]:
    """The official example practitioners, their FSH read as JSON; none where the samples are absent."""
    if not file.exists():
        return []
    found: list[Json] = []
    counters: dict[str, int] = {}
    for line in file.read_text().splitlines():
        if line.startswith("Instance:"):
            found.append({"resourceType": "Practitioner"})
            counters = {}
        elif match := re.fullmatch(r"\* (\S+) = (.+)", line):
            _put(found[-1], match[1], _value(match[2]), counters)
    return found


def _value(text: str) -> Any:
    if "#" in text and not text.startswith('"'):
        system, _, code = text.partition("#")
        return {"coding": [{"system": system, "code": code}]} if system else code
    return {"true": True, "false": False}.get(text, text.strip('"'))


def _put(into: Any, path: str, value: Any, counters: dict[str, int]) -> None:
    parts = path.split(".")
    done = ""
    for place, part in enumerate(parts):
        name, _, index = part.partition("[")
        done += f"/{name}"
        last = place == len(parts) - 1
        if not index:
            if last:
                into[name] = value
            else:
                into = into.setdefault(name, {})
            continue
        number = counters.get(done, 0)
        number = (
            {"=]": number, "+]": number + 1}.get(index, number) if index in ("=]", "+]") else int(index[:-1])
        )
        counters[done] = number
        row = into.setdefault(name, [])
        while len(row) <= number:
            row.append({})
        done += str(number)
        if last:
            row[number] = value
        else:
            into = row[number]


# -------------------------------------------------------------------------------------------------- the server


@dataclass(frozen=True)
class Call:
    """One request as it came in; `at` is time.monotonic()."""

    kind: str
    asked: dict[str, list[str]]
    key: str
    at: float


@dataclass
class Fault:
    """What the next calls get instead of a good answer."""

    times: int = 1
    status: int = 200
    body: bytes | None = None  # None: an OperationOutcome
    retry_after: str = ""
    drop: bool = False  # close the connection without a word
    location: str = ""


@dataclass
class Annuaire:
    """The double; `base_url` as in the configuration."""

    key: str = "test-key-0001"
    per_second: int = 0  # 0 = no limit; the real one has 17
    page: int = 100
    resources: list[Json] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    elsewhere: str = ""  # a root for `link next` that is not ours

    def start(self) -> Annuaire:
        double = self

        class Answer(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                double._answer(self)

            def log_message(self, *_: object) -> None:
                return

        self._server = _Server((LOOPBACK, 0), Answer)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def base_url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}/fhir/v2"

    def fail(self, **how: Any) -> None:
        self.faults.append(Fault(**how))

    def _answer(self, wire: BaseHTTPRequestHandler) -> None:
        url = urlsplit(wire.path)
        asked = parse_qs(url.query)
        call = Call(
            url.path.rpartition("/")[2], asked, wire.headers.get("ESANTE-API-KEY", ""), time.monotonic()
        )
        self.calls.append(call)
        if self.faults:
            fault = self.faults[0]
            fault.times -= 1
            if fault.times <= 0:
                self.faults.pop(0)
            if fault.drop:
                wire.close_connection = True
                return
            self._say(wire, fault.status, fault.body, fault.retry_after, fault.location)
        elif not call.key:
            self._say(wire, 401)
        elif call.key != self.key:
            self._say(wire, 403)
        elif self.per_second and sum(call.at - each.at < 1 for each in self.calls) > self.per_second:
            self._say(wire, 429, retry_after="1")
        elif call.kind not in ("Practitioner", "PractitionerRole"):
            self._say(wire, 404)
        else:
            self._say(wire, 200, json.dumps(self._bundle(call)).encode())

    @staticmethod
    def _say(
        wire: BaseHTTPRequestHandler, status: int, body: bytes | None = None, retry_after: str = "", location: str = ""
    ) -> None:  # fmt: skip
        if body is None:
            issue = {"severity": "error", "code": "processing", "diagnostics": "a server's own words"}
            body = json.dumps({"resourceType": "OperationOutcome", "issue": [issue]}).encode()
        wire.send_response(status)
        wire.send_header("Content-Type", "application/fhir+json")
        wire.send_header("Content-Length", str(len(body)))
        if retry_after:
            wire.send_header("Retry-After", retry_after)
        if location:
            wire.send_header("Location", location)
        wire.end_headers()
        wire.wfile.write(body)

    def _bundle(self, call: Call) -> Json:
        found = [
            each for each in self.resources if each["resourceType"] == call.kind and _fits(each, call.asked)
        ]
        size = min(self.page, int(call.asked.get("_count", ["100"])[0]))
        start = int(call.asked.get("_start", ["0"])[0])
        some = found[start : start + size]
        entry = [{"resource": each, "search": {"mode": "match"}} for each in some]
        if call.asked.get("_include") == ["PractitionerRole:organization"]:
            places = {each["organization"]["reference"].rpartition("/")[2] for each in some}
            entry += [
                {"resource": each, "search": {"mode": "include"}}
                for each in self.resources
                if each["resourceType"] == "Organization" and each["id"] in places
            ]
        bundle: Json = {"resourceType": "Bundle", "type": "searchset", "total": len(found), "entry": entry}
        if start + size < len(found):
            words = "&".join(f"{name}={value[0]}" for name, value in call.asked.items() if name != "_start")
            root = self.elsewhere or self.base_url
            bundle["link"] = [
                {"relation": "next", "url": f"{root}/{call.kind}?{words}&_start={start + size}"}
            ]
        return bundle


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client may let go whenever it likes
            super().handle_error(request, client_address)


def _plain(text: str) -> str:
    bare = unicodedata.normalize("NFD", text.casefold())
    return "".join(letter for letter in bare if not unicodedata.combining(letter))


def _fits(one: Json, asked: dict[str, list[str]]) -> bool:
    def words(name: str) -> Sequence[str]:
        return asked[name][0].split(",")

    if "identifier" in asked and not {each["value"] for each in one.get("identifier", ())} & set(
        words("identifier")
    ):
        return False
    if "family" in asked:
        families = [_plain(each.get("family", "")) for each in one.get("name", ())]
        if not any(family.startswith(_plain(word)) for family in families for word in words("family")):
            return False
    return "practitioner" not in asked or one["practitioner"]["reference"].rpartition("/")[2] in words(
        "practitioner"
    )
