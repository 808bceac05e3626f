"""How the process of an answer is shut in: by bubblewrap (Linux), or in a container of the image of deploy/grader.

In both it has no network, sees Python and the course's packages and nothing else of the machine, may write only into a small
folder in memory, and may start few processes. The class with its hidden cases, other students' work and the gradebook are
not there.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

KINDS = ("", "bwrap", "docker")
PROCESSES, SCRATCH = 64, 2**26  # threads count, too; bytes of the folder that may be written
IMAGE = os.environ.get("GRADER_IMAGE", "instructlab-grader")
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives")


def command(
    kind: str, script: str, course: str, folder: Path, env: dict[str, str], seconds: float, memory: int
) -> list[str]:
    """The words that run ``script`` in the sandbox. ``folder`` holds ``work``, its own, and the file ``verdict``."""
    flags = ["-I", "-X", "utf8", "-W", "ignore"]
    verdict, work = str(folder / "verdict"), str(folder / "work")
    if kind == "docker":
        words = ["docker", "run", "--rm", "--interactive", "--init", "--network=none", "--read-only"]
        words += ["--cap-drop=ALL", "--security-opt=no-new-privileges", "--user=65534:65534"]
        words += [
            f"--pids-limit={PROCESSES}",
            f"--memory={2 * memory}",
            f"--memory-swap={2 * memory}",
            "--cpus=1",
        ]
        words += [
            f"--tmpfs=/tmp:size={SCRATCH},mode=1777",
            "--workdir=/tmp",
            "--env=HOME=/tmp",
            "--env=MPLBACKEND=Agg",
        ]
        words += ["--env=OMP_NUM_THREADS=1", f"--volume={verdict}:{verdict}", IMAGE]
        # If the client is killed, the container ends by itself. The client's output goes to a file of limited length.
        inside = ["timeout", "--signal=KILL", f"{seconds + 5:g}", "python", *flags, "/grader/isolated.py"]
        return ["prlimit", f"--fsize={2**24}", *words, *inside]
    words = ["bwrap", "--die-with-parent", "--new-session", "--unshare-ipc", "--unshare-pid", "--unshare-net"]
    words += ["--unshare-uts", "--unshare-cgroup-try", "--cap-drop", "ALL", "--clearenv"]
    if (
        os.geteuid() == 0
    ):  # the process leaves root before the answer runs: the limit of processes does not bind root
        words += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        words += ["--unshare-user"]
    for name, value in env.items():
        words += ["--setenv", name, value]
    words += [
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--size",
        str(SCRATCH),
        "--perms",
        "1777",
        "--tmpfs",
        "/tmp",
    ]
    packages = [str(Path(course, name)) for name in ("instructlab_utils", "instructlab_apps")]
    seen = dict.fromkeys(
        [*SYSTEM, sys.base_prefix, sys.prefix, os.path.realpath(sys.prefix), *packages, script]
    )
    above = {str(parent) for path in [*seen, work] for parent in Path(path).parents} - {"/", "/tmp"}
    for path in sorted(above - set(SYSTEM)):  # else nobody may pass through them
        words += ["--perms", "0755", "--dir", path]
    for path in seen:
        words += ["--ro-bind-try", path, path]
    words += ["--bind", verdict, verdict]
    words += ["--size", str(SCRATCH), "--perms", "1777", "--tmpfs", work, "--chdir", work]
    return [*words, "--remount-ro", "/", sys.executable, *flags, script]
