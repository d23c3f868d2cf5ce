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
_CLOCKS: Final = re.compile(r"(\d{1,2})\s*[h:.]\s*(\d\d)?\s*(?:-|–|à|a)\s*(\d{1,2})\s*[h:.]\s*(\d\d)?")
_MOMENT: Final = re.compile(r"(\S+?),?\s+(?:a\s+)?(\d{1,2})\s*[h:]\s*(\d\d)?")
_QUOTES: Final = "“”«»‘’'\" \xa0\u202f"
_DAY: Final = re.compile(r"(?P<day>\d{1,2})[/. -](?P<month>\d{1,2})[/. -](?P<year>(?:20)?\d\d)")
_ISO_DAY: Final = re.compile(r"(?P<year>20\d\d)[/. -](?P<month>\d{1,2})[/. -](?P<day>\d{1,2})")
_HOURS_AND_MINUTES: Final = re.compile(r"(\d{1,3})\s*h\s*(\d\d)")
_UNITS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("s", "sec", "seconde", "secondes", "second", "seconds"), "s"),
    **dict.fromkeys(("m", "mn", "min", "minute", "minutes"), "m"),
    **dict.fromkeys(("h", "hr", "heure", "heures", "hour", "hours"), "h"),
    **dict.fromkeys(("d", "j", "jr", "jour", "jours", "day", "days"), "d"),
}
_WEEKS: Final = ("w", "sem", "semaine", "semaines", "week", "weeks")

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
    **dict.fromkeys(("or", "ou"), ("any",)),
    **dict.fromkeys(("and", "et"), ("all",)),
    **dict.fromkeys(("not", "pas", "sauf-si"), ("unless",)),
    **dict.fromkeys(("else", "sinon"), ("default",)),
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
    **dict.fromkeys(("oui", "vrai", "1", "on", "yes", "true"), ("yes", "on")),
    **dict.fromkeys(("non", "faux", "0", "off", "no", "false"), ("no", "off")),
    **dict.fromkeys(("test", "trial"), ("observe",)),
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
    """`1 jour`, `2 heures`, `30 min`, `1h30`, `1 semaine` as the language has it."""
    found = _SPAN.fullmatch(_plain(word))
    unit = _UNITS.get(found[2]) if found else None
    guess = f"{int(found[1])}{unit}" if found and unit else ""
    if found and found[2] in _WEEKS:
        guess = f"{7 * int(found[1])}d"
    elif clock := _HOURS_AND_MINUTES.fullmatch(_plain(word)):
        guess = f"{60 * int(clock[1]) + int(clock[2])}m"
    try:
        return str(Duration.parse(guess))
    except ValueError:
        return None


def window_meant(word: str) -> str | None:
    """`8h-12h30`, `20h à 8h`, `08.00-12.30` as the language has it."""
    found = _CLOCKS.fullmatch(_plain(word).strip(_QUOTES))
    if not found:
        return None
    start = int(found[1]) % 24  # a day does not begin at 24:00
    guess = f"{start:02d}:{found[2] or '00'}-{int(found[3]):02d}:{found[4] or '00'}"
    try:
        Window.parse(guess)
    except ValueError:
        return None
    return guess


def day_meant(word: str) -> str | None:
    """`01/03/2026`, the French way, `01/03/26` or `2026-3-1` as the language has it."""
    found = _DAY.fullmatch(word.strip()) or _ISO_DAY.fullmatch(word.strip())
    if not found:
        return None
    try:
        return date(int(found["year"]) % 100 + 2000, int(found["month"]), int(found["day"])).isoformat()
    except ValueError:
        return None


def days_meant(word: str) -> str | None:
    """`lun-jeu`, `Samedi-Dimanche`, `week-end` as `hours` have it."""
    plain = _plain(word[:60])
    return _days(plain) or ("sat-sun" if plain in ("weekend", "week-end", "weekends") else None)


def instant_meant(word: str) -> str | None:
    """`04/12/2026 18:45`, `04/12/2026 à 18h45` as the language has it."""
    found = _MOMENT.fullmatch(_plain(word))
    guess = f"{day_meant(found[1]) or found[1]}T{int(found[2]):02d}:{found[3] or '00'}" if found else ""
    try:
        return datetime.fromisoformat(guess).isoformat(timespec="minutes")
    except ValueError:
        return None
