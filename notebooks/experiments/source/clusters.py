# ---
# jupyter:
#   instructlab:
#     id: clusters
#     title: Instruction tuning and the number of clusters
#     outcome: one block of the grid behind claims C6, F2 and F3
#     assets: [smollm2, bigbench]
#     minutes: {smoke: 2, laptop: 7, gpu: 3}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `clusters`: one block
#
# SmolLM2 (already tuned on instructions) is tuned further on 1, 2, 4 or 8 clusters of tasks, always on equally many
# examples, and ranks the answers of three clusters that are held out. Beside that: the name of the task, or nothing, in
# place of the instruction; random weights; rules that we invented, so that no corpus holds them. A block is one seed. The
# grid stands in `data/experiments/clusters.toml`, the tasks and wordings in `data/instructions/clusters.toml`; lesson 14
# explains them.
#
# Two stages. `tune` tries two learning rates per arm on a seed that the table does not use, and looks at dev items of the
# arm's own training clusters, never at a held-out cluster. `run` takes the better one.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune or run
seed: int = 0  # clusters, training examples, first values of LoRA, order of batches, invented rules

# %%
import hashlib
import re
import tomllib
from itertools import zip_longest

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from instructlab_repro.block import fit, open_block
from instructlab_utils import generation, losses, models, scoring, tasks, training, tuners

block = open_block("clusters", profile, stage, seed=seed)
settings, run = block.settings, block.run

# %% [markdown]
# ## Items
#
# An item is a task, an input, its options and the right answer. Where the answers are fixed, they take turns, so that a
# model that always says the same is at chance.
#
# The seed puts the training clusters in an order. `clusters_2` has the first two, and so on: the arms are nested. The total
# stays the same: with one cluster all examples come from it.

# %%
written = (run.root / "data" / "instructions" / "clusters.toml").read_bytes()
REGISTRY = tomllib.loads(written.decode())
TASKS = {task["name"]: task for task in REGISTRY["tasks"]}
WORDS = {
    "instruction": lambda task: task["clear"],
    "name": lambda task: f"[{task['label']}]",
    "none": lambda task: "",
}
tokenizer = models.load_tokenizer("decoder")


def prompt(item, form):
    words = WORDS[form](item["task"])
    return f"{words}\n\n{item['input']}\nAnswer:" if words else f"{item['input']}\nAnswer:"


def fits(item):
    longest = max(item["options"], key=len)
    text = f"{prompt(item, 'instruction')} {longest}"
    return len(tokenizer(text)["input_ids"]) < settings.max_length


def item_of(task, row):
    raw = row["input"] if "input" in row else row["source"]
    groups = re.search(task.get("take", "(.*)"), raw, re.DOTALL).groups()
    options = row["options"] if "options" in row else row["targets"][:1]
    shown = task.get("layout", "{}").format(*(group.strip() for group in groups))
    return {"task": task, "input": shown, "options": options, "answer": row.get("answer", 0)}


def turns(lists):
    return [item for group in zip_longest(*lists) for item in group if item is not None]


def items_of(name, splits, n, chosen_by):
    """At most n items of a task, drawn by a seed."""
    task = tasks.load(name)
    rows = [row for split in splits for row in task.splits[split]]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(chosen_by)).tolist()
    drawn = [item_of(TASKS[name], rows[i]) for i in order[: 12 * n]]
    if task.kind == "choice" and len({tuple(sorted(item["options"])) for item in drawn}) == 1:
        answers = sorted(drawn[0]["options"])
        drawn = turns([[i for i in drawn if i["options"][i["answer"]] == a] for a in answers])
    found = []
    for item in drawn:
        if len(found) < n and fits(item):
            found.append(item)
    return found


TOTAL = settings.steps * settings.batch_size
trained = [name for name, cluster in REGISTRY["clusters"].items() if not cluster["held_out"]]
drawn_order = torch.randperm(len(trained), generator=torch.Generator().manual_seed(seed)).tolist()
ORDER = [trained[i] for i in drawn_order][:8]


def pool(cluster, splits, n):
    """n items of a cluster, its tasks taking turns."""
    names = [task["name"] for task in REGISTRY["tasks"] if task["cluster"] == cluster]
    return turns([items_of(name, splits, n, seed) for name in names])[:n]


POOLS = {
    cluster: pool(cluster, ["train"], max(1, TOTAL // (1, 2, 4, 4, 8, 8, 8, 8)[k]))
    for k, cluster in enumerate(ORDER)
}
DEV = {cluster: pool(cluster, ["dev"], settings.dev) for cluster in ORDER} if block.tuning else {}


def share(pools, clusters, total):
    """``total`` items, the clusters taking turns."""
    return turns([pools[cluster] for cluster in ORDER[:clusters]])[:total]


MEASURED = {name: c["measured"] for name, c in REGISTRY["clusters"].items() if c["held_out"]}
HELD_OUT = [
    item
    for name in ([] if block.tuning else sum(MEASURED.values(), []))  # noqa: RUF017
    for item in items_of(name, ["train", "dev", "test"], settings.held_out, 0)
]
print(f"training clusters, in the order of this seed: {', '.join(ORDER)}; {len(HELD_OUT)} held-out items")

# %% [markdown]
# ## Invented rules
#
# Words, labels and a marker that the seed makes up. Nobody can know the rules without reading the instruction.

# %%
rng = torch.Generator().manual_seed(1000 + seed)


def one_of(choices):
    return choices[int(torch.randint(len(choices), (1,), generator=rng))]


def word():
    return "".join(one_of("bdfgklmnprtvz") + one_of("aeiou") for _ in range(2)) + one_of("bdgkmnpt")


LABELS, MARKER = (word(), word()), word()
ENDS = f"Answer {LABELS[0]} if the first and the last word are the same, else answer {LABELS[1]}."
BEHIND = f"Which word stands directly behind {MARKER}?"
REVERSE = "Write the words in reverse order."


def invented(k):
    """The k-th item of each rule."""
    a, b, c, d = (word() for _ in range(4))
    first = [a, b, c, a] if k % 2 == 0 else [a, b, c, d]
    second = [a, b, c]
    second.insert(k % 3, MARKER)
    rules = (
        (ENDS, first, list(LABELS), k % 2),
        (BEHIND, second, [a, b, c], k % 3),
        (REVERSE, [a, b, c], [f"{c} {b} {a}", f"{a} {b} {c}", f"{b} {c} {a}"], 0),
    )
    return [
        {"task": {"clear": rule}, "input": " ".join(shown), "options": options, "answer": answer}
        for rule, shown, options, answer in rules
    ]


INVENTED = [item for k in range(settings.invented) for item in invented(k)] if not block.tuning else []

# %% [markdown]
# ## The model in two parts
#
# The lower layers are frozen, so their outputs for a text are computed once and kept; LoRA stands in the upper ones. With its
# first values LoRA changes nothing: that is the untuned model.


# %%
class Split(nn.Module):
    """Answers like the whole model; remembers what the lower layers said about each row of tokens."""

    def __init__(self, net):
        super().__init__()
        self.bottom, top = models.split_decoder(net.requires_grad_(False), settings.layer)
        self.top = tuners.inject(top, tuners.Lora(r=8), seed=seed)
        self.first = {name: p.detach().clone() for name, p in tuners.trainable(self.top).items()}
        self.texts, self.kept = [], {}

    def reset(self):
        for name, p in tuners.trainable(self.top).items():
            p.data.copy_(self.first[name])

    def forward(self, ids, attention_mask=None, position_ids=None, logits_to_keep=0, **_):
        key = tuple(ids.flatten().tolist())
        if key not in self.kept:
            with torch.no_grad():
                out = self.bottom(ids, attention_mask=attention_mask, position_ids=position_ids)
            self.kept[key] = out.last_hidden_state
        return self.top(
            inputs_embeds=self.kept[key], attention_mask=attention_mask, position_ids=position_ids,
            logits_to_keep=logits_to_keep,
        )  # fmt: skip

    def hidden(self, numbers):
        """What enters the top for texts by their number, (B, T, d)."""
        rows = [self.kept[tuple(self.texts[i])][0] for i in numbers]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True)

    def examples(self, items, form):
        """Completion-only examples; the lower layers read each text now."""
        found = []
        for item in items:
            answer = item["options"][item["answer"]]
            example = generation.encode_completion(prompt(item, form), f" {answer}", tokenizer)
            self(torch.tensor([example["input_ids"]], device=run.device), logits_to_keep=1)
            self.texts.append(example["input_ids"])
            found.append(example | {"text": [len(self.texts) - 1] * len(example["input_ids"])})
        return found


def completion_losses(split, batch):
    """As generation.causal_losses, from the kept outputs; logits only where a label is predicted."""
    counts = batch["labels"][:, 1:] != -100
    needed = counts.any(0).nonzero()[:, 0]
    logits = split.top(
        inputs_embeds=split.hidden(batch["text"][:, 0].tolist()),
        attention_mask=batch["attention_mask"], logits_to_keep=needed,
    ).logits  # fmt: skip
    return losses.cross_entropy(logits[counts[:, needed]].float(), batch["labels"][:, 1:][counts])


net = models.load_decoder(device=run.device).float()
SPLITS = {"tuned": Split(net)}
torch.manual_seed(seed)
random_net = AutoModelForCausalLM.from_config(net.config, dtype=torch.float32).to(run.device).eval()
SPLITS["random"] = Split(random_net)

# %% [markdown]
# ## Measures
#
# Rank classification: the option with the highest log-probability per token. `choice_nll` is the cross-entropy of the right
# option in the softmax over these.


# %%
def ranked(split, items, form):
    """For each item: the chosen option, whether it is right under two rules, and choice_nll."""
    scores = scoring.option_log_probs(
        split, tokenizer, [prompt(item, form) for item in items],
        [[f" {option}" for option in item["options"]] for item in items],
    )  # fmt: skip
    pairs = [(s, item["answer"]) for s, item in zip(scores, items, strict=True)]
    return {
        "chosen": [scoring.choose(s, "mean") for s, _ in pairs],
        "right": [float(scoring.choose(s, "mean") == y) for s, y in pairs],
        "right_sum": [float(scoring.choose(s, "sum") == y) for s, y in pairs],
        "nll": [-torch.log_softmax(s.log_probs / s.tokens, 0)[y].item() for s, y in pairs],
    }


def held_out(split, form, also):
    """The numbers of a line: on the held-out clusters in the arm's own form, in those of ``also``, on invented rules."""
    own = ranked(split, HELD_OUT, form)
    numbers = {"accuracy": mean(own["right"]), "accuracy_sum": mean(own["right_sum"])}
    numbers |= {"choice_nll": mean(own["nll"])}
    numbers["over_chance"] = numbers["accuracy"] - mean([1 / len(item["options"]) for item in HELD_OUT])
    for cluster in MEASURED:
        mine = [r for r, i in zip(own["right"], HELD_OUT, strict=True) if i["task"]["cluster"] == cluster]
        numbers[f"accuracy_{cluster}"] = mean(mine)
    for other in also:
        found = own if other == form else ranked(split, HELD_OUT, other)
        numbers |= {f"accuracy_{other}": mean(found["right"]), f"choice_nll_{other}": mean(found["nll"])}
    rules = ranked(split, INVENTED, "instruction")
    numbers |= {"accuracy_invented": mean(rules["right"]), "choice_nll_invented": mean(rules["nll"])}
    return numbers | {"predictions": own["chosen"], "targets": [item["answer"] for item in HELD_OUT]}


# %% [markdown]
# ## Run
#
# One line per arm, on the disk before the next one starts. `gain` is the accuracy minus that of the untuned model in the same
# form. `clusters_8` also holds the slopes over the four arms of this seed: per doubling of the number of clusters, by least
# squares on log2.

# %%
FORMS = {"name_8": "name", "none_8": "none"}
EVERY = ("instruction", "name", "none")


def mean(numbers):
    return sum(numbers) / len(numbers)


def arm(method, learning_rate=None):
    split = SPLITS["random" if method == "random_init" else "tuned"]
    split.reset()
    form, numbers = FORMS.get(method, "instruction"), {}
    clusters = 8 if method == "random_init" else int(method.rpartition("_")[2]) if learning_rate else 0
    if clusters:
        kept = split.examples(share(POOLS, clusters, TOTAL), form)
        assert len(kept) == TOTAL
        knobs = {"learning_rate": learning_rate, "objective": completion_losses}
        last = max(1, settings.steps // 4)
        _, numbers, _ = fit(block, split, kept, tokenizer.pad_token_id, last, **knobs)
        numbers["clusters"] = ORDER[:clusters]
    if block.tuning:
        with torch.no_grad():
            batches = [
                training.collate_tokens([e], 0)
                for e in split.examples(share(DEV, clusters, settings.dev), form)
            ]
            nll = torch.cat([completion_losses(split, training.move(batch, run.device)) for batch in batches])
        return numbers | {"dev_nll": nll.mean().item()}
    return numbers | held_out(split, form, EVERY if method in ("untuned", "clusters_8") else ("instruction",))


for trial in block.trials():
    with run.measure() as cost:
        numbers = arm(trial.method, **trial.tuned)
    if not block.tuning:
        done = {t.method: run.have(t.key) for t in block.spec.trials(block.block)}
        done[trial.method] = numbers
        form = FORMS.get(trial.method, "instruction")
        numbers["gain"] = numbers["accuracy"] - done["untuned"][f"accuracy_{form}"]
        if trial.method == "clusters_8":
            for metric in ("accuracy", "choice_nll", "accuracy_invented"):
                curve = [done[f"clusters_{n}"][metric] for n in (1, 2, 4, 8)]
                numbers[f"slope_{metric}"] = float(np.polyfit(range(4), curve, 1)[0])
    sha = hashlib.sha256(written).hexdigest()
    block.line(trial, cost, **numbers, wordings_sha=sha)

# %% [markdown]
# ## What this block found

# %%
block.close("accuracy", "dev_nll", "train_loss")
