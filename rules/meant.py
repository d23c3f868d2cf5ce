"""What was probably meant: the nearest known word, a French word for one of the language, a time as people write it."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Mapping
from datetime import date, datetime
from itertools import islice
from typing import TYPE_CHECKING, Final

from relay.calendar import Duration, Window

if TYPE_CHECKING:
    from collections.abc import Iterable

NAMES_SEARCHED: Final = 1_000
_SPAN: Final = re.compile(r"(\d{1,6})\s*([a-z]+)")
_CLOCKS: Final = re.compile(r"(\d{1,2})\s*[h:]\s*(\d\d)?\s*(?:-|–|à|a)\s*(\d{1,2})\s*[h:]\s*(\d\d)?")
_MOMENT: Final = re.compile(r"(\S+?),?\s+(?:a\s+)?(\d{1,2})\s*[h:]\s*(\d\d)?")
_QUOTES: Final = "“”«»‘’'\" \xa0\u202f"
_DAY: Final = re.compile(r"(\d{1,2})[/. -](\d{1,2})[/. -](20\d\d)")
_UNITS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("s", "sec", "seconde", "secondes", "second", "seconds"), "s"),
    **dict.fromkeys(("m", "mn", "min", "minute", "minutes"), "m"),
    **dict.fromkeys(("h", "hr", "heure", "heures", "hour", "hours"), "h"),
    **dict.fromkeys(("d", "j", "jr", "jour", "jours", "day", "days"), "d"),
}

# What French admins write, without accents and in lower case → words of the language, the likeliest first.
FRENCH: Final[Mapping[str, tuple[str, ...]]] = {
    # keys
    "fuseau": ("timezone",),
    "feries": ("holidays",),
    "jours-feries": ("holidays",),
    "pays": ("country",),
    "horaires": ("hours",),
    "heures": ("hours",),
    "cibles": ("targets",),
    "destinataires": ("targets",),
    "suites": ("followups",),
    "relances": ("ladder", "followups"),
    "mots": ("keywords",),
    "mots-cles": ("keywords",),
    "regles": ("rules",),
    "regle": ("rule",),
    "copies": ("also",),
    "defaut": ("default",),
    "qui": ("who",),
    "par": ("via",),
    "porte": ("carries",),
    "contenu": ("carries",),
    "silence": ("quiet",),
    "fondement": ("basis",),
    "attend": ("await", "expect"),
    "attendre": ("await",),
    "attendu": ("expect",),
    "echelle": ("ladder",),
    "delai": ("within", "after"),
    "apres": ("after",),
    "horloge": ("clock",),
    "rappel": ("remind",),
    "rappeler": ("remind",),
    "relancer": ("remind",),
    "passer": ("hand_to",),
    "cloture": ("close",),
    "nom": ("name", "id"),
    "ancien": ("was",),
    "quand": ("when",),
    "si": ("when",),
    "sauf": ("unless",),
    "tous": ("all",),
    "pendant": ("during",),
    "envoyer": ("send",),
    "envoi": ("send",),
    "suite": ("followup",),
    "suivi": ("followup",),
    "retenir": ("hold",),
    "bureau": ("hold",),
    "raison": ("reason",),
    "motif": ("reason",),
    "classer": ("file",),
    "copie": ("copy",),
    "copier": ("copy",),
    "de": ("from",),
    "debut": ("from",),
    "jusque": ("until",),
    "fin": ("until",),
    "grace": ("grace",),
    "tests": ("tests",),
    "cas": ("tests",),
    "donne": ("given",),
    "exceptions": ("exceptions",),
    # verbs that other systems have and that this language has not: nothing is dropped
    **dict.fromkeys(
        ("drop", "discard", "ignore", "delete", "supprimer", "ignorer", "jeter", "mute"), ("file",)
    ),
    # facts
    "evenement": ("event",),
    "urgence": ("urgency",),
    "identite": ("identity",),
    "consentement": ("consent",),
    "medecin": ("gp", "registered_gp"),
    "mt": ("gp", "registered_gp"),
    "medecin-traitant": ("gp", "registered_gp"),
    "absent": ("gp_away",),
    "signe": ("signed",),
    "expediteur": ("sender",),
    "boite": ("mailbox",),
    "etablissement": ("facility",),
    "finess": ("facility",),
    "service": ("ward", "sending_ward"),
    "unite": ("unit",),
    "uf": ("unit",),
    "mode-de-sortie": ("exit_mode",),
    "duree": ("stay_days",),
    "departement": ("department",),
    "mentionne": ("mentions",),
    # values
    "sortie": ("discharge",),
    "urgences": ("er_visit",),
    "passage": ("er_visit",),
    "mutation": ("transfer",),
    "transfert": ("transfer",),
    "deces": ("death",),
    "naissance": ("birth",),
    "autre": ("other",),
    "lettre": ("letter", "document"),
    "avis": ("advance_notice", "notice"),
    "complement": ("addendum",),
    "remplacement": ("replacement",),
    "retrait": ("retraction",),
    "rien": ("none", "routine"),
    "normale": ("routine",),
    "normal": ("routine",),
    "bientot": ("soon",),
    "qualifiee": ("qualified",),
    "validee": ("validated",),
    "provisoire": ("provisional",),
    "douteuse": ("doubtful",),
    "douteux": ("doubtful",),
    "accord": ("allowed", "consent"),
    "autorise": ("allowed",),
    "oppose": ("opposed",),
    "opposition": ("opposed",),
    "masque": ("masked",),
    "trouve": ("found",),
    "aucun": ("none",),
    "aucune": ("none",),
    "plusieurs": ("many",),
    "conflit": ("conflict",),
    "parti": ("left",),
    "retraite": ("left",),
    "domicile": ("home",),
    "maison": ("home",),
    "hopital": ("hospital",),
    "ssr": ("rehabilitation",),
    "smr": ("rehabilitation",),
    "ehpad": ("nursing_home",),
    "had": ("home_hospitalisation",),
    "cabinet": ("practice",),
    "remplacant": ("substitute",),
    "pharmacien": ("pharmacist",),
    "pharmacie": ("pharmacist",),
    "infirmier": ("nurse",),
    "infirmiere": ("nurse",),
    "oui": ("yes",),
    "non": ("no",),
    "vrai": ("yes",),
    "faux": ("no",),
    **dict.fromkeys(("ferme", "fermee", "fermes", "fermees"), ("closed",)),
    "ouvert": ("open",),
    "dimanche": ("as-sunday", "sun"),
    "lu": ("seen",),
    "vu": ("seen",),
    "remis": ("delivered",),
    "repondu": ("ack",),
    "reponse": ("ack",),
    "reel": ("real",),
    "montre": ("real",),
    "equipe": ("care_team",),
    "equipe-de-soins": ("care_team",),
    "pointeur": ("pointer",),
    "essai": ("observe",),
    "observer": ("observe",),
    "arret": ("off",),
    "inconnu": ("unknown",),
    "illisible": ("unknown",),
    # days
    "tous-les-jours": ("every-day",),
    "chaque-jour": ("every-day",),
    "semaine": ("mon-fri",),
    **{
        french: (day,)
        for day, names in {
            "mon": ("lun", "lundi"),
            "tue": ("mar", "mardi"),
            "wed": ("mer", "mercredi"),
            "thu": ("jeu", "jeudi"),
            "fri": ("ven", "vendredi"),
            "sat": ("sam", "samedi"),
            "sun": ("dim",),
        }.items()
        for french in names
    },
}


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, or None."""
    folded: dict[str, str] = {}
    for name in islice(known, NAMES_SEARCHED):
        folded.setdefault(_plain(name), name)
    plain = _plain(word[:60])
    for meant in (*FRENCH.get(plain, ()), _days(plain)):
        if meant in folded:
            return folded[meant]
    close = difflib.get_close_matches(plain, folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def _plain(word: str) -> str:
    parts = unicodedata.normalize("NFKD", word.casefold()).strip()
    return "".join(each for each in parts if not unicodedata.combining(each))


def _days(word: str) -> str:
    """`lun-ven` in the language; "" for anything else."""
    first, dash, last = word.replace(" ", "").partition("-")
    pair = FRENCH.get(first, ("",))[0], FRENCH.get(last, ("",))[0]
    return "-".join(pair) if dash and all(pair) else ""


def duration_meant(word: str) -> str | None:
    """`1 jour`, `2 heures`, `30 min` as the language has it."""
    found = _SPAN.fullmatch(_plain(word))
    unit = _UNITS.get(found[2]) if found else None
    guess = f"{int(found[1])}{unit}" if found and unit else ""
    try:
        return str(Duration.parse(guess))
    except ValueError:
        return None


def window_meant(word: str) -> str | None:
    """`8h-12h30`, `20h à 8h` as the language has it."""
    found = _CLOCKS.fullmatch(_plain(word).strip(_QUOTES))
    if not found:
        return None
    guess = f"{int(found[1]):02d}:{found[2] or '00'}-{int(found[3]):02d}:{found[4] or '00'}"
    try:
        Window.parse(guess)
    except ValueError:
        return None
    return guess


def day_meant(word: str) -> str | None:
    """`01/03/2026`, the French way, as the language has it."""
    found = _DAY.fullmatch(word.strip())
    try:
        return date(int(found[3]), int(found[2]), int(found[1])).isoformat() if found else None
    except ValueError:
        return None


def instant_meant(word: str) -> str | None:
    """`04/12/2026 18:45`, `04/12/2026 à 18h45` as the language has it."""
    found = _MOMENT.fullmatch(_plain(word))
    guess = f"{day_meant(found[1]) or found[1]}T{int(found[2]):02d}:{found[3] or '00'}" if found else ""
    try:
        return datetime.fromisoformat(guess).isoformat(timespec="minutes")
    except ValueError:
        return None
