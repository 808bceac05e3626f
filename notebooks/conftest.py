"""Cell by cell under nbval: the kernels are warm ones, see instructlab_repro/notebooks/kernels.py."""

import os

from instructlab_repro.notebooks import kernels, provisioner

os.environ.setdefault("JUPYTER_DEFAULT_PROVISIONER_NAME", provisioner.register())


def pytest_sessionstart() -> None:
    kernels.start(os.environ)


def pytest_sessionfinish() -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:  # the workers share one
        kernels.stop(os.environ)
