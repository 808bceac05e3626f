"""What a result was made from, and what has changed since."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instructlab_repro import experiments, provenance
from instructlab_repro.claims import claim as registered
from instructlab_repro.claims import repeat
from instructlab_repro.experiments import Block, Experiment
from instructlab_utils.errors import ConfigError
from instructlab_utils.project import find_root


def explain(result: str, profile: str = "laptop") -> str:
    """What a result was made from: an experiment, EXPERIMENT/BLOCK, a claim, or a file such as figures/x.png.

    ConfigError when it is none of these.
    """
    if result in registered.names():
        claim = registered.load(result)
        if claim.experiment is None:
            return f"{result}: a draft; no experiment serves it yet."
        return f"{result}: decided by {claim.experiment}\n" + explain(claim.experiment, profile)
    name, _, block = result.partition("/")
    if name in experiments.names():
        if block:
            return _explain_block(*experiments.find_block(name, block, profile))
        return _explain_experiment(experiments.load(name).at(profile))
    stems = {Path(result).name.split(".")[0], Path(result).stem.split("_")[-1]}  # of a file that one made
    known = sorted(stems & set(experiments.names()))
    if not known or not (find_root() / result).exists():
        listed = ", ".join([*experiments.names(), *registered.names()])
        what = "not a result; name an experiment, EXPERIMENT/BLOCK, a claim or a file of"
        raise ConfigError(f"{result}: {what}: {listed}")
    return _explain_experiment(experiments.load(known[0]).at(profile))


def _explain_experiment(experiment: Experiment) -> str:
    name, profile, blocks = experiment.name, experiment.profile, experiment.blocks()
    covered = [b for b in blocks if experiment.lines(b) is not None]
    text = [
        f"{name}: {experiment.title} (profile {profile}, revision {experiment.revision})",
        f"  {len(covered)} of {len(blocks)} blocks have results of today's code and settings",
    ]
    lines = [line for found in experiments.rows_by_block(name, profile).values() for line in found]
    here, machine = provenance.environment(), "{hardware} ({cpu})"
    for label, told, now in (
        ("code", lambda x: x["code"], experiments.notebook_code_sha(experiment.notebook)[:16]),
        ("package", lambda x: x["environment"]["package"], here["package"]),
        ("commit", lambda x: str(x["environment"]["commit"])[:12], None),
        ("hardware", lambda x: machine.format(**x["environment"]), machine.format(**here)),
        ("torch", lambda x: x["environment"]["torch"], here["packages"].get("torch")),
    ):
        values = sorted({told(line) for line in lines})
        since = f" (now {now})" if now is not None and values and values != [now] else ""
        text.append(f"  {label}: {', '.join(values) or 'nothing recorded'}{since}")
    for claim, sha in provenance.claims_sha(experiment.claims).items():
        same = {line["claims"].get(claim) for line in lines} == {sha}
        word = "as it stood at the runs" if same else "text changed since the runs"
        text.append(f"  claim {claim}: {word}")
    entry = repeat.verified().get(f"{name}.{profile}")
    state = "{date}, block {block}: {status}" if entry else "never; `reproduce --verify` does it"
    return "\n".join([*text, f"  verified: {state.format(**entry or {})}"])


def _explain_block(experiment: Experiment, block: Block) -> str:
    """One block: its settings, tuned values and provenance, with what is different today."""
    now = experiment.lines(block)
    rows = now or experiments.rows_by_block(experiment.name, experiment.profile).get(block.id)
    if not rows:
        return f"{experiment.name}/{block.id}: no results yet."
    line, today = rows[0], experiment.identity(block)
    then = line["environment"]
    covers = "yes" if now else "no, it runs again at the next `make reproduce`"
    text = [f"{block.where()}, {len(rows)} runs", f"covers today's experiment: {covers}"]
    for name in ("revision", "code", "settings", "assets", "claims"):
        if line[name] != today[name]:
            text.append(f"changed since: {name}: {_short(line[name])} → {_short(today[name])}")
    for name, value in then.items():
        other = today["environment"].get(name)
        if name not in ("commit", "dirty", "threads") and other != value:  # the runner sets the threads
            text.append(f"other than here: {name}: {value} → {other}")
    knobs = {row["method"]: row["tuned"].items() for row in rows if row["tuned"]}
    tuned = {method: ", ".join(f"{k} = {v:g}" for k, v in items) for method, items in knobs.items()}
    shown = {"settings": line["settings"], "tuned": tuned, "assets": line["assets"]}
    text += [f"{name}: {_short(value)}" for name, value in shown.items()]
    seconds, dirty = experiment.expected_seconds(block) or 0, " with local changes" * bool(then["dirty"])
    text += [f"commit: {then['commit']}{dirty}", f"took: {seconds:.0f} s, {then['threads']} thread(s)"]
    return f"{experiment.name}/{block.id}: " + "\n  ".join(text)


def _short(value: Any) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    cut = {k: v[:16] if isinstance(v, str) and len(v) > 40 else v for k, v in value.items()}
    return ", ".join(f"{k} {v}" for k, v in cut.items())
