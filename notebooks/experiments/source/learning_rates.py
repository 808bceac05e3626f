# ---
# jupyter:
#   instructlab:
#     id: learning_rates
#     title: Seven learning rates, three ways to tune
#     outcome: one block of the grid behind claim C13
#     assets: [minilm, vader]
#     minutes: {smoke: 0.7, laptop: 10, gpu: 2}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `learning_rates`: one block
#
# Full fine-tuning, LoRA and a soft prompt, each with the same list of learning rates. A block is one seed; all its runs see
# the same sentences, in batches of the same order, and start from the same head. The grid stands in
# `data/experiments/learning_rates.toml`, the claim that it serves in `data/claims/C13.toml`. Lesson 02 explains the rates;
# LoRA is the subject of lesson 09, soft prompts of lesson 10. Here both come from peft, as they are.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # there is no tuning stage: the rate is the subject
seed: int = 0  # training sentences, order of batches, dropout, head, LoRA's and the prompt's first values

# %%
import numpy as np
import peft
import torch

from instructlab_repro import experiments
from instructlab_utils import metrics, models, start, tasks, training
from instructlab_utils.errors import TrainingError

run = start("learning_rates", profile=profile, seed=seed)
spec = experiments.load("learning_rates").at(run.profile)
block = spec.block(stage=stage, seed=seed)
settings = spec.settings_of(block)

# %% [markdown]
# ## Data
#
# The training sentences depend on the seed. Dev and test sentences are the same for all seeds.

# %%
corpus = tasks.load(settings.task)
rows = {
    "train": tasks.subsample(corpus.splits["train"], settings.n_train, seed),
    "dev": tasks.subsample(corpus.splits["dev"], settings.dev, 0),
    "test": tasks.subsample(corpus.splits["test"], settings.test, 0),
}
y = {name: np.array(split["label"]) for name, split in rows.items()}
majority = np.bincount(y["train"], minlength=len(corpus.labels)).argmax()

tokenizer = models.load_tokenizer("encoder")
pad_id = tokenizer.pad_token_id
examples = {name: training.encode(split, tokenizer, settings.max_length) for name, split in rows.items()}
print(
    {name: len(split) for name, split in rows.items()}, f"{settings.steps} updates of {settings.batch_size}"
)

# %% [markdown]
# ## The methods
#
# `task_type` says that this is a classifier. Without it peft freezes the head, and leaves it out of the saved file.
#
# The soft prompt starts from the embeddings of random words (`SAMPLE_VOCAB`). peft's default draws normal numbers whose
# scale is far above that of BERT's embeddings; then the comparison would be one of scales. In BERT the classifier reads the
# first position. With a soft prompt that is the first *virtual* token, not `[CLS]`.


# %%
def full():
    return models.load_classifier(len(corpus.labels), seed=seed)


def lora():
    config = peft.LoraConfig(
        task_type="SEQ_CLS", r=settings.rank, lora_alpha=settings.rank, target_modules=["query", "value"]
    )
    return peft.get_peft_model(full(), config)


def prompt():
    config = peft.PromptTuningConfig(
        task_type="SEQ_CLS", num_virtual_tokens=settings.virtual_tokens, prompt_tuning_init="SAMPLE_VOCAB"
    )
    return peft.get_peft_model(full(), config)


METHODS = {"full": full, "lora": lora, "prompt": prompt}

# %% [markdown]
# ## Run
#
# One line per run, on the disk before the next one starts. Each run starts from fresh weights. Where the loss, or a logit
# afterwards, is not finite, the run is marked as diverged and scored as what its user would fall back to: the majority class.


# %%
def fit(method, learning_rate):
    """Logits of dev and test, mean loss of the last updates (None if it diverged), trained parameters, cost."""
    torch.manual_seed(seed)  # LoRA's and the prompt's first values
    net = METHODS[method]().to(run.device)
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    loss = None
    with run.measure() as cost:
        try:
            history = training.train(
                net, examples["train"], steps=settings.steps, learning_rate=learning_rate, pad_id=pad_id,
                batch_size=settings.batch_size, seed=seed,
            )  # fmt: skip
            loss = float(np.mean(history.losses[-5:]))
        except TrainingError as error:
            print(f"{method} at {learning_rate:g}: {error}")
    if loss is not None:
        scores = {name: training.predict(net, examples[name], pad_id).numpy() for name in ("dev", "test")}
    if loss is None or not all(np.isfinite(s).all() for s in scores.values()):
        constant = np.eye(len(corpus.labels))[majority]
        return {name: np.tile(constant, (len(y[name]), 1)) for name in ("dev", "test")}, None, trained, cost
    return scores, loss, trained, cost


# %%
for trial in spec.trials(block):
    if run.have(trial.key):
        continue
    scores, loss, trained, cost = fit(trial.method, trial.inside["learning_rate"])
    predictions = scores["test"].argmax(1)
    run.line(
        spec.identity(block) | trial.key,
        **vars(cost),
        steps=settings.steps,
        accuracy=metrics.accuracy(y["test"], predictions),
        dev_accuracy=metrics.accuracy(y["dev"], scores["dev"].argmax(1)),
        train_loss=loss,
        diverged=int(loss is None),
        trainable_parameters=trained,
        predictions=predictions.tolist(),
        targets=y["test"].tolist(),
    )
    line = run.have(trial.key)
    print(
        f"{trial.method:6s} {trial.inside['learning_rate']:7.0e} test {line['accuracy']:.3f}, "
        f"dev {line['dev_accuracy']:.3f}, trained in {line['seconds']:.1f} s"
    )

# %% [markdown]
# ## What this block found

# %%
lines = [run.have(trial.key) for trial in spec.trials(block)]
for method in spec.methods:
    best = max((line for line in lines if line["method"] == method), key=lambda line: line["dev_accuracy"])
    print(f"{method:6s} best rate by dev {best['learning_rate']:.0e}, test {best['accuracy']:.3f}")
run.record(runs=len(lines), diverged=sum(line["diverged"] for line in lines))
