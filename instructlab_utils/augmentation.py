"""More sentences from the sentences that there are: the four operations of EDA with neighbours from an embedding table,
and back-translation, word by word, with a dictionary that is learned from pairs of sentences.

Each function is built in lesson 07 (notebooks/source/07_overfitting.py). A *sentence* is a list of words in lower case, of
any script (see `characters`); all randomness comes from the generator that the caller passes. A text in the place of a list
of words is a TypeError, a share outside 0…1 a ValueError.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from instructlab_utils.arguments import fraction, listed
from instructlab_utils.characters import is_word, pieces_of_text

Words = Sequence[str]
Dictionary = dict[str, dict[str, float]]


def words_of(text: str) -> list[str]:
    """Words and punctuation marks, in lower case. Joined by spaces they are the same tokens for an uncased WordPiece.

    A Chinese character is a word; the marks of a letter, as in Hindi, and the parts of an emoji stay with it.
    Source: lesson 07, section 4.
    """
    return pieces_of_text(text.lower())


def nearest_words(
    table: Tensor, vocabulary: Words, wanted: Collection[str], k: int = 5, least: int = 3
) -> dict[str, Words]:
    """For each wanted word of ``vocabulary`` the ``k`` others whose rows of ``table``, (V, d), have the largest cosine.

    Only words of ``least`` letters or more ask and answer: no pieces of words, no marks, no digits. Chinese needs least = 1.
    Raises ValueError where the table has fewer rows than there are words, or a word fewer than k others.
    Source: lesson 07, section 4.
    """
    rows = [i for i, w in enumerate(vocabulary) if is_word(w, least)]
    if len(table) < len(vocabulary) or not 0 < k < len(rows):
        raise ValueError(f"{len(table)} rows, {len(vocabulary)} words, {len(rows)} of them whole, k = {k}")
    unit = torch.nn.functional.normalize(table[rows], dim=1)
    asked = [row for row, i in enumerate(rows) if vocabulary[i] in wanted]
    near = (unit[asked] @ unit.T).topk(k + 1).indices[:, 1:].tolist()  # the nearest of all is the word itself
    return {
        vocabulary[rows[a]]: [vocabulary[rows[j]] for j in line] for a, line in zip(asked, near, strict=True)
    }


def replace_words(words: Words, near: Mapping[str, Words], n: int, rng: random.Random) -> list[str]:
    """``n`` words that have neighbours, or all where there are fewer, each replaced by one of its neighbours.

    Source: Wei and Zou (2019); lesson 07, section 4.
    """
    new = listed(words, "words")
    known = [i for i, word in enumerate(words) if word in near]
    for i in rng.sample(known, min(n, len(known))):
        new[i] = rng.choice(near[new[i]])
    return new


def insert_words(words: Words, near: Mapping[str, Words], n: int, rng: random.Random) -> list[str]:
    """``n`` times a neighbour of some word of the sentence, put anywhere. Source: Wei and Zou (2019); lesson 07."""
    new, known = listed(words, "words"), [word for word in words if word in near]
    for _ in range(n if known else 0):
        new.insert(rng.randrange(len(new) + 1), rng.choice(near[rng.choice(known)]))
    return new


def swap_words(words: Words, n: int, rng: random.Random) -> list[str]:
    """``n`` times two places exchanged. Source: Wei and Zou (2019); lesson 07, section 4."""
    new = listed(words, "words")
    for _ in range(n if len(new) > 1 else 0):
        i, j = rng.sample(range(len(new)), 2)
        new[i], new[j] = new[j], new[i]
    return new


def delete_words(words: Words, share: float, rng: random.Random) -> list[str]:
    """Each word left out with probability ``share``, but never all of them. Source: Wei and Zou (2019); lesson 07."""
    old, share = listed(words, "words"), fraction(share, "share")
    return [word for word in old if rng.random() >= share] or [rng.choice(old) for _ in old[:1]]


def eda(words: Words, near: Mapping[str, Words], share: float, rng: random.Random) -> list[str]:
    """One of the four operations, at random, on about ``share`` of the words and at least on one.

    Source: Wei and Zou (2019), with neighbours of an embedding table in place of WordNet; lesson 07, section 4.
    """
    n = max(1, round(fraction(share, "share") * len(words)))
    operation = rng.choice(["replace", "insert", "swap", "delete"])
    if operation == "replace":
        return replace_words(words, near, n, rng)
    if operation == "insert":
        return insert_words(words, near, n, rng)
    return swap_words(words, n, rng) if operation == "swap" else delete_words(words, share, rng)


def ibm_model_1(e: np.ndarray, g: np.ndarray, place: np.ndarray, rounds: int = 5) -> tuple[np.ndarray, ...]:
    """Expectation maximisation for t(g | e), the probability that the word e becomes g.

    Link l says that the word ``g[l]`` at ``place[l]`` among all target words may come from the word ``e[l]`` of its source
    sentence; words are numbers, all three arrays have the shape (links,). Returns the pairs e, g that occur and their t,
    three arrays; for each e the t add up to 1. Raises ValueError for arrays of unequal length, or without a link.
    Source: Brown et al. (1993); lesson 07, section 5.
    """
    if not len(e) == len(g) == len(place) > 0:
        raise ValueError(
            f"links of length {len(e)}, {len(g)} and {len(place)}: need the same, and at least one"
        )
    width = g.max() + 1
    cells, at = np.unique(e * width + g, return_inverse=True)
    row, t = cells // width, np.ones(len(cells))
    for _ in range(rounds):
        c = t[at] / np.bincount(place, t[at])[place]  # E: how much of this g comes from this e
        count = np.bincount(at, c)
        t = count / np.bincount(row, count)[row]  # M: the share of g in all that e became
    return row, cells % width, t


def dictionary(pairs: Sequence[tuple[Words, Words]], rounds: int = 5, least: float = 0.05) -> Dictionary:
    """word → {translation: probability} from pairs of sentences, without marks and without t < ``least``.

    The empty word "" stands in every source sentence and takes the words that come from nowhere.
    Source: lesson 07, section 5.
    """
    number: dict[str, int] = {}
    e, g, lengths = [], [], []
    for source, target in pairs:
        sides = ["", *listed(source, "source")], listed(target, "target")
        s, t = ([number.setdefault(w, len(number)) for w in side] for side in sides)
        e += s * len(t)
        g += [word for word in t for _ in s]
        lengths += [len(s)] * len(t)
    place, names = np.repeat(np.arange(len(lengths)), lengths), list(number)
    found: Dictionary = defaultdict(dict)
    for i, j, p in zip(*ibm_model_1(np.array(e), np.array(g), place, rounds), strict=True):
        if p >= least and is_word(names[i]) and is_word(names[j]):
            found[names[i]][names[j]] = float(p)
    return dict(found)


def back_translate(
    words: Words, there: Dictionary, back: Dictionary, share: float, rng: random.Random
) -> list[str]:
    """About ``share`` of the words go into the other language and back; a word that a dictionary lacks stays as it is.

    Both steps draw a translation by its probability. Source: lesson 07, section 5.
    """
    new, share = [], fraction(share, "share")
    for word in listed(words, "words"):
        if rng.random() < share and word in there:
            (middle,) = rng.choices(list(there[word]), list(there[word].values()))
            if middle in back:
                (word,) = rng.choices(list(back[middle]), list(back[middle].values()))
        new.append(word)
    return new
