"""Every word people read: French first, English from `locale/en.po`. Nothing else in the relay writes sentences.

Mail may name the patient only where its function takes one; chat text is made from `ChatFields` alone, a type
that can hold no person, no ward and no word of a letter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Final, Literal
from zoneinfo import ZoneInfo

from relay.model import (
    Button,
    ChatFields,
    ChatKind,
    ChatMessage,
    ChatRecipe,
    Delivery,
    DeliveryState,
    Patient,
    Person,
    Professional,
    Registration,
    ThreadState,
    Verb,
    Why,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date, datetime

    from relay.model import Resolution

Rows = tuple[tuple[Button, ...], ...]


def N_(text: str) -> str:  # noqa: N802 - gettext's own name for "extract, translate later"
    """Mark a text that is translated where it is shown."""
    return text


@lru_cache(maxsize=4)
def _catalog(language: str) -> Mapping[str, str]:
    """Every translated text of a language, read once from its .po file; French is its own."""
    if language == "fr":
        return {}
    from babel.messages.pofile import read_po  # 60 ms that a French site never spends

    with resources.files("relay").joinpath("locale", f"{language}.po").open("rb") as file:
        catalog = read_po(file, locale=language)
    return {str(m.id): str(m.string) for m in catalog if m.id and m.string}


REASONS: Final[Mapping[Why, str]] = {
    Why.RULE: N_("décidé par une règle"),
    Why.DEFAULT: N_("aucune règle ne correspond"),
    Why.UNDECIDED: N_("une information nécessaire à la décision est illisible"),
    Why.FLOOR_IDENTITY: N_("l'identité du patient est à vérifier avant tout envoi"),
    Why.FLOOR_GP: N_("le médecin traitant n'est pas identifié avec certitude"),
    Why.FLOOR_CONSENT: N_("le patient s'oppose à l'envoi, la lettre est à lui remettre en main propre"),
    Why.OBSERVE: N_("mode observation : rien n'est envoyé"),
    Why.NO_RULES: N_("aucune règle valide n'est en vigueur"),
    Why.UNLISTED_SENDER: N_("l'expéditeur n'est pas sur la liste de cette boîte"),
    Why.TWO_PATIENTS: N_("le message concerne deux patients"),
    Why.STAY_OF_ANOTHER: N_("ce numéro de séjour est déjà celui d'un autre patient"),
    Why.NUMBER_OF_ANOTHER: N_("ce numéro de document est déjà celui d'une lettre d'un autre séjour"),
    Why.WITHDRAWAL_HELD: N_(
        "un autre message, retenu lui aussi, demande de retirer ou de remplacer cette lettre"
    ),
    Why.OTHER_DISCHARGE: N_(
        "ce message annule une sortie, alors qu'une autre sortie du même séjour est en vigueur"
    ),
    Why.BROKEN_PACKAGE: N_("la pièce jointe est abîmée"),
    Why.UNCLEAR: N_("le contenu n'a pas été compris avec certitude"),
    Why.ATTACHMENT_UNREAD: N_("une pièce jointe n'a pas pu être lue"),
    Why.NO_ADDRESS: N_("le destinataire n'a pas d'adresse de messagerie sécurisée connue"),
    Why.OUTSIDE_DOMAIN: N_("l'adresse n'appartient pas à un domaine autorisé"),
    Why.TOO_LARGE: N_("le message est trop volumineux"),
    Why.TOKEN_MISMATCH: N_("la réponse désigne deux échanges différents"),
    Why.UNKNOWN_SENDER: N_("la réponse vient d'une adresse qui ne participe pas à l'échange"),
    Why.FORWARDED_REPLY: N_("le message est un transfert, non une réponse"),
    Why.AUTHENTICATION_FAILED: N_("l'authenticité de l'expéditeur n'est pas établie"),
    Why.NOT_OPENED: N_("le message est chiffré et n'a pas pu être ouvert"),
    Why.SIGNATURE_BROKEN: N_("la signature électronique ne correspond pas au contenu du message"),
    Why.SIGNATURE_WEAK: N_("la signature électronique emploie un procédé trop faible"),
    Why.SIGNATURE_UNTRUSTED: N_("la signature électronique n'émane pas d'une autorité de confiance"),
    Why.SIGNATURE_EXPIRED: N_(
        "le certificat de la signature électronique est hors de sa période de validité"
    ),
    Why.SIGNATURE_REVOKED: N_("le certificat de la signature électronique est révoqué"),
    Why.SIGNATURE_OF_ANOTHER: N_("la signature électronique n'est pas celle de l'expéditeur"),
    Why.SIGNATURE_UNCHECKED: N_("la signature électronique n'a pas pu être vérifiée"),
    Why.GP_REFUSED: N_("le médecin indique que ce n'est pas son patient"),
    Why.NOT_A_NOTICE: N_("ce n'est pas une lettre de sortie"),
    Why.DUPLICATE: N_("ce message a déjà été reçu"),
    Why.AUTOMATIC: N_("c'est un message automatique"),
    Why.NO_SUCH_DELIVERY: N_("cet accusé ne correspond à aucun envoi connu"),
    Why.REJECTED: N_("écarté par une personne"),
    Why.OWN_MESSAGE: N_("c'est un message du relais lui-même"),
    Why.CITIZEN: N_("le message vient d'un patient"),
    Why.UNREADABLE: N_("le message est illisible"),
    Why.TRUNCATED: N_("le message est arrivé incomplet"),
    Why.REPLY: N_("réponse"),
    Why.RECEIPT: N_("accusé"),
    Why.PRESS: N_("bouton"),
    Why.PRESS_USED: N_("c'est déjà fait"),
    Why.PRESS_EXPIRED: N_("ce bouton n'est plus valable"),
    Why.PRESS_NOT_YOURS: N_("ce bouton ne vous est pas destiné"),
    Why.PRESS_TAKEN: N_("déjà prise par un confrère"),
    Why.FREE_TEXT: N_("texte libre : écrivez par messagerie sécurisée"),
    Why.COMMAND: N_("commande"),
    Why.NO_CHANNEL: N_("aucun compte de messagerie instantanée n'est relié"),
    Why.CONNECTION: N_("le serveur ne répond pas"),
    Why.TIMEOUT: N_("le serveur n'a pas répondu à temps"),
    Why.BUSY: N_("le serveur est occupé"),
    Why.RATE_LIMITED: N_("trop d'envois à la fois"),
    Why.AUTHENTICATION: N_("le serveur refuse notre identifiant"),
    Why.CERTIFICATE: N_("le certificat du serveur n'est pas valable"),
    Why.UNKNOWN_MAILBOX: N_("la boîte du destinataire n'existe pas"),
    Why.MAILBOX_FULL: N_("la boîte du destinataire est pleine"),
    Why.REFUSED: N_("le serveur du destinataire refuse le message"),
    Why.MESSAGE_TOO_LARGE: N_("le serveur du destinataire juge le message trop volumineux"),
    Why.BLOCKED: N_("le destinataire a bloqué le relais"),
    Why.SERVER_ERROR: N_("le serveur a signalé une erreur"),
    Why.PROTOCOL: N_("le serveur a répondu de façon incompréhensible"),
    Why.LOST_AFTER_SEND: N_("la connexion s'est rompue pendant l'envoi"),
    Why.LEASE_ENDED: N_("l'envoi a été interrompu"),
    Why.RESENT_AFTER_CRASH: N_("renvoyé après une interruption"),
    Why.GAVE_UP: N_("abandonné après plusieurs jours d'essais"),
    Why.DSN_FAILED: N_("le serveur du destinataire annonce un échec de remise"),
    Why.DSN_DELAYED: N_("le serveur du destinataire annonce un retard"),
    Why.KO: N_("le logiciel du destinataire n'a pas pu intégrer la lettre"),
    Why.PAUSED: N_("les envois sont suspendus"),
    Why.RECALLED: N_("rappelée par l'hôpital"),
    Why.SUPERSEDED: N_("remplacée par une lettre plus récente"),
    Why.OBJECTION: N_("le patient s'oppose à l'envoi"),
    Why.ANSWERED: N_("une réponse est arrivée"),
    Why.UNLINKED: N_("le compte n'est plus relié"),
    Why.HANDLED: N_("traitée"),
    Why.ACKNOWLEDGED: N_("bien reçue"),
    Why.SEEN_NO_ANSWER: N_("lue, sans réponse"),
    Why.DELIVERED_NO_ANSWER: N_("remise, sans accusé de lecture"),
    Why.BY_PHONE: N_("réglée par téléphone"),
    Why.NOT_MY_PATIENT: N_("pas mon patient"),
    Why.REASSIGNED: N_("réadressée"),
    Why.LADDER_EXHAUSTED: N_("personne n'a répondu malgré les rappels"),
    Why.BY_PERSON: N_("décidé par une personne"),
}
"""Each reason in words that end « …: RAISON. »; a test keeps it complete."""

IDENTITY_BECAUSE: Final[Mapping[str, str]] = {
    "no_patient": N_("la lettre ne nomme aucun patient"),
    "two_patients": N_("la lettre parle de deux patients"),
    "test_ins": N_("l'INS est un numéro de test"),
    "registered_as_test": N_("le patient inscrit est un patient de test"),
    "ins_unreadable": N_("l'INS de la lettre est illisible"),
    "ins_other_oid": N_("le numéro donné comme INS n'est d'aucune série en vigueur"),
    "ins_bad_key": N_("la clé de l'INS est fausse"),
    "ins_without_traits": N_("la lettre donne un INS sans nom ni date de naissance"),
    "trait_unreadable": N_("un trait d'identité de la lettre est illisible"),
    "incomplete_traits": N_(
        "nom de naissance, premier prénom, date de naissance ou sexe : l'un d'eux manque"
    ),
    "used_name_alone": N_("la lettre ne donne que le nom utilisé"),
    "other_family": N_("le nom de naissance n'est pas celui du patient inscrit"),
    "other_given": N_("le prénom n'est pas celui du patient inscrit"),
    "other_born": N_("la date de naissance n'est pas celle du patient inscrit"),
    "other_sex": N_("le sexe n'est pas celui du patient inscrit"),
    "other_used": N_("le nom utilisé n'est pas celui du patient inscrit"),
    "other_birth_place": N_("le lieu de naissance n'est pas celui du patient inscrit"),
    "other_local_id": N_("l'établissement connaît ce patient sous un autre numéro"),
    "local_id_of_another": N_("le numéro de dossier est celui d'un autre patient"),
    "several": N_("plusieurs patients inscrits peuvent être le bon"),
    "registered_incompletely": N_("l'inscription du patient est incomplète"),
    "nobody_registered": N_("aucun patient inscrit ne correspond"),
}
"""Why a patient is not certain: the notes of `relay.resolution` that a person can do something about."""

GP_BECAUSE: Final[Mapping[str, str]] = {
    "no_gp": N_("ni la lettre ni l'inscription du patient n'indiquent de médecin traitant"),
    "name_alone": N_("la lettre nomme le médecin traitant sans son RPPS"),
    "gp_is_a_centre": N_("la lettre indique une structure et ne nomme aucun médecin"),
    "gp_unreadable": N_("le RPPS du médecin traitant est illisible, ou la lettre en indique plusieurs"),
    "gp_unknown": N_("l'annuaire ne connaît pas le RPPS de la lettre"),
    "gp_left": N_("le médecin dont la lettre donne le RPPS n'exerce plus"),
    "registered_gp_unknown": N_("l'annuaire ne connaît pas le médecin traitant inscrit"),
    "registered_gp_left": N_("le médecin traitant inscrit n'exerce plus"),
    "several_registered": N_("plusieurs médecins traitants sont inscrits"),
    "registry_other_gp": N_("le médecin traitant inscrit n'est pas celui de la lettre"),
    "registry_other_name": N_("le médecin traitant inscrit ne porte pas le nom que donne la lettre"),
    "registry_other_centre": N_(
        "le médecin traitant inscrit n'est pas connu dans la structure que donne la lettre"
    ),
    "rpps_other_name": N_("le RPPS de la lettre est celui d'un médecin d'un autre nom"),
    "rpps_two_names": N_("l'annuaire donne deux noms à ce RPPS"),
    "address_of_another": N_("l'adresse que donne la lettre est celle d'un autre professionnel"),
    "not_a_doctor": N_("ce RPPS n'est pas celui d'un médecin"),
    "no_mailbox": N_("l'annuaire ne donne à ce médecin aucune boîte sécurisée"),
    "outside_domain": N_("la boîte de ce médecin est hors des domaines autorisés"),
}
"""Why a GP is not found: the same."""

LINES_BECAUSE: Final[Mapping[str, str]] = {
    "no_gp": N_("il manque le RPPS du médecin traitant"),
    "name_alone": N_("le nom seul ne suffit pas, ajoutez le RPPS du médecin"),
    "gp_unreadable": N_("le RPPS n'a pas pu être lu, il compte 11 chiffres"),
    "gp_unknown": N_("l'annuaire ne connaît pas ce RPPS, vérifiez ses 11 chiffres"),
    "gp_left": N_("le médecin qui porte ce RPPS n'exerce plus"),
    "rpps_other_name": N_("ce RPPS est celui d'un médecin d'un autre nom"),
}
"""The same of a GP whom a ward named in its answer."""

STATES: Final[Mapping[ThreadState, str]] = {
    ThreadState.AWAITING_ACK: N_("en attente du médecin"),
    ThreadState.ACKNOWLEDGED: N_("bien reçue"),
    ThreadState.AWAITING_WARD: N_("en attente du service"),
    ThreadState.AWAITING_GP: N_("en attente de réponse du médecin"),
    ThreadState.WITH_DESK: N_("confiée à un bureau"),
    ThreadState.CLOSED: N_("close"),
}

RULE_FILE: Final[Mapping[str, str]] = {
    "refused": N_("il contient une erreur"),
    "waiting": N_("il attend votre accord (relay rules apply)"),
    "passed_over": N_("d'autres règles lui ont été préférées"),
    "missing": N_("il est introuvable ou illisible"),
    "unread": N_("il n'a pas encore été lu"),
}
"""Why the rule file on the disk is not what is in force."""

ROLES: Final[Mapping[str, str]] = {
    "pharmacist": N_("Le pharmacien"),
    "nurse": N_("L'infirmier ou l'infirmière"),
    "had": N_("L'hospitalisation à domicile"),
    "patient": N_("Le patient"),
}

_SOMEBODY: Final = N_("Un correspondant")

GP: Final = "gp"
"""The registered GP, among those who ask."""

QUESTIONS: Final[Mapping[str, str]] = {
    GP: N_("Question du médecin traitant – Réf. {reference}"),
    "pharmacist": N_("Question du pharmacien – Réf. {reference}"),
    "nurse": N_("Question de l'infirmier ou de l'infirmière – Réf. {reference}"),
    "had": N_("Question de l'hospitalisation à domicile – Réf. {reference}"),
    "patient": N_("Question du patient – Réf. {reference}"),
}
"""The subject of a question to the ward, by what its asker is to the patient; anybody else is a correspondent."""

_QUESTION: Final = N_("Question d'un correspondant – Réf. {reference}")

CHOICES: Final[Mapping[str, str]] = {
    "call": N_("Rappelez-moi"),
    "treatment": N_("Traitement"),
    "appointment": N_("Rendez-vous"),
    "result": N_("Résultat attendu"),
}
"""The coded questions: all that a chat that is not confidential can carry to a ward."""

DELAYS: Final[Mapping[str, str]] = {"1h": N_("1 h"), "tomorrow": N_("Demain 8 h"), "monday": N_("Lundi")}

_LABELS: Final[Mapping[tuple[Verb, str], str]] = {
    (Verb.ACK, ""): N_("Bien reçu"),
    (Verb.CALL_ME, ""): N_("Rappelez-moi"),
    (Verb.MORE, "snooze"): N_("Plus tard"),
    (Verb.REFUSE, ""): N_("Pas mon patient"),
    (Verb.MORE, "ask"): N_("Question"),
    (Verb.MORE, "back"): N_("Retour"),
    (Verb.UNDO, ""): N_("Annuler"),
    (Verb.CALL_ME, "call"): CHOICES["call"],
    **{(Verb.ASK, choice): label for choice, label in CHOICES.items()},
    **{(Verb.SNOOZE, delay): label for delay, label in DELAYS.items()},
}

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

RECALL_WORD: Final = "ANNULER"
"""What a ward answers to its receipt to take a letter back."""

CITES_ANOTHER: Final = N_("la réponse cite la Réf. d'une autre lettre, répondez à chaque message séparément")
NAMES_ANOTHER: Final = N_("la réponse nomme un autre patient que celui de la lettre")
SEND_ANEW: Final = N_(
    "Envoyez la lettre corrigée comme une nouvelle lettre ; pour retirer celle-ci, répondez ANNULER."
)
FIELDS_GP: Final = (N_("Médecin traitant"), N_("RPPS"), N_("Né(e) le"))
FIELDS_IDENTITY: Final = (N_("INS"), N_("Sexe"))


@dataclass(frozen=True, slots=True)
class Mail:
    """The words of one mail."""

    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class Words:
    """One language in one time zone."""

    language: str = "fr"
    timezone: str = "Europe/Paris"

    def say(self, text: str, /, **values: object) -> str:
        """A French text in this language, its `{names}` filled in."""
        return _catalog(self.language).get(text, text).format(**values)

    # ---------------------------------------------------------------------------------------- small words

    def moment(self, at: datetime) -> str:
        """« 4/12, 17 h 42 » in the site's time zone."""
        local = at.astimezone(ZoneInfo(self.timezone))
        if self.language == "fr":
            return f"{local.day}/{local.month}, {local.hour} h {local.minute:02d}"
        return f"{local.day} {_MONTHS[local.month - 1]}, {local.hour:02d}:{local.minute:02d}"

    def on(self, at: datetime) -> str:
        """« 4/12 à 17 h 42 », within a sentence."""
        day, _, hour = self.moment(at).partition(", ")
        return self.say("{day} à {hour}", day=day, hour=hour)

    def hour(self, at: datetime) -> str:
        """« 17 h 42 »."""
        local = at.astimezone(ZoneInfo(self.timezone))
        if self.language == "fr":
            return f"{local.hour} h {local.minute:02d}"
        return f"{local.hour:02d}:{local.minute:02d}"

    def clock(self, at: datetime) -> str:
        """« 17:42 », for the short pop-ups of a chat."""
        local = at.astimezone(ZoneInfo(self.timezone))
        return f"{local.hour:02d}:{local.minute:02d}"

    def day(self, day: date) -> str:
        """« 04/12/2026 » in both languages: a date of birth must not be read two ways."""
        return f"{day.day:02d}/{day.month:02d}/{day.year}"

    def why(self, why: Why) -> str:
        """A reason in plain words."""
        return self.say(REASONS[why])

    def state(self, state: ThreadState) -> str:
        """A thread's state in plain words."""
        return self.say(STATES[state])

    def copy_state(self, state: DeliveryState | None) -> str:
        """How far a letter came, as the ward's list says it."""
        match state:
            case DeliveryState.SEEN:
                return self.say("lue, pas encore de réponse")
            case DeliveryState.ACCEPTED:
                return self.say("remise dans sa messagerie")
            case DeliveryState.SENT:
                return self.say("envoyée, sans accusé de réception")
            case DeliveryState.FAILED:
                return self.say("n'a pas pu être remise")
            case _:
                return self.say("en cours d'envoi")

    def late(self) -> str:
        """A letter that nobody took in time."""
        return self.say("en retard")

    def role(self, key: str) -> str:
        """A correspondent without a name, by what they are to the patient."""
        return self.say(ROLES.get(key, _SOMEBODY))

    def choice(self, choice: str) -> str:
        """A coded question or delay as its button says it."""
        return self.say(CHOICES.get(choice) or DELAYS.get(choice) or choice)

    def ref(self, reference: str) -> str:
        """« Réf. 7F3Q-K2M9 »."""
        return self.say("Réf. {reference}", reference=reference)

    def patient(self, patient: Patient | Registration) -> str:
        """One line that names a patient; for secure mail to those who may know only."""
        name = " ".join(
            part for part in (patient.birth_name or patient.used_name or "", *patient.given_names[:1])
        )
        known = {"F": N_(", née le {day}"), "M": N_(", né le {day}")}
        text = known.get(patient.sex or "", N_(", né(e) le {day}"))
        born = self.say(text, day=self.day(patient.birth_date)) if patient.birth_date else ""
        return self.say("Patient : {name}{born}", name=name.strip() or "?", born=born)

    # ---------------------------------------------------------------------------------------- to a GP

    def sender_name(self, ward: str, facility: str) -> str:
        """« Cardiologie – CHR d'Exemple (Relais) »: what From shows."""
        return " – ".join(part for part in (ward, facility) if part) + " (Relais)"

    def letter_subject(self, reference: str) -> str:
        """« Lettre de liaison – Réf. XXXX-XXXX »: no patient, no ward."""
        return self.say("Lettre de liaison – Réf. {reference}", reference=reference)

    def letter_intro(self, reference: str) -> str:
        """The line that opens every letter: how to answer by one word."""
        return self.say(
            "Réf. {reference} — Répondez par un mot : OK (bien reçu), RAPPEL (rappelez-moi), "
            "ERREUR (pas mon patient), ou écrivez votre question.",
            reference=reference,
        )

    def letter(
        self, reference: str, ward: str, phone: str | None, *, follows: str = "", remarks: Sequence[str] = ()
    ) -> str:
        """What stands above the original text. `follows` is "replacement", "addendum" or ""."""
        lines = [self.letter_intro(reference)]
        if follows == "replacement":
            lines.append(self.say("Annule et remplace la lettre précédente du même séjour."))
        elif follows == "addendum":
            lines.append(self.say("Complète la lettre précédente du même séjour."))
        return self._body([*lines, *remarks], self._ward_line(ward, phone))

    def draft(self) -> str:
        """The hospital calls the document preliminary: nobody there has signed it yet."""
        return self.say("Document provisoire : l'hôpital ne l'a pas encore validé.")

    def partly(self) -> str:
        """A document of the notice lies elsewhere and could not be joined. Its address is for the hospital alone."""
        return self.say("Attention : un document de cet envoi n'a pas pu être joint. Demandez-le au service.")

    def replacing(self, subject: str) -> str:
        """« [Annule et remplace] … » before a subject, once (interoperability framework, replacement)."""
        mark = self.say("[Annule et remplace]")
        return subject if subject.startswith(mark) else f"{mark} {subject}"

    def notice(self, reference: str, ward: str, phone: str | None, patient: Patient | None) -> str:
        """Our own notice of a discharge without a document."""
        lines = [self.letter_intro(reference), self.say("Sorti ce jour, lettre à venir.")]
        if patient:
            lines.append(self.patient(patient))
        return self._body(lines, self._ward_line(ward, phone))

    def copy(self, reference: str, ward: str, phone: str | None, *, remarks: Sequence[str] = ()) -> str:
        """What stands above a copy for somebody else of the care team."""
        first = self.say(
            "Réf. {reference} — Copie pour information, aucune réponse attendue.", reference=reference
        )
        return self._body([first, *remarks], self._ward_line(ward, phone))

    def reminder(self, reference: str, sent: datetime, *, answer: bool = False) -> Mail:
        """To a GP who has not answered a letter, or (`answer`) the ward's answer."""
        body = (
            self.say("La réponse du service, envoyée le {sent}, attend votre retour.", sent=self.on(sent))
            if answer
            else self.say(
                "Une lettre de sortie vous a été envoyée le {sent} et attend votre réponse.",
                sent=self.on(sent),
            )
        )
        return Mail(
            self.say("Rappel – Réf. {reference}", reference=reference),
            self._body([self.letter_intro(reference)], body),
        )

    def pointer(self, reference: str) -> Mail:
        """To somebody who is told that a letter exists, and no more."""
        return Mail(
            self.letter_subject(reference),
            self._body(
                [self.ref(reference)],
                self.say("Une lettre de sortie est en cours de suivi sous cette référence."),
            ),
        )

    def answer(self, reference: str, ward: str, words: str) -> Mail:
        """The ward's answer, in its own words."""
        return Mail(
            self.say("Réponse du service – Réf. {reference}", reference=reference),
            self._body([self.letter_intro(reference), self.say("{who} répond :", who=ward)], words.strip()),
        )

    def recall(self, reference: str) -> Mail:
        """To everybody who got a letter that was not theirs to get."""
        return Mail(
            self.say("Envoyée par erreur – Réf. {reference}", reference=reference),
            self._body(
                [self.ref(reference), self.say("Envoyée par erreur : merci de supprimer sans lire.")],
                self.say(
                    "La lettre qui portait cette référence ne vous était pas destinée, ou a été retirée."
                ),
            ),
        )

    def retracted(self, reference: str) -> Mail:
        """The hospital withdrew a document that stays the right person's business."""
        return Mail(
            self.say("Lettre retirée – Réf. {reference}", reference=reference),
            self._body(
                [
                    self.ref(reference),
                    self.say("L'hôpital a retiré cette lettre : merci de ne plus en tenir compte."),
                ]
            ),
        )

    def refused(self, reference: str) -> Mail:
        """To a GP who said that it is not their patient."""
        return Mail(
            self.say("Merci de supprimer – Réf. {reference}", reference=reference),
            self._body(
                [
                    self.ref(reference),
                    self.say("C'est noté : pas votre patient. Plus rien ne vous sera envoyé à ce sujet."),
                ],
                self.say("Merci de supprimer la lettre reçue, sans la conserver ni la transférer."),
            ),
        )

    def not_taking_part(self, reference: str) -> Mail:
        """To an address that answered without being one of the thread's; says nothing of what it is about."""
        return Mail(
            self.say("Votre message – Réf. {reference}", reference=reference),
            self._body(
                [self.ref(reference)],
                self.say(
                    "Votre adresse ne figure pas parmi les correspondants de cet échange. Votre message est confié "
                    "à une personne de l'hôpital, qui vous répondra s'il y a lieu."
                ),
            ),
        )

    # ---------------------------------------------------------------------------------------- to a ward

    def asked(self, reference: str, asker: str) -> str:
        """The subject of a question; `asker` is `GP` or a participant's key."""
        return self.say(QUESTIONS.get(asker, _QUESTION), reference=reference)

    def question(self, reference: str, who: str, words: str, patient: str = "", *, asker: str = GP) -> Mail:
        """A question in its asker's own words; `asker` as in `asked`."""
        lines = [self.ref(reference), patient, self.say("{who} écrit au sujet de votre lettre :", who=who)]
        return Mail(
            self.asked(reference, asker),
            self._body([line for line in lines if line], words.strip(), self._how_to_answer()),
        )

    def coded_question(
        self, reference: str, who: str, choice: str, phone: str = "", *, asker: str = GP, words: str = ""
    ) -> Mail:
        """A coded question; `call` asks to be called; `asker` as in `asked`; `words` are what its asker added."""
        if choice == "call":
            ask = self.say("{who} demande un rappel téléphonique.", who=who)
            if phone:
                ask += " " + self.say("Téléphone : {phone}.", phone=phone)
        else:
            ask = self.say("{who} a une question : {topic}.", who=who, topic=self.choice(choice).lower())
        return Mail(
            self.asked(reference, asker),
            self._body([self.ref(reference), ask], self._added(words), self._how_to_answer()),
        )

    def ack_note(self, reference: str, who: str, words: str) -> Mail:
        """A GP acknowledged, and added something."""
        return Mail(
            self.say("Bien reçue – Réf. {reference}", reference=reference),
            self._body(
                [self.ref(reference), self.say("{who} a bien reçu la lettre et ajoute :", who=who)],
                words.strip(),
            ),
        )

    def deletion_answered(self, reference: str, who: str, words: str) -> Mail:
        """To the ward: whoever was asked to delete its letter answered."""
        return Mail(
            self.say("Réponse à la demande de suppression – Réf. {reference}", reference=reference),
            self._body(
                [
                    self.ref(reference),
                    self.say("{who} répond à la demande de supprimer la lettre :", who=who or self.role("")),
                ],
                words.strip(),
            ),
        )

    def ward_reminder(self, reference: str, since: datetime, asked: bool = True) -> Mail:
        """To a ward that owes an answer, to a question or (not `asked`) to a desk that gave the follow-up back."""
        return Mail(
            self.say("Rappel : réponse attendue – Réf. {reference}", reference=reference),
            self._body(
                [
                    self.ref(reference),
                    self.say("Une question attend votre réponse depuis le {since}.", since=self.on(since))
                    if asked
                    else self.say(
                        "Le suivi de cette lettre vous a été rendu le {since} et attend votre réponse.",
                        since=self.on(since),
                    ),
                ],
                self._how_to_answer(),
            ),
        )

    def ward_unanswered(self, reference: str, sent: datetime) -> Mail:
        """To a ward that the rules remind of a letter nobody has answered yet; it owes nothing itself."""
        return Mail(
            self.say("Lettre encore sans réponse – Réf. {reference}", reference=reference),
            self._body(
                [
                    self.ref(reference),
                    self.say(
                        "La lettre envoyée le {sent} n'a pas encore reçu de réponse.", sent=self.on(sent)
                    ),
                ]
            ),
        )

    def failed(self, reference: str, who: str, why: Why, *, fields: bool = False) -> Mail:
        """To the ward whose letter did not arrive; `fields`: with the lines that send it to another doctor."""
        form = "\n".join(f"{self.say(label)} :" for label in FIELDS_GP) if fields else ""
        return Mail(
            self.say("Lettre non remise – Réf. {reference}", reference=reference),
            self._body(
                [
                    self.ref(reference),
                    self.say("La lettre n'a pas pu être remise : {why}.", why=self.why(why)),
                    self.say("Destinataire : {who}.", who=who or self.role("")),
                ],
                self.say("Pour l'envoyer à un autre médecin traitant, répondez à ce message en complétant :")
                if fields
                else self.say(
                    "Merci de prévenir ce destinataire par un autre moyen, ou d'indiquer une autre adresse."
                ),
                form,
            ),
        )

    def no_evidence(self, reference: str, who: str) -> Mail:
        """No receipt came although that destination sends them."""
        return Mail(
            self.say("Remise non confirmée – Réf. {reference}", reference=reference),
            self._body(
                [
                    self.ref(reference),
                    self.say("La lettre est partie, mais aucun accusé de remise n'est revenu."),
                    self.say("Destinataire : {who}.", who=who or self.role("")),
                ]
            ),
        )

    def ward_refused(self, reference: str, who: str, words: str = "") -> Mail:
        """To the ward whose letter reached somebody who is not the patient's GP; `words` are what they added."""
        return Mail(
            self.say("Pas son patient – Réf. {reference}", reference=reference),
            self._body(
                [
                    self.ref(reference),
                    self.say("{who} indique que ce n'est pas son patient. Tout envoi est arrêté.", who=who),
                    self.say("La suppression de la lettre lui a été demandée ; un incident est ouvert."),
                ],
                self._added(words),
                self.say("Merci de vérifier le médecin traitant déclaré."),
            ),
        )

    def nobody(self, reference: str, desk: str, owed: str = "") -> Mail:
        """To the ward: the ladder ended. `owed`: the ward itself owes an answer (`ward_waited_for`)."""
        if owed:
            return Mail(
                self.say("Réponse du service attendue – Réf. {reference}", reference=reference),
                self._body(
                    [
                        self.ref(reference),
                        owed,
                        self.say("Le suivi est confié au bureau « {desk} ».", desk=desk),
                    ],
                    self._how_to_answer(),
                ),
            )
        return Mail(
            self.say("Sans réponse – Réf. {reference}", reference=reference),
            self._body(
                [
                    self.ref(reference),
                    self.say(
                        "Personne n'a répondu malgré les rappels. Le suivi est confié au bureau « {desk} ».",
                        desk=desk,
                    ),
                ]
            ),
        )

    def ward_waited_for(self, since: datetime, asked: bool) -> str:
        """At the end of a ladder: the ward owes an answer; `asked` as in `ward_reminder`."""
        if asked:
            text = self.say(
                "Une question posée le {since} attend toujours la réponse du service.", since=self.on(since)
            )
        else:
            text = self.say(
                "Le suivi, rendu au service le {since}, attend toujours sa réponse.", since=self.on(since)
            )
        return text

    def answer_waits(self, sent: datetime) -> str:
        """At the end of a ladder: whoever asked has not taken the ward's answer."""
        return self.say(
            "La réponse du service, envoyée le {sent}, attend toujours le retour du médecin.",
            sent=self.on(sent),
        )

    def ward_recalled(self, reference: str, stopped: int, told: int) -> Mail:
        """To the ward that took a letter back."""
        return Mail(
            self.say("Lettre rappelée – Réf. {reference}", reference=reference),
            self._body(
                [
                    self.ref(reference),
                    self.say("La lettre est rappelée."),
                    self.say("Envois arrêtés avant leur départ : {stopped}.", stopped=stopped),
                    self.say("Destinataires priés de supprimer sans lire : {told}.", told=told),
                    self.say("Un incident est ouvert.") if told else "",
                ]
            ),
        )

    def unsure_recall(self, reference: str) -> Mail:
        """To a ward whose words may ask for its letter back without being the one word that does it."""
        return Mail(
            self.say("Lettre non rappelée – Réf. {reference}", reference=reference),
            self._body(
                [
                    self.ref(reference),
                    self.say("Votre message n'a pas été transmis et rien n'est annulé pour l'instant."),
                    self.say("Pour retirer la lettre, répondez à ce message par le seul mot ANNULER."),
                ],
                self.say("Sinon, une personne de l'hôpital lira votre message."),
            ),
        )

    def given_back(self, reference: str, words: str) -> Mail:
        """To a ward that a desk gives a thread back to."""
        return Mail(
            self.say("Suivi rendu au service – Réf. {reference}", reference=reference),
            self._body(
                [self.ref(reference), self.say("Le bureau vous rend le suivi de cette lettre.")],
                words.strip(),
                self._how_to_answer(),
            ),
        )

    def receipt(self, reference: str, received: datetime, who: str, place: str = "") -> Mail:
        """« Reçue 17 h 41, envoyée au Dr X, Orléans. Erreur ? Répondez ANNULER. »"""
        who = who or self.say("médecin traitant")
        to = f"{who}, {place}" if place else who
        line = self.say(
            "Reçue {hour}, envoyée au {to}. Erreur ? Répondez ANNULER.", hour=self.hour(received), to=to
        )
        return Mail(
            self.say("Lettre reçue et transmise – Réf. {reference}", reference=reference),
            self._body([line], self.ref(reference)),
        )

    def because(self, resolution: Resolution, *, answered: bool = False) -> str:
        """Why patient or GP are not certain, for whoever settles a hold: « la clé de l'INS est fausse »; names nobody.

        A doubt about the patient comes alone: the GP of nobody certain is none. `answered`: for whoever filled in
        lines, which are then what is amiss.
        """
        known: dict[str, str] = {}
        if resolution.identity not in ("qualified", "validated"):
            known |= IDENTITY_BECAUSE
        if resolution.gp != "found" and resolution.identity not in ("doubtful", "test"):
            known |= {**GP_BECAUSE, **(LINES_BECAUSE if answered else {})}
        return " ; ".join(self.say(known[note]) for note in resolution.notes if note in known)

    def hold_note(
        self,
        reference: str,
        reason: str,
        *,
        patient: str = "",
        identity: bool = False,
        fields: bool = True,
        anew: bool = False,
        detail: str = "",
    ) -> Mail:
        """To a ward whose letter waits for a person, with lines to fill in.

        `reason` is a rule's or a floor's words, `detail` what `because` says; `anew`: it may send the letter again.
        """
        lines = [
            self.ref(reference),
            self.say("Votre lettre est retenue : rien n'a été envoyé."),
            self.say("Motif : {reason}.", reason=reason.rstrip(". ")),
            self.say("Précision : {detail}.", detail=detail) if detail else "",
            patient,
        ]
        form = ""
        if fields:
            labels = (*FIELDS_GP, *(FIELDS_IDENTITY if identity else ()))
            form = "\n".join(f"{self.say(label)} :" for label in labels)
        ask = (
            self.say("Pour la corriger et la faire partir, répondez à ce message en complétant :")
            if fields
            else ""
        )
        return Mail(
            self.say("Lettre retenue – Réf. {reference}", reference=reference),
            self._body([line for line in lines if line], ask, form, self.say(SEND_ANEW) if anew else ""),
        )

    def still_held(
        self, reference: str, reason: str, *, detail: str = "", fields: bool = True, anew: bool = False
    ) -> Mail:
        """To a ward whose answer did not mend its letter: why not, and the lines once more where they may."""
        return self._not_sent(
            reference,
            [
                self.say("Votre réponse n'a pas suffi : rien n'a été envoyé."),
                self.say("Motif : {reason}.", reason=reason.rstrip(". ")),
                self.say("Précision : {detail}.", detail=detail) if detail else "",
            ],
            fields=fields,
            anew=anew,
        )

    def lines_unread(self, reference: str, reason: str, *, fields: bool = True, anew: bool = False) -> Mail:
        """To a ward that answered without lines that can be read; a person reads its words."""
        return self._not_sent(
            reference,
            [
                self.say("Votre réponse ne suffit pas à faire partir la lettre : rien n'a été envoyé."),
                self.say("Motif : {reason}.", reason=reason.rstrip(". ")),
                self.say("Une personne lira votre réponse."),
            ],
            fields=fields,
            anew=anew,
            withdraw=True,
        )

    def held_no_more(self, reference: str, *, recall: bool) -> Mail:
        """To a ward that answers about a letter which waits no longer; `recall`: it left, and may be taken back."""
        return Mail(
            self.say("Lettre déjà traitée – Réf. {reference}", reference=reference),
            self._body(
                [
                    self.ref(reference),
                    self.say("Cette lettre n'est plus retenue : votre réponse n'y a rien changé."),
                    self.say("Une personne lira votre réponse."),
                ],
                self.say("Pour retirer la lettre envoyée, répondez ANNULER.") if recall else "",
            ),
        )

    def _not_sent(
        self, reference: str, lines: Sequence[str], *, fields: bool, anew: bool, withdraw: bool = False
    ) -> Mail:
        form = "\n".join(f"{self.say(label)} :" for label in (*FIELDS_GP, *FIELDS_IDENTITY))
        ask = self.say("Pour la corriger et la faire partir, répondez à ce message en complétant :")
        return Mail(
            self.say("Lettre toujours retenue – Réf. {reference}", reference=reference),
            self._body(
                [self.ref(reference), *lines],
                *((ask, form) if fields else ()),
                self.say(SEND_ANEW) if anew else "",
                self.say("Pour retirer cette lettre, répondez ANNULER.") if withdraw and not anew else "",
            ),
        )

    def daily(self, lines: Sequence[tuple[str, datetime, str]], day: date) -> Mail:
        """The ward's list of one day: (reference, arrival, what became of it)."""
        rows = [f"{self.ref(ref)} – {self.moment(at)} – {words}" for ref, at, words in lines]
        return Mail(
            self.say("Vos lettres du {day}", day=self.day(day)),
            self._body(
                [self.say("Nombre de lettres : {count}.", count=len(lines))],
                "\n".join(rows) or self.say("Aucune lettre aujourd'hui."),
            ),
        )

    # ---------------------------------------------------------------------------------------- to a desk

    def desk_hold(
        self,
        reference: str,
        reason: str,
        *,
        ward: str = "",
        patient: str = "",
        letter: bool = True,
        detail: str = "",
    ) -> Mail:
        """To the desk where a letter waits, or (not `letter`) somebody's answer."""
        held = self.say("Une lettre est retenue.") if letter else self.say("Une réponse est à lire.")
        return Mail(
            self.say("À vérifier – Réf. {reference}", reference=reference),
            self._body(
                [
                    self.ref(reference),
                    held,
                    self.say("Motif : {reason}.", reason=reason.rstrip(". ")),
                    self.say("Précision : {detail}.", detail=detail) if detail else "",
                    self.say("Service : {ward}", ward=ward) if ward else "",
                    patient,
                ]
            ),
        )

    def desk_withdrawn(self, reference: str, other: str = "") -> Mail:
        """To the desk that holds a letter which was taken back meanwhile; `other`: a held message asks for that."""
        said = (
            self.say(
                "Un autre message, retenu (Réf. {other}), demande de retirer ou de remplacer cette lettre retenue. "
                "Ne l'envoyez pas sans l'avoir lu.",
                other=other,
            )
            if other
            else self.say(
                "L'hôpital a retiré ou remplacé cette lettre retenue. Elle ne peut plus être envoyée : "
                "écartez-la."
            )
        )
        return Mail(
            self.say("À vérifier – Réf. {reference}", reference=reference),
            self._body([self.ref(reference), said]),
        )

    def desk_thread(self, reference: str, why: Why, note: str = "", words: str = "") -> Mail:
        """To the desk that takes a thread. `words` are a correspondent's, for a desk that sees documents only."""
        return Mail(
            self.say("À suivre – Réf. {reference}", reference=reference),
            self._body(
                [self.ref(reference), self.say("Ce suivi vous est confié : {why}.", why=self.why(why)), note],
                self._added(words),
            ),
        )

    def desk_relieved(self, reference: str, who: str, *, recalled: bool = False) -> Mail:
        """To a desk that had a follow-up which somebody answered, or whose letter was taken back."""
        said = (
            self.say("La lettre a été rappelée par « {who} ».", who=who)
            if recalled
            else self.say("{who} a répondu.", who=who)
        )
        over = self.say("Ce suivi ne vous est plus confié.")
        return Mail(
            self.say("Suivi repris – Réf. {reference}", reference=reference),
            self._body([self.ref(reference), f"{said} {over}"]),
        )

    def desk_not_carried(self, reference: str) -> Mail:
        """To a desk that answered a mail of the relay: its words go to nobody."""
        return Mail(
            self.say("Message non transmis – Réf. {reference}", reference=reference),
            self._body(
                [
                    self.ref(reference),
                    self.say("Votre message n'a été transmis ni au service ni au médecin."),
                    self.say("Pour retirer la lettre, répondez à ce message par le seul mot ANNULER."),
                    self.say(
                        "Pour répondre, clore ou confier ce suivi : relay threads show {reference}.",
                        reference=reference,
                    ),
                ]
            ),
        )

    # ---------------------------------------------------------------------------------------- to admins

    def channel_down(
        self, adapter: str, since: datetime, why: Why | None, oldest_minutes: int | None
    ) -> Mail:
        """One alert when a connection breaks."""
        lines = [
            self.say(
                "« {adapter} » ne répond plus depuis le {since}.", adapter=adapter, since=self.on(since)
            ),
            self.say("Raison : {why}.", why=self.why(why)) if why else "",
            self._oldest(oldest_minutes),
        ]
        return Mail(self.say("Relais : « {adapter} » en panne", adapter=adapter), self._body(lines))

    def channel_up(self, adapter: str, since: datetime, oldest_minutes: int | None) -> Mail:
        """One alert when it heals."""
        lines = [
            self.say(
                "« {adapter} » répond de nouveau depuis le {since}.",
                adapter=adapter,
                since=self.on(since),
            ),
            self._oldest(oldest_minutes),
        ]
        return Mail(self.say("Relais : « {adapter} » rétabli", adapter=adapter), self._body(lines))

    def undelivered(self, reference: str, desk: str, why: Why, *, told: bool = False) -> Mail:
        """A desk or ward that a message did not reach; `told`: it reads the message without its letter instead."""
        subject = {
            Why.NOT_OPENED: N_("Relais : une lettre chiffrée ne s'ouvre plus"),
            Why.UNREADABLE: N_("Relais : un message n'a pas pu être écrit"),
        }.get(why, N_("Relais : une adresse de l'hôpital n'est pas joignable"))
        return Mail(
            self.say(subject),
            self._body(
                [
                    self.ref(reference) if reference else "",
                    self.say(
                        "Un message à « {desk} » n'a pas pu être remis : {why}.",
                        desk=desk,
                        why=self.why(why),
                    ),
                    self.say("Un message sans la lettre l'en prévient.") if told else "",
                    self.say("Vérifiez les clés et certificats de la section [smime] de la configuration.")
                    if why is Why.NOT_OPENED
                    else "",
                ]
            ),
        )

    def rules_refused(self, first: str) -> Mail:
        """The rule file on disk was not put in force; `first` is its first error's line."""
        return Mail(
            self.say("Relais : règles refusées"),
            self._body(
                [
                    self.say(
                        "Le fichier de règles contient une erreur ; les règles précédentes restent en vigueur."
                    ),
                    first,
                ]
            ),
        )

    def rules_waiting(self, first: str) -> Mail:
        """The rule file on disk is sound and would take something away; `first` says what, in one line."""
        return Mail(
            self.say("Relais : règles en attente de votre accord"),
            self._body(
                [
                    self.say(
                        "Le fichier de règles a changé et retirerait un destinataire ou retiendrait des lettres ; les règles précédentes restent en vigueur."
                    ),
                    first,
                    self.say(
                        "Pour voir ce qui changerait : relay rules preview. Pour l'accepter : relay rules apply --accept --reason, suivi du motif."
                    ),
                ]
            ),
        )

    def rules_differ(
        self, file: str, state: str, since: datetime | None, in_force_since: datetime | None
    ) -> str:
        """The rule file on the disk is not what is in force; `state` of `RULE_FILE`. For pages and the terminal."""
        why = self.say(RULE_FILE[state])
        said = (
            self.say(
                "Depuis le {since}, le fichier de règles {file} n'est pas celui qui est en vigueur : {why}.",
                since=self.on(since),
                file=file,
                why=why,
            )
            if since
            else self.say(
                "Le fichier de règles {file} n'est pas celui qui est en vigueur : {why}.", file=file, why=why
            )
        )
        kept = (
            self.say("Les règles en vigueur restent celles du {since}.", since=self.on(in_force_since))
            if in_force_since
            else self.say("Aucune règle n'est en vigueur : tout est retenu.")
        )
        return f"{said} {kept}"

    def rules_mended(self) -> Mail:
        """The rule file on disk is in force again."""
        return Mail(
            self.say("Relais : règles en ordre"),
            self._body([self.say("Le fichier de règles est de nouveau celui qui est en vigueur.")]),
        )

    def corrupt(self, adapter: str, why: Why) -> Mail:
        """An arrival that nobody can read."""
        return Mail(
            self.say("Relais : message illisible reçu"),
            self._body(
                [
                    self.say(
                        "Un message reçu par « {adapter} » est mis de côté : {why}.",
                        adapter=adapter,
                        why=self.why(why),
                    )
                ]
            ),
        )

    def incident(
        self, reference: str, kind: Literal["recall", "wrong_recipient"], opened: datetime, due: datetime
    ) -> Mail:
        """To the data protection officer: what may have to be notified, and until when (GDPR art. 33)."""
        what = (
            self.say("Une lettre déjà partie a été retirée par l'hôpital.")
            if kind == "recall"
            else self.say("Un destinataire signale qu'une lettre reçue n'était pas pour lui.")
        )
        return Mail(
            self.say("Relais : incident à examiner – Réf. {reference}", reference=reference),
            self._body(
                [
                    self.say("Réf. {reference}", reference=reference),
                    what,
                    self.say("La suppression a été demandée à ceux qui l'ont reçue."),
                    self.say(
                        "Incident ouvert le {opened} ; s'il doit être notifié, c'est avant le {due} (RGPD, article 33).",
                        opened=self.on(opened),
                        due=self.on(due),
                    ),
                    self.say(
                        "Pour le voir : relay incidents list, relay threads show {reference}.",
                        reference=reference,
                    ),
                ]
            ),
        )

    def linked(self, channel: str) -> Mail:
        """To a professional whose chat account was linked."""
        return Mail(
            self.say("Compte de messagerie instantanée relié"),
            self._body(
                [
                    self.say(
                        "Un compte {channel} est désormais relié à votre nom ; il reçoit des alertes sans contenu médical.",
                        channel=channel,
                    ),
                    self.say("Si ce compte n'est pas le vôtre, répondez à ce message."),
                ]
            ),
        )

    # ---------------------------------------------------------------------------------------- chat

    def popup(
        self, why: Why | None, *, verb: Verb | None = None, who: str = "", at: datetime | None = None
    ) -> str:
        """The short answer to a press: what was done, or (`why`) what happened instead."""
        if why is Why.PRESS_TAKEN and who and at:
            return self.say("déjà prise par {who} à {at}", who=who, at=self.clock(at))
        if why is not None:
            return self.why(why)
        match verb:
            case Verb.ACK:
                return self.say("Merci, c'est noté.")
            case Verb.CALL_ME | Verb.ASK:
                return self.say("Transmis à l'hôpital.")
            case Verb.SNOOZE:
                return self.say("Rappel prévu le {at}.", at=self.on(at)) if at else self.say("C'est noté.")
            case Verb.REFUSE:
                return self.say("C'est noté. Merci de supprimer la lettre.")
            case Verb.UNDO:
                return self.say("Annulé.")
            case Verb.MORE:
                return ""
            case _:
                return self.say("C'est noté.")

    def _ward_line(self, ward: str, phone: str | None) -> str:
        line = self.say("Service : {ward}", ward=ward) if ward else ""
        if phone:
            line += (", " if line else "") + self.say("téléphone {phone}", phone=phone)
        return line

    def _how_to_answer(self) -> str:
        return self.say("Répondez à ce message : votre réponse sera transmise par le relais.")

    def _added(self, words: str) -> str:
        """What somebody wrote below their one word."""
        title = self.say("Précisions :")
        return f"{title}\n{words.strip()}" if words.strip() else ""

    def _oldest(self, minutes: int | None) -> str:
        return self.say("Plus ancien message en attente : {minutes} min.", minutes=minutes) if minutes else ""

    @staticmethod
    def _body(lines: Sequence[str], *paragraphs: str) -> str:
        head = "\n".join(line for line in lines if line)
        return "\n\n".join(part for part in (head, *paragraphs) if part) + "\n"


# ------------------------------------------------------------------------------------------------------- people


def doctor(person: Professional | Person) -> str:
    """« Dr Ambre », or the name alone for another profession."""
    family = " ".join(part.capitalize() for part in (person.family_name or "").replace("-", "- ").split())
    family = family.replace("- ", "-")
    profession = person.profession if isinstance(person, Professional) else ""
    if profession and not profession.lower().startswith(("médecin", "medecin", "10", "doctor", "physician")):
        given = (person.given_name or "").title()
        return " ".join(part for part in (given, family) if part)
    return f"Dr {family}" if family else ""


# --------------------------------------------------------------------------------------------------------- chat


def chat_text(fields: ChatFields) -> str:
    """All that a chat may ever show, made from fields that can hold nothing else."""
    words = Words(fields.language, fields.timezone)
    say, ref = words.say, fields.reference
    match fields.kind:
        case ChatKind.ALERT if fields.urgent:
            return say("SIGNALÉE URGENTE par l'hôpital, à lire aujourd'hui. Réf. {ref}", ref=ref)
        case ChatKind.ALERT:
            return say(
                "Lettre de sortie à lire dans votre messagerie sécurisée. Non urgente. Réf. {ref}", ref=ref
            )
        case ChatKind.REMINDER if fields.urgent:
            return say("Rappel : SIGNALÉE URGENTE par l'hôpital, à lire aujourd'hui. Réf. {ref}", ref=ref)
        case ChatKind.REMINDER:
            return say(
                "Rappel : lettre de sortie à lire dans votre messagerie sécurisée. Réf. {ref}", ref=ref
            )
        case ChatKind.TAKEN:
            when = say(" à {at}", at=words.clock(fields.at)) if fields.at else ""
            return say("Prise en charge{when}. Réf. {ref}", when=when, ref=ref)
        case ChatKind.WITHDRAWN:
            return say("Lettre retirée par l'hôpital. Réf. {ref}", ref=ref)
        case ChatKind.ANSWERED:
            return say("L'hôpital a répondu, à lire dans votre messagerie sécurisée. Réf. {ref}", ref=ref)
        case ChatKind.ANSWER_WAITS:
            return say(
                "Rappel : l'hôpital a répondu, à lire dans votre messagerie sécurisée. Réf. {ref}", ref=ref
            )
        case ChatKind.REFUSED:
            return say("Signalée « pas mon patient » : merci de supprimer la lettre. Réf. {ref}", ref=ref)
        case ChatKind.SNOOZED:
            when = words.on(fields.at) if fields.at else "?"
            return say("Rappel prévu le {when}. Réf. {ref}", when=when, ref=ref)
        case ChatKind.ASKED:
            return say("Demande transmise à l'hôpital. Réf. {ref}", ref=ref)
        case ChatKind.REDIRECT:
            return say("Écrivez-nous par messagerie sécurisée.")
        case ChatKind.LIST:
            count = len(fields.references) if fields.count is None else fields.count
            head = say("Lettres en attente : {count}", count=count)
            rows = [
                say("lettre du {at} – Réf. {ref}", at=words.moment(at), ref=ref)
                for ref, at in fields.references
            ]
            return "\n".join((head, *rows))
        case ChatKind.HELP:
            return say(
                "/lettres : vos lettres en attente. /aide : cette aide. Pour une question, une absence, ou pour "
                "ne plus recevoir d'alertes, écrivez à l'hôpital par messagerie sécurisée."
            )
        case ChatKind.UNKNOWN if fields.account:
            return say(
                "Ce compte n'est relié à aucun professionnel. Pour qu'il le soit, écrivez à l'hôpital par messagerie "
                "sécurisée en indiquant : {account}",
                account=fields.account,
            )
        case ChatKind.UNKNOWN:
            return say("Ce compte n'est relié à aucun professionnel. L'hôpital peut le relier.")
        case ChatKind.DONE:
            return say("Terminé. Réf. {ref}", ref=ref) if ref else say("C'est noté.")


def label(button: Button, language: str = "fr") -> str:
    """What a button says."""
    text = _LABELS.get((button.verb, button.choice)) or _LABELS[(button.verb, "")]
    return _catalog(language).get(text, text)


def chat(fields: ChatFields, buttons: Rows = (), *, chat: str = "") -> ChatMessage:
    """One chat message; the only way to make its text is `ChatFields`."""
    return ChatMessage(
        chat=chat,
        text=chat_text(fields),
        buttons=tuple(
            tuple((label(button, fields.language), button.nonce) for button in row) for row in buttons
        ),
    )


def chat_message(delivery: Delivery, recipe: ChatRecipe) -> ChatMessage:
    """What a chat adapter shows for a delivery.

    For an edit, `delivery.remote` is the platform's id of the message to change: that of `recipe.edits`.
    """
    made = chat(recipe.fields, recipe.buttons, chat=delivery.address)
    words = Words(recipe.fields.language)
    return ChatMessage(
        chat=made.chat,
        text=made.text,
        buttons=made.buttons,
        link=(words.say("Ouvrir"), recipe.link) if recipe.link else None,
        edits=delivery.remote if recipe.edits else None,
        silent=recipe.silent,
    )
