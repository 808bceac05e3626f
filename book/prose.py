"""Markdown of the repository → Markdown of the site: links, and first mentions of lessons, claims and terms."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

FENCE = re.compile(r"^(?P<mark>`{3,}|~{3,})[^\n]*\n.*?^(?P=mark)[ ]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?P<picture>!?)\[(?P<text>(?:[^\[\]]|\[[^\[\]]*\])*)\]\((?P<target>[^()\s]+)\)")
CODE = re.compile(r"(`+)(?!`)(?:(?!\n\n).)+?(?<!`)\1(?!`)", re.DOTALL)
# Where no word may become a link: code, mathematics, links, tags, headings, and the list of references.
KEPT = re.compile(
    r"^(?P<mark>`{3,}|~{3,})[^\n]*\n.*?^(?P=mark)[ ]*$|^:{3,}[^\n]*$"
    r"|\*\*References\.\*\*.*\Z"
    r"|^\|[^\n]*\n(?=\|[ :|-]+\n)"  # the head of a table
    r"|^#+ [^\n]*$|^[ ]*<summary>[^\n]*$|^\([\w-]+\)=$"
    r"|\$\$.*?\$\$|(?<![\\$])\$(?!\s)[^$]+?(?<!\s)\$"
    r"|(?P<tick>`+)(?!`)(?:(?!\n\n).)+?(?<!`)(?P=tick)(?!`)"
    r"|!?\[(?:[^\[\]]|\[[^\[\]]*\])*\]\([^()]*\)"
    r"|<[^<>]+>|https?://\S+",
    re.MULTILINE | re.DOTALL,
)


HAN = "[\u3400-\u9fff]"


def outside(pattern: re.Pattern[str], text: str, change: Callable[[str], str]) -> str:
    """``text`` with ``change`` applied to what ``pattern`` does not match."""
    parts, at = [], 0
    for match in pattern.finditer(text):
        parts += [change(text[at : match.start()]), match[0]]
        at = match.end()
    return "".join([*parts, change(text[at:])])


@dataclass
class Links:
    """Repository paths → pages of the site. ``files`` collects what pages show or offer and is to be copied."""

    pages: Mapping[str, str]  # repository path, file or folder → path of the page's source
    labels: Mapping[str, str]  # "LEDGER.md#c1" → a label that is unique in the site
    exists: Callable[[str], bool]
    # repository path → HTML page of the other language's site
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    home: str = ""  # the folder of this language in the site
    repository: str = ""
    branch: str = "main"
    files: set[str] = field(default_factory=set)

    def rewrite(self, text: str, at: str, to: str = "") -> str:
        """The links of the Markdown ``text`` of the repository's file ``at``, as they are in the page ``to``."""
        return outside(FENCE, text, lambda part: outside(CODE, part, lambda p: self._links(p, at, to or at)))

    def _links(self, text: str, at: str, to: str) -> str:
        def change(match: re.Match[str]) -> str:
            place = self.place(match["target"], at, to, bool(match["picture"]))
            if place is None:
                return match["text"]
            inner = match["text"] if match["picture"] else self._links(match["text"], at, to)
            return f"{match['picture']}[{inner}]({place})"

        return LINK.sub(change, text)

    def place(self, target: str, at: str, to: str, picture: bool = False) -> str | None:
        """Where a link of ``at`` leads from the page ``to``; None where the site has nothing to lead to."""
        if re.match(r"[a-z]+:", target):
            return target
        path, _, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(at), path)) if path else at
        if page := self.elsewhere.get(path):
            return self.beside(page, to) + (f"#{anchor}" if anchor else "")
        if label := self.labels.get(f"{path}#{anchor}"):
            return f"#{label}"
        if page := self.pages.get(path):
            if page == to and anchor:
                return f"#{anchor}"
            relative = posixpath.relpath(page, posixpath.dirname(to) or ".")
            return relative + (f"#{anchor}" if anchor else "")
        if picture or (path.endswith((".toml", ".csv")) and self.exists(path)):
            self.files.add(path)
            return posixpath.relpath(path, posixpath.dirname(to) or ".")
        if self.repository:
            kind = "blob" if self.exists(path) else "tree"
            return f"{self.repository}/{kind}/{self.branch}/{path}"
        return None

    def beside(self, page: str, to: str) -> str:
        """Where the page ``to`` finds a page of HTML that this build does not make; "beside:" is a scheme of conf.py."""
        return f"beside:{posixpath.relpath(page, posixpath.join(self.home, posixpath.dirname(to)) or '.')}"


class Mentions:
    """Turns the first mention of each thing on a page into a link. One object a page: it remembers."""

    def __init__(
        self, found: Iterable[tuple[str, str, str, str]], page: str, edge: str = r"(?<![\w.-])"
    ) -> None:
        """``found``: (what, word, pattern, link), the link with ``{text}`` where the words of the page go; ``edge``: what
        must stand before a word (Chinese has no spaces).

        Only what the text of the page holds takes part: hundreds of patterns at each place would take a minute.
        """
        there = " ".join(page.lower().split())
        rows = [row for row in found if row[1].lower() in there]
        self.links = {f"g{i}": (what, link) for i, (what, _, _, link) in enumerate(rows)}
        either = "|".join(f"(?P<g{i}>{pattern})" for i, (_, _, pattern, _) in enumerate(rows))
        self.pattern = re.compile(rf"{edge}(?:{either or '(?!)'})")
        self.done: set[str] = set()

    def link(self, text: str) -> str:
        """``text`` with links; code, mathematics, headings and links stay as they are."""
        return outside(FENCE, outside(KEPT, text, lambda part: self.pattern.sub(self._once, part)), _emphasis)

    def _once(self, match: re.Match[str]) -> str:
        what, link = self.links[match.lastgroup or ""]
        if what in self.done:
            return match[0]
        self.done.add(what)
        return link.format(text=match[0])


def _emphasis(text: str) -> str:
    """Stars between a Chinese character and a link that was just made: CommonMark would let them stand as stars."""
    text = re.sub(rf"(?<={HAN})(?=\*{{1,2}}(?:\{{term\}}`|\[[^\]]*\]\())", "<!-- -->", text)
    return re.sub(rf"(?<=[`)])(\*{{1,2}})(?={HAN})", r"\1<!-- -->", text)


def words(text: str) -> str:
    """A caption without its Markdown, for a picture's alternative text."""
    text = LINK.sub(lambda match: match["text"], text)
    text = re.sub(r"\$([^$]*)\$", lambda m: re.sub(r"\\(?:text|mathrm|mathcal)|[\\{}]", "", m[1]), text)
    return " ".join(re.sub(r"[*`]|\{term\}|<term-[^>]*>", "", text).split())
