"""Ward letters as text: labelled lines, French or English, in any order, among ordinary prose.

A label alone never decides who somebody is: an RPPS belongs to the doctor whose label it follows in the
same block, and one that follows nobody is nobody's. A field that stands there and cannot be read goes to
`unknown`; a label with nothing behind it says nothing.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Final, Literal
from zoneinfo import ZoneInfo

from relay import formats
from relay.formats import fold
from relay.model import FollowUp, LocalId, Notice, Patient, Person, Problem, Stay
from relay.reading import never_raises

MAX_LINES = 3000
_MAX_LINE = 400

# label (folded, without bullets and parentheses) → field
_LABELS: dict[str, str] = {
    label: name
    for name, labels in {
        "patient": "patient|patiente|nom du patient|nom de la patiente|patient name|usager|resident|concerne"
        "|identite|identite du patient|identite patient|patient concerne|patient·e|nom et prenom du patient|nom et prenom de la patiente",
        "family_first": "nom/prenom|nom / prenom|nom - prenom|nom & prenom|nom/prenoms|nom / prenoms|nom et prenom|nom et prenoms|nom prenom|nom prenoms|nom prenom du patient|nom, prenom",
        "given_first": "prenom nom|prenom et nom|full name",
        "name": "nom|nom de famille|family name|last name|surname",
        "birth_name": "nom de naissance|nom naissance|nom de jeune fille|nom patronymique|birth name|maiden name"
        "|nom de naissance du patient",
        "used_name": "nom d'usage|nom usage|nom usuel|nom marital|nom d'epouse|nom utilise|used name|married name",
        "given": "prenom|prenoms|prenom usuel|prenom de naissance|premier prenom|prenom du patient"
        "|prenoms de naissance|premier prenom de naissance|1er prenom|prenoms d'etat civil|liste des prenoms|first name|first names|given name|given names|forename",
        "born": "ne|nee|ne le|nee le|ne/nee le|date de naissance|naissance|ddn|date of birth|birth date|birthdate"
        "|dob|born|born on|date naissance|date naiss|date de naissance du patient",
        "civility": "civilite|civilite du patient|salutation",
        "admitted_hour": "heure d'entree|heure d'admission|admission time",
        "discharged_hour": "heure de sortie|discharge time|time of discharge",
        "sex": "sexe|sexe a la naissance|sex|gender|genre|sexe du patient",
        "ins": "ins|matricule ins|ins-nir|ins nir|nir|n ins|numero ins|identite nationale de sante"
        "|identifiant national de sante|ins du patient|national health identifier|national patient identifier",
        "nia": "ins-nia|ins nia|nia",
        "ins_oid": "oid|oid ins|oid de l'ins|ins oid",
        "ipp": "ipp|n ipp|numero ipp|identifiant permanent du patient|identifiant permanent|patient id|mrn"
        "|identifiant patient|id patient",
        "birth_place": "lieu de naissance|code lieu de naissance|code insee de naissance|code insee naissance"
        "|birth place|birthplace|place of birth|commune de naissance",
        "postcode": "code postal|code postal du patient|postcode|postal code|zip code",
        "gp": "medecin traitant|mt|medecin traitant declare|votre medecin traitant|medecin traitant du patient"
        "|registered gp|gp|general practitioner|registered general practitioner|primary care physician"
        "|primary care provider|pcp|family doctor|family physician|docteur traitant|nom du medecin traitant"
        "|med traitant|dr traitant|medecin de famille|nouveau medecin traitant|medecin traitant designe|medecin traitant actuel"
        "|medecin traitant / rpps|medecin traitant/rpps|medecin traitant et rpps|medecin traitant - rpps",
        "gp_mss": "mssante du medecin traitant|adresse mssante du medecin traitant|mss du medecin traitant|mss medecin traitant|mssante medecin traitant"
        "|messagerie securisee du medecin traitant",
        "home": "adresse du patient|adresse patient|adresse de la patiente|domicile|domicile du patient",
        "gp_rpps": "n rpps mt|n rpps du mt|rpps du medecin traitant|rpps medecin traitant|rpps mt|n rpps du medecin traitant|rpps du mt"
        "|gp rpps|rpps of the gp|n rpps medecin traitant|numero rpps du medecin traitant",
        "rpps": "rpps|n rpps|numero rpps|rpps n|identifiant rpps|rpps number|rpps id",
        "doctor": "medecin hospitalier|medecin responsable|medecin referent|redacteur|redactrice|auteur|signataire"
        "|praticien|praticien hospitalier|redige par|valide par|signe par|medecin|docteur|chirurgien|anesthesiste"
        "|interne|chef de service|author|physician|doctor|attending|attending physician|signed by|consultant"
        "|hospital doctor|medecin senior|medecin signataire|expediteur|medecin du service"
        "|medecin de l'unite|responsable medical|medecin urgentiste|sage-femme|surgeon|praticien responsable",
        "referring": "adresse par|adressee par|medecin adresseur|medecin adressant|medecin qui adresse|medecin ayant adresse le patient"
        "|referring doctor|referred by|referring physician",
        "colleague": "medecin correspondant|correspondant|specialiste|cardiologue|medecin specialiste|pharmacien|pharmacie"
        "|infirmier|infirmiere|idel|kinesitherapeute|specialist|pharmacist|nurse",
        "recipient": "destinataire|destinataires|recipient|recipients",
        "copy": "copie|copie a|copies|cc|copy|copy to|en copie",
        "address": "adresse|tel|telephone|fax|mail|email|e-mail|courriel|cabinet|ville|address|phone"
        "|adresse du cabinet|practice|finess du cabinet",
        "mss": "mssante|mss|adresse mssante|messagerie securisee|adresse mss|messagerie|bal mssante"
        "|secure mail|secure address",
        "ward": "service|ward|service d'hospitalisation|nom du service|department|unite de soins|unite"
        "|unite d'hospitalisation|service hospitalier|service de soins",
        "unit": "uf|unite fonctionnelle|code uf|n uf|functional unit|unit code|unit",
        "facility_name": "etablissement|hopital|hospital|facility|etablissement de sante|centre hospitalier",
        "finess": "finess|n finess|numero finess|finess de l'etablissement|finess etablissement|code finess",
        "admitted": "date d'entree|date entree|date d'admission|date admission|entree|entree le|admission|admis le"
        "|admise le|admission date|admitted|admitted on|date of admission|date d'hospitalisation|date d'arrivee"
        "|debut d'hospitalisation|date et heure d'entree|entry date|hospitalise le|hospitalisee le|debut de sejour",
        "discharged": "date de sortie|date sortie|sortie|sortie le|sorti le|date et heure de sortie"
        "|discharge date|date of discharge|discharged|discharged on|discharge|fin d'hospitalisation|fin de sejour"
        "|date de fin de sejour|sortie du service le|date/heure de sortie|date de sortie d'hospitalisation"
        "|discharge date and time|date de sortie effective|date de sortie reelle|date effective de sortie",
        "period": "entree/sortie|entree / sortie|entree - sortie|dates d'entree et de sortie|dates entree/sortie|dates d'entree/sortie|sejour|hospitalisation|hospitalise|hospitalisee|periode d'hospitalisation|dates de sejour"
        "|dates du sejour|dates d'hospitalisation|periode|hospital stay|hospitalise du|hospitalisee du",
        "stay": "n de sejour|n sejour|no de sejour|no sejour|numero de sejour|numero du sejour|num sejour|ref sejour"
        "|reference sejour|reference de sejour|reference du sejour|ref de sejour|ref du sejour|stay number|stay"
        "|stay no|stay id|stay ref|stay reference|visit number|encounter|encounter number|nda|n nda|iep|n iep"
        "|n d'hospitalisation|numero d'hospitalisation|n de dossier administratif|admission number"
        "|n d'admission|n episode|numero de venue|n de venue|identifiant du sejour|identifiant sejour|case number",
        "exit_mode": "mode de sortie|destination|destination de sortie|sortie vers|mode sortie|discharge to|discharged to"
        "|discharge destination|discharge disposition|devenir|devenir a la sortie|devenir du patient|destination a la sortie|orientation a la sortie|retour",
        "entry_mode": "mode d'entree|mode entree|provenance|entry mode|admission mode|admitted from|admission source",
        "urgency": "urgence|degre d'urgence|niveau d'urgence|priorite|urgency|priority|caractere d'urgence|urgent",
        "opposition": "opposition|opposition du patient|opposition a la transmission|opposition a l'envoi"
        "|opposition du patient a la transmission|opposition au partage|opposition transmission|refus de transmission|objection|patient objection|refus du patient",
        "consent": "consentement|consentement du patient|consent|patient consent|consentement a la transmission"
        "|accord du patient|non-opposition|non opposition|non-opposition du patient|consentement a l'envoi",
        "masked": "masquage|masque|masque aux professionnels|masque_ps",
        "kind": "type de document|type du document|document|nature du document|document type|type of document|objet"
        "|type|titre|title|object|subject|intitule",
        "awaited": "resultats attendus|resultats en attente|examens en attente|resultat attendu|pending results"
        "|awaited results|bilans en attente",
        "follow_up": "rendez-vous|rdv|suites a donner|suite a donner|consultation de controle|prochain rendez-vous|prochain rdv|consultation de suivi"
        "|follow-up|follow up|appointment|suivi prevu|rendez-vous de suivi",
        "died": "date de deces|date du deces|deces|deces le|decede|decedee|decede le|decedee le|date of death|died|died on",
        "status": "statut|statut du document|status",
        "replaces": "annule et remplace|remplace",
    }.items()
    for label in labels.split("|")
}  # fmt: skip

_PEOPLE = frozenset({"gp", "doctor", "referring", "colleague", "recipient", "copy"})

_FIELD = re.compile(
    r"[\s>*•·|#_●■▪–—-]*(?:\d{1,2}\s?[).]\s+)?([^\n:=\t|]{2,60}?)\s*(?:[:：﹕꞉∶|]|[-=]?>|→|=|\t)\s*(.*)",
    re.DOTALL,
)
_ENDS_LABEL = re.compile(r"[:：﹕꞉∶|=>→\t]")
_LABEL_WITHIN = 200  # signs: what is no label by then is prose, found to be so in a fraction of the time
_BARE = re.compile(
    r"[\s>*•·-]*((?:d[ée]c[èe]s(?: le)?|d[ée]c[ée]d[ée]e? le|n[ée]+\s?(?:\([eé]\))?\s+le|date de naissance|born(?: on)?|rpps(?: n°)?|ins|ipp|date de sortie"
    r"|sortie? le|date d[’']entr[ée]e|hospitalis[ée]e?(?:\(e\))? du|s[ée]jour)) +(?=(?:du )?\d)(.*)",
    re.IGNORECASE,
)
_PARENTHESES = re.compile(r"\([^)]{0,30}\)")
_LABEL_SIGNS = dict.fromkeys(map(ord, '°º.*_"'), " ")
_OTHER_FIELD = re.compile(
    r"(?:\s{2,}|\t|\s*[;|•]\s*|,\s+|\s[-–—/]\s)(?=[^\s:;|,][^:;|,\t]{1,40}?\s?[:：]\s?\S?)"
)
_NOTHING = re.compile(
    r"(?:[-–—_.…?/\s]*|n\.?[cr]\.?|non (?:renseignee?|connue?|communiquee?|precisee?|declaree?|designee?|qualifiee?|disponible)|inconnue?|en (?:cours|attente)\b.*"
    r"|aucune?|neant|sans|unknown|none|n/?a|pas de medecin traitant.*|a completer|absente?|sans medecin traitant)\.?"
)
_NAME_LIKE = re.compile(r"\b(?:dr|docteur|pr|professeur)\b\.?\s", re.IGNORECASE)
# What may stand between a doctor's name and their number: a street, a town, a telephone, a practice.
_PLACE = re.compile(r"\d|^\W*(?:cabinet|maison|centre|p[ôo]le|cent|rue|avenue|place|bd|boulevard|r[ée]sidence|b[âa]t|lieu|msp|scm|zac?)\b",
                    re.IGNORECASE)  # fmt: skip

_CIVILITY = re.compile(
    r"^(?:(?P<f>mme|madame|mlle|mademoiselle|mrs|ms|miss)|(?P<m>monsieur|mr|m)|(?P<n>enfant|bebe|nouveau-ne|bb))\b\.?\s+"
)
_TITLE = re.compile(
    r"^(?:(?:m(?:me|lle|r)?|madame|monsieur)\b\.?\s+)?(?:(?:le\s+|la\s+)?(?:dre?|docteure?|pr|professeure?|doctor|prof)\b\.?\s*)?",
    re.IGNORECASE,
)
_PARTICLES = frozenset({"de", "du", "des", "la", "le", "les", "d'", "da", "di", "dos", "van", "von", "der", "den", "el",
                        "ben", "al", "y", "e"})  # fmt: skip

# What makes a text speak of a discharge, in a subject, a document type or a title line.
_DISCHARGE = re.compile(
    r"avis de sortie|lettre de liaison|lettre de sortie|courrier de sortie|compte[ -]rendu (?:de fin )?d'hospitalisation"
    r"|resume de sortie|bulletin de sortie|sortie d'hospitalisation|sortie d'un patient|sortie de l'etablissement"
    r"|sortie du service|sorties? du (?:jour|\d)|liste des sorties|\bcrh\b|discharge (?:letter|summary|notice|report|notification)|hospital discharge"
    r"|letter of discharge|notice of discharge"
)
_ENTRY = re.compile(
    r"lettre d'entree|liaison (?:a )?l'entree|avis d'(?:entree|admission|hospitalisation)|admission notice"
)
_EMERGENCY = re.compile(
    r"passage aux urgences|retour des urgences|fiche des urgences|emergency (?:visit|department) (?:report|summary)"
)
_EMERGENCY_TITLE = re.compile(
    r"(?m)^\W*(?:compte[ -]rendu|cr|fiche|lettre|courrier)\b.{0,20}\b(?:passage aux urgences|retour des urgences)"
)
_DEATH = re.compile(r"avis de deces|certificat de deces|death notice|patiente? (?:est )?decedee?")
_ADDENDUM = re.compile(r"\b(?:addendum|additif|complement|resultats? complementaires?)\b")
_REPLACES = re.compile(r"annule et remplace|cancels and replaces|version corrigee|corrected version")
# As the words of a line that begins with them: elsewhere a prescription replaces another, a brother has died.
_DEATH_TITLE = re.compile(
    r"(?m)^\W*(?:avis de deces|certificat de deces|(?:le |la |votre |notre )?patiente? (?:est )?decedee?\b)"
)
_REPLACES_TITLE = re.compile(
    r"(?m)^\W*(?:(?:ce|cette|le present|la presente) (?:courrier|lettre|document|compte[ -]rendu|version)[^.\n]{0,30} )?(?:annule et remplace|version corrigee"
    r"|cancels and replaces|corrected version)"
)
_RETRACTS = re.compile(
    r"\bannulation\b|\bannulee?\b(?! et remplace)|\b(?:envoye|adresse|transmis)e?s? par erreur\b|\bretracted\b|\bwithdrawn\b"
)
_TO_COME = re.compile(
    r"lettre (?:de liaison )?(?:a venir|suivra|suit\b|vous parviendra|sera envoyee|vous sera)|letter (?:to )?follows?\b"
)
_OBJECTS = re.compile(
    r"(?:\bs'oppose\b(?! pas)|\bs'est (?:formellement |expressement )?opposee?\b(?! pas)|\b(?:patiente?|interessee?) opposee?\b|\b(?:a|ayant) (?:formellement |expressement )?refuse\b"
    r"|\brefuse\b(?! pas)|\brefus (?:du|de la) patiente?\b|\bopposition (?:formelle |expresse )?(?:du|de la) patiente?\b|\b(?:exprime|formule|manifeste) (?:son|une) opposition\b"
    r"|\bne (?:souhaite|veut|desire) pas\b|\bn'(?:autorise|accepte) pas\b|\bobjects to\b|\bdoes(?: not|n't) (?:want|wish|consent)\b)"
    r"[^.\n]{0,80}?(?:transmi|transmet|\benvoi\b(?! en\b)|\benvoy|communiqu(?!er? avec)|\bcommunication (?:a|au|d[eu']|des)\b|partag|\bque (?:son |sa |le |la |votre )?(?:medecin|dr|docteur)|\b(?:au|a (?:son|sa|votre)) medecin|\bsen[dt]\b|sending|shar)"
)
# An order that leaves open whose wish it is.
_DO_NOT = re.compile(
    r"\bne (?:surtout )?(?:pas|rien) (?:transmettre|envoyer|communiquer|adresser|diffuser|prevenir|informer|avertir)\b[^.\n]{0,60}?\b(?:medecin|mt|dr|docteur|generaliste)\b"
    r"|\bdo not (?:send|share|forward|inform)\b[^.\n]{0,60}?\b(?:gp|doctor|physician)\b"
)
# The words without which none of the three above can be: a common one first, then what must stand beside it.
_HINTS: Final = (
    ("oppos", ("",)), ("refus", ("",)), ("objects to", ("",)), ("venir", ("",)), ("suivra", ("",)), ("lettre suit", ("",)),
    ("parviendra", ("",)), ("sera envoy", ("",)), ("vous sera", ("",)), ("follow", ("",)), ("ne rien", ("",)),
    ("not ", ("not want", "not wish", "not consent", "do not s", "do not f", "do not i")), ("n't", ("n't want", "n't wish", "n't consent")),
    (" pas", ("souhaite pas", "veut pas", "sire pas", "autorise pas", "accepte pas", "ne pas tr", "ne pas env", "ne pas comm",
              "ne pas adr", "ne pas diff", "ne pas pr", "ne pas inf", "ne pas av")),
)  # fmt: skip
_SHARED_RECORD = re.compile(r"\bdmp\b|dossier medical partage|mon espace sante|espace numerique de sante")
# What stands before such words and turns them: « n'a pas exprimé d'opposition », « sauf opposition du patient ».
_NO_OBJECTION = re.compile(
    r"(?:ne s'oppose|n'a pas|ne refuse|pas d'|aucune |sans )[^.\n]{0,12}$"
    r"|\b(?:sauf|hors|absence d'|en cas d[e']|droit (?:d'|de )|pas|jamais|non-?|si (?:le |la |l'|celui-ci|celle-ci)?\w{0,12}) ?$|\bsauf [^.\n]{0,30}$|\bsi [^.\n,]{0,24}$"
)


# Prose of a person who leaves the hospital: no letter to send on, and nothing to be thrown away either.
_LEAVES = re.compile(
    r"\b(?:est|sont|sera|seront|etait) sortie?s?\b|\bsort(?:ent|ira|iront)? (?:ce (?:jour|matin|soir|midi)|aujourd|demain|du service|de l'h|d'h|le \d)"
    r"|\bsortie? (?:d'hospitalisation|prevue?|ce (?:jour|matin|soir)|aujourd'hui|le \d)|\bretourn?e? (?:a|au) (?:son )?domicile"
    r"|\b(?:was|is being|will be|has been) discharged\b|\bwent home\b"
)
_SOMEBODY = re.compile(
    r"\b(?:mme|mlle|madame|monsieur|mr|mrs|ms)\.? [a-z]|\bm\. [a-z]|\b(?:(?:le|la|notre|votre|the|your|our|this) )?patiente?\b"
    r"|\b(?:ne|nee) le \d|\bins\b"
)


_NOBODY, _NO_STAY, _NO_PERSON = Patient(), Stay(), Person()


@dataclass(slots=True)
class _Found:
    """What the lines said so far."""

    patient: Patient = _NOBODY
    family: list[str] = field(default_factory=list)  # names told apart by their labels
    names: list[Patient] = field(default_factory=list)  # whole names of patient lines
    stay: Stay = _NO_STAY
    gps: list[Person] = field(default_factory=list)
    gp_said_none: bool = False
    author: Person | None = None
    referring: Person | None = None
    recipients: list[Person] = field(default_factory=list)
    follow_up: list[FollowUp] = field(default_factory=list)
    awaited: list[str] = field(default_factory=list)
    kind: str | None = None
    consent: str | None = None
    urgency: str | None = None
    local_ids: list[LocalId] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    labelled: set[str] = field(default_factory=set)
    two: bool = False
    others: list[str] = field(default_factory=list)  # birth dates that prose gives somebody by name
    civility: Literal["M", "F"] | None = None
    hours: dict[str, str] = field(default_factory=dict)  # times of day on lines of their own


@dataclass(frozen=True, slots=True)
class Letter:
    """What a text is: `notice` as far as it was understood, and what it has of a notice."""

    notice: Notice
    has_patient: bool  # a labelled patient, named or numbered
    is_discharge: bool
    labels: frozenset[str]
    tells: bool = False  # its prose tells of somebody's discharge
    born: frozenset[date] = frozenset()  # the days that its prose gives people by name, kin aside


def label_of(text: str) -> str | None:
    """The field that a label names, or None; in two languages, « Sexe / Sex », both must name the same."""
    plain = fold(text)
    if "(" in plain:
        plain = _PARENTHESES.sub(" ", plain)
    plain = " ".join(plain.translate(_LABEL_SIGNS).strip(" -:>•").split())
    name = _LABELS.get(plain)
    if name is None and plain.startswith("no "):  # « No RPPS »
        plain = plain.removeprefix("no ")
        name = _LABELS.get(plain)
    if name is None and "/" in plain:
        halves = {_LABELS.get(half.strip()) for half in plain.split("/")}
        return halves.pop() if len(halves) == 1 else None
    return name or _nearly(plain)


_MISTYPED = range(9, 40)  # shorter words are near too many others


@functools.cache
def _with_a_letter_less() -> dict[str, tuple[str, ...]]:
    """Every long label without one of its letters → the labels it may be."""
    out: dict[str, set[str]] = {}
    for label in _LABELS:
        if len(label) in _MISTYPED:
            for place in range(len(label)):
                out.setdefault(label[:place] + label[place + 1 :], set()).add(label)
    return {short: tuple(sorted(labels)) for short, labels in out.items()}


@functools.lru_cache(maxsize=1024)
def _nearly(plain: str) -> str | None:
    """The field whose label is mistyped here: one letter missing, too many, wrong, or two in the wrong order."""
    if len(plain) not in range(_MISTYPED.start - 1, _MISTYPED.stop + 1):
        return None
    shorter = _with_a_letter_less()
    labels = {*shorter.get(plain, ())}
    for place in range(len(plain)):
        short = plain[:place] + plain[place + 1 :]
        if len(short) in _MISTYPED and short in _LABELS:
            labels.add(short)
        for label in shorter.get(short, ()):
            # Both lost a letter: the same place is one wrong letter, neighbours are two in the wrong order.
            if short in (label[:place] + label[place + 1 :], label[: place + 1] + label[place + 2 :],
                         label[: max(0, place - 1)] + label[place:]):  # fmt: skip
                labels.add(label)
    names = {_LABELS[label] for label in labels}
    return names.pop() if len(names) == 1 else None


def fields(text: str) -> Iterator[tuple[str, str, int]]:
    """(field, value, block) of each labelled line; several on one line are told apart.

    `block` grows at a blank line or at prose; field "" is a line of prose, which ends nothing by itself.
    """
    block = 0
    lines = text.split("\n", MAX_LINES)[:MAX_LINES]
    skip = -1
    columns: list[str] = []
    for number, line in enumerate(lines):
        if number == skip:
            continue
        cells = [cell.strip(" >\u00a0\r") for cell in line.split("\t")] if "\t" in line else []
        if len(cells) > 2 and len(line) <= _MAX_LINE:
            named = [label_of(cell) for cell in cells]
            if columns and len(cells) == len(columns) and not any(named):
                yield from (
                    (name, _clean(cell), block) for name, cell in zip(columns, cells, strict=True) if name
                )
                continue
            if all(named) or (not columns and len([one for one in named if one]) > max(2, len(named) // 2)):
                columns = [name or "" for name in named]  # « Chambre », « Lit » are columns, too
                continue
            if (
                len(cells) % 2 == 0
                and all(named[::2])
                and not any(cell[:1] in (":", "=") for cell in cells[1::2])
            ):
                pairs = zip(named[::2], cells[1::2], strict=True)
                yield from ((name, _clean(cell), block) for name, cell in pairs if name)
                continue
        columns = []
        if not line.strip(" \t>\u00a0\r"):
            block += 1
            continue
        if len(line) > _MAX_LINE:
            block += 1
            yield "", line[:_MAX_LINE], block
            continue
        pieces = list(_pieces(line))
        if not pieces:
            yield "", line, block
            continue
        for name, value in pieces:
            if not value and number + 1 < len(lines):
                following = lines[number + 1].strip(" \t>\u00a0")
                if following and len(following) < 120 and not _FIELD.match(following) and pieces[-1][1] == "":
                    skip, value = number + 1, following
            yield name, value, block


def _pieces(line: str) -> Iterator[tuple[str, str]]:
    """The labelled values of one line."""
    found = _FIELD.match(line) if _ENDS_LABEL.search(line, 0, _LABEL_WITHIN) else None
    name = label_of(found[1]) if found else None
    if found is None or name is None:
        bare = _BARE.match(line)
        if bare is None:
            return
        name, value = label_of(bare[1]) or "", bare[2]
        if not name:
            return
    else:
        value = found[2]
    if ":" in value or "：" in value:
        for cut in _OTHER_FIELD.finditer(value):
            rest = _FIELD.match(value, cut.end())
            if rest and label_of(rest[1]):
                yield name, _clean(value[: cut.start()])
                yield from _pieces(value[cut.end() :])
                return
    if found is not None and name == "gp" and "(" in found[1] and _UNSURE_GP.search(fold(found[1])):
        value += " ?"  # « Médecin traitant (retraité) : … »
    yield name, _clean(value)


def _clean(value: str) -> str:
    if "[barré : " in value:  # of `reading.html_text`
        value = re.sub(r"\[barré : [^\]]*\]", " ", value)
    return " ".join(value.replace("\u200b", "").replace("\ufeff", "").split()).strip(" *_|")


# ------------------------------------------------------------------------------------------------------------ names


def _is_capital(word: str) -> bool:
    return word.isupper() and sum(map(str.isalpha, word)) > 1


def split_name(text: str, *, given_first: bool | None = None) -> tuple[str | None, tuple[str, ...], bool]:
    """(family name, given names, whether the order is unsure) of a name as people write it.

    The words in capitals are the family name. Without any such contrast a comma or `given_first` tells; else
    given names are taken to come first, and the order is unsure.
    """
    if "," in text:
        family, _, given = text.partition(",")
        contrast = {_is_capital(word) for word in family.split() if fold(word) not in _PARTICLES}
        if len(contrast) == 2:  # « PELLERIN Lucien, Marie »: the comma parts given names
            name, firsts, _ = split_name(family)
            more = tuple(given.split())
            return name, (*firsts, *(more if all(word[:1].isupper() for word in more) else ())), False
        return family.strip() or None, tuple(given.split()), False
    words = text.replace("’", "'").split()
    if not words:
        return None, (), False
    capital = [_is_capital(word) for word in words]
    if any(capital) and not all(capital):
        first, last = capital.index(True), len(words) - 1 - capital[::-1].index(True)
        while first > 0 and fold(words[first - 1]) in _PARTICLES:
            first -= 1
        inner = words[first : last + 1]
        whole = all(capital[n] or fold(words[n]) in _PARTICLES for n in range(first, last + 1))
        return " ".join(inner), tuple(words[:first] + words[last + 1 :]), not whole
    if len(words) == 1:
        return words[0], (), False
    unsure = given_first is None
    if (all(capital) and given_first is not True) or given_first is False:
        cut = 1
        while cut < len(words) - 1 and fold(words[cut - 1]) in _PARTICLES:
            cut += 1
        return " ".join(words[:cut]), tuple(words[cut:]), unsure
    cut = len(words) - 1
    while cut > 1 and fold(words[cut - 1]) in _PARTICLES:
        cut -= 1
    return " ".join(words[cut:]), tuple(words[:cut]), unsure


_BORN_AS = re.compile(
    r"\b(?:n[ée]e?|n[ée]\(e\)|birth name|born)\s*:?\s+(?!le\b|on\b|en\b|in\b|vers\b|[àa]\b|aux?\b|\d)",
    re.IGNORECASE,
)
_MARRIED = re.compile(r"\b(?:[ée]pouse|[ée]poux|[ée]p\.?|veuve|vve|married)\s+", re.IGNORECASE)
_BORN_ON = re.compile(
    r"\b(?:n[ée]e?(?:\(e\))?\s+(?:le|en|vers|[àa]|aux?)|born(?: on)?|ddn|dob)\b", re.IGNORECASE
)
_MAIDEN = re.compile(r"\(\s*(?:nf|njf|nom de (?:jeune fille|naissance))\s*:?\s+", re.IGNORECASE)
_APART = re.compile(
    r"(?:\s*,|\s[-–—])\s*(?=(?:n[ée]e?|n[ée]\(e\)|[ée]pouse|[ée]p\.?|veuve|vve)\s)", re.IGNORECASE
)
# « Mme VASSEUR Odile née le 02/07/1944 », in prose: somebody by name, with a birth date.
# A letter that can begin it stands first in the pattern: so the search passes over prose many times faster.
_ANOTHER = re.compile(
    r"[MP](?<!\w[MP])(?:(?<=M)(?:r|me|lle|onsieur|adame|ademoiselle|ME|R)?|(?<=P)atiente?)\b\.?\s+(?:[^\W\d_][^\s,;:.]*[\s,]+){1,6}?[Nn](?:é|ée|e|ee|ÉE|EE)(?:\(e\))?\s+[Ll]e\s+"
    r"(\d{1,2}\s?[./-]\s?\d{1,2}\s?[./-]\s?\d{4}|\d{1,2}(?:er)?\s+\w{3,9}\s+\d{4})"
)
_OF_KIN = re.compile(r"\b(?:m[èe]re|p[èe]re|maman|papa|[ée]pouse|[ée]poux|conjointe?|fille|fils|enfant|b[ée]b[ée]|s[oœ]e?ur|fr[èe]re|tut(?:eur|rice)|curat(?:eur|rice)|mandataire|repr[ée]sentante?|responsable|aidante?|voisine?|accompagn\w*|contact|pr[ée]venir|assur[ée]e?|compagne|compagnon|personne de confiance|accouch\w*|naissance)\b",
                     re.IGNORECASE)  # fmt: skip


# « Bébé LEROUX Lina (mère : LEROUX Anne, née le 04/05/1990) »: that birth date is the mother's.
_KIN = re.compile(
    r"\((?=[^)]*\b(?:m[èe]re|p[èe]re|maman|papa|tut(?:eur|rice)|conjointe?|mother|father|parents?)\b)[^)]*\)"
    r"|(?<=\S)[\s,;–-]+(?:sa\s+|son\s+)?(?:m[èe]re|p[èe]re|maman|papa|tut(?:eur|rice)|conjointe?|mother|father|parents?|(?:fils|fille|enfant|son|daughter|child)\s+(?:de|d['’]|of))\b.*",
    re.IGNORECASE,
)


def _whole_name(value: str, given_first: bool | None) -> Patient:
    """A patient line: civility, names in either order, « née », « épouse », perhaps sex and birth date behind."""
    patient = _NOBODY
    text = _KIN.sub("", value).strip(" .;,-")
    folded = fold(text)
    if civility := _CIVILITY.match(folded):
        if not civility["n"]:
            patient = replace(patient, sex="F" if civility["f"] else "M")
        text = text[civility.end() :] if len(folded) == len(text) else text.split(None, 1)[-1]
    text = re.sub(
        r"^(?:veuve|veuf|vve)\s+", "", _TITLE.sub("", text) if civility else text, flags=re.IGNORECASE
    )
    text = _APART.sub(" ", _MAIDEN.sub("(née ", text))
    if on := _BORN_ON.search(text):
        day = formats.find_day(fold(text[on.end() :]))
        if day:
            patient = replace(patient, birth_date=day[0])
        text = text[: on.start()]
    for inner in re.findall(r"\(([^)]*)\)", text):
        if day := formats.find_day(fold(inner)):
            patient = replace(patient, birth_date=patient.birth_date or day[0])
        if (sex := _sex(inner)) and patient.sex is None:
            patient = replace(patient, sex=sex)
    text = re.sub(r"\((?![^)]*(?:n[ée]+|[ée]p))[^)]*\)", " ", text).replace("(", " ").replace(")", " ")
    if day := formats.find_day(fold(text)):
        patient = replace(patient, birth_date=patient.birth_date or day[0])
    text = re.split(r"\d|\s[-–—]\s|;|\[|\bINS\b|\bIPP\b|\bs[ée]jour\b", text, maxsplit=1)[0]
    pieces = text.split(",")
    if len(pieces) > 2 or (len(pieces) == 2 and (_sex(pieces[1]) or not pieces[1].strip())):
        for piece in pieces[1:]:
            if (sex := _sex(piece)) and patient.sex is None:
                patient = replace(patient, sex=sex)
        text = pieces[0]
    text = re.sub(r",\s*(?:le|on)$", "", text.strip(" ,.;-")).strip(" ,.;-")
    if born := _BORN_AS.search(text):
        before, after = text[: born.start()].strip(" ,"), text[born.end() :].strip()
        after = re.split(r"\s(?:[àa]|aux?)\s|\s(?:le|LE|on)$", after)[0]  # « née MARTIN à Orléans le … »
        family, given, unsure = split_name(after, given_first=False)
        used, first, order = split_name(before, given_first=given_first)
        if before and not first and not given and len(before.split()) > 1:
            used, first = before, ()
        return replace(patient, birth_name=family, used_name=used, given_names=first or given,
                       name_kind="birth", order_unsure=order and bool(first) and unsure)  # fmt: skip
    if wed := _MARRIED.search(text):
        before, after = text[: wed.start()].strip(" ,"), text[wed.end() :].strip()
        family, first, order = split_name(before, given_first=given_first)
        used, given, _ = split_name(after, given_first=False)
        return replace(patient, birth_name=family, used_name=used, given_names=first or given,
                       name_kind="birth", order_unsure=order and bool(first))  # fmt: skip
    if civility and civility["n"] and len(text.split()) == 1:
        return replace(patient, given_names=(text,))  # « Bébé Lina »: the family name stands elsewhere
    family, given, unsure = split_name(text, given_first=given_first)
    return replace(patient, birth_name=family, given_names=given, order_unsure=unsure)


def _sex(value: str) -> Literal["M", "F", "U"] | None:
    word = fold(value).strip(" .()")
    if word in ("f", "feminin", "femme", "female", "woman", "fille", "f (feminin)", "w"):
        return "F"
    if word in ("m", "masculin", "homme", "h", "male", "man", "garcon"):
        return "M"
    if word in ("u", "i", "indetermine", "unknown sex", "x"):
        return "U"
    return None


_NOT_A_NAME = re.compile(
    r"(?:non (?:declare|connu|designe|renseigne)|(?:pas|aucun|sans)\b|oui|yes|prevenue?|informee?|avertie?|contactee?|a prevenir|cf\b|voir\b|idem\b|le meme\b|la meme\b|hors (?:departement|secteur))\b.*"
)
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_RPPS = re.compile(r"(?<!\d)(8?1[\s.]?\d(?:[\s.]?\d){9})(?!\d)")


def plain_name(value: str) -> str:
    """The name in a doctor's line: no title, and nothing of what stands behind it."""
    value = re.sub(
        r"^\s*(?:RPPS\s*(?:n°)?\s*:?\s*)?8?1\d{10}(?!\d)[\s,:–—-]*", "", value
    )  # the number before the name
    text = re.split(
        r"[(\[;,]|\s[-–—/]\s|\b(?:RPPS|T[ée]l|pr[ée]venue?|inform[ée]e?|avertie?)\b|\d|<", value, maxsplit=1
    )[0]
    text = _TITLE.sub("", text.strip())
    return "" if "@" in text else text


def person(value: str) -> Person | None:
    """A doctor as a line names them, with the RPPS and secure address that stand beside the name."""
    rpps = _RPPS.search(value)
    address = _EMAIL.search(value)
    family, given, _ = split_name(plain_name(value))
    result = Person(
        name=" ".join([*given, *([family] if family else [])]) or None,
        family_name=family,
        given_name=" ".join(given) or None,
        rpps=formats.bare_rpps(rpps[1]) if rpps else None,
        mss_address=address[0].lower() if address else None,
    )
    return result if result != _NO_PERSON else None


# ----------------------------------------------------------------------------------------------------------- reading


@never_raises(
    Letter(
        Notice(format="text", problems=(Problem("unreadable_document", "texte illisible"),)),
        False,
        False,
        frozenset(),
    )
)
def read(text: str, *, subject: str = "", zone: ZoneInfo = formats.PARIS) -> Letter:
    """What a text says; whether it is a notice is the caller's to decide from the marks. Never raises."""
    found = _Found()
    text = unicodedata.normalize("NFC", text).replace(
        "\u00a0", " "
    )  # what comes out of Apple's programs has its accents apart
    owner: str | None = None  # whose the next RPPS or address is: the field of the last person named
    owner_block = -1
    titles: list[str] = []
    prose = 0
    for name, value, block in fields(text):
        if not name:
            if len(titles) < 15:
                titles.append(value)
            prose += 1
            if owner is not None and (_NAME_LIKE.search(value) or prose > 3 or not _PLACE.search(value)):
                owner = None
            if (other := _ANOTHER.search(value)) and not _OF_KIN.search(value[: other.start()]):
                found.others.append(other[1])
            continue
        prose = 0
        if owner is not None and block != owner_block:
            owner = None
        if name in _PEOPLE:
            # A second hospital doctor is not the author, and their number not the author's.
            second = name == "doctor" and found.author is not None
            owner, owner_block = ("colleague" if second else name), block
        elif name in ("patient", "family_first", "given_first", "birth_name"):
            owner = None
        found.labelled.add(name)
        _take(found, name, value, owner, zone)
    return _letter(found, text, subject, titles, zone)


def _take(found: _Found, name: str, value: str, owner: str | None, zone: ZoneInfo) -> None:
    """Put one labelled value where it belongs."""
    if _BOX.search(value):
        value = _ticked(value)
    folded = fold(value)
    if _NOTHING.fullmatch(folded):
        if name == "gp":
            found.gp_said_none = bool(value)
        return
    patient = found.patient
    match name:
        case "patient" | "family_first" | "given_first":
            first = {"family_first": False, "given_first": True}.get(name)
            one = _whole_name(value, first)
            if not {"et", "&", "and"}.isdisjoint(
                fold(" ".join((one.birth_name or "", one.used_name or "", *one.given_names))).split()
            ):
                found.two = True  # « M. et Mme Martin »: no name has an « et »
            if one.birth_name or one.used_name or one.given_names:
                found.names.append(one)
        case "name":
            _set_name(found, "birth_name", value, stated=False)
        case "birth_name":
            _set_name(found, "birth_name", value, stated=True)
        case "used_name":
            if patient.used_name and fold(patient.used_name) != fold(value):
                found.two = True
            found.patient = replace(patient, used_name=value)
        case "given":
            given = tuple(re.split(r"[\s,;]+", value.strip(" ,;")))
            if patient.given_names and fold(patient.given_names[0]) != fold(given[0]):
                found.two = True
            found.patient = replace(patient, given_names=given)
        case "born":
            day = formats.find_day(folded)
            if day is None:
                found.unknown.append("patient.birth_date")
            elif patient.birth_date and patient.birth_date != day[0]:
                found.two = True
            else:
                found.patient = replace(patient, birth_date=day[0])
        case "sex":
            sex = _sex(value)
            if sex is None:
                found.unknown.append("patient.sex")
            elif patient.sex and patient.sex != sex:
                found.two = True
            else:
                found.patient = replace(patient, sex=sex)
        case "civility":
            if title := _CIVILITY.match(f"{folded} "):
                found.civility = "F" if title["f"] else "M" if title["m"] else None
        case "admitted_hour" | "discharged_hour":
            found.hours[name.removesuffix("_hour")] = value
        case "ins" | "nia":
            _take_ins(found, name, value)
        case "ins_oid":
            if (oid := re.search(r"[\d.]{10,}", value)) and patient.ins:
                found.patient = replace(patient, ins_oid=oid[0].strip("."))
        case "ipp":
            local = LocalId("", value.split(maxsplit=1)[0].strip(".,;"))
            if not re.search(r"\d", local.value):
                found.unknown.append("patient.local_ids")
            elif local not in found.local_ids:
                found.local_ids.append(local)
        case "birth_place":
            if cog := re.search(r"(?<!\d)\d[\dAB]\d{3}(?!\d)", value.upper()):
                found.patient = replace(patient, birth_place=cog[0])
        case "postcode":
            if owner is None:
                found.patient = replace(patient, postcode=formats.postcode(value[:5]))
        case "gp" if _NOT_A_NAME.fullmatch(folded):
            found.gp_said_none |= folded.startswith(("non", "pas", "aucun", "sans"))
        case "gp" if _UNSURE_GP.search(re.sub(r"\b\d[^(),;?]*", " ", folded)):  # streets are called old, too
            found.unknown.append("registered_gp")
        case "gp" if len(several := _SEVERAL_GPS.split(value)) > 1 or len({*_RPPS.findall(value)}) > 1:
            found.gps += [one_gp for piece in several if (one_gp := person(piece))]
            if len(found.gps) < 2:
                found.unknown.append("registered_gp")
        case "gp":
            if one_gp := person(value):
                if found.gps and found.gps[-1].name is None and one_gp.rpps in (None, found.gps[-1].rpps):
                    one_gp = replace(one_gp, rpps=found.gps.pop().rpps)  # the number stood before the name
                found.gps.append(one_gp)
        case "gp_rpps":
            _gp_rpps(found, value)
        case "rpps":
            if owner == "gp" and not found.gp_said_none:
                _gp_rpps(found, value)
            elif owner == "doctor" and found.author is not None and found.author.rpps is None:
                found.author = replace(found.author, rpps=formats.bare_rpps(value))
            elif owner == "referring" and found.referring is not None and found.referring.rpps is None:
                found.referring = replace(found.referring, rpps=formats.bare_rpps(value))
            elif owner in ("recipient", "copy") and found.recipients and found.recipients[-1].rpps is None:
                if found.gps and found.gps[-1] == replace(found.recipients[-1], copy=False):
                    _gp_rpps(found, value)  # « Destinataire : Dr Martin, médecin traitant »
                found.recipients[-1] = replace(found.recipients[-1], rpps=formats.bare_rpps(value))
        case "gp_mss":
            if found.gps and (address := _EMAIL.search(value)) and found.gps[-1].mss_address is None:
                found.gps[-1] = replace(found.gps[-1], mss_address=address[0].lower())
        case "home":
            if code := re.search(r"(?<!\d)\d{5}(?!\d)", value):
                found.patient = replace(patient, postcode=patient.postcode or code[0])
        case "mss" | "address":
            address = _EMAIL.search(value)
            if owner == "gp" and found.gps and address and found.gps[-1].mss_address is None:
                found.gps[-1] = replace(found.gps[-1], mss_address=address[0].lower())
            elif owner is None and name == "address" and (code := re.search(r"(?<!\d)\d{5}(?!\d)", value)):
                found.patient = replace(patient, postcode=patient.postcode or code[0])
        case "doctor":
            found.author = found.author or person(value)
        case "referring":
            found.referring = found.referring or person(value)
        case "recipient" | "copy":
            for piece in re.split(r";|\bet\b(?=\s+(?:le\s+)?(?:Dr|Docteur|Pr))", value):
                called = _CALLED_GP.search(piece)
                if one_recipient := person(_CALLED_GP.sub("", piece) if called else piece):
                    if called and one_recipient.family_name and not _UNSURE_GP.search(fold(piece)):
                        found.gps.append(one_recipient)
                    found.recipients.append(replace(one_recipient, copy=name == "copy"))
        case "kind":
            found.kind = found.kind or value[:200]
        case "died" if not _NO.match(folded):
            found.patient = replace(
                patient, deceased=bool(_YES.match(folded) or formats.find_day(folded)) or patient.deceased
            )
        case "awaited":
            found.awaited.append(value[:300])
        case "follow_up":
            day = formats.find_day(folded)
            found.follow_up.append(FollowUp(value[:300], day[0] if day else None))
        case _:
            _take_stay(found, name, value, folded, zone)


_BOX = re.compile(r"[☐☑☒□■✓✔✗✘🗹]|\[[ xX✓]?\]|\([ xX]\)")
_EMPTY_BOX = frozenset({"☐", "□", "[ ]", "[]", "( )"})


def _ticked(value: str) -> str:
    """The words of the boxes that are ticked: « ☐ oui ☒ non » says non. None ticked says nothing."""
    marks = list(_BOX.finditer(value))
    before = not value[: marks[0].start()].strip()  # else each box stands behind its words
    said = []
    for number, mark in enumerate(marks):
        if before:
            words = value[mark.end() : marks[number + 1].start() if number + 1 < len(marks) else len(value)]
        else:
            words = value[marks[number - 1].end() if number else 0 : mark.start()]
        if mark[0] not in _EMPTY_BOX:
            said.append(words.strip(" ,;/|-"))
    return ", ".join(said)


def _take_ins(found: _Found, name: str, value: str) -> None:
    patient = found.patient
    oid = re.search(r"1\.2\.250\.1\.213\.1\.4\.\d{1,2}(?!\d)", value)
    bare = value.replace(oid[0], " ") if oid else value
    bare = re.sub(
        r"(?<=\d)\s*(?:[/|(,-]?\s*cl[eé]\s*:?|[/|])\s*(?=\d{2}(?!\d)(?!\s*ans))",
        " ",
        bare,
        flags=re.IGNORECASE,
    )
    digits = re.search(r"(?<!\d)[1-478](?:[\s.-]?[\dABab]){12}(?:[\s.-]?\d){0,2}(?![\d])", bare)
    number = formats.matricule(digits[0]) if digits else None
    if number is None:
        found.unknown.append("patient.ins")
        return
    if patient.ins and patient.ins[:13] != number[:13]:
        found.two = True
        return
    said = fold(bare)
    if re.search(r"\bnon[ -]qualifiee?|\bprovisoire|\bnon verifiee?|\bdouteu", said):
        found.unknown.append("patient.ins")  # only a checked identity carries an INS (référentiel INS)
    kind: str | None
    if oid:
        kind = oid[0]
    elif re.search(r"\b(?:tests?|demo|fictif)\b", said):
        kind = "1.2.250.1.213.1.4.10"
    else:
        kind = "1.2.250.1.213.1.4.9" if name == "nia" or "nia" in said else patient.ins_oid
    found.patient = replace(patient, ins=number, ins_oid=kind)


def _gp_rpps(found: _Found, value: str) -> None:
    digits = _RPPS.search(value)
    rpps = formats.bare_rpps(digits[1]) if digits else None
    if rpps is None:
        found.unknown.append("registered_gp.rpps")
    elif not found.gps:
        found.gps.append(Person(rpps=rpps))
    elif found.gps[-1].rpps not in (None, rpps):
        found.gps.append(replace(found.gps[-1], rpps=rpps))
    else:
        found.gps[-1] = replace(found.gps[-1], rpps=rpps)


def _set_name(found: _Found, which: str, value: str, *, stated: bool) -> None:
    if _BORN_AS.search(value) or _MARRIED.search(value) or _MAIDEN.search(value):  # « DUPONT née MARTIN »
        both = _whole_name(value, given_first=False)
        if both.birth_name and both.used_name:
            _set_name(found, "birth_name", both.birth_name, stated=True)
            found.patient = replace(found.patient, used_name=found.patient.used_name or both.used_name)
            return
    value = re.split(r"[(,;]", value)[0].strip()
    patient = found.patient
    civility = _CIVILITY.match(fold(value))
    if civility and not civility["n"]:
        value = value.split(None, 1)[-1]
        patient = replace(patient, sex=patient.sex or ("F" if civility["f"] else "M"))
    if not value:
        return
    if (
        stated
        and patient.birth_name
        and patient.name_kind == "birth"
        and fold(patient.birth_name) != fold(value)
    ):
        found.two = True
        return
    if stated:
        other = patient.birth_name if patient.name_kind == "unstated" else None
        used = patient.used_name or (other if other and fold(other) != fold(value) else None)
        found.patient = replace(patient, birth_name=value, used_name=used, name_kind="birth")
    elif patient.name_kind == "birth":
        if patient.birth_name and fold(patient.birth_name) != fold(value):
            found.patient = replace(patient, used_name=patient.used_name or value)
    elif patient.birth_name and fold(patient.birth_name) != fold(value):
        found.two = True
    else:
        found.patient = replace(patient, birth_name=value)


# « Dr Martin (retraité) », « Dr Martin ? »: the line names somebody and takes it back.
_UNSURE_GP = re.compile(
    r"(?:^|\s)\?|\?\s*(?:$|[,;)])|\b(?:retraitee?|a la retraite|parti[e]? a|decedee?|ancien(?:ne)?|jusqu'\w+|puis (?:le |la )?(?:dr|docteur)|ne (?:le |la )?suit plus|n'est plus|plus suivie?|a (?:confirmer|verifier"
    r"|changer|preciser)|en recherche|cherche|retired|deceased|former|to be confirmed)\b|\bsans certitude"
)
_CALLED_GP = re.compile(
    r"\s*(?:[,(]|\s[-–—])\s*(?:son |sa |votre )?m[ée]decin traitante?\b\)?", re.IGNORECASE
)
_SEVERAL_GPS = re.compile(
    r"\s*(?:/|;|,|&|\+|\bet\b|\bou\b|\band\b|\bor\b)\s*(?=(?:le\s+|la\s+|mme\s+(?:le\s+)?|m\.\s+)?(?:drs?|docteure?|pr|doctor)\b)",
    re.IGNORECASE,
)

_DIED = re.compile(r"\bdeces\b|\bdecedee?\b|\bdied\b|\bdeceased\b")
_TWO_DAYS = re.compile(
    r"(\d{1,2}[/.]\d{1,2}[/.](?:\d{4}|\d{2}))\s*(?:[-–—/→]|->)\s*(\d{1,2}[/.]\d{1,2}[/.](?:\d{4}|\d{2}))"
)
_PLANNED = re.compile(
    r"\b(?:prevue?|envisagee?|previsionnelle|programmee?|estimee?|planned|expected|estimated|sous reserve)\b"
)

_YES_OR_NO = re.compile(
    r"(?:oui|o|yes|non|n|no)\s?(?:/|ou|or|\||-)\s?(?:oui|o|yes|non|n|no)"
)  # as printed on the form
_URGENT = re.compile(r"\W*(?:tres )?urgente?\b")
_YES = re.compile(r"(?:oui|yes|o|y|vrai|true|1|x|recueillie?|donnee?|obtenue?|accordee?|favorable)\b.*")
_NO = re.compile(r"(?:non|no|n|faux|false|0|refusee?|refus|retiree?)\b.*")


def _take_stay(found: _Found, name: str, value: str, folded: str, zone: ZoneInfo) -> None:
    stay = found.stay
    match name:
        case "admitted" | "discharged":
            moment = formats.find_moment(value, zone)
            if name == "discharged" and moment is not None and _PLANNED.search(folded):
                found.unknown.append("stay.discharged")  # what is planned has not happened
                return
            if name == "discharged" and _DIED.search(folded):
                found.stay = stay = replace(stay, exit_mode="death")
            mode = formats.exit_mode(value) if name == "discharged" and moment is None else None
            if mode is not None and not re.search(r"\d", value):  # « Sortie : retour à domicile »
                found.stay = replace(stay, exit_mode=stay.exit_mode or mode)
            elif moment is None:
                if re.search(r"\d", value) or len(value) < 30:
                    found.unknown.append(f"stay.{name}")
            elif name == "admitted":
                found.stay = replace(stay, admitted=stay.admitted or moment[0], admitted_exact=moment[1])
            elif stay.discharged and stay.discharged != moment[0]:
                found.unknown.append("stay.discharged")
            else:
                found.stay = replace(stay, discharged=moment[0], discharged_exact=moment[1])
        case "period":
            if edges := re.search(r"(?:du\s+)?(.+?)\s+(?:au|to|until)\s+(.+)", value, re.IGNORECASE):
                low, high = formats.find_moment(edges[1], zone), formats.find_moment(edges[2], zone)
                if low and not stay.admitted:
                    stay = replace(stay, admitted=low[0], admitted_exact=low[1])
                if high and not stay.discharged:
                    stay = replace(stay, discharged=high[0], discharged_exact=high[1])
                    found.labelled.add("discharged")
                found.stay = stay
            elif edges := _TWO_DAYS.fullmatch(value):
                low, high = formats.find_moment(edges[1], zone), formats.find_moment(edges[2], zone)
                if low and high and low[0] <= high[0]:
                    found.labelled.add("discharged")
                    found.stay = replace(
                        stay, admitted=stay.admitted or low[0], discharged=stay.discharged or high[0]
                    )
                else:
                    found.unknown.append("stay.discharged")
            elif re.fullmatch(r"(?:n°\s*)?[\w/-]*\d[\w/-]*", value):
                found.stay = replace(stay, number=stay.number or value.removeprefix("n°").strip())
        case "stay":
            number = value.strip(" .;,")
            if stay.number and stay.number != number:
                found.unknown.append("stay.number")
            else:
                found.stay = replace(stay, number=number[:100] or None)
        case "ward":
            unit = re.search(r"\b(?:UF|unit)\s*:?\s*(\w{2,10})|\((\d{3,6})\)", value)
            ward = re.sub(r"\s*[(,-]?\s*(?:UF\s*:?\s*\w{2,10}|\(\d{3,6}\))\)?", "", value).strip() or value
            found.stay = replace(stay, ward=stay.ward or ward,
                                 unit=stay.unit or (unit and (unit[1] or unit[2])) or None)  # fmt: skip
        case "unit":
            found.stay = replace(stay, unit=stay.unit or value)
        case "facility_name":
            found.stay = replace(stay, facility_name=stay.facility_name or value)
        case "finess":
            found.stay = replace(stay, facility=stay.facility or formats.bare_finess(value))
        case "exit_mode":
            mode = formats.exit_mode(value)
            among = {formats.exit_mode(piece) for piece in re.split(r"[/,;|]", value)} - {None}
            if (
                mode is None or len(among) > 2 or (len(among) > 1 and "death" in among)
            ):  # a form nobody filled in
                found.unknown.append("stay.exit_mode")
            else:
                found.stay = replace(stay, exit_mode=mode)
        case "entry_mode":
            found.stay = replace(stay, entry_mode=stay.entry_mode or formats.entry_mode(value))
        case "urgency":
            found.urgency = _urgency(folded)
            if found.urgency is None:
                found.unknown.append("urgency")
        case "opposition" | "consent" | "masked":
            _take_consent(found, name, folded)
        case _:
            pass


def _urgency(folded: str) -> str | None:
    if re.match(r"(?:non|no|aucune?|normale?|routine|standard|faible|basse|low|pas urgent|0)\b", folded):
        return "routine"
    if re.match(
        r"(?:rapide|bientot|soon|semi|moyenne|moderee?|prioritaire|sous \d+ ?(?:h|j)|medium)\b", folded
    ):
        return "soon"
    if re.match(r"(?:oui|yes|urgente?|haute|elevee?|immediate?|high|absolue|tres|vitale|1)\b", folded):
        return "urgent"
    return None


def _take_consent(found: _Found, name: str, folded: str) -> None:
    if name == "opposition" and re.match(r"pas d'opposition|ne s'oppose pas|sans opposition", folded):
        said = "allowed"
    elif _YES_OR_NO.fullmatch(folded):
        found.unknown.append("consent")
        return
    elif _NO.match(folded):
        said = "opposed" if name == "consent" else "allowed"
    elif _YES.match(folded) or (name == "opposition" and re.match(r"s'oppose|opposee?|au |a l", folded)):
        said = {"consent": "allowed", "opposition": "opposed", "masked": "masked"}[name]
    else:
        found.unknown.append("consent")
        return
    if name == "masked" and said == "allowed":
        return
    strict = {"allowed": 0, "masked": 1, "opposed": 2}
    if found.consent is None or strict[said] > strict[found.consent]:
        found.consent = said


# ----------------------------------------------------------------------------------------------------- putting together


def _letter(found: _Found, text: str, subject: str, titles: Iterable[str], zone: ZoneInfo) -> Letter:
    patient = _patient(found)
    if patient is not None and patient.sex is None and found.civility:
        patient = replace(patient, sex=found.civility)
    stay, folded_subject = _timed(found.stay, found.hours, zone), fold(subject)
    named = f"{folded_subject}\n{fold(found.kind or '')}"
    head = "\n".join((named, *(fold(line) for line in titles if len(line) < 120)))
    event: str | None = None
    document = "letter"
    if (
        _DEATH.search(named)
        or _DEATH_TITLE.search(head)
        or stay.exit_mode == "death"
        or (patient is not None and patient.deceased)
    ):
        event = "death"
    elif _EMERGENCY.search(named) or _EMERGENCY_TITLE.search(head):
        event = "er_visit"
    elif _ENTRY.search(named):
        event = "admission"
    elif _DISCHARGE.search(head) or stay.discharged or "stay.discharged" in found.unknown:
        event = "discharge"
    body = fold(text[:20_000])
    folded = body if _hints(body) else ""  # searching prose for patterns is slow
    if _REPLACES.search(named) or _REPLACES_TITLE.search(head) or "replaces" in found.labelled:
        document = "replacement"
    elif _RETRACTS.search(named):
        document = "retraction"
    elif _ADDENDUM.search(named):
        document = "addendum"
    elif _TO_COME.search(folded) or "avis anticipe" in named or "advance notice" in named:
        document = "advance_notice"
    consent = "opposed" if _objects(folded) else found.consent
    if _DO_NOT.search(folded):
        found.unknown.append("consent")
    problems = list(found.problems)
    days = frozenset(day[0] for each in found.others if (day := formats.find_day(fold(each))))
    if patient is not None and patient.birth_date:
        found.two |= bool(days - {patient.birth_date})
    if found.two:
        problems.append(formats.TWO_PATIENTS)
    gp = found.gps[0] if found.gps and "registered_gp" not in found.unknown else None
    for other in found.gps[1:] if gp is not None else ():
        if gp is not None and gp.rpps is None and _same_name(gp, other):
            gp = other
        elif (gp is not None and other.rpps not in (None, gp.rpps)) or not _same_name(gp, other):
            problems.append(Problem("many_gps", "plusieurs médecins traitants dans le texte"))
            found.unknown.append("registered_gp")
            gp = None
            break
    has_patient = patient is not None and bool(
        patient.ins
        or (
            found.names
            and (patient.birth_date or patient.sex or "stay" in found.labelled or len(found.labelled) > 2)
        )
        or (
            (patient.birth_name or patient.used_name)
            and patient.given_names
            and found.labelled & {"born", "ins", "ipp"}
        )
    )
    notice = Notice(
        format="text",
        event=event,
        document=document if event else None,
        title=found.kind,
        patient=patient,
        stay=stay if stay != _NO_STAY else None,
        author=found.author,
        registered_gp=gp,
        referring_doctor=found.referring,
        recipients=tuple(found.recipients),
        follow_up=tuple(found.follow_up),
        awaited_results=tuple(found.awaited),
        consent=consent,
        urgency=found.urgency or ("urgent" if _URGENT.match(folded_subject) else None),
        unknown=tuple(dict.fromkeys(found.unknown)),
        problems=tuple(dict.fromkeys(problems)),
    )
    tells = event is None and any(hint in body for hint in ("sort", "domicile", "discharged", "went home"))
    if tells:
        told = f"{folded_subject}\n{body}"
        tells = bool(_LEAVES.search(told) and _SOMEBODY.search(told))
    return Letter(notice, has_patient, event is not None, frozenset(found.labelled), tells, days)


def _hints(folded: str) -> bool:
    """Whether prose may tell of an objection or of a letter to come."""
    return any(common in folded and any(hint in folded for hint in hints) for common, hints in _HINTS)


def _objects(folded: str) -> bool:
    """Whether the prose says that the patient objects to the letter's way; the shared record is another matter."""
    for objection in _OBJECTS.finditer(folded):
        before = folded[max(0, objection.start() - 40) : objection.start()]
        said = folded[objection.start() : objection.end() + 60].split("\n", 1)[0]
        if not _NO_OBJECTION.search(before) and ("medecin" in said or not _SHARED_RECORD.search(said)):
            return True
    return False


def _timed(stay: Stay, hours: dict[str, str], zone: ZoneInfo) -> Stay:
    """A time of day on its own line completes a day that has none."""
    for name, value in hours.items():
        day = stay.admitted if name == "admitted" else stay.discharged
        exact = stay.admitted_exact if name == "admitted" else stay.discharged_exact
        moment = (
            formats.find_moment(f"{day.astimezone(zone):%d/%m/%Y} {value}", zone)
            if day and not exact
            else None
        )
        if moment and moment[1] and name == "admitted":
            stay = replace(stay, admitted=moment[0], admitted_exact=True)
        elif moment and moment[1]:
            stay = replace(stay, discharged=moment[0], discharged_exact=True)
    return stay


def _same_name(one: Person | None, other: Person) -> bool:
    if one is None or not one.family_name or not other.family_name:
        return True
    return fold(one.family_name) == fold(other.family_name)


def _patient(found: _Found) -> Patient | None:
    """The labels' own names before those of a patient line; two lines that name two people say so."""
    patient = replace(found.patient, local_ids=tuple(found.local_ids)) if found.local_ids else found.patient
    sex, birth_date, given_names = patient.sex, patient.birth_date, patient.given_names
    labelled = _name_words(patient)
    for line in found.names:
        if found.names[0] is not line and _other_person(found.names[0], line):
            found.two = True
        named = _name_words(line)
        if (
            labelled and named and not labelled & named
        ):  # « Nom : A » and « Patient : B » share no name at all
            found.two = True
        if line.birth_date and birth_date and line.birth_date != birth_date:
            found.two = True
        sex, birth_date, given_names = (
            sex or line.sex,
            birth_date or line.birth_date,
            given_names or line.given_names,
        )
    if found.names:
        line = found.names[0]
        birth_name, used_name, name_kind = patient.birth_name, patient.used_name, patient.name_kind
        order_unsure = patient.order_unsure
        if birth_name is None:
            birth_name, used_name, name_kind = line.birth_name, used_name or line.used_name, line.name_kind
            order_unsure = line.order_unsure and not found.patient.given_names
        elif name_kind == "birth" and line.birth_name and used_name is None:
            shown = line.used_name or line.birth_name
            if fold(shown) != fold(birth_name):
                used_name = shown
        patient = replace(
            patient,
            sex=sex,
            birth_date=birth_date,
            given_names=given_names,
            birth_name=birth_name,
            used_name=used_name,
            name_kind=name_kind,
            order_unsure=order_unsure,
        )
    elif patient.birth_name and not patient.given_names and " " in patient.birth_name:
        family, given, unsure = split_name(patient.birth_name)
        if family and given and not unsure:  # « Nom : MARTIN Jeanne »: the capitals tell which is which
            patient = replace(patient, birth_name=family, given_names=given)
    if patient.birth_name is None and patient.used_name:
        patient = replace(patient, name_kind="used")
    return patient if patient != _NOBODY else None


def _other_person(one: Patient, other: Patient) -> bool:
    first, second = _name_words(one), _name_words(other)
    return not (first <= second or second <= first)


def _name_words(who: Patient) -> set[str]:
    return {
        word
        for name in (who.birth_name, who.used_name, *who.given_names)
        if name
        for word in re.split(r"[\s'-]+", fold(name))
    }
