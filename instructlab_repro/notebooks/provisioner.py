"""How Jupyter gets a warm kernel: a kernel provisioner, for our runner, for nbval, and for whoever names it.

An installed package is found by its entry point; :func:`register` makes it known without an installation. The
variable JUPYTER_DEFAULT_PROVISIONER_NAME=instructlab-warm chooses it for every kernel of a process.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

from instructlab_repro.notebooks import kernels

NAME = "instructlab-warm"


class WarmProvisioner(LocalProvisioner):
    """A kernel that the server of :mod:`kernels` forks; an ordinary one where that cannot be."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        env = kwargs.get("env") or os.environ
        if "ipykernel_launcher" not in cmd or cmd[0] != sys.executable or kernels.unfit(env):
            return await super().launch_kernel(cmd, **kwargs)
        arguments = cmd[cmd.index("ipykernel_launcher") + 1 :]
        # any number but 0 means that somebody follows the parent: here it is the lifeline
        arguments.append("--IPKernelApp.parent_handle=1")
        cwd = kwargs.get("cwd") or Path.cwd()
        process = kernels.fork("ipykernel.kernelapp:launch_new_instance", arguments, env, cwd)
        if process is None:
            return await super().launch_kernel(cmd, **kwargs)
        self.process: Any = process
        self.pid = self.pgid = process.pid  # the leader of a session of its own
        self.cwd = cwd
        return self.connection_info


def register() -> str:
    """Make the provisioner known to Jupyter in this process; returns its name."""
    value = f"{__name__}:{WarmProvisioner.__name__}"
    KernelProvisionerFactory.provisioners[NAME] = EntryPoint(NAME, value, KernelProvisionerFactory.GROUP_NAME)
    return NAME
