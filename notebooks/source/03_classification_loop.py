# ---
# jupyter:
#   instructlab:
#     id: "03"
#     title: The classification loop, repaired, and honest evaluation
#     outcome: write a training loop that you can trust, and say how far its result carries
#     assets: [minilm, vader]
#     minutes: {smoke: 0.5, laptop: 2, gpu: 2}
#     class_minutes: 180
#     budget:
#       n_train: {smoke: 48, laptop: 800, gpu: 5000}
#       n_dev: {smoke: 32, laptop: 200, gpu: 1000}
#       n_test: {smoke: 48, laptop: 400, gpu: 1800}
#       steps: {smoke: 6, laptop: 150, gpu: 600}
#       eval_every: {smoke: 3, laptop: 25, gpu: 60}
#       n_parity: {smoke: 2, laptop: 6, gpu: 6}
#       n_bootstrap: {smoke: 500, laptop: 10000, gpu: 10000}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 03 The classification loop, repaired, and honest evaluation
#
# **The promise.** You take apart a published training program that cannot run, and understand each of its errors. Then
# you build the loop again, piece by piece: batches, loss, update, checkpoint, early stopping. You fine-tune a real
# encoder with 22 million weights on real, human-rated sentences. At the end you can say what its accuracy proves, and
# what it does not.
#
# | | |
# |---|---|
# | before this | lesson 01 (cross-entropy and its gradient), Python, a little PyTorch |
# | time | smoke: under a minute · laptop: about two minutes on one core · gpu: not measured yet |
# | memory | under 2 GB |
# | model | MiniLM, 6 layers (`all-MiniLM-L6-v2`), pinned, offline |
# | data | movie-review sentences, each rated by people (Hutto and Gilbert, 2014) |
# | box of lesson 00's chain | *scored*, and the first half of *learn from the score* |
#
# **You will be able to**
#
# - *diagnose* shape errors between heads, labels and metrics from the message alone;
# - *build* batches that waste little and a loss that counts every example once;
# - *prove* that your loop computes what a library computes;
# - *stop* training for a reason, and *resume* it to the same bits;
# - *report* an accuracy with an interval, against a baseline, on the same test sentences.
#
# **Letters in this lesson**
#
# | symbol | meaning |
# |---|---|
# | $B$, $T$, $K$ | texts in a batch, tokens in a text, classes |
# | $z$ | a row of logits; in section 6.2 the normal quantile |
# | $y$, $\ell$ | the true class; the loss of one text |
# | $n$, $p$, $\hat p$ | test sentences, chance of a hit, share of hits |
# | $S$, $d_j$, $s$ | seeds; difference of two methods at seed $j$; standard deviation of the $d_j$ |

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
seed: int = 0  # subsample, head, order of batches, dropout
model: str = ""  # a folder or hub name instead of the pinned encoder
n_train: int = 0  # training sentences; 0 takes the profile's number
learning_rate: float = 1e-4  # peak of the schedule

# %%
import itertools

import numpy as np
import torch

from instructlab_utils import expect_error, metrics, models, plotting, start, tasks, training

run = start("03", profile=profile, seed=seed)
n_train = n_train or run.budget.n_train

# %% [markdown]
# ## 1 A program that cannot run
#
# One of the source articles (five Chinese-language blog articles on the "infinite instruction set") prints a program
# that fine-tunes BERT for sentence classification. It looks like many programs on the web. It cannot run as printed. We
# rewrote its decisive lines on a tiny random BERT, so that each error shows in a second. (A *head* is the small layer
# on top of the encoder that turns its vectors into logits.)
#
# **Predict.** The article loads a *token* classification head and gives it one label per sentence, for four sentences
# padded to 128 tokens. Which exception comes first: from the head, from the loss, or from the metric?

# %%
from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification

texts = ["a joy to watch", "dull and far too long", "it just sits there", "see it twice"]
labels = torch.tensor([1, 0, 0, 1])
tokenizer = models.load_tokenizer("encoder", model)
padded = tokenizer(texts, padding="max_length", max_length=128, return_tensors="pt")

sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
config = BertConfig(vocab_size=len(tokenizer), num_labels=2, **sizes)
token_head = BertForTokenClassification(config)

with expect_error(ValueError, match="batch_size"):
    token_head(**padded, labels=labels)

# %% [markdown]
# **Observe.** The loss speaks first. A token head gives a row of logits for each *token*: shape $(B, T, K)$.
# Cross-entropy flattens that to $B \cdot T$ rows and finds only $B$ labels. The numbers in the message are exactly
# $4 \cdot 128$ and $4$.
#
# **Repair.** One label per sentence needs one row of logits per sentence: shape $(B, K)$.

# %%
net = BertForSequenceClassification(config)
output = net(**padded, labels=labels)
print("logits", tuple(output.logits.shape), " loss is a scalar:", output.loss.ndim == 0)

# %% [markdown]
# The next two errors follow from the first. The article's evaluation still believes in tokens: it takes `argmax`
# over axis 2, and hands the metric a list of lists.

# %%
from sklearn.metrics import classification_report

with expect_error(IndexError, match="Dimension out of range"):
    output.logits.argmax(dim=2)

per_token = token_head(**padded).logits.argmax(dim=2).tolist()
with expect_error(ValueError, match="mix of"):
    classification_report(labels.tolist(), per_token)

# %% [markdown]
# Loud errors are the harmless ones. Here is a quiet one, and it is new. The heads of transformers 5 accept any
# keyword argument and ignore what they do not know.
#
# **Predict.** What does the call below return for `loss`: an exception, `None`, or a number?

# %%
misspelt = net(**padded, lables=labels)
print("loss:", misspelt.loss)

# %% [markdown]
# With version 4 the same line was a `TypeError`. Now it fails later and elsewhere, or never, if nobody looks at the
# loss. The course asks for a loss explicitly:

# %%
from instructlab_utils.errors import TrainingError

with expect_error(TrainingError, match="no loss"):
    models.must_have_loss(misspelt)

# %% [markdown]
# One more change of versions. The article imports `AdamW` from transformers, where it no longer is. Everybody
# repairs this by taking the class of the same name from torch. That changes the regularisation without a word: the
# old default of `weight_decay` was zero.

# %%
with expect_error(ImportError, match="AdamW"):
    from transformers import AdamW  # noqa: F401

print("torch's default weight decay:", torch.optim.AdamW([torch.zeros(1)]).defaults["weight_decay"])

# %% [markdown]
# > **Which of these is *not* a bug?** The article also calls `model.zero_grad()` where most people write
# > `optimizer.zero_grad()`, and passes `classification_report(labels, preds)` in this order. Decide before you read on.
#
# Neither is a bug. Both calls clear the same gradients as long as the optimiser owns every parameter of the model. And
# the order *(truth, prediction)* is the right one. A bug hunt that finds bugs everywhere has found nothing.
#
# ## 2 Real sentences in batches
#
# The sentences come from movie reviews. People rated each one from −4 to 4. We leave out the middle, where the mean
# rating lies between $-0.5$ and $0.5$; the sign of the mean is the label, and the mean travels with the sentence.
# Splits are by content, so near-copies never lie in two of them. The data card in `data/cards/` has the details.

# %%
task = tasks.load("movie-sentiment")
train_rows = tasks.subsample(task.splits["train"], n_train, seed)
dev_rows = tasks.subsample(task.splits["dev"], run.budget.n_dev, 0)
test_rows = tasks.subsample(task.splits["test"], run.budget.n_test, 0)
print("labels:", task.labels)
print({name: len(rows) for name, rows in task.splits.items()}, "of which we train on", len(train_rows))
for row in train_rows.select(range(4)):
    print(f"{row['rating']:+.1f}  {task.labels[row['label']]:9s} {row['text'][:80]}")

# %% [markdown]
# A network wants rectangles, but sentences have different lengths. The article pads every sentence to 128 tokens. We
# tokenise once, keep lists, and pad late: to the longest sentence *of the batch*.


# %% tags=["defines:training.collate"]
def collate(examples, pad_id):
    longest = max(len(example["input_ids"]) for example in examples)
    input_ids = torch.full((len(examples), longest), pad_id)
    attention_mask = torch.zeros_like(input_ids)
    for row, example in enumerate(examples):
        n = len(example["input_ids"])
        input_ids[row, :n] = torch.tensor(example["input_ids"])
        attention_mask[row, :n] = 1
    labels = torch.tensor([example["labels"] for example in examples])
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


# %% [markdown]
# The batch's longest sentence sets the price for all of them. So batches should hold sentences of *similar* length, and
# still be random. Shuffle the sentences, sort them inside windows of some batches, cut, shuffle the batches.


# %% tags=["defines:training.length_buckets", "subslide"]
def length_buckets(lengths, batch_size, generator, window=32):
    order = torch.randperm(len(lengths), generator=generator).tolist()
    batches = []
    for begin in range(0, len(order), window * batch_size):
        chunk = sorted(order[begin : begin + window * batch_size], key=lambda i: lengths[i])
        batches += [chunk[i : i + batch_size] for i in range(0, len(chunk), batch_size)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


# %% [markdown]
# **Predict.** The training set has a certain number of real tokens. How many positions does one epoch compute, as a
# multiple of that, with (a) everything padded to 128, (b) random batches padded to their longest, (c) buckets?

# %%
pad_id = tokenizer.pad_token_id
train_set = training.encode(train_rows, tokenizer, 128)
lengths = [len(example["input_ids"]) for example in train_set]
generator = torch.Generator().manual_seed(seed)
shuffled = torch.randperm(len(lengths), generator=generator).tolist()
random_batches = [shuffled[i : i + 16] for i in range(0, len(shuffled), 16)]
buckets = length_buckets(lengths, 16, generator)
assert sorted(i for batch in buckets for i in batch) == list(
    range(len(lengths))
)  # every sentence exactly once


def positions(batches):
    return sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)


cost = {
    "padded to 128": 128 * len(lengths),
    "random": positions(random_batches),
    "buckets": positions(buckets),
}
for name, count in cost.items():
    print(f"{name:14s} {count:7d} positions = {count / sum(lengths):.2f} × the real tokens")
run.record(waste_128=cost["padded to 128"] / sum(lengths), waste_buckets=cost["buckets"] / sum(lengths))


# %%
def rectangle(batches, width=None):
    """One row a sentence, in the order of the batches: 2 for a token, 1 for padding, 0 where nothing is computed."""
    image = np.zeros((len(lengths), 128))
    widths = [width or max(lengths[i] for i in batch) for batch in batches for _ in batch]
    for row, (i, computed) in enumerate(zip((i for batch in batches for i in batch), widths, strict=True)):
        image[row, :computed] = 1
        image[row, : lengths[i]] = 2
    return image


pictures = {"padded to 128": rectangle(random_batches, 128), "random batches": rectangle(random_batches)}
figure, panels = plotting.axes(1, 3, width=2.8, height=2.6, sharey=True)
for panel, (name, image) in zip(panels, (pictures | {"buckets": rectangle(buckets)}).items(), strict=True):
    panel.imshow(image, cmap="Greys", vmin=0, vmax=2.5, aspect="auto", interpolation="nearest")
    panel.set(title=name, xlabel="position")
    panel.grid(False)
panels[0].set(ylabel="sentence, batch after batch")
plotting.show(run, figure, "03_padding")

# %% [markdown]
# **Observe.** Dark: tokens; grey: padding, computed for nothing; white: not computed. In the left panel most of the
# computed area is grey: the first line printed above the figure says how many positions there are for each token.
# Buckets leave almost no grey: their steps have the width of their own sentences.
#
# Padding must also be *harmless*. The attention mask promises that padded positions change nothing. Promises are
# checked.

# %%
encoder = models.load_classifier(2, seed=seed, model=model).to(run.device)
short = [example for example in train_set if len(example["input_ids"]) <= 24][:4]
tight = training.move(collate(short, pad_id), run.device)
wide = {k: torch.nn.functional.pad(v, (0, 40)) if v.ndim == 2 else v for k, v in tight.items()}
with torch.no_grad():
    a = encoder(input_ids=tight["input_ids"], attention_mask=tight["attention_mask"]).logits
    b = encoder(input_ids=wide["input_ids"], attention_mask=wide["attention_mask"]).logits
    c = encoder(input_ids=wide["input_ids"]).logits  # the mask forgotten
assert a.shape == b.shape and (a - b).abs().max() < 1e-5
print(
    f"largest change of a logit: with the mask {(a - b).abs().max():.0e}, without it {(a - c).abs().max():.0e}"
)

# %% [markdown]
# > **Recall.** Why may two batches of the same epoch differ in width? What would go wrong if you sorted the *whole* set
# > by length and never shuffled?
#
# ## 3 One update
#
# Lesson 01 gave the loss of one example from its logits $z \in \mathbb R^K$ and its label $y$: $\;\ell(z, y) = \log
# \sum_k e^{z_k} - z_y$. The risk of a batch of $B$ examples is the mean,
#
# $$ \mathcal L(\theta) = \frac{1}{B} \sum_{i=1}^{B} \ell\big(z_\theta(x_i), y_i\big). $$
#
# If $B$ examples do not fit into memory, we split them into micro-batches and add up the gradients. A sum of
# gradients is the gradient of the sum. So the division by $B$ must use the number of targets of the *whole* batch,
# not of the micro-batch.
#
# **Predict.** Three micro-batches hold 16, 16 and 4 sentences. You divide each loss by its own size and then by three.
# How much more does a sentence of the last micro-batch count than one of the first?

# %%
from instructlab_utils.losses import cross_entropy, upcast

logits = torch.randn(
    36, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True
)
targets = torch.arange(36) % 2
parts = torch.arange(36).split([16, 16, 4])

full = torch.autograd.grad(cross_entropy(logits, targets).mean(), logits)[0]
wrong = torch.autograd.grad(sum(cross_entropy(logits[p], targets[p]).mean() for p in parts) / 3, logits)[0]
right = torch.autograd.grad(sum(cross_entropy(logits[p], targets[p]).sum() / 36 for p in parts), logits)[0]
assert right.shape == full.shape and torch.allclose(right, full, atol=1e-15)
weight = (wrong / full)[:, 0]
print(f"weight of a sentence, first micro-batch: {weight[0]:.2f}, last micro-batch: {weight[-1]:.2f}")

# %% [markdown]
# **Observe.** The mean of means gives the last four sentences four times the weight of the others. No message, no
# crash. The articles make the same mistake when they report `epoch_loss / len(dataloader)`.
#
# Two more pieces stand between the gradient and the weights. **Clipping** bounds the joint norm of all gradients, so
# that one strange batch cannot throw the model away. AdamW divides a running average of the gradient by the root of a
# running average of its square. The **schedule** lets the learning rate rise from zero while these averages are still
# nearly empty, and fall to zero again, so that the last steps settle.
#
# Sums want room. Numbers of 16 bits keep three digits (bfloat16) or end at 65,504 (float16). So `upcast`
# of lesson 01 widens them to float32 before they are added up; float32 and float64 stay as they are.


# %% tags=["defines:training.clip_gradients"]
def clip_gradients(parameters, max_norm):
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.stack([upcast(g).norm() for g in gradients]).norm().item()
    if norm > max_norm:
        for g in gradients:
            g.mul_(max_norm / (norm + 1e-6))
    return norm


# %% tags=["defines:training.linear_schedule"]
def linear_schedule(step, total, warmup):
    if step < warmup:
        return step / max(1, warmup)
    return max(0.0, (total - step) / max(1, total - warmup))


# %% [markdown]
# Weight decay pulls weights towards zero. AdamW takes it off the weights themselves and keeps it out of the averages
# (Loshchilov and Hutter, 2019). For a matrix decay is a preference for simple maps. For a bias or the scale of a
# LayerNorm it is only a disturbance. The usual rule: what has two dimensions decays, what has one does not.


# %% tags=["defines:training.parameter_groups"]
def parameter_groups(model, weight_decay):
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]


# %% [markdown]
# What is to be learned is a function of its own, the *objective*: one loss $\ell$ for each target. A label of
# $-100$ marks a place without a target. Sentences have none of those; the tokens of lesson 04 will.


# %% tags=["defines:training.target_losses"]
def target_losses(model, batch):
    logits = model(**{name: tensor for name, tensor in batch.items() if name != "labels"}).logits
    counts = batch["labels"] != -100
    return cross_entropy(logits[counts], batch["labels"][counts])


# %% [markdown]
# Here is the whole update. Read it once more with the formula beside it: `total` is $B$, and every micro-batch
# divides by it. Without a single target it would divide by zero, so it refuses. It refuses, too, where the loss or the
# gradient is not finite: one such step makes every weight `nan`, and no later step brings them back.


# %% tags=["defines:training.training_step", "subslide"]
import math


def training_step(model, optimizer, micro_batches, rate, max_norm, objective=target_losses):
    total = sum(int((batch["labels"] != -100).sum()) for batch in micro_batches)
    if total == 0:
        raise TrainingError("every label of this batch is -100: nothing to learn from, look at the masking")
    mean_loss = 0.0
    for batch in micro_batches:
        loss = upcast(objective(model, batch)).sum() / total
        loss.backward()
        mean_loss += loss.item()
    norm = clip_gradients(model.parameters(), max_norm)
    if not math.isfinite(mean_loss + norm):
        optimizer.zero_grad()
        raise TrainingError(
            f"the loss is {mean_loss} and its gradient's norm {norm}: lower the rate or look at the batch"
        )
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()
    return mean_loss, norm


# %% [markdown]
# ### With the library
#
# `transformers.Trainer` is the library's own training loop. You hand it model, settings, examples and a function that
# builds batches; `train()` does the rest. Its setting `gradient_accumulation_steps` is the number of micro-batches per
# update. If both are right, then the same weights, the same micro-batches and the same rates give the same losses.
# Dropout is switched off here, since two programs draw its random numbers in different order.
#
# First ours: a few updates of two micro-batches with eight sentences each.


# %%
def fresh():
    net = models.load_classifier(2, seed=seed, model=model).to(run.device)
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return net.train()


n_updates = run.budget.n_parity
chosen = [train_set[i] for batch in buckets[:n_updates] for i in batch]
micro = [training.move(collate(chosen[i : i + 8], pad_id), run.device) for i in range(0, len(chosen), 8)]
ours, net = [], fresh()
optimizer = torch.optim.AdamW(parameter_groups(net, 0.01))
for step in range(n_updates):
    rate = learning_rate * linear_schedule(step, n_updates, 1)
    ours.append(training_step(net, optimizer, micro[2 * step : 2 * step + 2], rate, 1.0)[0])
del optimizer  # two floats per weight; this lesson also runs where memory is short

# %% [markdown]
# Then theirs. The settings are spelt out, so that nothing depends on a default.

# %%
import contextlib
import gc
import io
import tempfile

from transformers import Trainer, TrainingArguments


def library_run(compute_loss=None):
    arguments = TrainingArguments(
        tempfile.mkdtemp(), max_steps=n_updates, per_device_train_batch_size=8, gradient_accumulation_steps=2,
        learning_rate=learning_rate, warmup_steps=1, weight_decay=0.01, max_grad_norm=1.0, logging_steps=1,
        save_strategy="no", train_sampling_strategy="sequential", use_cpu=run.device == "cpu", bf16=False, disable_tqdm=True,
    )  # fmt: skip
    net = fresh()
    trainer = Trainer(
        net, arguments, lambda rows: collate(rows, pad_id), chosen, compute_loss_func=compute_loss
    )
    with contextlib.redirect_stdout(io.StringIO()):  # it prints a line for each update
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    del trainer
    gc.collect()  # a Trainer refers to itself and would stay
    return losses, net


# %% [markdown]
# **Predict.** Equal, nearly equal, or not? A hint: an untrained head finds both labels about equally likely, so a
# sentence costs about $\ln 2 \approx 0.69$.

# %%
theirs, _ = library_run()
for step, (a, b) in enumerate(zip(ours, theirs, strict=True), start=1):
    print(f"update {step}: ours {a:.4f}   Trainer {b:.4f}   ratio {b / a:.3f}")

# %% [markdown]
# **Observe.** Our first loss is near $\ln 2$; the library's is twice as large. One of the two programs is wrong, and it
# is not ours. What happens inside:
#
# 1. An update has two micro-batches of eight. The head returns the *mean* loss of each. For the mean of all sixteen,
#    somebody must add the two and halve.
# 2. `Trainer` can leave that division to the model: it passes the number of targets of the *whole* batch as
#    `num_items_in_batch`, and a model that knows this argument divides its summed loss by it.
# 3. `Trainer` does not ask whether the model knows it. It reads the signature of `forward`: who accepts any keyword
#    argument (`**kwargs`) is taken to know this one.
# 4. Our model accepts everything and ignores what it does not know. You saw it with `lables` in section 1.
#
# So nobody halves. The logged loss is twice too large, and so is every gradient before clipping. With eight
# micro-batches the factor would be eight, with one nothing is wrong (transformers issue 47688, open when this was
# written).
#
# Why do the runs still look alike? AdamW divides by the gradient's own size, so a constant factor nearly cancels. But
# clipping can shorten a doubled gradient and leave the original alone. Where the printed ratio leaves two, the
# weights have already drifted apart.
#
# **Repair.** Hand `Trainer` a loss function that divides by `num_items_in_batch`, as in this section.

# %%
theirs, library = library_run(
    lambda out, y, num_items_in_batch: cross_entropy(out.logits, y).sum() / num_items_in_batch
)
difference = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))


def apart(one, other):
    """Largest difference of a weight between two networks."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max((p - q).abs().max().item() for p, q in pairs)


weights, travel = apart(net, library), apart(net, fresh())
assert difference < 1e-5 and weights < 0.05 * travel
print(f"{n_updates} updates: largest difference of a loss {difference:.0e}, of a weight {weights:.0e}")
print(f"the farthest that a weight has travelled from its start: {travel:.0e}")
run.record(trainer_loss_difference=difference, trainer_weight_difference=weights)
del net, library

# %% [markdown]
# ## 4 Before training
#
# Look at the untrained model before you train it. It gives you a check for free. The head's weights are small,
# so the logits are near zero, and lesson 01 says what the loss must then be: near $\ln K$, here $\ln 2$. The
# accuracy is no such check. An untrained head may send nearly all sentences to one class or share them out by chance,
# so its accuracy is an accident of its random weights, and with unequal classes it may lie far from the majority's.
#
# Prediction needs its own function: no gradients, no dropout, batches by length, and the answers back in the old
# order. Afterwards each part of the model is in the mode that it had: `evaluating` sees to it.


# %% tags=["defines:training.batches_by_length"]
def batches_by_length(examples, batch_size):
    order = sorted(range(len(examples)), key=lambda i: len(examples[i]["input_ids"]))
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


# %% tags=["defines:training.predict"]
@torch.no_grad()
def predict(model, examples, pad_id, batch_size=64):
    device = next(model.parameters()).device
    must_fit(model, examples)
    found = {}
    with evaluating(model):
        for chosen in batches_by_length(examples, batch_size):
            batch = move(collate([examples[i] for i in chosen], pad_id), device)
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
            found |= zip(chosen, logits.float().cpu(), strict=True)
    return torch.stack([found[i] for i in range(len(examples))])


# %%
from instructlab_utils.guards import must_fit
from instructlab_utils.models import evaluating
from instructlab_utils.training import move

dev_set, test_set = (training.encode(rows, tokenizer, 128) for rows in (dev_rows, test_rows))
y_dev, y_test = (torch.tensor(rows["label"]) for rows in (dev_rows, test_rows))
encoder = models.load_classifier(2, seed=seed, model=model).to(run.device)
before = predict(encoder, test_set, pad_id)
loss_before = cross_entropy(before, y_test).mean().item()
majority = max(y_test.double().mean().item(), 1 - y_test.double().mean().item())
accuracy_before = (before.argmax(1) == y_test).double().mean().item()
print(
    f"loss {loss_before:.3f} against ln 2 = {np.log(2):.3f}; accuracy {accuracy_before:.3f}, majority {majority:.3f}"
)
assert abs(loss_before - np.log(2)) < 0.1
run.record(loss_before=loss_before, accuracy_before=accuracy_before, majority=majority)


# %%
def show(logits, rows, count=5):
    for z, row in zip(logits[:count], rows, strict=False):
        p = torch.softmax(z, 0)[1].item()
        mark = " " if (p > 0.5) == bool(row["label"]) else "✗"
        print(f"{mark} P(positive) = {p:.2f}   rated {row['rating']:+.1f}   {row['text'][:72]}")


show(before, test_rows)

# %% [markdown]
# Keep these five sentences in mind. You will see them again.
#
# ## 5 The loop
#
# Now the pieces fall into place. This is the loop without its bookkeeping. A cell below checks that the
# package's `training.train` takes the same steps.


# %%
def fit(model, examples, steps, learning_rate, batch_size=16):
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.01), fused=True)
    batches, device = training.batches_of(examples, batch_size, pad_id, seed), next(model.parameters()).device
    model.train()
    losses = []
    for step in range(steps):
        rate = learning_rate * linear_schedule(step, steps, round(0.1 * steps))
        losses.append(training_step(model, optimizer, [move(next(batches), device)], rate, 1.0)[0])
    return losses


# %% [markdown]
# The bookkeeping lives in `training.train` and `checkpoints.py`, and is worth reading. It adds
#
# - a **dev split**: sentences for choosing, neither trained on nor reported. It is looked at every so many updates, the
#   **best weights** are kept, and training stops when nothing improves;
# - a **log** with a JSON line per update (`checkpoints.to_tensorboard` turns it into one for TensorBoard);
# - a **checkpoint** that a power cut cannot halve (`checkpoints.py`).
#
# **Why the test split must not do the dev split's work.** The maximum of many scores is too high, because it was selected.
# Whoever picks the epoch on the test sentences and reports the same number reports a maximum, not a mean.
#
# First we check two things on a tiny model that trains for six updates. `fit` and `training.train` end at the same weights.
# And resuming is exact: a twin is cut off after the fourth update, loses its memory, and is taken up again by the same
# call, once without a dev split and once with one.

# %%
from pathlib import Path

place = Path(tempfile.mkdtemp())


def tiny_net():
    torch.manual_seed(99)  # each call starts like a new process, with weights of its own
    return BertForSequenceClassification(config)


def tiny_run(folder, until=None, **looks):
    net = tiny_net()
    training.train(
        net, train_set[:32], steps=6, learning_rate=1e-3, pad_id=pad_id, batch_size=8, seed=seed,
        folder=place / folder, save_every=3, until=until, **looks,
    )  # fmt: skip
    return net


# %%
by_fit = tiny_net()
torch.manual_seed(seed)  # dropout: training.train sets it, too
fit(by_fit, train_set[:32], 6, 1e-3, batch_size=8)
print("fit against training.train, largest difference of a weight:", apart(by_fit, tiny_run("once")))
for name, looks in {"no dev": {}, "dev": {"dev": train_set[32:48], "eval_every": 2}}.items():
    straight = tiny_run(f"{name}, straight", **looks)
    tiny_run(f"{name}, resumed", until=4, **looks)
    resumed = tiny_run(f"{name}, resumed", **looks)
    logs = [(place / f"{name}, {how}" / "log.jsonl").read_text() for how in ("straight", "resumed")]
    assert apart(straight, resumed) == 0 and logs[0] == logs[1]
    print(f"{name}: weights equal, bit for bit; logs equal; in the folder:", end=" ")
    print(sorted(path.name for path in (place / f"{name}, resumed").iterdir()))

# %% [markdown]
# **Observe.** The interruption came after the fourth update, the last checkpoint after the third, and the result is the
# same to the last bit. Four things had to be stored for that: weights, optimiser averages, the position in the data,
# and the random state of dropout. With a dev split two more: the best weights so far, which the second folder shows as
# a file, and the score and update that they belong to. Forget one, and nothing stops the run. The folder also knows
# *which* run it holds. Call it with another learning rate or other sentences, and it refuses and names the difference;
# otherwise the old result would pass for the new one.
#
# Everything is in `safetensors` and JSON. A pickled checkpoint can run code when it is loaded. Today `torch.load` reads
# tensors only, unless somebody says otherwise; a `safetensors` file has no place for anything else.
#
# ### The real run
#
# **Predict.** Write down the test accuracy that you expect after training. And the number of updates after which the
# dev accuracy stops rising.

# %%
import time

begin = time.perf_counter()
history = training.train(
    encoder, train_set, steps=run.budget.steps, learning_rate=learning_rate, pad_id=pad_id, seed=seed,
    dev=dev_set, eval_every=run.budget.eval_every, patience=4,
)  # fmt: skip
seconds = time.perf_counter() - begin
tail = max(1, len(history.losses) // 10)
first, last = np.mean(history.losses[:tail]), np.mean(history.losses[-tail:])
print(f"{len(history.losses)} updates in {seconds:.0f} s; loss {first:.3f} → {last:.3f}")
print(
    f"best dev accuracy {history.best_score:.3f} at update {history.best_step}; early: {history.stopped_early}"
)
run.record(
    seconds=seconds, updates=len(history.losses), best_step=history.best_step, dev_accuracy=history.best_score
)

# %%
figure, (left, right) = plotting.axes(1, 2)
left.plot(history.losses, color="0.75", linewidth=1, label="one batch")
width = max(1, len(history.losses) // 12)
smooth = np.convolve(history.losses, np.ones(width) / width, "valid")
left.plot(
    range(width - 1, len(history.losses)), smooth, color=plotting.COLOURS[0], label=f"mean of {width} batches"
)
left.axhline(np.log(2), color="black", linestyle=":", label="ln 2")
left.set(xlabel="update", ylabel="cross-entropy (nats)", title="Training loss")
left.legend(loc="lower left")
right.plot(*zip(*history.dev, strict=True), **plotting.style(3))
right.axvline(history.best_step, color="black", linestyle=":", label="kept")
right.set(xlabel="update", ylabel="accuracy", title="Dev accuracy")
right.legend()
plotting.show(run, figure, "03_training")

# %% [markdown]
# **Observe.** The loss starts near $\ln 2$, as it had to. Single batches are noisy; the mean tells the story. The dev
# curve decides which weights are kept, and it is noisy too: section 6 says how far a score on so few sentences carries.
# The printed line says whether training stopped early. In the stored run it did not: patience ran longer than the run.
#
# Now the five sentences again, and the whole test split, once.

# %%
after = predict(encoder, test_set, pad_id)
show(after, test_rows)
hits = (after.argmax(1) == y_test).numpy()
run.record(accuracy=hits.mean(), n_test=len(hits))
print(f"\ntest accuracy {hits.mean():.3f} on {len(hits)} sentences")

# %% [markdown]
# It is more useful to see where it fails than how often. These are the most confident mistakes. For some of them the rating
# itself is near the border, and for some you may side with the model.

# %%
p = torch.softmax(after, 1)[:, 1]
confident = sorted(np.flatnonzero(~hits), key=lambda i: -abs(p[i].item() - 0.5))[:5]
for i in confident:
    row = test_rows[int(i)]
    print(f"P(positive) = {p[i]:.2f}   rated {row['rating']:+.1f}   {row['text'][:84]}")

# %% [markdown]
# ## 6 What does that number prove?
#
# ### 6.1 Scores by hand
#
# *Accuracy* counts hits. *Precision* of a class asks how many of the answers "class $k$" are right, *recall* how many
# of class $k$ were found, and $F_1$ is their harmonic mean. The macro average gives every class the same weight,
# however rare it is.


# %%
def confusion(targets, predictions, classes):
    table = np.zeros((classes, classes), dtype=int)
    np.add.at(table, (targets, predictions), 1)
    return table


def macro_f1(table):
    true_positive = table.diagonal()
    precision = true_positive / np.maximum(table.sum(0), 1)
    recall = true_positive / np.maximum(table.sum(1), 1)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return f1.mean()


# %%
table = confusion(y_test.numpy(), after.argmax(1).numpy(), 2)
print("rows: truth, columns: answer\n", table)
ours, library = macro_f1(table), metrics.macro_f1(y_test.tolist(), after.argmax(1).tolist())
assert abs(ours - library) < 1e-12
print(f"macro F1 {ours:.4f}; scikit-learn differs by {abs(ours - library):.0e}")
run.record(macro_f1=ours)

# %% [markdown]
# The articles average per batch here, too. The last batch is smaller, so its sentences count more.
#
# **Predict.** Batches of 64, 64 and 2; the two last sentences are wrong, all others right. What is the accuracy, and
# what does the mean over batches say?

# %% tags=["nbval-check-output"]
toy = np.array([1] * 128 + [0] * 2)
batch_means = [toy[:64].mean(), toy[64:128].mean(), toy[128:].mean()]
print(f"accuracy {toy.mean():.4f}, mean of the batch means {np.mean(batch_means):.4f}")

# %% [markdown]
# ### 6.2 How many test sentences?
#
# One test sentence is a coin that lands on "right" with probability $p$. With $n$ of them the observed share $\hat p$
# has the standard error $\sqrt{p(1-p)/n}$. Wilson (1927) turned the question around: for which $p$ would the observed
# $\hat p$ not be surprising? With $z$ the normal quantile ($z \approx 1.96$ for the level $0.95$), the answer is
#
# $$ \frac{\hat p + \frac{z^2}{2n} \;\pm\;
# z \sqrt{\frac{\hat p (1 - \hat p)}{n} + \frac{z^2}{4 n^2}}}{1 + \frac{z^2}{n}}. $$

# %% tags=["defines:intervals.wilson_interval"]
from instructlab_utils.intervals import Interval


def wilson_interval(successes, n, level=0.95):
    from scipy import stats

    if not 0 <= successes <= n or n == 0 or successes % 1 or n % 1:
        raise ValueError(f"successes must be in 0..n and n positive, both whole, got {successes} of {n}")
    z, p = stats.norm.ppf(0.5 + level / 2), successes / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    low, high = centre - half if successes else 0.0, centre + half if successes < n else 1.0  # exact ends
    return Interval(p, float(low), float(high))


# %% tags=["nbval-check-output"]
print("hits     n   accuracy with its interval")
for n in (100, 400, 1600, 6400):
    print(f"{round(0.85 * n):4d}  {n:4d}   {wilson_interval(round(0.85 * n), n)}")

# %%
figure, panel = plotting.axes(width=5.5, height=2.6)
for (place, n), (k, share) in itertools.product(enumerate((100, 400, 1600, 6400)), enumerate((0.85, 0.86))):
    found, look = wilson_interval(round(share * n), n), plotting.style(k)
    panel.plot([found.low, found.high], [place + k / 3] * 2, color=look["color"])
    panel.plot(
        found.mean, place + k / 3, label=None if place else f"a model that is right in {share:.0%}", **look
    )
panel.set(yticks=range(4), yticklabels=(100, 400, 1600, 6400), ylabel="test sentences", xlabel="accuracy")
panel.invert_yaxis()
panel.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
plotting.show(run, figure, "03_wilson")

# %% [markdown]
# **Observe.** Four times the sentences, half the width. With 400 sentences two models that differ by a point have
# intervals that cover each other's share; look for the row in which they no longer do. Remember the widths when a
# table decides in the third digit. Now ours:

# %%
interval = wilson_interval(int(hits.sum()), len(hits))
print("test accuracy", interval, f"on {len(hits)} sentences")
run.record(accuracy_low=interval.low, accuracy_high=interval.high)

# %% [markdown]
# ### 6.3 Better than what?
#
# An accuracy needs an opponent. Two cheap ones: always the more frequent label, and a logistic regression on TF-IDF
# features. They count words and neighbouring pairs; rare ones weigh more. It sees no order beyond a pair, and no
# pre-training. An opponent deserves its knob: the inverse strength $C$ of its penalty is chosen on the dev sentences.
#
# Both models answer the *same* sentences. If the same sentences are easy for both, the difference varies less than
# if each model had its own test sentences. The **paired bootstrap** (Efron, 1979) uses that: draw sentences with
# replacement, always with both answers, and look at how the difference scatters.


# %% tags=["defines:intervals.paired_bootstrap"]
def paired_bootstrap(a, b, samples=10_000, level=0.95, seed=0):
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise ValueError(
            f"need two scores of the same 2 examples or more, got shapes {a.shape} and {b.shape}"
        )
    d = a - b
    rng = np.random.default_rng(seed)
    means = np.array([d[rng.integers(0, len(d), len(d))].mean() for _ in range(samples)])
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return Interval(float(d.mean()), float(low), float(high))


# %%
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

on_dev, whole = {}, task.splits["test"]
for C in (1, 10, 100, 1000):
    words = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=C, max_iter=2000)
    )
    words.fit(train_rows["text"], train_rows["label"])
    on_dev[(words.predict(dev_rows["text"]) == y_dev.numpy()).mean(), -C] = words  # of equals the smaller C
(_, C), words = max(on_dev.items(), key=lambda item: item[0])
word_hits = words.predict(test_rows["text"]) == y_test.numpy()
word_share = (words.predict(whole["text"]) == np.array(whole["label"])).mean()
gain = paired_bootstrap(hits, word_hits, run.budget.n_bootstrap, seed=seed)
print(f"MiniLM {hits.mean():.3f}, TF-IDF (C = {-C}) {word_hits.mean():.3f}, majority {majority:.3f}")
print(f"correlation of the two rows of hits: {np.corrcoef(hits, word_hits)[0, 1]:+.2f}")
print("paired difference MiniLM − TF-IDF:", gain)
print(f"TF-IDF on all {len(whole)} test sentences instead of these {len(hits)}: {word_share:.3f}")
run.record(tfidf=word_hits.mean(), gain=gain.mean, gain_low=gain.low, gain_high=gain.high)

# %% [markdown]
# **Read it as it is.** If the interval lies above zero, then *this* fine-tuned model is better than *this* word model
# on sentences like these. It says nothing about another seed, another sample of training sentences, or another learning
# rate. The last line shows how much a few hundred test sentences can flatter or hurt one model. For a statement about
# the *method* you must repeat the whole procedure.
#
# ### 6.4 The unit of evidence is the seed
#
# A second run with another seed draws other training sentences, another head, another order. The results scatter. Let
# $d_j$ be the *paired* difference of two methods at seed $j$. Student's interval for its mean over $S$ seeds is
# $\bar d \pm t_{S-1} \, s / \sqrt S$. Here $\bar d$ is the average of the $d_j$, $s$ their standard deviation, and
# $t_{S-1}$ replaces $z$. It is larger, because $s$ is a guess from few values.


# %% tags=["defines:intervals.t_interval"]
def t_interval(values, level=0.95):
    from scipy import special

    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or len(x) < 2:
        raise ValueError(
            f"an interval over seeds needs at least 2 values in one dimension, got shape {x.shape}"
        )
    half = (
        special.stdtrit(len(x) - 1, 0.5 + level / 2) * x.std(ddof=1) / np.sqrt(len(x))
    )  # Student's quantile
    return Interval(float(x.mean()), float(x.mean() - half), float(x.mean() + half))


# %% [markdown]
# Is it worth keeping the pairs? Without them one would add the two variances, each divided by its number of runs, and
# use Welch's (1947) degrees of freedom. The grid of section 7 has real pairs: five seeds of each method, on three
# tasks.
#
# **Predict.** Full fine-tuning against a logistic regression on frozen mean vectors, 50 examples: is the paired
# interval the narrower one on every task?

# %%
from scipy.stats import ttest_ind

from instructlab_repro import lesson


def accuracies(method, task, n):
    """Recorded test accuracies in points, in the order of the seeds."""
    lines = sorted(lesson.results("baselines"), key=lambda line: line["seed"])
    lines = [line for line in lines if (line["method"], line["task"], line["n_train"]) == (method, task, n)]
    return np.array([100 * line["accuracy"] for line in lines])


def both_ways(opponent, task, n):
    ours, theirs = accuracies("full", task, n), accuracies(opponent, task, n)
    low, high = ttest_ind(ours, theirs, equal_var=False).confidence_interval()
    print(f"{opponent:14s} {task:15s} n = {n:3d}  paired {t_interval(ours - theirs)}", end="  ")
    print(f"Welch [{low:.3f}, {high:.3f}]  correlation {np.corrcoef(ours, theirs)[0, 1]:+.2f}")
    return t_interval(ours - theirs)


# %%
for name in ("movie-sentiment", "tweet-sentiment", "bbc-topics"):
    both_ways("frozen_mean_lr", name, 50)
gain_5 = both_ways("tfidf_lr", "movie-sentiment", 800)
run.record(gain_5_mean=gain_5.mean, gain_5_low=gain_5.low, gain_5_high=gain_5.high)

# %% [markdown]
# **Observe.** The correlation is that of the two methods over the seeds. In the two lines where it is highest a lucky
# draw of training sentences is lucky for both, and the paired interval is the narrower one. In the two others the pairs
# buy little, they cost degrees of freedom, and the paired interval is the wider one. Pairing is a bet that the same
# sentences help both methods. The last line compares the same two methods as section 6.3, over five seeds (with fewer
# tokens and updates, and a wider search for $C$).
#
# The course calls a claim *supported* if the whole interval lies on the claimed side, *refuted* if it lies on the
# other, and *undecided* otherwise. Undecided is an honest result. It is not "the same". Who wants to
# claim "the same" names a margin $m$ first: if the whole $90\,\%$ interval lies inside $(-m, m)$, two one-sided tests at
# $0.05$ say so (Schuirmann, 1987). And who plans asks for the *power*: the chance that this many seeds find a difference of
# size $m$, if it is there.
#
# ## 7 The experiment: do fifty examples suffice?
#
# The articles say that a few instructions suffice, because pre-training has initialised the weights so well. They give
# no number. We turned the sentence into claim **C1** and wrote it down before the first run (`data/claims/C1.toml`):
# *fine-tuning the pre-trained encoder on 50 examples is more accurate than training the same architecture from random
# weights on 800.* One number per seed: the difference, averaged over three tasks (the mood of film sentences, the mood
# of tweets, the topic of news articles).
#
# Seven methods, from cheap to expensive:
#
# - *majority class* and *TF-IDF + LR*, the two opponents of section 6 (LR is logistic regression);
# - *frozen [CLS] + LR* and *frozen mean + LR*: the encoder is not trained. Its vector of the first token, or the mean
#   of all its token vectors, goes into a logistic regression;
# - *head only*: the encoder is not trained either, and our loop trains the head;
# - *full fine-tuning*: our loop trains everything;
# - *random init*: the same, but from random weights.
#
# At each size, all methods that our loop trains get the same number of updates: `60`, `80` and `120` for the three
# sizes. So a larger training set comes with more updates, too. Each method but the first has one knob. Five values of
# it were tried once, on a seed that the table does not use. Every method reads the first 64 tokens of a text. The grid
# takes longer than a lesson, so it ran outside (`make reproduce`), and we read its record. Nothing is recomputed here.
#
# **Predict.** Order the methods at 50 examples. Where do you put *frozen mean*?

# %%
lesson.table("baselines")

# %%
labels_of = lesson.experiment("baselines").labels
methods = [name for name in labels_of if name != "majority"][::-1]
figure, panels = plotting.axes(1, 3, width=3.2, height=3.4, dpi=85, sharex=True, sharey=True)
for panel, name in zip(panels, ("movie-sentiment", "tweet-sentiment", "bbc-topics"), strict=True):
    panel.axvline(accuracies("majority", name, 50).mean(), color="black", linestyle=":", label="majority")
    for n, marker, fill, edge, up in ((50, "o", "white", "black", 0.16), (800, "D", "black", "white", -0.16)):
        for y, method in enumerate(methods):
            found, label = accuracies(method, name, n), f"{n} examples" if y == 0 else None
            how = {"markersize": 5.5, "color": fill, "markeredgecolor": edge, "markeredgewidth": 0.8}
            panel.plot(found, [y + up] * len(found), marker, label=label, **how)
    panel.set(title=name, xlabel="test accuracy (%)", xlim=(15, 100), ylim=(-0.5, len(methods) - 0.5))
panels[0].set_yticks(range(len(methods)), [labels_of[name] for name in methods])
figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
plotting.show(run, figure, "03_baselines")

# %% [markdown]
# *Figure: a mark for each seed; above, open, the smallest size, below, filled, the largest (the size between stands in the
# table). Dotted: the majority class of that task. All three panels have one axis.*
#
# **Observe.** Look at the intervals of the table before you look at the means, and at the width of each row of marks.
#
# - *Full fine-tuning* at the smallest size against itself at the largest. For topics little is left to gain. For film
#   sentences most of the way is still ahead.
# - *Frozen mean* at the smallest size. On both sentiment tasks five seeds cannot tell it from fine-tuning: both are
#   bold, and section 6.4 printed the intervals. That is not "as good as": the interval of the films leaves room for
#   several points against fine-tuning. On topics fine-tuning is ahead. The articles never try this baseline, and it
#   costs almost nothing. But it is no accident that the mean does well and `[CLS]` less so: the makers of this encoder
#   trained it for its mean vectors.
# - *Random init* anywhere. No cell can be told from the majority class; the line under the table says so.
# - *TF-IDF* on topics, from the smallest size to the largest. It starts far behind and comes close. In the first
#   revision of this experiment it counted the words of whole articles while the encoder read 64 tokens, and it led the
#   largest size. Who reads how much belongs to a fair comparison. (`git log data/results/baselines.jsonl` still has
#   that run.)
#
# Now the verdict. **Predict.** What will the lines *beside* the verdict say about "suffice"?

# %%
lesson.show("C1")
verdict = lesson.verdict("C1")
run.record(
    c1_verdict=verdict["verdict"], c1_mean=verdict["mean"], c1_low=verdict["low"], c1_high=verdict["high"]
)

# %% [markdown]
# **Observe.** First, what C1 says. Fifty examples with this pre-training beat eight hundred without, under this small
# budget of updates. The whole interval lies above zero, so the claim stands *as it was written*. It was easy to win.
#
# - **The opponent learned almost nothing.** The note under the table lists *random init* at every size among those that
#   do not beat the majority class. C1 does not say what random weights reach with more updates.
# - **One task carries the mean.** On topics the largest class has the smallest share, so there is most to gain. On the
#   two sentiment tasks the gain is far smaller.
# - **Against a serious opponent no lead can be seen.** Fifty examples with pre-training and eight hundred with TF-IDF:
#   the interval contains zero, so these seeds cannot tell the two apart. (On tweets the mean lies above zero, on the
#   other tasks below.) With the *same* fifty, pre-training wins clearly.
#
# So C1 means that pre-training saves labels. It does not mean that fifty are enough. The last line says what is missing
# at fifty: on film sentences, far too much. Nor does it mean that you must fine-tune: with fifty sentences of sentiment
# these seeds see no gain over *frozen mean*.
#
# For your own claims, choose an opponent that could win. Ours was weak. But it was written down first, so the verdict
# stays, with the other lines beside it.
#
# ## 8 What we have shown
#
# Printed from this run's record, so that the text cannot disagree with the numbers.

# %%
m = run.metrics
print(f"profile {run.profile}, seed {seed}, {run.device}")
print(
    f"padding to 128 computes {m['waste_128']:.1f} positions per real token, buckets {m['waste_buckets']:.2f}"
)
print(
    f"our loop and Trainer, with the same denominator: losses differ by at most {m['trainer_loss_difference']:.0e}"
)
print(f"loss before training {m['loss_before']:.3f}; {m['updates']} updates took {m['seconds']:.0f} s")
print(
    f"test accuracy {m['accuracy']:.3f} [{m['accuracy_low']:.3f}, {m['accuracy_high']:.3f}] on {m['n_test']} sentences"
)
print(
    f"gain over TF-IDF on the same sentences, one seed {m['gain']:+.3f} [{m['gain_low']:+.3f}, {m['gain_high']:+.3f}]"
)
print(
    f"  over five seeds, in points {m['gain_5_mean']:+.1f} [{m['gain_5_low']:+.1f}, {m['gain_5_high']:+.1f}]"
)
print(f"C1 over all seeds: {m['c1_verdict']}, {m['c1_mean']:+.3f} [{m['c1_low']:+.3f}, {m['c1_high']:+.3f}]")

# %% [markdown]
# **What we have not shown.**
#
# - The encoder is MiniLM, which learned from a larger model (Wang et al., 2020), and was then tuned by others on about a
#   billion sentence pairs. Our verdict is about this checkpoint, not about pre-training as such.
# - Random weights got the same small number of updates as everything else. We have not tried a hundred times as many.
# - Three tasks are three tasks, all of them English, two of them about sentiment. The encoder has probably met such
#   reviews.
# - Five seeds draw five training sets, but the test examples are the same for all. The interval of C1 says nothing
#   about other test examples.
# - The texts are short, or cut short. How lengths, spans and tokens change the loop is the subject of lessons 04 to 06.
# - One number decides here, accuracy. Whether the probabilities mean what they say is a question for lesson 07.
#
# **What should I set?**
#
# | you want | set | check |
# |---|---|---|
# | a label for a text | `AutoModelForSequenceClassification(num_labels=K)` | shape $(B, K)$, first loss near $\ln K$ |
# | batches without waste | `train_sampling_strategy="group_by_length"`, or buckets | positions for each token |
# | harmless padding | pass the `attention_mask` | a text alone and in a batch |
# | larger batches than memory allows | accumulate; divide by the targets of all micro-batches | gradient of one large batch |
# | to go on after a crash | weights, optimiser, place in the data, random state | the same bits |
# | a number for a paper | seeds, equal tuning, a paired interval, majority and TF-IDF | the interval, not the mean |
#
# **Recall.** Answer without scrolling.
#
# 1. Logits of shape $(B, T, K)$ and labels of shape $(B,)$: which message do you get, and what is the mistake?
# 2. Why is the loss before training close to $\ln K$, and what would a much larger value tell you?
# 3. Two micro-batches of 16 and one of 4: by what must you divide each summed loss?
# 4. Name the four things that a checkpoint needs for a resume to the same bits. What does a dev split add?
# 5. Your interval for a paired difference is $[-1, 5]$ points. What do you write in the paper?
#
# <details><summary>Answers</summary>
#
# 1. A message about $B \cdot T$ against $B$. A token head stands where a sentence head belongs.
# 2. Small logits give every class the same chance. A much larger value means large logits before any training.
# 3. By 36, the number of all targets.
# 4. Weights, the optimiser's averages, the place in the data, the random state. A dev split adds the best weights and
#    their score.
# 5. Undecided, with the interval. Not "no difference".
#
# </details>
#
# **Exercises.** `notebooks/exercises/03_classification_loop.py`; `make classroom` builds the student version.
#
# **References.**
#
# - Efron, B. (1979). Bootstrap methods: another look at the jackknife. *The Annals of Statistics* 7(1), 1–26.
# - Hutto, C. J., and Gilbert, E. (2014). VADER: a parsimonious rule-based model for sentiment analysis of social media
#   text. *ICWSM 2014*.
# - Loshchilov, I., and Hutter, F. (2019). Decoupled weight decay regularization. *ICLR 2019*.
# - Schuirmann, D. J. (1987). A comparison of the two one-sided tests procedure and the power approach for assessing the
#   equivalence of average bioavailability. *Journal of Pharmacokinetics and Biopharmaceutics* 15, 657–680.
# - Student (1908). The probable error of a mean. *Biometrika* 6(1), 1–25.
# - Wang, W., et al. (2020). MiniLM: deep self-attention distillation for task-agnostic compression of pre-trained
#   transformers. *NeurIPS 2020*.
# - Wilson, E. B. (1927). Probable inference, the law of succession, and statistical inference. *Journal of the American
#   Statistical Association* 22(158), 209–212.
# - Welch, B. L. (1947). The generalization of "Student's" problem when several different population variances are
#   involved. *Biometrika* 34(1–2), 28–35.
# - transformers, pull request 34191 (2024) and issue 47688 (2026), on the denominator under gradient accumulation.
