"""The daemon: opens the adapters, supervises the three loops, obeys signals.

A broken adapter is tried again for ever, ever more slowly, and never stops another; its people are told once
when it breaks and once when it heals. SIGTERM lets what is on the wire end (10 s at most); SIGHUP reads the
rules and certificates again.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import uvicorn

from relay import __version__, console, log, metrics, planning, registers
from relay.clock import SystemClock
from relay.config import (
    CHAT_KINDS,
    DIRECTORY_KINDS,
    AdapterTable,
    Settings,
    complete,
    first,
    is_public,
    translate,
)
from relay.directory import Lookups
from relay.dispatch import Dispatch
from relay.errors import ConfigurationError, Deferred, RelaisError, Unavailable, Verdict
from relay.health import Health
from relay.intake import Intake
from relay.model import Why
from relay.ports import Adapter, Clock, Directory, Inbox, Limits, Listener, Sender, Tools
from relay.registers import BadLine, Duty
from relay.ruling import Ruling, counted, differing
from relay.schedule import Schedule
from relay.store import Store
from relay.vault import FileKeyRing, Vault
from relay.wording import Words
from rules import language

if TYPE_CHECKING:
    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp

    from relay.ports import Opener

STOP = 9.5  # seconds between SIGTERM and the end of the process
DRAIN = 7.5  # of these, for what is on the wire
CUT = 0.5  # for what was cut to notice
GOODBYE = 1.0  # to hang up
LOOK = 0.1  # for who looks whether a part is played to have looked
ADOPT_EVERY = 60.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0  # seconds between two tries of a broken adapter

Role = Literal["intake", "dispatch", "console"]
ROLES: tuple[Role, ...] = ("intake", "dispatch")  # that one process of a node plays at a time


def node_name() -> str:
    """Who claims rows here: one relay a host and state folder."""
    return socket.gethostname()


# ------------------------------------------------------------------------------------------------- opening


@contextlib.contextmanager
def _alone(state: Path, role: Role) -> Iterator[None]:
    """Play this part as the only process of this node; the claim dies with the process. Raises Unavailable.

    A second one would take what the first has on the wire for left over by a life that is past, and send it again.
    """
    with contextlib.ExitStack() as held:
        try:
            state.mkdir(parents=True, exist_ok=True)
            place = state / f"{role}-{node_name()}.lock"
            descriptor = os.open(place, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            held.callback(os.close, descriptor)
            if os.geteuid() == 0:  # whose relay started this time by root's hand goes on under its own user
                owner = state.stat()
                with contextlib.suppress(PermissionError):
                    os.fchown(descriptor, owner.st_uid, owner.st_gid)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # perhaps somebody who only looks (`playing`), for microseconds
                time.sleep(LOOK)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable(f"another relay on this machine does the {role} of {state} already") from None
        except OSError as error:  # a folder that cannot be written to, a file system that knows no locks
            log.get().warning("part_not_locked", step=role, errno=error.errno)
        yield


def playing(state: Path) -> frozenset[Role]:
    """The parts that a process plays now, on any node of this state folder; all, where that cannot be told."""
    found: set[Role] = set()
    for role in ROLES:
        for place in state.glob(f"{role}-*.lock"):
            try:
                with place.open("rb") as stream:
                    fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:  # played, or a file system that knows no locks
                found.add(role)
    return frozenset(found)


def key_ring(settings: Settings) -> FileKeyRing:
    """The site's keys. Raises ConfigurationError when the file is missing or readable by others."""
    if not settings.keys_file.exists():
        raise settings.error(
            ("keys", "file"), f"{settings.keys_file} does not exist; `relay init DIR` makes one"
        )
    return FileKeyRing(settings.keys_file)


async def open_store(settings: Settings, clock: Clock | None = None) -> Store:
    """The site's database, its schema brought up to date. Raises Unavailable or ConfigurationError."""
    password = settings.database_password
    try:
        return await Store.open(
            settings.database_url,
            Vault(key_ring(settings)),
            clock=clock or SystemClock(),
            node=node_name(),
            password=password.get_secret_value() if password else None,
        )
    except ConfigurationError as error:
        if error.key != "database.url":
            raise
        raise settings.error(("database", "url"), error.text) from None


def check_adapter(settings: Settings, table: AdapterTable) -> object:
    """The adapter's own Settings of one `[adapters.NAME]`. Raises ConfigurationError with file, line and key."""
    module = importlib.import_module(f"adapters.{table.kind}")
    checked = _adapter_settings(settings, table, module.Settings)
    complete(settings, table)
    return checked


def _adapter_settings(settings: Settings, table: AdapterTable, model: type) -> object:
    from pydantic import ValidationError

    from relay.config import ROUTING_KEYS

    known = model.model_fields  # type: ignore[attr-defined]
    aliases = {field.alias or name for name, field in known.items()}
    raw = {key: value for key, value in table.raw.items() if key not in ROUTING_KEYS or key in aliases}
    try:
        return model.model_validate(raw)  # type: ignore[attr-defined]
    except ValidationError as error:
        raise first(
            [
                translate(model, ("adapters", table.name), dict(item), settings.error)
                for item in error.errors()
            ]
        ) from None


def connect(settings: Settings, tools: Tools) -> dict[str, Adapter]:
    """Every adapter of the configuration, not yet connected. Chat stays off until the DPO agreed."""
    adapters: dict[str, Adapter] = {}
    for name, table in settings.adapters.items():
        checked = check_adapter(settings, table)
        if table.kind in CHAT_KINDS and settings.chat_agreed is None:
            log.get().warning("chat_is_off", adapter=name, kind=table.kind)
            continue
        module = importlib.import_module(f"adapters.{table.kind}")
        adapters[name] = module.connect(name, checked, tools)
    return adapters


def directories(settings: Settings, tools: Tools | None = None) -> dict[str, Directory]:
    """The directory adapters alone, for a command."""
    tools = tools or Tools(SystemClock(), settings.state, settings.language, settings.timezone)
    found: dict[str, Directory] = {}
    for name, table in settings.adapters.items():
        if table.kind in DIRECTORY_KINDS:
            module = importlib.import_module(f"adapters.{table.kind}")
            found[name] = module.connect(name, check_adapter(settings, table), tools)
    return found


def opener(settings: Settings) -> Opener:
    """What undoes S/MIME, its files read. Raises ConfigurationError with file, line and key."""
    from pydantic import ValidationError

    from adapters import smime

    try:
        return smime.connect("smime", smime.Settings.model_validate(dict(settings.smime)))
    except ValidationError as error:
        raise first(
            [translate(smime.Settings, ("smime",), dict(each), settings.error) for each in error.errors()]
        ) from None
    except ConfigurationError as error:
        raise settings.error(("smime", error.key), error.text) from None


async def directory_standing(store: Store, now: datetime) -> dict[str, dict[str, object]]:
    """Each source of the directory: when it was last read well, how long ago, how many people it told of."""
    return {
        name: {**each, "age_s": round(max(0.0, (now - each["as_of"]).total_seconds()))}
        for name, each in (await store.directory_sources()).items()
    }


def tokens(settings: Settings) -> planning.Tokens:
    """The signer of Message-IDs, reply addresses and buttons."""
    mail = settings.mail
    domain = mail.sender.rpartition("@")[2] if mail and mail.sender else "relais.invalid"
    return planning.Tokens(key_ring(settings).long_key("token"), domain)


def open_site(
    settings: Settings, rules: language.RuleSet | None, limits: Mapping[str, Limits] | None = None
) -> planning.Site:
    """What planning knows of the site. Rotas are read now; a line that cannot be read is logged and left out."""
    rotas = {name: _duties(settings, name) for name in settings.rotas}

    def on_duty(rota: str, at: datetime) -> str | None:
        return next((duty.rpps for duty in rotas.get(rota, ()) if duty.since <= at < duty.until), None)

    return planning.Site(
        settings=settings, rules=rules, tokens=tokens(settings), limits=limits or {}, on_duty=on_duty
    )


def _duties(settings: Settings, rota: str) -> tuple[Duty, ...]:
    file = settings.rotas[rota]
    try:
        with file.open("rb") as stream:
            rows = list(registers.rota(stream, str(file), settings.timezone))
    except OSError as error:
        raise settings.error(("rotas", rota, "file"), f"cannot be read ({type(error).__name__})") from None
    for row in rows:
        if isinstance(row, BadLine):
            log.get().warning("rota_line_left_out", file=file.name, line=row.number, code=row.code)
    return tuple(row for row in rows if not isinstance(row, BadLine))


# ------------------------------------------------------------------------------------------------ the daemon


class Daemon:
    """One running relay."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock | None = None,
        only: Role | None = None,
        pages: Sequence[BaseRoute] = (),
        opened: Callable[[], None] | None = None,
        overdue: Callable[[bool], None] | None = None,
    ) -> None:
        """`opened` is called once, when everything is open and nothing is served yet.

        `overdue` is called in a thread of its own when `STOP` seconds after the end began the process still
        lives, with whether that end was asked for: a database or a name server that answers nobody keeps
        threads that no task can cancel.
        """
        self.settings, self.only, self.pages = settings, only, pages
        self._opened, self._overdue = opened, overdue
        self.clock: Clock = clock or SystemClock()
        self.ready = asyncio.Event()
        self.readiness = console.Readiness()
        self._stopping = asyncio.Event()
        self._mounts: dict[str, object] = {}
        self._reloading: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """Begin the orderly end."""
        self._stopping.set()

    def does(self, role: Role) -> bool:
        """Whether this process plays that part."""
        return self.only in (None, role)

    async def run(self) -> None:
        """Serve until `stop`. Raises ConfigurationError or Unavailable before anything is started."""
        with contextlib.ExitStack() as parts:
            for role in ROLES:
                if self.does(role):
                    parts.enter_context(_alone(self.settings.state, role))
            self.store = await open_store(self.settings, self.clock)
            try:
                await self._open()
                if self._opened is not None:
                    self._opened()
                await self._serve()
            finally:
                await self.store.close()

    async def _open(self) -> None:
        """Everything that can refuse to start, before the first connection."""
        tools = Tools(
            clock=self.clock,
            state=self.settings.state,
            language=self.settings.language,
            timezone=self.settings.timezone,
            mount=self._mounts.__setitem__,
            remembered=self.settings.keep_facts,
        )
        adapters = connect(self.settings, tools)
        self.inboxes = {name: each for name, each in adapters.items() if isinstance(each, Inbox)}
        self.senders = {name: each for name, each in adapters.items() if isinstance(each, Sender)}
        directories = {name: each for name, each in adapters.items() if isinstance(each, Directory)}
        self.adapters = adapters
        self._limits = {name: sender.limits for name, sender in self.senders.items()}
        self.ruling = Ruling(self.settings, self.store, self.clock, self._use)
        self.site = open_site(self.settings, await self.ruling.start(), self._limits)
        self._opening = False
        source = self.current_site
        self.health = Health(self.store, source, self.clock, adapters)
        self.lookups = Lookups(self.store, directories, self.clock, self._heard)
        opening = opener(self.settings)
        self.intake = Intake(self.store, self.inboxes, source, self.clock, opening, self.lookups)
        self.dispatch = Dispatch(self.store, self.senders, source, self.clock, self.health.heard, opening)
        self.schedule = Schedule(self.store, source, self.clock)
        self.readiness.database = True
        self.readiness.rules = True
        for name in adapters:
            if self._tends(name):
                self.readiness.adapters[name] = False
                await self.store.adapter_state(name, "starting", "")

    def _tends(self, name: str) -> bool:
        """Whether this process tries that adapter by itself; another's word about it must not be written over."""
        if name in self.inboxes or name in self.lookups.directories:
            return self.does("intake")
        return self.does("dispatch")

    def current_site(self) -> planning.Site:
        """The site in force at this moment; a reload swaps it between two messages."""
        return self.site

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError, RuntimeError):
                loop.add_signal_handler(number, self.stop)
        with contextlib.suppress(NotImplementedError, RuntimeError):
            loop.add_signal_handler(signal.SIGHUP, self._reload)
        server = await self._listen() if self.does("console") else None
        tasks = {asyncio.create_task(self._stopped(), name="stop")}
        try:
            if self.does("intake"):
                await self._open_doors()
            tasks |= {asyncio.create_task(work, name=name) for name, work in self._work(server)}
            log.get().info("ready", version=__version__, mode=self.settings.mode, port=self.port)
            self.readiness.listeners = True
            self.ready.set()
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                # None of the loops may end by itself: what ended it is a defect or a dead disk.
                task.result()
        finally:
            await self._end(tasks, server)

    async def _open_doors(self) -> None:
        """Whoever hears that we are ready may connect at once; what cannot open is tried again by its own loop."""
        for inbox in self.inboxes.values():
            if isinstance(inbox, Listener):
                with contextlib.suppress(Verdict):
                    await inbox.listen()

    async def _stopped(self) -> None:
        await self._stopping.wait()

    def _work(self, server: uvicorn.Server | None) -> list[tuple[str, Coroutine[object, object, None]]]:
        work: list[tuple[str, Coroutine[object, object, None]]] = [
            ("rules", self.ruling.run(self.current_site))
        ]
        if self.does("intake") or self.does("dispatch"):
            work.append(("health", self.health.run()))
        if self.does("intake"):
            work.append(("intake", self._intake()))
        if self.does("dispatch"):
            work.append(("dispatch", self._dispatch()))
            self.schedule.every("reclaim", self.dispatch.reclaim, minute="*")
            if self.lookups.directories:
                self.schedule.every("directory", self.lookups.refresh_in_use, hour=4, minute=10)
            caught_up = self.intake.caught_up if self.does("intake") else None
            work.append(("schedule", self.schedule.run(caught_up)))
        if server is not None:
            work.append(("console", server.serve()))
        return work

    # --------------------------------------------------------------------------------------------- the loops

    async def _intake(self) -> None:
        """Decide what an earlier life accepted, then watch every inbox."""
        await self.intake.catch_up()
        async with asyncio.TaskGroup() as group:
            for name, directory in self.lookups.directories.items():
                group.create_task(self._look_after(name, directory), name=f"probe:{name}")
            for name in self.inboxes:
                group.create_task(self._supervise(name), name=f"watch:{name}")
            group.create_task(self._adopt(), name="adopt")

    async def _adopt(self) -> None:
        """Look again and again for what a node that is no more accepted and did not decide."""
        while True:
            await self.clock.sleep(ADOPT_EVERY)
            try:
                await self.intake.adopt()
            except RelaisError:
                raise
            except Exception as error:  # noqa: BLE001 - a defect over another's letter must not stop ours
                log.failure("arrivals_not_decided", error)

    async def _dispatch(self) -> None:
        """Settle what an earlier life left half sent, then serve every sender."""
        await self.dispatch.recover()
        for name in await self.dispatch.unserved():
            await self.health.down(name, Deferred(Why.NO_CHANNEL))
        async with asyncio.TaskGroup() as group:
            for name, sender in self.senders.items():
                if name not in self.inboxes:
                    group.create_task(self._probe(name, sender), name=f"probe:{name}")
                group.create_task(self.dispatch.run(name), name=f"send:{name}")
            group.create_task(asyncio.Event().wait())

    async def _probe(self, name: str, adapter: Adapter) -> None:
        """Try an adapter once at the start, and again while it is away, so that its state is known before it is needed."""
        pause = FIRST_PAUSE
        before: Verdict | None = None
        while True:
            try:
                await adapter.probe()
            except Verdict as verdict:
                await self._heard(name, verdict)
                await self.clock.sleep(max(pause, _locked_out(before, verdict)))
                pause, before = min(LONGEST_PAUSE, pause * 2), verdict
            else:
                await self._heard(name, None)
                return

    async def _look_after(self, name: str, directory: Directory) -> None:
        """Try a directory again and again: letters may not ask for hours, and its state must be told all the same."""
        while True:
            await self._probe(name, directory)
            await self.clock.sleep(LONGEST_PAUSE)

    async def _supervise(self, name: str) -> None:
        """Watch one inbox for ever; its failures pause it, never the others."""
        pause = FIRST_PAUSE
        before: Verdict | None = None
        while True:
            began = self.clock.monotonic()
            wait = 0.0
            try:
                await self.inboxes[name].probe()
                await self._heard(name, None)
                before = None
                await self.intake.watch(name)
            except Verdict as verdict:
                await self._heard(name, verdict)
                wait, before = _locked_out(before, verdict), verdict
            except RelaisError:
                raise
            except Exception as error:  # noqa: BLE001 - an adapter's defect is this adapter's trouble, never the others'
                log.failure("adapter_failed", error, adapter=name)
                await self._heard(name, Deferred(Why.PROTOCOL))
            if self.clock.monotonic() - began > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            await self.clock.sleep(max(pause, wait))
            pause = min(LONGEST_PAUSE, pause * 2)

    async def _heard(self, name: str, verdict: Verdict | None) -> None:
        self.readiness.adapters[name] = True
        await self.health.heard(name, verdict)

    # ---------------------------------------------------------------------------------------- console, signals

    async def _listen(self) -> uvicorn.Server:
        """Bind the console's address now, so that a taken port is an error before anything else starts."""
        host, port = self.settings.console
        try:
            found = socket.getaddrinfo(host, port, _family(host), socket.SOCK_STREAM)
            if any(is_public(str(place[0])) for *_, place in found):
                raise self.settings.error(("console", "listen"), f"« {host} » stands for a public address")
            listener = socket.create_server((host, port), family=_family(host))
        except OSError as error:
            raise Unavailable(
                f"cannot listen on {host}:{port} ({os.strerror(error.errno or 0)}); another relay may run, or another port is wanted ([console] listen, or relay demo --port)"
            ) from None
        self._listener = listener
        self.port = listener.getsockname()[1]
        application = console.app(
            self.readiness,
            listen=(host, self.port),
            channels=cast("Mapping[str, ASGIApp]", self._mounts),
            pages=self.pages,
            gauges=self._gauges,
            warning=self._warning,
            name=self.settings.name,
            language=self.settings.language,
        )
        configuration = uvicorn.Config(
            application, log_config=None, access_log=False, lifespan="off", server_header=False,
            timeout_graceful_shutdown=2,
        )  # fmt: skip
        server = _Server(configuration)
        server.sockets = [listener]
        return server

    async def _gauges(self) -> None:
        """What only the store counts, read when somebody asks for metrics."""
        with contextlib.suppress(Unavailable):
            status = await self.store.status()
            metrics.standing(status["threads"], status["oldest_waiting_s"])
            for name, said in status["adapters"].items():
                if name in self.adapters and not self._tends(name):
                    metrics.adapter_up(name, said["state"] == "up")
            metrics.rules(counted(self.site.rules, await self.store.rule_counts()))

    async def _warning(self) -> str:
        """What the console's page says above all: that the rule file is not what is in force."""
        words = Words(self.settings.language, self.settings.timezone)
        with contextlib.suppress(Unavailable):
            return await differing(self.settings, self.store, words)
        return ""

    port: int | None = None
    _opening = True  # there is no site yet

    def _reload(self) -> None:
        """SIGHUP: rules and certificates again, between two messages."""
        reloading = asyncio.get_running_loop().create_task(self.reload(), name="reload")
        self._reloading.add(reloading)
        reloading.add_done_callback(self._reloading.discard)

    async def reload(self) -> None:
        """Read the rules and the rotas again; the set in force stays when the file is bad."""
        await self.ruling.reload()
        self._use(self.ruling.rules)
        await self.ruling.tell(self.site)

    def _use(self, rules: language.RuleSet | None) -> None:
        """Other rules are in force: one reference, swapped between two messages."""
        if self._opening:
            return
        try:
            self.site = open_site(self.settings, rules, self._limits)
        except ConfigurationError as error:
            log.get().error("reload_refused", file=error.file, line=error.line, key=error.key)
            self.site = replace(self.site, rules=rules)

    async def _end(self, tasks: set[asyncio.Task[None]], server: uvicorn.Server | None) -> None:
        """Let what is on the wire end, then cut."""
        log.get().info("stopping")
        if self._overdue is not None:
            watch = threading.Timer(STOP, self._overdue, (self._stopping.is_set(),))
            watch.daemon = True
            watch.start()
        tasks = tasks | self._reloading
        for task in tasks:
            if task.get_name() in ("intake", "schedule"):
                task.cancel()
        if server is not None:
            server.should_exit = True
        await self.dispatch.drain(DRAIN)
        pages = {task for task in tasks if task.get_name() == "console"}
        for task in tasks - pages:
            task.cancel()
        # Who waits for a silent server even now, for instance to acknowledge, is cancelled a second time.
        _, late = await asyncio.wait(tasks - pages, timeout=CUT)
        for task in late:
            task.cancel()
        await asyncio.gather(*(tasks - pages), return_exceptions=True)
        await self.lookups.close()
        hanging_up = {asyncio.create_task(_hang_up(each)) for each in self.adapters.values()}
        # A closed chat lets its waiting browsers go; only then can the server end without cutting them off.
        await asyncio.wait(hanging_up | pages, timeout=GOODBYE)
        for task in hanging_up | pages:
            task.cancel()
        await asyncio.gather(*hanging_up, *pages, return_exceptions=True)
        with contextlib.suppress(RelaisError):  # a database that went away is why we end, perhaps
            for name in self.health.tried():
                await self.store.adapter_state(name, "down", "stopped")
        log.get().info("stopped")


def _locked_out(before: Verdict | None, verdict: Verdict) -> float:
    """Seconds to wait where a login was refused for the second time running: operators lock accounts that hammer.

    Once may be a server that has just started, and is asked again soon.
    """
    if before is None or not before.why == verdict.why == Why.AUTHENTICATION:
        return 0.0
    return verdict.retry_after or 0.0


async def _hang_up(adapter: Adapter) -> None:
    with contextlib.suppress(Verdict, OSError):
        await adapter.close()


class _Server(uvicorn.Server):
    """uvicorn inside our loop: the sockets are ours, and so are the signals."""

    sockets: list[socket.socket]

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        await super().serve(sockets or self.sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
