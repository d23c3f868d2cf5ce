"""What a decision means for people: who is told, by which way, carrying what; and what a change takes from them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rules.engine import Decision
    from rules.ruleset import Action, Copy, Rule, RuleSet, Target

_RANK: Final = {"pointer": 0, "notice": 1, "document": 2}
_PATIENCE: Final = {"delivered": 0, "seen": 1, "ack": 2}


_WHO: Final = {
    "registered_gp": ("le médecin traitant", "the registered GP"),
    "practice": ("le cabinet du médecin traitant", "the GP's practice"),
    "substitute": ("le remplaçant", "the substitute"),
    "referring_doctor": ("le médecin adresseur", "the referring doctor"),
    "letter_recipients": ("les destinataires de la lettre", "the letter's recipients"),
    "pharmacist": ("le pharmacien", "the pharmacist"),
    "nurse": ("l'infirmier", "the nurse"),
    "home_hospitalisation": ("l'HAD", "home hospitalisation"),
    "sending_ward": ("le service", "the ward"),
    "patient": ("le patient", "the patient"),
}


@dataclass(frozen=True, slots=True, order=True)
class Reach:
    """Somebody who is told of a notice: `who` of a target, the adapters it may go by, and what is carried."""

    who: str
    via: tuple[str, ...] = ()
    carries: str = "document"

    def covers(self, other: Reach) -> bool:
        """Whether this reaches the same person by every way the other does, with at least as much."""
        return (
            self.who == other.who
            and set(other.via) <= set(self.via)
            and _RANK[self.carries] >= _RANK[other.carries]
        )

    def __str__(self) -> str:
        return f"{self.who} ({', '.join(self.via)})" if self.via else self.who


@dataclass(frozen=True, slots=True)
class Outcome:
    """Who gets a notice (`reached`), whom its follow-up calls upon later (`chased`), at which desk it waits.

    `needs_gp`: one of those reached is the GP, so that without a GP the floors hold it. `patience`: what the
    follow-up waits for; the less that is, the more often it ends before anybody is called upon.
    """

    action: Action
    reached: frozenset[Reach] = frozenset()
    chased: frozenset[Reach] = frozenset()
    desk: str | None = None
    needs_gp: bool = False
    patience: int = 0


@dataclass(frozen=True, slots=True)
class Loss:
    """What one outcome takes away beside another: a hold that was none, and people no longer told."""

    held: bool = False
    people: tuple[Reach, ...] = ()

    def __bool__(self) -> bool:
        return self.held or bool(self.people)


def loss(before: Outcome, after: Outcome) -> Loss:
    """What `after` takes away. A letter that is held is told as held; its recipients are not told again as lost.

    A desk where something waited loses it only when it goes to another desk, or is filed: when the letter is
    sent instead, those it was meant for have it.
    """
    if after.action == "hold" and before.action != "hold":
        return Loss(held=True)
    if before.action == "hold":
        gone = before.desk if after.action == "file" or after.desk not in (None, before.desk) else None
        return Loss(people=(Reach(gone),) if gone else ())
    there = after.reached | (after.chased if after.patience >= before.patience else frozenset())
    return Loss(
        people=tuple(
            sorted({*missing(before.reached, after.reached), *missing(before.chased - before.reached, there)})
        )
    )


def missing(before: Iterable[Reach], after: Iterable[Reach]) -> tuple[Reach, ...]:
    """Those told before whom nothing told afterwards covers."""
    there = tuple(after)
    return tuple(sorted(each for each in before if not any(other.covers(each) for other in there)))


def reach(target: Target) -> Reach:
    """A target as those who are told see it: its name does not matter."""
    return Reach(target.who, target.via, target.carries)


def of_rule(rules: RuleSet, rule: Rule) -> Outcome:
    """What a rule does where nothing forbids it."""
    if rule.action == "hold":
        return held_at(rules, rule.hold)
    if rule.action == "file":
        return Outcome("file")
    return _sent(rules, rule.targets, rule.followup)


def of_copy(rules: RuleSet, copy: Copy) -> Outcome:
    """The copy alone."""
    return _sent(rules, (copy.target,), None)


def of_decision(rules: RuleSet, decision: Decision) -> Outcome:
    """What a decision of this rule set means, its copies aside."""
    if decision.action == "hold":
        return held_at(rules, decision.hold)
    if decision.action == "file":
        return Outcome("file")
    return _sent(rules, decision.targets, decision.followup)


def copies_of(rules: RuleSet, decision: Decision) -> frozenset[Reach]:
    """Those who get a copy by a decision of this rule set."""
    return frozenset(reach(rules.targets[target]) for _, target in decision.copies)


def held_at(rules: RuleSet, target: str | None) -> Outcome:
    """A hold at a target's desk; None: at the default's."""
    return Outcome("hold", desk=rules.targets[target or rules.default.hold].who)


def _sent(rules: RuleSet, targets: Iterable[str], followup: str | None) -> Outcome:
    meant = [rules.targets[name] for name in targets]
    chosen = rules.followups.get(followup or "")
    called = [
        name for step in (chosen.ladder if chosen else ()) for name in (step.remind, step.hand_to) if name
    ]
    return Outcome(
        "send",
        frozenset(reach(target) for target in meant),
        frozenset(reach(rules.targets[name]) for name in called),
        needs_gp=any(target.is_gp for target in meant),
        patience=_PATIENCE[chosen.awaits] if chosen else 0,
    )


def in_words(reach: str, *, french: bool) -> str:
    """« le médecin traitant par telegram », out of a reach as it writes itself: `registered_gp (telegram)`."""
    name, _, via = reach.partition(" (")
    kind, slash, place = name.partition("/")
    if name in _WHO:
        said = _WHO[name][not french]
    elif slash and french:
        said = f"{'le bureau' if kind == 'desk' else 'la garde'} « {place} »"
    else:
        said = f"{kind} “{place}”" if slash else name
    ways = via.removesuffix(")").replace(", ", " ou " if french else " or ")
    return f"{said} {'par' if french else 'by'} {ways}" if ways else said
