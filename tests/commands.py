"""Commands run as a shell runs them, or in a fork of the tests' own process, which spares them the imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # Any: whatever the command answers
        return json.loads(self.out)


def in_a_process(line: list[str]) -> Done:
    """The command as a shell runs it."""
    made = subprocess.run(
        [sys.executable, "-m", "relay", *line], capture_output=True, text=True, check=False, cwd=ROOT,
        timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return Done(made.returncode, made.stdout, made.stderr)


def in_a_fork(line: list[str], folder: Path) -> Done:
    """The same without the second that the imports take."""
    from relay import cli

    out, err = folder / "stdout", folder / "stderr"
    process = os.fork()
    if process == 0:
        code: object = 70
        try:
            for number, file in ((1, out), (2, err)):
                os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            cli.main(line)
        except SystemExit as end:
            code = end.code
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(code if isinstance(code, int) else 71)
    _, status = os.waitpid(process, 0)
    return Done(os.waitstatus_to_exitcode(status), out.read_text(), err.read_text())
