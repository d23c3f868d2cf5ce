"""The Annuaire Santé by its FHIR API v2: who a professional is, whether still active, where their secure mailboxes are.

    Practitioner?identifier=…  →  PractitionerRole?practitioner=…&_include=PractitionerRole:organization

Answers come whole or not at all: a page that is missing could hide a namesake. A search returns active and
inactive people; of who has left only the numbers remain. A telecom is a secure mailbox only where the
directory's own extension says so: ordinary mail addresses stand beside them.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from relay.config import duration
from relay.errors import Deferred, Rejected, Verdict
from relay.identity import fold, is_address, normal_finess, normal_rpps, two_people
from relay.model import Mailbox, Professional, Why
from relay.tls import Trust, is_loopback, tls_verdict

if TYPE_CHECKING:
    import httpx

    from relay.ports import Clock, Tools

PUBLIC: Final = "https://gateway.api.esante.gouv.fr/fhir/v2"
MAILBOX: Final = "as-ext-mailbox-mss-metadata"
"""Last part of the extension's URL that makes a telecom a secure mailbox."""
EXERCISE_NAME: Final = "as-ext-practitionerrole-name"
PROFESSIONS, SPECIALITIES = "TRE_G15", "TRE_R38"  # nomenclatures of the health objects (NOS)
DOCTOR: Final = "10"  # TRE_G15-ProfessionSante

ANSWER_SECONDS: Final = 10.0
OURS_TO_MEND_SECONDS: Final = 300.0  # a key that is refused
WAITED_FOR_SECONDS: Final = 5.0  # a longer Retry-After is the caller's to wait for
TRIES: Final = 3
AT_A_TIME: Final = 40  # numbers in one search
PAGE: Final = 100
MAX_PAGES: Final = 60  # of one search
MAX_BYTES: Final = 16 * 2**20  # of one page

Json = Mapping[str, object]


class Settings(BaseModel):
    """`[adapters.NAME]` of kind annuaire. `api_key`: sent as ESANTE-API-KEY; `rate`: calls a second.

    `max_age`: a copy older than this is asked for again before a letter goes by it (24h, 7d).
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    api_key: SecretStr
    base_url: str = PUBLIC
    ca: str | None = None
    rate: float = Field(default=17, gt=0, le=1000)  # the gateway's own limit for one application
    max_age: str = "24h"

    @field_validator("base_url")
    @classmethod
    def _protected(cls, value: str) -> str:
        address = urlsplit(value)
        secure = address.scheme == "https" and address.hostname
        if not secure and not (address.scheme == "http" and is_loopback(address.hostname or "")):
            raise ValueError("write https://…; plain http is for loopback addresses only")
        return value.rstrip("/")

    @field_validator("max_age")
    @classmethod
    def _lasts(cls, value: str) -> str:
        duration(value)
        return value

    @field_validator("api_key")
    @classmethod
    def _key(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if not text or not text.isascii() or not text.isprintable() or " " in text:
            raise ValueError("is no API key: printable characters without spaces")
        return value


def connect(name: str, settings: Settings, tools: Tools) -> Annuaire:
    """Make the adapter; the network is touched by its methods only."""
    return Annuaire(name, settings, tools)


class Annuaire:
    """One application's access to the directory."""

    kind = "annuaire"

    def __init__(self, name: str, settings: Settings, tools: Tools) -> None:
        self.name = name
        self.max_age = duration(settings.max_age)
        self._settings, self._clock = settings, tools.clock
        self._pace = _Pace(tools.clock, settings.rate)
        self._trust = Trust(settings.ca)
        self._client: httpx.AsyncClient | None = None

    async def probe(self) -> None:
        """One search for one person: the key is good. Raises Deferred or Rejected."""
        await self._get(f"{self._settings.base_url}/Practitioner", {"_count": "1"})

    async def close(self) -> None:
        """Let go of the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def find(self, rpps: Sequence[str], names: Sequence[str]) -> Sequence[Professional]:
        """See `relay.ports.Directory.find`. One professional per RPPS; those of `rpps` that nobody bears are absent."""
        numbers = tuple(dict.fromkeys(bare for each in rpps if (bare := normal_rpps(each))))
        families = frozenset(folded for each in names if (folded := fold(each)))
        people: list[Json] = []
        for some in _some(numbers):
            # The directory holds the number bare, and as IDNPS with the digit of its kind before it.
            asked = ",".join(form for each in some for form in (each, f"8{each}"))
            found = await self._search("Practitioner", {"identifier": asked})
            people += [each for each in found if _rpps(each) in some]
        for some in _some(sorted(families)):
            found = await self._search("Practitioner", {"family": ",".join(_escaped(each) for each in some)})
            people += [each for each in found if _rpps(each) and fold(_family(each)) in families]
        people = list(
            {_text(each.get("id")) or str(number): each for number, each in enumerate(people)}.values()
        )
        return _professionals(people, await self._roles(people), self._clock.now())

    async def _roles(self, people: Sequence[Json]) -> Sequence[Json]:
        """The roles of these people, and the organisations they are held at."""
        active = [name for each in people if _is_active(each) and _is_id(name := _text(each.get("id")))]
        found: list[Json] = []
        for some in _some(active):
            asked = {"practitioner": ",".join(some), "_include": "PractitionerRole:organization"}
            found += await self._search("PractitionerRole", asked)
        return found

    # ------------------------------------------------------------------------------------------------- the wire

    async def _search(self, kind: str, asked: Mapping[str, str]) -> list[Json]:
        """Every resource of every page. Raises Deferred or Rejected."""
        page = await self._get(f"{self._settings.base_url}/{kind}", {**asked, "_count": str(PAGE)})
        found: list[Json] = []
        for _ in range(MAX_PAGES):
            found += _resources(page)
            following = _next(page)
            if following is None:
                return found
            page = await self._get(self._own(following))
        raise Rejected(Why.PROTOCOL, detail="too many pages")

    def _own(self, url: str) -> str:
        """The key goes nowhere but to the configured server."""
        ours, theirs = urlsplit(self._settings.base_url), urlsplit(url)
        if (theirs.scheme, theirs.netloc) != (ours.scheme, ours.netloc):
            raise Deferred(Why.PROTOCOL, retry_after=OURS_TO_MEND_SECONDS, detail="next page elsewhere")
        return url

    async def _get(self, url: str, asked: Mapping[str, str] | None = None) -> Json:
        """One page. Waits for its turn, and out a short 429. Raises Deferred or Rejected."""
        for tried in range(1, TRIES + 1):
            await self._pace.turn()
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    return await self._page(url, asked)
            except TimeoutError:
                raise Deferred(Why.TIMEOUT) from None
            except Deferred as verdict:
                wait = verdict.retry_after
                if (
                    verdict.why != Why.RATE_LIMITED
                    or tried == TRIES
                    or wait is None
                    or wait > WAITED_FOR_SECONDS
                ):
                    raise
                await self._clock.sleep(wait)
        raise AssertionError("unreachable")

    async def _page(self, url: str, asked: Mapping[str, str] | None) -> Json:
        import httpx

        client = self._open()
        try:
            async with client.stream("GET", url, params=asked) as response:
                if response.status_code != 200:
                    raise _refusal(response.status_code, response.headers.get("retry-after", ""))
                body = bytearray()
                async for piece in response.aiter_bytes():
                    body += piece
                    if len(body) > MAX_BYTES:
                        raise Deferred(Why.PROTOCOL, retry_after=OURS_TO_MEND_SECONDS, detail="too large")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise _translate(error) from None
        return _read(bytes(body))

    def _open(self) -> httpx.AsyncClient:
        if self._client is None:
            import httpx

            local = is_loopback(urlsplit(self._settings.base_url).hostname or "")
            self._client = httpx.AsyncClient(
                headers={"ESANTE-API-KEY": self._settings.api_key.get_secret_value(), "Accept": "application/fhir+json"},
                verify=self._trust.context(),
                timeout=ANSWER_SECONDS,
                follow_redirects=False,
                trust_env=not local,
                limits=httpx.Limits(max_connections=4),
            )  # fmt: skip
        return self._client


class _Pace:
    """Calls leave one after the other, no more than `rate` a second."""

    def __init__(self, clock: Clock, rate: float) -> None:
        self._clock, self._gap, self._free = clock, 1 / rate, 0.0

    async def turn(self) -> None:
        now = self._clock.monotonic()
        mine = max(now, self._free)
        self._free = mine + self._gap
        if mine > now:
            await self._clock.sleep(mine - now)


def _translate(error: Exception) -> Verdict:
    """The library's error as one of ours; its words may quote the URL and stay here."""
    import httpx

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return tls_verdict(cause)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.TimeoutException):
        return Deferred(Why.TIMEOUT)
    if isinstance(error, httpx.InvalidURL | httpx.ProtocolError | httpx.DecodingError):
        return Deferred(Why.PROTOCOL)
    return Deferred(Why.CONNECTION)


def _refusal(status: int, retry_after: str) -> Verdict:
    code = str(status)
    wait = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else None
    if status == 429:
        return Deferred(Why.RATE_LIMITED, retry_after=1.0 if wait is None else wait, detail=code)
    if status in (401, 403):
        return Deferred(Why.AUTHENTICATION, retry_after=OURS_TO_MEND_SECONDS, detail=code)
    if status >= 500:
        return Deferred(Why.SERVER_ERROR, retry_after=wait, detail=code)
    if status >= 400:
        return Rejected(Why.REFUSED, detail=code)
    return Deferred(Why.PROTOCOL, retry_after=OURS_TO_MEND_SECONDS, detail=code)  # a portal, a redirection


# ------------------------------------------------------------------------------------------- what it answers


def _read(body: bytes) -> Json:
    """A search bundle. Raises Deferred for anything else, and for one that says it is in error (HTTP 200 or not)."""
    try:
        page = json.loads(body)
    except (ValueError, RecursionError):
        raise Deferred(Why.PROTOCOL, retry_after=60, detail="no JSON") from None
    if not isinstance(page, dict) or page.get("resourceType") != "Bundle":
        raise Deferred(Why.PROTOCOL, retry_after=60, detail="no bundle")
    for each in _entries(page):
        if each.get("resourceType") == "OperationOutcome" and any(
            issue.get("severity") in ("error", "fatal") for issue in _objects(each, "issue")
        ):
            raise Deferred(Why.SERVER_ERROR, detail="OperationOutcome")
    return page


def _objects(of: Json, key: str) -> Iterator[Json]:
    """The objects of a list that may be missing or anything at all."""
    held = of.get(key)
    for each in held if isinstance(held, list) else ():
        if isinstance(each, dict):
            yield each


def _object(of: Json, key: str) -> Json:
    held = of.get(key)
    return held if isinstance(held, dict) else {}


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _entries(page: Json) -> Iterator[Json]:
    for entry in _objects(page, "entry"):
        if resource := _object(entry, "resource"):
            yield resource


def _resources(page: Json) -> list[Json]:
    return [each for each in _entries(page) if each.get("resourceType") != "OperationOutcome"]


def _next(page: Json) -> str | None:
    return next(
        (_text(each.get("url")) for each in _objects(page, "link") if each.get("relation") == "next"), None
    )


def _some(words: Sequence[str]) -> Iterator[Sequence[str]]:
    return (words[start : start + AT_A_TIME] for start in range(0, len(words), AT_A_TIME))


def _escaped(word: str) -> str:
    """A comma parts alternatives in a FHIR search, a dollar composites (R4 search §3.1.1.4.0.1)."""
    return "".join(f"\\{letter}" if letter in "\\,$|" else letter for letter in word)


def _is_id(text: str) -> bool:
    return 0 < len(text) <= 64 and text.isascii() and text.replace("-", "").replace(".", "").isalnum()


def _is_active(of: Json) -> bool:
    return of.get("active") is not False


def _rpps(person: Json) -> str:
    """The one RPPS; "" for none, or for several: nobody can be told by those."""
    found = {
        bare
        for each in _objects(person, "identifier")
        if any(mark in _text(each.get("system")).lower() for mark in ("rpps", "1.2.250.1.71.4.2.1"))
        and (bare := normal_rpps(_text(each.get("value"))))
    }
    return found.pop() if len(found) == 1 else ""


def _name(of: Json) -> Json:
    names = sorted(_objects(of, "name"), key=lambda each: each.get("use") != "official")
    return names[0] if names else {}


def _family(person: Json) -> str:
    return _text(_name(person).get("family"))


def _given(name: Json) -> str:
    held = name.get("given")
    return " ".join(filter(None, map(_text, held))) if isinstance(held, list) else ""


def _called(role: Json) -> Json:
    """The name they practise under, which the directory hangs on the role."""
    for each in _objects(role, "extension"):
        if _text(each.get("url")).endswith(EXERCISE_NAME):
            return _object(each, "valueHumanName")
    return {}


def _codes(of: Json, key: str, nomenclature: str) -> Iterator[str]:
    """Codes of one nomenclature, in a list of concepts or of things that have one under `code`."""
    for each in _objects(of, key):
        for concept in (each, _object(each, "code")):
            for coding in _objects(concept, "coding"):
                if nomenclature in _text(coding.get("system")).replace("-", "_") and (
                    code := _text(coding.get("code"))
                ):
                    yield code


@dataclass(frozen=True, slots=True)
class _Place:
    """An organisation that somebody works at."""

    name: str = ""
    finess: str = ""
    postcode: str = ""


def _place(organisation: Json) -> _Place:
    """Of the numbers, the geographic site's FINESS (FINEG) before any other."""
    numbers: dict[bool, str] = {}
    for each in _objects(organisation, "identifier"):
        kinds = {_text(coding.get("code")) for coding in _objects(_object(each, "type"), "coding")}
        system = _text(each.get("system")).lower()
        if "finess" in system or "1.2.250.1.71.4.2.2" in system or kinds & {"FINEG", "FINEJ", "IDNST"}:
            finess = normal_finess(_text(each.get("value")))
            if finess:
                numbers.setdefault("FINEG" in kinds, finess)
    postcode = next((_text(each.get("postalCode")) for each in _objects(organisation, "address")), "")
    return _Place(_text(organisation.get("name")), numbers.get(True) or numbers.get(False) or "", postcode)


def _mailboxes(of: Json, place: _Place, now: datetime) -> Iterator[Mailbox]:
    """The telecoms that the extension marks, those that are red-listed, ended or no address left out."""
    for telecom in _objects(of, "telecom"):
        metadata = next(
            (
                each
                for each in _objects(telecom, "extension")
                if _text(each.get("url")).endswith(f"/{MAILBOX}")
            ),
            None,
        )
        address = _text(telecom.get("value")).removeprefix("mailto:")
        if metadata is None or telecom.get("system") != "email" or not is_address(address):
            continue
        kind, hidden = "", False
        for part in _objects(metadata, "extension"):
            match _text(part.get("url")):
                case "type":
                    kind = next(
                        (
                            _text(each.get("code"))
                            for each in _objects(_object(part, "valueCodeableConcept"), "coding")
                        ),
                        "",
                    )
                case "listeRouge":
                    hidden = part.get("valueBoolean") is True
        if not hidden and telecom.get("use") != "old" and not _ended(_object(telecom, "period"), now):
            yield Mailbox(address.lower(), kind.upper(), place.name, place.finess)


def _ended(period: Json, now: datetime) -> bool:
    try:
        end = datetime.fromisoformat(_text(period.get("end")))
    except ValueError:
        return False
    return (end if end.tzinfo else end.replace(tzinfo=UTC)) < now


def _professionals(people: Sequence[Json], roles: Sequence[Json], now: datetime) -> tuple[Professional, ...]:
    """One professional per RPPS, by number. Two different names under one are kept in mind, not settled."""
    places = {
        _text(each.get("id")): _place(each) for each in roles if each.get("resourceType") == "Organization"
    }
    held: dict[str, list[Json]] = {}
    for each in roles:
        if each.get("resourceType") == "PractitionerRole" and _is_active(each):
            held.setdefault(_referred(each, "practitioner"), []).append(each)
    found: dict[str, Professional] = {}
    for person in people:
        rpps = _rpps(person)
        one = _professional(rpps, person, held.get(_text(person.get("id")), ()), places, now)
        found[rpps] = _both(found[rpps], one) if rpps in found else one
    return tuple(found[rpps] for rpps in sorted(found))


def _referred(of: Json, key: str) -> str:
    return _text(_object(of, key).get("reference")).rpartition("/")[2]


def _professional(
    rpps: str, person: Json, roles: Sequence[Json], places: Mapping[str, _Place], now: datetime
) -> Professional:
    if not _is_active(person):
        return Professional(rpps, active=False)
    name = _name(person)
    names = [name, *map(_called, roles)]
    boxes: dict[str, Mailbox] = {}
    for role in roles:
        place = places.get(_referred(role, "organization"), _Place())
        for box in _mailboxes(role, place, now):
            boxes.setdefault(box.address, box)
    for box in _mailboxes(person, _Place(), now):
        boxes.setdefault(box.address, box)
    professions = [*_codes(person, "qualification", PROFESSIONS)]
    specialities = [*_codes(person, "qualification", SPECIALITIES)]
    for role in roles:
        professions += _codes(role, "code", PROFESSIONS)
        specialities += [*_codes(role, "specialty", SPECIALITIES), *_codes(role, "code", SPECIALITIES)]
    sites = (places.get(_referred(role, "organization"), _Place()) for role in roles)
    return Professional(
        rpps,
        next((family for each in names if (family := _text(each.get("family")))), ""),
        next((given for each in names if (given := _given(each))), ""),
        DOCTOR if DOCTOR in professions else next(iter(professions), ""),
        next(iter(specialities), ""),
        tuple(boxes.values()),
        next((each.postcode for each in sites if each.postcode), ""),
        active=True,
    )


def _both(one: Professional, other: Professional) -> Professional:
    """Two records of one number: an active one counts, and two who are both active with different names are two people."""
    first, second = (one, other) if one.active or not other.active else (other, one)
    if not second.active:
        return first
    boxes = {box.address: box for box in (*second.mailboxes, *first.mailboxes)}
    return Professional(
        first.rpps, first.family_name or second.family_name, first.given_name or second.given_name,
        first.profession or second.profession, first.speciality or second.speciality, tuple(boxes.values()),
        first.postcode or second.postcode,
        two_names=first.two_names or second.two_names or two_people(first.family_name, second.family_name),
    )  # fmt: skip
