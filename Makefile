# `make demo` and `make test` need nothing but Python 3.11: each first builds the environment in .venv.
# Where the CPU build of torch is wanted and PyPI's would bring CUDA: set PIP_EXTRA_INDEX_URL (see CONTRIBUTING.md).

PYTHON ?= $(shell python3.11 -c "import sys; print(sys.executable)" 2>/dev/null || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest -q
SERIAL := distributed or faults

# Threads of several processes on shared cores spin against each other; one each is 2-5 times faster.
export OMP_NUM_THREADS ?= 1

.PHONY: help demo test quick lint docs gpu-check format clean
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 10

demo: $(VENV)/.core ## set up and train the embedded default
	$(BIN)/accelerate launch --quiet --config_file launch_configs/accelerate/cpu_1.yaml -m savae_dist.train

test: $(VENV)/.dev ## set up and run every test
	$(PYTEST) -n 2 --dist worksteal -m "not ($(SERIAL))"
	$(PYTEST) -m "$(SERIAL)" --durations 10

quick: $(VENV)/.dev ## unit tests only
	$(PYTEST) -n 2 --dist worksteal -m "not ($(SERIAL) or slow)"

lint: $(VENV)/.dev ## ruff and mypy, changing nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.dev ## the documentation as a site in site/; a broken link ends it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# Eight minutes in all: the tests are stopped after 200 seconds, and the measurements follow even if a test has failed.
gpu-check: $(VENV)/.dev ## tests and measurements on one GPU, eight minutes at most, in build/gpu
	mkdir -p build/gpu
	timeout --signal INT --kill-after 10 200 $(PYTEST) -m gpu -rs --durations 10 --junitxml build/gpu/tests.xml tests/gpu; \
	tests=$$?; $(BIN)/python tools/benchmark.py gpu build/gpu --limit 240 && exit $$tests

format: $(VENV)/.dev ## let ruff put imports and layout right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the environment and what tools left behind
	rm -rf $(VENV) build dist site .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find savae_dist tools tests -name __pycache__ -type d -prune -exec rm -rf {} +

# torch comes first and alone: an open requirement in the same call may draw gigabytes of CUDA packages.
$(VENV)/.torch: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=..." if sys.version_info < (3, 11) else 0)'
	@echo "installing into $(VENV): a few minutes"
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	@touch $@

$(VENV)/.core: $(VENV)/.torch pyproject.toml hatch_build.py
	$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	$(PIP) install -c constraints.txt -e ".[dev,docs,deepspeed,remote,signals,onnx]"
	@touch $@
