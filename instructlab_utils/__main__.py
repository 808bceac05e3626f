"""``python -m instructlab_utils``: the same commands as the Makefile's, for every system."""

import sys

if __name__ == "__main__":
    if sys.argv[1:2] in (["block"], ["lesson-job"]):  # what Snakemake calls: a warm process is there for it
        from instructlab_repro.notebooks import kernels

        if (code := kernels.delegate("instructlab_repro.engine.cli:main", sys.argv[1:])) is not None:
            sys.exit(code)
    from instructlab_repro.engine.cli import main

    main()
