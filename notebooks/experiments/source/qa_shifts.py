# ---
# jupyter:
#   instructlab:
#     id: qa_shifts
#     title: Question answering on other texts, and with the articles' mistakes
#     outcome: one block of the grid behind claim Q1
#     assets: [minilm, bigbench]
#     minutes: {smoke: 0.5, laptop: 9, gpu: 1}
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

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # there is no tuning: data/experiments/qa_shifts.toml says why
seed: int = 0  # training questions, head, order of batches, dropout

# %%
import re

import numpy as np

from instructlab_repro import experiments
from instructlab_utils import metrics, models, qa, start, tasks, training

run = start("qa_shifts", profile=profile, seed=seed)
spec = experiments.load("qa_shifts").at(run.profile)
block = spec.block(stage=stage, seed=seed)
settings = spec.settings_of(block)

# %% [markdown]
# ## Data
#
# Training questions depend on the seed. Test questions are the same for all seeds. Training windows are short, so that
# there are many updates, and only one window per question is used: the first that holds the whole answer. Test windows
# are about as long and overlap; a trial with windows twice as long gave a lower F1.

# %%
tokenizer = models.load_tokenizer("encoder")
pad_id = tokenizer.pad_token_id
squad = tasks.load("squad").splits
train_rows = tasks.subsample(squad["train"], settings.n_train, seed).to_list()
sets = {
    name: squad["test"] if name == "squad" else tasks.load(name).splits["test"] for name in spec.axes["task"]
}
test_rows = {name: tasks.subsample(rows, settings.test, 0).to_list() for name, rows in sets.items()}


def with_answer(rows, max_length, stride):
    """The first window of each question that holds the whole answer; questions without one are left out."""
    found = {}
    for window in qa.windows(rows, tokenizer, max_length, stride):
        if window.example["labels"] != [0, 0]:
            found.setdefault(window.row, window)
    return [window.example for window in found.values()]


train_set = with_answer(train_rows, settings.max_length, settings.stride)
test_windows = {
    name: qa.windows(rows, tokenizer, settings.test_length, settings.test_stride)
    for name, rows in test_rows.items()
}
updates = -(-len(train_set) // settings.batch_size)
print(f"{len(train_rows)} questions, {len(train_set)} windows, {updates} updates of {settings.batch_size}")

# %% [markdown]
# ## Training
#
# All layers learn, the word embeddings do not: they are half of the weights, and most words of the test sets do not occur
# in so few training questions. That saves time and memory.


# %%
def fine_tuned(examples, steps):
    """A trained model, its number of trained parameters, and what the training cost."""
    net = qa.load_span_model(seed=seed).to(run.device)
    net.bert.embeddings.word_embeddings.weight.requires_grad_(False)
    with run.measure() as cost:
        training.train(
            net, examples, steps=steps, learning_rate=settings.learning_rate, pad_id=pad_id,
            batch_size=settings.batch_size, seed=seed, objective=qa.boundary_losses,
        )  # fmt: skip
    return net, sum(p.numel() for p in net.parameters() if p.requires_grad), cost


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


def overlap_texts(rows):
    """No model: the sentence that shares the most words with the question."""
    found = []
    for row in rows:
        asked = set(metrics.normalize_answer(row["question"]).split())
        sentences = re.split(r"(?<=[.!?])\s+", row["context"])
        found.append(max(sentences, key=lambda s: len(asked & set(metrics.normalize_answer(s).split()))))
    return found


# %% [markdown]
# ## Run
#
# Everything is trained and scored when it is first needed, and kept for the methods that share it. A method's cost is that
# of its training. The damage is measured on the held-out articles of SQuAD; on the other sets those methods have no number.

# %%
TRAINED = {
    "repaired": lambda: (train_set, updates),
    "no_segments": lambda: (without_segments(train_set), updates),
    "ids_as_positions": lambda: (ids_as_labels(train_set), settings.steps_ids),
}
SAME_MODEL = {"argmax": "repaired", "cut_text": "repaired"}
models_by_method, scores_by_cell = {}, {}


def model_of(method):
    name = SAME_MODEL.get(method, method)
    if name not in models_by_method:
        models_by_method.clear()  # one model at a time; the methods that share one follow each other
        models_by_method[name] = fine_tuned(*TRAINED[name]())
    return models_by_method[name]


def read(method, windows):
    examples = [window.example for window in windows]
    return qa.span_scores(
        model_of(method)[0], without_segments(examples) if method == "no_segments" else examples, pad_id
    )


def answers_of(method, task):
    rows, windows = test_rows[task], test_windows[task]
    if method == "overlap":
        return overlap_texts(rows)
    if method == "cut_text":
        first = {
            w.row: w for w in reversed(qa.windows(rows, tokenizer, settings.cut_length, settings.stride))
        }
        windows = [first[number] for number in range(len(rows))]
        return qa.answer_texts(rows, windows, read(method, windows))
    cell = SAME_MODEL.get(method, method), task
    if cell not in scores_by_cell:
        scores_by_cell[cell] = read(method, windows)
    decode = argmax_texts if method == "argmax" else qa.answer_texts
    return decode(rows, windows, scores_by_cell[cell])


# %%
for trial in spec.trials(block):
    if run.have(trial.key):
        continue
    task = trial.inside["task"]
    fields = {"em": None, "f1": None}
    if task == "squad" or trial.method in settings.on_all_sets:
        answers = answers_of(trial.method, task)
        pairs = zip(answers, test_rows[task], strict=True)
        scores = np.array([metrics.squad_em_f1(answer, row["answers"]) for answer, row in pairs])
        fields = {"em": scores[:, 0].mean(), "f1": scores[:, 1].mean(), "scores": scores[:, 1].tolist()}
        fields["empty"] = sum(answer == "" for answer in answers)
    if trial.method != "overlap":
        _, trained, cost = model_of(trial.method)
        fields |= vars(cost) | {"trainable_parameters": trained}
    run.line(spec.identity(block) | trial.key, windows=len(train_set), updates=updates, **fields)
    print(
        f"{trial.method:18s} {task:15s} F1 {fields['f1'] if fields['f1'] is None else round(fields['f1'], 3)}"
    )

# %% [markdown]
# ## What this block found

# %%
lines = [run.have(trial.key) for trial in spec.trials(block)]
for line in lines:
    if line["f1"] is not None:
        print(f"{line['method']:18s} {line['task']:15s} EM {line['em']:.3f}  F1 {line['f1']:.3f}")
run.record(runs=len(lines))
