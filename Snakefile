# Lessons and blocks of experiments as a graph. `make course` and `make reproduce` call this through
# instructlab_utils/repro/graph.py, which also unlocks after a kill. By hand:
#   snakemake --cores 2 --keep-going --rerun-triggers params --config profile=smoke
# Not run on a cluster yet.

import shlex

from instructlab_utils.repro import experiments, graph

PROFILE = config.get("profile", "smoke")
PYTHON = shlex.quote(graph.interpreter())
ROOT = graph.find_root()
JOBS = {job.marker.relative_to(ROOT).as_posix(): job for job in graph.all_jobs(["lessons", "experiments"], PROFILE)}


def find(pattern):
    """The job whose folder the rule's wildcards name."""
    return lambda wildcards: JOBS[pattern.format(**wildcards)]


def inputs(pattern):
    """The notebook, and the unfinished blocks that come before."""
    def paths(wildcards):
        job = find(pattern)(wildcards)
        return [str(job.notebook), *(path.relative_to(ROOT).as_posix() for path in job.needs)]

    return paths


LESSON = f"build/{PROFILE}/{{lesson}}/done"
BLOCK = f"build/runs/{{experiment}}/{PROFILE}/{{block}}/done"


wildcard_constraints:
    lesson="[^/]+",
    experiment="[^/]+",
    block="[^/]+",


rule all:
    input:
        [path for path, job in JOBS.items() if not job.done],


# The notebook is `ancient`: its code decides through `key`, so that editing prose runs nothing again. Manifest and
# executed notebook are logs: the outputs of a failed job are deleted, its logs are kept.
rule lesson:
    input:
        ancient(inputs(LESSON)),
    output:
        done=LESSON,
    log:
        notebook=LESSON.replace("done", "executed.ipynb"),
        manifest=LESSON.replace("done", "manifest.json"),
    params:
        key=lambda wildcards: find(LESSON)(wildcards).key,
        command=lambda wildcards: find(LESSON)(wildcards).command,
    threads: 1
    resources:
        mem_mb=lambda wildcards: find(LESSON)(wildcards).memory_mb,
    shell:
        "{PYTHON} -m instructlab_utils {params.command} && echo {params.key} > {output.done}"


rule block:
    input:
        ancient(inputs(BLOCK)),
    output:
        done=BLOCK,
    log:
        notebook=BLOCK.replace("done", "executed.ipynb"),
        manifest=BLOCK.replace("done", "manifest.json"),
    params:
        key=lambda wildcards: find(BLOCK)(wildcards).key,
        command=lambda wildcards: find(BLOCK)(wildcards).command,
    threads: 1
    resources:
        mem_mb=lambda wildcards: find(BLOCK)(wildcards).memory_mb,
        runtime=lambda wildcards: int(find(BLOCK)(wildcards).minutes) + 1,
    shell:
        "{PYTHON} -m instructlab_utils {params.command} && echo {params.key} > {output.done}"
