# ---
# jupyter:
#   instructlab:
#     id: completion_loss
#     title: Loss on the completion only, or on all tokens
#     outcome: one block of the grid behind claim L1
#     assets: [smollm2, bigbench]
#     minutes: {smoke: 0.6, laptop: 7, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `completion_loss`: one block
#
# SmolLM2 learns to describe a restaurant from its attributes. One method counts the loss of the description's tokens only,
# the other that of all tokens, prompt included. Both see the same pairs, in the same order, for the same number of updates.
# A block is one seed. The grid stands in `data/experiments/completion_loss.toml`, the claim in `data/claims/L1.toml`;
# lesson 06 explains the methods.
#
# Two stages. `tune` tries two learning rates per method, once, on a seed that the table does not use, and looks at the dev
# split. `run` takes the better one and looks at the test split.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune or run
seed: int = 0  # training pairs and their order

# %%
import torch

from instructlab_repro import experiments
from instructlab_utils import generation, metrics, models, start, tasks, training

run = start("completion_loss", profile=profile, seed=seed)
spec = experiments.load("completion_loss").at(run.profile)
block = spec.block(stage=stage, seed=seed)
settings = spec.settings_of(block)

# %% [markdown]
# ## Data
#
# A training pair is one list of attributes and one of its descriptions. The attributes of a held-out pair never occur in
# training: the splits are made by them. A held-out input comes once, with all its descriptions as references.

# %%
PROMPT = "Describe the restaurant in one sentence.\n{}\nDescription:"
corpus = tasks.load("e2e")


def pairs_of(split):
    """(prompt, completion) of every description, in the order of the split."""
    return [(PROMPT.format(r["source"]), f" {t}") for r in corpus.splits[split] for t in r["targets"]]


def references_of(split):
    """prompt -> all its descriptions."""
    found = {}
    for prompt, completion in pairs_of(split):
        found.setdefault(prompt, []).append(completion.strip())
    return found


train_pairs = pairs_of("train")
drawn = torch.randperm(len(train_pairs), generator=torch.Generator().manual_seed(seed)).tolist()
train_pairs = [train_pairs[i] for i in drawn[: settings.steps * settings.batch_size]]
held_out = "dev" if stage == "tune" else "test"
fixed = torch.randperm(len(pairs_of(held_out)), generator=torch.Generator().manual_seed(0)).tolist()
test_pairs = [pairs_of(held_out)[i] for i in fixed[: settings.dev if stage == "tune" else settings.test]]
references = dict(list(references_of(held_out).items())[: settings.inputs])
print(f"{len(train_pairs)} training pairs, {len(test_pairs)} of {held_out}, {len(references)} inputs")

# %% [markdown]
# ## Measures
#
# `nll` is the negative log-likelihood per completion token, end token included: the sum over all held-out completions,
# divided by their number of tokens. Each completion's share of it is stored too, so that the bootstrap can draw completions.

# %%
tokenizer = models.load_tokenizer("decoder")
pad_id = tokenizer.pad_token_id
test_set = [generation.encode_completion(*pair, tokenizer) for pair in test_pairs]


@torch.no_grad()
def completion_losses(model):
    """Summed loss of each held-out completion, and its number of tokens: two tensors (N,)."""
    sums, counts = [], []
    for example in test_set:
        losses = generation.causal_losses(
            model, training.move(training.collate_tokens([example], pad_id), run.device)
        )
        sums.append(losses.double().sum().cpu())
        counts.append(len(losses))
    return torch.stack(sums), torch.tensor(counts, dtype=torch.float64)


def texts(model):
    prompts = [tokenizer(prompt)["input_ids"] for prompt in references]
    found = generation.greedy(model, prompts, settings.max_new_tokens, tokenizer.eos_token_id)
    return [tokenizer.decode(ids).strip() for ids in found]


# %% [markdown]
# ## The methods
#
# All start from the same checkpoint. The word embeddings are frozen: they hold a fifth of the weights, few of them are met
# in so few updates, and a step is cheaper without them. The loop is that of lesson 03, with the objective of lesson 06.


# %%
net = models.load_decoder(device=run.device).float()
net.get_input_embeddings().weight.requires_grad_(False)
trained = sum(p.numel() for p in net.parameters() if p.requires_grad)


def fine_tuned(completion_only, learning_rate):
    net.load_state_dict(models.load_decoder().state_dict())  # in place: a second model would not fit
    pairs = [generation.encode_completion(*pair, tokenizer, completion_only) for pair in train_pairs]
    with run.measure() as cost:
        training.train(
            net, pairs, steps=settings.steps, learning_rate=learning_rate, pad_id=pad_id,
            batch_size=settings.batch_size, seed=seed, objective=generation.causal_losses,
        )  # fmt: skip
    return cost, settings.steps


def untuned():
    with run.measure() as cost:
        net.load_state_dict(models.load_decoder().state_dict())
    return cost, 0


METHODS = {
    "untuned": untuned,
    "completion_only": lambda learning_rate: fine_tuned(True, learning_rate),
    "all_tokens": lambda learning_rate: fine_tuned(False, learning_rate),
}

# %% [markdown]
# ## Run
#
# One line per run, on the disk before the next one starts. A line that an interrupted execution left is not computed
# again.

# %%
for trial in spec.trials(block):
    if run.have(trial.key):
        continue
    cost, updates = METHODS[trial.method](**trial.tuned)
    sums, counts = completion_losses(net)
    written = texts(net)
    per_token = sums.sum() / counts.sum()
    run.line(
        spec.identity(block) | trial.key,
        **vars(cost),
        steps=updates,
        nll=per_token.item(),
        chrf=metrics.chrf(written, list(references.values())),
        bleu=metrics.bleu(written, list(references.values())),
        rouge_l=metrics.rouge_l(written, list(references.values())),
        words=sum(len(text.split()) for text in written) / len(written),
        trainable_parameters=trained if updates else 0,
        scores=(sums / counts.mean()).tolist(),
    )
    print(f"{trial.method}: {per_token:.3f} nats per token; e.g. {written[0]}")

# %% [markdown]
# ## What this block found

# %%
lines = [run.have(trial.key) for trial in spec.trials(block)]
for line in sorted(lines, key=lambda e: e["nll"]):
    print(f"{line['method']:15s} nll {line['nll']:.3f}  chrF {line['chrf']:.1f}  BLEU {line['bleu']:.1f}")
run.record(runs=len(lines))
