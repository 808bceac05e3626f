# `make course` and `make test` need Python 3.11, git and make, nothing else; each does all of its own set-up.
# Without make (Windows): the same commands stand behind `python -m instructlab_utils --help`.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

WORKERS ?= 2
PROFILE ?= laptop
TIMES ?= 20
VENV := .venv
PY := $(VENV)/bin/python
# Its name holds a sum of what it was made from: contents decide, not dates.
READY := $(VENV)/.ready-$(shell cat requirements.lock pyproject.toml | cksum | cut -d ' ' -f 1)
BOOK := .venv-book
BOOK_READY := $(BOOK)/.ready-$(shell cksum < book/requirements.lock | cut -d ' ' -f 1)
QUIETLY := -qq --disable-pip-version-check # errors only
RUN := OMP_NUM_THREADS=1 $(PY) -m instructlab_utils
CODE := instructlab_apps instructlab_utils instructlab_repro data/pending tests scripts benchmarks classroom book notebooks/source notebooks/experiments/source notebooks/exercises

# What a shell or a home folder says of Python, IPython and matplotlib changes no result.
unexport PYTHONOPTIMIZE PYTHONPATH PYTHONSTARTUP PYTHONHOME PYTHONWARNINGS PYTHONIOENCODING PYTHONSAFEPATH MPLBACKEND
export PYTHONUTF8 := 1
export MATPLOTLIBRC := /dev/null
export IPYTHONDIR := $(CURDIR)/build/ipython

.PHONY: help setup course test lab notebooks import reproduce bench classroom book slides drill rehearsal clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

# The first Python that is new enough and really starts (a pyenv shim may be there without a version behind it).
define make_venv
for python in python3.11 python3 python3.12 python3.13 python; do \
  if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then \
    echo "environment: $(VENV), from $$($$python --version)"; exec $$python -m venv $(VENV); \
  fi; \
done; \
echo 'error: Python 3.11, 3.12 or 3.13 was not found; install one and call make again' >&2; exit 2
endef

$(READY):
	@$(PY) -m pip --version >/dev/null 2>&1 || { $(make_venv); }
	@echo "environment: the exact versions of requirements.lock (a few minutes, once for each change of that file)"
	@$(PY) -m pip install $(QUIETLY) -r requirements.lock
	@$(PY) -m pip install $(QUIETLY) --no-deps -e .
	@rm -f $(VENV)/.ready*
	@touch $(READY)

setup: $(READY)  ## the environment only

course: $(READY)  ## fetch what is needed, run all lessons and a block of each experiment (smoke)
	@$(RUN) course --workers $(WORKERS)

test: $(READY)  ## linters, types, all tests, and every lesson cell by cell
	$(PY) -m ruff check .
	$(PY) -m ruff format --check $(wildcard $(CODE))
	$(VENV)/bin/codespell
	$(PY) -m mypy
	$(RUN) fetch --needed
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -n $(WORKERS) tests
	OMP_NUM_THREADS=1 INSTRUCTLAB_PROFILE=smoke $(PY) -m pytest -q -n $(WORKERS) \
	  --nbval-lax --nbval-current-env --nbval-cell-timeout=300 notebooks/*.ipynb

lab: $(READY)  ## JupyterLab on the notebooks
	@$(PY) -m jupyter lab notebooks

notebooks: $(READY)  ## text sources -> notebooks; outputs stay
	@$(RUN) notebooks

import: $(READY)  ## NB=notebooks/03_….ipynb -> its text source, after editing in Jupyter
	@$(if $(NB),,$(error say which notebook: make import NB=notebooks/NN_name.ipynb))
	@$(RUN) import $(NB)

reproduce: $(READY)  ## what is missing of the experiments, tables, verdicts; FRESH=1 all again, VERIFY=1 compares, DRY=1 tells
	@$(RUN) reproduce $(EXPERIMENT) --profile $(PROFILE) --workers $(WORKERS) \
	  $(if $(FRESH),--fresh) $(if $(VERIFY),--verify) $(if $(DRY),--dry-run)

bench: $(READY)  ## the training loop measured against others
	@$(RUN) bench

classroom: $(READY)  ## student versions of the exercises, and their automatic grading
	@$(RUN) classroom

# The environment of site and slides is small and apart: no torch, and requirements.lock does not know it.
$(BOOK_READY): VENV := $(BOOK)
$(BOOK_READY):
	@$(BOOK)/bin/python -m pip --version >/dev/null 2>&1 || { $(make_venv); }
	@echo "environment: the exact versions of book/requirements.lock, in $(BOOK)"
	@$(BOOK)/bin/python -m pip install $(QUIETLY) -r book/requirements.lock
	@rm -f $(BOOK)/.ready*
	@touch $(BOOK_READY)

book: $(BOOK_READY)  ## the rendered site, English and Chinese (LANGUAGE=en: English alone), from the stored outputs: build/book/html
	@$(if $(filter en,$(LANGUAGE)),BOOK_LANGUAGE=en) $(BOOK)/bin/python -m book

slides: $(BOOK_READY)  ## the lessons as slides: build/book/slides; LESSON="03 09" these; PLAIN=1 without the teacher's notes
	@$(BOOK)/bin/python -m book.slides $(LESSON) $(if $(PLAIN),--plain)

drill: $(READY)  ## kill -9, full disk, damage at random moments, TIMES=20 times; the next call must finish with equal results
	@$(RUN) drill --times $(TIMES)

rehearsal: $(READY)  ## the gpu profile's code path on a pretend CUDA device: each lesson, a block of each experiment
	@$(RUN) fetch --needed
	OMP_NUM_THREADS=1 $(PY) tests/drill_gpu.py --workers $(WORKERS)

clean:  ## remove what runs have written; the environment and the fetched assets stay
	@rm -rf build .snakemake .pytest_cache .ruff_cache .mypy_cache .hypothesis
