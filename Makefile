# make setup | demo | train | test | lint: each does its own set-up in .venv when it is missing or out of date.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready
COMMANDS := fewer_rounds.py generate.py compare.py study.py calibrate.py

.PHONY: setup demo train test cases lint style types format mutation kills fuzz
.DEFAULT_GOAL := setup

setup: $(READY)

# torch first and alone: where a CPU build of the pinned version is at hand, nothing after it asks for a larger one
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -c 'import datasets, decoding, lightning, models, peft, torchmetrics'  # compiled once
	touch $@

demo: $(READY)
	$(BIN)/python generate.py --prompt 15,44,79,50 --task countdown3 --policy learned-ete --watch

train: $(READY)
	$(BIN)/python train.py $(ARGS)

lint: style types

style: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(READY)
	mkdir -p .mypy_cache && cp train.py .mypy_cache/train_command  # beside train/, mypy takes train.py for the package
	$(BIN)/mypy models decoding train $(COMMANDS) .mypy_cache/train_command

# types beside the cases: mypy keeps one core busy for a minute
test: style
	$(MAKE) --no-print-directory --jobs=2 types cases

# worksteal: neighbours stay in one worker, and with them what the fixtures of their module build
cases: $(READY)
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal $(ARGS)

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# breaks the code in more than a hundred ways, on copies of the tree, and sees that a test fails each time
mutation: $(READY)
	$(BIN)/python -m tests.mutation $(ARGS)

# ends every command that writes by SIGKILL, hundreds of times, and sees that it goes on as if nothing had been
kills: $(READY)
	$(BIN)/python -m tests.kills $(ARGS)

# the properties of the gate on many more cases: FUZZ times as many, and 1,000 damaged files of every kind
fuzz: $(READY)
	FUZZ=$${FUZZ:-20} OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -o addopts=--import-mode=importlib -n auto $(ARGS) tests/properties
