"""`relay rules …`: check and test a rule file; explaining and changing have rooms of their own."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from relay.cli import shared
from relay.errors import ConfigurationError, Unavailable, UsageError

if TYPE_CHECKING:
    from rules.language import Finding, RuleSet, Site

commands = typer.Typer(help="Routing rules: check, test, explain, change.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    from relay.cli import explaining, rulelife

    commands.command("explain")(explaining.explain)
    rulelife.register(commands)
    app.add_typer(commands, name="rules")


def _file(named: Path | None) -> tuple[Path, Site | None]:
    """The rule file that is meant, and what the configuration knows (None without one)."""
    site = shared.settings_or_none()
    if site is None:
        if named is None:
            raise UsageError("no configuration here: name a rule file, or give --config")
        return named, None
    from relay import ruling

    return named or site.rules, ruling.rules_site(site)


def _text(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot be read ({type(error).__name__})", file=str(file)) from None


def _load(
    file: Path, site: Site | None, lang: str, *, explaining: bool = False
) -> tuple[RuleSet | None, tuple[Finding, ...]]:
    from rules import language

    if lang not in ("fr", "en"):
        raise UsageError(f"--lang is fr or en, not « {lang} »")
    return language.load(_text(file), str(file), site, lang, explaining=explaining)


def _observed_long(rules: RuleSet, lang: str) -> tuple[Finding, ...]:
    """W302, where a site's store can be asked how long a rule was only observed."""
    site = shared.settings_or_none()
    if site is None or all(entry.mode != "observe" for entry in rules.every()):
        return ()
    from relay import ruling
    from rules import language

    async def seen() -> dict[str, tuple[int, int]]:
        async with shared.opened(site) as store:
            return await ruling.observed(store, rules, ruling.rules_site(site), datetime.now(UTC))

    try:
        return language.observed_long(rules, shared.run(seen()), lang)
    except (Unavailable, ConfigurationError):
        return ()


def _show(findings: tuple[Finding, ...], lang: str) -> None:
    for finding in findings:
        print(finding.text(lang))


def _many(count: int, one: str, more: str, *, french: bool) -> str:
    """« 0 copie », « 1 copie », « 2 copies »; "0 copies", "1 copy"."""
    return f"{count} {one if count == 1 or (french and not count) else more}"


@commands.command("check")
def check(
    file: Path | None = typer.Argument(None, help="The rule file; the configured one when left out."),
    form: str = typer.Option("text", "--format", help="text, json or sarif."),
    lang: str = typer.Option("fr", "--lang", help="Language of the findings: fr or en."),
) -> int:
    """Check a rule file and the tests beside it: exit 1 when it has errors."""
    from rules import cases, reach

    if form not in ("text", "json", "sarif"):
        raise UsageError(f"--format is text, json or sarif, not « {form} »")
    place, site = _file(file)
    # A doubled id does not keep the rest from being checked: everything is told in one pass.
    rules, findings = _load(place, site, lang, explaining=True)
    beside = Path(cases.tests_beside(str(place)))
    if rules is not None:
        findings = (*findings, *reach.findings(rules, lang), *_observed_long(rules, lang))
        if beside.exists():
            findings = (*findings, *cases.run(rules, _text(beside), str(beside), lang).findings)
        else:
            findings = (*findings, cases.without_tests(str(place), lang))
    # The rules before their tests, each in the order of the file; what is of no line last.
    findings = tuple(
        sorted(findings, key=lambda f: (f.file != str(place), f.code == "W304", f.line, f.column))
    )
    ok = rules is not None and not any(finding.severity == "error" for finding in findings)
    if form == "sarif":
        from relay import __version__
        from rules.sarif import sarif

        shared.emit(sarif(findings, __version__, str(Path.cwd()), lang))
    elif form == "json" or shared.chosen.json:
        shared.emit({"ok": ok, "findings": [finding.as_json() for finding in findings]})
    else:
        _show(findings, lang)
        if ok and rules is not None:
            french = lang == "fr"
            names = ("règle", "règles", "copie", "copies") if french else ("rule", "rules", "copy", "copies")
            held = _many(len(rules.rules), *names[:2], french=french)
            held += ", " + _many(len(rules.also), *names[2:], french=french)
            warned = ("avertissement", "avertissements") if french else ("warning", "warnings")
            said = "rien à redire" if french else "nothing to object to"
            if findings:
                said = _many(len(findings), *warned, french=french) + (
                    ", aucune erreur" if french else ", no error"
                )
            print(f"{place.name}{' ' if french else ''}: {said}, {held}.")
    return 0 if ok else 1


@commands.command("test")
def test(
    file: Path | None = typer.Argument(None, help="The rule file; the configured one when left out."),
    lang: str = typer.Option("fr", "--lang", help="Language of the findings: fr or en."),
    write_missing: bool = typer.Option(
        False,
        "--write-missing",
        help="Write a case for each rule that has none; the file is made if need be.",
    ),
) -> int:
    """Run the tests that stand beside a rule file."""
    from rules import cases

    place, site = _file(file)
    rules, findings = _load(place, site, lang)
    if rules is None:
        if shared.chosen.json:
            shared.emit({"ok": False, "cases": [], "findings": [each.as_json() for each in findings]})
        else:
            _show(findings, lang)
        return 1
    beside = Path(cases.tests_beside(str(place)))
    written = _write_missing(rules, beside, lang) if write_missing else None
    if not beside.exists():
        raise ConfigurationError("there is no test file beside the rules", file=str(beside))
    outcome = cases.run(rules, _text(beside), str(beside), lang)
    if shared.chosen.json:
        document: dict[str, object] = {
            "ok": outcome.ok,
            "cases": [result.as_json() for result in outcome.results],
        }
        shared.emit({**document, "written": list(written or ())} if write_missing else document)
    else:
        for result in outcome.results:
            print(f"{'✓' if result.ok else '✗'} {result.name}")
        _show(outcome.findings, lang)
        failed = sum(not result.ok for result in outcome.results)
        print(
            f"{len(outcome.results)} cas, {failed} en échec."
            if lang == "fr"
            else f"{len(outcome.results)} cases, {failed} failed."
        )
        if written is not None:
            names = ", ".join(written) or ("rien ne manquait" if lang == "fr" else "nothing was missing")
            print(f"{'Cas écrits' if lang == 'fr' else 'Cases written'} ({beside.name}) : {names}.")
    return 0 if outcome.ok else 1


def _write_missing(rules: RuleSet, beside: Path, lang: str) -> tuple[str, ...] | None:
    """Add the cases that are missing to a test file; their names. None, and no touch, when it can't be read.

    A file that is made begins with the line by which editors find its schema.
    """
    from rules import cases, schema

    stands = beside.exists()
    try:
        made = cases.missing(rules, _text(beside) if stands else None, str(beside), lang)
    except ValueError as error:
        raise ConfigurationError(str(error), file=str(beside)) from None
    if isinstance(made, cases.Outcome):
        return None
    if not made.names:
        return ()
    head = "" if stands else schema.EDITOR_LINE.format(schema.TESTS_FILE_NAME) + "\n"
    shared.write_whole(beside, head + made.text)
    return made.names


@commands.command("schema")
def schema(
    file: Path | None = typer.Argument(None, help="The rule file; the configured one when left out."),
    write: bool = typer.Option(False, "--write", help="Write both beside the rule file, where editors look."),
    tests: bool = typer.Option(False, "--tests", help="The schema of test files instead."),
) -> int:
    """Print the JSON Schema of rule files, filled with the site's own names; editors complete and check with it."""
    from rules import schema as schemas

    site = shared.settings_or_none()
    place = file if file is not None or site is None else site.rules
    known = None
    if site is not None:
        from relay import ruling

        known = ruling.rules_site(site)
    names = schemas.names_in(_text(place)) if place else None
    shown = (schemas.schema_of_tests if tests else schemas.schema)(known, names)
    if write:
        if place is None:
            raise UsageError("no configuration here: name a rule file, or give --config")
        for name, text in schemas.files(known, names).items():
            beside = place.parent / name
            shared.write_whole(beside, text)
            if not shared.chosen.json:
                print(beside)
    if shared.chosen.json:
        shared.emit(shown)
    elif not write:
        print(schemas.as_file(shown), end="")
    return 0
