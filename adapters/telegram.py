"""A Telegram bot: alerts with buttons out, presses and commands in. Nothing confidential ever passes here.

python-telegram-bot speaks the Bot API. Its Updater is not used, as it confirms updates before anything is
stored; the loop below asks again and again for the same updates until our commit is known.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from datetime import UTC
from typing import Literal
from urllib.parse import urlencode, urlsplit

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from telegram import (
    Bot,
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    LinkPreviewOptions,
    Message,
    ReplyParameters,
    Update,
)
from telegram.error import (
    BadRequest,
    ChatMigrated,
    Conflict,
    Forbidden,
    InvalidToken,
    NetworkError,
    TelegramError,
)
from telegram.request import BaseRequest, RequestData

from relay import log
from relay.errors import Deferred, Rejected, Uncertain, Verdict
from relay.model import Batch, ChatMessage, Delivery, Envelope, Press, Receipt, Typed, Why, envelope_id
from relay.ports import Clock, Limits, Tools
from relay.tls import Trust, is_loopback

# What speaks HTTP may print URLs, and with them the bot's token.
for _library in ("aiohttp", "telegram"):
    logging.getLogger(_library).setLevel(logging.WARNING)

POLL_SECONDS = 25  # of one long poll
CONNECT_SECONDS, ANSWER_SECONDS = 10.0, 20.0
PLACE_SECONDS = 60.0  # until a connection is free and open
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
OURS_TO_MEND_SECONDS = 300.0  # a revoked token
OTHER_POLLER_SECONDS = 60.0
AT_A_TIME = 8  # requests under way: at 50 ms each five times the 30 a second a bot may send
UPDATES_AT_A_TIME = 100  # the Bot API's own limit
TEXT_LIMIT, POPUP_LIMIT, BUTTON_LIMIT = 4096, 200, 64  # characters, characters, bytes

# What may be typed: a command, with dates or with the code of an invitation. Everything else is prose.
_COMMAND = re.compile(
    r"(/[a-zé]{1,16})(?:@\w{1,64})?((?: +\d{1,2}/\d{1,2}(?:/\d{4})?){0,2}|(?<=/start) +[A-Za-z0-9_-]{8,64})\s*"
)


class Rate(BaseModel):
    """Messages a second; 0 = no limit."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    total: float = Field(default=30, ge=0)
    chat: float = Field(default=1, ge=0)


class Settings(BaseModel):
    """`[adapters.NAME]` of kind telegram."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    token: SecretStr
    base_url: str = "https://api.telegram.org"
    rate: Rate = Rate()
    confidential: Literal[False] = False  # its bots have no end-to-end encryption

    @field_validator("base_url")
    @classmethod
    def _protected(cls, value: str) -> str:
        address = urlsplit(value)
        if address.scheme == "http" and is_loopback(address.hostname or ""):
            return value.rstrip("/")
        if address.scheme != "https" or not address.hostname:
            raise ValueError("write https://…; plain http is for loopback addresses only")
        return value.rstrip("/")

    @field_validator("token")
    @classmethod
    def _token(cls, value: SecretStr) -> SecretStr:
        if not re.fullmatch(r"\d+:[A-Za-z0-9_-]+", value.get_secret_value()):
            raise ValueError("is no bot token (digits, a colon, letters)")
        return value


def connect(name: str, settings: Settings, tools: Tools) -> Telegram:
    """Make the adapter; the network is touched by its methods only."""
    return Telegram(name, settings, tools)


class Telegram:
    """One bot."""

    kind = "telegram"

    def __init__(self, name: str, settings: Settings, tools: Tools) -> None:
        token = settings.token.get_secret_value()
        self.name = name
        self.account = f"telegram:{token.partition(':')[0]}"
        self.limits = Limits(max_bytes=TEXT_LIMIT, buttons=True, edits=True, deletes=True, parallel=AT_A_TIME)
        self._clock = tools.clock
        self._pace = _Pace(tools.clock, settings.rate)
        local = is_loopback(urlsplit(settings.base_url).hostname or "")
        self._requests = [_Request(size, trust_env=not local) for size in (1, AT_A_TIME)]
        self._bot = Bot(
            token,
            base_url=f"{settings.base_url}/bot",
            base_file_url=f"{settings.base_url}/file/bot",
            get_updates_request=self._requests[0],
            request=self._requests[1],
        )
        self._places = asyncio.Semaphore(AT_A_TIME)
        self._acknowledged = -1  # the highest update whose commit is known
        self._news = asyncio.Event()  # something was acknowledged
        self._prose: dict[
            str, tuple[str, str]
        ] = {}  # ref → (chat, message) to delete once it is answered for

    async def probe(self) -> None:
        """Ask who we are. Raises Deferred or Rejected."""
        try:
            await self._bot.get_me()
        except TelegramError as error:
            raise _translate(error, repeatable=True) from None

    async def close(self) -> None:
        """Close the connections."""
        for request in self._requests:
            await request.shutdown()

    # In

    async def watch(self, since: str | None) -> AsyncIterator[Batch]:
        """Yield presses and commands for ever; see `relay.ports.Inbox.watch`.

        The server keeps what was never confirmed, so the cursor is not needed to go on: after a week
        without updates their numbers start anew, and an old cursor would hide the new ones.
        """
        confirm: int | None = None
        try:
            # A webhook set by somebody else would swallow every press.
            await self._bot.delete_webhook(drop_pending_updates=False)
            while True:
                updates = await self._bot.get_updates(
                    offset=confirm,
                    limit=UPDATES_AT_A_TIME,
                    timeout=POLL_SECONDS,
                    allowed_updates=[Update.MESSAGE, Update.CALLBACK_QUERY],
                )
                confirm = None
                if not updates:
                    continue
                last = updates[-1].update_id
                self._acknowledged = -1
                envelopes = tuple(found for update in updates if (found := self._envelope(update)))
                yield Batch(self.account, envelopes, str(last))
                # Asking on without an offset would bring the same ones at once, and with one confirm them.
                while envelopes and self._acknowledged < int(envelopes[-1].ref):
                    self._news.clear()
                    await self._news.wait()
                confirm = last + 1
        except TelegramError as error:
            raise _translate(error, repeatable=True) from None

    async def acknowledge(self, envelopes: Sequence[Envelope]) -> None:
        """Let `watch` confirm these updates, and delete the prose among them. Deleting is best effort."""
        for envelope in envelopes:
            self._acknowledged = max(self._acknowledged, int(envelope.ref))
        self._news.set()
        for envelope in envelopes:
            if (typed := self._prose.pop(envelope.ref, None)) is not None:
                with contextlib.suppress(TelegramError):
                    await self._bot.delete_message(typed[0], int(typed[1]))

    def _envelope(self, update: Update) -> Envelope | None:
        event: Press | Typed
        received = self._clock.now()
        if (query := update.callback_query) is not None:
            if query.message is None or query.data is None:
                return None
            event = Press(
                channel=self.kind,
                sender=str(query.from_user.id),
                chat=str(query.message.chat.id),
                message=str(query.message.message_id),
                nonce=query.data,
                callback=query.id,
            )
        elif (message := update.message) is not None and message.from_user is not None:
            if message.from_user.is_bot or _is_service(message):
                return None
            received = message.date.astimezone(UTC)
            command = _COMMAND.fullmatch(message.text or "")
            text = command[1] + (command[2] or "") if command else None
            chat, number = str(message.chat.id), str(message.message_id)
            event = Typed(self.kind, str(message.from_user.id), chat, number, text)
            if text is None:
                # Prose, a picture, a voice: neither kept nor passed on, and not left standing there.
                self._prose[str(update.update_id)] = (chat, number)
        else:
            return None
        ref = str(update.update_id)
        return Envelope(
            id=envelope_id(self.account, ref),
            adapter=self.name,
            account=self.account,
            ref=ref,
            received_at=received,
            raw=json.dumps(asdict(event), ensure_ascii=False, sort_keys=True).encode(),
            event=event,
        )

    # Out

    async def send(self, delivery: Delivery) -> Receipt:
        """Show one message, or change one; see `relay.ports.Sender.send`."""
        message = delivery.message
        if not isinstance(message, ChatMessage):
            raise Rejected(Why.PROTOCOL, detail="no chat message")
        if len(message.text) > TEXT_LIMIT:
            raise Rejected(Why.MESSAGE_TOO_LARGE)
        await self._pace.turn(message.chat)
        async with self._places:
            try:
                return Receipt(delivery.id, await self._show(message))
            except TelegramError as error:
                verdict = _translate(error, repeatable=message.edits is not None)
                if verdict.why == Why.RATE_LIMITED and verdict.retry_after is not None:
                    self._pace.hold(message.chat, verdict.retry_after)
                raise verdict from None

    async def send_many(self, deliveries: Sequence[Delivery]) -> Sequence[Receipt | Verdict]:
        """Show messages in the order given for each chat, at the allowed pace; never raises a verdict."""

        async def one(delivery: Delivery) -> Receipt | Verdict:
            try:
                return await self.send(delivery)
            except Verdict as verdict:
                return verdict

        return await asyncio.gather(*map(one, deliveries))

    async def answer(self, press: Press, text: str, *, alert: bool = False) -> None:
        """Answer a press with a pop-up. Best effort: a press older than a minute cannot be answered."""
        with contextlib.suppress(TelegramError):
            await self._bot.answer_callback_query(press.callback, text=text[:POPUP_LIMIT], show_alert=alert)

    async def reply(self, message: ChatMessage) -> None:
        """Show something that need not survive. Best effort."""
        with contextlib.suppress(TelegramError, Verdict):
            await self._pace.turn(message.chat)
            await self._show(message)

    async def _show(self, message: ChatMessage) -> str:
        """Send or edit, and return Telegram's id of the message."""
        keyboard = _keyboard(message)
        if message.edits is not None:
            try:
                await self._bot.edit_message_text(
                    message.text,
                    chat_id=message.chat,
                    message_id=int(message.edits),
                    reply_markup=keyboard,
                    link_preview_options=LinkPreviewOptions(is_disabled=True),
                )
            except BadRequest as error:
                if "not modified" not in error.message:
                    raise
            return message.edits
        reply = message.reply_to
        shown = await self._bot.send_message(
            message.chat,
            message.text,
            reply_markup=keyboard,
            disable_notification=message.silent,
            protect_content=True,  # it cannot be forwarded out of the practice by mistake
            # A preview would have Telegram's servers fetch our page.
            link_preview_options=LinkPreviewOptions(is_disabled=True),
            reply_parameters=ReplyParameters(int(reply), allow_sending_without_reply=True) if reply else None,
        )
        return str(shown.message_id)


def _keyboard(message: ChatMessage) -> InlineKeyboardMarkup | None:
    rows = []
    for row in message.buttons:
        for _, nonce in row:
            # The library lets it pass, and the server refuses the whole alert.
            if not 1 <= len(nonce.encode()) <= BUTTON_LIMIT:
                raise Rejected(Why.PROTOCOL, detail="button data must be 1 to 64 bytes")
        rows.append([InlineKeyboardButton(label, callback_data=nonce) for label, nonce in row])
    if message.link is not None:
        label, address = message.link
        rows.append([InlineKeyboardButton(label, url=address)])
    return InlineKeyboardMarkup(rows) if rows else None


def _is_service(message: Message) -> bool:
    """Somebody joined, a title changed, our own message was pinned: nobody said anything."""
    return bool(
        message.new_chat_members
        or message.left_chat_member
        or message.new_chat_title
        or message.pinned_message
        or message.migrate_to_chat_id
        or message.migrate_from_chat_id
        or message.group_chat_created
        or message.supergroup_chat_created
    )


class _Pace:
    """When the next message may leave: so many a second in all, and to one chat."""

    def __init__(self, clock: Clock, rate: Rate) -> None:
        self._clock = clock
        self._between = 1 / rate.total if rate.total else 0.0
        self._between_chat = 1 / rate.chat if rate.chat else 0.0
        self._next = 0.0
        self._next_of: dict[str, float] = {}
        self._held_until: dict[str, float] = {}

    async def turn(self, chat: str) -> None:
        """Wait for this chat's turn. Raises Deferred while Telegram has told us to leave it alone."""
        now = self._clock.monotonic()
        if (left := self._held_until.get(chat, now) - now) > 0:
            raise Deferred(Why.RATE_LIMITED, retry_after=left)
        if self._between_chat:
            if len(self._next_of) > 10_000:
                self._next_of = {each: until for each, until in self._next_of.items() if until > now}
            moment = max(now, self._next_of.get(chat, now))
            self._next_of[chat] = moment + self._between_chat
            await self._until(moment)
        if self._between:
            moment = max(self._clock.monotonic(), self._next)
            self._next = moment + self._between
            await self._until(moment)

    async def _until(self, moment: float) -> None:
        if (left := moment - self._clock.monotonic()) > 0:
            await self._clock.sleep(left)

    def hold(self, chat: str, seconds: float) -> None:
        """Leave this chat alone for so long."""
        now = self._clock.monotonic()
        self._held_until = {each: until for each, until in self._held_until.items() if until > now}
        self._held_until[chat] = now + seconds


# ------------------------------------------------------------------------------------------------ verdicts


class _Slow(TelegramError):
    """429; `seconds` until we may speak again."""

    def __init__(self, seconds: float) -> None:
        super().__init__("429")
        self.seconds = seconds


class _ServerError(TelegramError):
    """5xx: it says that it did not do it."""


class _NotSent(NetworkError):
    """No connection: nothing left."""


class _Untrusted(NetworkError):
    """A server without a certificate we trust: nothing left."""


class _Unanswered(NetworkError):
    """Something left, and no whole answer came back."""


class _Request(BaseRequest):
    """The library's requests over aiohttp, whose parsers are compiled: a fifth of the CPU that its own way took.

    Failures are told apart by what they mean for a message. Neither bodies nor addresses, which hold the
    bot's token, reach an error or a log.
    """

    def __init__(self, connections: int, *, trust_env: bool) -> None:
        self._connections, self._trust_env = connections, trust_env
        self._session: aiohttp.ClientSession | None = None

    @property
    def read_timeout(self) -> float:
        """Seconds between two pieces of an answer."""
        return ANSWER_SECONDS

    async def initialize(self) -> None:
        """Nothing: the first request opens what it needs, in the loop that runs then."""

    async def shutdown(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections, ssl=Trust().context()),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=self._trust_env,
            )
        return self._session

    async def do_request(
        self,
        url: str,
        method: str,
        request_data: RequestData | None = None,
        read_timeout: object = None,
        *_: object,
        **__: object,
    ) -> tuple[int, bytes]:
        """Ask, and raise one of ours for what the library lumps together. Files cannot be sent: chat has none."""
        read = read_timeout if isinstance(read_timeout, int | float) else self.read_timeout
        try:
            async with self._open().request(
                method,
                url,
                data=urlencode(request_data.json_parameters).encode() if request_data else None,
                headers=FORM if request_data else None,
                timeout=aiohttp.ClientTimeout(
                    connect=PLACE_SECONDS, sock_connect=CONNECT_SECONDS, sock_read=read
                ),
                allow_redirects=False,
            ) as response:
                code, payload = response.status, await response.read()
        except aiohttp.ClientSSLError:
            raise _Untrusted("TLS") from None
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            raise _NotSent("no connection") from None
        except (aiohttp.ClientError, TimeoutError, OSError):
            raise _Unanswered("no answer") from None
        if code == 504:
            raise _Unanswered("504")  # a gateway gave up; who stands behind it may have done it
        if code >= 500:
            raise _ServerError(str(code))
        try:
            answer = json.loads(payload)
            if code == 429:
                raise _Slow(float(answer["parameters"]["retry_after"]))
            if code < 300:
                answer["result"]
        except (ValueError, LookupError, TypeError):
            if code == 429:
                raise _Slow(5.0) from None
            if code < 300:
                raise _Unanswered("no JSON") from None
            raise _ServerError(str(code)) from None
        return code, payload


def _translate(error: TelegramError, *, repeatable: bool) -> Verdict:
    """`repeatable`: doing it twice shows no more than doing it once, so an unanswered one is simply repeated."""
    if isinstance(error, _Slow):
        return Deferred(Why.RATE_LIMITED, retry_after=error.seconds)
    if isinstance(error, _ServerError):
        return Deferred(Why.SERVER_ERROR, detail=error.message)
    if isinstance(error, _NotSent):
        return Deferred(Why.CONNECTION)
    if isinstance(error, _Untrusted):
        return Deferred(Why.CERTIFICATE, retry_after=OURS_TO_MEND_SECONDS, detail="of the server")
    if isinstance(error, InvalidToken):
        return Deferred(Why.AUTHENTICATION, retry_after=OURS_TO_MEND_SECONDS)
    if isinstance(error, Conflict):
        log.get().error("another_process_polls", adapter="telegram")
        return Deferred(Why.BUSY, retry_after=OTHER_POLLER_SECONDS, detail="another process polls")
    if isinstance(error, Forbidden):
        return Rejected(Why.BLOCKED)
    if isinstance(error, ChatMigrated):
        # The new chat may have other members: only a new link makes it a professional's.
        return Rejected(Why.UNLINKED, detail="chat migrated")
    if isinstance(error, BadRequest):
        return Rejected(Why.NO_CHANNEL if "chat not found" in error.message.lower() else Why.REFUSED)
    return Deferred(Why.CONNECTION) if repeatable else Uncertain(Why.LOST_AFTER_SEND)
