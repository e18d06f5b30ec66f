# The tools that the targets use are in .venv, at the versions of requirements.txt.

PYTHON ?= python3
TEMPLATE ?= setupapidb.yml
STACK ?= apidb
ADDONS ?= page
PORT ?= 4566
STATE ?= .apidb
PARAMETERS ?=
ACCESS ?=
YES ?=
EXPORT ?=
FILE ?=
API ?=
ROUNDS ?= 30

bin = .venv/bin
so = $(filter 1 yes true,$(1))
addons = $(addprefix --addon ,$(ADDONS))
checked = $(TEMPLATE) $(wildcard addons/*.yml)

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-12s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: .venv/installed  ## start the store and its page on this machine (PORT=4566 ACCESS=key), until Ctrl-C
	@$(bin)/python scripts/local.py --port $(PORT) --state $(STATE) --stack $(STACK) --template $(TEMPLATE) $(addons) \
		$(if $(call so,$(YES)),--yes) RequestsPerSecond=10000 RequestBurst=5000 $(if $(ACCESS),Access=$(ACCESS)) $(PARAMETERS)

test: check  ## check, then run all tests
	@$(bin)/pytest tests

check: .venv/installed  ## see that the templates are valid, complete and small enough; write nothing
	@$(bin)/python scripts/embed.py --check $(checked)
	@$(bin)/cfn-lint $(checked)

embed: .venv/installed  ## copy the handlers into the templates
	@$(bin)/python scripts/embed.py $(checked)

deploy: .venv/installed  ## create or update store and add-ons on AWS (STACK=apidb ADDONS=page PARAMETERS="Name=value" YES=1)
	@$(bin)/python scripts/store.py deploy --stack $(STACK) --template $(TEMPLATE) $(addons) \
		$(if $(call so,$(YES)),--yes) $(PARAMETERS)

status: .venv/installed  ## show how the store on AWS is, its add-ons, and its last errors (STACK=apidb)
	@$(bin)/python scripts/store.py status --stack $(STACK)

logs: .venv/installed  ## follow the log of the store on AWS (STACK=apidb), until Ctrl-C
	@$(bin)/python scripts/store.py logs --stack $(STACK)

teardown: .venv/installed  ## export the links, then delete add-ons and store on AWS (STACK=apidb EXPORT=no)
	@$(bin)/python scripts/store.py teardown --stack $(STACK) --template $(TEMPLATE) $(if $(filter 0 no false,$(EXPORT)),--no-export)

import: .venv/installed  ## store the links of a file, a table or a URL (FILE=bookmarks.html API=URL, DRY_RUN=1, SIGN=1)
	@$(bin)/python scripts/links.py import "$(FILE)" --api "$(API)" \
		$(if $(call so,$(DRY_RUN)),--dry-run) $(if $(call so,$(SIGN)),--sign)

export: .venv/installed  ## write all links to a file (FILE=links.jsonl, .csv or .html, API=URL or dynamodb:TABLE, SIGN=1)
	@$(bin)/python scripts/links.py export "$(FILE)" --api "$(API)" $(if $(call so,$(SIGN)),--sign)

cost: .venv/installed  ## print what the stack costs on AWS, by the prices in scripts/prices.toml
	@$(bin)/python scripts/cost.py

bench: .venv/installed .bench/installed  ## compare speed with other handlers (ROUNDS=30), and show what grows: minutes
	@PYTHONPATH=scripts .bench/bin/python bench/bench.py --rounds $(ROUNDS)
	@$(bin)/python bench/grow.py
	@$(bin)/python bench/shards.py

lock: .venv/installed  ## pin what requirements.in asks for, and all that it needs
	@$(bin)/pip install --quiet --disable-pip-version-check uv==0.13.8
	@$(bin)/uv pip compile --quiet --universal --python-version 3.11 --upgrade \
		--custom-compile-command "make lock" requirements.in --output-file requirements.txt

.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit("apidb needs Python 3.11 or newer: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	@echo "Installing the tools into .venv"
	@$(PYTHON) -m venv --clear .venv
	@$(bin)/pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@touch $@

.bench/installed: bench/requirements.txt requirements.txt
	@echo "Installing what is compared into .bench"
	@$(PYTHON) -m venv --clear .bench
	@.bench/bin/pip install --quiet --disable-pip-version-check --requirement bench/requirements.txt
	@touch $@

.PHONY: help run test check embed deploy status logs teardown import export cost bench lock
