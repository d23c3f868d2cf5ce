"""`python -m bench [--quick] [--scenario …] [--reps N]`: measure, print a table, then one line of JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench import rooms, scenarios
from bench.letters import Town
from bench.site import Site

if TYPE_CHECKING:
    from bench.letters import Letter, Size
    from bench.scenarios import Figures

SCENARIOS = ("floor", "small", "large", "trickle", "beat", "kill", "rooms")
QUICK = ("small", "large", "trickle", "rooms")
# letters of each scenario: whole, quick
COUNTS = {
    "small": (1000, 200),
    "large": (500, 60),
    "trickle": (100, 8),
    "beat": (100, 8),
    "kill": (1000, 200),
}
GAPS = {"trickle": 0.73, "beat": 0.5}  # seconds; 0.5 falls in with Dovecot's own half second
COLUMNS = (
    ("letters/s", "per_s", "{:.0f}"),
    ("steady/s", "steady_per_s", "{:.0f}"),
    ("of floor", "of_floor", "{:.1%}"),
    ("first s", "first_s", "{:.2f}"),
    ("alert p50 ms", "arrival_to_alert_p50_ms", "{:.0f}"),
    ("p95", "arrival_to_alert_p95_ms", "{:.0f}"),
    ("own p50 ms", "own_share_p50_ms", "{:.1f}"),
    ("p95", "own_share_p95_ms", "{:.1f}"),
    ("CPU ms/letter", "cpu_ms", "{:.2f}"),
    ("RSS MB", "rss_mb", "{:.0f}"),
    ("lost", "lost", "{}"),
    ("twice", "twice", "{}"),
    ("wrong", "wrong", "{}"),
)


def main() -> int:
    """Run what was asked for; exit 1 when a letter was lost, doubled, altered or went astray."""
    chosen = _arguments()
    wanted = chosen.scenario.split(",") if chosen.scenario else list(QUICK if chosen.quick else SCENARIOS)
    if unknown := [name for name in wanted if name not in SCENARIOS]:
        print(f"no scenario {', '.join(unknown)}: {', '.join(SCENARIOS)}", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="relais-bench-", dir=chosen.folder))
    folder.chmod(0o755)  # Dovecot's processes are not ours
    rows: list[Figures] = []
    pieces: Figures = {}
    try:
        if set(wanted) - {"rooms"}:
            with Site(folder, postgres=chosen.database) as site:
                site.prepare()
                for _ in range(chosen.reps):
                    for figures in _measure(site, wanted, quick=chosen.quick):
                        _say(figures)
                        rows.append(figures)
        if "rooms" in wanted:
            pieces = rooms.measure(folder, quick=chosen.quick)
        machine = _machine(folder)
    finally:
        if chosen.keep:
            print(f"kept: {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    rows = _with_floor(rows)
    _table(rows)
    for name, value in pieces.items():
        print(f"{name:<44} {value:>10.2f}" if isinstance(value, float) else f"{name:<44} {value}")
    print(json.dumps({"machine": machine, "runs": rows, "rooms": pieces}, ensure_ascii=False, default=str))
    return 0 if all(row.get("clean", True) for row in rows) else 1


def _arguments() -> argparse.Namespace:
    asked = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    asked.add_argument("--quick", action="store_true", help="fewer letters: about 20 s")
    asked.add_argument(
        "--scenario", help=f"some of {','.join(SCENARIOS)}, with commas between; all when left out"
    )
    asked.add_argument("--reps", type=int, default=1, help="times each is run; the table shows medians")
    asked.add_argument(
        "--folder", help="where the mailboxes and the database stand (the disk is measured too)"
    )
    asked.add_argument("--database", help="a database URL to run on instead of SQLite; it must be empty")
    asked.add_argument("--keep", action="store_true", help="leave the folder, its logs and databases behind")
    return asked.parse_args()


def _measure(site: Site, wanted: Sequence[str], *, quick: bool) -> list[Figures]:
    town = site.town
    sizes: tuple[Size, ...] = ("small", "large")
    rows: list[Figures] = []

    def letters(scenario: str, size: Size) -> list[Letter]:
        return [town.letter(number, size) for number in range(COUNTS[scenario][quick])]

    for size in sizes:
        if "floor" in wanted or size in wanted:
            rows.append(scenarios.floor(site, letters(size, size), size))
        if size in wanted:
            rows.append(scenarios.backlog(site, letters(size, size), size))
    for name, gap in GAPS.items():
        if name in wanted:
            rows.append(scenarios.trickle(site, letters(name, "small"), gap))
    if "kill" in wanted:
        rows.append(scenarios.backlog(site, letters("kill", "small"), "small", kill_at=0.4))
    return rows


def _with_floor(rows: Sequence[Figures]) -> list[Figures]:
    """Each backlog beside the floor of the same run."""
    floors: dict[str, list[float]] = {}
    for row in rows:
        if str(row["scenario"]).startswith("floor "):
            floors.setdefault(str(row["scenario"]).removeprefix("floor "), []).append(
                float(str(row["per_s"]))
            )
    found: list[Figures] = []
    for row in rows:
        size = str(row["scenario"]).removeprefix("backlog ")
        extra = (
            {"of_floor": float(str(row["per_s"])) / statistics.median(floors[size])} if size in floors else {}
        )
        found.append({**row, **extra})
    return found


def _say(figures: Figures) -> None:
    """One line as soon as it is known, on standard error."""
    shown = {key: round(value, 2) if isinstance(value, float) else value for key, value in figures.items()}
    print(json.dumps(shown, ensure_ascii=False), file=sys.stderr, flush=True)


def _table(rows: Sequence[Figures]) -> None:
    names = list(dict.fromkeys(str(row["scenario"]) for row in rows))
    if not names:
        return
    print("| scenario | " + " | ".join(title for title, _, _ in COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for name in names:
        same = [row for row in rows if row["scenario"] == name]
        print(f"| {name} | " + " | ".join(_cell(same, key, form) for _, key, form in COLUMNS) + " |")


def _cell(rows: Sequence[Figures], key: str, form: str) -> str:
    sums = {"lost": ("lost_letters", "lost_alerts"), "twice": ("twice_letters", "twice_alerts"),
            "wrong": ("wrong_mailbox", "wrong_chat", "altered", "other_mail")}  # fmt: skip
    if key in sums:
        counted = [sum(int(str(row[each])) for each in sums[key]) for row in rows if sums[key][0] in row]
        return form.format(max(counted)) if counted else ""
    values = [value for row in rows if isinstance(value := row.get(key), float)]
    return form.format(statistics.median(values)) if values else ""


def _machine(folder: Path) -> dict[str, object]:
    """What the figures depend on beside the relay."""
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "load": os.getloadavg()[0],
        "fdatasync_us": round(_timed(_synced(folder), 100) * 1e6, 1),
        "town": len(Town().patients),
    }


def _synced(folder: Path) -> Callable[[], None]:
    """Writing 4 kB to the database's disk until it is safe."""
    file = os.open(folder / "fdatasync", os.O_CREAT | os.O_WRONLY)

    def once() -> None:
        os.write(file, b"\0" * 4096)
        os.fdatasync(file)

    return once


def _timed(work: Callable[[], None], times: int) -> float:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


if __name__ == "__main__":
    sys.exit(main())
