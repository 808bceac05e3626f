# ---
# jupyter:
#   instructlab:
#     id: instruction_search
#     title: Instructions chosen by the likelihood of a few answers
#     outcome: one block of the grid behind claims AE1 and AE3
#     assets: [smollm2]
#     minutes: {smoke: 0.5, laptop: 3, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `instruction_search`: one block
#
# Four tasks with answers of one word. SmolLM2 proposes six instructions, six others were written by hand; the likelihood of
# the answers to a few dev pairs selects. A block is one seed. The grid stands in
# `data/experiments/instruction_search.toml`, the pairs in `data/instructions/induction.jsonl`, the claims in
# `data/claims/AE1.toml` and `AE3.toml`; lesson 13 explains the method.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # run or twin: there is nothing to tune
seed: int = 0  # pairs for demonstrations, dev and test; distractors; proposals

# %%
import random

import torch

from instructlab_repro.block import decoder, nudge, open_block
from instructlab_utils import files, scoring

block = open_block("instruction_search", profile, stage, seed=seed)
settings, (net, tokenizer) = block.settings, decoder(block)
if stage == "twin":
    nudge(net)

# %% [markdown]
# ## Pairs
#
# Each pair is used once: to propose, to select or to test. The inputs are dealt out to the seeds, so that no two seeds test
# the same; two sibling tasks have the same inputs. The sibling's answer is right for another instruction: without an
# instruction nothing speaks against it.

# %%
answers = {}
for row in files.read_lines(block.run.root / "data" / "instructions" / "induction.jsonl"):
    answers.setdefault(row["task"], {})[row["input"]] = row["answer"]
share = block.spec.axes["seed"].index(seed) * settings.test


def drawn(task):
    """Demonstrations and dev pairs, (input, answer), and test items, (input, options); the first option is right."""
    known, sibling = answers[task], answers[settings.siblings[task]]
    dealt = random.Random(min(task, settings.siblings[task])).sample(sorted(known), len(known))
    mine = dealt[share : share + settings.test]
    assert len(mine) == settings.test, "too few pairs for so many seeds"
    dice = random.Random(f"{seed} {task}")
    others = dice.sample(sorted(set(known) - set(mine)), settings.demonstrations + settings.dev)
    pairs = [(x, known[x]) for x in others]
    wrong = {x: sorted(set(known.values()) - {known[x], sibling[x]}) for x in mine}
    items = [(x, [known[x], sibling[x], *dice.sample(wrong[x], 2)]) for x in mine]
    return pairs[: settings.demonstrations], pairs[settings.demonstrations :], items


# %% [markdown]
# ## Candidates
#
# The proposer reads two solved cases and the demonstrations, and goes on after "Instruction:". What it writes up to the end
# of the line is a candidate, even when it is empty.


# %%
def case(pairs, instruction=""):
    shown = "\n\n".join(f"Input: {x}\nOutput: {y}" for x, y in pairs)
    return f"{shown}\n\nInstruction:{instruction}"


@torch.no_grad()
def proposed(task, demonstrations):
    solved = [case(one["pairs"], f" {one['instruction']}") for one in settings.solved]
    prompt = "\n\n###\n\n".join([*solved, case(demonstrations)])
    batch = tokenizer(prompt, return_tensors="pt").to(net.device)
    torch.manual_seed(1000 * seed + block.spec.axes["task"].index(task))
    out = net.generate(
        **batch, do_sample=True, temperature=settings.temperature, top_p=settings.top_p, top_k=0,
        num_return_sequences=settings.proposals, max_new_tokens=settings.max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    new = tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return [text.strip().split("\n")[0].strip() for text in new]


# %% [markdown]
# ## Scores
#
# One call per candidate: the instruction is the shared prefix. Dev pairs have one option, the right one.


# %%
def scored(instruction, dev, items):
    """Mean dev log-likelihood; per test item, 1 where the right answer ranks first, and its log-likelihood."""
    contexts = [f"\n\nInput: {x}\nOutput:" for x, _ in [*dev, *items]]
    options = [[f" {y}"] for _, y in dev] + [[f" {y}" for y in ys] for _, ys in items]
    found = scoring.option_log_probs(net, tokenizer, contexts, options, prefix=instruction)
    return {
        "dev": torch.stack([s.log_probs[0] for s in found[: len(dev)]]).mean().item(),
        "right": torch.tensor(
            [float(scoring.choose(s) == 0) for s in found[len(dev) :]], dtype=torch.float64
        ),
        "log": torch.stack([s.log_probs[0] for s in found[len(dev) :]]),
    }


# %% [markdown]
# ## Run
#
# One line per method, on the disk before the next one starts. The line of `mean` keeps all candidates with their scores. Its
# cost is that of the whole search. `is_first`: whether the likelihood selected what the author had chosen.


# %%
def mean_of(rows):
    return {key: sum(row[key] for row in rows) / len(rows) for key in ("dev", "right", "log")}


def choices(texts, table, by_hand):
    """What each method takes: scores, and the instruction where it is one. Those by hand come first in the table."""
    by_dev = sorted(range(len(table)), key=lambda i: -table[i]["dev"])
    best = max(range(len(table)), key=lambda i: table[i]["right"].mean().item())
    chosen = {
        "human_first": 0,
        "human_selected": next(i for i in by_dev if i < by_hand),
        "model_selected": next(i for i in by_dev if i >= by_hand),
        "selected": by_dev[0],
        "best_on_test": best,
    }
    means = {"human_mean": table[:by_hand], "model_mean": table[by_hand:], "mean": table}
    found = {method: (table[i], texts[i]) for method, i in chosen.items()}
    return found | {method: (mean_of(rows), "") for method, rows in means.items()}


for task in block.spec.axes["task"]:
    if not (missing := [trial for trial in block.trials() if trial.inside["task"] == task]):
        continue
    with block.run.measure() as cost:
        demonstrations, dev, items = drawn(task)
        human = settings.human[task]
        texts = [*human, *proposed(task, demonstrations)]
        table = [scored(text, dev, items) for text in texts]
    chosen = choices(texts, table, len(human)) | {"none": (scored("", dev, items), "")}
    accuracies, logs = ([row[key].mean().item() for row in table] for key in ("right", "log"))
    every = {"candidates": texts, "dev_all": [row["dev"] for row in table]}
    every |= {"accuracy_all": accuracies, "log_likelihood_all": logs}
    for trial in missing:
        row, text = chosen[trial.method]
        fields = {"accuracy": row["right"].mean().item(), "log_likelihood": row["log"].mean().item()}
        fields |= {"dev_log_likelihood": row["dev"], "scores": row["right"].tolist(), "instruction": text}
        fields["is_first"] = float(text == human[0])
        more = (cost, every) if trial.method == "mean" else (None, {})
        block.line(trial, more[0], **fields, **more[1])

# %% [markdown]
# ## What this block found

# %%
block.close("accuracy", "log_likelihood")
