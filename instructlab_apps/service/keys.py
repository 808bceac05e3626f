"""Access keys: made from 256 random bits, kept as a hash, compared in constant time, revoked at once.

A password needs a slow hash because people choose few of them. Nobody guesses one of 2^256 keys, so one SHA-256 is enough.
Taught in lesson 25.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import sqlite3
import time
from pathlib import Path
from typing import NamedTuple

from instructlab_utils.errors import ParameterError

SCOPES = ("use", "admin")
_FORM = re.compile(r"sk-([0-9a-f]{8})-[A-Za-z0-9_-]{43}")


class Caller(NamedTuple):
    """Who asks: the public ``id`` of the key, its ``name``, its ``scope``, and how many requests a minute it may send."""

    id: str
    name: str
    scope: str
    per_minute: float


def digest(key: str) -> bytes:
    """SHA-256 of a key, 32 bytes."""
    return hashlib.sha256(key.encode()).digest()


class KeyRing:
    """The keys in the SQLite file ``path``. One object a thread; many processes may share the file."""

    def __init__(self, path: Path | str) -> None:
        self.db = sqlite3.connect(path, timeout=30.0, isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute(
            "CREATE TABLE IF NOT EXISTS keys (id TEXT PRIMARY KEY, hash BLOB NOT NULL, name TEXT NOT NULL,"
            " scope TEXT NOT NULL, per_minute REAL NOT NULL, made REAL NOT NULL, revoked REAL)"
        )

    def create(self, name: str, scope: str = "use", per_minute: float = 600.0) -> str:
        """A new key. It is shown here and never again: only its hash is kept. ParameterError for an unknown scope, an
        empty name, or a rate that is not positive."""
        if not name or scope not in SCOPES or not 0 < per_minute < 1e9:
            raise ParameterError(
                f"key {name!r}, scope {scope!r}, {per_minute} a minute: need a name, {' or '.join(SCOPES)}, a rate"
            )
        id = secrets.token_hex(4)
        key = f"sk-{id}-{secrets.token_urlsafe(32)}"
        row = (id, digest(key), name, scope, per_minute, time.time())
        self.db.execute("INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, NULL)", row)
        return key

    def check(self, key: str) -> Caller | None:
        """Who this key belongs to, or None. The file is asked each time, so a revoked key stops with the next request."""
        form = _FORM.fullmatch(key)
        query = "SELECT id, name, scope, per_minute, hash FROM keys WHERE id = ? AND revoked IS NULL"
        row = self.db.execute(query, (form[1] if form else "",)).fetchone()
        known = hmac.compare_digest(digest(key), row[4] if row else bytes(32))
        return Caller(*row[:4]) if row and known else None

    def alive(self, id: str) -> bool:
        """Whether the key with this id exists and is not revoked."""
        query = "SELECT 1 FROM keys WHERE id = ? AND revoked IS NULL"
        return self.db.execute(query, (id,)).fetchone() is not None

    def revoke(self, id: str) -> bool:
        """Whether the key was good until now."""
        done = self.db.execute(
            "UPDATE keys SET revoked = ? WHERE id = ? AND revoked IS NULL", (time.time(), id)
        )
        return done.rowcount == 1

    def count(self) -> int:
        """How many keys are good."""
        return int(self.db.execute("SELECT COUNT(*) FROM keys WHERE revoked IS NULL").fetchone()[0])

    def close(self) -> None:
        self.db.close()
