"""Every way the relay can fail, and what each failure asks of the caller.

    RelaisError
    ├── ConfigurationError    a person must change a file; names file, line and key; exit 2
    ├── UsageError            a person must call differently; exit 2
    ├── Unavailable           something the relay needs is away (database, server); exit 3
    ├── NotFound              a reference, envelope or person that nobody knows; exit 1
    ├── Refused               a person asked for what a floor or a right forbids; exit 1
    ├── Stale                 somebody else changed the row first: look again, decide again
    │   └── Clash             the reference that was drawn is taken: draw another
    └── Verdict               what a transport answered about one message
        ├── Deferred          not taken: try again later
        ├── Rejected          never will be: a person must know
        └── Uncertain         may have been taken: look for evidence before sending again

Texts of these errors are read by people and written to logs: no patient, no letter, no token and no
server's answer stands in them. Raise them `from None` at the edge, where the cause may quote content.
"""

from __future__ import annotations


class RelaisError(Exception):
    """The root of the tree."""


class ConfigurationError(RelaisError):
    """Something in a file must be changed by a person. One line: file, line, key, what to do."""

    def __init__(self, text: str, *, file: str = "", line: int = 0, key: str = "") -> None:
        where = f"{file}:{line}" if file and line else file
        super().__init__(": ".join(part for part in (where, key, text) if part))
        self.file, self.line, self.key, self.text = file, line, key, text


class UsageError(RelaisError):
    """The command was called in a way that cannot be carried out."""


class Unavailable(RelaisError):
    """A database, server or file that the relay needs does not answer."""


class NotFound(RelaisError):
    """Nobody knows this reference, envelope, person or name."""


class Refused(RelaisError):
    """Understood, and not done: a floor, a right or the state of the row forbids it.

    `reason`: why, in the words that the site's people read; `detail`: what exactly is amiss; "" where there are none.
    `final`: nothing that they could answer would change it.
    """

    def __init__(self, text: str, *, reason: str = "", detail: str = "", final: bool = False) -> None:
        super().__init__(text)
        self.reason = reason
        self.detail = detail
        self.final = final


class Stale(RelaisError):
    """The row changed since it was read (optimistic lock). Nothing was written."""


class Clash(Stale):
    """The reference belongs to another thread already: draw another. Nothing was written."""


class Verdict(RelaisError):
    """A transport's answer about one message. `why` is a slug of `relay.model.Why`."""

    def __init__(
        self, why: str, *, retry_after: float | None = None, detail: str = "", reached: bool = False
    ) -> None:
        """`retry_after` in seconds; `detail` is one of our own words (a status code), never the server's.

        `reached`: the other side works; it is this one message or its recipient that must wait (greylisting).
        """
        super().__init__(f"{why} ({detail})" if detail else str(why))
        self.why, self.retry_after, self.detail, self.reached = str(why), retry_after, detail, reached


class Deferred(Verdict):
    """Not taken; later."""


class Rejected(Verdict):
    """Not taken, and never will be."""


class Uncertain(Verdict):
    """The other side may have taken it: the connection broke after the last byte and before the answer."""
