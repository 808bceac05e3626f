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
import copy

import peft
import torch

from instructlab_repro.block import fit, open_block, sentences
from instructlab_utils import models

block = open_block("learning_rates", profile, stage, seed=seed)
settings = block.settings
data = sentences(block, settings.task)

# %% [markdown]
# ## The methods
#
# `task_type` says that this is a classifier. Without it peft freezes the head, and leaves it out of the saved file.
#
# The soft prompt starts from the embeddings of random words (`SAMPLE_VOCAB`). peft's default draws normal numbers whose
# scale is far above that of BERT's embeddings; then the comparison would be one of scales. In BERT the classifier reads the
# first position. With a soft prompt that is the first *virtual* token, not `[CLS]`.

# %%
PEFT = {
    "lora": peft.LoraConfig(
        task_type="SEQ_CLS", r=settings.rank, lora_alpha=settings.rank, target_modules=["query", "value"]
    ),
    "prompt": peft.PromptTuningConfig(
        task_type="SEQ_CLS", num_virtual_tokens=settings.virtual_tokens, prompt_tuning_init="SAMPLE_VOCAB"
    ),
}


def build(method):
    torch.manual_seed(seed)  # LoRA's and the prompt's first values
    net = models.load_classifier(len(data.task.labels), seed=seed)
    return peft.get_peft_model(net, copy.deepcopy(PEFT[method])) if method in PEFT else net


# %% [markdown]
# ## Run
#
# Each run starts from fresh weights. Where the loss, or a logit afterwards, is not finite, the run is scored as what its
# user would fall back to: the majority class.

# %%
for trial in block.trials():
    net = build(trial.method).to(block.run.device)
    net, line, cost = fit(block, net, data.examples["train"], data.pad_id, **trial.inside)
    block.line(trial, cost, **line, **data.fields(data.logits(net)))

# %% [markdown]
# ## What this block found

# %%
block.close("dev_accuracy", "accuracy", "train_loss")
