"""The customer-service bot as a demo: a conversation, the desk of the person behind it, and what it is worth.

Taught in lesson 26.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from instructlab_apps.demos import charts
from instructlab_apps.demos.conversations import LONGEST, Conversations, Said
from instructlab_apps.demos.page import Demo, Values, View
from instructlab_apps.demos.support_check import SupportReport, articles_found, evaluate
from instructlab_apps.demos.support_desk import COSTS, MIX, SupportDesk
from instructlab_utils.errors import ParameterError
from instructlab_utils.intervals import Interval
from instructlab_utils.project import clone

SOURCES = {  # name in the table, and what it is
    "first": ("same source", "requests from the source that the head was trained on"),
    "second": ("other source", "requests in service dialogues, on which nothing was trained"),
    "own": ("own questions", "written by us, each with its one right article"),
    "past": ("outside, known", "requests for services that the desk does not have and was asked for before"),
    "new": ("outside, new", "the same, for services that it was never asked for"),
}
HANDED = "A person takes over and answers here. Why: {why}"


class SupportPages:
    """The bot behind its pages. ``store`` keeps the conversations."""

    def __init__(self, desk: SupportDesk, store: Conversations) -> None:
        self.desk, self.store = desk, store

    # --- what the pages show ---

    def chat(self, query: Values) -> Mapping[str, Any]:
        """The page of the customer; ``c`` is the conversation's id, without it a new one begins with the first text."""
        id = query.get("c", "")
        dialogue = self.store.get(id) if id else None
        texts = self.desk.openers
        return {
            "dialogue": dialogue,
            "openers": texts,
            "topics": list(self.desk.names.values()),
            "longest": LONGEST,
            "last": dialogue.turns[-1] if dialogue and dialogue.turns else None,
        }

    def person(self, query: Values) -> Mapping[str, Any]:
        """The desk: who waits, and why."""
        return {"waiting": self.store.waiting(), "counts": self.store.counts(), "longest": LONGEST}

    @functools.cached_property
    def report(self) -> tuple[SupportReport, Interval]:
        """The evaluation of seed 0, made when it is first looked at."""
        return evaluate(self.desk, 0), articles_found(self.desk)

    def worth(self, query: Values) -> Mapping[str, Any]:
        """The page of the evaluation."""
        report, found = self.report
        answered = [point[1] for point in report.curve]
        lines = [
            charts.Line("handed over", [p[0] for p in report.curve], [1 - p[1] for p in report.curve]),
            charts.Line("wrong answers", [p[0] for p in report.curve], [p[2] for p in report.curve]),
            charts.Line("solved", [p[0] for p in report.curve], [p[1] - p[2] for p in report.curve]),
        ]
        told = (
            f"Shares of held-out customers by threshold. At 0 the bot answers everyone, "
            f"{charts.percent(report.curve[0][2])} wrongly; at the chosen {report.threshold:.2f} it hands over "
            f"{charts.percent(1 - answered[round(report.threshold * 100)])}."
        )
        drawn = charts.chart(
            lines,
            told=told,
            x="least confidence with which the bot answers",
            y="share of customers",
            x_range=(0, 1),
            y_range=(0, 1),
            marks=[(report.threshold, "chosen")],
        )
        return {
            "report": report,
            "found": found,
            "chart": drawn,
            "told": told,
            "sources": SOURCES,
            "mix": MIX,
            "costs": COSTS,
        }

    # --- what the forms do ---

    def say(self, form: Values) -> str:
        """A customer's text: stored masked, then answered, or handed over."""
        text = form.get("text", "").strip()
        if not text or len(text) > LONGEST:
            raise ParameterError(f"the text has {len(text)} characters; write 1 to {LONGEST}")
        id = form.get("c") or self.store.start()
        masked = self.store.add(id, Said("customer", text))
        if self.store.get(id).state == "waiting":
            return _at(id)  # the person has it; the bot is silent
        reply = self.desk.reply(masked)
        if reply.person:
            self._hand_over(id, reply.why)
            return _at(id)
        self.store.move(id, "open")
        details = f" I understood: {', '.join(reply.understood)}." if reply.understood else ""
        answer = f"{reply.article.title}.{details} {reply.article.answer}"
        self.store.add(id, Said("bot", answer, reply.article.id, reply.confidence))
        return _at(id)

    def judge(self, form: Values) -> str:
        """The customer's verdict on the last answer: solved, or a person please."""
        id = form.get("c", "")
        if form.get("solved") == "yes":
            self.store.move(id, "solved")
        elif self.store.get(id).state == "open":
            self._hand_over(id, "The customer says that the answer did not help.")
        return _at(id)

    def answer(self, form: Values) -> str:
        """The person's answer from the desk."""
        id = form.get("c", "")
        self.store.add(id, Said("person", form.get("text", "")))
        self.store.move(id, "answered")
        return "/desk"

    def forget(self, form: Values) -> str:
        """The conversation is removed from the file."""
        self.store.forget(form.get("c", ""))
        return "/"

    def _hand_over(self, id: str, why: str) -> None:
        self.store.move(id, "waiting", why)
        self.store.add(id, Said("bot", HANDED.format(why=why)[:LONGEST]))


def _at(id: str) -> str:
    return f"/?c={quote(id, safe='')}"


def build(path: Path | None = None, desk: SupportDesk | None = None) -> Demo:
    """The demo; conversations are kept in ``path``, build/demos/bot.sqlite of the project without one. ``desk``: one that is
    fitted already.

    AssetError where MiniLM or BIG-bench is not fetched.
    """
    store = Conversations(path or (clone() or Path.cwd()) / "build" / "demos" / "bot.sqlite")
    pages = SupportPages(desk or SupportDesk(), store)
    views = (
        View("/", "Ask", "support_chat.html.j2", pages.chat),
        View("/desk", "Desk of the person", "support_person.html.j2", pages.person),
        View("/worth", "What it is worth", "support_worth.html.j2", pages.worth),
    )
    actions = {"say": pages.say, "judge": pages.judge, "answer": pages.answer, "forget": pages.forget}
    about = (
        "A demo of lesson 26. Texts stay on this machine; e-mail addresses, phone, card and account numbers are masked "
        "before they are stored. A name is not recognised: do not write one."
    )
    return Demo("bot", "Help for a voice assistant", about, views, actions)
