# Every target sets up .venv by itself; PYTHON and ARGS can be given: make train ARGS="model=gru"
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# Goes into the folder of the cache, or ends there: LM_CACHE_DIR may hold a blank, and begin with ~.
IN_CACHE = cache="$${LM_CACHE_DIR:-outputs/cache}"; \
  case "$$cache" in "~"|"~/"*) cache="$$HOME$${cache\#?}";; esac; \
  CDPATH= cd -- "$$cache" 2>/dev/null || exit 0
# What a name of ours ends with there; other names are somebody else's.
HEX4 := [0-9a-f][0-9a-f][0-9a-f][0-9a-f]
HEX16 := $(HEX4)$(HEX4)$(HEX4)$(HEX4)
EXTRAS := dev,sweep,launchers,interop,data,tour,dashboard,eval

.DEFAULT_GOAL := help
.PHONY: help setup train tour test test-faults fuzz mutants lint sweep sample evaluate report experiment review sync cache clean clean-cache

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/ready-run  ## make .venv with what training needs

$(VENV)/ready-run: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/ready-test: $(VENV)/ready-run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

$(VENV)/ready-tour: $(VENV)/ready-run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[tour]'
	@touch $@

$(VENV)/ready-mutants: $(VENV)/ready-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[mutants]'
	@touch $@

train: setup  ## train the default model: corpus, tokenizer, transformer
	$(BIN)/python -m lm.train $(ARGS)

tour: $(VENV)/ready-tour  ## six lessons, from bytes to a sweep; N=1 opens the first in the browser
	$(BIN)/python experiments/tour $(N)

# Tests start hundreds of processes; where a shell forbids it to keep compiled modules, each of them
# would compile lm anew.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --dist worksteal

test: $(VENV)/ready-test  ## every test but those of test-faults
	$(PYTEST) $(ARGS)

test-faults: $(VENV)/ready-test  ## the slow ones: kills, signals, full disks, hostile files
	$(PYTEST) -m faults $(ARGS)

fuzz: $(VENV)/ready-test  ## ten million random inputs to all that lm reads: hours; or LM_FUZZ_SECONDS=600
	$(BIN)/python -m tests.fuzz $(ARGS)

mutants: $(VENV)/ready-mutants  ## change the science in small ways: does a test notice each? hours
	$(BIN)/python -m tests.mutants $(ARGS)

lint: $(VENV)/ready-test  ## style, types, and the order of imports
	$(BIN)/ruff check lm tests experiments
	$(BIN)/ruff check --preview --select PLW1514 lm hydra_plugins experiments  # or no UTF-8 on Windows
	$(BIN)/ruff format --check lm tests experiments
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-logo

sweep: setup  ## a small sweep: two models, two learning rates
	$(BIN)/python -m lm.train -m model=bigram,transformer optimizer.lr=0.01,0.03 train.steps=200 $(ARGS)

sample: setup  ## continue a prompt with the newest run
	$(BIN)/python -m lm.sample run=latest $(ARGS)

evaluate: setup  ## loss, perplexity and bits per byte of the newest run
	$(BIN)/python -m lm.evaluate run=latest $(ARGS)

report: setup  ## every run under outputs/ on one HTML page
	$(BIN)/python -m lm.report $(ARGS)

experiment: setup  ## run an experiment, or what is missing of it, and write its results: N=001
	name=$$(basename $$(ls -d experiments/$(N)_*)) && \
	$(BIN)/python -m lm.train -m experiment=$$name hydra.sweep.dir=outputs/sweeps/experiments/$$name $(ARGS) && \
	$(BIN)/python -m lm.report experiment=$$name

review: setup  ## the W&B runs of this folder, drawn in the terminal
	$(BIN)/wandb leet outputs/wandb

sync: setup  ## upload what W&B does not have yet; a damaged run stops none
	$(BIN)/python -m lm.sync

clean: clean-cache  ## delete the virtual environment and the caches; runs stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

cache:  ## what the cache holds, and its size
	@$(IN_CACHE); du -ch -- * 2>/dev/null

clean-cache:  ## delete the built corpora, tokenizers, tokens and compiled code, and what was downloaded
	@$(IN_CACHE); \
	for kind in corpora tokenizers tokens floors overlap shards pace wandb; do \
	  rm -rf ./$$kind-$(HEX16) ./.$$kind-$(HEX16)*; \
	done; \
	rm -f downloads/names.txt downloads/shakespeare.txt downloads/.*.tmp hub/$(HEX16).json hub/.*.tmp; \
	rmdir downloads hub 2>/dev/null; \
	[ ! -e compiled/CACHEDIR.TAG ] || rm -rf compiled
