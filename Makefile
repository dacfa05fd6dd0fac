# make train   trains the two-tower network on the embedded dataset (sets up this machine first)
# make test    runs the tests (sets up this machine first)
# make faults  injects every fault of docs/reliability.md into real runs and rewrites its table, 15 minutes
# make lint    runs the linters of Python, shell and the Dockerfile, and the type checker
# make clean   removes the environment; datasets (data/) and runs (runs/) stay

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: train test faults lint clean

train: $(VENV)/installed
	$(BIN)/python -m alexnet_jax.main --config=configs/two_device.py --workdir=runs/two_device_demo

# Two processes, each with whole files, in their order: those with the fewest tests are the longest.
test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

faults: $(VENV)/installed
	FAULTS=all FAULTS_TABLE=docs/reliability.md $(BIN)/python -m pytest -n 2 --dist loadgroup tests/faults

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/shellcheck .ci/run launch/*.sh launch/*.sbatch
	$(BIN)/hadolint Dockerfile

# The environment is made anew whenever requirements.txt is newer than it.
$(VENV)/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("error: Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv --clear $(VENV)
	@echo "installing what requirements.txt pins into $(VENV), about a minute"
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

clean:
	rm -rf $(VENV)
