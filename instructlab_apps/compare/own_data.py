# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Which method for these texts?
#
# A file of labelled texts, every method worth trying, and one budget of minutes. `compare` turns this text into a notebook,
# sets the parameters and runs it; the executed copy lies beside the report.

# %%
from pathlib import Path

from instructlab_apps.compare import audit, intake, launch, report_page, trunk
from instructlab_apps.compare.contest import Contest, paced_once
from instructlab_utils import models

# %% tags=["parameters"]
data: str = ""  # the file
text: str = ""  # its column of texts
label: str = ""  # its column of labels
model: str = ""  # a folder with an encoder; empty: the course's own
minutes: float = 5.0  # for everything, the report included
folder: str = ""  # where results and report go
started: float = 0.0  # time.time() when the command began, less what killed runs have used
command: str = ""  # how to run it again

# %%
place = Path(folder)
only = launch.alone(place)  # a kernel whose command was killed may still be at work here
clock = launch.clock_of(started, minutes)
rows = intake.take_in(Path(data), text, label, launch.rows_within(minutes))
print(
    f"{rows.rows:,} rows, {len(rows.text):,} usable, {len(rows.names)} labels; set aside: {dict(rows.aside) or 'none'}"
)
print(*rows.notes, sep="\n")

# %% [markdown]
# ## What is wrong with the data?
#
# Copies, near-copies, texts with two labels, words that give a label away. This comes first, since no score can be better
# than the texts that it counts.

# %%
encoder = trunk.load(model or models.source_of("encoder"))
rows = paced_once(place, rows, encoder[1], clock, started)
found = audit.audit(rows, encoder[1], least=6, english=not model)
print(*rows.notes, sep="\n")
print(f"{len(found.keep):,} texts kept, {found.copies} copies, {len(found.near)} pairs of near-copies")
print(f"{len(found.contradictions)} contradictions, {len(found.leaks)} words that give a label away")
print(*found.warnings, sep="\n")

# %% [markdown]
# ## Without an encoder
#
# The majority class, and TF-IDF of words and of characters: trials on dev texts, then five seeds.

# %%
contest = Contest(rows, found, place, model or models.source_of("encoder"), clock, started)
contest.hold(encoder)
contest.baselines()

# %% [markdown]
# ## What fits into the rest of the minutes?
#
# The encoder's speed is measured on these texts, on this machine, as it is now: first how many texts it can
# read, then, once it has read them, what can be tuned.

# %%
plan = contest.make_plan()
print(
    f"{plan.working:,} texts of at most {plan.cut} tokens; {plan.methods or 'nothing'} tuned with {plan.steps} updates,"
)
print(f"{plan.trials} trials, {plan.seeds} seeds")
print(*plan.said, sep="\n")

# %% [markdown]
# ## With the encoder

# %%
contest.frozen()
plan = contest.settle()
print(
    f"{' and '.join(plan.methods) or 'nothing'} tuned: {plan.steps} updates, {plan.trials} trials, {plan.seeds} seeds"
)
print(*plan.said, sep="\n")
contest.tuned()
contest.complete()

# %% [markdown]
# ## The report

# %%
told = {
    "file": Path(data).name,
    "text": text,
    "label": label,
    "model": model,
    "minutes": minutes,
    "command": command,
}
summary = report_page.report(contest, rows, found, told)
contest.add("done", headline=summary["headline"])
print(summary["headline"])
print({key: round(100 * value, 1) for key, value in summary["accuracy"].items()})
