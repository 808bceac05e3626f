# ---
# jupyter:
#   instructlab:
#     id: "25"
#     title: Compression and deployment
#     outcome: make a model smaller and faster, measure what that costs, and tell a small file from a fast model
#     assets: [minilm, smollm2, bbc, vader]
#     minutes: {smoke: 0.9, laptop: 2, gpu: 2}
#     class_minutes: 180
#     budget:
#       n_turns: {smoke: 3, laptop: 15, gpu: 30}
#       n_pool: {smoke: 60, laptop: 700, gpu: 700}
#       n_new: {smoke: 8, laptop: 40, gpu: 80}
#       n_tokens: {smoke: 16, laptop: 64, gpu: 128}
#       n_load: {smoke: 4000, laptop: 60000, gpu: 60000}
#       n_texts: {smoke: 360, laptop: 1500, gpu: 1500}
#       n_steps: {smoke: 300, laptop: 1200, gpu: 1200}
#       n_minutes: {smoke: 6, laptop: 30, gpu: 30}
#       n_replicas: {smoke: 60, laptop: 1000, gpu: 1000}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 25 Compression and deployment
#
# **The question.** A model is too large and too slow. You may throw weights away, store them with fewer bits, or teach a
# smaller model. Which of these makes the *file* smaller, which makes the *answer* faster, and what does each cost?
#
# | | |
# |---|---|
# | before this | lessons 01 (cross-entropy), 06 (greedy decoding, the cache), 20 (frozen features) |
# | time | smoke: about a minute · laptop: about two minutes on one core · gpu: not measured yet |
# | memory | under 2 GB |
# | models | MiniLM, an encoder of 22 million weights; SmolLM2, a decoder of 135 million |
# | data | BBC news: source and licence in `data/cards/` |
# | box of lesson 00's chain | *answer*: what it costs to give one |
#
# **You will be able to**
#
# - *derive* the loss of distillation and its gradient, and separate soft labels from more texts;
# - *prune* weights, heads and layers, and *measure* which of them is speed;
# - *quantise* by hand, with and without a zero point, by tensor, row and column, outliers apart;
# - *compute* the memory of a cache, and decode speculatively without changing a token;
# - *serve* a model: queue, batches, keys, canary, drift alarm, replicas, and *predict* how long people wait.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
seed: int = 0  # texts, first values, order of the turns

# %%
import copy
import functools
import statistics
import time
import warnings

import torch
from torch.nn import functional as F

from instructlab_utils import distilling, features, models, plotting, quantisation, sparsity, start
from instructlab_utils.errors import ParameterError

run = start("25", profile=profile, seed=seed)
show = functools.partial(plotting.show, run)
for kind in (DeprecationWarning, UserWarning):  # torch.ao announces its successor
    warnings.filterwarnings("ignore", message=".*(deprecat|quantize).*", category=kind)

# %% [markdown]
# ## 1 Half of it is zeros
#
# We set the smaller half of the weights in all of MiniLM's matrices to zero. Half of the multiplications are now
# multiplications by zero. **Predict.** How much faster is a forward pass? How much smaller is the file?

# %%
dense = models.load_classifier(2)
half, four = copy.deepcopy(dense), copy.deepcopy(dense)
weights = sparsity.linear_weights(half)
masks = sparsity.keep_best({name: w.abs() for name, w in weights.items()}, 0.5)
for name, weight in weights.items():
    weight.data.mul_(masks[name])
four.bert.encoder.layer = four.bert.encoder.layer[:4]
ids = torch.randint(1000, 20000, (4, 24), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def seconds(net):
    begin = time.perf_counter()
    net(input_ids=ids, attention_mask=torch.ones_like(ids))
    return time.perf_counter() - begin


# %%
nets = {"as it is": dense, "half zeros": half, "four of six layers": four}
for net in nets.values():
    seconds(net)  # the first pass is slower: it is not counted
times = {name: [] for name in nets}
for _ in range(run.budget.n_turns):
    for name, net in nets.items():
        times[name].append(1000 * seconds(net))
for name, net in nets.items():
    size = quantisation.file_bytes(quantisation.tensors_of(net)) / 1e6
    print(f"{name:20s} {statistics.median(times[name]):6.1f} ms   {size:5.1f} MB")
    run.record(**{"ms_" + name.replace(" ", "_"): statistics.median(times[name])})

# %% [markdown]
# **Observe.** The zeros bought no byte, and no time beyond the noise (section 9 has eighteen processes instead of one).
# A matrix product multiplies by zero as by anything else, and a file stores a zero in as many bytes as a one. *Sparse*
# is not *fast*. Cutting two layers is fast; but the file shrinks less than one would hope, since half of this model is
# its table of words.
#
# The versions took *turns*: another program on the machine slows all of them alike. Letters for the whole lesson:
#
# | symbol | meaning |
# |---|---|
# | $z$, $v$ | logits of the student, of the teacher |
# | $T$, $p$, $q$ | temperature; $p = \text{softmax}(v/T)$, $q = \text{softmax}(z/T)$ |
# | $w$, $m$ | a weight; its mask, 0 or 1 |
# | $X$, $W$ | input of a layer, a row a token; its weight, a row an output |
# | $s$, $o$, $c$ | scale, zero point, code: a whole number from $-128$ to $127$ |
# | $L$, $H$, $d$, $t$ | layers, heads with keys and values, their width, tokens so far |
# | $k$, $a$ | tokens that a draft proposes; how many of them are accepted |
#
# ## 2 A student learns from a teacher
#
# A label says "sports". A teacher says "sports, surely; if not, then rather politics than technology". Hinton and others
# (2015) let the student learn all of it. At temperature $T$ both distributions are flatter, and the loss is
#
# $$ \mathcal L = T^2\, \text{KL}(p \,\|\, q) = T^2 \sum_i p_i (\ln p_i - \ln q_i), \qquad
# \frac{\partial \mathcal L}{\partial z_i} = T\,(q_i - p_i) . $$
#
# For large $T$, $q_i - p_i$ shrinks like $1/T$, and the slope of $z/T$ brings another $1/T$; $T^2$ makes up for both.
# **Predict.** To what does the gradient tend as $T \to \infty$?


# %% tags=["defines:distilling.distillation_loss"]
def distillation_loss(student, teacher, temperature=1.0):
    if student.shape != teacher.shape or not temperature > 0:
        raise ParameterError(
            f"logits {tuple(student.shape)} and {tuple(teacher.shape)}, T = {temperature}: one shape, T above 0"
        )
    log_q = log_softmax(student / temperature)
    log_p = log_softmax(teacher.detach() / temperature)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(-1).mean()


from instructlab_utils.losses import log_softmax

# %%
g = torch.Generator().manual_seed(seed)
z, v = (torch.randn(3, 4, generator=g, dtype=torch.float64) for _ in range(2))
z.requires_grad_()
for T in (1.0, 3.0, 100.0):
    by_autograd = torch.autograd.grad(distillation_loss(z, v, T), z)[0]
    by_hand = T * ((z / T).softmax(-1) - (v / T).softmax(-1)).detach() / len(z)
    step = 1e-6 * torch.eye(12, dtype=torch.float64).view(12, 3, 4)
    ups, downs = ([distillation_loss(z + sign * e, v, T) for e in step] for sign in (1, -1))
    by_steps = ((torch.stack(ups) - torch.stack(downs)) / 2e-6).view(3, 4).detach()
    assert by_autograd.shape == by_hand.shape == by_steps.shape
    apart = [(by_autograd - each).abs().max().item() for each in (by_hand, by_steps)]
    assert apart[0] < 1e-12 and apart[1] < 1e-6
    print(f"T = {T:5.0f}: formula {apart[0]:.0e}, differences {apart[1]:.0e}")
limit = ((z - z.mean(-1, keepdim=True)) - (v - v.mean(-1, keepdim=True))).detach() / (4 * len(z))
print(f"T = 100 against (z - v) / K, both centred: {(by_autograd - limit).abs().max():.0e}")

# %% [markdown]
# **Observe.** For large $T$ the student fits the teacher's *logits*, centred, by least squares.
#
# Now a real pair. The teacher sees news through MiniLM's six layers, the student only the mean of the word vectors: no
# layer at all. A hundred articles have labels (fewer in smoke); for the others there is only what the teacher says. It
# can say a *name* (a pseudo-label) or its *probabilities*. We also train a teacher with label smoothing. **Predict.**
# Which student is best?

# %%
pool, order, test, dev = features.split_pool("bbc-topics", 2, seed, run.budget.n_pool)
encoder, tokenizer = models.load_encoder(), models.load_tokenizer("encoder")
few, y, dev_y = min(100, len(pool) // 2), torch.tensor(pool["label"])[order], torch.tensor(dev["label"])
words, dev_words = (
    features.pooled(*features.lower_states(encoder, tokenizer, part["text"], 0)) for part in (pool, dev)
)
states, words = features.mean_states(pool["text"])[order], words[order]
told = {}
for name, smoothing in (("plain", 0.0), ("smoothed", 0.2)):
    teacher = distilling.network(384, 64, 5, seed)
    distilling.learn(teacher, states[:few], y[:few], rate=3e-3, decay=1.0, smoothing=smoothing)
    told[name] = teacher(states[few:]).detach()
arms = {"labels alone": None, "its names": told["plain"].argmax(1), "its probabilities": told["plain"]}
arms["a smoothed one's"] = told["smoothed"]

# %%
for name, said in arms.items():
    net = distilling.network(384, 0, 5, seed)
    more = {} if said is None else {"pool": words[few:], "told": said, "temperature": 3.0}
    distilling.learn(net, words[:few], y[:few], rate=0.03, decay=0.1, **more)
    right = (net(dev_words).argmax(1) == dev_y).double().mean().item()
    run.record(**{"student_" + name.replace(" ", "_").replace("'", ""): right})
    print(f"{name:20s} {right:.3f} of the dev articles")
for name, logits in told.items():
    print(f"the {name} teacher's largest probability, in the mean: {logits.softmax(1).amax(1).mean():.2f}")

# %% [markdown]
# **Observe.** One seed; section 9 has more. Look at the last lines: a smoothed teacher is less sure, on purpose. Müller
# and others (2019) found that smoothing erases what one class has in common with another. Whether that is the harm
# here, section 9 leaves open.
#
# ## 3 Which weights?
#
# *Magnitude*: the smallest go. *Movement* (Sanh and others, 2020): those go that training moves towards zero. Give each
# weight a mask $m = 1$ that multiplies it. Removing it changes the loss by about $-\partial\mathcal L/\partial m$, and
# $\partial\mathcal L/\partial m = w\,\partial\mathcal L/\partial w$. The score adds $-w\,\partial\mathcal L/\partial w$ over
# the updates; the lowest scores go.


# %% tags=["defines:sparsity.keep_best", "defines:sparsity.add_movement"]
def keep_best(scores, share):
    flat = torch.cat([score.detach().flatten() for score in scores.values()])
    if not 0 <= share <= 1 or flat.isnan().any():
        raise ParameterError(
            f"share {share} of {len(flat)} scores: choose 0 to 1, and scores that are numbers"
        )
    gone, n = torch.zeros(len(flat), dtype=torch.bool), round(share * len(flat))
    if n:
        limit = flat.kthvalue(n).values
        gone = flat < limit
        gone[(flat == limit).nonzero()[: n - int(gone.sum()), 0]] = True
    parts = (~gone).split([score.numel() for score in scores.values()])
    return {name: part.view_as(scores[name]) for name, part in zip(scores, parts, strict=True)}


@torch.no_grad()
def add_movement(scores, weights):
    for name, weight in weights.items():
        if weight.grad is not None:
            scores[name] = scores.get(name, torch.zeros_like(weight)) - weight * weight.grad


# %%
tiny, x, aim = torch.nn.Linear(6, 3).double(), torch.randn(9, 6).double(), torch.randint(3, (9,))
m = torch.ones_like(tiny.weight, requires_grad=True)
F.cross_entropy(F.linear(x, tiny.weight * m, tiny.bias), aim).backward()
score = {}
add_movement(score, {"W": tiny.weight})
assert score["W"].shape == m.grad.shape
print(f"movement against minus the mask's gradient: {(score['W'] + m.grad).abs().max():.0e}")
assert (score["W"] + m.grad).abs().max() < 1e-15

# %% [markdown]
# ## 4 Heads and layers
#
# Whole heads can be *cut out*: the matrices become smaller. Which ones? Multiply what head $h$ says by a gate, and take
# the loss's gradient at gate 1 (Michel and others, 2019). transformers 5 has no `prune_heads` and no `head_mask`; a hook
# before the output projection gates, and a slice removes. **Predict.** Are a gate of zero and a cut the same?

# %%
layer, keep = copy.deepcopy(encoder.encoder.layer[3]), [0, 2, 3, 7, 8, 11]
gates = torch.zeros(1, 12).index_fill(1, torch.tensor(keep), 1.0)
h = torch.randn(2, 5, 384, generator=torch.Generator().manual_seed(seed))
with torch.no_grad():
    with sparsity.head_gates([layer], gates):
        gated = layer(h)
    before = sum(w.numel() for w in layer.parameters())
    sparsity.slice_heads(layer, keep)
    cut = layer(h)
apart = (gated - cut).abs().max().item()
print(f"largest difference {apart:.0e}; weights {before:,} → {sum(w.numel() for w in layer.parameters()):,}")
run.record(gate_against_slice=apart)
assert apart < 1e-5

# %% [markdown]
# **Observe.** The same, up to rounding, and only the cut is smaller. So: search with gates, ship the slices.
#
# ## 5 Eight bits
#
# **Absmax** uses one scale, $s = \max|x| / 127$, and codes $c = \text{round}(x/s)$. **Zero point** stretches the range from
# the smallest to the largest value over all 256 codes: $s = (\max - \min)/255$, $o = \text{round}(-128 - \min/s)$, $c =
# \text{round}(x/s) + o$, and back $x \approx (c - o)\,s$. **Predict.** Values between 0 and 1, as after a ReLU: how many of
# the 256 codes does each use?


# %% tags=["defines:quantisation.absmax", "defines:quantisation.zero_point"]
ends, Codes = quantisation.ends, quantisation.Codes  # smallest and largest, 0 between; the codes with s and o


def absmax(x, dim=None):
    low, high = ends(x, dim)
    largest = torch.maximum(-low, high)
    scale = torch.where(largest > 0, largest / 127, 1.0)
    return Codes((x / scale).round().clamp(-127, 127).to(torch.int8), scale, torch.zeros_like(scale))


def zero_point(x, dim=None):
    low, high = ends(x, dim)
    scale = torch.where(high > low, (high - low) / 255, 1.0)
    zero = (-128 - low / scale).round()
    return Codes(((x / scale).round() + zero).clamp(-128, 127).to(torch.int8), scale, zero)


# %%
figure, panels = plotting.axes(2, 1, width=7, height=1.3, dpi=85)
x = torch.rand(4000, generator=torch.Generator().manual_seed(seed))
for panel, (name, found) in zip(panels, (("absmax", absmax(x)), ("zero point", zero_point(x))), strict=True):
    used = found.numbers.unique()
    line = torch.arange(-128, 128)
    panel.vlines(line, 0, 1, color="lightgrey", linewidth=1)
    panel.vlines(used, 0, 1, color=plotting.COLOURS[0], linewidth=1)
    panel.set(title=f"{name}: {len(used)} of 256 codes used", yticks=[], xlim=(-130, 130))
    panel.grid(False)
    error = (found.values() - x).abs().max().item()
    print(f"{name:10s} scale {found.scale.item():.5f}, largest error {error:.5f}")
panels[1].set(xlabel="code")
show(figure, "25_codes")

# %% [markdown]
# *Figure: all codes in grey, those in use dark. One-sided values leave half of absmax's codes empty.*
#
# **With the library.** Ours against `torch.quantize_per_tensor` and `quantize_per_channel`, with the same scale and zero
# point: the largest difference of the values, in steps.

# %%
x = torch.randn(40, 64, generator=torch.Generator().manual_seed(seed))
for name, kind in (("absmax", absmax), ("zero point", zero_point)):
    one, rows = kind(x), kind(x, -1)
    theirs = torch.quantize_per_tensor(x, one.scale.item(), int(one.zero.item()), torch.qint8)
    each = torch.quantize_per_channel(x, rows.scale[:, 0], rows.zero[:, 0].long(), 0, torch.qint8)
    apart = [
        ((found.values() - its.dequantize()) / found.scale).abs().max().item()
        for found, its in ((one, theirs), (rows, each))
    ]
    print(f"{name:10s} a tensor {apart[0]:.0e}, a row {apart[1]:.0e}; wrong codes", end=" ")
    print((one.numbers != theirs.int_repr()).sum().item(), (rows.numbers != each.int_repr()).sum().item())
    assert max(apart) < 1e-3

# %% [markdown]
# ## 6 Rows, columns, outliers
#
# A product $X W^\top$ needs scales for both. One a tensor; or one for each row of $X$ (*row-wise*); or also one for each
# output (*vector-wise*): scales of rows and columns factor out of the sum. A scale inside the sum would not:
#
# $$ \sum_j X_{ij} W_{nj} \;\approx\; s^X_i\, s^W_n \sum_j (c^X_{ij} - o^X_i)(c^W_{nj} - o^W_n) . $$
#
# **Predict.** In one token a feature is a hundred times larger than all others. Whose values suffer with one scale for the
# tensor, and whose with a scale for each row?

# %%
from matplotlib.patches import Rectangle

figure, panels = plotting.axes(1, 3, width=2.6, height=2.3, dpi=85)
shades = {"one a tensor": (1, 1), "row-wise": (5, 1), "vector-wise": (5, 4)}
for panel, (name, (rows, columns)) in zip(panels, shades.items(), strict=True):
    boxes = [((0, 4 - i), 6, 1, i / 5 if rows > 1 else 0.4) for i in range(5)]
    boxes += [((7 + n, -1), 1, 6, n / 4 if columns > 1 else 0.4) for n in range(4)]
    for *place, shade in boxes:
        panel.add_patch(Rectangle(*place, facecolor=str(0.5 + shade / 2), edgecolor="black"))
    panel.text(3, 5.3, f"$X$: {rows}", ha="center")
    panel.text(9, 5.3, f"$W^\\top$: {columns}", ha="center")
    panel.set(title=name, xlim=(-0.3, 11.3), ylim=(-1.3, 6.3), aspect="equal")
    panel.axis("off")
show(figure, "25_scales")

# %% [markdown]
# *Figure: a shade is a scale. Left, X has rows of tokens; right, Wᵀ has a column for each output.*
#
# *Outliers apart* (LLM.int8(): Dettmers and others, 2022): features of $X$ with a value of 6 or more anywhere stay in
# floating point, as one narrow product; the rest is int8. Look at the real decoder.

# %%
net, chat = models.load_decoder(device=run.device).float(), models.load_tokenizer("decoder")
text = dev["text"][0]
ids = torch.tensor([chat(text)["input_ids"][: run.budget.n_tokens]], device=net.device)
seen, hooks = {}, []


def keep(name, _, inputs):
    seen[name] = inputs[0][0].detach()


for name, part in net.named_modules():
    if isinstance(part, torch.nn.Linear) and name != "lm_head":
        hooks.append(part.register_forward_pre_hook(functools.partial(keep, name)))
with torch.no_grad():
    net(ids)
for hook in hooks:
    hook.remove()
worst = max(seen, key=lambda name: seen[name].abs().max())
X, W = seen[worst], net.get_submodule(worst).weight.detach()
far = (X.abs() >= quantisation.OUTLIER).any(0)
print(f"largest input: {worst}, |x| up to {X.abs().max():.0f}; outlier features {far.sum()} of {len(far)}")

# %%
figure, axis = plotting.axes(width=6.4, height=2.4, dpi=85)
axis.semilogy(X.abs().amax(0).sort(descending=True).values.cpu(), color=plotting.COLOURS[0])
axis.axhline(quantisation.OUTLIER, color="black", linestyle="--", linewidth=1)
axis.set(xlabel="features, sorted", ylabel="largest $|x|$ over the text")
show(figure, "25_outliers")
exact, linear = X @ W.T, torch.nn.Linear(*W.T.shape, bias=False)
linear.weight = torch.nn.Parameter(W)
rare = (X.abs() >= quantisation.OUTLIER).any(1)
print(f"{rare.sum()} of {len(rare)} tokens hold an outlier; relative error of a token, in the mean:")
for name, scheme in quantisation.SCHEMES.items():
    with torch.no_grad():
        apart = quantisation.EightBitLinear(linear, scheme)(X) - exact
    error = apart.norm(dim=1) / exact.norm(dim=1)
    print(f"{name:20s} with an outlier {error[rare].mean():.4f}, without {error[~rare].mean():.4f}")

# The same for what our checkpoint hides: how many different weights stand in a block of 32?
blocks = net.model.layers[0].mlp.up_proj.weight.detach().cpu().reshape(-1, 32)[:2000]
for name, rows in (("SmolLM2", blocks), ("random numbers", torch.randn(2000, 32))):
    print(f"{name}: at most {max(len(row.unique()) for row in rows)} different values in a block of 32")

# %% [markdown]
# *Figure: the input with the largest value in the model; above the dashed line a feature counts as an outlier.*
#
# **Observe.** A few features are huge, and few tokens have them (first line). One scale for the tensor must fit them, and all
# *other* tokens become zero: an error as long as the values themselves. A scale for each row saves
# them; the outlier stays in its own row. A scale for each output helps again. Taking outliers apart repairs the row that
# has them. So it depends on where they stand: in large models they stand in most tokens (Dettmers and others, 2022), and
# scales for rows do not help there.
#
# **What our checkpoint hides.** SmolLM2 came to us in four bits: its weights were rounded before we met them. An int8
# *weight* can lose little more, and int4 in the same blocks would look free of loss: an artefact. *Activations* were never
# rounded. Which of the two is lost the more depends on the scales of $W$: compare row-wise with vector-wise above.
#
# ## 7 With the library: dynamic int8
#
# `torch.ao.quantization.quantize_dynamic` stores int8 weights (one scale a matrix) and quantises inputs when they come. It
# is deprecated (torchao is its successor) and works. We rebuild one of its layers: on this kind of processor it gives the
# *input* only seven bits, so that sums of products cannot overflow.

# %%
small = torch.ao.quantization.quantize_dynamic(dense, {torch.nn.Linear}, dtype=torch.qint8)
theirs = small.bert.encoder.layer[0].intermediate.dense
w, bias = theirs._packed_params._weight_bias()
x = torch.randn(6, 384, generator=torch.Generator().manual_seed(seed))
low, high = ends(x)
for bits in (7, 8):
    most = 2**bits - 1
    s = (high - low) / most
    o = (-low / s).round()
    ours = (((x / s).round() + o).clamp(0, most) - o) * s @ w.dequantize().T + bias
    print(f"input in {bits} bits: largest difference to torch {(ours - theirs(x)).abs().max():.0e}")
size = {
    name: quantisation.file_bytes(quantisation.tensors_of(net)) / 1e6
    for name, net in (("fp32", dense), ("int8", small))
}
print({name: f"{value:.1f} MB" for name, value in size.items()})
run.record(**{f"megabytes_{name}": value for name, value in size.items()})

# %% [markdown]
# **Observe.** One of the two agrees to rounding. And the file is not a quarter: the table of words stayed in floats.
#
# ## 8 A cache, and a draft
#
# **The cache.** Each token leaves a key and a value in each layer: $2\,L\,H\,d\,t$ numbers for a text. **Predict.** After how
# many tokens does SmolLM2's cache, in fp32, weigh as much as its weights?

# %%
c = net.config
L, H, d = c.num_hidden_layers, c.num_key_value_heads, c.hidden_size // c.num_attention_heads
with torch.no_grad():
    cache = net(ids, use_cache=True).past_key_values
held = sum(part.nbytes for one in cache.layers for part in (one.keys, one.values))
t, model_bytes = ids.shape[1], sum(w.nbytes for w in net.parameters())
print(f"2 · {L} · {H} · {d} · {t} · 4 bytes = {2 * L * H * d * t * 4:,}; held {held:,}")
assert held == 2 * L * H * d * t * 4
print(
    f"as heavy as the weights after {model_bytes / (held / t):,.0f} tokens; the model reads {c.max_position_embeddings:,}"
)
print(
    f"sixteen users at {c.max_position_embeddings:,} tokens each: {16 * c.max_position_embeddings * held / t / 1e9:.1f} GB"
)

# %% [markdown]
# **The draft.** A forward pass over five tokens costs less than five passes (the weights are read once). So let something
# cheap *propose* $k$ tokens; the model reads them in one pass, and keeps the first $a$ that it would have chosen itself, and
# one more of its own. The result is greedy decoding's, token by token (Leviathan and others, 2023). Our drafts: *lookup*
# copies what followed the last two tokens the last time; *layers* asks the model's own lower half.


# %%
@torch.no_grad()
def speculative(net, prompt, n, draft, k=4):
    ids, cache, accepted = list(prompt), None, []
    while len(ids) < len(prompt) + n:
        proposal = draft(ids)[:k]
        known = cache.get_seq_length() if cache else 0
        row = torch.tensor([ids[known:] + proposal], device=net.device)
        out = net(row, past_key_values=cache, use_cache=True, logits_to_keep=len(proposal) + 1)
        said, cache = out.logits[0].argmax(-1).tolist(), out.past_key_values
        a = next((i for i, token in enumerate(proposal) if token != said[i]), len(proposal))
        ids += said[: a + 1]
        if a < len(proposal):
            cache.crop(a - len(proposal))  # minus the refused ones, counted from the end
        accepted.append(a)
    return ids[len(prompt) : len(prompt) + n], accepted


# %%
bottom, _ = models.split_decoder(net, len(net.model.layers) // 2)


def lookup(ids):
    pair = ids[-2:]
    places = (i for i in range(len(ids) - 3, -1, -1) if ids[i : i + 2] == pair)
    i = next(places, None)
    return [] if i is None else ids[i + 2 :]


@torch.no_grad()
def layers(ids, k=2):
    own = list(ids)
    for _ in range(k):  # without a cache: simple, and honest about being slow
        h = bottom(input_ids=torch.tensor([own], device=net.device)).last_hidden_state[:, -1]
        own.append(net.lm_head(net.model.norm(h)).argmax(-1).item())
    return own[len(ids) :]


# %%
prompts = {"copy": f"{text[:200]}\n\nThe same text again:\n\n{text[:40]}", "free": "My favourite season is"}
n, same = run.budget.n_new, []
drafts = (("greedy", lambda ids: [], n), ("lookup", lookup, n), ("layers", layers, min(n, 12)))
for task, prompt in prompts.items():
    row, chosen = chat(prompt)["input_ids"], None
    for name, draft, most in drafts:
        begin = time.perf_counter()
        new, accepted = speculative(net, row, most, draft)
        spent = (time.perf_counter() - begin) / most
        chosen = chosen or new  # greedy comes first
        same.append(new == chosen[:most])
        print(
            f"{task:5s} {name:7s} {most} ids in {len(accepted):2d} passes, {spent:.2f} s an id; accepted {accepted}"
        )
        run.record(**{f"passes_{task}_{name}": len(accepted) / most})
print("the same ids as greedy:", same)
run.record(same_ids=all(same))

# %% [markdown]
# **Observe.** The ids are greedy's. Lookup saves many passes where the answer copies, and hardly any where it does not. The
# lower half, never trained to speak, is refused: it saves no pass, and each id takes several times as long. On the free text
# lookup does save a few passes, and no time (stored run): fewer *passes* is not less *time*.
#
# ## 9 The experiments
#
# Claims were written before the first run. **Predict.** KD1: soft labels beat the labels alone, *and* beat the names that the
# same teacher gives. KD3: a smoothed teacher makes the worse student.

# %%
from instructlab_repro import lesson


def shares(panel):
    panel.set(xlabel="right articles")
    panel.xaxis.set_major_formatter("{x:.0%}")


print("verdicts:", lesson.words("KD1", "KD3"))
figure, axis = plotting.axes(width=5.8, height=2.8, dpi=85)
arms = (
    "majority",
    "permuted",
    "hard",
    "soft_smooth",
    "soft",
    "pseudo",
    "all_labels",
    "teacher_smooth",
    "teacher",
)
lesson.dots(axis, "distillation", "accuracy", "accuracy on news", *arms)
shares(axis)
show(figure, "25_distillation")
lesson.folded("distillation", "KD1", "KD3")

# %% [markdown]
# *Figure: a dot is a seed; the bar is their mean.*
#
# **Observe.** *KD1 is refuted*, by its second part. Against the labels alone soft labels win clearly. Against the
# *names* that the same teacher gives to the same articles they win nothing (folded: an interval around zero, inside the
# smallest effect of interest). So the gain came from the texts, not from the softness. *KD3 is supported*: the smoothed
# teacher is itself about as good, and its student is clearly worse. Why is open: the chosen temperature stands
# at an edge. A student of word vectors is far from DistilBERT; with one that can copy more of its teacher the second
# part may turn.
#
# **Predict.** PN1, after Gordon and others (2020): no loss until about a third of the weights is out, then a cliff.

# %%
print("verdict:", lesson.words("PN1"))
figure, axis = plotting.axes(width=5.6, height=2.9, dpi=85)
lines = lesson.results("pruning")
for index, method in enumerate(("magnitude", "movement", "random", "heads", "layers", "frozen", "majority")):
    at = {}
    for line in lines:
        if line["method"] == method:
            at.setdefault(line["level"], []).append(line["accuracy"])
    means = [sum(at[level]) / len(at[level]) for level in sorted(at)]
    axis.plot(sorted(at), means, label=lesson.experiment("pruning").labels[method], **plotting.style(index))
axis.set(xlabel="share taken out", ylabel="accuracy", ylim=(0, 1.02))
axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
show(figure, "25_pruning")
lesson.folded("pruning", "PN1")

# %% [markdown]
# *Figure: means over seeds, each with test articles of its own.*
#
# **Observe.** *PN1 is refuted*, by its second part: there *is* a cliff, and it stands much later than a third. Half of
# the weights cost nothing that we could see; the fall comes near the right end of the curve. Weights chosen blindly
# fall early, so the order by size matters. Whole layers are dear, most heads cost little. And movement, used once and
# afterwards, is worse than drawing lots, but for the right end: it may take out large weights that only moved a little
# towards zero. It was made for pruning *during* tuning.
#
# **Predict.** C16, what the articles promise: cutting and int8 each make the file smaller and the pass faster. PN2: dropped
# layers are speed, zeros are not. QZ1: the int8 schemes stand in the order that LLM.int8() published for 125 million weights.

# %%
from IPython.display import display

print("verdicts:", lesson.words("C16", "PN2", "QZ1"))
figure, panels = plotting.axes(1, 2, width=4.4, height=2.5, dpi=85)
for panel, n in zip(panels, (1, 16), strict=True):
    lesson.dots(panel, "latency", "forward_seconds", f"{n} text{'s' * (n > 1)} of 24 tokens", batch=n)
    panel.set(xlabel="seconds", xlim=(0, None))
show(figure, "25_measured")
figure, axis = plotting.axes(width=5.6, height=2.8, dpi=85)
lesson.dots(axis, "eight_bits", "perplexity", "perplexity on BBC news")
axis.set(xlabel="perplexity, on a logarithmic axis", xscale="log")
show(figure, "25_eight_bits")
display(lesson.folded("latency", "C16", "PN2"))
lesson.folded("eight_bits", "QZ1")

# %% [markdown]
# *Figures: above, a dot is a process, its median over turns; below, a dot is ten articles.*
#
# **Observe.** *C16 is supported*: layers and heads that are cut out, and int8, make the file smaller and the pass
# faster. int8 moves the file less than its name promises. For *zeros* read PN2 and the file's line (folded): not one
# byte, and no time that could be told from none. So the articles' sentence holds for pruning that *removes* rows;
# for zeros only where they are many *and* stored sparse, and then for one text, hardly for sixteen (folded).
#
# *QZ1 is refuted* by one pair. At 125 million weights LLM.int8()'s table has vector-wise worse than row-wise; here it is
# better, as one would expect of more scales. The other pairs stand as published. (The published numbers stand in QZ1's
# source; another model, other texts, so never in one ranking with ours.) LLM.int8()
# costs next to nothing: over articles its interval holds zero (folded).

# %% [markdown]
# # Second half: the model as a service
#
# (A good place for a break. The letters of this half stand in a table of their own, in section 10.)
#
# ## 10 How many people can one laptop serve?
#
# A classifier that nobody can reach helps nobody. We put it behind an address, and people come **when they like**. Below are
# recorded times of one text through MiniLM, alone, on one core.
#
# **Predict.** The mean time gives a limit of so many requests a second. At nine tenths of that limit, how long does a person
# wait *before* the model even looks at the text: next to nothing, about one service time, or several?

# %%
import asyncio
import contextlib
import io
import math
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from starlette.testclient import TestClient

from instructlab_apps.service import (
    autoscaling,
    batcher,
    desk,
    drift,
    engines,
    http,
    queueing,
    serving,
    versions,
)
from instructlab_utils import features, tasks

alone = autoscaling.recorded("classify")
S, S2 = alone.mean(), np.square(alone).mean()
print(f"{len(alone)} texts: {1000 * S:.1f} ms on average, so at most {1 / S:.0f} requests a second")

# %% [markdown]
# A person waits for what is left of the others' work. If $A$ seconds pass until the next one comes, and the one before needs
# $S$, then *Lindley's recursion* says $W \leftarrow \max(0,\, W + S - A)$.


# %%
def waits(gaps, services):
    found = np.zeros(len(gaps))
    for n in range(1, len(gaps)):
        found[n] = max(0.0, found[n - 1] + services[n - 1] - gaps[n])
    return found


rng = np.random.default_rng(seed)
for load in (0.5, 0.7, 0.9):
    gaps, services = rng.exponential(S / load, run.budget.n_load), rng.choice(alone, run.budget.n_load)
    simulated = waits(gaps, services)
    assert np.abs(simulated - queueing.waits(gaps, services)).max() < 1e-9
    formula = queueing.pollaczek_khinchine(load / S, S, S2)
    print(
        f"load {load}: wait {simulated.mean() / S:5.2f} service times, by the formula below {formula / S:5.2f}"
    )
run.record(wait_at_nine_tenths=formula / S)

# %% [markdown]
# **Observe.** Several. The formula needs no simulation. You come at a random moment. With probability $\rho = \lambda E[S]$
# somebody is being served; what is left of *their* time is on average $E[S^2] / (2 E[S])$, since long services are met more
# often. In front of you stand $\lambda W$ people (Little's law), each of $E[S]$. So
#
# $$ W = \rho\,\frac{E[S^2]}{2 E[S]} + \lambda W\, E[S] \quad\Longrightarrow\quad
# W = \frac{\lambda\, E[S^2]}{2 (1 - \rho)} \qquad \text{(Pollaczek, 1930; Khinchine, 1932).} $$
#
# | symbol | meaning |
# |---|---|
# | $\lambda$, $\rho$ | requests a second; share of the time that the server works |
# | $S$, $W$ | seconds of service; seconds before it |
# | $a$, $b$ | seconds of a batch, whatever its size; more for each text in it |
# | $z_t$, $r$ | drift: the running mean after request $t$; the weight of the newest |
#
# All of $1/(1-\rho)$ is the price of randomness. Constant services (M/D/1) halve the wait of exponential ones (M/M/1).
#
# **Predict.** The model computes several texts in one product. A batch of $n$ takes about $a + b\,n$. What becomes of the
# limit?

# %%
kept = autoscaling.measured()
sizes, spent = np.array(kept["batch"]["sizes"]), np.array(kept["batch"]["seconds"])
b, a = np.polyfit(sizes, spent, 1, w=1 / spent)
a = max(a, 1e-4)
print(
    f"a = {1000 * a:.1f} ms, b = {1000 * b:.1f} ms: alone at most {1 / (a + b):.0f} a second, in batches {1 / b:.0f}"
)
rate = 0.95 / b
arrivals = np.cumsum(rng.exponential(1 / rate, run.budget.n_load))
taken, batches = queueing.batched(arrivals, lambda n: a + b * n, 64)
balance = queueing.batch_in_balance(rate, a, b)
print(f"at {rate:.0f} a second: batches of {np.mean(batches):.1f} texts; in balance {balance:.1f}")
run.record(batch_limit=1 / b, lone_limit=1 / (a + b))

# %% [markdown]
# **Observe.** (The simulated batches are larger than the balance says, since requests come in clumps.) The batch grows
# until as many come as are computed: $n = \lambda (a + b\,n)$, so $n = \lambda a / (1 - \lambda b)$. The cost $a$ is
# shared, and the limit moves from $1/(a+b)$ to $1/b$. Nobody has to wait *for* a batch: while one is computed, the next
# one gathers by itself.

# %%
rates, curves = np.linspace(0.05, 0.98, 30) / S, {}
for name, square in {"M/M/1": 2 * S * S, "M/D/1": S * S}.items():
    curves[name] = rates, [1000 * (S + queueing.pollaczek_khinchine(x, S, square)) for x in rates]
some = np.linspace(0.1, 0.9, 9) / b
times = [np.cumsum(rng.exponential(1 / x, run.budget.n_load)) for x in some]
means = [1000 * queueing.batched(each, lambda n: a + b * n, 64)[0].mean() for each in times]
curves["batches, simulated"] = some, means
servers = {"pipeline in FastAPI": "plain", "the service below": "ours", "the same in int8": "int8"}
measured = {name: [row for row in kept["curve"] if row["server"] == kind] for name, kind in servers.items()}
limit = kept["machine"]["limit"]
for name, rows in measured.items():
    held = [row["rate"] for row in rows if row["p95"] <= limit and not row["refused"]]
    cpu = 1000 * sum(row["cpu"] for row in rows) / len(rows)
    print(
        f"{name}: p95 within {1000 * limit:.0f} ms at {held or 'no rate'}; {cpu:.0f} ms of processor a request"
    )
busy, cost = kept["machine"]["load"] / kept["machine"]["cores"], kept["machine"]["int8"]
print(f"recorded with {busy:.1f} programs in line for each core")
print(f"int8: accuracy {cost['accuracy_int8']:.3f}, not {cost['accuracy']:.3f}, on {cost['n']} tweets")
print(f"      and the same answer for {cost['same']:.1%} of them")

# %%
figure, panels = plotting.axes(1, 2, width=3.9, height=3.1, dpi=85)
for index, (name, (x, y)) in enumerate(curves.items()):
    panels[0].plot(x, y, label=name, **(plotting.style(index) | ({} if index == 2 else {"marker": ""})))
panels[0].set(ylabel="mean latency (ms)", title="theory")
for index, (name, rows) in enumerate(measured.items()):
    line = [1000 * row["p95"] for row in rows]
    panels[1].plot([row["rate"] for row in rows], line, label=name, **plotting.style(index))
panels[1].axhline(1000 * limit, color="grey", linestyle=":")
panels[1].set(ylabel="95th percentile (ms)", title="measured, two cores")
for panel in panels:
    panel.set(xlabel="requests a second", yscale="log")
    panel.legend(fontsize=7)
show(figure, "25_load")

# %% [markdown]
# *Figure: left, one at a time the latency explodes at the lone limit; batches carry on. Right, the same requests sent
# to three servers by a real client, which shares the two cores. The dotted line is the patience that we allow.*
#
# **Observe.** Theory says *one* thing well: that there is a wall. Its place is measured, on *your* machine, by
# `benchmarks/service.py`. Where other programs stand in line for the cores, latencies tell about them; the processor time of
# a request still tells about the server. On a processor $a$ is small beside $b$ (printed above), so batches buy little. What
# moves the wall here is a second thread, with a batch and a core of its own, and eight bits, at the price in the last lines.
#
# ## 11 The service
#
# FastAPI and uvicorn speak HTTP. Between the door and the model stand small parts, each of which can say no.

# %%
figure, axis = plotting.axes(width=8.4, height=2.5, dpi=85)
doors = "key|rate|size,\nform|stored\nanswer|queue|batch|threads:\nencoder, heads,\ndecoder".split("|")
told = "401|429|413\n400|same\nbytes|429||then: drift, canary,\nmetrics, masked log".split("|")
for place, (name, no) in enumerate(zip(doors, told, strict=True)):
    x = place + 0.3 * (place == 6)
    box = {"boxstyle": "round,pad=0.4", "facecolor": "0.88" if place == 6 else "white"}
    axis.text(x, 1, name, ha="center", va="center", fontsize=8, bbox=box)
    axis.text(x, 0.1, no, ha="center", va="center", fontsize=8)
    axis.annotate("", (place - 0.32, 1), (place - 0.62, 1), arrowprops={"arrowstyle": "->"})
    if no and place < 6:
        axis.annotate("", (x, 0.3), (x, 0.76), arrowprops={"arrowstyle": "->", "linestyle": "--"})
axis.set(xlim=(-0.8, 7.2), ylim=(0, 1.3))
axis.axis("off")
show(figure, "25_service")

# %% [markdown]
# *Figure: a request goes from left to right; dashed arrows are refusals. Below "stored answer" stands what comes back,
# no refusal. What is cheap to refuse stands first: nobody computes for a caller without a key.*
#
# The heart is the choice of the next batch. **The oldest is always in it**, so nobody starves. It is filled with those
# nearest in length, so little is spent on padding.


# %% tags=["defines:apps.service.batcher.chosen"]
def chosen(waiting, most):
    if not waiting:
        return []
    first = waiting[0]
    same = [each for each in waiting if each.key == first.key]
    near = sorted(same, key=lambda each: (each is not first, abs(each.size - first.size)))
    return sorted(near[:most], key=lambda each: each.size)


# %%
lengths = [int(n) for n in rng.integers(3, 60, 200)]
line = [batcher.Waiting(n, "", size, None) for n, size in enumerate(lengths)]
for name, pick in {"in order": lambda rest: rest[:8], "nearest": lambda rest: chosen(rest, 8)}.items():
    rest, padded = line, 0
    while rest:
        some = pick(rest)
        padded += len(some) * max(each.size for each in some)
        rest = [each for each in rest if each not in some]
    print(f"{name:9s} {padded / sum(lengths):.2f} computed tokens for each real one")

# %% [markdown]
# **Predict.** Thirty requests come at the same moment; the queue has room for twenty. A batch holds eight. How many get an
# answer, and what do the others get: an endless wait, an error after a while, or an error at once?


# %%
def finished(coroutine):
    """Run it in a loop of its own: a notebook's loop is busy with the notebook."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


async def crowd():
    sizes = []
    with ThreadPoolExecutor(1) as thread:
        double = batcher.at_once(lambda key, items: [2 * item for item in items])
        ours = batcher.Batcher(double, thread, most=8, room=20, seen=lambda n, seconds: sizes.append(n))
        found = await asyncio.gather(*(ours.submit([n]) for n in range(30)), return_exceptions=True)
        await ours.close()
    return found, sizes


# %%
found, sizes = finished(crowd())
refused = [each for each in found if isinstance(each, batcher.Full)]
assert [each for each in found if each not in refused] == [[2 * n] for n in range(20)]
print(
    f"{len(found) - len(refused)} answers in batches of {sizes}; {len(refused)} refused, each with: {refused[0]}"
)
run.record(refused_at_once=len(refused))

# %% [markdown]
# **Observe.** At once, with a time to come back: HTTP's code for it is 429. This is *back-pressure*. A queue without an end
# answers everybody too late.
#
# ## 12 Keys, and answers that are given once
#
# Here is the real app, with tiny random models (they answer nonsense, fast). `serve` starts the same one with MiniLM and
# SmolLM2: `python -m instructlab_utils serve`.
#
# **Predict.** We send a chat request twice, at temperature two and without a seed. Then again twice, with the header
# `Idempotency-Key`. Which pairs are equal?

# %%
tiny = engines.smoke_engines()


@contextlib.contextmanager
def service():
    with tempfile.TemporaryDirectory() as folder:
        settings = desk.ServiceSettings(Path(folder), "smoke", drift_run=100, log_to=io.StringIO())
        key = serving.new_key(settings.folder, "reader", "admin", per_minute=1e6)
        with TestClient(http.create(settings, tiny), headers={"Authorization": f"Bearer {key}"}) as client:
            yield client, client.app.state.desk


TALK = {
    "model": "smoke",
    "messages": [{"role": "user", "content": "hello"}],
    "temperature": 2.0,
    "max_tokens": 8,
}

# %%
with service() as (client, inside):
    for head in ({}, {"Idempotency-Key": "order-17"}):
        first, second = (client.post("/v1/chat/completions", json=TALK, headers=head) for _ in range(2))
        print(head, "→ the same bytes:", first.content == second.content)
    run.record(replayed=first.content == second.content)
    reader = client.headers["authorization"].split("-")[1]
    codes = [client.get("/v1/models", headers={"Authorization": "Bearer sk-guess"}).status_code]
    codes += [client.get("/v1/models").status_code]
    serving.revoke(inside.settings.folder, reader)  # as another process would
    codes.append(client.get("/v1/models").status_code)
print(f"a guessed key: {codes[0]}; a good one: {codes[1]}; the same, revoked: {codes[2]}")
assert codes == [401, 200, 401]

# %% [markdown]
# **Observe.** A client that hears nothing cannot know whether its request or our answer was lost. It asks again. The answer
# was on the disk *before* we sent it, so it comes back byte for byte. `tests/drill_service.py` kills the server with
# SIGKILL while ten thousand requests run, and counts what is lost or doubled.
#
# A key is 256 random bits. We keep its SHA-256. A password needs a slow hash, since people choose few of them; nobody
# guesses one of $2^{256}$. The file is asked each time, so a revoked key stops with the next request.
#
# ## 13 A canary, and the way back
#
# A new version gets a small share of the requests first. Which ones? Hash the text: the same text meets the same version.
# Each of its answers is compared with the old version's. Is the rate of disagreement fine ($p_0$) or bad ($p_1$)? *Wald's
# sequential test* adds up log-likelihood ratios, and stops as soon as it knows.


# %%
def verdict(events, p0=0.05, p1=0.2, error=0.01):
    total = 0.0
    for n, bad in enumerate(events, start=1):
        total += math.log(p1 / p0) if bad else math.log((1 - p1) / (1 - p0))
        if abs(total) >= math.log((1 - error) / error):
            return ("bad" if total > 0 else "fine"), n
    return "open", n


for rate in (0.02, 0.05, 0.2, 0.5):
    said = [verdict(rng.random(2000) < rate) for _ in range(300)]
    bad = sum(word == "bad" for word, _ in said) / len(said)
    print(f"disagreement {rate:.2f}: called bad {bad:.2f}, after {np.mean([n for _, n in said]):.0f} answers")

# %% [markdown]
# **Predict.** Version two has its classes swapped by mistake. Half of the texts go to it. How many people meet it?

# %%
broken = engines.LinearHead(
    ("no", "yes"), *(t.flip(0) for t in (tiny[0].heads["smoke-a"]["v1"].weight, torch.zeros(2)))
)
good, tiny[0].heads["smoke-a"]["v2"] = tiny[0].heads["smoke-a"]["v2"], broken
start = {"model": "smoke-a", "action": "start", "version": "v2", "share": 0.5}
with service() as (client, inside):
    print("trial:", client.post("/admin/rollout", json=start).json())
    asked = ({"model": "smoke-a", "texts": [f"text number {n}"]} for n in range(100))
    met = [client.post("/classify", json=each).json()["results"][0]["version"] for each in asked]
    print("after a hundred texts:", versions.Rollout(inside.settings.file).route("smoke-a")._asdict())
tiny[0].heads["smoke-a"]["v2"] = good
print(f"{met.count('v2')} answers came from v2, the last one to text {len(met) - met[::-1].index('v2')}")
run.record(met_the_broken_version=met.count("v2"))
assert met[-1] == "v1" and met.count("v2") < 10

# %% [markdown]
# **Observe.** A handful; then everybody has the old version again, without a person and without a restart. A *better* version
# also disagrees: $p_0$ leaves room for that, $p_1$ is the rate that you call bad.
#
# ## 14 Has what people send changed?
#
# Labels come late or never. Vectors come at once. Whiten them on reference texts, so that each of $k$ directions has mean
# zero and variance one, and keep a running mean (Lowry et al., 1992):
#
# $$ z_t = (1 - r)\, z_{t-1} + r\, u_t, \qquad T_t = \frac{2 - r}{r}\, \lVert z_t \rVert^2 . $$
#
# The factor makes the parts of $T$ have mean one. The alarm rings where $T_t$ exceeds a threshold. Which one? We *simulate*
# streams of reference texts, and take the threshold at which they ring once in so many requests.

# %%
some = {}
for task, n in (("tweet-sentiment", run.budget.n_texts), ("bbc-topics", run.budget.n_texts // 4)):
    rows = tasks.subsample(tasks.load(task).splits["train"], n, seed)["text"]
    some[task] = features.mean_states(rows, 24).double().numpy()
usual, other = some.values()
third = len(usual) // 3
whiten = drift.whitening(usual[:third], 8)
tune, fresh, news = whiten(usual[third : 2 * third]), whiten(usual[2 * third :]), whiten(other)
r, z, T = 0.1, np.zeros(8), []
for u in fresh:
    z = (1 - r) * z + r * u
    T.append((2 - r) / r * np.square(z).sum())
assert np.abs(np.array(T) - drift.statistics(fresh, r)).max() < 1e-9

# %% [markdown]
# **Predict.** From some request on, one text in four is a news article instead of a tweet. How many requests until the
# alarm? Which $r$ is best: one that looks at each text alone ($r = 1$), or one with a long memory?

# %%
goals, length = (50, 100, 200, 400), run.budget.n_steps


def streams(share, count=60):
    moved = rng.random((length, count, 1)) < share
    old, new = (x[rng.integers(len(x), size=(length, count))] for x in (fresh, news))
    return np.where(moved, new, old)


calm, shifted, delays = streams(0.0), streams(0.25), {}
for r in (0.05, 0.2, 1.0):
    limits = [drift.threshold_for(tune, r, goal, streams=60, seed=seed) for goal in goals]
    quiet, moved = drift.statistics(calm, r), drift.statistics(shifted, r)
    delays[r] = [(drift.run_length(quiet, h), drift.run_length(moved, h)) for h in limits]
    false, true = (", ".join(f"{pair[k]:.0f}" for pair in delays[r]) for k in (0, 1))  # inf: it never rang
    print(f"r = {r}: wanted {goals}, until a false alarm {false}; until a true one {true}")

# %%
figure, panels = plotting.axes(1, 2, width=3.9, height=3.0, dpi=85)
for index, (r, pairs) in enumerate(delays.items()):
    panels[0].plot(*zip(*pairs, strict=True), label=f"$r$ = {r}", **plotting.style(index))
panels[0].set(xlabel="requests until a false alarm", ylabel="until a true one")
panels[0].legend(fontsize=7)
replay = np.concatenate([calm[:100, 0], shifted[:100, 0]])
panels[1].plot(drift.statistics(replay, 0.05), **(plotting.style(0) | {"marker": ""}))
panels[1].axhline(
    drift.threshold_for(tune, 0.05, goals[-1], streams=60, seed=seed), color="black", linestyle=":"
)
panels[1].axvline(100, color="grey", linestyle="--")
panels[1].set(xlabel="request", ylabel="$T$, $r$ = 0.05", yscale="log")
show(figure, "25_drift")
run.record(**{f"delay_{r}".replace(".", "_"): pairs[0][1] for r, pairs in delays.items()})

# %% [markdown]
# *Figure: left, right and low is good: rare false alarms, quick true ones. Right, one replay; the shift begins at the dashed
# line, the dotted one is the threshold.*
#
# **Observe.** The print-out has the order. With a short memory the shifted stream may even ring *later* than the calm one: it
# seems that a single article is not extreme among tweets; only the mean has moved. Look at the false alarms too: what
# was *wanted* and what *fresh* tweets gave may differ, since few reference texts do not hold the rarest ones. And the
# streams draw texts independently. Real ones come in waves, by the hour and by the news, so expect more alarms than
# simulated. A shift at right angles to all $k$ directions is not seen.
#
# ## 15 A thousand replicas
#
# One laptop is not enough: replicas, up to a thousand, started and stopped by Kubernetes' rule, *wanted = busy / target*,
# rounded up. A new one needs a cold start first. **Predict.** Traffic rises fivefold at once. You may pay for a lower
# target, or make the cold start shorter. Which one saves the slowest twentieth?

# %%
talk, until = autoscaling.recorded("chat"), 60.0 * run.budget.n_minutes
low, high = 0.1 * run.budget.n_replicas / talk.mean(), run.budget.n_replicas * 0.5 / talk.mean()


def traffic(t):
    return high if until / 3 < t < 2 * until / 3 else low


came = autoscaling.arrivals_of(traffic, high, until, seed)
needs, found = rng.choice(talk, len(came)), {}
for cold in (5.0, 60.0):
    for target in (0.3, 0.45, 0.6, 0.75, 0.9):
        how = {"target": target, "cold": cold, "first": math.ceil(low * talk.mean() / target), "hold": 60.0}
        day = autoscaling.autoscaled(came, needs, most=1000, **how)
        found[cold, target] = (day.paid / needs.sum(), np.quantile(day.latency, 0.95), day.replicas.max())
print(f"{len(came):,} requests; most replicas at once: {max(most for *_, most in found.values()):.0f}")

# %%
figure, axis = plotting.axes(width=4.8, height=3.2, dpi=85)
for index, cold in enumerate((5.0, 60.0)):
    points = [pair[:2] for (each, _), pair in found.items() if each == cold]
    axis.plot(*zip(*points, strict=True), label=f"cold start {cold:.0f} s", **plotting.style(index))
for (_, target), (paid, p95, _) in found.items():
    axis.annotate(f"{target}", (paid, p95), xytext=(4, 4), textcoords="offset points", fontsize=7)
axis.set(xlabel="seconds paid for each second of work", ylabel="95th percentile (s)", yscale="log")
axis.legend(fontsize=7)
show(figure, "25_replicas")
for (cold, target), (paid, p95, _) in found.items():
    print(f"cold start {cold:4.0f} s, target {target:.2f}: paid {paid:.2f}, p95 {p95:7.2f} s")

# %% [markdown]
# *Figure: each point is a target (the number beside it). Left is cheap, low is fast.*
#
# **Observe.** (With the lowest targets the cap of a thousand decides, not the target: see the first line.) A short cold
# start saves the slowest twentieth, and costs nothing here. The two curves cost the same: what differs is when the
# replicas come. A low target is room that is paid all day; a short start is room that comes when it is needed.
# `deploy/` has the container and the manifests that a cluster would need. For more than one machine do not stretch our
# batcher: KServe scales, and vLLM joins requests *between two tokens*.

# %% [markdown]
# ## 16 What we have shown
#
# Printed from this run's record.

# %%
r = run.metrics
print(f"profile {run.profile}, seed {seed}; gate against slice {r['gate_against_slice']:.0e}")
print({name: round(value, 3) for name, value in r.items() if name.startswith(("student", "megabytes"))})
print({name: value for name, value in r.items() if name.startswith(("passes", "same"))})
print("verdicts:", lesson.words("KD1", "KD3", "PN1", "PN2", "C16", "QZ1"))

# %% [markdown]
# **What we have not shown.** Nothing about large models, where outliers are stronger. Nothing about processors with
# units for int8 or for sparse blocks of two in four. Nothing about pruning with tuning afterwards, which recovers much.
# Our int8 products are whole numbers, held in floats: section 6 measures loss, section 7 speed. Times are this
# machine's, with others at work.
#
# **What should I set?**
#
# | you have | do first | in a library |
# |---|---|---|
# | a model that is too slow | measure, one thread, versions in turns | `time.perf_counter`, the median |
# | unlabelled texts, a good model | a student: the teacher's names first, then soft labels | `T`, by dev loss |
# | a teacher to train for that | no label smoothing | `label_smoothing_factor=0` |
# | layers to spare | drop from above, tune again | `encoder.layer[:n]` |
# | heads to spare | gates to choose, slices to ship | hooks; not `prune_heads` |
# | zeros | do not expect speed | – |
# | a CPU and linear layers | dynamic int8, then the accuracy again | `quantize_dynamic`, torchao |
# | a decoder in int8 | outliers apart | `BitsAndBytesConfig(load_in_8bit=True)` |
# | answers that copy their prompt | lookup drafts | `prompt_lookup_num_tokens` |
# | many short answers | batch what waits, do not wait for a batch | vLLM `max_num_seqs` |
# | no collapse under load | a short queue and 429 with `Retry-After` | uvicorn `limit_concurrency` |
# | retries without doubles | an idempotency key, stored before it is sent | a unique index |
# | replaceable models | a share by hash, a sequential test, one step back | KServe `canaryTrafficPercent` |
# | to hear of shifts | a running mean of vectors, a simulated threshold | `alibi-detect`, `evidently` |
# | replicas | a target near the knee of *your* curve, short cold starts | HPA `averageUtilization`, `minReplicas` |
# | a private log | mask first, cut afterwards, never log keys | a filter on the handler (lesson 22) |

# %% [markdown]
# **Recall.** Answer without scrolling.
#
# 1. Why $T^2$?
# 2. What separates "soft labels help" from "more texts help"?
# 3. Why are zeros not speed?
# 4. Which scales may a quantised product have, and why not one for each feature inside the sum?
# 5. Why does speculative decoding not change greedy's tokens?
# 6. Why does the wait explode before the server is fully busy?
# 7. Why is the oldest request always in the next batch?
# 8. When is a fast hash enough for a secret?
# 9. What does a long memory cost a drift alarm?
#
# <details><summary>Answers</summary>
#
# 1. Both softmaxes flatten and the loss carries $1/T$: the gradient shrinks like $1/T^2$ without it.
# 2. A student that learns the same teacher's names on the same texts.
# 3. A dense product multiplies by them, a dense file stores them.
# 4. For rows of $X$ and for outputs: they leave the sum over features. A scale for each feature would not.
# 5. Each proposed token is kept only where the model itself would have chosen it, after the same tokens.
# 6. Requests come in clumps. The work of a clump is carried on, and the less idle time there is, the longer.
# 7. Else a text of odd length could wait for ever.
# 8. For a random secret of 256 bits, which nobody can guess. Not for a password.
# 9. It sees large, sudden shifts later, and small ones sooner.
#
# </details>
#
# **Exercises.** `notebooks/exercises/25_compression.py`; `make classroom` builds the student version.

# %% [markdown]
# **References.**
#
# - Dettmers, T., Lewis, M., Belkada, Y., and Zettlemoyer, L. (2022). LLM.int8(): 8-bit matrix multiplication for transformers
#   at scale. *NeurIPS 2022*.
# - Gordon, M. A., Duh, K., and Andrews, N. (2020). Compressing BERT: studying the effects of weight pruning on transfer
#   learning. *RepL4NLP 2020*.
# - Hinton, G., Vinyals, O., and Dean, J. (2015). Distilling the knowledge in a neural network. *arXiv:1503.02531*.
# - Leviathan, Y., Kalman, M., and Matias, Y. (2023). Fast inference from transformers via speculative decoding. *ICML 2023*.
# - Michel, P., Levy, O., and Neubig, G. (2019). Are sixteen heads really better than one? *NeurIPS 2019*.
# - Müller, R., Kornblith, S., and Hinton, G. (2019). When does label smoothing help? *NeurIPS 2019*.
# - Sanh, V., Wolf, T., and Rush, A. M. (2020). Movement pruning: adaptive sparsity by fine-tuning. *NeurIPS 2020*.
