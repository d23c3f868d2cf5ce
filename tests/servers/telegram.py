"""A double of the Telegram Bot API with its real semantics, in a thread of its own.

No real server can be had: `telegram-bot-api` needs an account. What is kept from the real one:
update offsets (an update comes again until a higher offset is asked for), long polls, one poller at
a time, limits (4096 characters, 64 bytes of button data), refusals of unchanged edits. Every call
stands in `calls`, never removed: it is the tests' only truth about what left.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.servers import LOOPBACK, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Json = dict[str, Any]  # Any: JSON, whatever the program under test sends


@dataclass(frozen=True)
class Call:
    """One request as it came in; `at` is time.monotonic()."""

    method: str
    parameters: Json
    at: float
    answered: bool = True


@dataclass
class Fault:
    """What the next calls of a method get instead of a good answer.

    `status` 429 carries `retry_after`; 400 with `migrate_to` is a chat that became a supergroup;
    `drop` closes the connection: "before" the effect or "after" it, which no caller can tell apart.
    """

    method: str
    times: int = 1
    status: int = 0
    description: str = "Bad Request: test"
    retry_after: float = 0
    migrate_to: int = 0
    drop: str = ""
    html: bool = False  # a proxy's error page instead of JSON
    garble: str = ""  # after the effect: "short" cuts the JSON, "false" says 200 and `ok: false`
    delay: float = 0  # seconds before the answer, after the effect


class Refused(Exception):
    def __init__(self, status: int, description: str, **parameters: object) -> None:
        super().__init__(description)
        self.status, self.description, self.parameters = status, description, parameters


class Garbled(Exception):
    """Answer 200, and this."""


class Dropped(Exception):
    """Close the connection without an answer."""


@dataclass
class Telegram:
    """The double; `base_url` is its root, as in the configuration."""

    token: str = "123456:TEST-token"
    port: int = field(default_factory=free_port)
    calls: list[Call] = field(default_factory=list)
    messages: dict[tuple[int, int], Json] = field(default_factory=dict)
    deleted: list[tuple[int, int]] = field(default_factory=list)
    acknowledged: int = 0  # the highest offset asked for

    def __post_init__(self) -> None:
        self._updates: list[Json] = []
        self._faults: list[Fault] = []
        self._message_ids, self._update_ids = itertools.count(1), itertools.count(1000)
        self._blocked: set[int] = set()
        self._changed = threading.Condition()
        self._poller: asyncio.Future[None] | None = None

    @property
    def base_url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def start(self) -> Telegram:
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()

        async def serve() -> None:
            self._stop, self._arrived = asyncio.Event(), asyncio.Event()
            self._connections: set[asyncio.Task[None]] = set()
            server = await asyncio.start_server(self._connection, LOOPBACK, self.port)
            ready.set()
            await self._stop.wait()
            server.close()
            for connection in list(self._connections):
                connection.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)
            await server.wait_closed()

        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(serve(),), daemon=True)
        self._thread.start()
        ready.wait(10)
        return self

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    def reset(self) -> None:
        """Forget everything between two tests, ids aside: they never come again, as with the real one."""

        def forget() -> None:
            self.calls.clear()
            self.messages.clear()
            self.deleted.clear()
            self._updates.clear()
            self._faults.clear()
            self._blocked.clear()

        self._do(forget)

    # What a person does

    def say(self, chat: int, text: str, user: int = 0, name: str = "Dr Martin") -> int:
        """A person types a text; return the update's id. A negative chat is a group."""

        def act() -> int:
            message = {**self._new_message(chat), "from": _user(user or chat, name), "text": text}
            if text.startswith("/"):
                length = len(text.split(maxsplit=1)[0])
                message["entities"] = [{"type": "bot_command", "offset": 0, "length": length}]
            self.messages[chat, message["message_id"]] = message
            return self._update(message=message)

        return self._do(act)

    def press(
        self, chat: int, message_id: int, button: str | int = 0, user: int = 0, name: str = "Dr Martin"
    ) -> str:
        """A person presses a button, by its text or its position; return the callback query's id."""

        def act() -> str:
            message = self.messages[chat, message_id]
            buttons = [one for row in message["reply_markup"]["inline_keyboard"] for one in row]
            found = (
                buttons[button]
                if isinstance(button, int)
                else next(b for b in buttons if b["text"] == button)
            )
            query = {
                "id": str(next(self._update_ids)),
                "from": _user(user or chat, name),
                "message": message,
                "chat_instance": "1",
                "data": found["callback_data"],
            }
            self._update(callback_query=query)
            return str(query["id"])

        return self._do(act)

    def push(self, **content: Any) -> int:  # Any: any update of the Bot API
        """Any other update, raw."""
        return self._do(lambda: self._update(**content))

    def block(self, chat: int) -> None:
        """The person blocks the bot: every later call to that chat is Forbidden."""
        self._do(lambda: self._blocked.add(chat))

    # What the network and the server do

    def fault(self, method: str, **what: Any) -> None:  # Any: the fields of Fault
        """Let the next call(s) of a method fail; see Fault."""
        self._do(lambda: self._faults.append(Fault(method, **what)))

    # What happened

    def made(self, method: str) -> list[Json]:
        """Return the parameters of every call of a method so far, oldest first."""
        return [call.parameters for call in self.calls if call.method == method]

    def wait(self, method: str, count: int = 1, seconds: float = 10) -> list[Json]:
        """Wait until a method was called so often; return those calls."""
        self.wait_for(lambda: len(self.made(method)) >= count, seconds, f"{method} called {count} times")
        return self.made(method)

    def wait_for(self, condition: Callable[[], bool], seconds: float = 10, what: str = "condition") -> None:
        """Wait, asking again after every call, until the condition holds."""
        with self._changed:
            assert self._changed.wait_for(condition, seconds), f"no {what} within {seconds} s"

    # The server

    def _do(self, act: Callable[[], Any]) -> Any:  # Any: what the act returns
        async def run() -> object:
            result = act()
            with self._changed:
                self._changed.notify_all()
            return result

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                request, *lines = head.split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                status, answer, kind = await self._answer(request.split()[1], headers, body)
                writer.write(
                    f"HTTP/1.1 {status} .\r\nContent-Type: {kind}\r\nContent-Length: {len(answer)}\r\n\r\n".encode()
                    + answer
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError, Dropped):
            pass  # asyncio's streams complain of a cancelled connection
        finally:
            self._connections.discard(task)
            with contextlib.suppress(RuntimeError):
                writer.transport.abort()

    async def _answer(self, target: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes, str]:
        address = urllib.parse.urlsplit(target)
        parameters = _parameters(address.query, headers.get("content-type", ""), body)
        bot, _, method = urllib.parse.unquote(address.path).removeprefix("/").partition("/")
        try:
            if bot != f"bot{self.token}":
                raise Refused(401, "Unauthorized")
            result = await self._call(method, parameters)
        except Garbled as garbled:
            return 200, str(garbled).encode(), "application/json"
        except Refused as refused:
            answer: Json = {"ok": False, "error_code": refused.status, "description": refused.description}
            if refused.parameters:
                answer["parameters"] = refused.parameters
            if refused.description.startswith("<"):
                return refused.status, refused.description.encode(), "text/html"
            return refused.status, json.dumps(answer).encode(), "application/json"
        return 200, json.dumps({"ok": True, "result": result}).encode(), "application/json"

    async def _call(self, method: str, parameters: Json) -> object:
        fault = next((one for one in self._faults if one.method == method and one.times > 0), None)
        if fault is not None:
            fault.times -= 1
        with self._changed:
            self.calls.append(Call(method, parameters, time.monotonic(), answered=fault is None))
            self._changed.notify_all()
        try:
            if fault is not None and fault.drop == "before":
                raise Dropped
            if fault is not None and fault.status:
                if fault.status == 429:
                    description = f"Too Many Requests: retry after {fault.retry_after}"
                    raise Refused(429, description, retry_after=fault.retry_after)
                if fault.migrate_to:
                    description = "Bad Request: group chat was upgraded to a supergroup chat"
                    raise Refused(400, description, migrate_to_chat_id=fault.migrate_to)
                raise Refused(fault.status, "<html>Bad Gateway</html>" if fault.html else fault.description)
            answer = getattr(self, f"_on_{method.lower()}", None)
            if answer is None:
                raise Refused(404, "Not Found: method not found")
            result = await answer(parameters)
            if fault is not None and fault.delay:
                await asyncio.sleep(fault.delay)
            if fault is not None and fault.drop == "after":
                raise Dropped
            if fault is not None and fault.garble:
                raise Garbled('{"ok": true, "res' if fault.garble == "short" else '{"ok": false}')
            return result
        finally:
            with self._changed:
                self._changed.notify_all()

    def _update(self, **content: Any) -> int:  # Any: any update of the Bot API
        update_id = next(self._update_ids)
        self._updates.append({"update_id": update_id, **content})
        self._arrived.set()
        return update_id

    def _new_message(self, chat: int) -> Json:
        kind = (
            {"type": "private", "first_name": "Dr"}
            if chat > 0
            else {"type": "supergroup", "title": "Cabinet"}
        )
        return {"message_id": next(self._message_ids), "date": int(time.time()), "chat": {"id": chat, **kind}}

    def _existing(self, parameters: Json, what: str) -> Json:
        try:
            return self.messages[int(parameters["chat_id"]), int(parameters["message_id"])]
        except KeyError:
            raise Refused(400, f"Bad Request: message to {what} not found") from None

    # Methods of the Bot API

    async def _on_getme(self, _parameters: Json) -> Json:
        capabilities = ("can_join_groups", "can_read_all_group_messages", "supports_inline_queries")
        bot_id = int(self.token.partition(":")[0])
        names = {"first_name": "Relais", "username": "relais_bot"}
        return {"id": bot_id, "is_bot": True, **names, **dict.fromkeys(capabilities, False)}

    async def _on_getupdates(self, parameters: Json) -> list[Json]:
        if self._poller is not None and not self._poller.done():
            # The older of two pollers is thrown out.
            self._poller.set_exception(
                Refused(
                    409, "Conflict: terminated by other getUpdates request; only one bot instance may run"
                )
            )
        mine = self._poller = asyncio.get_running_loop().create_future()
        offset = int(parameters.get("offset", 0))
        self.acknowledged = max(self.acknowledged, offset)
        self._updates = [update for update in self._updates if update["update_id"] >= offset]
        end = time.monotonic() + float(parameters.get("timeout", 0))
        while not self._updates and (left := end - time.monotonic()) > 0:
            self._arrived.clear()
            arrived = asyncio.ensure_future(self._arrived.wait())
            try:
                await asyncio.wait({arrived, mine}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            finally:  # a connection that the test ends leaves nothing that waits for ever
                arrived.cancel()
                await asyncio.gather(arrived, return_exceptions=True)
            if mine.done():
                mine.result()
        if not mine.done():
            mine.set_result(None)
        return self._updates[: int(parameters.get("limit", 100))]

    async def _on_sendmessage(self, parameters: Json) -> Json:
        chat = int(parameters["chat_id"])
        if chat in self._blocked:
            raise Refused(403, "Forbidden: bot was blocked by the user")
        _check(parameters)
        message = {**self._new_message(chat), "from": _user(1, "Relais"), **_kept(parameters)}
        if "reply_parameters" in parameters:
            original = self.messages.get((chat, int(parameters["reply_parameters"]["message_id"])))
            if original is None and not parameters["reply_parameters"].get("allow_sending_without_reply"):
                raise Refused(400, "Bad Request: message to be replied not found")
            if original is not None:
                message["reply_to_message"] = original
        self.messages[chat, message["message_id"]] = message
        return message

    async def _on_editmessagetext(self, parameters: Json) -> Json:
        message = self._existing(parameters, "edit")
        _check(parameters)
        changed = {key: value for key, value in message.items() if key != "reply_markup"} | _kept(parameters)
        if changed == message:
            raise Refused(400, "Bad Request: message is not modified")
        message.clear()
        message.update(changed)
        return message

    _on_editmessagereplymarkup = _on_editmessagetext

    async def _on_deletemessage(self, parameters: Json) -> bool:
        self._existing(parameters, "delete")
        key = int(parameters["chat_id"]), int(parameters["message_id"])
        del self.messages[key]
        self.deleted.append(key)
        return True

    async def _on_answercallbackquery(self, parameters: Json) -> bool:
        if len(parameters.get("text", "")) > 200:
            raise Refused(400, "Bad Request: MESSAGE_TOO_LONG")
        return True

    async def _on_deletewebhook(self, _parameters: Json) -> bool:
        return True

    async def _on_setmycommands(self, _parameters: Json) -> bool:
        return True

    async def _on_leavechat(self, _parameters: Json) -> bool:
        return True


def _check(parameters: Json) -> None:
    text = parameters.get("text")
    if text == "":
        raise Refused(400, "Bad Request: message text is empty")
    if text is not None and len(text) > 4096:
        raise Refused(400, "Bad Request: message is too long")
    for button in _buttons(parameters):
        if len(button.get("callback_data", "").encode()) > 64:
            raise Refused(400, "Bad Request: BUTTON_DATA_INVALID")


def _buttons(parameters: Json) -> Iterator[Json]:
    for row in parameters.get("reply_markup", {}).get("inline_keyboard", []):
        yield from row


def _kept(parameters: Json) -> Json:
    kept = {key: parameters[key] for key in ("text",) if key in parameters}
    if any(_buttons(parameters)):
        kept["reply_markup"] = parameters["reply_markup"]
    return kept


def _user(number: int, name: str) -> Json:
    return {"id": number, "is_bot": False, "first_name": name, "language_code": "fr"}


def _parameters(query: str, content_type: str, body: bytes) -> Json:
    found: Json = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
    if content_type.startswith("application/json"):
        found |= json.loads(body)
    else:
        found |= dict(urllib.parse.parse_qsl(body.decode(), keep_blank_values=True))
    for key in ("reply_markup", "reply_parameters", "link_preview_options", "allowed_updates"):
        if isinstance(found.get(key), str):
            found[key] = json.loads(found[key])
    return found
