"""Answers that survive: stored on the disk before they are acknowledged, under the client's idempotency key.

A client that does not know whether its request arrived sends it again under the same key, and gets the same bytes. Taught in
lesson 25; lesson 22's review queue has the same pattern.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Kept(NamedTuple):
    """A stored answer: the caller's key id, the idempotency key, the SHA-256 of the request, HTTP status and body."""

    owner: str
    key: str
    request: str
    status: int
    body: bytes


def fingerprint(path: str, value: dict[str, Any]) -> str:
    """SHA-256 of a request, whatever the order of its keys. The request itself is not kept."""
    return hashlib.sha256(json.dumps([path, value], sort_keys=True).encode()).hexdigest()


class AnswerStore:
    """Answers in the SQLite file ``path``; one object a thread. ``keep``: seconds after which an answer may be forgotten."""

    def __init__(
        self, path: Path | str, keep: float = 86_400.0, clock: Callable[[], float] = time.time
    ) -> None:
        self.keep, self.clock = keep, clock
        self.db = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")  # a commit is on the disk before it returns
        self.db.execute(
            "CREATE TABLE IF NOT EXISTS answers (owner TEXT, key TEXT, request TEXT NOT NULL, status INTEGER NOT NULL,"
            " body BLOB NOT NULL, at REAL NOT NULL, PRIMARY KEY (owner, key)) WITHOUT ROWID"
        )

    def find(self, owner: str, key: str) -> Kept | None:
        query = "SELECT owner, key, request, status, body FROM answers WHERE owner = ? AND key = ?"
        row = self.db.execute(query, (owner, key)).fetchone()
        return Kept(*row) if row else None

    def add_all(self, answers: Sequence[Kept]) -> list[Kept]:
        """Store them in one transaction, which costs one wait for the disk however many they are. What is there already
        wins; returned is what stands in the file."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            rows = [(*each, self.clock()) for each in answers]
            self.db.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?)", rows)
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")
        return [self.find(each.owner, each.key) or each for each in answers]

    def forget(self) -> int:
        """Remove the old ones; how many they were."""
        return self.db.execute("DELETE FROM answers WHERE at < ?", (self.clock() - self.keep,)).rowcount

    def close(self) -> None:
        self.db.close()
