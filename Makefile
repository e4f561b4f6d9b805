# make demo   counts the sample photos end to end and prints the result
# make test   every test but the next
# make test-faults   kills and restarts workers, RabbitMQ and PostgreSQL while photos are counted
# make test-compose   builds the images, starts everything in containers, and restarts each under load
# make check  lint, format, types, who may import whom
# make screenshots   makes the pictures of the pages in docs/images/ anew
# make lock   new versions of the dependencies, within pyproject.toml's ranges
#
# With Docker alone (docs/compose.md), GPU=1 for workers on an NVIDIA GPU, WITHOUT="prometheus grafana" without those:
# make env    writes .env, with new passwords
# make up     builds and starts everything     make logs   follows what it says     make down   stops it, and keeps its data
# make pin    writes the digests of the images that others publish behind their tags, or renews them
#
# Each makes .venv with what it needs. Pass arguments on with ARGS: make demo ARGS="--photos DIR --serve"

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python -c requirements.lock
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test test-faults test-compose check screenshots lock clean env up down logs pin

help:
	@sed -n '/^#/!q;s/^# \{0,1\}//p' Makefile

demo: .venv/demo.installed
	$(BIN)/python -m demo $(ARGS)

# Several files at a time: each process starts servers of its own. More than four would not be quicker, but larger.
test: .venv/dev.installed
	$(BIN)/python -m pytest -n auto --maxprocesses=4 --dist=loadfile --ignore=tests/faults --ignore=tests/compose $(ARGS)

test-faults: .venv/dev.installed
	$(BIN)/python -m pytest tests/faults $(ARGS)

test-compose: .venv/dev.installed
	$(BIN)/python -m pytest tests/compose $(ARGS)

env:
	@deploy/compose/make-env

up:
	@GPU=$(GPU) WITHOUT="$(WITHOUT)" deploy/compose/up $(ARGS)

# With the profiles, or Compose would leave the volumes of what runs on demand only.
down:
	@COMPOSE_PROFILES=samples,trainer deploy/compose/compose down $(ARGS)

pin:
	@deploy/compose/pin

logs:
	@deploy/compose/compose logs -f --tail 100 $(ARGS)

check: .venv/dev.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

screenshots: .venv/dev.installed
	$(BIN)/python -m pytest tests/monitor/browser/screenshots.py $(ARGS)

lock: .venv/uv.installed
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --upgrade --quiet \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links -o requirements.lock

clean:
	rm -rf .venv

.venv/uv.installed:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is too old: Binwatch needs Python 3.11 or newer (make PYTHON=python3.12 …)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'
	@touch $@

# What the demo needs: no torch.
.venv/demo.installed: .venv/uv.installed pyproject.toml requirements.lock
	$(INSTALL) -e '.[demo]'
	@touch $@

.venv/dev.installed: .venv/uv.installed pyproject.toml requirements.lock
	$(INSTALL) -e '.[dev]'
	@touch .venv/demo.installed $@
