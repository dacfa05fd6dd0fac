# make train       trains the two-tower network on the embedded dataset (sets up this machine first)
# make test        runs the tests (sets up this machine first)
# make test-quick  runs those that are not marked slow, in under two minutes
# make test-core   runs those of the network, its sharding and its update: under two minutes; for another Python and its JAX,
#                  make test-core PYTHON=python3.13 VENV=.venv-other
# make test-all    runs the tests, what repeats them with more examples, and make test-extras: what only some users install
# make faults      injects every fault of docs/reliability.md into real runs and rewrites its table, 15 minutes
# make gpu         runs all that one GPU can tell and writes docs/gpu.md's tables; without one it says so. A rehearsal:
#                  JAX_PLATFORMS=cpu make gpu REHEARSE=1
# make lint        runs the linters of Python, shell and the Dockerfile, and the type checker
# make clean       removes the environment and what pip built; datasets (data/) and runs (runs/) stay

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.txt
# Two processes, each with whole files, in their order: those with the fewest tests are the longest.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

EXAMPLES := not repeats
CORE := tests/model tests/sharding tests/training tests/communication tests/data/test_philox.py

.PHONY: train test test-quick test-core test-repeats test-extras test-all faults gpu lint clean

train: $(VENV)/installed-train
	$(BIN)/python -m alexnet_jax.main --config=configs/two_device.py --workdir=runs/two_device_demo

test: $(VENV)/installed-dev
	$(PYTEST) -m 'not repeats'

test-repeats: $(VENV)/installed-dev
	$(PYTEST) -m repeats

test-quick: $(VENV)/installed-dev
	$(PYTEST) -m 'not slow and not repeats'

test-core: $(VENV)/installed-dev
	$(PYTEST) -m 'not slow and not repeats' $(CORE)

# PyTorch's peers are skipped where it could not be installed; nothing else is.
test-extras: $(VENV)/installed-extras
	EXTRAS=required $(PYTEST) -m '$(EXAMPLES)' tests/peers tests/extras tests/training/test_update_rules.py

# In this order: some tests of the first half need a machine without the extras.
test-all: test test-repeats
	$(MAKE) test-extras EXAMPLES='repeats or not repeats'

faults: $(VENV)/installed-dev
	FAULTS=all FAULTS_TABLE=docs/reliability.md $(BIN)/python -m pytest -n 2 --dist loadgroup tests/faults

# The environment has CUDA where there is a GPU: $(BIN)/pip install -c requirements.txt -e '.[cuda12]'; PyTorch, to be
# compared with, comes with '.[torch]'.
gpu: $(VENV)/installed-train
	REHEARSE=$(REHEARSE) exec $(BIN)/python -m experiments.gpu

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(BIN):$$PATH" shellcheck .ci/run launch/*.sh launch/*.sbatch
	$(BIN)/hadolint Dockerfile

# The environment is made anew whenever what is to be in it has changed; the other two tiers are added to it.
$(VENV)/installed-train: pyproject.toml requirements.txt
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) or sys.exit("error: Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv --clear $(VENV)
	@echo "installing what training needs into $(VENV), about a minute"
	$(PIP_INSTALL) --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed-train
	$(PIP_INSTALL) --editable '.[dev]'
	touch $@

# trackio says that it wants an older Pillow, and runs with this one. PyTorch from PyPI is some GB with CUDA, and none of
# the other tests need it.
$(VENV)/installed-extras: $(VENV)/installed-dev
	$(PIP_INSTALL) --editable '.[corruptions,gpu-compiler,kubernetes,notebook,onnx,pretrained,probe,sweep,tensorflow,tpu,tracking,trackio]'
	$(PIP_INSTALL) --no-deps trackio
	$(PIP_INSTALL) --editable '.[torch]' || echo "LEFT OUT: PyTorch, which could not be installed" >&2
	touch $@

clean:
	rm -rf $(VENV) .venv-other build *.egg-info
