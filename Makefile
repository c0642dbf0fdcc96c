# Two ways in: `make demo` for a first answer, `make test` for a first change; `make check` while changing more.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Two processes share out the files of tests.
PYTEST := $(BIN)/pytest -n 2 --dist loadfile

.PHONY: demo check test test-slow lint benchmarks clean

demo: $(VENV)/.installed
	$(BIN)/sweep launch search_spaces/quickstart.yaml

check: lint
	$(PYTEST) -m unit

test: check
	$(PYTEST) -m 'integration and not slow'

test-slow: $(VENV)/.installed-dev
	$(BIN)/pytest -m slow

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

benchmarks: $(VENV)/.installed-dev
	$(BIN)/python tests/benchmarks/start.py
	$(BIN)/python tests/benchmarks/plain_tune.py
	$(BIN)/python tests/benchmarks/trainer.py
	$(BIN)/python tests/benchmarks/trainer.py --kind cpu
	$(BIN)/python tests/benchmarks/trainer.py --variants --widths 1 4 16
	$(BIN)/python tests/benchmarks/demonstration.py
	$(BIN)/python tests/benchmarks/convolution.py
	$(BIN)/python tests/benchmarks/calibration.py
	$(BIN)/python tests/benchmarks/report_speed.py
	$(BIN)/python tests/benchmarks/scale.py
	$(BIN)/python tests/benchmarks/tracking.py
	$(BIN)/python tests/benchmarks/jax_peer.py # installs JAX into a temporary environment

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/.made:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; make PYTHON=... names one")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.made
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.made
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $(VENV)/.installed $@
