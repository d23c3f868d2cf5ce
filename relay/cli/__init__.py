"""The command line: one sentence for each error, one JSON document for each `--json`, and honest exit codes.

0 well · 1 found something wrong · 2 usage or configuration error · 3 something needed is unavailable.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import click
import typer

from relay import __version__, log
from relay.cli import shared
from relay.errors import ConfigurationError, NotFound, Refused, RelaisError, Unavailable, UsageError

app = typer.Typer(
    name="relay",
    help="Relais: the relay between hospital wards and general practitioners.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Every command takes --config FILE (default $RELAY_CONFIG, else ./config.toml), --json for one "
    "JSON document, and --log json|text for its logs on standard error.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def root(version: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    """Options of the whole program."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


def _register() -> None:
    from relay.cli import care, operations, people, rulesets, start

    for module in (start, rulesets, people, operations, care):
        module.register(app)


def exit_code(error: RelaisError) -> int:
    """What a shell is told."""
    match error:
        case ConfigurationError() | UsageError():
            return 2
        case Unavailable():
            return 3
        case NotFound() | Refused():
            return 1
        case _:
            return 1


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run one command and leave with its exit code."""
    words, chosen = shared.take_shared(sys.argv[1:] if arguments is None else arguments)
    shared.chosen = chosen
    try:
        if chosen.log not in ("json", "text"):
            raise UsageError(f"--log is json or text, not « {chosen.log} »")
        log.set_up(chosen.log)
        _register()
        result = app(args=words, standalone_mode=False, prog_name="relay")
        sys.stdout.flush()
        code = result if isinstance(result, int) else 0
    except click.exceptions.Exit as leaving:
        code = leaving.exit_code
    except click.exceptions.Abort:
        code = 2
    except click.ClickException as error:
        print(f"relay: {error.format_message()}", file=sys.stderr)
        code = 2
    except RelaisError as error:
        print(f"relay: {error}", file=sys.stderr)
        code = exit_code(error)
    except BrokenPipeError:
        # The reader of our output went away (`relay envelopes list | head`).
        sys.stderr.close()
        code = 0
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
