"""The room's door: notebooks found, built from their sources, checked, and run; warm kernels."""

from instructlab_repro.notebooks.kernels import start as start_warm
from instructlab_repro.notebooks.kernels import stop as stop_warm
from instructlab_repro.notebooks.manifest import Manifest, read_manifest
from instructlab_repro.notebooks.parameters import Parameter, check_parameters, inspect_notebook
from instructlab_repro.notebooks.runner import describe, run_notebook
from instructlab_repro.notebooks.sources import (
    STORED_TYPES,
    Notebook,
    build,
    check,
    code_sha,
    everything,
    experiment_notebooks,
    find,
    from_source,
    import_back,
    lessons,
    read_header,
    store_outputs,
)

__all__ = [
    "STORED_TYPES", "Manifest", "Notebook", "Parameter", "build", "check", "check_parameters", "code_sha",
    "describe", "everything", "experiment_notebooks", "find", "from_source", "import_back", "inspect_notebook",
    "lessons", "read_header", "read_manifest", "run_notebook", "start_warm", "stop_warm", "store_outputs",
]  # fmt: skip
