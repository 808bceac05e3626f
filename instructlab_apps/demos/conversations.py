"""Conversations in SQLite: what was said, by whom, why a person was called. Personal data are masked before a word is kept.

Taught in lesson 26.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from instructlab_utils import masking
from instructlab_utils.errors import ParameterError

STATES = ("open", "waiting", "solved", "answered")  # with the bot, for a person, by the bot, by a person
WHO = ("customer", "bot", "person")
LONGEST = 500  # characters of one turn
_TABLES = """
create table if not exists conversation (id text primary key, began text not null, state text not null, reason text not null);
create table if not exists turn (
  number integer primary key, conversation text not null references conversation(id) on delete cascade,
  at text not null, who text not null, text text not null, article text not null, confidence real);
create index if not exists turns on turn(conversation);
"""


@dataclass(frozen=True)
class Said:
    """One turn: who, the masked text, the article that the bot showed or "", and its confidence or None."""

    who: str
    text: str
    article: str = ""
    confidence: float | None = None


@dataclass(frozen=True)
class Dialogue:
    """A conversation: ``state`` is one of STATES, ``reason`` why a person was called or ""."""

    id: str
    began: str
    state: str
    reason: str
    turns: tuple[Said, ...]


class Conversations:
    """The store at ``path``; safe to use from several threads.

    Texts and reasons go through `masking.masked`, with ``names`` masked as whole words, before they reach the file.
    ParameterError for an unknown id, an empty text, or one above 500 characters.
    """

    def __init__(self, path: Path, names: Sequence[str] = ()) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)  # no other user of this machine reads it
        self.names, self._lock = tuple(names), threading.Lock()
        self._base = sqlite3.connect(path, check_same_thread=False)
        self._base.execute("pragma foreign_keys = on")
        self._base.execute("pragma secure_delete = on")  # what is forgotten is overwritten in the file
        self._base.executescript(_TABLES)

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    @contextlib.contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._base:
            yield self._base

    def start(self) -> str:
        """A new conversation's id: 12 letters and digits that cannot be guessed."""
        id = secrets.token_urlsafe(9)
        with self._change() as base:
            base.execute("insert into conversation values (?, ?, 'open', '')", (id, _now()))
        return id

    def add(self, id: str, said: Said) -> str:
        """Store a turn; returns its text as it was stored, masked."""
        text = said.text.strip()
        if not text or len(text) > LONGEST:
            raise ParameterError(f"the text has {len(text)} characters; write 1 to {LONGEST}")
        if said.who not in WHO:
            raise ParameterError(f"{said.who!r} says nothing here; it is one of {', '.join(WHO)}")
        text = masking.mask(text, self.names)
        self.get(id)
        with self._change() as base:
            row = (id, _now(), said.who, text, said.article, said.confidence)
            base.execute(
                "insert into turn (conversation, at, who, text, article, confidence) values (?, ?, ?, ?, ?, ?)",
                row,
            )
        return text

    def move(self, id: str, state: str, reason: str = "") -> None:
        """Give the conversation another state; a reason is kept where one is given."""
        if state not in STATES:
            raise ParameterError(f"no state {state!r}; the states are {', '.join(STATES)}")
        self.get(id)
        with self._change() as base:
            base.execute("update conversation set state = ? where id = ?", (state, id))
            if reason:
                kept = masking.mask(reason, self.names)
                base.execute("update conversation set reason = ? where id = ?", (kept, id))

    def get(self, id: str) -> Dialogue:
        """The conversation with its turns in order."""
        with self._lock:
            head = self._base.execute("select * from conversation where id = ?", (id,)).fetchone()
            rows = self._base.execute(
                "select who, text, article, confidence from turn where conversation = ? order by number",
                (id,),
            ).fetchall()
        if head is None:
            raise ParameterError("this conversation is not stored (any more); start a new one")
        turns = tuple(Said(*row) for row in rows)
        name, began, state, reason = map(str, head)
        return Dialogue(name, began, state, reason, turns)

    def waiting(self) -> list[Dialogue]:
        """Those that wait for a person, the longest first."""
        with self._lock:
            rows = self._base.execute(
                "select id from conversation where state = 'waiting' order by began, rowid"
            ).fetchall()
        return [self.get(id) for (id,) in rows]

    def counts(self) -> dict[str, int]:
        """State → number of conversations, 0 included."""
        with self._lock:
            rows = self._base.execute("select state, count(*) from conversation group by state").fetchall()
        return dict.fromkeys(STATES, 0) | dict(rows)

    def forget(self, id: str) -> None:
        """Remove the conversation and its turns from the file."""
        with self._change() as base:
            base.execute("delete from conversation where id = ?", (id,))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
