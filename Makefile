# `make demo` and `make test` work on a fresh clone with only Python (3.11 or later) and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow test-pages fuzz soak parity lint bench docs notebooks web clean

demo: $(VENV)/.app
	$(BIN)/converse-jax demo --overwrite

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 -m "not parity and not slow"

# The other cases of each kind, and what starts processes or compiles many programs.
test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 -m slow

# Damaged files and odd commands for an hour; failures are kept in build/fuzz.
fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.reliability.fuzz --seconds 3600 --keep build/fuzz

# Memory over long work: a thousand images, ten thousand steps.
soak: $(VENV)/.dev
	for work in restorer command training; do $(BIN)/python -m tests.reliability.soak $$work || exit 1; done

# Against the authors' numbers and weights; all skipped where their folder is absent.
parity: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 -m parity

# Both pages in Chromium, which has to be installed; needs npm as well.
test-pages: $(VENV)/.pages web/node_modules/.package-lock.json
	$(BIN)/python -m pytest -m slow tests/web tests/test_serve.py tests/weights/test_hub.py

# The page that restores in the browser, on http://127.0.0.1:8000.
web: $(VENV)/.web web/node_modules/.package-lock.json
	$(BIN)/python -m web.build
	$(BIN)/python -m web.serve

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks

# The documentation, in build/docs; EXECUTE=1 runs the notebooks for it.
docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going -b html docs build/docs

# `notebooks/NAME.ipynb` from `notebooks/NAME.py`.
notebooks: $(VENV)/.notebooks
	$(BIN)/python -m notebooks

clean:
	rm -rf $(VENV) build *.egg-info web/dist web/node_modules

web/node_modules/.package-lock.json: web/package-lock.json
	cd web && npm ci --ignore-scripts --no-audit --no-fund
	touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# One marker for each set of extras: install again when a requirement changes.
$(VENV)/.%: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[$*]"
	touch $@
