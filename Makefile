# Everything a developer or a newcomer types; `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help venv apt criu demo test check format bench bench-gossip bench-net bench-loss fuzz screenshots build clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(STAMP) ## Build the virtual environment .venv

$(STAMP): pyproject.toml tools/venv.sh
	@PYTHON="$(PYTHON)" bash tools/venv.sh
	@touch $@

apt: ## Install the Debian packages that the demo and the tests use (root; others are told which)
	@bash tools/apt.sh

criu: venv ## Get CRIU 4.2 or newer for this user, beside the system's packages
	@$(BIN)/python -P -m omcore.checkpoint.get

demo: venv apt criu ## A cluster of three hosts on this machine, some jobs, and the app on the first
	@bash tools/demo.sh

test: venv apt criu ## Run all the tests
	@$(BIN)/python -m pytest -n 2 --dist loadgroup --durations=8

check: venv ## Format, lint, types, import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: venv ## Rewrite the code in the house format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: venv apt criu ## Measure the numbers the project promises, each against its reference
	@$(BIN)/python -m tools.bench

bench-gossip: venv ## Simulate the gossip at full size, beside published figures; serf where it is installed
	@$(BIN)/python -m tools.bench_gossip

bench-net: venv ## 64 real engines on this machine: sockets, memory, CPU of each, and how soon a dead one is known
	@$(BIN)/python -m tools.bench_net

bench-loss: venv apt ## A lab that loses every twentieth packet, for ten minutes: is anybody given up?
	@$(BIN)/python -m tools.bench_loss

fuzz: venv ## A minute of bytes from nowhere against all that reads bytes of peers
	@$(BIN)/python -m tools.fuzz

screenshots: venv apt criu ## Make screenshots/*.svg from the real app in a lab
	@bash tools/demo.sh $(CURDIR)/$(BIN)/python $(CURDIR)/tools/screenshots.py $(CURDIR)/screenshots

build: venv ## Build the wheel and the source archive into dist/
	@rm -rf dist
	@$(BIN)/python -m build

clean: ## Remove what the other targets made
	@rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis ./*.egg-info
	@find omcore omview tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
