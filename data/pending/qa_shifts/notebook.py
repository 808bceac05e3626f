# ---
# jupyter:
#   instructlab:
#     id: qa_shifts
#     title: Question answering on other texts, and with the articles' mistakes
#     outcome: one block of the grid behind claim Q1
#     assets: [minilm, bigbench]
#     minutes: {smoke: 0.5, laptop: 17, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `qa_shifts`: one block
#
# An encoder learns to mark answers in Wikipedia paragraphs. It is tested on paragraphs of other articles and on four kinds
# of text that it has not seen. Then the same is done with each of the articles' silent mistakes. A block is one seed; all
# methods see the same training questions and answer the same test questions, so their differences are paired. The grid
# stands in `data/experiments/qa_shifts.toml`, the claim that it serves in `data/claims/Q1.toml`; lesson 05 explains the
# methods.
#
# Two stages. `tune` tries learning rates of the repaired reader on seeds that the table does not use, and looks at the loss
# on dev questions. `run` takes the best one for all that is trained, since each mistake changes one thing.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
seed: int = 0  # training questions, head, order of batches, dropout; test questions of its own

# %%
import re
from functools import cache, lru_cache

import numpy as np

from instructlab_repro.block import fit, open_block
from instructlab_utils import metrics, models, qa, tasks

block = open_block("qa_shifts", profile, stage, seed=seed)
settings = block.settings

# %% [markdown]
# ## Data
#
# Each seed has its own training and test questions. Dev questions are the same for all seeds. Training windows are short, so
# that there are many updates, and only one window per question is used: the first that holds the whole answer. Test windows
# are about as long and overlap; a trial with windows twice as long gave a lower F1.

# %%
tokenizer = models.load_tokenizer("encoder")
pad_id = tokenizer.pad_token_id


def answered(split, n, chosen_by):
    """Questions of SQuAD: the first window of each that holds the whole answer."""
    rows = tasks.subsample(tasks.load("squad").splits[split], n, chosen_by).to_list()
    windows = qa.windows(rows, tokenizer, settings.max_length, settings.stride)
    first = {w.row: w.example for w in reversed(windows) if w.example["labels"] != [0, 0]}
    return [first[row] for row in sorted(first)]


def asked(task):
    """The seed's own test questions: as many as the settings say, or its share of the set."""
    rows, seeds = tasks.load(task).splits["test"], block.spec.axes["seed"]
    return tasks.disjoint(rows, min(settings.test, len(rows) // len(seeds)), seed, seeds).to_list()


train_set = answered("train", settings.n_train, seed)
dev_set = answered("dev", settings.dev, 0) if block.tuning else []
test_rows = {} if block.tuning else {name: asked(name) for name in block.spec.axes["task"]}
updates = -(-len(train_set) // settings.batch_size)
print(f"{updates} updates of {settings.batch_size};", {name: len(rows) for name, rows in test_rows.items()})

# %% [markdown]
# ## The articles' mistakes
#
# Each changes one thing. `no_segments`: question and context look alike, in training and in the test. `ids_as_positions`:
# the vocabulary ids of `[CLS]` and `[SEP]` are the labels; both are legal positions of a window that is long enough.
# `cut_text`: the model is the repaired one, but reads only the first tokens of each test context, without further windows.
# `argmax`: the repaired model again, but first and last token are chosen independently, anywhere.


# %%
def without_segments(examples):
    return [example | {"token_type_ids": [0] * len(example["input_ids"])} for example in examples]


def ids_as_labels(examples):
    wrong = [tokenizer.cls_token_id, tokenizer.sep_token_id]
    return [example | {"labels": wrong} for example in examples if len(example["input_ids"]) > max(wrong)]


def argmax_texts(rows, windows, scores):
    """Both argmaxes of the window with the largest sum; "" where they are no span of the context."""
    best = {}
    for window, pair in zip(windows, scores, strict=True):
        top, (first, last) = pair.max(1).values.sum().item(), pair.argmax(1).tolist()
        if window.row not in best or top > best[window.row][0]:
            ends = window.offsets[first], window.offsets[last]
            legal = None not in ends and first <= last
            context = rows[window.row]["context"]
            best[window.row] = top, context[ends[0][0] : ends[1][1]] if legal else ""
    return [best[number][1] for number in range(len(rows))]


def overlap_text(row):
    """No model: the sentence that shares the most words with the question."""
    sentences = re.split(r"(?<=[.!?])\s+", row["context"])
    asked, *told = (set(metrics.normalize_answer(s).split()) for s in (row["question"], *sentences))
    return sentences[np.argmax([len(asked & words) for words in told])]


# %% [markdown]
# ## Run
#
# All layers learn, the word embeddings do not: they are half of the weights, and most words of the test sets do not occur in
# so few training questions. Methods that share a model follow each other. A method's cost is that of its training. The
# mistakes are measured on the held-out articles of SQuAD; on the other sets they have no number. The dev loss is that of the
# training: the mean cross-entropy of the answer's first and last token.

# %%
SAME_MODEL = {"argmax": "repaired", "cut_text": "repaired"}
chosen = [t.tuned["learning_rate"] for t in block.spec.trials(block.block) if t.tuned]


@lru_cache(maxsize=1)
def model_of(name, learning_rate):
    """A trained model, what a line says about the training, and its cost."""
    changed = {"no_segments": without_segments, "ids_as_positions": ids_as_labels}.get(name, list)
    steps = settings.steps_ids if name == "ids_as_positions" else updates
    net = models.load_span_model(seed=seed).to(block.run.device)
    net.bert.embeddings.word_embeddings.weight.requires_grad_(False)
    knobs = {"steps": steps, "learning_rate": learning_rate, "objective": qa.boundary_losses}
    return fit(block, net, changed(train_set), pad_id, **knobs)


def dev_loss(net):
    pairs = zip(qa.span_scores(net, dev_set, pad_id), dev_set, strict=True)
    return -float(np.mean([ends.log_softmax(1)[[0, 1], e["labels"]].mean() for ends, e in pairs]))


@cache
def read(name, task):
    """The windows of a set, and what a model says of each."""
    windows = qa.windows(test_rows[task], tokenizer, settings.test_length, settings.test_stride)
    examples = [window.example for window in windows]
    examples = without_segments(examples) if name == "no_segments" else examples
    return windows, qa.span_scores(model_of(name, chosen[0])[0], examples, pad_id)


def answers(method, task):
    if method == "overlap":
        return [overlap_text(row) for row in test_rows[task]]
    windows, scores = read(SAME_MODEL.get(method, method), task)
    if method == "cut_text":  # the first window of each context
        first = {window.row: i for i, window in reversed([*enumerate(windows)])}
        windows, scores = ([found[i] for i in first.values()] for found in (windows, scores))
    return (argmax_texts if method == "argmax" else qa.answer_texts)(test_rows[task], windows, scores)


for trial in block.trials():
    task, model = trial.inside["task"], SAME_MODEL.get(trial.method, trial.method)
    net, line, cost = None, {}, None
    if model != "overlap":
        net, line, cost = model_of(model, trial.tuned.get("learning_rate", chosen[0]))
    fields = {"dev_loss": dev_loss(net)} if block.tuning else {"em": None, "f1": None}
    if not block.tuning and (task == "squad" or trial.method in settings.on_all_sets):
        pairs = zip(answers(trial.method, task), test_rows[task], strict=True)
        scores = np.array([metrics.squad_em_f1(answer, row["answers"]) for answer, row in pairs])
        fields = {"em": scores[:, 0].mean(), "f1": scores[:, 1].mean(), "scores": scores[:, 1].tolist()}
    block.line(trial, cost, **line, **fields)

# %% [markdown]
# ## What this block found

# %%
block.close("dev_loss", "em", "f1")
