"""What is measured on the whole relay: letters that wait, letters that trickle in, and a kill in the middle."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from bench import site as sites
from bench.letters import WATCHED

if TYPE_CHECKING:
    from bench.letters import Letter, Size
    from bench.site import Site

STALLED = 20.0  # seconds without anything new: what has not come by then is lost
AFTER = 1.0  # seconds left to it after the last, for copies nobody asked for
LOOK = 0.05

Figures = Mapping[str, object]


@dataclass
class Found:
    """What came out, held against what should have."""

    letters: int = 0  # different letters that reached a mailbox
    alerts: int = 0
    lost_letters: int = 0
    lost_alerts: int = 0
    twice_letters: int = 0
    twice_alerts: int = 0
    wrong_mailbox: int = 0
    wrong_chat: int = 0
    altered: int = 0  # documents that are not those of the ward, byte for byte
    other_mail: int = 0  # holds, notes to the ward: nobody should have got one here
    at: dict[str, tuple[float, float]] = field(default_factory=dict, repr=False)  # mark → letter, alert

    @property
    def clean(self) -> bool:
        """Whether everything went to the right person, once and whole."""
        return not any(
            (
                self.lost_letters, self.lost_alerts, self.twice_letters, self.twice_alerts,
                self.wrong_mailbox, self.wrong_chat, self.altered, self.other_mail,
            )
        )  # fmt: skip


def compare(letters: Sequence[Letter], records: Mapping[str, Any]) -> Found:  # Any: JSON
    """Look for each letter at its own doctor's."""
    expected = {letter.mark: letter for letter in letters}
    found = Found()
    mailed: Counter[str] = Counter()
    alerted: Counter[str] = Counter()
    first: dict[str, float] = {}
    marks: dict[str, str] = {}
    for each in sorted(records["letters"], key=lambda each: each["when"]):
        letter = expected.get(each["mark"] or "")
        if letter is None:
            found.other_mail += 1
            continue
        mailed[letter.mark] += 1
        first.setdefault(letter.mark, each["when"])
        marks[each["reference"]] = letter.mark
        found.wrong_mailbox += each["to"] != letter.patient.doctor.address
        found.altered += tuple(each["documents"]) != letter.documents
    for each in sorted(records["alerts"], key=lambda each: each["when"]):
        mark = marks.get(each["reference"])
        if mark is None:
            continue
        alerted[mark] += 1
        found.wrong_chat += each["to"] != expected[mark].patient.doctor.chat
        if mark in first and mark not in found.at:
            found.at[mark] = (first[mark], each["when"])
    found.letters, found.alerts = len(mailed), len(alerted)
    found.lost_letters, found.lost_alerts = len(expected) - len(mailed), len(expected) - len(alerted)
    found.twice_letters, found.twice_alerts = (sum(c.values()) - len(c) for c in (mailed, alerted))
    return found


def wait(site: Site, letters: int, alerts: int, process: subprocess.Popen[bytes]) -> None:
    """Until so many of both are out, and a moment longer for what should not be; or until nothing moves."""
    seen, moved = {"letters": 0, "alerts": 0}, time.monotonic()
    while True:
        counts = site.ask("count")
        counts.pop("notices")
        now = time.monotonic()
        if counts != seen:
            seen, moved = counts, now
        whole = counts["letters"] >= letters and counts["alerts"] >= alerts
        if (whole and now - moved > AFTER) or now - moved > STALLED or process.poll() is not None:
            return
        time.sleep(LOOK)


# ----------------------------------------------------------------------------------------------- scenarios


def floor(site: Site, letters: Sequence[Letter], size: Size) -> Figures:
    """The same letters, carried without a relay."""
    site.empty()
    site.fill(letters)
    command = [sys.executable, "-m", "bench.floor", str(site.dovecot.imap_port), WATCHED, sites.PASSWORD]
    began = time.monotonic()
    process = subprocess.Popen([*command, str(site.smtp), str(site.http)], cwd=sites.ROOT)
    gauge = sites.Gauge(process)
    process.wait()
    took = time.monotonic() - began
    gauge.stop()
    records = site.ask("records")
    when = sites.moments([*records["letters"], *records["alerts"]])
    if len(when) != 2 * len(letters):
        raise RuntimeError(f"the floor carried {len(when)} of {2 * len(letters)}")
    return {
        "scenario": f"floor {size}",
        "letters": len(letters),
        "per_s": len(letters) / (when[-1] - began),
        "steady_per_s": len(letters) / max(1e-6, when[-1] - when[0]),
        "total_s": took,
    }


def backlog(site: Site, letters: Sequence[Letter], size: Size, *, kill_at: float | None = None) -> Figures:
    """Letters that wait when the relay starts. `kill_at`: SIGKILL once that share of the alerts is out, then again."""
    site.empty()
    site.fill(letters)
    place = site.fresh(tapped=False)
    sinks_before = site.ask("records")["cpu"]
    began = time.monotonic()
    process = site.start(place)
    gauge = sites.Gauge(process)
    cpu, peak = 0.0, 0
    if kill_at is not None:
        while site.ask("count")["alerts"] < kill_at * len(letters) and process.poll() is None:
            time.sleep(LOOK / 5)
        sites.end(process, gauge, killed=True)
        cpu, peak = gauge.cpu, gauge.peak
        process = site.start(place)
        gauge = sites.Gauge(process)
    wait(site, len(letters), len(letters), process)
    site.died(place, process)
    records = site.ask("records")
    gauge.read()
    when = sites.moments([*records["letters"], *records["alerts"]])
    status = site.status(place)
    code = sites.end(process, gauge)
    found = compare(letters, records)
    done = min(found.letters, found.alerts)
    first, last = (when[0], when[-1]) if when else (began, time.monotonic())
    figures: dict[str, object] = {
        "scenario": f"backlog {size}" if kill_at is None else "kill",
        "letters": len(letters),
        "per_s": done / (last - began),
        "steady_per_s": done / max(1e-6, last - first),
        "first_s": first - began,
        "total_s": last - began,
        "rss_mb": max(peak, gauge.peak) / 2**20,
        "exit": code,
        "sinks_cpu_s": records["cpu"] - sinks_before,
    }
    if kill_at is None and done:
        figures["cpu_ms"] = gauge.cpu_at(last) / done * 1000
        figures["steady_cpu_ms"] = (gauge.cpu_at(last) - gauge.cpu_at(first)) / done * 1000
    else:
        figures["cpu_ms"] = (cpu + gauge.cpu) / max(1, done) * 1000
    return {**figures, **_counts(found), "status": _stand(status)}


def trickle(site: Site, letters: Sequence[Letter], gap: float) -> Figures:
    """Letters that come one by one, `gap` seconds apart, to a relay that has nothing else to do."""
    site.empty()
    place = site.fresh(tapped=True)
    process = site.start(place)
    gauge = sites.Gauge(process, every=0.2)
    first, rest = letters[0], letters[1:]
    came: dict[str, float] = {}
    try:
        with site.ward() as session:
            # The first one only shows that the relay is awake, and warms what is warmed once.
            came[first.mark] = sites.arrive(session, first)
            wait(site, 1, 1, process)
            gauge.read()
            cpu_before, began = gauge.cpu, time.monotonic()
            at = time.monotonic()
            for letter in rest:
                at += gap
                time.sleep(max(0.0, at - time.monotonic()))
                came[letter.mark] = sites.arrive(session, letter)
        wait(site, len(letters), len(letters), process)
        site.died(place, process)
        gauge.read()
        cpu, took = gauge.cpu - cpu_before, time.monotonic() - began
        records = site.ask("records")
        status = site.status(place)
    finally:
        code = sites.end(process, gauge)
    found = compare(letters, records)
    told = _told(letters, records["notices"])
    arrivals = [found.at[one.mark][1] - came[one.mark] for one in rest if one.mark in found.at]
    own = [
        found.at[one.mark][1] - told[one.mark] for one in rest if one.mark in found.at and one.mark in told
    ]
    notice = [told[one.mark] - came[one.mark] for one in rest if one.mark in told]
    figures: dict[str, object] = {
        "scenario": f"trickle {gap:g} s",
        "letters": len(letters),
        "cpu_ms": cpu / len(rest) * 1000,
        "idle_cpu_percent": cpu / took * 100,
        "rss_mb": gauge.peak / 2**20,
        "exit": code,
    }
    for name, values in (("arrival_to_alert", arrivals), ("own_share", own), ("server_notice", notice)):
        if values:
            figures |= {
                f"{name}_p50_ms": statistics.median(values) * 1000,
                f"{name}_p95_ms": percentile(values, 0.95) * 1000,
                f"{name}_max_ms": max(values) * 1000,
            }
    return {**figures, **_counts(found), "status": _stand(status)}


def _told(letters: Sequence[Letter], notices: Sequence[tuple[float, int]]) -> dict[str, float]:
    """When the server told the watching client of each letter: the first EXISTS that counts it."""
    told: dict[str, float] = {}
    for place, letter in enumerate(letters, 1):
        heard = [when for when, count in notices if count >= place]
        if heard:
            told[letter.mark] = min(heard)
    return told


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of them do not pass (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _counts(found: Found) -> dict[str, object]:
    counts = asdict(found)
    for name in ("at", "letters", "alerts"):
        del counts[name]
    return {**counts, "clean": found.clean}


def _stand(status: Mapping[str, Any]) -> dict[str, object]:  # Any: JSON
    """The relay's own account, to read when something is missing."""
    keys = ("received", "decided", "held", "ignored", "corrupt", "open", "balance", "invariants")
    moving = {name: count for name, count in status.get("deliveries", {}).items() if count}
    return {**{key: status.get(key) for key in keys}, "deliveries": moving}
