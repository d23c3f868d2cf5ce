"""The command line: one sentence for each error, one JSON document for each `--json`, and honest exit codes.

0 well · 1 found something wrong · 2 usage or configuration error · 3 something needed is unavailable.
"""

from __future__ import annotations

import errno
import functools
import io
import os
import resource
import sys
from typing import Any, NoReturn, cast

import typer

from relay import __version__, log
from relay.cli import shared
from relay.errors import ConfigurationError, NotFound, Refused, RelaisError, Unavailable, UsageError

# Typer carries its own click, at a private place: what it raises for a wrong call is reached by descent.
Miscalled = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[2])

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


@functools.cache  # a second call in one process would add every command once more
def _register() -> None:
    from relay.cli import care, operations, people, rulesets, start

    for module in (start, rulesets, people, operations, care):
        module.register(app)


def _spell_out(command: Any) -> None:  # Any: the click that typer carries has no public name
    """Lists of commands show whole sentences, which they would cut; arguments are named as manuals name them."""
    command.short_help = " ".join((command.help or "").partition(". ")[0].split())
    for parameter in command.params:
        if parameter.param_type_name == "argument" and parameter.metavar is None:
            parameter.metavar = parameter.name.upper()
    for each in getattr(command, "commands", {}).values():
        _spell_out(each)


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
    # What crashes leaves its memory nowhere: letters and keys stand in it.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    words = sys.argv[1:] if arguments is None else arguments
    shared.chosen = shared.Chosen(json="--json" in words)
    try:
        words, shared.chosen = shared.take_shared(words)
        _open_streams()
        if shared.chosen.log not in ("json", "text"):
            raise UsageError(f"--log is json or text, not « {shared.chosen.log} »")
        log.set_up(shared.chosen.log)
        _register()
        program = typer.main.get_command(app)
        _spell_out(program)
        result = program(args=words, standalone_mode=False, prog_name="relay")
        sys.stdout.flush()
        code = result if isinstance(result, int) else 0
    except typer.Abort:
        code = 2
    except Miscalled as error:
        code = _leave(UsageError(_one_line(error)))
    except BrokenPipeError:
        # The reader of our output went away (`relay envelopes list | head`).
        sys.stderr.close()
        code = 0
    except KeyboardInterrupt:
        code = 130
    except Exception as error:  # noqa: BLE001 - Python's own last word would quote values
        code = _leave(_cause(error))
    sys.exit(code)


def _open_streams() -> None:
    """Whatever a command has to say can be written: in any locale, and where a stream was closed."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the process
    if isinstance(sys.stdout, io.TextIOWrapper):
        if shared.chosen.json:
            sys.stdout.reconfigure(encoding="utf-8")  # RFC 8259 §8.1
        # For people, what their terminal cannot show is a question mark.
        sys.stdout.reconfigure(errors="replace")


def _one_line(error: typer.BadParameter) -> str:
    """What was wrong with the call; a command named without its arguments gets its help instead."""
    text = error.format_message()
    if text.startswith("Usage:"):
        print(text, file=sys.stderr)
        return "a command is missing"
    return " ".join(text.split())


def _cause(error: BaseException) -> BaseException:
    """The first of our own errors in a group of tasks that failed together, else the error itself."""
    if isinstance(error, BaseExceptionGroup):
        causes = [_cause(each) for each in error.exceptions]
        return next((each for each in causes if isinstance(each, RelaisError)), causes[0])
    return error


def _leave(error: BaseException) -> int:
    """Say in one line why a command ends, as JSON too where JSON was asked for; the exit code."""
    if isinstance(error, RelaisError):
        text, code = " ".join(str(error).split()), exit_code(error)
    elif isinstance(error, OSError) and error.errno == errno.ENOSPC:
        text, code = "no space is left where this is written", 3
    elif isinstance(error, UnicodeEncodeError) and any("\udc80" <= sign <= "\udcff" for sign in error.object):
        # Python's mark for a byte that its locale could not read; file names may have such, names of ours may not.
        text, code = "a word of this call is not in the encoding of its locale (UTF-8 is expected)", 2
    else:
        log.failure("unhandled_error", error)
        text, code = f"this should not happen ({type(error).__name__}); the log line above says where", 1
    print(f"relay: {shared.visible(text)}", file=sys.stderr)
    if shared.chosen.json and not shared.shown:
        shared.emit({"ok": False, "error": text})
    return code
