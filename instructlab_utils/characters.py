"""Texts in every script: the form in which two texts are compared, their words, and the script that most of them has.

A *word* is a run of letters, digits, their combining marks and ``_``; in a script that is written without spaces (Chinese,
Japanese, Thai, Lao, Khmer, Burmese) each character is one. An emoji, with all that is joined to it, is one too. In ASCII
the words are those of the pattern ``\\w+``. Whatever compares texts, looks for copies or for leaks does it by these
functions; the exceptions are official rules (SQuAD's, seqeval's, sacrebleu's), which stay as they are. From lesson 07 on.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import regex

UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
LETTER = r"\p{L}\p{M}\p{N}_"  # `re` has no marks in \w, and so breaks every word of Hindi
_PICTURE = r"\p{Extended_Pictographic}[\ufe0e\ufe0f\p{Emoji_Modifier}]*"
_EMOJI = rf"\p{{Regional_Indicator}}{{2}}|{_PICTURE}(?:\u200d{_PICTURE})*"
WORD = rf"{_EMOJI}|[{UNSPACED}]\p{{M}}*|(?:(?![{UNSPACED}])[{LETTER}][\u200c\u200d]*)+"
_WORDS = regex.compile(WORD)
_PIECES = regex.compile(rf"{WORD}|[^\s\x1c-\x1f]")
_ASCII_WORDS, _ASCII_PIECES = (
    re.compile(r"\w+"),
    re.compile(r"\w+|[^\w\s]"),
)  # the same there, and several times faster

# Spellings of one text that are folded: half and full width, ligatures, positional forms. Not folded: what says something
# else, such as the raised 2 of x² or the circle of ①.
_SPELLINGS = {"<wide>", "<narrow>", "<compat>", "<noBreak>", "<initial>", "<medial>", "<final>", "<isolated>"}
_SAME = {"-": "\u2010\u2011\u2012\u2013\u2212", "'": "‘’ʼ", '"': "“”„‟"}
_UNSEEN = "\u00ad\u200b\u200e\u200f\u2060\ufe0e\ufe0f\ufeff"


class _Folds(dict[int, str]):
    """Code point → its text in the form for comparison; filled as code points are met."""

    def __missing__(self, code: int) -> str:
        spelling = unicodedata.decomposition(chr(code)).partition(" ")[0]
        self[code] = unicodedata.normalize("NFKC", chr(code)) if spelling in _SPELLINGS else chr(code)
        return self[code]


_FOLDS = _Folds(
    {ord(c): to for to, same in _SAME.items() for c in same} | dict.fromkeys(map(ord, _UNSEEN), "")
)


def composed(text: str) -> str:
    """The text in Unicode's composed form (NFC): what decides where one of two copies is deleted, the narrowest equality."""
    return unicodedata.normalize("NFC", text)


def canonical(text: str, case: bool = False) -> str:
    """The form in which texts are compared: equal for what is the same text to a reader, different for what is not.

    Composed (NFC), with ASCII minus, hyphen and quotation marks, without full width, ligatures and characters that cannot be
    seen, and, unless ``case`` says that case counts, case-folded. ``café`` in either encoding is one text, ``５`` is ``5``,
    U+2212 is ``-``; ``x²`` is not ``x2``. Source: Unicode Standard Annex 15 and chapter 3.13 of the Unicode Standard.
    """
    if not text.isascii():
        text = composed(text.translate(_FOLDS))
    return text if case else composed(text.casefold())


def words_of_text(text: str) -> list[str]:
    """The words of the text (see above) in the form for comparison: without case, symbols and punctuation."""
    return _ASCII_WORDS.findall(text.lower()) if text.isascii() else _WORDS.findall(canonical(text))


def pieces_of_text(text: str) -> list[str]:
    """The words and every other character that is no white space, in order and as they are written."""
    return (_ASCII_PIECES if text.isascii() else _PIECES).findall(text)


def is_word(word: str, least: int = 1) -> bool:
    """Whether it is letters and their marks only, at least ``least`` characters."""
    return len(word) >= least and regex.fullmatch(r"\p{L}[\p{L}\p{M}\u200c\u200d]*", word) is not None


def script_of(texts: Sequence[str]) -> str:
    """The kind of script that most words of ``texts`` have: latin, chinese, other (spaced) or unspaced (the rest).

    Chinese characters among Japanese kana count as unspaced. Where there is no letter at all, latin.
    """
    ascii_texts = [text for text in texts if text.isascii()]
    counts = Counter(latin=sum(len(re.findall(r"\w*[A-Za-z]\w*", text)) for text in ascii_texts))
    for word in (word for text in texts if not text.isascii() for word in words_of_text(text)):
        if regex.match(r"\p{Han}", word):
            counts["chinese"] += 1
        elif regex.match(rf"[{UNSPACED}]", word):
            counts["unspaced"] += 1
        elif letter := regex.search(r"\p{L}", word):
            counts["latin" if regex.match(r"\p{Latin}", letter[0]) else "other"] += 1
    if 10 * counts["unspaced"] > counts["chinese"]:  # Japanese: at least a tenth is kana
        counts["unspaced"] += counts.pop("chinese", 0)
    return max(("latin", "chinese", "other", "unspaced"), key=lambda script: counts[script])


# --- one text inside another --------------------------------------------------------------------------------------

_INNER = rf"(?![{UNSPACED}])[{LETTER}]"  # a character of a word that goes on beside it
# A number, a word, or one symbol. A hyphen between words is none: well-known is well known.
_TOKEN = (
    rf"(?:(?<!{_INNER})-)?(?:(?<![{LETTER}.])\.)?\d+(?:[.,:/]\d+)*|{WORD}"
    r"|(?<!\p{L}{2})-|-(?!\p{L}{2})|!(?==)|[\p{S}#%‰&*@/\\]"
)
_PLAIN, _CODE = regex.compile(_TOKEN), regex.compile(rf"{_TOKEN}|[][(){{}}]")
_MARKUP = regex.compile(  # tags; emphasis and code; a formula between dollars
    r"</?[a-z][a-z0-9]*>|(?<!\w)(?P<mark>\*+|`+|_+|~~)(?=\S)(?P<inner>.+?)(?<=\S)(?P=mark)(?!\w)"
    r"|\$(?=\S)(?P<inner>[^$]+)(?<=\S)\$(?!\d)"
)
# A word that touches one of these is a part of something else: C++, non-toxic, ±5.
_GLUE = r"(?![=~|→⇒])[\p{Sm}%‰&@/\\^*°-]"
_LEFT = regex.compile(rf"(?<={_GLUE}|(?:\p{{Sc}}|!=|≠|¬)\s*)|(?<={_INNER})(?={_INNER})")
_RIGHT = regex.compile(rf"(?=#|{_GLUE}|\s*[%‰°\p{{Sc}}])|(?<={_INNER})(?={_INNER})")


@lru_cache(maxsize=64)  # one answer meets all options
def _plain(text: str) -> str:
    """In the form for comparison, without markup: tags, emphasis, dollars around a formula."""
    text = canonical(text)
    for _ in range(3):  # **`x`**
        text = _MARKUP.sub(lambda found: found["inner"] or " ", text)
    return text


def occurs(wanted: str, text: str) -> bool:
    """Whether the words and symbols of ``wanted`` stand in ``text``, in a row, whole, and whatever their case.

    Whole: C is not in C++, 50 not in 50 % nor in $50, toxic not in non-toxic, 5 not in 5th, 👎 not in 👍. Punctuation and the
    markup of Markdown, HTML and TeX do not count, brackets only where ``wanted`` has some. Where ``wanted`` is nothing but
    punctuation, it must stand there as it is.
    """
    token = _CODE if regex.search(r"[][(){}]", wanted) else _PLAIN
    tokens, said = token.findall(_plain(wanted)), _plain(text)
    if not tokens:
        return canonical(wanted) in canonical(text)
    if not all(part in said for part in tokens):  # most options are not said at all
        return False
    found, n = list(token.finditer(said)), len(tokens)
    runs = (found[i : i + n] for i in range(len(found) - n + 1))
    return any(
        [match[0] for match in run] == tokens
        and not (_LEFT.match(said, run[0].start()) or _RIGHT.match(said, run[-1].end()))
        for run in runs
    )
