# ---
# jupyter:
#   instructlab:
#     id: "27"
#     title: "Companion: the same pipelines in Chinese"
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Exercises for lesson 27: the same pipelines in Chinese
#
# Each exercise is a box, a cell for your answer, and a checker in the cell below it. Replace the line that
# raises `NotImplementedError`, then run both cells. A checker that says no also says what probably went
# wrong.
#
# *Practice* exercises end with two hints and a solution. *Graded* exercises are tested on further cases
# that you do not see here, so test more than the checker does. You need no Chinese: characters are compared, not read.
#
# {{overview}}

# %%
import random
import unicodedata

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from instructlab_utils import checking

# %% [markdown]
# ## 27.1 Copies across the split
#
# > ●●○○○ · 10 minutes · practice
#
# Return the share of the texts in `test` that also stand in `train`. Two texts are the same if they differ only in the width
# of characters (`５` and `5`, `，` and `,`) or in white space, wherever it stands. Case counts. A test text that stands twice
# in `test` counts twice. With an empty `test` the share is 0.


# %% nbgrader={"grade_id": "answer_27_1", "solution": true}
def copied(train, test):
    """Return a float from 0 to 1; train and test are lists of str."""

    ### BEGIN SOLUTION
    def plain(text):
        return "".join(unicodedata.normalize("NFKC", text).split())

    known = {plain(text) for text in train}
    return sum(plain(text) in known for text in test) / len(test) if test else 0.0
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_27_1", "locked": true}
def narrow(text):
    """Every full-width form as its ASCII twin, one by one; no white space."""
    return "".join(chr(ord(c) - 0xFEE0) if "！" <= c <= "～" else c for c in text if not c.isspace())


def copied_by_loops(train, test):
    hits = [any(narrow(a) == narrow(b) for b in train) for a in test]
    return sum(hits) / len(hits) if hits else 0.0


def check_27_1(copied):
    call = checking.calls(copied)

    def share(train, test, want, says):
        checking.equal(call(train, test), want, "the share", says=says)

    share(["很好", "太差"], ["很好", "一般"], 0.5, "One of two test texts stands in train.")
    says = "The full-width 5 of '打５折' and the 5 of '打5折' are one character in two widths: unicodedata.normalize."
    share(["打５折"], ["打5折", "打8折"], 0.5, says)
    says = "White space does not count, also inside a text: the full-width blank is white space too."
    share(["很好很好", "太差"], ["很好\u3000很好", " 太差\n", "不好"], 2 / 3, says)
    says = "A test text that stands twice counts twice: go through the list, not through a set."
    share(["很好"], ["很好", "很好", "差"], 2 / 3, says)
    says = "The share is one of the test texts, not of the train texts."
    share(["很好", "差", "贵"], ["很好"], 1.0, says)
    share(["iPhone"], ["iphone"], 0.0, "Case counts: iPhone and iphone are two texts.")
    share(["很好看"], ["很好"], 0.0, "A text that is a part of another is no copy of it.")
    share(["很好"], [], 0.0, "An empty test set: the share is 0.")
    rng = random.Random(0)
    for _ in range(8):
        train, test = (["".join(rng.choices("好差5５,， ", k=3)) for _ in range(12)] for _ in range(2))
        call.agrees(copied_by_loops, (train, test), name="the share")
    print("27.1 passed.")


check_27_1(copied)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `unicodedata.normalize("NFKC", text)` gives every character its normal width.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `"".join(text.split())` has no white space. Put the plain train texts into a set, and walk through the test list.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 27.2 A tokenizer that never stops
#
# > ●●○○○ · 15 minutes · graded
#
# `encode(text, ids, window)` turns a text into exactly `window` numbers: 2 (*open*), then the numbers of its characters
# without white space, then 0 (*padding*) up to the end. A character that `ids` lacks is 1. A longer text is cut at the end.
# `window` is at least 1.


# %% nbgrader={"grade_id": "answer_27_2", "solution": true}
def encode(text, ids, window):
    """Return a list of window ints; text is a str, ids a dict from character to int."""
    ### BEGIN SOLUTION
    found = [2] + [ids.get(c, 1) for c in text if not c.isspace()]
    return found[:window] + [0] * (window - len(found))
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_27_2", "grade": true, "points": 2, "locked": true}
def encode_by_places(text, ids, window):
    characters = "".join(text.split())
    out = [0] * window
    out[0] = 2
    for place, c in enumerate(characters[: window - 1], start=1):
        out[place] = ids[c] if c in ids else 1
    return out


def check_27_2(encode):
    call, ids = checking.calls(encode), {"很": 4, "好": 5, "差": 6}
    got = call("很好", ids, 5)
    wrong = {
        "The opening 2 is missing.": [4, 5, 0, 0, 0],
        "The padding stands in front: it belongs to the end.": [0, 0, 2, 4, 5],
        "The list is shorter than the window: fill it with 0.": [2, 4, 5],
        "The opening 2 makes the list one longer than the window.": [2, 4, 5, 0, 0, 0],
    }
    checking.equal(got, [2, 4, 5, 0, 0], "the numbers", wrong)
    wrong = {
        "An unknown character vanished. It is 1: otherwise its neighbours would seem to touch.": [2, 4, 5, 0],
        "An unknown character is 1; 0 is padding, and the model would not look at it.": [2, 4, 0, 5],
    }
    checking.equal(call("很贵好", ids, 4), [2, 4, 1, 5], "the numbers", wrong)
    says = "White space got a number: leave it out, it is no unknown character."
    checking.equal(call("很 \u3000好\n", ids, 4), [2, 4, 5, 0], "the numbers", says=says)
    says = "A long text: 2 counts as one of the window's places, and the end is cut."
    checking.equal(call("很好差很好", ids, 4), [2, 4, 5, 6], "the numbers", says=says)
    checking.equal(call("", ids, 3), [2, 0, 0], "the numbers", says="An empty text has its opening 2.")
    ### BEGIN HIDDEN TESTS
    rng = random.Random(1)
    for window in (1, 2, 7, 30):
        for _ in range(4):
            text = "".join(rng.choices("很好差贵 \t𠮷", k=rng.randrange(12)))
            call.agrees(encode_by_places, (text, ids, window), name="the numbers")
    ### END HIDDEN TESTS
    print("27.2 passed.")


check_27_2(encode)

# %% [markdown]
# ## 27.3 The names that lost their halves
#
# > ●●●○○ · 20 minutes · practice · bug hunt
#
# The corpus has words with tags: 王/nr 小明/nr 在/p 北京/ns. This program writes BIO tags for characters. Somebody
# complains that no person has a given name, that Zhangjiakou became three places, and that an empty word stops it. Find
# three bugs.
#
# The right rules: a *name* is a word tagged `nr`, `ns` or `nt`; each is a span of its own. Only one thing is joined: an `nr`
# of **one character**, if the next word is `nr` too, is a surname, and the two words are one span. Then the next word may
# begin a new name: 王/nr 小明/nr 李/nr 红/nr are two persons. A word without characters gives no tag, and is not there
# for any rule.


# %%
def broken_tags(words):
    tags = []
    for word, kind in words:
        for i, _ in enumerate(word):
            if kind in ("nr", "ns", "nt"):
                tags.append(f"B-{kind}" if len(word) > 2 or i == 0 else f"I-{kind}")
            else:
                tags.append("O")
        if word[0] == "的":  # 的 never stands in a name
            tags[-1] = "O"
    return tags


print(broken_tags([("在", "p"), ("北京", "ns")]))  # fine
print(broken_tags([("王", "nr"), ("小明", "nr")]))  # two persons
print(broken_tags([("张家口", "ns")]))  # three places


# %% nbgrader={"grade_id": "answer_27_3", "solution": true}
def tags_of(words):
    """Return a list of BIO tags, one a character; words is a list of (word, part of speech)."""
    ### BEGIN SOLUTION
    tags, surname = [], False
    for word, kind in words:
        if not word:
            continue
        if kind not in ("nr", "ns", "nt"):
            tags += ["O"] * len(word)
            surname = False
            continue
        joined = surname and kind == "nr"
        tags += [f"{'I' if joined else 'B'}-{kind}"] + [f"I-{kind}"] * (len(word) - 1)
        surname = kind == "nr" and len(word) == 1 and not joined
    return tags
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_27_3", "locked": true}
def tags_by_spans(words):
    """First the words that belong together, then their tags."""
    rest, groups = [(w, k) for w, k in words if w], []
    while rest:
        (word, kind), rest = rest[0], rest[1:]
        if kind == "nr" and len(word) == 1 and rest and rest[0][1] == "nr":
            word, rest = word + rest[0][0], rest[1:]
        groups.append((word, kind))
    named = {"nr", "ns", "nt"}
    return [("B-" if i == 0 else "I-") + k if k in named else "O" for w, k in groups for i in range(len(w))]


def check_27_3(tags_of):
    call = checking.calls(tags_of)

    def read(line, want, wrong=None, says=""):
        words = [tuple(item.rsplit("/", 1)) for item in line.split()]
        checking.equal(call(words), want.split(), f"{line}: the tags", wrong or {}, says=says)

    read("在/p 北京/ns", "O B-ns I-ns")
    read(
        "张家口/ns",
        "B-ns I-ns I-ns",
        says="Only the first character of a place begins it, however long it is.",
    )
    wrong = {
        "王 and 小明 are two persons. A surname of one character takes the next nr with it.": [
            "B-nr",
            "B-nr",
            "I-nr",
        ]
    }
    read("王/nr 小明/nr", "B-nr I-nr I-nr", wrong)
    wrong = {
        "Two persons became one: a given name ends the person.": ["B-nr", "I-nr", "I-nr", "I-nr", "I-nr"],
    }
    read("王/nr 小明/nr 李/nr 红/nr", "B-nr I-nr I-nr B-nr I-nr", wrong)
    says = "河南省 and 滑县 touch, and are two places: only a surname is joined."
    read("河南省/ns 滑县/ns", "B-ns I-ns I-ns B-ns I-ns", says=says)
    says = "An nr of two characters is a name of its own: only a surname of one character is joined."
    read("小明/nr 小红/nr", "B-nr I-nr B-nr I-nr", says=says)
    read("王/nr 和/c 小明/nr", "B-nr O B-nr I-nr", says="A word between the two: there is nothing to join.")
    read("王/nr 北京/ns", "B-nr B-ns I-ns", says="A surname is joined with a person only.")
    says = "A word without characters gives no tag, and is not there for any rule."
    checking.equal(call([("王", "nr"), ("", "x"), ("明", "nr")]), ["B-nr", "I-nr"], "the tags", says=says)
    checking.equal(call([]), [], "the tags", says="No words, no tags.")
    rng = random.Random(2)
    pool = [
        ("王", "nr"),
        ("小明", "nr"),
        ("红", "nr"),
        ("京", "ns"),
        ("张家口", "ns"),
        ("院", "nt"),
        ("的", "u"),
        ("", "w"),
    ]
    call.agrees(tags_by_spans, *[(rng.choices(pool, k=n),) for n in 6 * [2, 3, 5, 9]], name="the tags")
    print("27.3 passed.")


check_27_3(tags_of)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# One of the three bugs is a condition that looks at the length of a word, one reads a word's first character, and one is
# something that is not there.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Carry one thing from word to word: *the last word was a surname that waits*. What ends the waiting?
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 27.4 Train on what you count
#
# > ●●●○○ · 25 minutes · practice
#
# Invented reviews: 好 is *good*, 差 is *bad*, and 不 (*not*) directly before one of them turns it round. A good review says
# 不差 and 好, a bad one 不好 and 差, in any order. All else is noise. Some customers type commas in half width, some put
# blanks between all characters.
#
# `grams(text)` returns the features of one text, a list of str. The checker counts them, trains a logistic regression on
# 300 texts (`TfidfVectorizer(analyzer=grams)`), and looks at 300 new ones, whose positions, lengths and shops differ from the
# training texts. The accuracy must be at least $0.95$, with at most 4,000 different features.


# %% nbgrader={"grade_id": "answer_27_4", "solution": true}
def grams(text):
    """Return a list of str."""
    ### BEGIN SOLUTION
    text = "".join(unicodedata.normalize("NFKC", text).split())
    return [text[i : i + k] for k in (1, 2) for i in range(len(text) - k + 1)]
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_27_4", "locked": true}
def shop(seed, n, lead, shortest, places):
    """n invented reviews with labels: some characters of ``lead``, a place, then 不差 and 好, or 不好 and 差."""
    rng, texts, labels = random.Random(seed), [], []
    for _ in range(n):
        label = rng.randrange(2)
        words = [["不好", "差"], ["不差", "好"]][label]
        rng.shuffle(words)
        text = (
            "".join(rng.choices(lead, k=shortest + rng.randrange(8))) + rng.choice(places) + "，".join(words)
        )
        text += rng.choice(["", "。", "！", "，不多说"])
        form = rng.randrange(3)
        text = (
            " ".join(text) if form == 1 else text.replace("，", ",").replace("！", "!") if form == 2 else text
        )
        texts.append(text)
        labels.append(label)
    return texts, np.array(labels)


def check_27_4(grams):
    call = checking.calls(grams)
    got = call("不好")
    assert isinstance(got, list) and got and all(isinstance(each, str) for each in got), (
        f"Return a list of str, not {checking.shown(got)}."
    )
    for seed in (0, 1):
        texts, y = shop(seed, 300, "这店书酒", 1, ["甲", "乙"])
        new, new_y = shop(seed + 50, 300, "机房货架上", 10, ["丙", "丁"])
        rows = {text: call(text) for text in [*texts, *new]}
        kinds = len({each for text in texts for each in rows[text]})
        assert kinds <= 4000, (
            f"{kinds} different features for 300 texts: nearly every text has its own. Use shorter pieces."
        )
        vectors = TfidfVectorizer(analyzer=rows.get)
        model = LogisticRegression(C=10, max_iter=1000).fit(vectors.fit_transform(texts), y)
        spaced = np.array([" " in text for text in new])
        hits = model.predict(vectors.transform(new)) == new_y
        train = model.score(vectors.transform(texts), y)
        told = f"World {seed}: accuracy {hits.mean():.2f} on new texts, {train:.2f} on the trained ones."
        assert not (hits[~spaced].mean() >= 0.95 > hits[spaced].mean()), (
            f"{told} The texts with blanks go wrong: there 不 and 好 do not touch. Take the white space out first."
        )
        assert train >= 0.95, (
            f"{told} Single characters cannot say it: every text holds 不, 好 and 差. Which pairs can?"
        )
        assert hits.mean() >= 0.95, (
            f"{told} It learned the training texts by heart. Do your features name places in the text?"
        )
    print("27.4 passed.")


check_27_4(grams)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Which two characters together tell the label, wherever they stand?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# White space out, width folded, then all characters and all pairs of neighbours.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 27.5 What the masks leave
#
# > ●●○○○ · 8 minutes · practice · prediction
#
# A text of 1,000 characters, with 20 special tokens between them. BERT's masking asks for $15\%$ of the characters; of those
# asked $80\%$ become the mask, $10\%$ another character, $10\%$ stay. Predict the expected numbers:
#
# - `targets`: places where the loss is counted;
# - `masks`: places that hold the mask;
# - `sight`: places where the loss asks for a character that stands there in plain sight;
# - `changed`: places whose input differs from the text. (The other character is never the old one, say.)


# %% nbgrader={"grade_id": "answer_27_5", "solution": true}
def prediction():
    """Return a dict of four numbers: targets, masks, sight, changed."""
    ### BEGIN SOLUTION
    return {"targets": 150, "masks": 120, "sight": 15, "changed": 135}
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_27_5", "locked": true}
def check_27_5(prediction):
    mine = checking.predicted(prediction, ("targets", "masks", "sight", "changed"))

    def number(name, want, wrong, says):
        checking.equal(mine[name], want, name, wrong, tol=0.004, says=says)

    wrong = {
        "targets: special tokens are never asked.": 0.15 * 1020,
        "targets: the loss is counted at every asked place, not only under a mask.": 120,
        "targets: the loss skips what is not asked; a text of 1,000 has far fewer targets.": 1000,
    }
    number("targets", 150, wrong, "targets: fifteen of a hundred characters.")
    wrong = {
        "masks: not every asked character is hidden.": 150,
        "masks: the shares are of the asked, not of all.": 800,
    }
    number("masks", 120, wrong, "masks: eighty of a hundred asked ones.")
    wrong = {
        "sight: most characters stand in plain sight, but the loss does not ask for them.": 850,
        "sight: a place with another character does not show the one that is asked for.": 30,
        "sight: ten of a hundred of the asked, not of all.": 100,
    }
    number("sight", 15, wrong, "sight: ten of a hundred asked ones.")
    wrong = {
        "changed: a tenth of the asked stays as it is.": 150,
        "changed: another character is a change, too.": 120,
    }
    number("changed", 135, wrong, "changed: masks and other characters.")
    print("27.5 passed.")


check_27_5(prediction)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# First how many are asked. All other shares are shares of these.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Masks, others and unchanged ones add up to the targets.
#
# </details>
#
# {{solution}}
