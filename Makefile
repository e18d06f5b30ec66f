# The tools that the targets use are in .venv, at the versions of requirements.txt: what most of them
# need is there by .venv/installed, and by .venv/tested what only check, test, cost, bench need, which is far more.

PYTHON ?= python3
TEMPLATE ?= setupapidb.yml
# These are the template's: stack apidb with a page, or for stacks/pets.yml stack pets.
STACK ?=
ADDONS ?= $(if $(filter setupapidb.yml,$(notdir $(TEMPLATE))),page)
PORT ?=
STATE ?= .apidb
PARAMETERS ?=
ACCESS ?=
YES ?=
EXPORT ?=
FILE ?=
API ?=
DIR ?= backups
KEEP ?= 30
ROUNDS ?= 30
ON = engine

bin = .venv/bin
mcp = .mcp/bin
so = $(filter 1 yes true,$(1))
quoted = '$(subst ','\'',$(1))'
install = pip install --quiet --disable-pip-version-check
stack = --template $(TEMPLATE) $(if $(STACK),--stack $(STACK)) $(if $(call so,$(YES)),--yes)
addons = $(addprefix --addon ,$(ADDONS))
templates = $(sort $(TEMPLATE) $(wildcard setupapidb.yml addons/*.yml stacks/*.yml))

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-12s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: .venv/installed  ## start the store and its page on this machine (TEMPLATE= PORT=4566 ACCESS=key), until Ctrl-C
	@$(bin)/python scripts/local.py $(if $(PORT),--port $(PORT)) --state $(STATE) $(stack) $(addons) \
		$(if $(ACCESS),Access=$(ACCESS)) $(PARAMETERS)

# Two workers, with a local engine each; on AWS one, which can ask. ON in the environment does not count.
test: check  ## check, then run all tests; or those for an account of AWS on it, which asks before (ON=aws YES=1)
	@$(bin)/pytest --on $(ON) $(if $(filter aws,$(ON)),$(if $(call so,$(YES)),--yes),-n 2 --dist loadfile) tests

check: .venv/tested  ## see that the templates are valid, complete and small enough, the code in form; write nothing
	@$(bin)/python scripts/embed.py --check $(templates)
	@$(bin)/cfn-lint $(templates)
	@$(bin)/ruff check --quiet || { echo "Run: make format"; exit 1; }
	@$(bin)/ruff format --quiet --check || { echo "Not in form. Run: make format"; exit 1; }

format: .venv/tested  ## bring the code into form, by ruff.toml
	@$(bin)/ruff check --quiet --fix
	@$(bin)/ruff format --quiet

embed: .venv/installed  ## copy the handlers into the templates
	@$(bin)/python scripts/embed.py $(templates)

deploy: .venv/installed  ## create or update store and add-ons on AWS (TEMPLATE= STACK=apidb ADDONS=page PARAMETERS="Name=value" YES=1)
	@$(bin)/python scripts/manage.py deploy $(stack) $(addons) $(PARAMETERS)

status: .venv/installed  ## show how a stack on AWS is, its add-ons, and its last errors (TEMPLATE= STACK=apidb)
	@$(bin)/python scripts/manage.py status $(stack)

logs: .venv/installed  ## follow the logs of a stack on AWS (TEMPLATE= STACK=apidb), until Ctrl-C
	@$(bin)/python scripts/manage.py logs $(stack)

reindex: .venv/installed  ## make the index of the add-on search again from the links (STACK=apidb), while people use the store
	@$(bin)/python scripts/manage.py reindex $(stack)

teardown: .venv/installed  ## export the tables, then delete add-ons and stack on AWS (TEMPLATE= STACK=apidb EXPORT=no YES=1)
	@$(bin)/python scripts/manage.py teardown $(stack) $(if $(filter 0 no false,$(EXPORT)),--no-export)

import: .venv/installed  ## store the links of a file, table, server or URL (FILE=x API=URL DRY_RUN=1 MERGE=yes PRIVATE=yes SIGN=1)
	@$(bin)/python scripts/links.py import "$(FILE)" --api "$(API)" $(if $(call so,$(DRY_RUN)),--dry-run) \
		$(if $(call so,$(MERGE)),--merge) $(if $(call so,$(PRIVATE)),--private) $(if $(call so,$(SIGN)),--sign)

export: .venv/installed  ## write all links to a file (FILE=links.jsonl, .csv or .html, API=URL or dynamodb:TABLE, SIGN=1)
	@$(bin)/python scripts/links.py export "$(FILE)" --api "$(API)" $(if $(call so,$(SIGN)),--sign)

backup: .venv/installed  ## write all links to a new file of a folder, and keep the newest (DIR=backups KEEP=30 API=URL, SIGN=1)
	@$(bin)/python scripts/backup.py --dir $(call quoted,$(DIR)) --keep "$(KEEP)" --api "$(API)" $(if $(call so,$(SIGN)),--sign)

retag: .venv/installed  ## give links another tag, or with TO= none, for one (FROM=old TO=new API=URL, DRY_RUN=1, SIGN=1)
	@$(bin)/python scripts/retag.py --from=$(call quoted,$(FROM)) $(if $(filter undefined,$(origin TO)),,--to=$(call quoted,$(TO))) \
		--api "$(API)" $(if $(call so,$(DRY_RUN)),--dry-run) $(if $(call so,$(SIGN)),--sign)

care: .venv/installed  ## look at the links: fill in titles, find what is gone (API=URL, PRIVATE=yes SAVE=yes SIGN=1)
	@$(bin)/python scripts/care.py --api "$(API)" $(if $(call so,$(PRIVATE)),--private) $(if $(call so,$(SAVE)),--save) \
		$(if $(call so,$(SIGN)),--sign)

restore: .venv/installed  ## bring back links as they were at a time of the last 35 days (AT=2026-11-20T12:00Z STACK=apidb YES=1)
	@$(bin)/python scripts/restore.py $(if $(STACK),--stack $(STACK)) --at "$(AT)" $(if $(call so,$(YES)),--yes)

mcp: .mcp/installed  ## serve a store to a language model, by the Model Context Protocol over stdio (API=URL, SIGN=1)
	@$(mcp)/python clients/mcp_server.py --api "$(API)" $(if $(call so,$(SIGN)),--sign)

cost: .venv/tested  ## print what the stack costs on AWS, by the prices in scripts/prices.toml
	@$(bin)/python scripts/cost.py

bench: .venv/tested .bench/installed  ## compare speed with other handlers (ROUNDS=30), and show what grows: minutes
	@PYTHONPATH=scripts .bench/bin/python bench/bench.py --rounds $(ROUNDS)
	@$(bin)/python bench/grow.py
	@$(bin)/python bench/finding.py
	@$(bin)/python bench/shards.py

lock: .venv/installed  ## pin what each requirements.in asks for, and all that it needs
	@$(bin)/$(install) uv==0.13.8
	@for file in requirements tests/requirements clients/requirements; do \
		$(bin)/uv pip compile --quiet --universal --python-version 3.11 --upgrade --generate-hashes \
			--custom-compile-command "make lock" $$file.in --output-file $$file.txt || exit; \
	done

# Any change makes .venv anew, so that nothing stays in it which no file names.
.venv/installed: requirements.txt tests/requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit("apidb needs Python 3.11 or newer: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	@echo "Installing the tools into .venv"
	@$(PYTHON) -m venv --clear .venv
	@$(bin)/$(install) --require-hashes --requirement requirements.txt
	@touch $@

# If this is broken off, what .venv/installed stands for stays, and all is put in again the next time:
# pip takes half a package for a whole one.
.venv/tested: .venv/installed
	@echo "Installing what the tests need into .venv"
	@again=$$(test -e .venv/begun && echo --force-reinstall); touch .venv/begun; \
		$(bin)/$(install) $$again --require-hashes --requirement tests/requirements.txt
	@rm .venv/begun; touch $@

# pip would want hashes of all packages if it saw one, so the versions to keep to are those that are installed.
.bench/installed: bench/requirements.txt .venv/tested
	@echo "Installing what is compared into .bench"
	@$(PYTHON) -m venv --clear .bench
	@$(bin)/pip freeze --disable-pip-version-check >.bench/versions
	@.bench/bin/$(install) --constraint .bench/versions --requirement bench/requirements.txt
	@touch $@

# What is printed to stdout would be taken for the protocol.
.mcp/installed: clients/requirements.txt
	@echo "Installing what a server of the Model Context Protocol needs into .mcp" >&2
	@$(PYTHON) -m venv --clear .mcp >&2
	@$(mcp)/$(install) --require-hashes --requirement clients/requirements.txt >&2
	@touch $@

.PHONY: help run test check format embed deploy status logs reindex teardown import export backup retag care restore mcp cost bench lock
