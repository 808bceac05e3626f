"""Personal data out of texts and logs: what looks like it is found by its form and its checksum, and masked.

Kinds: EMAIL, PHONE, IBAN (by ISO 7064, mod 97), CARD (by Luhn), NAME (of a given list). A form that fails its checksum is
left alone. Digits of other scripts count as digits. This finds forms, not people: a name that is not on the list stays.
Built in lesson 22, section 10 (notebooks/source/22_safety.py).

Taught in lesson 22.
"""

from __future__ import annotations

import logging
import random
import re
import traceback
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from instructlab_utils.arguments import listed

KINDS = ("EMAIL", "IBAN", "CARD", "PHONE", "NAME")  # of two that overlap, the earlier kind counts

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@(?:[\w-]+\.)+\w{2,}", re.UNICODE)
_IBAN = re.compile(r"(?<!\w)[A-Za-z]{2}\d{2}(?:\s?[A-Za-z0-9]){11,30}(?!\w)")
_CODE = re.compile(r"(?=([A-Za-z]{2})\d{2})")
# Characters of an IBAN by country. Source: the IBAN registry of ISO 13616.
_LENGTHS = dict(
    AD=24, AE=23, AL=28, AT=20, AZ=28, BA=20, BE=16, BG=22, BH=22, BR=29, BY=28, CH=21, CR=22, CY=28, CZ=24, DE=22,
    DK=18, DO=28, EE=20, EG=29, ES=24, FI=18, FO=18, FR=27, GB=22, GE=22, GI=23, GL=18, GR=27, GT=28, HR=21, HU=28,
    IE=22, IL=23, IQ=23, IS=26, IT=27, JO=30, KW=30, KZ=20, LB=28, LI=21, LT=20, LU=20, LV=21, MC=27, MD=24, ME=22,
    MK=19, MR=27, MT=31, MU=30, NL=18, NO=15, PK=24, PL=28, PS=29, PT=25, QA=29, RO=24, RS=22, SA=24, SE=24, SI=19,
    SK=24, SM=27, TN=24, TR=26, UA=29, VA=22, VG=24, XK=20,
)  # fmt: skip
_OF_LENGTH = {n: re.compile(rf"[A-Za-z0-9](?:\s?[A-Za-z0-9]){{{n - 1}}}") for n in set(_LENGTHS.values())}
_CARD = re.compile(r"(?<!\d)\d(?:[\s-]?\d){12,18}(?!\d)")
_PHONE = re.compile(
    r"(?:(?<![\w+.-])|(?<=[^\W\d])(?=[+(]))(?:\+\d{1,3}[\s./-]?)?(?:\(\d{1,5}\)[\s./-]?)?"
    r"\d{2,5}(?:[\s./-]?\d{2,5}){1,4}(?![\d-]|[.]\d)"
)
_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@dataclass(frozen=True, order=True)
class Span:
    """Characters ``start`` to ``end`` of a text, of one of the kinds."""

    start: int
    end: int
    kind: str


def luhn(digits: str) -> bool:
    """Whether the checksum of a card number holds: from the right, every second digit doubled, 9 taken off above 9, the sum a
    multiple of 10. ValueError for anything but ASCII digits. Source: Luhn (1960); lesson 22, section 10."""
    if not digits or not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"{digits!r:.40} is no row of digits")
    doubled = [int(c) * (1 + place % 2) for place, c in enumerate(reversed(digits))]
    return sum(d - 9 * (d > 9) for d in doubled) % 10 == 0


def iban(text: str) -> bool:
    """Whether the checksum of an IBAN holds: country and check digits to the end, letters as 10 … 35, the whole mod 97 is 1.

    White space and case do not count. False for what has not the form. Source: ISO 13616, ISO 7064; lesson 22, section 10.
    """
    bare = "".join(text.split()).upper()
    if not re.fullmatch(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}", bare):
        return False
    return int("".join(str(int(c, 36)) for c in bare[4:] + bare[:4])) % 97 == 1


def plain_digits(text: str) -> str:
    """The text with each decimal digit of any script as an ASCII digit, and each blank of any kind as a space: no place
    moves."""
    return "".join(
        str(unicodedata.digit(c)) if c.isdecimal() else " " if c.isspace() or c in "\u200b\u2060" else c
        for c in text
    )


def find(text: str, names: Iterable[str] = ()) -> list[Span]:
    """Where personal data stand, in order, none overlapping. ``names`` are masked as whole words, whatever their case.

    A phone number has 7 to 15 digits, and a plus, a blank, a bracket, a slash or a leading 0. TypeError for no text.
    Source: lesson 22, section 10.
    """
    if not isinstance(text, str):
        raise TypeError(f"a text is wanted, not {text!r:.60}")
    seen, found = plain_digits(text), []
    found += [Span(*m.span(), "EMAIL") for m in _EMAIL.finditer(seen)]
    for m in _IBAN.finditer(seen):
        for end in range(m.end(), m.start() + 14, -1):  # the words behind it look like more of it
            if iban(seen[m.start() : end]) and not seen[end : end + 1].isalnum():
                found.append(Span(m.start(), end, "IBAN"))
                break
    for m in _CODE.finditer(seen):  # of a known length: whatever sticks to it, as in a damaged log line
        length = _LENGTHS.get(m[1].upper())
        if length and (whole := _OF_LENGTH[length].match(seen, m.start())) and iban(whole[0]):
            found.append(Span(*whole.span(), "IBAN"))
    found += [Span(*m.span(), "CARD") for m in _CARD.finditer(seen) if luhn(re.sub(r"\D", "", m[0]))]
    for m in _PHONE.finditer(seen):
        n = len(re.sub(r"\D", "", m[0]))
        sure = re.search(r"[\s(/]", m[0]) or m[0][0] == "+"
        if 7 <= n <= 15 and (sure or (m[0][0] == "0" and not seen[m.end() : m.end() + 1].isalnum())):
            found.append(Span(*m.span(), "PHONE"))
    for name in sorted({n for n in listed(names, "names") if n.strip()}, key=len, reverse=True):
        pattern = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE)
        found += [Span(*m.span(), "NAME") for m in pattern.finditer(text)]
    kept: list[Span] = []
    for span in sorted(found, key=lambda s: (KINDS.index(s.kind), s.start, -s.end)):
        if all(span.end <= other.start or other.end <= span.start for other in kept):
            kept.append(span)
    return sorted(kept)


def mask(text: str, names: Iterable[str] = ()) -> str:
    """The text with each span that :func:`find` finds as its kind in brackets: "call [PHONE]". Source: lesson 22, section
    10."""
    parts, at = [], 0
    for span in find(text, names):
        parts += [text[at : span.start], f"[{span.kind}]"]
        at = span.end
    return "".join([*parts, text[at:]])


def masked(value: Any, names: Iterable[str] = ()) -> Any:
    """The same for texts inside lists, tuples, sets and mappings, keys too; numbers, booleans and None stay, a number that
    hides a card or a phone becomes a masked text, and any other object its masked ``str``."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return mask(value, names)
    if isinstance(value, int | float):
        return value if mask(str(value), names) == str(value) else mask(str(value), names)
    if isinstance(value, Mapping):
        return {masked(k, names): masked(v, names) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [masked(v, names) for v in value]
    return mask(str(value), names)


class MaskingFilter(logging.Filter):
    """Put it on a *handler*: every record that the handler writes is masked first.

    Message with its arguments, exception with its traceback (also causes and contexts), stack, and every ``extra`` field.
    On a logger it would miss the records of loggers below it.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        super().__init__()
        self.names = listed(names, "names")

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = mask(record.getMessage(), self.names), None
        if record.exc_info and record.exc_info[1] is not None:
            told = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
            record.exc_info, record.exc_text = None, mask(told, self.names)
        elif record.exc_text:
            record.exc_text = mask(record.exc_text, self.names)
        if record.stack_info:
            record.stack_info = mask(record.stack_info, self.names)
        for key in set(vars(record)) - _STANDARD:
            setattr(record, key, masked(getattr(record, key), self.names))
        return True


# --- records to measure on --------------------------------------------------------------------------------------------

_FIRST = ("Anna", "James", "Maria", "Ahmed", "Olga", "Pedro", "Yuki", "Grace", "Ivan", "Fatima")
NAMES = _FIRST[:8]  # the list that a masker is given; the last two are not on it


def _with_luhn(body: str) -> str:
    return next(body + d for d in "0123456789" if luhn(body + d))


def _with_mod97(country: str, body: str) -> str:
    rest = int("".join(str(int(c, 36)) for c in body + country + "00")) % 97
    return f"{country}{98 - rest:02d}{body}"


def records(n: int, seed: int = 0) -> list[tuple[str, list[Span]]]:
    """``n`` invented log lines, each with the spans of personal data in it, or with something that only looks like it.

    All numbers are drawn at random; addresses end in example.org. Source: lesson 22, section 10.
    """
    rng, found = random.Random(seed), []

    def digits(k: int) -> str:
        return "".join(rng.choice("0123456789") for _ in range(k))

    def grouped(text: str, by: int = 4, sep: str = " ") -> str:
        return sep.join(text[i : i + by] for i in range(0, len(text), by))

    for _ in range(n):
        kind = rng.choice([*KINDS, "none", "none"])
        card, body = _with_luhn("4" + digits(14)), digits(18)
        good = _with_mod97("DE", body)
        first = rng.choice(_FIRST)
        numbers = [
            f"+49 30 {digits(7)}",
            f"(0{digits(3)}) {digits(6)}",
            f"0{digits(3)}/{digits(3)} {digits(4)}",
        ]
        numbers.append(f"+1-{digits(3)}-{digits(3)}-{digits(4)}")
        alike = [f"order {_wrong(card)}", f"version {rng.randrange(9)}.{digits(2)}.{digits(1)}"]
        alike += [f"2026-{rng.randrange(1, 10):02d}-{digits(1)}1", f"{digits(3)},{digits(3)} rows"]
        alike += [f"{good[:2]}{(int(good[2:4]) + 1) % 97:02d}{body}", f"ratio 0.{digits(8)}"]
        value = {
            "EMAIL": rng.choice(
                [f"{first.lower()}.{digits(2)}@example.org", f"a+{digits(3)}@mail.example.org"]
            ),
            "IBAN": rng.choice([good, grouped(good), grouped(good).lower()]),
            "CARD": rng.choice([card, grouped(card), grouped(card, 4, "-")]),
            "PHONE": rng.choice(numbers),
            "NAME": first,
            "none": rng.choice(alike),
        }[kind]
        ends = [("user wrote ", " today"), ("sent to ", "."), ("error near ", ", retry"), ("", " was seen")]
        before, after = rng.choice(ends)
        spans = [] if kind == "none" else [Span(len(before), len(before) + len(value), kind)]
        found.append((before + value + after, spans))
    return found


def _wrong(card: str) -> str:
    """The card's number with another last digit: the checksum fails."""
    return card[:-1] + str((int(card[-1]) + 1) % 10)


def recall_precision(
    said: Sequence[Sequence[Span]], truth: Sequence[Sequence[Span]]
) -> dict[str, tuple[float, float]]:
    """Kind → (recall, precision) over texts; a span counts where place and kind are right. nan where there is nothing to
    count.

    ValueError for other numbers of texts. Source: lesson 22, section 10.
    """
    if len(said) != len(truth):
        raise ValueError(f"{len(said)} texts searched, {len(truth)} with the truth: need one each")
    result = {}
    for kind in KINDS:
        got = {(i, s) for i, spans in enumerate(said) for s in spans if s.kind == kind}
        want = {(i, s) for i, spans in enumerate(truth) for s in spans if s.kind == kind}
        hits = len(got & want)
        result[kind] = (hits / len(want) if want else float("nan"), hits / len(got) if got else float("nan"))
    return result
