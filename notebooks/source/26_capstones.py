# ---
# jupyter:
#   instructlab:
#     id: "26"
#     title: Capstones and the ledger
#     outcome: build three applications, measure what they are worth, and read the closed ledger of claims
#     assets: [minilm, smollm2, bigbench, vader, bbc]
#     minutes: {smoke: 1.5, laptop: 4, gpu: 3}
#     class_minutes: 180
#     budget:
#       n_streams: {smoke: 2, laptop: 60, gpu: 200}
#       n_asked: {smoke: 12, laptop: 120, gpu: 500}
#       n_sent: {smoke: 40, laptop: 400, gpu: 1000}
#       n_marked: {smoke: 30, laptop: 300, gpu: 800}
#       n_medical: {smoke: 12, laptop: 160, gpu: 400}
#       n_worlds: {smoke: 2, laptop: 12, gpu: 40}
#       n_trips: {smoke: 2, laptop: 8, gpu: 8}
#       rounds: {smoke: 30, laptop: 2000, gpu: 2000}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 26 Capstones and the ledger
#
# **The question.** The articles promise applications: customer service, the watching of opinions, recommendations, and a
# dozen more. You have all the parts now. When you put them together, what is the whole worth, and how would you know?
#
# This lesson builds three applications end to end and measures each; six small cases follow. Then it closes the books:
# every claim of the articles, its verdict, and what would change our mind.
#
# | | |
# |---|---|
# | before this | lessons 03 (intervals), 20 (heads on kept features), 22 (review by people), 24 (search, constraints) |
# | time | smoke: about two minutes · laptop: about four minutes on one core · gpu: not measured yet |
# | memory | under 2 GB |
# | models | MiniLM, an encoder of 22 million weights; SmolLM2, a decoder of 135 million; both stay as they are |
# | data | intents, service dialogues, SQuAD, VitaminC, films; rated sentences; BBC headlines: licences in `data/cards/` |
# | box of lesson 00's chain | all of them, and what comes after: *use* |
#
# **You will be able to**
#
# - *design* an application whose model may say "a person should answer this", and choose when by cost;
# - *find* the leaks in an evaluation of recommendations, and measure what they are worth;
# - *derive* one ranker for likes and texts, and decide where a text model helps;
# - *read* a ledger of claims: verdict, interval, price, and which claim cannot be tested at all.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
seed: int = 0  # which rows are asked, which titles are cold

# %%
import functools
import heapq
import itertools
import math

import numpy as np
import torch

from instructlab_utils import (
    features,
    metrics,
    models,
    plotting,
    reading,
    recommending,
    retrieval,
    start,
    tasks,
)
from instructlab_utils.characters import words_of_text
from instructlab_utils.errors import ParameterError
from instructlab_utils.intervals import t_interval, wilson_interval

run = start("26", profile=profile, seed=seed)
show = functools.partial(plotting.show, run)
g = torch.Generator().manual_seed(seed)

# %% [markdown]
# ## 1 A customer writes
#
# **Predict.** A bot knows seven services of a voice assistant: playlists, tables, weather and so on. Four customers write.
# Which two should it *not* answer?

# %%
from instructlab_apps.demos import support_check, support_desk

desk = support_desk.SupportDesk()
for text in (
    "can you get us a table for four on friday",
    "i need a bus to Leeds tomorrow",
    "will i need an umbrella this evening",
    "I want to speak to a human",
):
    reply = desk.reply(text)
    said = f"a person takes over. {reply.why}" if reply.person else f"“{reply.article.title}”"
    print(f"{text:45s} sure {reply.confidence:.2f}   {said}")

# %% [markdown]
# **Observe.** Buses are no service of this desk, and a human was asked for. Nothing was generated: the bot *chose* an
# answer that somebody wrote, or handed over and said why. That it can say no is most of its design.
#
# The symbols of this lesson:
#
# | symbol | meaning |
# |---|---|
# | $p$ | the chance that an answer, or a choice, is right |
# | $c_w$, $c_h$ | cost of a wrong answer; of a person who takes over |
# | $X$, $x_{ui}$ | table of likes, rows $u$, titles $i$: one where row $u$ holds title $i$ |
# | $n_i$, $n_{ij}$ | how many rows hold $i$; $i$ and $j$ |
# | $f_i$, $w$ | features of title $i$ for one history; the ranker's weights |
# | $U$, $V$ | factors of rows and of titles |
# | $r$ | place in a list, from 1 |
#
# ## 2 Application 1: customer service
#
# **What the articles promise** (all five, section on customer service): the model recognises the intent of a question,
# finds it in a knowledge base, fills a template, and the service becomes quick and right at all hours.
#
# **Predict.** Which step of the diagram makes the others safe?

# %%
box = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": "black"}


def chain(names, notes, file, width=7.6):
    """Boxes in a row with arrows between them, and a note below each."""
    figure, axis = plotting.axes(width=width, height=1.35, dpi=85)
    axis.axis("off")
    for place, (name, note) in enumerate(zip(names, notes, strict=True)):
        axis.text(place, 0, name, ha="center", va="center", fontsize=9, bbox=box)
        axis.text(place, -0.42, note, ha="center", va="top", fontsize=8, color="dimgrey")
        if place:
            axis.annotate("", (place - 0.34, 0), (place - 0.66, 0), arrowprops={"arrowstyle": "-|>"})
    axis.set(xlim=(-0.5, len(names) - 0.5), ylim=(-1.1, 0.5))
    show(figure, file)


# %%
steps = ["text", "topic", "article", "chance", "answer\nor person"]
notes = [
    "",
    "head on\nMiniLM",
    "words and\nvectors, fused",
    "five numbers,\none logit",
    "cheapest\nthreshold on dev",
]
chain(steps, notes, "26_bot")

# %% [markdown]
# *Figure: the bot. Text becomes a topic (lesson 20's head), the topic's best article (lesson 24's fused lists), and a
# chance that this article is right. Below a threshold a person takes over.*
#
# **The rule by cost.** Answering costs $(1 - p)\, c_w$ on average, handing over $c_h$. So answer where
#
# $$ p \ge 1 - \frac{c_h}{c_w} . $$
#
# This holds if $p$ is *calibrated*. It may not be, so the bot takes the threshold that was cheapest on dev customers.

# %%
ratio = support_desk.COSTS["wrong"] / support_desk.COSTS["person"]
limits, costs = np.array(desk.dev_cost).T
figure, axis = plotting.axes(width=5.0, height=2.7, dpi=85)
axis.plot(limits, costs, label="mean cost on dev", **plotting.style(0) | {"marker": ""})
axis.axvline(desk.threshold, color="black", linestyle=":", label="cheapest")
axis.axvline(1 - 1 / ratio, color="grey", linestyle="--", label="by the formula")
axis.axhline(support_desk.COSTS["person"], color="grey", linewidth=0.8, label="always a person")
axis.set(xlabel="threshold on the chance", ylabel="cost of a customer", ylim=(0, None))
axis.legend(fontsize=7)
show(figure, "26_threshold")
print(
    f"a wrong answer costs {ratio:g} hand-overs; threshold {desk.threshold:.2f}, formula {1 - 1 / ratio:.2f}"
)

# %% [markdown]
# *Figure: cost against threshold. On the left end the bot answers everything, on the right a person does.*
#
# **The evaluation.** Held-out customers: half write as in the training data, the others in words of another data set, in
# our words, or about services that the desk does not have. Dialogues of one to three turns are composed from them: a
# dialogue is *solved* if every need is answered rightly.

# %%
report = support_check.evaluate(desk, seed)
for name in ("solved", "wrong", "person"):
    share = getattr(report.dialogues, name)
    run.record(**{f"bot_{name}": share.mean})
    print(f"{name:7s} {share.mean:.2f} [{share.low:.2f}, {share.high:.2f}] of {report.dialogues.n} dialogues")
print(f"handed over though the bot had it right: {report.needless.mean:.2f}")
for source, shares in report.sources.items():
    print(f"   single texts, {source:8s} {shares.solved.mean:.2f} solved, {shares.wrong.mean:.2f} wrong")
print(f"cost {report.cost:.2f}; people only {report.cost_people:.2f}, bot only {report.cost_bot:.2f}")

# %%
at, answered, wrong, paid = np.array(report.curve).T
figure, axis = plotting.axes(width=4.8, height=2.7, dpi=85)
axis.plot(answered, wrong, label="wrong answers", **plotting.style(0) | {"marker": ""})
axis.plot(answered, paid / ratio, label=f"cost / {ratio:g}", **plotting.style(1) | {"marker": ""})
axis.set(xlabel="share of customers that the bot answers", ylabel="share of all customers", ylim=(0, None))
axis.legend(fontsize=7)
show(figure, "26_bot_curve")

# %% [markdown]
# *Figure: the more the bot answers, the more it answers wrongly. A point is a threshold.*
#
# **Observe.** The last step makes the others safe. *Always a person* and *always the bot* both cost more than the mixture
# (the last line; costs are those of a single text). Look at the texts in our own words, too: there most wrong answers are.
#
# **What it cannot.** The dialogues are composed, the articles and some questions are ours, and nobody was annoyed. That a
# hand-over is followed by help is assumed. **Its page:** `python -m instructlab_utils demo bot`.
#
# ## 3 Application 2: watching opinions
#
# **What the articles promise:** the model sorts financial news and posts by topic, tells positive from neutral from
# negative, follows the trend, and warns in time. Our stream has no posts about money: these are rated sentences of
# newspaper editorials, and topics are learned from BBC headlines. What is tested is the machine, not the market.

# %%
from instructlab_apps.demos import opinion_alarm, opinion_check, opinion_stream

steps = ["sentence", "topic", "mood", "sum $S$", "alarm"]
notes = ["", "head on\nMiniLM", "head on\nMiniLM", "grows with\nnegatives", "limit set by\nsimulation"]
chain(steps, notes, "26_monitor")

# %% [markdown]
# *Figure: the monitor. Two heads read each sentence; a sum per topic rises with negative ones and falls with the others.*
#
# **The alarm.** A share of negatives $q_0$ is usual; an episode doubles its odds, to $q_1$. Add up the evidence for the
# episode, and forget what lies below zero (Page's CUSUM, 1954):
#
# $$ S_t = \max\Big(0,\; S_{t-1} + \ln \frac{P_{q_1}(x_t)}{P_{q_0}(x_t)}\Big), \qquad
# \text{alarm where } S_t > \text{limit} . $$
#
# The limit comes from simulation, for a stated chance of a false alarm. **Predict.** A head that misreads many sentences:
# what does it cost, false alarms or delay?

# %%
reader = opinion_stream.OpinionReader()
source = opinion_stream.Source(reader.items["test"], len(reader.topics), seed)
watch, at = opinion_alarm.Watch(), reader.topics.index("business")
for step in range(opinion_alarm.QUIET + 500):
    if step == opinion_alarm.QUIET + 250:
        source.strike(at, opinion_check.LENGTH)
    item, _ = source.next(at)
    watch.see(item.read == 0)
figure, axis = plotting.axes(width=5.4, height=2.6, dpi=85)
axis.plot(watch.sums, **plotting.style(0) | {"marker": ""})
axis.axhline(watch.limit, color="black", linestyle=":", label="limit")
axis.axvspan(250, 250 + opinion_check.LENGTH, color="lightgrey", label="planted episode")
axis.set(xlabel="watched sentences", ylabel="$S$")
axis.legend(fontsize=7)
show(figure, "26_cusum")

# %% [markdown]
# *Figure: one stream. After an alarm the sum begins again at zero.*

# %%
found = opinion_check.heads(reader)
print(f"topic {found.topic.mean:.2f} [{found.topic.low:.2f}, {found.topic.high:.2f}];", end=" ")
print(
    f"mood {found.mood.mean:.2f} [{found.mood.low:.2f}, {found.mood.high:.2f}], largest mood {found.largest:.2f}"
)
n = run.budget.n_streams
checked = opinion_check.alarms(reader, seed=seed, quiet=n, loud=n)
for name, a in checked.items():
    delay = a.delay[len(a.delay) // 2] if a.delay else math.nan
    print(
        f"moods by {name:7s} quiet streams with an alarm {a.false.mean:.2f} [{a.false.low:.2f}, {a.false.high:.2f}],",
        end=" ",
    )
    print(f"precision {a.precision.mean:.2f}, recall {a.recall.mean:.2f}, median delay {delay:.0f}")
    run.record(**{f"monitor_{name}_recall": a.recall.mean, f"monitor_{name}_false": a.false.mean})

# %% [markdown]
# **Observe.** Compare the two rows: the same streams, read by the head and by people. The chance of a false alarm was fixed
# beforehand for both, since each counts its *own* usual share first. So a weak head costs recall and delay. Accuracy of
# the mood alone would not have told that.
#
# **What it cannot.** The episodes are planted, with a size that we chose. Real news comes in bursts that are not
# independent, and a reader of editorials may misread a post. **Its page:** `python -m instructlab_utils demo monitor`.
#
# ## 4 Application 3: recommendation, and what is in the data
#
# **What the articles promise:** the texts of the items and the behaviour of the users together give more precise
# recommendations than behaviour alone. That is claim C24, and we can test it. Our data: rows of five films that were liked
# together, made from MovieLens by BIG-bench. There is **no user, no date, no dislike and no text but the title**.

# %%
rows = [row for part in tasks.load("movies").splits.values() for row in part]
data = recommending.likes(rows)
N, I = data.table.shape
print(rows[0]["input"], "→", " | ".join(rows[0]["options"]))
count = data.table.sum(0)
order = count.sort(descending=True).indices
print(f"\n{N} rows, {I} titles; most liked:", ", ".join(data.titles[i] for i in order[:3].tolist()))
print(f"half of all likes go to {int((count[order].cumsum(0) < count.sum() / 2).sum()) + 1} titles")

# %% [markdown]
# **Predict.** The file asks: which of four options was liked too? Take the option that is liked in most *other* rows, and
# look at the history not at all. How often is that right: one time in four, two in four, nearly always?

# %%
times = dict(zip(data.titles, count.tolist(), strict=True))
right = 0
for row, options in enumerate(data.options):
    own = set(itertools.compress(data.titles, data.table[row].bool().tolist()))
    likes = [times.get(title, 0) - (title in own) for title in options]
    asked = options.index(data.titles[data.asked[row]])
    right += (likes[asked] == max(likes)) / likes.count(max(likes))
strangers = {title for options in data.options for title in options} - set(data.titles)
share = wilson_interval(round(right), N)
run.record(popularity_on_options=share.mean)
print(f"popularity alone: {share.mean:.3f} [{share.low:.3f}, {share.high:.3f}] of the file's questions right")
print(f"wrong options that no row likes: {len(strangers)} titles")

# %% [markdown]
# **Observe.** A benchmark for "films similar to these" is solved by not reading them. Its wrong options were drawn from
# the whole catalogue, where hardly anything is popular, so *liked at all* is the answer. Evenly drawn negatives do this
# wherever they are used (Krichene and Rendle, 2020). So we do not use the options: a question ranks **all** titles of
# the table that its row does not hold.
#
# ## 5 What may be counted
#
# A row becomes five questions: hide one title, the other four are the history. How good is a list? As in lesson 24, nDCG
# with one right title is $1 / \log_2(1 + r)$, and $0$ after place ten. One trap: a recommender that knows nothing gives all
# titles *equal* scores, and then the sort decides. We take the mean over all orders of equals:


# %% tags=["defines:recommending.expected_gain"]
def expected_gain(scores, allowed, right, first=10):
    if scores.isnan().any():
        raise ParameterError("a score is NaN: it has no place in an order")
    own = scores.gather(1, right[:, None])
    above = (allowed & (scores > own)).sum(1)
    equal = (allowed & (scores == own)).sum(1)  # the right one among them
    places = torch.arange(1, scores.shape[1] + 1)
    gains = torch.where(places <= first, 1 / (1 + places.double()).log2(), 0.0)
    total = torch.cat([torch.zeros(1, dtype=torch.float64), gains.cumsum(0)])
    return (total[above + equal] - total[above]) / equal


# %%
scores = torch.tensor([[3.0, 1.0, 1.0, 1.0, 0.0, 1.0]], dtype=torch.float64)
allowed, target = torch.tensor([[True, True, True, True, True, False]]), torch.tensor([2])
each = []
for shuffled in itertools.permutations((1, 2, 3)):  # every order of the three equals
    place = 2 + shuffled.index(2)
    each.append(1 / math.log2(1 + place))
mean = sum(each) / len(each)
print(f"by hand {mean:.6f}, ours {expected_gain(scores, allowed, target).item():.6f}")
assert abs(mean - expected_gain(scores, allowed, target).item()) < 1e-12
print(f"the first of equals would get {1 / math.log2(3):.3f}, the last {1 / math.log2(5):.3f}")

# %% [markdown]
# **Second trap: copies.** Who made the rows drew from lists that overlap. **Predict.** For how many rows is there another
# that shares four of its five films? And if such rows are counted, by how much does item-kNN (next section) look better?

# %%
copies = data.copies()
others = copies.sum(1) - 1
equal_rows = (data.table @ data.table.T == 5).sum(1) - 1
print(
    f"rows with a near copy: {(others > 0).double().mean():.2f}; with an equal row: {(equal_rows > 0).double().mean():.2f}"
)
everyone, nobody = torch.ones(N, dtype=torch.bool), torch.zeros(I, dtype=torch.bool)
vectors = features.mean_states(data.titles)
picked = torch.randperm(N, generator=g)[: run.budget.n_asked].tolist()
asked = {}
for name, how in (("taken out", {}), ("left in", {"copies": True})):
    asked[name] = recommending.questions(data, picked, everyone, nobody, vectors, **how)
    found = asked[name]
    gain = recommending.expected_gain(found.features[..., 1], found.allowed, found.right).mean().item()
    run.record(**{f"knn_copies_{name.replace(' ', '_')}": gain})
    print(f"item-kNN, copies {name}: nDCG {gain:.3f}")

# %% [markdown]
# **Observe.** The row itself is never counted in either line. Its near copies are enough: in them the hidden film stands
# beside the history, because it is the same list. A random split leaves them in. From here on they are taken out.
#
# **Third trap: time.** With dates one splits *by time*. We have none, so we simulate what a random split hides: films come
# out, are liked much, and fade. A recommender takes what was liked *within three weeks* of the question. A random
# split lets them see the weeks **after** it; a split by time does not. **Predict.** By how much does the random split
# flatter?


# %%
def weeks_of_likes(rng, items=60, weeks=40, each=40):
    """(weeks × each, 2): week and film; a film's appeal falls by half in four weeks after it came out."""
    born, strength = rng.integers(-10, weeks, items), rng.exponential(size=items)
    found = []
    for week in range(weeks):
        age = week - born
        appeal = np.where(age >= 0, strength * 0.5 ** (age / 4), 0.0)
        found += [(week, film) for film in rng.choice(items, each, p=appeal / appeal.sum())]
    return np.array(found)


def hits(train, test, most=5):
    """How often a film is among the five most liked within three weeks of the question, in what was counted."""
    found = 0
    for week, film in test:
        near = train[abs(train[:, 0] - week) <= 3, 1]
        found += film in np.bincount(near, minlength=60).argsort()[::-1][:most]
    return found / len(test)


# %%
flattered = []
for world in range(run.budget.n_worlds):
    rng = np.random.default_rng(1000 * seed + world)
    log = weeks_of_likes(rng)
    late = log[:, 0] >= 38
    mixed = rng.random(len(log)) < late.mean()
    flattered.append((hits(log[~mixed], log[mixed]), hits(log[~late], log[late])))
random_split, by_time = np.array(flattered).T
gap = t_interval(random_split - by_time)
print(f"random split {random_split.mean():.2f}, split by time {by_time.mean():.2f},")
print(f"difference {gap.mean:.2f} [{gap.low:.2f}, {gap.high:.2f}] over {len(flattered)} worlds")
run.record(time_leak=gap.mean)

# %% [markdown]
# **Observe.** The random split sees the future, and its counts are fresher. A real recommender has neither. (The two parts
# are not told apart here.)
#
# ## 6 What behaviour says
#
# **Popularity** is $\ln(1 + n_i)$. **Item-kNN** (Sarwar et al., 2001) asks which titles stand in the same rows. The columns
# of $X$ are zeros and ones, so their cosine is a count over a root. $\lambda$ in the denominator keeps a pair that was seen
# once from being believed at once (Bell and Koren, 2007, shrink for the same reason, by another factor):
#
# $$ s_{ij} = \frac{n_{ij}}{\sqrt{n_i\, n_j} + \lambda}, \qquad s_{ii} = 0 . $$
#
# A title's score is its mean $s$ to the titles of the history.


# %% tags=["defines:recommending.neighbours"]
def neighbours(table, shrink=0.0):
    if not shrink >= 0:
        raise ParameterError(f"shrink is {shrink}: choose 0 or more")
    common, count = table.T @ table, table.sum(0)
    below = (count[:, None] * count).sqrt() + shrink
    return torch.where(common > 0, common / below.clamp(min=1e-12), 0.0).fill_diagonal_(0)


# %%
from sklearn.metrics.pairwise import cosine_similarity

theirs = torch.from_numpy(cosine_similarity(data.table.T.numpy())).fill_diagonal_(0)
apart = (neighbours(data.table) - theirs).abs().max().item()
run.record(neighbours_difference=apart)
print(f"largest difference to scikit-learn's cosine_similarity: {apart:.0e}")
film = data.titles.index("The Lion King")
for shrink in (0.0, 10.0):
    best = retrieval.ranking(neighbours(data.table, shrink)[film])[:4].tolist()
    print(f"λ = {shrink:4.0f}:", [f"{data.titles[i]} ({int(count[i])})" for i in best])
assert apart < 1e-12

# %% [markdown]
# **Observe.** In brackets: how often the neighbour is liked. For this title $\lambda$ changes
# nothing: its neighbours are liked often. It matters where a pair rests on one or two rows.
#
# **Matrix factorisation** writes $X \approx U V^\top$ with few columns. By hand: fix $V$, and the best $U$ is a
# least-squares solution; then fix $U$; and so on. This is *alternating least squares*:
#
# $$ U \leftarrow X V (V^\top V)^{-1}, \qquad V \leftarrow X^\top U (U^\top U)^{-1} . $$
#
# Where does it end? Where both gradients vanish. Without weights, and from a random start, that is the best
# approximation of this rank, and Eckart and Young (1936) say which: the first singular vectors. **Predict.** Do a loop
# of our own, a singular value decomposition, and autograd agree?


# %%
def alternate(X, rank, rounds, g):
    V = torch.randn(X.shape[1], rank, generator=g, dtype=X.dtype)
    for _ in range(rounds):
        U = torch.linalg.solve(V.T @ V, V.T @ X.T).T
        V = torch.linalg.solve(U.T @ U, U.T @ X).T
    return U, V


U, V = alternate(data.table, 4, run.budget.rounds, g)
left, sizes, right_vectors = torch.linalg.svd(data.table, full_matrices=False)
best = left[:, :4] * sizes[:4] @ right_vectors[:4]
basis = recommending.factors(data.table, 4)
leaves = [U.clone().requires_grad_(), V.clone().requires_grad_()]
slopes = torch.autograd.grad((data.table - leaves[0] @ leaves[1].T).square().sum(), leaves)
apart = [(U @ V.T - best).abs().max().item(), (data.table @ basis @ basis.T - best).abs().max().item()]
print(f"loop against SVD {apart[0]:.0e}; the package's against SVD {apart[1]:.0e};", end=" ")
print(f"largest gradient at the loop's end {max(s.abs().max().item() for s in slopes):.0e}")
run.record(factors_difference=apart[1], loop_difference=apart[0])

# %% [markdown]
# **Observe.** All agree (in the smoke profile the loop has too few rounds to arrive). So for this loss nobody needs the
# loop. It earns its keep with weights or missing entries, where no closed form is left.
#
# ## 7 What titles say, and one ranker
#
# MiniLM turns each title into a vector. The *user tower* takes the mean vector of the history, the *item tower* the
# title's, and their cosine is the score: two towers with one frozen weight. **Predict.** Which titles are near "The Lion
# King": other animals, other kings, or other films for children? And what do the *words* of the titles say?

# %%
unit = torch.nn.functional.normalize(vectors.double(), dim=1)
by_words = recommending.word_vectors(data.titles)
for title in ("The Lion King", "Star Wars Episode IV - A New Hope", "The Godfather"):
    film = data.titles.index(title)
    for name, table in (("MiniLM", unit), ("words", by_words)):
        near = table @ table[film]
        near[film] = -1
        print(f"{title[:18]:18s} {name:7s}", [data.titles[i] for i in retrieval.ranking(near)[:3].tolist()])

# %% [markdown]
# **Observe.** Words find series, and false friends that share a *The* or a *King*. MiniLM has read the web: it may know
# more of a famous title than the title says. That is a help here, and a warning: for a film of tomorrow it knows the
# words alone.
#
# A title without likes can also **inherit**: it takes the item-kNN scores of the titles that are most like it by text,
# weighted by a softmax of their cosines. Now all features go into one *conditional logit* (McFadden, 1974). The title $i$
# among those on offer is chosen with
#
# $$ p_i = \frac{e^{w \cdot f_i}}{\sum_j e^{w \cdot f_j}}, \qquad \ell = -\ln p_{\text{right}}, \qquad
# \frac{\partial \ell}{\partial w} = \sum_j p_j f_j - f_{\text{right}} . $$
#
# It is lesson 01's $p - y$, summed over titles: expected features minus those of the right title.


# %% tags=["defines:recommending.choice_losses"]
def choice_losses(scores, allowed, right):
    held = scores.masked_fill(~allowed, -torch.inf)
    return held.logsumexp(1) - held.gather(1, right[:, None])[:, 0]


# %%
found = asked["taken out"]
x, w = found.features[:20], torch.tensor([0.3, -1.0, 2.0, 0.5, 1.0], dtype=torch.float64)
told = found.allowed[:20], found.right[:20]
p = (x @ w).masked_fill(~told[0], -torch.inf).softmax(1)
formula = (torch.einsum("qi,qif->qf", p, x) - x[torch.arange(20), told[1]]).mean(0)
leaf = w.clone().requires_grad_()
(automatic,) = torch.autograd.grad(choice_losses(x @ leaf, *told).mean(), leaf)
steps = 1e-6 * torch.eye(5, dtype=torch.float64)
finite = torch.stack(
    [(choice_losses(x @ (w + s), *told) - choice_losses(x @ (w - s), *told)).mean() / 2e-6 for s in steps]
)
apart = (formula - automatic).abs().max().item(), (formula - finite).abs().max().item()
assert apart[0] < 1e-12 and apart[1] < 1e-6
run.record(choice_gradient_difference=apart[0])
print(f"largest difference to autograd {apart[0]:.0e}, to finite differences {apart[1]:.0e}")

# %%
figure, axis = plotting.axes(width=7.2, height=2.5, dpi=85)
axis.axis("off")
sources = ["times liked", "liked together", "factors V", "cosine of titles", "inherited likes"]
for place, (name, shape) in enumerate(zip(sources, ("I", "I × I", "I × 8", "I × 384", "I × I"), strict=True)):
    y = 2 - place
    axis.text(1.5, y, f"{name}   {shape}", ha="center", va="center", fontsize=8, bbox=box)
    axis.annotate("", (3.35, 0.25 * y), (2.3, y), arrowprops={"arrowstyle": "-|>"})
    axis.annotate("", (0.75, y), (0.3, 0.3 * y), arrowprops={"arrowstyle": "-|>", "linestyle": ":"})
axis.text(0, 0, "history", ha="center", va="center", fontsize=9, bbox=box)
axis.text(3.85, 0, "$w \\cdot f$", ha="center", va="center", fontsize=11, bbox=box)
axis.text(5.1, 0, "softmax over\nwhat is on offer", ha="center", va="center", fontsize=9, bbox=box)
axis.annotate("", (4.5, 0), (4.2, 0), arrowprops={"arrowstyle": "-|>"})
axis.set(xlim=(-0.4, 5.8), ylim=(-2.5, 2.5))
show(figure, "26_ranker")

# %% [markdown]
# *Figure: five features of every title, three from behaviour and two from text, one weight each. Shapes stand behind the
# names.*
#
# **Live.** We take all likes of a fifth of the titles away, and ask for them among each other: which of the new films shall
# we show? **Predict.** What is behaviour worth here, against a blind order? And where will "Toy Story" stand?

# %%
cold = torch.rand(I, generator=g) < 0.2
toy = data.titles.index("Toy Story")
cold[toy] = True
fit = recommending.questions(data, picked, everyone, cold, vectors)
late = recommending.questions(data, range(N), everyone, cold, vectors, about="cold")
for name, kept in (("behaviour", slice(0, 3)), ("both", slice(0, 5)), ("titles alone", slice(3, 4))):
    ranker = recommending.fit_ranker(fit.features[..., kept], fit.allowed, fit.right, 0.01)
    scores = ranker.scores(late.features[..., kept])
    gain = recommending.expected_gain(scores, late.allowed, late.right).mean().item()
    own = scores[:, toy : toy + 1]
    above = (late.allowed & (scores > own)).sum(1) + (late.allowed & (scores == own)).sum(1) / 2
    place = (0.5 + above[late.right == toy]).median().item()
    run.record(**{f"cold_{name.split()[0]}": gain})
    print(f"{name:12s} nDCG {gain:.3f}; Toy Story's median place {place:.1f} of {int(cold.sum())}")

# %% [markdown]
# **Observe.** To behaviour all new films are equal: its nDCG is that of a blind order, and a place in the middle. Titles
# tell them apart.
#
# ## 8 The experiment
#
# Claims were written before the first run. **Predict.** C24, the articles': text on top of behaviour makes
# recommendations more precise, for titles with likes and for titles without. RE1: near copies flatter: they raise nDCG,
# which lies between 0 and 1, by at least one twentieth. RE2: among titles without likes MiniLM knows more than words.
# RE3: item-kNN beats popularity.

# %%
from instructlab_repro import lesson

print("verdicts:", lesson.words("C24", "RE1", "RE2", "RE3"))
figure, panels = plotting.axes(1, 2, width=4.6, height=3.3, dpi=85)
warm = ("chance", "popularity", "neighbours", "factors", "titles", "both_words", "behaviour", "both")
lesson.dots(panels[0], "recommending", "ndcg_warm", "titles with likes", *warm, "behaviour_copies")
lesson.dots(panels[1], "recommending", "ndcg_cold", "titles without likes", "behaviour", "both_permuted",
            "both_words", "towers", "both")  # fmt: skip
for panel in panels:
    panel.set(xlabel="nDCG in the first ten", xlim=(0, None))
show(figure, "26_recommending")
lesson.folded("recommending", "C24", "RE1", "RE2", "RE3")

# %% [markdown]
# *Figure: a dot is a seed: its own test rows, and its own fifth of the titles without likes. Right: among titles without
# likes, so behaviour there is a blind order.*
#
# **Observe.** *C24 is refuted* as it was written, since it speaks of all titles. On the **left**, with likes, text adds
# nothing: its interval lies wholly inside the smallest effect that we would care for (folded). On the **right**, without
# likes, behaviour is a blind order, and text adds much; vectors dealt blindly show no gain: the control. So the articles'
# sentence holds for titles without likes, and for no others here. (They are known films whose likes we hid; of a film of
# tomorrow MiniLM has read nothing.) *RE2*: MiniLM's vectors know more of such a title than its words.
# *RE3*: what was liked together beats popularity. And *RE1*: near copies left in flatter by more than text adds to warm
# titles. Here a leak is worth more than a model that reads.
#
# **What it cannot.** These are lists, not people: no long histories, no dislikes, no dates, and a title is the least text
# there is. Nobody was shown anything, so whether a recommendation *changes* what is liked is not touched. The ranker
# favours what many like. **Its page:** `python -m instructlab_utils demo recommender`.
#
# ## 9 Six small cases
#
# The articles name many more fields. Each case below is short: a program that runs, and one number that could be bad.
# None of them is a product.
#
# **Education: marking with a rubric, and an appeal.** A key is a sentence of an encyclopedia; a pupil's answer is a claim
# about it, true or false (VitaminC; Schuster et al., 2021). One grader marks by *likeness* (cosine of the vectors). The
# other follows a *rubric* that a pupil can read: every number of the answer stands in the key; most of its words do; no
# "not" is added. Agreement with the truth beyond luck is Cohen's $\kappa = (a - e) / (1 - e)$: share of agreement $a$,
# expected $e$.

# %%
NOT, RUBRIC = {"not", "no", "never", "n't", "without"}, ("numbers", "words", "not")
pairs = [row for row in tasks.load("vitaminc").splits["dev"] if row["options"][row["answer"]] != "Neither"]
pairs = sorted(pairs, key=lambda row: row["id"])[: run.budget.n_marked]
keys, answers = zip(*(row["input"].split("\nClaim: ", 1) for row in pairs), strict=True)
truth = np.array([row["options"][row["answer"]] == "True" for row in pairs])


def rubric(key, answer):
    """Marks for numbers, words and negation, each True or False."""
    known, said = words_of_text(key), words_of_text(answer)
    numbers = all(word in known for word in said if any(map(str.isdigit, word)))
    return numbers, sum(word in known for word in said) >= 0.6 * len(said), not NOT & (set(said) - set(known))


def kappa(a, b):
    expected = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
    return ((a == b).mean() - expected) / (1 - expected)


# %%
vectors_of = functools.partial(features.mean_states, max_length=64)
alike = retrieval.cosines(vectors_of(keys), vectors_of(answers)).diagonal().numpy()
by_likeness = alike >= np.quantile(alike, 1 - truth.mean())  # as many pass as are right: a generous threshold
marks = np.array([rubric(*pair) for pair in zip(keys, answers, strict=True)])
by_rubric = marks.all(1)
agreed = by_likeness == by_rubric
after = np.where(agreed, by_rubric, truth)  # a teacher decides where the two graders differ
run.record(kappa_likeness=kappa(by_likeness, truth), kappa_rubric=kappa(by_rubric, truth))
print(f"{len(truth)} answers, {truth.mean():.2f} right; kappa of likeness {kappa(by_likeness, truth):.2f},")
print(
    f"of the rubric {kappa(by_rubric, truth):.2f}; lost marks:",
    dict(zip(RUBRIC, (~marks).sum(0).tolist(), strict=True)),
)
print(f"appeal: {1 - agreed.mean():.2f} go to a teacher; kappa then {kappa(after, truth):.2f};", end=" ")
print(f"where both graders agree they are wrong for {(by_rubric != truth)[agreed].mean():.2f}")

# %% [markdown]
# **Observe.** Likeness cannot mark: a false claim about a text is *like* the text. The rubric agrees little more with the
# truth: "less than seven critics" needs reckoning. But it can be appealed against, for it says which mark was lost. The
# appeal is only as good as disagreement is: two graders who agree may both be wrong, and the print says how often. We
# give the teacher no mistakes.
#
# **City events.** Messages come all day. Is this hour more than usual? Counts of independent messages are Poisson; an alarm
# rings where a count so high has a chance below one in a thousand.

# %%
departments = ["water pipe burst, flooded street", "power cut, no electricity", "road accident, traffic jam"]
reports = [
    "the whole cellar is under water",
    "lights are out in our street",
    "two cars crashed at the bridge",
]
near = retrieval.cosines(features.mean_states(reports), features.mean_states(departments))
for report_text, kind in zip(reports, near.argmax(1).tolist(), strict=True):
    print(f"{report_text:34s} → {departments[kind]}")


def tail(k, mean):
    """Chance of k or more when ``mean`` are expected."""
    return 1 - sum(math.exp(-mean) * mean**i / math.factorial(i) for i in range(k))


alarm = next(k for k in range(100) if tail(k, 4.0) < 1e-3)

# %%
rng = np.random.default_rng(seed)
quiet = rng.poisson(4.0, 24 * 365)
shared_days = rng.poisson(4.0 * rng.gamma(4, 1 / 4, 365).repeat(24))  # rain moves all hours of a day together
print(f"alarm at {alarm} messages an hour; expected false alarms a year {24 * 365 * tail(alarm, 4.0):.1f}")
for name, hours in (("independent messages", quiet), ("days that differ", shared_days)):
    print(f"{name:21s} {int((hours >= alarm).sum())} alarms in a year without any event")
burst = rng.poisson(4.0 + 8.0, (2000, 3)) >= alarm
print(
    f"an event that triples the messages: seen in its first hour {burst[:, 0].mean():.2f},",
    f"within three {burst.any(1).mean():.2f}",
)
run.record(city_false=int((shared_days >= alarm).sum()), city_seen=burst.any(1).mean())

# %% [markdown]
# **Observe.** The formula keeps its promise in its own world. Where days differ, the false alarms multiply: messages are
# not independent. Estimate the spread, not the mean alone.
#
# **Medical questions, with refusal.** Text about medicine is all we have: SQuAD's articles *Pharmacy* and *Immune system*.
# Questions come about them, and about everything else. Answer only where a passage supports it. **Predict.** A system that
# answers everything: how often does it show a passage that does not hold the answer?

# %%
squad = [row for part in tasks.load("squad").splits.values() for row in part]
inside = [row for row in squad if row["group"] in ("Pharmacy", "Immune_system")]
outside = [row for row in squad if row["group"] not in ("Pharmacy", "Immune_system", "Black_Death")]
by_id = {"key": lambda row: row["id"]}
n = run.budget.n_medical // 2
mixed = [*sorted(inside, **by_id)[:n], *sorted(outside, **by_id)[:n]]
corpus = retrieval.corpus(inside)
store = retrieval.BM25(corpus.texts)
words = torch.stack([store.scores(row["question"]) for row in mixed])
dense = retrieval.cosines(
    features.mean_states([row["question"] for row in mixed]), features.mean_states(corpus.texts, 128)
)
first = retrieval.ranking(retrieval.fused([words, dense], 5.0))[:, 0]
supported = np.array([
    row in inside and corpus.place(row) == at for row, at in zip(mixed, first.tolist(), strict=True)
])  # fmt: skip

# %%
sure = dense.gather(1, first[:, None])[:, 0].numpy()
figure, axis = plotting.axes(width=4.8, height=2.7, dpi=85)
for index, (name, score) in enumerate(
    (("cosine of the passage", sure), ("a blind order", rng.random(len(sure))))
):
    ordered = supported[(-score).argsort(kind="stable")]
    covered = np.arange(1, len(ordered) + 1)
    risk = 1 - ordered.cumsum() / covered
    axis.plot(covered / len(ordered), risk, label=name, **plotting.style(index) | {"marker": ""})
    print(f"{name:22s} risk of all {risk[-1]:.2f}, of the surest third {risk[len(risk) // 3 - 1]:.2f}")
    run.record(**{f"medical_risk_{index}": risk[len(risk) // 3 - 1]})
axis.set(xlabel="share of questions answered", ylabel="share without support", ylim=(0, 1))
axis.legend(fontsize=7)
show(figure, "26_refusal")

# %% [markdown]
# *Figure: risk against coverage. Half of the questions have no answer here, so the right end cannot be low.*
#
# **Observe.** Refusing where the passage is far removes most questions from elsewhere. What remains is the risk at the
# left of the curve. "Without support" is not "false", and support is not medical advice: who is harmed by the rest decides
# whether any coverage is right.
#
# **Manufacturing.** Each job needs the saw, then the press. In which order? Johnson (1954): jobs that are shorter on the
# saw first, by growing saw time; the others last, by falling press time. The *words* are read by a grammar so small that a
# misread order is refused, and not guessed.

# %%
import re


def jobs_of(text):
    """'Chair: saw 3, press 6. Table: …' → name, saw, press; ParameterError for a sentence that does not fit."""
    found = []
    for sentence in filter(None, map(str.strip, text.split("."))):
        match = re.fullmatch(r"(\w+): saw (\d+), press (\d+)", sentence)
        if not match:
            raise ParameterError(f"{sentence!r} is not 'name: saw minutes, press minutes'; write it so")
        found.append((match[1], int(match[2]), int(match[3])))
    return found


# %%
def finished(order):
    """When the last job leaves the press."""
    saw = press = 0
    for _, a, b in order:
        saw += a
        press = max(press, saw) + b
    return press


told = "Chair: saw 3, press 6. Table: saw 7, press 2. Shelf: saw 4, press 7. Desk: saw 5, press 3. Stool: saw 1, press 4."
jobs = jobs_of(told)
early = sorted((job for job in jobs if job[1] < job[2]), key=lambda job: job[1])
johnson = early + sorted((job for job in jobs if job not in early), key=lambda job: -job[2])
all_times = [finished(order) for order in itertools.permutations(jobs)]
print("order:", " → ".join(name for name, *_ in johnson), f"({finished(johnson)} minutes)")
print(
    f"as they came {finished(jobs)}, best of all {len(all_times)} orders {min(all_times)}, worst {max(all_times)}"
)
assert finished(johnson) == min(all_times)
try:
    jobs_of(told.replace("saw 7", "saw about 7"))
except ParameterError as error:
    print("refused:", error)

# %% [markdown]
# **Observe.** No language model is in the decision: it would be slower, and could be wrong. Where workers write freely, a
# model may *translate* into this form, under a constraint (lessons 15 and 24); the program decides.
#
# **Transport.** Here the model does that: SmolLM2 reads a wish and says two stations, held to the names of the map (lesson
# 24's trie). Then Dijkstra's algorithm finds the way. **Predict.** Can a station be invented? Can the wrong one be read?

# %%
MAP = {("Harbour", "Market"): 4, ("Market", "Castle"): 3, ("Harbour", "Museum"): 9, ("Castle", "Museum"): 2,
       ("Castle", "Airport"): 11, ("Museum", "Airport"): 6, ("Market", "Stadium"): 5}  # fmt: skip
STOPS = sorted({stop for pair in MAP for stop in pair})


# %%
def way(start, end):
    """Minutes and stops of the shortest way (Dijkstra)."""
    queue, done = [(0, start, (start,))], set()
    while queue:
        minutes, here, path = heapq.heappop(queue)
        if here == end:
            return minutes, path
        if here not in done:
            done.add(here)
            for (a, b), more in MAP.items():
                if here in (a, b):
                    there = b if here == a else a
                    heapq.heappush(queue, (minutes + more, there, (*path, there)))


# %%
forms = ("I am at the {} and must catch a plane: take me to the {}.", "How do I get to the {1} from the {0}?",
         "{} to {}, please.", "After work at the {} I go to the {}.")  # fmt: skip
trips = list(itertools.permutations(STOPS, 2))
chosen = [trips[i] for i in torch.randperm(len(trips), generator=g)[: run.budget.n_trips].tolist()]
wishes = [forms[i % len(forms)].format(*trip) for i, trip in enumerate(chosen)]
shown = ("Wish: From the Zoo I want to go to the Bank.\nFrom: Zoo\nTo: Bank\n\n"
         "Wish: Take me to the School, I am at the Hotel.\nFrom: Hotel\nTo: School\n\n")  # fmt: skip
net, tokenizer = models.load_decoder(device=run.device).float(), models.load_tokenizer("decoder")


def held(prompts, names):
    """One of the ``names`` for each prompt."""
    trees = [reading.answer_trie(each, tokenizer) for each in names]
    return [answer.text for answer in reading.Reading(net, tokenizer, prompts).answers(trees, most=8)]


# %%
starts = held([f"{shown}Wish: {wish}\nFrom:" for wish in wishes], [STOPS] * len(wishes))
begun = [f"{shown}Wish: {wish}\nFrom: {start}\nTo:" for wish, start in zip(wishes, starts, strict=True)]
ends = held(begun, [[stop for stop in STOPS if stop != start] for start in starts])
read = list(zip(starts, ends, strict=True))
for wish, trip, got in list(zip(wishes, chosen, read, strict=True))[:2]:
    minutes, path = way(*got)
    print(f"{wish}\n   read {got}, in truth {trip}: {' → '.join(path)}, {minutes} minutes")
by_rule = [
    re.search(r"to (?:the )?([A-Z]\w+)", wish)[1] == end
    for wish, (_, end) in zip(wishes, chosen, strict=True)
]
share = wilson_interval(sum(map(tuple.__eq__, read, chosen)), len(chosen))
run.record(trips_right=share.mean)
print(f"both stations right: {share.mean:.2f} [{share.low:.2f}, {share.high:.2f}] of {len(chosen)}")
print(f'the end by a rule of one line, the name after "to": {sum(by_rule)} of {len(chosen)}')

# %% [markdown]
# **Observe.** Every station exists, the two differ, and every way is shortest: from what was *read*. The constraint
# cannot know that it was misread; compare the two last lines: the small model against a rule of one line. The rule reads
# these wishes, since we wrote both. A page would show both stations, and ask, before anybody leaves.
#
# **Decision support.** A tweet may be a complaint: sending somebody costs one, ignoring a real complaint costs four. Act
# where $p \ge c_{\text{act}} / c_{\text{miss}}$. The rule needs a $p$ that can be believed. We train a head on few examples
# until it is too sure, and mend it with one temperature (lesson 03) from half of the held-out texts. **Predict.** The
# promised cost is what the model's own $p$ expects. Which of the two promises is kept?

# %%
part = tasks.load("tweet-sentiment").splits
few, rest = (
    tasks.subsample(part[name], size, seed) for name, size in (("train", 60), ("dev", run.budget.n_sent))
)
x, y = features.mean_states(list(few["text"])), 1 - torch.tensor(few["label"])  # 1: a complaint
head = torch.nn.Linear(x.shape[1], 2)
optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
for _ in range(300):
    loss = torch.nn.functional.cross_entropy(head(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
logits = head(features.mean_states(list(rest["text"]))).detach()
complaint = 1 - torch.tensor(rest["label"])
half = len(complaint) // 2
heat = metrics.fit_temperature(logits[:half].numpy(), complaint[:half].numpy())

# %%
ACT, MISS = 1.0, 4.0
print(f"temperature {heat:.1f}; act where p is at least {ACT / MISS:.2f}\n{'':14s} acts   promised   paid")
real = complaint[half:].double()
for name, t in (("as trained", 1.0), ("calibrated", heat)):
    p = (logits[half:] / t).softmax(1)[:, 1].double()
    act = p >= ACT / MISS
    promised = torch.where(act, ACT, MISS * p).mean().item()
    paid = torch.where(act, ACT, MISS * real).mean().item()
    run.record(**{f"decision_{name[:2]}_gap": paid - promised, f"decision_{name[:2]}_paid": paid})
    print(f"{name:14s} {act.double().mean():.2f}   {promised:.2f}       {paid:.2f}")
print(f"always act {ACT:.2f}, never act {MISS * real.mean():.2f}, knowing the truth {ACT * real.mean():.2f}")

# %% [markdown]
# **Observe.** Neither promise is kept. The model that is too sure promises a cost that nobody pays; calibration brings the
# promise nearer, and hardly changes what is paid. A promise that holds comes first in decision support: this one is not
# ready.
#
# ## 10 The ledger, closed
#
# Each claim was written before its run, with a threshold; an interval decided. Here are the articles' claims. Different
# units cannot share an axis, so each interval is drawn in **its own half-widths**: the threshold at zero, the claimed
# side to the right. An interval then reaches one to the left and one to the right of its dot; it decides where it does
# not touch zero.

# %%
import json
import tomllib

from instructlab_utils.project import find_root

minds = tomllib.loads((find_root() / "data" / "minds.toml").read_text(encoding="utf-8"))
ledger = json.loads((find_root() / "data" / "results" / "ledger.json").read_text(encoding="utf-8"))
ledger = {entry["claim"]: entry for entry in ledger}
claims = [name for name in minds if name in ledger]
print("not in the ledger yet:", [name for name in minds if name not in ledger and name != "AGI"])


def parts_of(entry):
    """The intervals that decide: mean, low, high, and the threshold, each claimed to be above it."""
    for part in entry["comparisons"] or [entry]:
        if part["mean"] is None or part.get("low") is None:
            continue
        sign = -1 if (part.get("direction") or entry["direction"]) == "less" else 1
        threshold, mean, half = part["threshold"] or 0.0, part["mean"], (part["high"] - part["low"]) / 2
        if entry["kind"] == "equivalence":  # claimed: within the margin
            threshold, mean, sign = entry["margin"] or 0.0, abs(mean), -1
        yield sign * (mean - threshold), half


# %%
MARKS = {"supported": "o", "refuted": "X", "undecided": "s", "not tested": "."}
figure, axis = plotting.axes(width=6.6, height=6.6, dpi=85)
for row, name in enumerate(claims):
    entry = ledger[name]
    for away, half in parts_of(entry):
        z = max(-12.0, min(12.0, away / half if half else math.copysign(12, away)))
        axis.plot([z - 1, z + 1], [row, row], color="grey", linewidth=2, alpha=0.6)
        axis.plot(z, row, MARKS[entry["verdict"]], color="black", markersize=6)
axis.axvline(0, color="black", linewidth=1)
axis.set(xlim=(-13.5, 13.5), xlabel="distance from the threshold, in half-widths of the interval")
axis.set_yticks(range(len(claims)), [f"{name}  {ledger[name]['verdict']}" for name in claims], fontsize=8)
axis.invert_yaxis()
for word, mark in MARKS.items():
    axis.plot([], [], mark, color="black", linestyle="", label=word)
axis.legend(fontsize=7, loc="lower right")
show(figure, "26_ledger")

# %% [markdown]
# *Figure: the deciding intervals of the articles' claims, some with several parts. Circle: supported, cross: refuted,
# square: undecided. Beyond twelve half-widths a dot stands at the edge. One part on the left refutes the whole. C19
# and one part of C24 are refuted on the line: so narrow that no effect of a size that matters is left. A claim without a dot
# was decided by argument, or not tested.*

# %%
from collections import Counter

of_articles = Counter(ledger[name]["verdict"] for name in claims)
ours = Counter(entry["verdict"] for name, entry in ledger.items() if name not in minds)
for verdict in MARKS:
    print(f"{verdict:11s} articles' claims {of_articles[verdict]:2d}   all other claims {ours[verdict]:3d}")
run.record(**{f"articles_{verdict.replace(' ', '_')}": of_articles[verdict] for verdict in MARKS})
best = [name for name in claims if ledger[name]["verdict"] == "supported"]
print("\nsupported:", ", ".join(best))

# %%
import html

from IPython.display import HTML

lines = []
for name in claims:
    entry = ledger[name]
    told = [part for part in entry["comparisons"] or [entry] if part["mean"] is not None]
    spans = "<br>".join(f"{p['mean']:+.3f} [{p['low']:+.3f}, {p['high']:+.3f}]" for p in told) or "–"
    said = [html.escape(text) for text in (entry["statement"], minds[name]["change"])]
    number = (entry["lesson"] or "").removeprefix("notebooks/")[:2]
    cells = (name, entry["verdict"], number, spans, *said)
    lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
names = ("claim", "verdict", "lesson", "intervals", "statement", "what would change our mind")
table = "".join(f"<th>{name}</th>" for name in names) + "".join(lines)
HTML(f"<details><summary>All claims of the articles</summary><table>{table}</table></details>")

# %% [markdown]
# **Undecided is a price tag.** If the mean stays where it is, an interval shrinks with the root of the number of seeds.
# From half-width $h$ and distance $d$ to the threshold it takes $(h / d)^2$ times as many. **Predict.** Which of the
# open claims is cheap to close? And which gets dearer the nearer the truth lies to its threshold?

# %%
for name in [name for name in claims if ledger[name]["verdict"] == "undecided"]:
    entry = ledger[name]
    open_parts = [(d, h) for d, h in parts_of(entry) if abs(d) < h]
    times = max(((h / d) ** 2 if d else math.inf for d, h in open_parts), default=math.nan)
    spent = sum(line.get("cpu_seconds") or 0 for line in lesson.results(entry["experiment"])) / 3600
    print(
        f"{name:4s} {len(open_parts)} open of {len(entry['comparisons']) or 1}: {times:8.1f} × the {entry['seeds']} seeds,",
        end=" ",
    )
    print(f"about {times * spent:7.1f} CPU hours")

# %% [markdown]
# **Observe.** The price holds only if the mean stays, and means move. Where a true effect lies *at* the threshold, no
# number of seeds will do. A wiser way is often another design: other items, a quieter measure.
#
# ## 11 The claim that stays outside
#
# One sentence of the articles has no verdict, and will get none. **Predict.** Which part of it would you have to change
# first to make it testable?

# %%
agi = minds["AGI"]
print("CLAIM     ", agi["statement"])
print("VERDICT    untestable")
print("WHY       ", agi["reason"])
print("TO CHANGE ", agi["change"])

# %% [markdown]
# **Observe.** "Untestable" is no insult. It says that the sentence forbids nothing: a model that fails tomorrow does not
# contradict it, and one that succeeds does not support it more than any other hope. Each test in this course forbade
# something, and a good part of them lost.
#
# *Cognitive intelligence*, as it is used there, is such a word. "Executes six steps in words as rightly as one" is not.
#
# ## 12 What we have shown
#
# Printed from this run's record, so that the text cannot disagree with the numbers.

# %%
r = run.metrics
print(f"profile {run.profile}, seed {seed}")
print("bot:", {name: round(r[f"bot_{name}"], 2) for name in ("solved", "wrong", "person")})
print(f"popularity on the file's own questions {r['popularity_on_options']:.3f}; item-kNN with copies",
      f"{r['knn_copies_left_in']:.3f}, without {r['knn_copies_taken_out']:.3f}")  # fmt: skip
print(f"largest differences: cosine {r['neighbours_difference']:.0e}, factors {r['factors_difference']:.0e},",
      f"ranker's gradient {r['choice_gradient_difference']:.0e}")  # fmt: skip
print("verdicts:", lesson.words("C24", "RE1", "RE2", "RE3"))
print("the articles' claims:", dict(of_articles))

# %% [markdown]
# **What we have not shown.**
#
# - Nothing about customers, markets or viewers who live. Each evaluation replays texts that exist, or composes them.
# - Nothing about what a system *does* to people: whoever is recommended, warned or refused changes what they do next.
# - Six cases with one number each are sketches. A marker, a medical search or an alarm needs its own field's people.
# - Large models. Ours were small so that each experiment could be repeated; several verdicts may turn with size.
#
# **What the course leaves out**, though the articles name it: `TensorFlow` (transformers removed it), machine
# translation as a task of its own (BLEU stands in lesson 06, round trips in 07), training on dialogue over many turns,
# drug research, and enterprises, public administration and culture: not a case of its own here. Human-machine
# "collaboration" appears as the *hand-over*. The infinite set of instructions is lesson 15's, where it is finite. Every
# row of the articles' contents and its lesson: `docs/coverage.md`.
#
# **What should I set?**
#
# | you have | do first | in a library |
# |---|---|---|
# | an assistant that may be wrong | a way to say no: answer where $p \ge 1 - c_h / c_w$ | `TunedThresholdClassifierCV` |
# | a stream with alarms | count false alarms a week, and the delay, before any accuracy | – |
# | likes, and a random split | take near copies out; with dates, split by date | `TimeSeriesSplit`, `GroupKFold` |
# | a benchmark with sampled negatives | rank popularity on it; then rank all items | – |
# | equal scores | the mean over orders, or ties broken at random | `ndcg_score(…, ignore_ties=False)` |
# | items with many likes | popularity, item-kNN, then factors | `implicit.nearest_neighbours`, `implicit` |
# | items without likes | their texts; frozen vectors first | `sentence-transformers` |
# | free text for a program | a grammar or a trie; show what was read | `prefix_allowed_tokens_fn`, `llguidance` |
# | a claim | a threshold, a smallest effect and a test before the run | – |
#
# **Recall.** Answer without scrolling.
#
# 1. When should a bot hand over, and what must hold of its $p$?
# 2. Why does popularity solve a benchmark with sampled negatives?
# 3. Which three leaks does section 5 show?
# 4. What can text do for a recommender that behaviour cannot, and the other way round?
# 5. An interval is undecided: how many times the seeds close it, and when will none?
# 6. What makes a claim untestable?
#
# <details><summary>Answers</summary>
#
# 1. Where $p < 1 - c_h / c_w$. It must be calibrated, or the threshold tuned by cost on dev.
# 2. Negatives drawn from the whole catalogue are mostly unpopular, so *liked at all* tells them apart.
# 3. Equal scores whose order the sort decides; near copies of a row; likes from after the question.
# 4. Say something of items without likes. Behaviour tells what people like together, whatever it is called.
# 5. $(h / d)^2$ times as many, if the mean stays; none where the true effect lies at the threshold.
# 6. That no outcome would contradict it: no task, score, threshold or date.
#
# </details>
#
# **Exercises.** `notebooks/exercises/26_capstones.py`; `make classroom` builds the student version.
#
# **References.**
#
# - Bell, R. M., and Koren, Y. (2007). Scalable collaborative filtering with jointly derived neighborhood interpolation
#   weights. *ICDM 2007*.
# - Eckart, C., and Young, G. (1936). The approximation of one matrix by another of lower rank. *Psychometrika 1*.
# - Johnson, S. M. (1954). Optimal two- and three-stage production schedules with setup times included. *Naval Research
#   Logistics Quarterly 1*.
# - Krichene, W., and Rendle, S. (2020). On sampled metrics for item recommendation. *KDD 2020*.
# - McFadden, D. (1974). Conditional logit analysis of qualitative choice behavior. In *Frontiers in Econometrics*.
# - Page, E. S. (1954). Continuous inspection schemes. *Biometrika 41*.
# - Sarwar, B., Karypis, G., Konstan, J., and Riedl, J. (2001). Item-based collaborative filtering recommendation
#   algorithms. *WWW 2001*.
# - Schuster, T., Fisch, A., and Barzilay, R. (2021). Get your vitamin C! Robust fact verification with contrastive
#   evidence. *NAACL 2021*.
