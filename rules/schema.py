"""The rule language as a JSON Schema, for editors: completion, a word on each key, and mistakes while typing.

Generated from the tables that the reader itself uses. Draft 7, which editors' YAML support knows best, and
without `anyOf`, whose failures they report as if every branch were meant. What a schema cannot say (the last
step of a ladder, overlapping windows, dead rules) `relay rules check` says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from relay.calendar import DAYS
from rules.cases import WHYS
from rules.conditions import COMPARISONS, NESTED
from rules.facts import FIELDS, Field
from rules.reading import COPY_KEYS, RESERVED, RULE_KEYS
from rules.ruleset import CHAT_KINDS, DOCUMENT_WITHOUT_BASIS, PEOPLE, SENDING_KINDS, Site
from rules.source import Listing, Node, Scalar, Table, as_text, compose

if TYPE_CHECKING:
    from collections.abc import Iterable

Json: TypeAlias = dict[str, object]

FILE_NAME: Final = "routes.v1.schema.json"
"""Where the first line of a rule file looks for it, in the same folder."""
TESTS_FILE_NAME: Final = "routes.v1.test.schema.json"
"""The same for the test file beside it."""
EDITOR_LINE: Final = "# yaml-language-server: $schema=./{}"

_DRAFT: Final = "http://json-schema.org/draft-07/schema#"

_DAY: Final = "20[0-9]{2}-[0-9]{2}-[0-9]{2}"
_CLOCK: Final = "([01][0-9]|2[0-3]):[0-5][0-9]"
_INSTANT: Final = f"{_DAY}T{_CLOCK}(:[0-5][0-9])?(Z|[+-][0-9]{{2}}:[0-9]{{2}})?"
_WEEKDAY: Final = f"({'|'.join(DAYS)})"


@dataclass(frozen=True, slots=True)
class Names:
    """What a rule file itself defines; each empty when the schema is to leave that kind of name open."""

    targets: tuple[str, ...] = ()
    desks: tuple[str, ...] = ()  # those of the targets that are a desk
    hours: tuple[str, ...] = ()
    followups: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()


def names_in(text: str | bytes) -> Names:
    """The names a rule file defines, whatever else is wrong with it. Never raises."""
    content, report = as_text(text, "")
    sections = _entries(compose(content, report))
    targets = _entries(sections.get("targets"))
    whos = {name: _entries(node).get("who") for name, node in targets.items()}
    return Names(
        targets=tuple(targets),
        desks=tuple(n for n, who in whos.items() if isinstance(who, Scalar) and who.text[:5] == "desk/"),
        hours=tuple(_entries(sections.get("hours"))),
        followups=tuple(_entries(sections.get("followups"))),
        keywords=tuple(_entries(sections.get("keywords"))),
        rules=_ids(sections.get("rules")),
        copies=_ids(sections.get("also")),
    )


def _entries(node: Node | None) -> dict[str, Node]:
    return {key.text: value for key, value in node.entries} if isinstance(node, Table) else {}


def _ids(node: Node | None) -> tuple[str, ...]:
    listed = [_entries(each).get("id") for each in node.items] if isinstance(node, Listing) else []
    return tuple(dict.fromkeys(each.text for each in listed if isinstance(each, Scalar)))


def as_file(document: Json) -> str:
    """The schema as it is written to disk: the same document always gives the same text."""
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


def files(site: Site | None = None, names: Names | None = None) -> dict[str, str]:
    """Both schemas by the names of the files in which editors look for them, beside the rule file."""
    return {
        FILE_NAME: as_file(schema(site, names)),
        TESTS_FILE_NAME: as_file(schema_of_tests(site, names)),
    }


def schema(site: Site | None = None, names: Names | None = None) -> Json:
    """The schema of a rule file, as JSON.

    With `site` the wards, mailboxes, desks and rotas are the configuration's, with `names` targets, hours,
    follow-ups and keyword groups are those that a file defines; without, any name may stand there.
    """
    site, names = site or Site(), names or Names()
    return {
        "$schema": _DRAFT,
        "title": "Règles d'acheminement",
        "description": "Qui reçoit chaque lettre, et qui s'en occupe si personne ne répond. Rien ne s'efface :"
        " une lettre est envoyée (send), retenue à un bureau (hold) ou classée (file).",
        **_table(
            {
                "version": {"description": _SECTIONS["version"], "enum": [1, "1"]},
                "timezone": _text(_SECTIONS["timezone"], examples=["Europe/Paris", "Indian/Reunion"]),
                "holidays": _holidays(),
                "hours": _named("hours", {"$ref": "#/definitions/hours"}),
                "targets": _named("targets", {"$ref": "#/definitions/target"}),
                "followups": _named("followups", {"$ref": "#/definitions/followup"}),
                "keywords": _named("keywords", {"$ref": "#/definitions/keywords"}),
                "rules": _list_of("rules", {"$ref": "#/definitions/rule"}),
                "also": _list_of("also", {"$ref": "#/definitions/copy"}),
                "default": _default(),
            },
            required=("version", "targets", "default"),
        ),
        "definitions": {
            **_names(names),
            "duration": _pattern(
                "Une durée : 30s, 10m, 2h ou 3d. Les secondes et minutes comptent toujours en temps réel ; sur des"
                " horaires, `2h` = deux heures d'ouverture, `2d` = la fermeture du deuxième jour ouvert qui suit.",
                "^[1-9][0-9]{0,8}[smhd]$",
            ),
            "date": _pattern("Un jour : AAAA-MM-JJ.", f"^{_DAY}$"),
            "windows": _windows(),
            "hours": _hours(),
            "target": _target(site),
            "followup": _followup(),
            "step": _step(),
            "keywords": _keywords(),
            **{f"fact_{field.name}": _fact(field, site, names) for field in FIELDS.values()},
            "conditions": _conditions(nested=False),
            "when": _conditions(nested=True),
            "rule": _rule(),
            "copy": _copy(),
        },
    }


def schema_of_tests(site: Site | None = None, names: Names | None = None) -> Json:
    """The schema of the test file beside a rule file, filled in the same way."""
    site, names = site or Site(), names or Names()
    ids = (*names.rules, *names.copies)
    case = _table(
        {
            "name": _text("Ce que le cas montre, en une phrase."),
            "at": _pattern(
                "L'instant, entre guillemets, à l'heure du site : \"2026-12-04T18:45\".", f"^{_INSTANT}$"
            ),
            "given": {
                "description": "Ce qu'on sait de la lettre. Un champ laissé de côté : elle n'en dit rien."
                " unknown : il y est, illisible.",
                **_table({field.name: _given(field, site, names) for field in FIELDS.values()}),
                "type": ["object", "null"],
            },
            "expect": _expected(names, ids),
        },
        required=("name", "given", "expect"),
    )
    coverage = "every-rule : chaque règle, chaque copie et `default` doivent avoir un cas."
    return {
        "$schema": _DRAFT,
        "title": "Tests des règles d'acheminement",
        "description": "Ce que les règles doivent faire. Rien n'entre en vigueur tant qu'un cas échoue.",
        **_table(
            {
                "tests": {"description": "Les cas.", "type": "array", "items": case, "minItems": 1},
                "coverage": _one_of(coverage, ("every-rule", "none")),
            },
            required=("tests",),
        ),
    }


def _given(field: Field, site: Site, names: Names) -> Json:
    """A fact as a case states it: one value, for some a list, or `unknown`."""
    description = _FACTS[field.name]
    if field.kind == "enum":
        return _one_of(description, (*field.values, "unknown"))
    if field.kind == "yesno":
        return _one_of(description, ("yes", "no", True, False, "unknown"))
    if field.kind == "number":
        return {
            "description": description,
            "type": ["number", "string"],
            "pattern": "^(unknown|-?[0-9]{1,9}(\\.[0-9]{1,6})?)$",
        }
    known: Sequence[str] = names.keywords if field.kind == "set" else ()
    if field.name == "ward":
        known = sorted(site.wards)
    one: Json = {"enum": [*known, "unknown"]} if known else {"type": ["string", "number", "boolean"]}
    several = field.kind == "set" or field.name == "ward"
    return _any_number(description, one) if several else {"description": description, **one}


def _any_number(description: str, one: Json) -> Json:
    return {"description": description, "if": {"type": "array"}, "then": {"items": one}, "else": one}


def _expected(names: Names, ids: Sequence[str]) -> Json:
    def one(description: str, known: Sequence[str], *words: str) -> Json:
        return _one_of(description, (*known, *words)) if known else _text(description)

    def some(description: str, known: Sequence[str]) -> Json:
        return _any_number(description, one(description, known))

    return {
        "description": "Ce qui doit en sortir : au moins une chose, et seules celles qu'on dit sont comparées.",
        **_table(
            {
                "rule": one("La règle qui décide, ou default.", names.rules, "default"),
                "action": _one_of(
                    "send (envoyer), hold (retenir) ou file (classer).", ("send", "hold", "file")
                ),
                "send": some("Les cibles à qui l'on envoie, toutes.", names.targets),
                "hold": one("Le bureau qui retient, ou none.", names.targets, "none"),
                "file": _text("yes, no, ou les mots mêmes de la règle."),
                "followup": one("La suite, ou none.", names.followups, "none"),
                "why": _one_of("Pourquoi ; floor_… : un plancher qu'aucune règle ne passe.", WHYS),
                "undecided_at": one("La règle qui ne peut trancher, ou none.", names.rules, "none"),
                "ack_due": _pattern(
                    "Quand la réponse est attendue, à l'heure du site, ou none.", f"^({_INSTANT}|none)$"
                ),
                "copy": some("Les cibles des copies, toutes ; [] pour aucune.", names.targets),
                "observed": some("Les règles à l'essai qui auraient joué ; [] pour aucune.", ids),
            },
            minProperties=1,
        ),
    }


# -- shapes


def _table(properties: Mapping[str, object], required: Sequence[str] = (), **more: object) -> Json:
    return {
        "type": "object",
        "properties": dict(properties),
        **({"required": list(required)} if required else {}),
        "additionalProperties": False,
        **more,
    }


def _text(description: str, **more: object) -> Json:
    """A word or a text; numbers and yes/no as well, which a rule file reads as they are written."""
    return {"description": description, "type": ["string", "number", "boolean"], **more}


def _pattern(description: str, pattern: str) -> Json:
    return {"description": description, "type": "string", "pattern": pattern}


def _one_of(description: str, values: Iterable[object]) -> Json:
    return {"description": description, "enum": list(values)}


def _some(description: str, one: Json) -> Json:
    """One value, or a list of them."""
    return {
        "description": description,
        "if": {"type": "array"},
        "then": {"items": one, "minItems": 1},
        "else": one,
    }


def _named(section: str, each: Json) -> Json:
    return {
        "description": _SECTIONS[section],
        "type": ["object", "null"],
        "propertyNames": {"not": {"enum": list(RESERVED)}, "minLength": 1, "maxLength": 80},
        "additionalProperties": each,
    }


def _list_of(section: str, each: Json) -> Json:
    return {"description": _SECTIONS[section], "type": ["array", "null"], "items": each}


def _names(names: Names) -> Json:
    """One definition for each place where a name of the file stands."""
    frozen = " Noms relevés dans le fichier ; `relay rules schema --write` les relève à nouveau."

    def name(description: str, known: Sequence[str], *words: str) -> Json:
        if known:
            return _one_of(description + frozen, (*known, *words))
        return _text(description, examples=[*words]) if words else _text(description)

    return {
        "target_name": name("Une cible de `targets`.", names.targets),
        "desk_name": name("Une cible qui est un bureau (`who: desk/…`).", names.desks),
        "hours_name": name("Un nom de `hours`.", names.hours),
        "clock_name": name("`real` (la montre) ou un nom de `hours`.", names.hours, "real"),
        "followup_name": name("Un nom de `followups`, ou `none` : aucune relance.", names.followups, "none"),
        "keyword_name": name("Un nom de `keywords`.", names.keywords),
    }


# -- sections


def _holidays() -> Json:
    overseas = ["Guadeloupe", "Martinique", "Guyane", "La Réunion", "Mayotte"]
    return {
        "description": _SECTIONS["holidays"],
        **_table(
            {
                "country": _text("Le pays, en deux lettres : FR.", examples=["FR", "BE", "CH", "LU"]),
                "subdiv": _text(
                    "La partie du pays qui a des jours à elle : Moselle, Bas-Rhin, Haut-Rhin, Guadeloupe…",
                    examples=["Moselle", "Bas-Rhin", "Haut-Rhin", *overseas],
                ),
            }
        ),
    }


def _windows() -> Json:
    window = _pattern(
        'Une plage, entre guillemets : "08:00-12:30". "20:00-08:00" finit le lendemain.',
        f"^ *(closed|{_CLOCK} *- *({_CLOCK}|24:00)) *$",
    )
    return _some('Une plage ou plusieurs : ["08:00-12:30", "13:30-19:00"], ou closed.', window)


def _hours() -> Json:
    windows: Json = {"$ref": "#/definitions/windows"}
    dated = f"^{_DAY}(\\.\\.{_DAY})?$"
    return {
        "description": "Des plages par jour : mon-fri, sat, every-day… et par date.",
        **_table(
            {
                **dict.fromkeys(("mon-fri", "every-day", *DAYS), windows),
                "holidays": _one_of(
                    "Les jours fériés : closed (fermé), open (comme un autre jour), as-sunday.",
                    ("closed", "open", "as-sunday"),
                ),
                "exceptions": {
                    "description": "Des jours à part : 2026-12-24, ou 2026-08-01..2026-08-15.",
                    "type": "object",
                    "patternProperties": {dated: windows},
                    "additionalProperties": False,
                },
            },
            patternProperties={f"^{_WEEKDAY}-{_WEEKDAY}$": windows, dated: windows},
            minProperties=1,
        ),
    }


def _target(site: Site) -> Json:
    adapters = site.adapters or {kind: kind for kind in ("mss", *sorted(CHAT_KINDS))}
    # What nobody configured counts as the kind it is named after.
    chats = {name for name, kind in site.adapters.items() if kind in CHAT_KINDS}
    chats |= {kind for kind in CHAT_KINDS if site.adapters.get(kind) not in SENDING_KINDS}
    senders = [name for name, kind in adapters.items() if kind in SENDING_KINDS or not site.adapters]
    alone = {"enum": sorted(chats)}
    return {
        "description": "À qui, par où, et ce qui lui parvient. L'adresse vient de l'annuaire.",
        **_table(
            {
                "who": _who(site),
                "via": _some(
                    "Les canaux de config.toml, dans l'ordre de préférence.",
                    {"type": ["string", "number"], "examples": senders},
                ),
                "carries": _one_of(
                    "document : la lettre. notice : « sorti ce jour, lettre à venir ». pointer : « une lettre vous"
                    " attend », sans rien du patient ; un canal de discussion ne porte que cela.",
                    ("document", "notice", "pointer"),
                ),
                "quiet": {"$ref": "#/definitions/hours_name"},
                "basis": _one_of(
                    "Ce qui autorise un document hors du médecin traitant, du service, du patient et des bureaux :"
                    " care_team (équipe de soins) ou consent (accord du patient).",
                    ("care_team", "consent"),
                ),
            },
            required=("who", "via", "carries"),
            allOf=[
                {
                    "if": {
                        "required": ["via"],
                        "properties": {
                            "via": {"if": {"type": "array"}, "then": {"contains": alone}, "else": alone}
                        },
                    },
                    "then": {"properties": {"carries": {"const": "pointer"}}},
                },
                {
                    "if": {
                        "required": ["who", "carries"],
                        "properties": {
                            "carries": {"const": "document"},
                            "who": {"not": {"pattern": f"^({'|'.join(sorted(DOCUMENT_WITHOUT_BASIS))}|desk/.*)$"}},
                        },
                    },
                    "then": {"required": ["basis"]},
                },
            ],
        ),
    }  # fmt: skip


def _who(site: Site) -> Json:
    description = (
        "Qui : le médecin traitant (registered_gp), son cabinet (practice), son remplaçant (substitute), le médecin"
        " adresseur (referring_doctor), les destinataires de la lettre (letter_recipients), pharmacist, nurse,"
        " home_hospitalisation, le service (sending_ward), le patient (patient), un bureau (desk/NOM), une garde"
        " (rota/NOM)."
    )
    if site.desks or site.rotas:
        desks, rotas = (
            (f"desk/{name}" for name in site.desks),
            (f"rota/{name}" for name in sorted(site.rotas)),
        )
        return _one_of(description, (*PEOPLE, *desks, *rotas))
    pattern = f"^({'|'.join(PEOPLE)}|(desk|rota)/.+)$"
    return {**_pattern(description, pattern), "examples": [*PEOPLE, "desk/sorties"]}


def _followup() -> Json:
    duration: Json = {"$ref": "#/definitions/duration"}
    ack = _table(
        {"within": duration, "clock": {"$ref": "#/definitions/clock_name"}},
        required=("within",),
        description="Le délai de réponse attendu, et l'horloge qui le compte.",
    )
    close = _table(
        {
            "when": _one_of("Ce qui ouvre la clôture : le médecin a répondu.", ("acknowledged",)),
            "quiet_for": duration,
        },
        description="Quand le suivi se ferme : tant de temps sans rien de neuf après la réponse.",
    )
    return {
        "description": "Ce qui se passe jusqu'à ce que quelqu'un réponde.",
        **_table(
            {
                "await": _one_of(
                    "Ce qui arrête les relances : delivered (remis), seen (lu) ou ack (répondu).",
                    ("delivered", "seen", "ack"),
                ),
                "ack": ack,
                "ladder": {
                    "description": "Les relances, dans l'ordre ; la dernière étape passe la main à un bureau.",
                    "type": "array",
                    "items": {"$ref": "#/definitions/step"},
                    "minItems": 1,
                },
                "ack_expires": duration,
                "close": close,
            },
            required=("ladder",),
        ),
    }


def _step() -> Json:
    return {
        "description": "Une étape : tant de temps après l'envoi, rappeler (remind) ou passer la main (hand_to).",
        **_table(
            {
                "after": {"$ref": "#/definitions/duration"},
                "clock": {"$ref": "#/definitions/clock_name"},
                "remind": {"$ref": "#/definitions/target_name"},
                "hand_to": {"$ref": "#/definitions/desk_name"},
            },
            required=("after",),
            **{
                "if": {"required": ["remind"]},
                "then": {"properties": {"hand_to": False}},
                "else": {"required": ["hand_to"]},
            },
        ),
    }


def _keywords() -> Json:
    word: Json = {
        "if": {"type": "object"},
        "then": _table({"matches": _text("Une expression RE2.")}, required=("matches",)),
        "else": {"type": ["string", "number", "boolean"]},
    }
    return _some(
        "Des mots cherchés dans la lettre, sans accents ni majuscules, ou des expressions RE2. Seul le nom du"
        " groupe est retenu, jamais le texte.",
        word,
    )


def _default() -> Json:
    return {
        "description": _SECTIONS["default"],
        **_table(
            {"hold": {"$ref": "#/definitions/desk_name"}, "reason": _text(_RULE["reason"])},
            required=("hold",),
        ),
    }


# -- conditions


def _fact(field: Field, site: Site, names: Names) -> Json:
    """What may stand behind one field of `when`."""
    description = _FACTS[field.name]
    if field.kind == "enum":
        return _some(description, {"enum": list(field.values)})
    if field.kind == "yesno":
        return _some(description, {"enum": ["yes", "no", True, False]})
    if field.kind == "set":
        return _some(description, {"$ref": "#/definitions/keyword_name"})
    if field.kind == "number":
        number: Json = {"type": ["number", "string"], "pattern": "^-?[0-9]{1,9}(\\.[0-9]{1,6})?$"}
        return _compared(description, number, dict.fromkeys(COMPARISONS, number))
    known: Sequence[str] = ()
    if field.name == "ward":
        known = sorted(site.wards)
    elif field.name == "mailbox":
        known = sorted(site.adapters)
    word: Json = {"enum": list(known)} if known else {"type": ["string", "number", "boolean"]}
    return _compared(description, word, {"matches": _text("Une expression RE2.")})


def _compared(description: str, one: Json, signs: Mapping[str, object]) -> Json:
    return {
        "description": description,
        "if": {"type": "object"},
        "then": _table(signs, minProperties=1),
        "else": _some(description, one),
    }


def _conditions(*, nested: bool) -> Json:
    each: Json = {"$ref": "#/definitions/conditions"}
    properties: Json = {name: {"$ref": f"#/definitions/fact_{name}"} for name in FIELDS}
    properties["during"] = {"$ref": "#/definitions/hours_name"}
    if nested:
        for name in NESTED:
            several = {"type": "array", "items": each, "minItems": 1, "description": _GROUPS[name]}
            properties[name] = each if name == "unless" else several
    words = (
        "Toutes les conditions doivent être vraies." if nested else "Ensemble de conditions, toutes vraies."
    )
    return {"description": words, **_table(properties, minProperties=1)}


# -- rules


def _entry(keys: Sequence[str], required: Sequence[str], **more: object) -> Json:
    known: Json = {
        "id": _pattern(_RULE["id"], "^[^\\s]{1,80}$") | {"not": {"enum": list(RESERVED)}},
        "was": _some(_RULE["was"], {"type": ["string", "number"]}),
        "when": {"$ref": "#/definitions/when"},
        "send": _some(_RULE["send"], {"$ref": "#/definitions/target_name"}),
        "followup": {"$ref": "#/definitions/followup_name"},
        "hold": {"$ref": "#/definitions/desk_name"},
        "copy": {"$ref": "#/definitions/target_name"},
        "reason": _text(_RULE["reason"]),
        "file": _text(_RULE["file"]),
        "from": {"$ref": "#/definitions/date"},
        "until": {"$ref": "#/definitions/date"},
        "mode": _one_of(_RULE["mode"], ("on", "observe", "off")),
        "grace": {"$ref": "#/definitions/duration"},
        "if_unknown": _one_of(_RULE["if_unknown"], ("hold", "skip")),
    }
    return _table({key: known[key] for key in keys}, required=required, **more)


def _rule() -> Json:
    def when(verb: str, needed: Sequence[str], *others: str) -> Json:
        then: Json = {"properties": dict.fromkeys(others, False)}
        return {"if": {"required": [verb]}, "then": {**then, **({"required": needed} if needed else {})}}

    return {
        "description": "Une règle : la première dont le `when` est vrai décide, et elle seule.",
        **_entry(
            RULE_KEYS,
            ("id", "when"),
            allOf=[
                when("send", ["followup"], "hold", "file"),
                when("hold", ["reason"], "send", "file", "followup", "grace"),
                when("file", [], "send", "hold", "followup", "grace"),
                {
                    "if": {"required": ["hold"]},
                    "else": {"if": {"required": ["file"]}, "else": {"required": ["send"]}},
                },
            ],
        ),
    }


def _copy() -> Json:
    return {
        "description": "Une copie : chaque entrée dont le `when` est vrai en ajoute une, aucune n'en retire.",
        **_entry(COPY_KEYS, ("id", "when", "copy")),
    }


# -- words for the people who edit the file

_SECTIONS: Final[Mapping[str, str]] = {
    "version": "La version du langage : 1.",
    "timezone": "Le fuseau horaire : Europe/Paris, Indian/Reunion, America/Martinique…",
    "holidays": "Les jours fériés du site ; sans `subdiv`, ceux de tout le pays.",
    "hours": "Des horaires qui ont un nom : ils servent d'horloge aux relances et de silence aux alertes.",
    "targets": "Les destinataires possibles. Aucune adresse ici : elles viennent de l'annuaire.",
    "followups": "Les suites : relances, puis passage de main.",
    "keywords": "Des groupes de mots cherchés dans la lettre ; leur nom se compare avec `mentions`.",
    "rules": "Les règles, dans l'ordre : la première qui convient décide.",
    "also": "Les copies : chacune s'ajoute, aucune n'en retire.",
    "default": "Ce que devient une lettre qu'aucune règle ne prend : retenue à un bureau. Obligatoire.",
}
_RULE: Final[Mapping[str, str]] = {
    "id": "Le nom de la règle, en un mot, unique et qui ne change pas : sortie-urgente.",
    "was": "L'ancien nom de la règle, pour garder son histoire.",
    "send": "Envoyer à ces cibles ; demande `followup`.",
    "reason": "Pourquoi, en une phrase que le bureau et le service liront.",
    "file": "Classer avec le séjour, sans prévenir personne. La valeur dit pourquoi.",
    "mode": "on : en vigueur. observe : notée, sans effet. off : ignorée.",
    "if_unknown": "Quand un champ est illisible : hold (retenir, d'ordinaire) ou skip (passer à la suivante).",
}
_GROUPS: Final[Mapping[str, str]] = {
    "any": "Au moins un de ces ensembles de conditions est vrai.",
    "all": "Tous ces ensembles de conditions sont vrais.",
    "unless": "Sauf si toutes ces conditions sont vraies.",
}
_FACTS: Final[Mapping[str, str]] = {
    "event": "L'événement : discharge (sortie), er_visit (passage aux urgences), admission, transfer (mutation),"
    " death (décès), birth (naissance), other.",
    "document": "Le document : letter (lettre), advance_notice (avis avant la lettre), addendum (complément),"
    " replacement (nouvelle version), retraction (retrait), other.",
    "format": "Le format reçu.",
    "code": "Le code LOINC du type de document, par exemple 11490-0.",
    "urgency": "L'urgence dite par le courrier : routine (rien de signalé), soon (sous peu), urgent.",
    "identity": "La certitude sur le patient : qualified (INS), validated (traits complets d'un patient connu),"
    " provisional (inconnu du fichier), doubtful (douteuse), test.",
    "consent": "Le patient : allowed (rien contre), opposed (s'oppose), masked (document masqué).",
    "gp": "Le médecin traitant : found (trouvé), none (aucun), many (plusieurs), conflict (contradiction), left"
    " (parti), no_mailbox (sans messagerie sécurisée).",
    "gp_source": "D'où vient le médecin traitant : notice (la lettre), registry (le fichier), both.",
    "gp_away": "Le médecin est absent et un remplaçant est désigné.",
    "addressed": "Le service a déjà mis la messagerie du médecin dans ses destinataires.",
    "registered": "Exactement un patient connu correspond.",
    "mailbox": "La boîte ou le canal qui a reçu la lettre (son nom dans config.toml).",
    "sender": "L'adresse de l'expéditeur, en minuscules.",
    "signed": "Une signature S/MIME valable accompagne la lettre.",
    "facility": "L'établissement (FINESS, 9 chiffres).",
    "ward": "Le service : son nom ou son abrégé dans config.toml.",
    "unit": "Le code UF du service.",
    "exit_mode": "Le mode de sortie : home (domicile), hospital, rehabilitation (SMR), nursing_home (EHPAD),"
    " home_hospitalisation (HAD), death, other.",
    "age": "L'âge du patient en années : 75, ou { gte: 75 }.",
    "stay_days": "La durée du séjour en jours.",
    "late_hours": "Les heures entre la sortie et l'arrivée de la lettre.",
    "department": 'Le département du patient : "45", "2A", "974".',
    "cpts": "La CPTS du médecin traitant.",
    "mentions": "Les groupes de `keywords` trouvés dans la lettre.",
}
