"""``python -m instructlab_utils``: the same commands as the Makefile's, for every system."""

from instructlab_repro.engine.cli import main

if __name__ == "__main__":
    main()
