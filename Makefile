# SPDX-License-Identifier: BSD-2-Clause
# Needs Python 3.11 or newer with venv, and make. The first target called sets the rest up in .venv, once.

PYTHON ?= python3
PYTEST_ARGS ?=
BENCH_ARGS ?=
QUICK := not slow and not gcc and not root and not dpdk and not tshark and not iasl and not kvm and not nest

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.PHONY: demo test test-compiled test-interpreted bench lint clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	@$(BIN)/ptnetmap demo

# What moves packets is tested compiled; beside that, on another core, what only calls it, interpreted.
INTERPRETED := tests/tools tests/vmm tests/bhyve tests/abi tests/pcap tests/netmap/wire tests/netmap/vhost

test: $(VENV)/.installed
	@echo "Running the tests, in two processes (the first time compiles the kernels, a minute or two) ..."
	@$(MAKE) --no-print-directory -j2 test-compiled test-interpreted

test-compiled:
	@$(BIN)/python -m pytest -m "$(QUICK)" $(PYTEST_ARGS) $(INTERPRETED:%=--ignore=%)

# Two reports at once are none: this one is shown when it is complete.
test-interpreted:
	@log=$$(mktemp); failed=0; \
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest -m "$(QUICK)" $(PYTEST_ARGS) $(INTERPRETED) >"$$log" 2>&1 || failed=$$?; \
	echo; cat "$$log"; rm -f "$$log"; exit $$failed

bench: $(VENV)/.installed
	@$(BIN)/ptnetmap bench $(BENCH_ARGS)

lint: $(VENV)/.lint
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

clean:
	@echo "Removing $(VENV), caches and build results ..."
	@rm -rf $(VENV) .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Dependency groups need pip 25.1; what venv brings along may be older.
$(VENV)/.installed: pyproject.toml
	@echo "Setting up $(VENV) with the project and its tests (once, a minute or so) ..."
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --upgrade "pip>=25.1"
	@$(PIP) install --editable . --group test
	@touch $@

$(VENV)/.lint: $(VENV)/.installed
	@echo "Adding ruff and mypy to $(VENV) (once) ..."
	@$(PIP) install --group lint
	@touch $@
