"""``python -m instructlab_utils``: the same commands as the Makefile's, for every system."""

import os
import sys

if __name__ == "__main__":
    if not __debug__:
        from instructlab_utils.errors import OPTIMISED

        print(f"error: {OPTIMISED}", file=sys.stderr)
        sys.exit(2)
    if (
        os.name == "posix" and sys.getfilesystemencoding() != "utf-8"
    ):  # paths and files are UTF-8 all the same
        os.execv(sys.executable, [sys.executable, "-X", "utf8", "-m", "instructlab_utils", *sys.argv[1:]])
    if sys.argv[1:2] in (["block"], ["lesson-job"]):  # what Snakemake calls: a warm process is there for it
        from instructlab_repro.notebooks import kernels

        if (code := kernels.delegate("instructlab_repro.engine.cli:main", sys.argv[1:])) is not None:
            sys.exit(code)
    from instructlab_apps.commands import main

    main()
