# Lessons and blocks of experiments as a graph, on one machine or on a cluster. `make course` and `make reproduce` call
# this through instructlab_repro/engine/jobs.py, which also unlocks after a kill. By hand:
#   snakemake --profile profiles/local --config profile=smoke        (or profiles/slurm; see SCALING.md)

import os

from instructlab_repro.engine import jobs

PROFILE = config.get("profile", "smoke")
# A node reads this file too, and may start with an empty environment: whatever a job needs is set here.
os.environ["INSTRUCTLAB_ROOT"] = str(workflow.basedir)
environment = jobs.environment(PROFILE, config)
os.environ.clear()
os.environ.update(environment)
PYTHON = jobs.interpreter()
ROOT = jobs.find_root()
JOBS = {}


def add(*targets):
    for job in jobs.all_jobs(targets, PROFILE):
        JOBS[job.marker.relative_to(ROOT).as_posix()] = job


if workflow.is_main_process:  # a node, which runs one job, need not read the files of all
    add("lessons", "experiments")


def find(pattern):
    """The job whose folder the rule's wildcards name."""
    def job(wildcards):
        path = pattern.format(**wildcards)
        if path not in JOBS:
            add("lessons" if pattern == LESSON else f"{wildcards.experiment}/{wildcards.block}")
        return JOBS[path]

    return job


def needs(wildcards):
    """The unfinished blocks that come before. Never the notebook: its code decides, through `key`, and not its date."""
    return [path.relative_to(ROOT).as_posix() for path in find(BLOCK)(wildcards).needs]


LESSON = f"build/{PROFILE}/{{lesson}}/done"
BLOCK = f"build/runs/{{experiment}}/{PROFILE}/{{block}}/done"


wildcard_constraints:
    lesson="[^/]+",
    experiment="[^/]+",
    block="[^/]+",


rule all:
    input:
        [path for path, job in JOBS.items() if not job.done],


# Manifest and executed notebook are logs: the outputs of a failed job are deleted, its logs are kept.
rule lesson:
    output:
        done=LESSON,
    log:
        notebook=LESSON.replace("done", "executed.ipynb"),
        manifest=LESSON.replace("done", "manifest.json"),
    params:
        key=lambda wildcards: find(LESSON)(wildcards).key,
        command=lambda wildcards: find(LESSON)(wildcards).command,
    threads: lambda wildcards: find(LESSON)(wildcards).threads
    resources:
        mem_mb=lambda wildcards: find(LESSON)(wildcards).resources["mem_mb"],
        runtime=lambda wildcards: find(LESSON)(wildcards).resources["runtime"],
        gpu=lambda wildcards: find(LESSON)(wildcards).resources["gpu"],
    shell:
        "{PYTHON} -m instructlab_utils {params.command} && echo {params.key} > {output.done}"


rule block:
    input:
        ancient(needs),
    output:
        done=BLOCK,
    log:
        notebook=BLOCK.replace("done", "executed.ipynb"),
        manifest=BLOCK.replace("done", "manifest.json"),
    params:
        key=lambda wildcards: find(BLOCK)(wildcards).key,
        command=lambda wildcards: find(BLOCK)(wildcards).command,
    threads: lambda wildcards: find(BLOCK)(wildcards).threads
    resources:
        mem_mb=lambda wildcards: find(BLOCK)(wildcards).resources["mem_mb"],
        runtime=lambda wildcards: find(BLOCK)(wildcards).resources["runtime"],
        gpu=lambda wildcards: find(BLOCK)(wildcards).resources["gpu"],
    shell:
        "{PYTHON} -m instructlab_utils {params.command} && echo {params.key} > {output.done}"
