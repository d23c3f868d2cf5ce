"""What the tour tells about each letter: rows of the store become a few plain sentences, in order. Pure.

A `Moment` has a key, so that the tour can remember when it first saw it; nothing here knows the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from relay.demo import people
from relay.model import Delivery, DeliveryState, Purpose, ThreadState, ThreadView

Tone = Literal["done", "wait", "warn", "good"]

LEFT = frozenset({DeliveryState.SENT, DeliveryState.ACCEPTED, DeliveryState.SEEN})


@dataclass(frozen=True, slots=True)
class Moment:
    """One thing that happened. `place` is the stage of the journey it belongs to, 0 to 4."""

    key: str
    text: str
    tone: Tone = "done"
    place: int = 0


@dataclass(frozen=True, slots=True)
class Next:
    """What the relay will do by itself, and when."""

    text: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Story:
    """Everything the page shows about one letter."""

    moments: tuple[Moment, ...] = ()
    reference: str | None = None
    now: str = "En route vers le relais"  # where it stands, in five words
    tone: Tone = "wait"
    next: Next | None = None
    stages: tuple[Tone | None, ...] = field(default=(None,) * 5)


RELEASED = Moment("released", "Corrigée par le service : elle part", "done", 2)
STAGES = ("Reçue", "Comprise", "Médecin trouvé", "Transmise", "Réponse")


def tell(
    envelope: Mapping[str, object] | None, hold: Mapping[str, object] | None, view: ThreadView | None
) -> Story:
    """The story so far. `envelope` and `hold` are rows of the lists of the same names."""
    if envelope is None:
        return Story()
    reference = _text(envelope.get("reference")) or (view.thread.reference if view else None)
    state = str(envelope["state"])
    moments = [Moment("received", "Reçue par le relais")]
    if state in ("ignored", "corrupt"):
        said = (
            "Ce n'est pas une lettre de sortie" if state == "ignored" else "Illisible : un humain est prévenu"
        )
        moments.append(Moment("ignored", said, "warn", 1))
        return Story(tuple(moments), reference, said, "warn", None, ("done", "warn", None, None, None))
    if state == "open":
        return Story(
            tuple(moments), reference, "En cours de lecture", "wait", None, ("done", "wait", None, None, None)
        )
    moments.append(Moment("read", "Lettre de sortie reconnue", "done", 1))
    if hold is not None and hold.get("since") is not None and state == "held":
        reason = str(hold.get("reason") or "").rstrip(". ")
        moments.append(Moment("held", f"Retenue, rien n'est envoyé : {_lower(reason)}", "warn", 2))
        if view is None or not any(copy.purpose is Purpose.LETTER for copy in view.deliveries):
            moments.append(
                Moment("asked-ward", "Le service est prévenu et peut corriger en répondant", "wait", 2)
            )
        return Story(tuple(moments), reference, "Retenue : le service doit préciser", "warn", None,
                     ("done", "done", "warn", None, None))  # fmt: skip
    if view is None:
        return Story(
            tuple(moments),
            reference,
            "Gardée avec le séjour",
            "done",
            None,
            ("done", "done", None, None, None),
        )
    return _followed(moments, reference, view)


def _followed(moments: list[Moment], reference: str | None, view: ThreadView) -> Story:
    thread = view.thread
    doctor = _doctor(thread.gp)
    if doctor:
        moments.append(Moment("found", f"Médecin traitant trouvé : {doctor.name}, {doctor.town}", "done", 2))
    name, recalled = doctor.name if doctor else "Le médecin", thread.closed_reason == "recalled"
    told = [moment for copy in view.deliveries if (moment := _copy(copy, name, recalled=recalled))]
    moments += told
    moments += _ends(view)
    sent = any(copy.purpose is Purpose.LETTER and copy.state in LEFT for copy in view.deliveries)
    now, tone = _standing(view)
    answer: Tone = {"good": "done", "warn": "warn"}.get(tone, "wait")  # type: ignore[assignment]
    stages: tuple[Tone | None, ...] = (
        "done", "done", "done" if doctor else "wait", "done" if sent else "wait", answer if sent else None,
    )  # fmt: skip
    return Story(tuple(moments), reference or thread.reference, now, tone, _next(view), stages)


def _copy(copy: Delivery, doctor: str, *, recalled: bool) -> Moment | None:
    """What one copy means to the people it is about; None for what only machines care for."""
    left = copy.state in LEFT
    chat, plain = copy.adapter == "webchat", doctor.removeprefix("Le ")
    if copy.state is DeliveryState.FAILED:
        return Moment(f"{copy.id}-failed", "Un envoi a échoué : le service est prévenu", "warn", 3)
    if not left:
        return None
    match copy.purpose:
        case Purpose.LETTER if copy.to.startswith("rpps:"):
            return Moment(f"{copy.id}", f"Lettre remise dans la messagerie sécurisée du {plain}", "done", 3)
        case Purpose.ALERT:
            return Moment(f"{copy.id}", "Alerte sur son téléphone, sans donnée de santé", "done", 3)
        case Purpose.REMINDER if copy.to.startswith("rpps:"):
            where = "sur son téléphone" if chat else "par messagerie sécurisée"
            return Moment(f"{copy.id}", f"Sans réponse : rappel {where}", "wait", 4)
        case Purpose.REMINDER:
            return Moment(f"{copy.id}", "Sans réponse du service : rappel", "wait", 4)
        case Purpose.QUESTION:
            return Moment(
                f"{copy.id}", f"{doctor} pose une question : elle est transmise au service", "wait", 4
            )
        case Purpose.ANSWER if not chat:
            return Moment(f"{copy.id}", f"Le service répond : c'est transmis au {plain}", "wait", 4)
        case Purpose.RECALL if not chat and recalled:
            return Moment(f"{copy.id}", f"{doctor} doit supprimer la lettre sans la lire", "warn", 4)
        case Purpose.RECALL if not chat:
            return Moment(f"{copy.id}", f"« Pas mon patient » : {doctor} doit supprimer la lettre", "warn", 4)
        case _:
            return None


def _ends(view: ThreadView) -> list[Moment]:
    """Who took it, or where it went."""
    thread, found = view.thread, []
    if any(copy.purpose is Purpose.LETTER and copy.state is DeliveryState.SEEN for copy in view.deliveries):
        found.append(Moment("seen", "Lettre ouverte", "done", 4))
    if thread.acknowledged_by:
        found.append(
            Moment(f"ack-{thread.acknowledged_by}", f"Bien reçue – {thread.acknowledged_by}", "good", 4)
        )
    if thread.state is ThreadState.WITH_DESK:
        refused = any(copy.purpose is Purpose.RECALL for copy in view.deliveries)
        then = "qui cherche le bon médecin" if refused else "qui prend le relais"
        found.append(Moment(f"desk-{thread.revision}", f"Confiée au bureau des sorties, {then}", "warn", 4))
    if thread.state is ThreadState.CLOSED:
        words = {
            "recalled": "Rappelée par le service",
            "not_my_patient": "« Pas mon patient » : tout est arrêté",
            "seen_no_answer": "Lue, sans réponse",
        }.get(str(thread.closed_reason or ""), "Suivi terminé")
        found.append(Moment(f"closed-{thread.closed_reason}", words, "done", 4))
    return found


def _standing(view: ThreadView) -> tuple[str, Tone]:
    thread = view.thread
    match thread.state:
        case ThreadState.AWAITING_ACK:
            sent = any(copy.purpose is Purpose.LETTER and copy.state in LEFT for copy in view.deliveries)
            return ("En attente du médecin", "wait") if sent else ("En cours d'envoi", "wait")
        case ThreadState.ACKNOWLEDGED:
            return f"Bien reçue – {thread.acknowledged_by or 'le médecin'}", "good"
        case ThreadState.AWAITING_WARD:
            return "Le médecin attend le service", "wait"
        case ThreadState.AWAITING_GP:
            return "Le service attend le médecin", "wait"
        case ThreadState.WITH_DESK:
            return "Au bureau des sorties", "warn"
        case _:
            good = thread.closed_reason in (None, "acknowledged", "handled", "by_phone", "seen_no_answer")
            words = {"recalled": "Rappelée", "not_my_patient": "Pas son patient"}
            return words.get(str(thread.closed_reason or ""), "Terminée"), "good" if good else "warn"


def _next(view: ThreadView) -> Next | None:
    """The next thing that happens when nobody does anything."""
    thread = view.thread
    due = [timer for timer in view.timers if timer.kind == "step"]
    if not due or thread.followup is None or thread.state is ThreadState.CLOSED:
        return None
    level = min(due[0].level, len(thread.followup.ladder) - 1)
    step = thread.followup.ladder[level]
    owes_ward = thread.state is ThreadState.AWAITING_WARD
    if step.hand_to is not None:
        text = "Confiée au bureau des sorties"
    elif owes_ward:
        text = "Rappel au service"
    else:
        chat = step.remind == "gp_ping"
        text = "Rappel sur son téléphone" if chat else "Rappel par messagerie"
    return Next(text, due[0].due)


def _doctor(key: str) -> people.Doctor | None:
    return next((doctor for doctor in people.DOCTORS if f"rpps:{doctor.rpps}" == key), None)


def _text(value: object) -> str | None:
    return str(value) if value else None


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
