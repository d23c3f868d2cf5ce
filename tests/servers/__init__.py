"""Real servers for the tests: each starts on free loopback ports in a folder of its own and leaves nothing behind.

A server that cannot be had here raises `Unavailable` with the reason; conftest.py turns that into a
skip by name, or into a failure where `CI=true`.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

LOOPBACK = "127.0.0.1"


class Unavailable(Exception):
    """This server cannot be started on this machine; the text says why and what to do."""


PORTS = range(10_000, 32_000)  # below the kernel's ephemeral range, where any outgoing connection may sit
STRETCH = 500


@functools.cache
def _stretch() -> Iterator[int]:
    """Ports that are this process's alone for as long as it lives; other workers take other ones.

    A port found free is bound a while later by another program, and may be bound again after a restart.
    """
    for first in range(PORTS.start, PORTS.stop, STRETCH):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0relais-test-ports-{first}")
        except OSError:
            claim.close()
        else:
            atexit.register(claim.close)
            return itertools.cycle(range(first, first + STRETCH))
    raise Unavailable("every stretch of loopback ports is taken: too many tests at once")


def free_port() -> int:
    """Return a loopback TCP port nobody listens on; no other process of tests is given it."""
    for port in itertools.islice(_stretch(), STRETCH):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise Unavailable("no free loopback port left in this process's stretch")


def new_folder(name: str) -> Path:
    """Make a temporary folder which unprivileged server processes can enter (pytest's own are 0700)."""
    folder = Path(tempfile.mkdtemp(prefix=f"relais-{name}-"))
    folder.chmod(0o755)
    return folder


def program(name: str, package: str, *places: str) -> str:
    """Return the path of an installed program, or raise Unavailable naming the Debian package."""
    found = shutil.which(
        name, path=os.pathsep.join([*places, os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    )
    if found is None:
        raise Unavailable(
            f"{name} is not installed: apt-get install {package} (scripts/test-servers does it)"
        )
    return found


def need_root(what: str) -> None:
    """Raise Unavailable unless we are root: these servers change user by themselves."""
    if os.geteuid() != 0:
        raise Unavailable(f"{what} has to be started by root")


def spawn(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a server in the foreground, in its own process group; it ends when we die."""
    death = [program("setpriv", "util-linux"), "--pdeathsig", "TERM", "--"]
    with log.open("ab") as output:
        return subprocess.Popen(
            [*death, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            start_new_session=True,
        )


def stop(process: subprocess.Popen[bytes], how: int = signal.SIGTERM) -> None:
    """Stop the server and every process of its group, and wait for it."""
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
    # Children that outlive their master: Dovecot's imap-login goes on proxying open TLS connections.
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def wait_listening(port: int, process: subprocess.Popen[bytes], log: Path, seconds: float = 20) -> None:
    """Wait until the port takes connections; a server that died first raises Unavailable with its log."""

    def listening() -> bool:
        if process.poll() is not None:
            raise Unavailable(f"{process.args!r} ended with {process.returncode}: {_tail(log)}")
        try:
            socket.create_connection((LOOPBACK, port), 0.3).close()
        except OSError:
            return False
        return True

    if not until(listening, seconds):
        raise Unavailable(f"{process.args!r} does not listen on {port} after {seconds:.0f} s: {_tail(log)}")


def until(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Ask again and again until the condition holds; return whether it did in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:] if log.exists() else "(no log)"
