"""What machines answer: DSN, MDN in both grammars, « KO Intégration », automatic replies, list mail.

What is enclosed in a report is never read as a document: the ZIP that comes back inside an MDN is ours.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from relay.formats import fold
from relay.model import ReceiptNews
from relay.reading import Document, Part, decode, never_raises, parameters, parse_addresses, read

Status = Literal["delivered", "delayed", "failed", "read", "processed", "error"]

DSN: Final = ("message/delivery-status", "message/global-delivery-status")
MDN: Final = ("message/disposition-notification", "message/global-disposition-notification")
_HEADERS: Final = ("text/rfc822-headers", "message/rfc822-headers")

_KO = re.compile(
    r"^\s*(?:(?:re|tr|fwd?)\s*:\s*)*\[?\s*(?:ko integration|erreur d'integration|echec d'integration|erreur integration)"
)
_CODE = re.compile(r"(?<!\d)(90[0-6])(?!\d)")
_ENHANCED = re.compile(r"(?<![\d.])([245]\.\d{1,3}\.\d{1,3})(?![\d.])")
_BOUNCE = re.compile(
    r"undeliver|delivery (?:status|failure|failed|has failed|report|problem)|returned mail|failure notice|mail delivery"
    r"|delivery notification|could not be delivered|non remis|non distribue|non delivre|echec de (?:la )?(?:remise|livraison"
    r"|distribution)|(?:pas pu|impossible de|ne (?:peut|pouvait) pas) .{0,20}(?:remis|remettre|distribu|delivr|livr|achemin)|message en erreur|courrier refuse|retour a l'expediteur|delivery delayed|unzustellbar|zustellung|nicht zugestellt|notification d'etat de remise|message non|rejected mail|mail system error"
)
_DELAY = re.compile(r"delay|differe|retard|warning|still being retried|verzoger")
_MACHINES = re.compile(r"^(?:mailer-daemon|postmaster|mail-?daemon|mdaemon|mailer)@")
_MESSAGE_ID_LINE = re.compile(
    rb"^[ \t>|]*(?:x-)?(?:original-)?message-id[ \t]*:\s*(<[^<>\s]{3,300}>)", re.IGNORECASE | re.MULTILINE
)

_AUTOMATIC_SUBJECT = re.compile(
    r"^\s*(?:\[?auto(?:matique|matic)?\]?\s*[:-]|reponse automatique|automatic reply|auto(?:matic)?[ -]?(?:reply|response)"
    r"|autoreply|out of (?:the )?office|absence du bureau|absente? du bureau|absent du|message d'absence|abwesen"
    r"|automatische antwort|notification d'absence|vacation|je suis absent|absence\s*(?::|jusqu|du \d|temporaire|prolongee)|reponse auto|repondeur"
    r"|i am out of|on vacation|(?:je suis |nous sommes )?en (?:conges?|vacances)\b|conges annuels|\(absence|message automatique\b|risposta automatica|respuesta automatica"
    r"|(?:le )?(?:cabinet|secretariat)(?: medical)? (?:est )?ferme\b|fermeture (?:annuelle |exceptionnelle )?(?:du|de) (?:cabinet|secretariat)|absente? (?:du|de|au) cabinet"
    r"|(?:antwort: )?(?:ich bin )?nicht im (?:buro|hause)\b)"
)
# What Outlook writes about a read mail where its server makes no report of it: « Lu : … », « Votre message … a été lu le … ».
_READ_SUBJECT = re.compile(r"^\s*(?:(non |not )?(?:lu|read|gelesen)|(un)read)\s*:")
_READ_BODY = re.compile(
    r"\b(?:a ete lu|was read|wurde gelesen|(a ete supprime sans (?:avoir ete )?lu|was deleted without being read))\b"
)


@never_raises(None)
def read_receipt(document: Document) -> ReceiptNews | None:
    """The news of a report about one of our messages; None when the mail is no report. Never raises."""
    for part in document.parts:
        if part.media_type in MDN:
            return _mdn(document, part)
        if part.media_type in DSN:
            return _dsn(document, part)
    subject = fold(document.subject)
    if _KO.match(subject):
        return _ko(document, subject)
    kind, settings = parameters(document.header("content-type") or "")
    report = settings.get("report-type", "").lower() if kind == "multipart/report" else ""
    sender = document.from_ or ""
    if "disposition" in report:
        return _mdn(document, None)
    if "delivery-status" in report:
        return _plain_bounce(document, subject)
    said = _BOUNCE.search(subject)
    if news := _plain_mdn(document, subject):
        return news
    if said and (comes_back(document) or document.header("x-failed-recipients") or _says_replied(document)):
        return _plain_bounce(document, subject)
    if _MACHINES.match(sender) and _encloses(document):  # a mail server sends letters back, it writes none
        return _plain_bounce(document, subject)
    return None


def _plain_mdn(document: Document, subject: str) -> ReceiptNews | None:
    """A read receipt in words only; None for any other mail."""
    about = _READ_SUBJECT.match(subject)
    told = _READ_BODY.search(fold(document.text[:2000])) if about else None
    if about is None or told is None:
        return None
    unread = about[1] or about[2] or told[1]
    return ReceiptNews(
        kind="mdn",
        status="delivered" if unread else "read",
        recipient=document.from_,
        original_message_id=_answered(document),
    )


def comes_back(document: Document) -> bool:
    """A mail server wrote it, or wants no answer: what such a mail encloses is on its way back."""
    return bool(_MACHINES.match(document.from_ or "")) or _null_sender(document)


def writes_no_letters(document: Document) -> bool:
    """A mail server wrote it: whatever words of a letter stand there are on their way back."""
    return bool(_MACHINES.match(document.from_ or ""))


def is_forwarded_report(document: Document) -> bool:
    """Of a mail that was sent on: whether its subject is a machine's, « Tr: Undelivered Mail Returned to Sender »."""
    subject = re.sub(r"^(?:\s*(?:fwd?|tr|wg|rv|i|transf\w*)\s*:)+\s*", "", fold(document.subject))
    return any(said.search(subject) for said in (_BOUNCE, _KO, _READ_SUBJECT, _AUTOMATIC_SUBJECT))


def _encloses(document: Document) -> bool:
    return any(part.is_message or part.media_type in _HEADERS for part in document.parts)


def _says_replied(document: Document) -> bool:
    """Of RFC 3834: an answer that a machine gave."""
    return (document.header("auto-submitted") or "").lower().startswith(("auto-replied", "auto-notified"))


def _machine_text(part: Part) -> str:
    """The fields of a report part, which careless senders write where its headers belong."""
    return f"{decode(part.raw[part.start : part.body])}\n{part.text()}"


def _value(text: str, name: str) -> str | None:
    found = re.search(rf"^{name}[ \t]*:[ \t]*([^\n]*(?:\n[ \t]+[^\n]*)*)", text, re.IGNORECASE | re.MULTILINE)
    return " ".join(found[1].split()) if found else None


def _address(value: str | None) -> str | None:
    """Of `rfc822; dr.martin@example.fr` (RFC 3464 §2.3.2)."""
    found = parse_addresses((value or "").partition(";")[2] or value or "")
    return found[0][1] if found else None


def _bracketed(value: str | None) -> str | None:
    bare = re.sub(r"\s", "", value or "").strip("<>")
    return f"<{bare}>" if bare else None


def _enclosed_id(document: Document) -> str | None:
    """The Message-ID of the message a report encloses, whole or its headers."""
    for part in document.parts:
        if part.is_message or part.media_type in _HEADERS:
            found = read(part.content(64 * 1024)).message_id
            if found:
                return found
    start = document.parts[0].body if document.parts else 0
    quoted = _MESSAGE_ID_LINE.findall(document.raw, start, min(len(document.raw), start + 512 * 1024))
    return quoted[-1].decode("ascii", "replace") if quoted else None


def _answered(document: Document) -> str | None:
    """The message a report answers, where it says so by threading only."""
    chain = document.in_reply_to or document.references
    return chain[-1] if chain else None


def _dsn(document: Document, part: Part) -> ReceiptNews:
    """RFC 3464. Of several recipients the worst fate counts."""
    text = _machine_text(part)
    worst: tuple[int, Status, str | None, str | None] = (-1, "delivered", None, None)
    fates: dict[str, tuple[int, Status]] = {
        "failed": (2, "failed"), "delayed": (1, "delayed"), "delivered": (0, "delivered"),
        "relayed": (0, "delivered"), "expanded": (0, "delivered"),
    }  # fmt: skip
    for block in re.split(r"\n[ \t]*\n", text):
        action = _value(block, "Action")
        if action is None:
            continue
        rank, status = fates.get(action.lower().split(" ")[0].split("(")[0].strip(), (2, "failed"))
        if rank > worst[0]:
            code = _ENHANCED.search(_value(block, "Status") or "")
            # The address we wrote to, not the one it was passed on to (RFC 3464 §2.3.1).
            recipient = _address(_value(block, "Original-Recipient")) or _address(
                _value(block, "Final-Recipient")
            )
            worst = (rank, status, code[1] if code else None, recipient)
    if worst[0] < 0:
        return _plain_bounce(document, fold(document.subject))
    return ReceiptNews(
        kind="dsn",
        status=worst[1],
        code=worst[2],
        recipient=worst[3],
        original_message_id=_enclosed_id(document) or _answered(document),
        envid=_value(text, "Original-Envelope-Id"),
    )


def _plain_bounce(document: Document, subject: str) -> ReceiptNews:
    """A bounce in words only."""
    text = document.text[:8000]
    code = _ENHANCED.search(text)
    failed = parse_addresses(document.header("x-failed-recipients") or "")
    delayed = bool(_DELAY.search(subject)) or (code is not None and code[1].startswith("4."))
    return ReceiptNews(
        kind="dsn",
        status="delayed" if delayed else "failed",
        code=code[1] if code else None,
        recipient=failed[0][1] if failed else None,
        original_message_id=_enclosed_id(document) or _answered(document),
    )


def _mdn(document: Document, part: Part | None) -> ReceiptNews:
    """RFC 8098 §3.2.6, and the older form that writes the error into the disposition itself."""
    text = _machine_text(part) if part is not None else document.text
    disposition = fold(_value(text, "Disposition") or "")
    kind, _, modifier = disposition.rpartition(";")[2].strip().partition("/")
    error = fold(_value(text, "Error") or "")
    code = _CODE.search(f"{modifier} {error}") or (
        _CODE.search(document.subject) if "error" in modifier else None
    )
    status: Status
    if "error" in modifier or "failure" in modifier or kind.strip() == "failed" or (error and code):
        status = "error"
    elif kind.strip() == "displayed":
        status = "read"
    elif kind.strip() == "processed":
        status = "processed"
    else:
        status = "delivered"  # deleted, dispatched, denied: it arrived, and nobody is said to have read it
    recipient = _address(_value(text, "Original-Recipient")) or _address(_value(text, "Final-Recipient"))
    return ReceiptNews(
        kind="mdn",
        status=status,
        code=code[1] if code else None,
        recipient=recipient or document.from_,
        original_message_id=_bracketed(_value(text, "Original-Message-ID")) or _enclosed_id(document)
        or _answered(document),
    )  # fmt: skip


def _ko(document: Document, subject: str) -> ReceiptNews:
    """A plain mail « [KO Intégration système !][902] … » of a practice's software."""
    code = _CODE.search(subject) or _CODE.search(document.text[:8000])
    return ReceiptNews(
        kind="ko",
        status="error",
        code=code[1] if code else None,
        recipient=document.from_,
        original_message_id=_answered(document) or _enclosed_id(document),
    )


def _null_sender(document: Document) -> bool:
    return (document.header("return-path") or "").strip() == "<>"


@never_raises(True)
def is_automatic_reply(document: Document) -> bool:
    """A machine answered in a person's place (RFC 3834): absence notes and the like."""
    if _says_replied(document):
        return True
    if any(
        document.header(name)
        for name in ("x-autoreply", "x-autorespond", "x-autoresponse", "x-auto-reply", "x-autoresponder")
    ):
        return True
    if (document.header("x-autogenerated") or "").strip().lower() in ("reply", "forward"):
        return True
    if "autoresponder" in (document.header("x-post-messageclass") or "").lower():
        return True
    if (document.header("precedence") or "").strip().lower() in ("auto_reply", "auto-reply"):
        return True
    return bool(_AUTOMATIC_SUBJECT.match(re.sub(r"^\s*(?:re|aw|sv)\s*:\s*", "", fold(document.subject))))


@never_raises(True)
def is_machine_mail(document: Document) -> bool:
    """Some machine sent it; it may still be a hospital's letter: hospital systems mail by themselves."""
    said = (document.header("auto-submitted") or "no").strip().lower()
    return (
        not said.startswith("no")
        or (document.header("precedence") or "").strip().lower() in ("bulk", "junk", "list")
        or _null_sender(document)
        or bool(
            document.header("list-id") or document.header("list-unsubscribe") or document.header("x-loop")
        )
        or bool(_MACHINES.match(document.from_ or ""))
    )
