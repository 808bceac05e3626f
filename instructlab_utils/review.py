"""A queue for people who decide what a filter is unsure of: an item is leased, decided once, and every step is on record.

One SQLite file, opened by as many processes as you like. A *lease* says that a reviewer works on an item; when its time is
over, the item can be claimed again. Every change is one transaction, so a process that is killed leaves the state before it
or after it, nothing between. ``simulate`` asks what a queue misses when it has too few reviewers. Built in lesson 22,
section 5 (notebooks/source/22_safety.py); drilled by tests/drill_review.py.

Taught in lesson 22.
"""

from __future__ import annotations

import heapq
import math
import random
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructlab_utils.errors import CourseError

VERDICTS = ("allow", "stop")
ORDERS = ("fifo", "priority", "lifo")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
    id TEXT PRIMARY KEY, text TEXT NOT NULL, priority REAL NOT NULL, arrived INTEGER NOT NULL,
    token TEXT, reviewer TEXT, until REAL, decided INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS decisions (
    id TEXT PRIMARY KEY, item TEXT NOT NULL UNIQUE REFERENCES items(id), reviewer TEXT NOT NULL,
    verdict TEXT NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS audit (
    n INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL,
    item TEXT NOT NULL, detail TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS open_items ON items (decided, priority DESC, arrived);
CREATE TRIGGER IF NOT EXISTS audit_stays BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit only grows'); END;
CREATE TRIGGER IF NOT EXISTS audit_kept BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit only grows'); END;
"""


class ReviewError(CourseError):
    """A step that the queue refuses: a lost lease, a second decision, an unknown item or verdict."""


@dataclass(frozen=True)
class Item:
    """A leased item. ``token`` proves the lease; ``until`` is when it ends, in seconds of the queue's clock."""

    id: str
    text: str
    priority: float
    token: str
    until: float


class Queue:
    """The queue in the file ``path``, made where it is not there. ``lease``: seconds that a reviewer has for an item.

    Use one object a process and thread; ``clock`` gives the time in seconds, the same for all who share the file. ``fifo``
    takes the oldest item first, else the one with the highest priority, of equals the oldest. ReviewError for a lease that
    is not positive.
    """

    def __init__(
        self,
        path: Path | str,
        lease: float = 600.0,
        clock: Callable[[], float] = time.time,
        fifo: bool = False,
    ) -> None:
        if not lease > 0 or not math.isfinite(lease):
            raise ReviewError(f"lease is {lease}: give a number of seconds above 0")
        self.lease, self.clock, self.fifo = lease, clock, fifo
        self.db = sqlite3.connect(path, timeout=30.0, isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")  # readers go on while one writes
        self.db.execute("PRAGMA synchronous=FULL")  # a commit is on the disk before it returns
        self.db.execute("PRAGMA foreign_keys=ON")
        self.db.executescript(_SCHEMA)

    def close(self) -> None:
        self.db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing. IMMEDIATE takes the write lock at once: two that read first and write later would lose an
        update."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield self.db
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    def _log(self, who: str, what: str, item: str, detail: str = "") -> None:
        row = (self.clock(), who, what, item, detail)
        self.db.execute("INSERT INTO audit (at, who, what, item, detail) VALUES (?, ?, ?, ?, ?)", row)

    def add(self, id: str, text: str, priority: float, who: str = "filter") -> bool:
        """Put an item into the queue; False where it is there already, with the same text. ReviewError where ``id`` is
        there with another text, is empty, or the priority is not finite."""
        if not id or not math.isfinite(priority):
            raise ReviewError(f"item {id!r} with priority {priority}: need an id and a finite number")
        with self._transaction() as db:
            old = db.execute("SELECT text FROM items WHERE id = ?", (id,)).fetchone()
            if old is not None:
                if old[0] != text:
                    raise ReviewError(
                        f"item {id!r} is in the queue with another text: give each text an id of its own"
                    )
                return False
            (n,) = db.execute("SELECT COUNT(*) FROM items").fetchone()
            row = (id, text, priority, n)
            db.execute("INSERT INTO items (id, text, priority, arrived) VALUES (?, ?, ?, ?)", row)
            self._log(who, "add", id, f"priority {priority:.6g}")
        return True

    def claim(self, reviewer: str) -> Item | None:
        """Lease the next open item to the reviewer; None where nothing is open. An item whose lease has ended is open."""
        order = "arrived" if self.fifo else "priority DESC, arrived"
        with self._transaction() as db:
            now = self.clock()
            row = db.execute(
                f"SELECT id, text, priority FROM items WHERE decided = 0 AND (until IS NULL OR until <= ?) "
                f"ORDER BY {order} LIMIT 1",
                (now,),
            ).fetchone()
            if row is None:
                return None
            id, text, priority = row
            item = Item(id, text, priority, secrets.token_hex(8), now + self.lease)
            db.execute(
                "UPDATE items SET token = ?, reviewer = ?, until = ? WHERE id = ?",
                (item.token, reviewer, item.until, item.id),
            )
            self._log(reviewer, "claim", item.id, item.token)
        return item

    def decide(self, item: Item, reviewer: str, verdict: str, decision: str) -> bool:
        """Record the verdict under the id ``decision``. True where it was recorded now, False where this very decision was
        recorded before: a reviewer who does not know whether an answer got lost may send it again.

        ReviewError for an unknown verdict, for a decision id that stands for something else, for an item that was decided by
        another decision, and where the lease has ended or belongs to somebody else.
        """
        if verdict not in VERDICTS or not decision:
            raise ReviewError(
                f"verdict {verdict!r}, decision {decision!r}: {' or '.join(VERDICTS)}, and an id"
            )
        with self._transaction() as db:
            same = db.execute(
                "SELECT item, reviewer, verdict FROM decisions WHERE id = ?", (decision,)
            ).fetchone()
            if same is not None:
                if same != (item.id, reviewer, verdict):
                    raise ReviewError(f"decision {decision!r} is recorded with other contents: take a new id")
                return False
            row = db.execute("SELECT token, until, decided FROM items WHERE id = ?", (item.id,)).fetchone()
            if row is None:
                raise ReviewError(f"item {item.id!r} is not in the queue")
            token, until, decided = row
            if decided:
                raise ReviewError(f"item {item.id!r} is decided already: nothing is decided twice")
            if token != item.token or until <= self.clock():
                raise ReviewError(f"the lease of item {item.id!r} is over: claim it again")
            told = (decision, item.id, reviewer, verdict, self.clock())
            db.execute("INSERT INTO decisions VALUES (?, ?, ?, ?, ?)", told)
            db.execute("UPDATE items SET decided = 1, token = NULL, until = NULL WHERE id = ?", (item.id,))
            self._log(reviewer, "decide", item.id, f"{verdict} {decision}")
        return True

    def counts(self) -> dict[str, int]:
        """``open`` (never leased, or the lease has ended), ``leased``, ``decided``."""
        now, found = self.clock(), {}
        for name, rule in {
            "open": "decided = 0 AND (until IS NULL OR until <= ?)",
            "leased": "decided = 0 AND until > ?",
            "decided": "decided = 1 AND ? IS NOT NULL",
        }.items():
            (found[name],) = self.db.execute(f"SELECT COUNT(*) FROM items WHERE {rule}", (now,)).fetchone()
        return found

    def decisions(self) -> list[dict[str, Any]]:
        """Every decision: id, item, reviewer, verdict, at; in the order in which they were made."""
        rows = self.db.execute(
            "SELECT id, item, reviewer, verdict, at FROM decisions ORDER BY rowid"
        ).fetchall()
        return [dict(zip(("id", "item", "reviewer", "verdict", "at"), row, strict=True)) for row in rows]

    def trail(self, item: str | None = None) -> list[dict[str, Any]]:
        """Who did what and when, in order; of one item, or of all."""
        rule, values = ("", ()) if item is None else ("WHERE item = ?", (item,))
        rows = self.db.execute(f"SELECT n, at, who, what, item, detail FROM audit {rule} ORDER BY n", values)
        return [dict(zip(("n", "at", "who", "what", "item", "detail"), row, strict=True)) for row in rows]

    def problems(self) -> list[str]:
        """What is wrong with the file, a sentence each; [] where nothing is. Every item is decided once at most, and the
        decisions, the items and the audit tell the same story."""
        said = [f"sqlite: {row[0]}" for row in self.db.execute("PRAGMA integrity_check") if row[0] != "ok"]
        query = "SELECT id FROM items WHERE decided = 1 EXCEPT SELECT item FROM decisions"
        said += [f"item {row[0]} is marked as decided, without a decision" for row in self.db.execute(query)]
        query = "SELECT item FROM decisions EXCEPT SELECT id FROM items WHERE decided = 1"
        said += [f"item {row[0]} has a decision, and is still open" for row in self.db.execute(query)]
        query = "SELECT item, COUNT(*) FROM audit WHERE what = 'decide' GROUP BY item HAVING COUNT(*) > 1"
        said += [
            f"item {row[0]} stands {row[1]} times in the audit as decided" for row in self.db.execute(query)
        ]
        query = "SELECT item FROM decisions EXCEPT SELECT item FROM audit WHERE what = 'decide'"
        said += [f"the decision on item {row[0]} is not in the audit" for row in self.db.execute(query)]
        return said


# --- too few reviewers ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Day:
    """What became of a simulated day: ``missed``, the share of harmful items not reviewed in time; ``wait``, the mean
    minutes until an item that was reviewed was taken; ``left``, items never reviewed; ``items``, how many came;
    ``harmful``, how many of those."""

    missed: float
    wait: float
    left: int
    items: int
    harmful: int


def simulate(
    scores: Sequence[float],
    harmful: Sequence[bool],
    *,
    arrivals: float,
    reviews: float,
    minutes: int,
    deadline: int,
    order: str,
    seed: int = 0,
) -> Day:
    """A day of ``minutes``: a Poisson number of items with mean ``arrivals`` comes each minute, ``reviews`` can be taken a
    minute.

    Items are drawn with replacement from the pairs of ``scores`` and ``harmful``. A harmful item is missed where it was not
    taken within ``deadline`` minutes; those that come in the last ``deadline`` minutes are not counted. ``order``: fifo,
    lifo, or priority, the highest score first. The arrivals depend on the seed alone, so two orders meet the same day.

    ReviewError for an unknown order, lists of other lengths, rates that are not positive, or a day no longer than the
    deadline. Source: lesson 22, section 5.
    """
    if order not in ORDERS or len(scores) != len(harmful) or not scores:
        raise ReviewError(f"order {order!r}, {len(scores)} scores, {len(harmful)} labels: see the docstring")
    if not (arrivals > 0 and reviews > 0) or not minutes > deadline > 0:
        raise ReviewError(
            f"arrivals {arrivals}, reviews {reviews}, {minutes} minutes, deadline {deadline}: impossible"
        )
    rng, taken = random.Random(seed), {}
    heap: list[tuple[float, int]] = []
    came: list[tuple[int, bool]] = []
    credit = 0.0
    for minute in range(minutes):
        for _ in range(_poisson(arrivals, rng)):
            i = rng.randrange(len(scores))
            key = {"fifo": minute, "lifo": -minute, "priority": -scores[i]}[order]
            heapq.heappush(heap, (key, len(came)))
            came.append((minute, bool(harmful[i])))
        credit = min(credit + reviews, reviews + 1)  # nobody reviews ahead
        while credit >= 1 and heap:
            taken[heapq.heappop(heap)[1]] = minute
            credit -= 1
    counted = [n for n, (minute, bad) in enumerate(came) if bad and minute < minutes - deadline]
    late = sum(taken.get(n, minutes) - came[n][0] > deadline for n in counted)
    waits = [minute - came[n][0] for n, minute in taken.items()]
    return Day(
        missed=late / len(counted) if counted else 0.0,
        wait=sum(waits) / len(waits) if waits else 0.0,
        left=len(heap),
        items=len(came),
        harmful=sum(bad for _, bad in came),
    )


def _poisson(mean: float, rng: random.Random) -> int:
    """A Poisson number by products of uniform numbers (Knuth 1969)."""
    limit, product, n = math.exp(-mean), rng.random(), 0
    while product > limit:
        product *= rng.random()
        n += 1
    return n
