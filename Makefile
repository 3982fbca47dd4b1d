# Two commands do everything on a machine that has Python 3.11, make and git:
#   make quickstart    set up, then train a small model from scratch and set its book (minutes, no network after set-up)
#   make test          set up, then run the tests
# and `make book` typesets the book of the run, docs/hornbook.pdf.
# PYTHON chooses the interpreter that makes the environment: make test PYTHON=python3.12

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: quickstart book test test-all lint clean

quickstart: $(VENV)/.installed
	$(BIN)/hornbook run recipes/quickstart.toml
	@echo "The book of this run, how all of it works and what came of it:"
	@$(BIN)/hornbook book runs/quickstart -o runs/quickstart/book.pdf

# The book of the quickstart's run, or of the recorded one where it has not run.
book: $(VENV)/.installed
	$(BIN)/hornbook book $(wildcard runs/quickstart) -o docs/hornbook.pdf

# One process for each core, with one thread each: most tests are too small for two.
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not slow" -n auto --dist loadfile

# One after the other: some start several processes, or measure time and memory.
test-all: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

# Installed again only when the list of dependencies changed.
$(VENV)/.installed: pyproject.toml
	@echo "Setting up Python in $(VENV): once, a minute or a few."
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml
	@echo "Setting up Python in $(VENV), with the tools for development: once, a minute or a few."
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e ".[dev]"
	touch $(VENV)/.installed $@
