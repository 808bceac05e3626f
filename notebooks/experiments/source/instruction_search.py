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
# Four tasks with answers of one word. SmolLM2 proposes instructions, a person has written some, a template has varied one;
# the likelihood of the answers to a few dev pairs selects. A block is one seed. The grid stands in
# `data/experiments/instruction_search.toml`, the pairs in `data/instructions/induction.jsonl`, the claims in
# `data/claims/AE1.toml` and `AE3.toml`; lesson 13 explains the method.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # there is nothing to tune
seed: int = 0  # pairs for demonstrations, dev and test; distractors; proposals

# %%
import json
import random

import torch

from instructlab_repro import experiments
from instructlab_utils import models, scoring, start

run = start("instruction_search", profile=profile, seed=seed)
spec = experiments.load("instruction_search").at(run.profile)
block = spec.block(stage=stage, seed=seed)
settings = spec.settings_of(block)
tokenizer = models.load_tokenizer("decoder")
net = models.load_decoder(device=run.device).float()

# %% [markdown]
# ## Pairs
#
# Each pair is used once: to propose, to select or to test. The sibling's answer is right for another instruction: without
# an instruction nothing speaks against it.

# %%
lines = (run.root / "data" / "instructions" / "induction.jsonl").read_text(encoding="utf-8").splitlines()
answers = {}
for row in map(json.loads, lines):
    answers.setdefault(row["task"], {})[row["input"]] = row["answer"]


def drawn(task):
    """Demonstrations and dev pairs, (input, answer), and test items, (input, options); the first option is right."""
    known, sibling = answers[task], answers[settings.siblings[task]]
    dice = random.Random(f"{seed} {task}")
    inputs = dice.sample(sorted(known), settings.demonstrations + settings.dev + settings.test)
    pairs = [(x, known[x]) for x in inputs]
    items = []
    for x, y in pairs[settings.demonstrations + settings.dev :]:
        taken = {x, y, sibling[x]}
        others = dice.sample(sorted(set(known.values()) - taken), 2)
        items.append((x, [y, sibling[x], *others]))
    return pairs[: settings.demonstrations], pairs[settings.demonstrations :][: settings.dev], items


# %% [markdown]
# ## Candidates
#
# The proposer reads two solved cases and the demonstrations, and goes on after "Instruction:". What it writes up to the end
# of the line is a candidate, even when it is empty.

# %%
CASE = "{}\n\nInstruction:{}"


def shown(pairs):
    return "\n\n".join(f"Input: {x}\nOutput: {y}" for x, y in pairs)


@torch.no_grad()
def proposed(task, demonstrations):
    solved = [CASE.format(shown(case["pairs"]), f" {case['instruction']}") for case in settings.solved]
    prompt = "\n\n###\n\n".join([*solved, CASE.format(shown(demonstrations), "")])
    batch = tokenizer(prompt, return_tensors="pt").to(run.device)
    torch.manual_seed(1000 * seed + spec.axes["task"].index(task))
    out = net.generate(
        **batch, do_sample=True, temperature=settings.temperature, top_p=settings.top_p, top_k=0,
        num_return_sequences=settings.proposals, max_new_tokens=settings.max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    new = tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return [text.strip().split("\n")[0].strip() for text in new]


def candidates(task, demonstrations):
    human = settings.human[task]
    first = human[0][0].lower() + human[0][1:]
    varied = [t.format(human[0] if t.startswith("{}") else first) for t in settings.templates]
    return [*human, *varied, *proposed(task, demonstrations)]


# %% [markdown]
# ## Scores
#
# One call per candidate: the instruction is the shared prefix. Dev pairs have one option, the right one.

# %%
CONTEXT = "\n\nInput: {}\nOutput:"


def scored(instruction, dev, items):
    """Mean dev log-likelihood; per test item, 1 where the right answer ranks first, and its log-likelihood."""
    contexts = [CONTEXT.format(x) for x, _ in [*dev, *items]]
    options = [[f" {y}"] for _, y in dev] + [[f" {y}" for y in ys] for _, ys in items]
    found = scoring.option_log_probs(net, tokenizer, contexts, options, prefix=instruction)
    on_dev, on_test = found[: len(dev)], found[len(dev) :]
    return {
        "dev": torch.stack([s.log_probs[0] for s in on_dev]).mean().item(),
        "right": torch.tensor([float(scoring.choose(s) == 0) for s in on_test], dtype=torch.float64),
        "log": torch.stack([s.log_probs[0] for s in on_test]),
    }


# %% [markdown]
# ## Run
#
# One line per method, on the disk before the next one starts. The line of `mean` keeps all candidates with their scores. Its
# cost is that of the whole search.

# %%
for task in spec.axes["task"]:
    trials = [trial for trial in spec.trials(block) if trial.inside["task"] == task]
    if all(run.have(trial.key) for trial in trials):
        continue
    with run.measure() as cost:
        demonstrations, dev, items = drawn(task)
        texts = candidates(task, demonstrations)
        table = [scored(text, dev, items) for text in texts]
    bare = scored("", dev, items)
    n_human, n_own = len(settings.human[task]), settings.proposals
    by_dev = sorted(range(len(texts)), key=lambda i: -table[i]["dev"])
    chosen = {
        "selected": by_dev[0],
        "selected_model": next(i for i in by_dev if i >= len(texts) - n_own),
        "human_best": next(i for i in by_dev if i < n_human),
        "human_first": 0,
        "random": random.Random(f"{seed} {task} choice").randrange(len(texts)),
        "best_on_test": max(range(len(texts)), key=lambda i: table[i]["right"].mean().item()),
    }
    mean = {key: sum(row[key] for row in table) / len(table) for key in ("dev", "right", "log")}
    for trial in trials:
        i = chosen.get(trial.method)
        row = {"none": bare, "mean": mean}.get(trial.method) or table[i]
        extra = {"instruction": "" if i is None else texts[i]}
        if trial.method == "mean":
            extra = vars(cost) | {
                "candidates": texts,
                "dev_all": [r["dev"] for r in table],
                "accuracy_all": [r["right"].mean().item() for r in table],
                "log_likelihood_all": [r["log"].mean().item() for r in table],
            }
        if not run.have(trial.key):
            run.line(
                spec.identity(block) | trial.key,
                accuracy=row["right"].mean().item(),
                log_likelihood=row["log"].mean().item(),
                dev_log_likelihood=row["dev"],
                scores=row["right"].tolist(),
                **extra,
            )

# %% [markdown]
# ## What this block found

# %%
for trial in spec.trials(block):
    line = run.have(trial.key)
    print(f"{line['task']:12s} {line['method']:15s} {line['accuracy']:.2f} {line['log_likelihood']:6.2f}"
          f" {line.get('instruction', '')!r}")  # fmt: skip
run.record(runs=len(spec.trials(block)))
