"""What an admin is told: each kind of finding, in French and English, with its one fix.

An entry is (code, French, English, French fix, English fix); `{…}` are filled by whoever finds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

DID_YOU_MEAN: Final = (" Vouliez-vous dire « {guess} » ?", " Did you mean “{guess}”?")
REPLACE: Final = ("Remplacer « {word} » par « {guess} ».", "Replace “{word}” with “{guess}”.")

# What libyaml says, in words an admin can act on; "" stands for whatever else it may say.
PARSER: Final[Mapping[str, tuple[str, str]]] = {
    "did not find expected ',' or ']'": (
        "une virgule ou un crochet fermant `]` manque",
        "a comma or a closing `]` is missing",
    ),
    "did not find expected ',' or '}'": (
        "une virgule ou une accolade fermante `}` manque",
        "a comma or a closing `}` is missing",
    ),
    "did not find expected key": (
        "une clé était attendue ici : mauvais alignement, ou quelque chose de trop juste avant",
        "a key was expected here: wrong indent, or something too many just before",
    ),
    "did not find expected '-' indicator": (
        "un tiret était attendu ici, aligné avec ceux d'avant",
        "a dash was expected here, in line with those before",
    ),
    "mapping values are not allowed in this context": (
        "un deux-points inattendu : mauvais alignement, ou texte à mettre entre guillemets",
        "an unexpected colon: wrong indent, or a text that needs quotes",
    ),
    "block sequence entries are not allowed in this context": (
        "un tiret inattendu : passer à la ligne avant",
        "an unexpected dash: start a new line before it",
    ),
    "could not find expected ':'": ("un deux-points manque après la clé", "a colon is missing after the key"),
    "found character that cannot start any token": (
        "un texte ne commence pas par ce caractère sans guillemets",
        "a text does not start with this character unless quoted",
    ),
    "found unexpected end of stream": ("un guillemet jamais fermé", "a quote that is never closed"),
    "did not find expected node content": ("une valeur était attendue ici", "a value was expected here"),
    "found unknown escape character": (
        "« \\ » est suivi d'un caractère inconnu : l'écrire deux fois, ou prendre des guillemets simples",
        "“\\” with an unknown character behind it: double it, or use single quotes",
    ),
    "did not find expected comment or line break": (
        "rien ne suit « | » ou « > » sur leur ligne",
        "nothing stands behind “|” or “>” on their line",
    ),
    "did not find expected alphabetic or numeric character": (
        "un nom manque après « & » ou « * » ; un texte qui commence ainsi va entre guillemets",
        "a name is missing after “&” or “*”; a text that starts so needs quotes",
    ),
    "did not find expected <document start>": (
        "quelque chose suit la fin du document",
        "something stands behind the end of the document",
    ),
    "": ("structure incompréhensible à partir d'ici", "the structure can't be understood from here on"),
}
OPENED: Final[Mapping[str, tuple[str, str]]] = {
    "while parsing a flow sequence": (" ; crochet ouvert l.{line}", "; bracket opened on line {line}"),
    "while parsing a flow mapping": (" ; accolade ouverte l.{line}", "; brace opened on line {line}"),
    "while scanning a quoted scalar": (" ; guillemet ouvert l.{line}", "; quote opened on line {line}"),
    "while scanning a simple key": (" ; clé l.{line}", "; key on line {line}"),
}
# What RE2 says, up to the colon.
RE2_SAYS: Final[Mapping[str, str]] = {
    "missing )": "une parenthèse fermante manque",
    "unexpected )": "une parenthèse fermante de trop",
    "missing ]": "un crochet fermant manque",
    "invalid character class range": "intervalle ou classe de caractères impossible",
    "no argument for repetition operator": "rien à répéter avant",
    "bad repetition operator": "deux répétitions de suite",
    "invalid repetition size": "répétition trop grande ou à l'envers",
    "invalid perl operator": "construction que RE2 n'a pas",
    "invalid escape sequence": "« \\ » suivi d'un caractère inconnu",
    "trailing \\": "« \\ » à la fin",
    "pattern too large": "expression trop grande",
    "longer than 1000 characters": "plus de 1000 caractères",
    "too many words": "trop de mots pour un seul groupe",
}


def said_of_pattern(problem: str) -> tuple[str, str]:
    """Why RE2 refuses an expression, in French and English; the piece it objects to stays as it is."""
    for start, french in RE2_SAYS.items():
        if problem.startswith(start):
            return french + problem.removeprefix(start).replace(":", " :", 1), problem
    return problem, problem


WORDS: Final[Mapping[str, tuple[str, str, str, str, str]]] = {
    # -- the file as YAML
    "too_large": (
        "E105",
        "fichier de plus d'1 Mo : refusé.",
        "file larger than 1 MB: refused.",
        "Un fichier de règles tient en quelques pages.",
        "A rule file takes a few pages.",
    ),
    "not_utf8": (
        "E105",
        "ce n'est pas de l'UTF-8.",
        "this is not UTF-8.",
        "Enregistrer le fichier en UTF-8.",
        "Save the file as UTF-8.",
    ),
    "hidden_character": (
        "E105",
        "caractère invisible {name}.",
        "invisible character {name}.",
        "Le supprimer.",
        "Delete it.",
    ),
    "tab": (
        "E105",
        "tabulation en début de ligne.",
        "a tab at the start of a line.",
        "La remplacer par des espaces.",
        "Replace it with spaces.",
    ),
    "no_break_space": (
        "E105",
        "espace insécable en début de ligne.",
        "a no-break space at the start of a line.",
        "La remplacer par une espace ordinaire.",
        "Replace it with an ordinary space.",
    ),
    "syntax": (
        "E105",
        "YAML illisible ({problem}).",
        "unreadable YAML ({problem}).",
        "Vérifier l'alignement, les deux-points et les guillemets de cette ligne et de celle d'avant.",
        "Check alignment, colons and quotes on this line and the one before.",
    ),
    "too_deep": (
        "E105",
        "imbrication trop profonde.",
        "nested too deep.",
        "Revoir les crochets et l'alignement.",
        "Check brackets and alignment.",
    ),
    "empty_file": (
        "E105",
        "fichier vide.",
        "empty file.",
        "Commencer par `version: 1`.",
        "Start with `version: 1`.",
    ),
    "refused": (
        "E106",
        "{what} : refusé dans un fichier de règles.",
        "{what}: refused in a rule file.",
        "L'écrire en toutes lettres.",
        "Write it out in full.",
    ),
    "key_no_word": (
        "E104",
        "une clé doit être un mot.",
        "a key must be a word.",
        "Vérifier les accolades et les deux-points.",
        "Check braces and colons.",
    ),
    "key_twice": (
        "E107",
        "clé « {word} » déjà écrite l.{first}.",
        "key “{word}” already written on line {first}.",
        "N'en garder qu'une.",
        "Keep only one.",
    ),
    # -- keys and values
    "unknown_key": (
        "E101",
        "clé inconnue « {word} » dans {place}.",
        "unknown key “{word}” in {place}.",
        "Clés possibles : {listed}.",
        "Possible keys: {listed}.",
    ),
    "too_nested": (
        "E101",
        "`{word}` ne va pas dans `{of}` : un seul niveau.",
        "`{word}` can't stand inside `{of}`: one level only.",
        "Écrire deux règles.",
        "Write two rules.",
    ),
    "unknown_value": (
        "E102",
        "valeur « {word} » inconnue pour `{of}`. Valeurs : {listed}.",
        "unknown value “{word}” for `{of}`. Values: {listed}.",
        "Choisir parmi : {listed}.",
        "Choose one of: {listed}.",
    ),
    "unknown_zone": (
        "E102",
        "fuseau « {word} » inconnu.",
        "unknown time zone “{word}”.",
        "Écrire « Europe/Paris ».",
        "Write “Europe/Paris”.",
    ),
    "unknown_matched": (
        "E102",
        "« unknown » ne se compare pas : un avis dont `{of}` est illisible est retenu.",
        "“unknown” can't be matched: a notice whose `{of}` is unreadable is held.",
        "Pour passer à la suivante : `if_unknown: skip`.",
        "To go on to the next: `if_unknown: skip`.",
    ),
    "no_number": (
        "E102",
        "« {word} » n'est pas un nombre (`{of}`).",
        "“{word}” is not a number (`{of}`).",
        "Écrire 75, ou {{ gte: 75 }}.",
        "Write 75, or {{ gte: 75 }}.",
    ),
    "reserved": (
        "E102",
        "« {word} » est un mot du langage, pas un nom.",
        "“{word}” is a word of the language, not a name.",
        "Choisir un autre nom.",
        "Choose another name.",
    ),
    "missing": (
        "E103",
        "il manque `{key}` dans {place}.",
        "`{key}` is missing in {place}.",
        "Ajouter `{example}`.",
        "Add `{example}`.",
    ),
    "no_table": (
        "E104",
        "{place} attend des paires `clé: valeur`.",
        "{place} takes `key: value` pairs.",
        "Clés possibles : {listed}.",
        "Possible keys: {listed}.",
    ),
    "no_list": (
        "E104",
        "`{of}` attend une liste.",
        "`{of}` takes a list.",
        "Commencer chaque élément par un tiret.",
        "Start each element with a dash.",
    ),
    "empty_list": (
        "E104",
        "{place} est une liste vide.",
        "{place} is an empty list.",
        "Y mettre au moins une valeur, ou retirer la clé.",
        "Put a value in, or remove the key.",
    ),
    "no_word": (
        "E104",
        "{place} attend un mot ou un texte.",
        "{place} takes a word or a text.",
        "Écrire une seule valeur.",
        "Write a single value.",
    ),
    "no_conditions": (
        "E104",
        "`{of}` attend une liste de conditions.",
        "`{of}` takes a list of conditions.",
        "Écrire `- {{ champ: valeur }}`, une par ligne.",
        "Write `- {{ field: value }}`, one a line.",
    ),
    "no_comparison": (
        "E104",
        "`{of}` attend une valeur ou une liste de valeurs.",
        "`{of}` takes a value or a list of values.",
        "Écrire `{of}: [ … ]`.",
        "Write `{of}: [ … ]`.",
    ),
    "duration": (
        "E104",
        "durée « {word} » illisible pour `{of}`.",
        "unreadable duration “{word}” for `{of}`.",
        "Écrire 30s, 10m, 2h ou 3d (366 jours au plus).",
        "Write 30s, 10m, 2h or 3d (366 days at most).",
    ),
    "date": (
        "E104",
        "date « {word} » illisible pour `{of}`.",
        "unreadable date “{word}” for `{of}`.",
        "Écrire AAAA-MM-JJ, par exemple 2026-12-01.",
        "Write YYYY-MM-DD, for example 2026-12-01.",
    ),
    "instant": (
        "E104",
        "instant « {word} » illisible pour `{of}`.",
        "unreadable instant “{word}” for `{of}`.",
        'Écrire "2026-12-04T18:45".',
        'Write "2026-12-04T18:45".',
    ),
    "dates_reversed": (
        "E104",
        "`until` vient avant `from`.",
        "`until` comes before `from`.",
        "Corriger l'une des deux dates.",
        "Correct one of the dates.",
    ),
    "period": (
        "E104",
        "période à l'envers, ou de plus d'un an.",
        "a period that ends before it starts, or of more than a year.",
        "Écrire DÉBUT..FIN.",
        "Write START..END.",
    ),
    "id_words": (
        "E104",
        "un `id` est un seul mot, sans espace.",
        "an `id` is one word, without spaces.",
        "Mettre des tirets : sortie-urgente.",
        "Use dashes: sortie-urgente.",
    ),
    "version": (
        "E108",
        "version « {word} » du langage inconnue.",
        "unknown language version “{word}”.",
        "Écrire `version: 1`.",
        "Write `version: 1`.",
    ),
    "when_empty": (
        "E109",
        "`when` est vide : la règle prendrait tout.",
        "`when` is empty: the rule would take everything.",
        "Donner une condition, ou utiliser `default`.",
        "Give a condition, or use `default`.",
    ),
    "condition_empty": (
        "E109",
        "condition vide dans `{of}`.",
        "empty condition in `{of}`.",
        "Y mettre un champ, ou la retirer.",
        "Put a field in, or remove it.",
    ),
    "expect_empty": (
        "E109",
        "`expect` est vide : le cas ne prouverait rien.",
        "`expect` is empty: the case would prove nothing.",
        "Dire au moins `rule`, `send`, `hold` ou `file`.",
        "State at least `rule`, `send`, `hold` or `file`.",
    ),
    # -- names
    "undefined": (
        "E110",
        "{one} « {word} » non définie. {many} : {listed}.",
        "{one} “{word}” is not defined. {many}: {listed}.",
        "La définir, ou en choisir une autre.",
        "Define it, or choose another.",
    ),
    "no_desk": (
        "E111",
        "`{of}` ne prend qu'un bureau ; « {word} » n'en est pas un. Bureaux : {listed}.",
        "`{of}` takes only a desk; “{word}” is none. Desks: {listed}.",
        "Choisir une cible `who: desk/…`.",
        "Choose a target `who: desk/…`.",
    ),
    "one_action": (
        "E112",
        "règle « {word} » : une règle a exactement une action, `send`, `hold` ou `file`.",
        "rule “{word}”: a rule has exactly one action, `send`, `hold` or `file`.",
        "Rien ne s'écarte : retenir (`hold`) ou classer (`file`).",
        "Nothing is dropped: hold it or file it.",
    ),
    "only_send": (
        "E112",
        "`{word}` ne va qu'avec `send`.",
        "`{word}` goes only with `send`.",
        "Le retirer.",
        "Remove it.",
    ),
    "one_step": (
        "E112",
        "une étape a soit `remind`, soit `hand_to`.",
        "a step has either `remind` or `hand_to`.",
        "N'en garder qu'un.",
        "Keep one of them.",
    ),
    "pattern": (
        "E113",
        "expression « {word} » refusée par RE2 ({problem}).",
        "expression “{word}” refused by RE2 ({problem}).",
        "Corriger l'expression, ou énumérer les valeurs.",
        "Correct it, or list the values.",
    ),
    # -- what would be dangerous
    "chat_document": (
        "E120",
        "`{word}` porte `{carries}` par {kind} : un canal de discussion ne porte que `pointer`.",
        "`{word}` carries `{carries}` over {kind}: a chat carries only `pointer`.",
        "Écrire `carries: pointer`.",
        "Write `carries: pointer`.",
    ),
    "overlap": (
        "E130",
        "plages qui se chevauchent.",
        "windows that overlap.",
        "Raccourcir l'une des deux.",
        "Shorten one of the two.",
    ),
    "window": (
        "E131",
        "plage « {word} » illisible.",
        "unreadable window “{word}”.",
        'Écrire "08:00-12:30", entre guillemets.',
        'Write "08:00-12:30", in quotes.',
    ),
    "never_open": (
        "E131",
        "« {word} » n'ouvre jamais.",
        "“{word}” never opens.",
        'Ajouter des plages, par exemple mon-fri: ["08:00-19:00"].',
        'Add windows, for example mon-fri: ["08:00-19:00"].',
    ),
    "last_step": (
        "E140",
        "échelle « {word} » : la dernière étape doit être `hand_to` un bureau.",
        "ladder “{word}”: the last step must `hand_to` a desk.",
        "Finir par `{{ after: 3d, hand_to: BUREAU }}`.",
        "End with `{{ after: 3d, hand_to: DESK }}`.",
    ),
    "reopens": (
        "E141",
        "« {word} » : `ack_expires` rouvrirait chaque fil avant sa clôture.",
        "“{word}”: `ack_expires` would re-open each thread before it closes.",
        "Dépasser `quiet_for` ({quiet_for}).",
        "Make it longer than `quiet_for` ({quiet_for}).",
    ),
    "files_discharge": (
        "E142",
        "`file` pourrait classer une sortie sans suite.",
        "`file` could file a discharge with nobody told.",
        "Limiter `event` à admission, transfer, birth ou other, ou retenir (`hold`).",
        "Limit `event` to admission, transfer, birth or other, or `hold`.",
    ),
    "no_basis": (
        "E143",
        "« {word} » reçoit un document : précisez `basis`.",
        "“{word}” receives a document: state its `basis`.",
        "Ajouter `basis: care_team` ou `basis: consent`.",
        "Add `basis: care_team` or `basis: consent`.",
    ),
    # -- between rules, and their tests
    "id_twice": (
        "E203",
        "id « {word} » déjà utilisé l.{first}.",
        "id “{word}” already used on line {first}.",
        "Donner un autre id à cette règle.",
        "Give this rule another id.",
    ),
    "case_twice": (
        "E203",
        "cas « {word} » déjà écrit l.{first}.",
        "case “{word}” already written on line {first}.",
        "Lui donner un autre nom.",
        "Give it another name.",
    ),
    "covered": (
        "E201",
        "règle « {word} » inatteignable : couverte par {by}.",
        "rule “{word}” can't be reached: covered by {by}.",
        "La placer avant, ou la retirer.",
        "Move it before, or remove it.",
    ),
    "contradicts": (
        "E201",
        "{noun} « {word} » inatteignable : sa condition se contredit.",
        "{noun} “{word}” can't be reached: its condition contradicts itself.",
        "Corriger `when` : aucun avis ne peut le remplir.",
        "Correct `when`: no notice can fulfil it.",
    ),
    "default_dead": (
        "W202",
        "`default` inatteignable.",
        "`default` can't be reached.",
        "Les règles prennent déjà tout : vérifier que c'est voulu.",
        "The rules take everything already: make sure that is meant.",
    ),
    "floored": (
        "W203",
        "copie « {word} » jamais faite : là où elle convient, un plancher l'interdit.",
        "copy “{word}” is never made: wherever it matches, a floor forbids it.",
        "La retirer : identité douteuse, opposition et médecin introuvable arrêtent toute copie.",
        "Remove it: a doubtful identity, an objection and a GP not found stop every copy.",
    ),
    "same_holidays": (
        "W301",
        "la subdivision ne change aucun jour férié.",
        "the subdivision changes no public holiday.",
        "La retirer.",
        "Remove it.",
    ),
    "observed_long": (
        "W302",
        "« {word} » en `observe` depuis {days} j, {count} : promouvoir ou retirer.",
        "“{word}” in `observe` for {days} days, {count}: promote or remove it.",
        "Écrire `mode: on` si les avis observés étaient les bons, sinon retirer la règle.",
        "Write `mode: on` if the notices observed were the right ones, else remove the rule.",
    ),
    "no_case": (
        "E304",
        "« {word} » n'a aucun test (coverage: every-rule).",
        "“{word}” has no test (coverage: every-rule).",
        "Ajouter un cas qui l'atteint.",
        "Add a case that reaches it.",
    ),
    "no_case_but": (
        "E304",
        "« {word} » n'a aucun test (coverage: every-rule). Exemple qui l'atteint, prêt à coller : {facts}",
        "“{word}” has no test (coverage: every-rule). An example that reaches it, ready to paste: {facts}",
        "{case}",
        "{case}",
    ),
    "no_tests": (
        "W304",
        "aucun fichier de tests à côté des règles.",
        "no test file beside the rules.",
        "Créer {beside}.",
        "Create {beside}.",
    ),
    "channel": (
        "W305",
        "canal « {word} » {problem}. Canaux : {listed}.",
        "channel “{word}” {problem}. Channels: {listed}.",
        "Le configurer, ou le retirer de `via`.",
        "Configure it, or remove it from `via`.",
    ),
    "step_order": (
        "W306",
        "étape à {after}, placée après une étape à {before}.",
        "a step at {after} after a step at {before}.",
        "Ranger les étapes par délai.",
        "Put the steps in order of time.",
    ),
    "case_failed": (
        "T001",
        "« {word} » : attendu {expected}, obtenu {got} ({facts}).",
        "“{word}”: expected {expected}, got {got} ({facts}).",
        "Corriger le cas ou la règle « {rule} » (l.{line} ; {why}).",
        "Correct the case, or rule “{rule}” (line {line}; {why}).",
    ),
}
CODES: Final[Mapping[str, tuple[str, str, str, str]]] = {
    "E101": (
        "Clé inconnue",
        "Unknown key",
        "Le langage est fermé : une clé qu'il ne connaît pas n'aurait aucun effet, et l'on croirait la règle active. La correction propose la clé la plus proche.",
        "The language is closed: a key it does not know would have no effect while the rule seems to work. The fix offers the nearest key.",
    ),
    "E102": (
        "Valeur inconnue",
        "Unknown value",
        "La valeur n'est pas de celles que ce champ admet. Elles sont dans le message, ou dans la configuration pour les services, boîtes et bureaux.",
        "The value is none that this field takes. They are in the message, or in the configuration for wards, mailboxes and desks.",
    ),
    "E103": (
        "Clé manquante",
        "Missing key",
        "Une partie obligatoire manque : sans elle, on ne saurait pas quoi faire d'une lettre.",
        "A mandatory part is missing: without it nobody would know what to do with a letter.",
    ),
    "E104": (
        "Forme inattendue",
        "Unexpected shape",
        "Une liste, un mot, une date ou une durée était attendu ici, et autre chose s'y trouve.",
        "A list, a word, a date or a duration was expected here, and something else stands there.",
    ),
    "E105": (
        "YAML illisible",
        "Unreadable YAML",
        "Le fichier ne se lit pas comme du YAML en UTF-8 : alignement, guillemets, tabulations, caractères invisibles ou taille.",
        "The file does not read as YAML in UTF-8: indent, quotes, tabs, invisible characters or size.",
    ),
    "E106": (
        "YAML trop rusé",
        "YAML too clever",
        "Ancres, alias, fusions, types, directives et seconds documents sont refusés : ce qui est écrit doit être ce qui est lu.",
        "Anchors, aliases, merge keys, tags, directives and second documents are refused: what is written must be what is read.",
    ),
    "E107": (
        "Clé en double",
        "Duplicate key",
        "En YAML la dernière de deux clés égales l'emporterait en silence.",
        "In YAML the last of two equal keys would win in silence.",
    ),
    "E108": (
        "Version inconnue",
        "Unknown version",
        "Le fichier est écrit pour une autre version du langage : rien n'en est deviné.",
        "The file is written for another version of the language: nothing of it is guessed.",
    ),
    "E109": (
        "Condition ou attente vide",
        "Empty condition or expectation",
        "Un `when` vide prendrait toutes les lettres, un `expect` vide ne prouverait rien.",
        "An empty `when` would take every letter, an empty `expect` would prove nothing.",
    ),
    "E110": (
        "Nom non défini",
        "Undefined name",
        "Une cible, des horaires, une suite, une règle, un bureau ou une garde de ce nom n'existe pas.",
        "No target, hours, follow-up, rule, desk or rota bears this name.",
    ),
    "E111": (
        "Un bureau est attendu ici",
        "A desk is expected here",
        "Seul un bureau (`who: desk/…`) peut retenir une lettre ou recevoir un suivi : quelqu'un y répond toujours.",
        "Only a desk (`who: desk/…`) can hold a letter or take over a follow-up: somebody always answers there.",
    ),
    "E112": (
        "Exactement une action",
        "Exactly one action",
        "Une règle envoie, retient ou classe ; une étape rappelle ou passe la main. Aucun mot n'efface.",
        "A rule sends, holds or files; a step reminds or hands over. No verb drops.",
    ),
    "E113": (
        "Expression refusée",
        "Expression refused",
        "L'expression n'est pas une expression RE2, qui se lit en temps borné. Ni retour en arrière, ni regard en avant.",
        "This is no RE2 expression, which runs in bounded time. No back-references, no look-ahead.",
    ),
    "E120": (
        "Document sur un canal de discussion",
        "Document over a chat",
        "Un canal de discussion ne porte que « une lettre vous attend ». Aucune donnée de santé n'y passe, quoi que dise le fichier.",
        "A chat carries nothing but “a letter is waiting”. No health data goes there, whatever the file says.",
    ),
    "E130": (
        "Plages qui se chevauchent",
        "Overlapping windows",
        "Deux plages d'un même horaire se recouvrent, la nuit et du dimanche au lundi compris : l'une des deux est fausse.",
        "Two windows of the same hours overlap, over midnight and from Sunday to Monday too: one of them is wrong.",
    ),
    "E131": (
        "Plage illisible ou jamais ouverte",
        "Unreadable or empty window",
        "Une plage s'écrit \"08:00-12:30\" ; des horaires qui n'ouvrent jamais feraient attendre sans fin.",
        'A window is written "08:00-12:30"; hours that never open would make a letter wait for ever.',
    ),
    "E140": (
        "Échelle sans bureau au bout",
        "Ladder without a desk at its end",
        "La dernière étape passe la main à un bureau : une lettre sans réponse finit toujours chez quelqu'un.",
        "The last step hands over to a desk: an unanswered letter always ends with somebody.",
    ),
    "E141": (
        "Accord qui expire trop tôt",
        "Acknowledgement that expires too early",
        "`ack_expires` viendrait avant la clôture : chaque suivi se rouvrirait.",
        "`ack_expires` would come before the thread closes: each would re-open.",
    ),
    "E142": (
        "Sortie classée sans suite",
        "Discharge filed with nobody told",
        "`file` ne prend ni sortie, ni passage aux urgences, ni décès : quelqu'un doit le savoir.",
        "`file` takes no discharge, emergency visit or death: somebody must know.",
    ),
    "E143": (
        "Document sans fondement",
        "Document without a basis",
        "Hors du médecin traitant, du service, du patient et des bureaux, un document demande un fondement : équipe de soins ou accord.",
        "Beyond the GP, the ward, the patient and desks a document needs a basis: care team or consent.",
    ),
    "E201": (
        "Règle inatteignable",
        "Unreachable rule",
        "Les règles d'avant prennent, à elles toutes, chaque lettre que celle-ci prendrait.",
        "The rules before it, taken together, take every letter that this one would.",
    ),
    "W202": (
        "`default` inatteignable",
        "Unreachable default",
        "Les règles prennent toutes les lettres : le filet ne sert plus. Est-ce voulu ?",
        "The rules take every letter: the safety net is never used. Is that meant?",
    ),
    "W203": (
        "Copie jamais faite",
        "Copy never made",
        "Partout où cette copie conviendrait, un plancher l'arrête : identité douteuse, opposition, médecin introuvable.",
        "Wherever this copy would match a floor stops it: a doubtful identity, an objection, a GP not found.",
    ),
    "E203": (
        "Nom en double",
        "Duplicate name",
        "Deux règles, ou deux cas, portent le même nom ; l'histoire d'une règle s'y perdrait.",
        "Two rules, or two cases, bear the same name; a rule's history would be lost.",
    ),
    "W301": (
        "Subdivision sans effet",
        "Subdivision without effect",
        "La subdivision a les mêmes jours fériés que le pays.",
        "The subdivision has the same public holidays as the country.",
    ),
    "W302": (
        "Observation qui dure",
        "Long observation",
        "La règle est en `observe` depuis longtemps : la promouvoir (`mode: on`) ou la retirer.",
        "The rule has been in `observe` for long: promote it (`mode: on`) or remove it.",
    ),
    "E304": (
        "Règle sans test",
        "Rule without a test",
        "Avec `coverage: every-rule`, chaque règle, chaque copie et `default` ont au moins un cas qui les atteint.",
        "With `coverage: every-rule` each rule, each copy and the default have a case that reaches them.",
    ),
    "W304": (
        "Aucun test",
        "No tests",
        "Aucun fichier de tests à côté des règles : rien ne dit ce qu'elles doivent faire.",
        "No test file beside the rules: nothing says what they must do.",
    ),
    "W305": (
        "Canal absent",
        "Missing channel",
        "La configuration n'a pas ce canal, ou il n'envoie rien ; les autres de `via` servent.",
        "The configuration lacks this channel, or it sends nothing; the others of `via` are used.",
    ),
    "W306": (
        "Étapes dans le désordre",
        "Steps out of order",
        "Une étape vient plus tôt que celle écrite avant elle.",
        "A step comes earlier than the one written before it.",
    ),
    "T001": (
        "Cas en échec",
        "Failed case",
        "Les règles ne font pas ce que ce cas attend : le cas ou la règle est à corriger. D'ici là rien ne change.",
        "The rules don't do what this case expects: correct the case or the rule. Until then nothing changes.",
    ),
}
"""Each code: its name and why it matters, (French, English, French, English)."""
