# Needs make and Python 3.11 or newer; all else is installed into .venv the first time,
# and again only when pyproject.toml has changed.
#
#   make reproduce    execute the notebooks, build the book
#                     ARGS="--force" and the like go to `fgbook reproduce`
#   make check-book   look at every page of the book in a browser (CHROMIUM=/path/to/it);
#                     ARGS="book/feng" looks at one
#   make test         run the tests; ARGS="-k regions" and the like go to pytest
#   make lint         look for mistakes without running anything: ruff, mypy, layout,
#                     and the workflows of GitHub
#   make format       let ruff lay out the code and repair what it safely can
#   make lab          open the notebooks in JupyterLab
#   make clean        remove _build (runs, data and .venv stay)
#
#   PYTHON=python3.12   the Python to make .venv with, where python3 is too old
#   TORCH_INDEX=URL     install torch and torchvision from this package index; only
#                       looked at while .venv is made. PyTorch's own index of CPU builds
#                       (see its "Get started" page) makes a much smaller download
#   WORKERS=4           test processes (default: one a core, at most 8)

PYTHON ?= python3
TORCH_INDEX ?=
WORKERS ?= auto
ARGS ?=
CHROMIUM ?=

venv := .venv
python := $(venv)/bin/python
ready := $(venv)/ready
lab := $(venv)/ready-lab
check := $(venv)/ready-check

.PHONY: help reproduce check-book test lint format lab clean
.DELETE_ON_ERROR:

help:
	@sed -n '2,/^$$/{s/^# \{0,1\}//;p;}' Makefile

reproduce: $(ready)
	$(python) -m fgbook reproduce $(ARGS)

check-book: $(check)
	$(python) tests/browser/check_book.py _build/html --chromium "$(CHROMIUM)" $(ARGS)

# One thread a process: the processes already fill the cores.
test: $(ready)
	OMP_NUM_THREADS=1 $(python) -m pytest -n $(WORKERS) --maxprocesses 8 $(ARGS)

# All five are asked, so that one call shows everything there is to repair.
lint: $(ready)
	@failed=0; \
	$(python) -m ruff check || failed=1; \
	$(python) -m ruff format --check || failed=1; \
	$(python) -m mypy || failed=1; \
	$(python) -m pytest tests/test_layout.py || failed=1; \
	$(python) -m check_jsonschema --builtin-schema vendor.github-workflows \
	  .github/workflows/*.yml || failed=1; \
	exit $$failed

format: $(ready)
	-$(python) -m ruff check --fix
	$(python) -m ruff format

lab: $(lab)
	JUPYTER_PREFER_ENV_PATH=1 $(python) -m jupyterlab notebooks $(ARGS)

clean:
	rm -rf _build

# The file `unfinished` stands in .venv while packages are installed: what was broken off
# half-way is made anew, not trusted. The tools of `make lint` come with the rest: they
# are small beside PyTorch, and one installation serves all targets but `lab`.
$(ready): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  found=$$($(PYTHON) --version 2>/dev/null || echo not a Python that runs); \
	  echo "fgbook needs Python 3.11 or newer, but '$(PYTHON)' is $$found." \
	    "Name one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@if [ -e $(venv)/unfinished ]; then \
	  echo "the last set-up was broken off; starting anew."; rm -rf $(venv); fi
	@mkdir -p $(venv) && touch $(venv)/unfinished && rm -f $(ready) $(lab) $(check)
	$(PYTHON) -m venv $(venv)
	$(if $(TORCH_INDEX),$(python) -m pip install --index-url $(TORCH_INDEX) \
	  torch torchvision)
	$(python) -m pip install -e ".[book,lint,test]"
	@touch $(ready) && rm $(venv)/unfinished

$(lab): $(ready)
	@touch $(venv)/unfinished && rm -f $(ready)
	$(python) -m pip install -e ".[lab]"
	@touch $(ready) && touch $(lab) && rm $(venv)/unfinished

$(check): $(ready)
	@touch $(venv)/unfinished && rm -f $(ready)
	$(python) -m pip install -e ".[check]"
	@touch $(ready) && touch $(check) && rm $(venv)/unfinished
