# ---
# jupyter:
#   instructlab:
#     id: prefix_decoder
#     title: A prompt at the input or a prefix at every layer, on the decoder
#     outcome: one block of the grid behind claim P3
#     assets: [smollm2, bigbench]
#     minutes: {smoke: 0.7, laptop: 3, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `prefix_decoder`: one block
#
# Prompt tuning and a prefix of keys and values at every layer, equally long, on SmolLM2: attributes of a restaurant in, a
# sentence out. A block is one seed. The grid stands in `data/experiments/prefix_decoder.toml`, the claim in
# `data/claims/P3.toml`; lesson 10 explains the methods.
#
# Two stages. `tune` tries two learning rates per method, once, on a seed that the table does not use, and looks at the dev
# split. `run` takes the better one and looks at the test split.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune or run
seed: int = 5  # training pairs, their order, the words that prompt and prefix start from

# %%
import torch

from instructlab_repro import experiments
from instructlab_utils import generation, models, start, tasks, training, tuners

run = start("prefix_decoder", profile=profile, seed=seed)
spec = experiments.load("prefix_decoder").at(run.profile)
block = spec.block(stage=stage, seed=seed)
settings = spec.settings_of(block)

# %% [markdown]
# ## Data
#
# The seed draws the training pairs. The held-out pairs are the same for all seeds, and their attributes never occur in
# training.

# %%
PROMPT = "Describe the restaurant in one sentence.\n{}\nDescription:"
corpus = tasks.load("e2e")
tokenizer = models.load_tokenizer("decoder")
pad_id = tokenizer.pad_token_id


def drawn(split, n, chosen_by):
    pairs = [(PROMPT.format(r["source"]), f" {t}") for r in corpus.splits[split] for t in r["targets"]]
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(chosen_by)).tolist()
    return [generation.encode_completion(*pairs[i], tokenizer) for i in order[:n]]


train_set = drawn("train", settings.steps * settings.batch_size, seed)
held_out = drawn("dev", settings.dev, 0) if stage == "tune" else drawn("test", settings.test, 0)
print(f"{len(train_set)} training pairs, {len(held_out)} held-out pairs, {settings.steps} updates")

# %% [markdown]
# ## The methods
#
# Both start from words: the prompt from their embeddings, the prefix from the keys and values that the model computes for
# them. `untuned` is the model without either.

# %%
METHODS = {
    "prompt": tuners.PromptTuning(settings.length, init="vocab"),
    "prefix": tuners.DeepPrompts(settings.length, init="vocab"),
}


def fit(method, learning_rate=None):
    net = models.load_decoder(device=run.device).float()
    if method != "untuned":
        net = tuners.inject(net, METHODS[method], seed=seed).to(run.device)
    with run.measure() as cost:
        if method != "untuned":
            training.train(
                net, train_set, steps=settings.steps, learning_rate=learning_rate, pad_id=pad_id,
                batch_size=settings.batch_size, seed=seed, objective=generation.causal_losses,
            )  # fmt: skip
    return net.eval(), cost


@torch.no_grad()
def completion_losses(net):
    """Summed loss of each held-out completion, and its number of tokens: two tensors (N,), in float64."""
    found = []
    for example in held_out:
        batch = training.move(training.collate_tokens([example], pad_id), run.device)
        losses = generation.causal_losses(net, batch).double().cpu()
        found.append([losses.sum().item(), len(losses)])
    return torch.tensor(found, dtype=torch.float64).T


# %% [markdown]
# ## Run
#
# `nll` is the negative log-likelihood per completion token, end token included. One line per run, on the disk before the
# next one starts.

# %%
for trial in spec.trials(block):
    if run.have(trial.key):
        continue
    net, cost = fit(trial.method, **trial.tuned)
    sums, counts = completion_losses(net)
    trained = 0 if trial.method == "untuned" else sum(p.numel() for p in tuners.trainable(net).values())
    run.line(
        spec.identity(block) | trial.key,
        **vars(cost),
        steps=0 if trial.method == "untuned" else settings.steps,
        nll=(sums.sum() / counts.sum()).item(),
        trainable_parameters=trained,
        scores=(sums / counts.mean()).tolist(),
    )
    print(
        f"{trial.method:8s} {dict(trial.tuned)} {run.have(trial.key)['nll']:.3f} nats, {cost.seconds:.0f} s"
    )

# %% [markdown]
# ## What this block found

# %%
lines = [run.have(trial.key) for trial in spec.trials(block)]
for line in sorted(lines, key=lambda e: e["nll"]):
    print(
        f"{line['method']:8s} {line['nll']:.3f} nats per token, {line['trainable_parameters']:,} parameters"
    )
run.record(runs=len(lines))
