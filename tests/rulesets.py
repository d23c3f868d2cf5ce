"""Rule files as large sites might grow them, made at random: every kind of condition, the same for the same seed."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from rules.facts import FIELDS

if TYPE_CHECKING:
    from collections.abc import Sequence

HEAD = """\
version: 1
timezone: Europe/Paris
hours:
  cabinet: { mon-fri: ["08:00-12:30", "13:30-19:00"], holidays: closed }
  nuit: { every-day: ["20:00-08:00"] }
  weekend: { sat-sun: ["00:00-24:00"] }
targets:
  gp: { who: registered_gp, via: [mss], carries: document }
  sorties: { who: desk/sorties, via: [mss], carries: document }
keywords: { chute: chute, fugue: fugue, avk: [avk, warfarine] }
default: { hold: sorties, reason: "Aucune règle" }
rules:
"""


def written(count: int, seed: int = 7) -> str:
    """A rule file of so many rules, two to four conditions each, some with `any`, `all` and `unless`."""
    chance = random.Random(seed)
    return HEAD + "".join(_rule(chance, number, max(12, count // 5)) for number in range(count))


def by_ward(count: int, wards: int = 500) -> str:
    """A rule file as a large site would write it: by ward, event and age; of each ward only the last rule matches.

    The earlier ones turn out, once asked, to be for unsigned mail.
    """
    return (
        "version: 1\ntimezone: Europe/Paris\n"
        "targets:\n"
        "  gp: { who: registered_gp, via: [mss], carries: document }\n"
        "  sorties: { who: desk/sorties, via: [mss], carries: document }\n"
        "rules:\n"
        + "".join(
            f"  - id: service-{number % wards}-{number // wards}\n"
            f"    when:\n"
            f"      event: discharge\n"
            f"      ward: Service {number % wards}\n"
            f"      age: {{ gte: {number % wards % 90} }}\n"
            + ("      unless: { signed: yes }\n" if number < count - wards else "")
            + "    send: [gp]\n    followup: none\n"
            for number in range(count)
        )
        + "default: { hold: sorties, reason: Aucune }\n"
    )


def _rule(chance: random.Random, number: int, wards: int) -> str:
    parts = [_conditions(chance, chance.choice((2, 3, 3, 4)), wards)]
    if chance.random() < 0.2:
        groups = [_conditions(chance, chance.choice((1, 2)), wards) for _ in range(chance.choice((2, 3)))]
        parts.append(f"any: [{', '.join(f'{{ {group} }}' for group in groups)}]")
    if chance.random() < 0.05:
        groups = [_conditions(chance, 1, wards) for _ in range(2)]
        parts.append(f"all: [{', '.join(f'{{ {group} }}' for group in groups)}]")
    if chance.random() < 0.2:
        parts.append(f"unless: {{ {_conditions(chance, chance.choice((1, 2)), wards)} }}")
    more = ", if_unknown: skip" if chance.random() < 0.05 else ""
    more += ", from: 2026-12-01" if chance.random() < 0.05 else ""
    return f"  - {{ id: r{number}, when: {{ {', '.join(parts)} }}, hold: sorties, reason: x{more} }}\n"


def _conditions(chance: random.Random, count: int, wards: int) -> str:
    def some(values: Sequence[str], most: int = 3) -> str:
        return f"[{', '.join(chance.sample(values, chance.randint(1, min(most, len(values)))))}]"

    def condition(name: str) -> str:
        if name == "during":
            return chance.choice(("cabinet", "nuit", "weekend"))
        if name == "age":
            low = chance.randrange(95)
            return chance.choice(
                (f"{{ gte: {low} }}", f"{{ lt: {low + 1} }}", f"{{ gte: {low}, lt: {low + 20} }}")
            )
        if name == "sender":
            return chance.choice(
                (f'{{ matches: "@ch-{chance.randrange(20)}[.]fr$" }}', "secretariat@ch-3.fr")
            )
        if name == "ward":
            return some([f"Service {number}" for number in range(wards)], 4)
        if FIELDS[name].kind == "enum":
            return some(FIELDS[name].values)
        if FIELDS[name].kind == "yesno":
            return chance.choice(("yes", "no"))
        if FIELDS[name].kind == "number":
            return f"{{ gte: {chance.choice((1, 6, 12, 24, 48))} }}"
        return some(("chute", "fugue", "avk") if name == "mentions" else [f"{code:05}" for code in range(40)])

    return ", ".join(f"{name}: {condition(name)}" for name in chance.sample([*FIELDS, "during"], count))
