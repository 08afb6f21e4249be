# HELM's verbs. `make` alone lists them. Every recipe uses relative paths, so that a clone may lie anywhere.
NODES ?= 0
WORKLOAD ?= demo
SEED ?= 1
HOST ?= 127.0.0.1
WEB_PORT ?= 8700
ROUTER_PORT ?= 8780
NODE_PORT ?= 8790

FLEET_OPTIONS = --nodes "$(NODES)" --workload "$(WORKLOAD)" --seed "$(SEED)" --host "$(HOST)" --router-port "$(ROUTER_PORT)" --node-port "$(NODE_PORT)"

# Tests of whole systems, of several processes each. Most of them wait, so two of these files run at a time;
# those that start everything, or put a fleet under load, run one after the other.
SYSTEMS = tests/apps/live tests/e2e
ALONE = tests/deploy tests/live

.PHONY: help setup up fleet down test verify clean
.SILENT:

help:
	echo "make up      start the whole system: console, control plane, router, nodes, load generator"
	echo "make fleet   start router, nodes and load generator only"
	echo "             both take NODES=8 WORKLOAD=demo SEED=1 HOST=127.0.0.1 WEB_PORT=8700 ROUTER_PORT=8780 NODE_PORT=8790"
	echo "make down    stop what runs"
	echo "make test    install what the tests need and run them"
	echo "make verify  the long checks: full-size tests, benches, routers on 32 nodes, two more training seeds; three hours"
	echo "make setup   prepare without starting"
	echo "make clean   remove the state folder"

setup:
	PYTHON="$(PYTHON)" scripts/bootstrap.sh

up: setup
	.venv/bin/python -m helmctl.cli.main up $(FLEET_OPTIONS) --web-port "$(WEB_PORT)"

fleet: setup
	.venv/bin/python -m helmctl.cli.main fleet $(FLEET_OPTIONS)

down:
	.venv/bin/python -m helmctl.cli.main down

test:
	PYTHON="$(PYTHON)" scripts/bootstrap.sh --dev
	.venv/bin/python -m helmctl.supervisor.browser
	.venv/bin/python -m pytest -n 2 --dist loadfile $(SYSTEMS:%=--ignore %) $(ALONE:%=--ignore %)
	.venv/bin/python -m pytest -n 2 --dist loadfile $(SYSTEMS)
	.venv/bin/python -m pytest $(ALONE)

verify:
	PYTHON="$(PYTHON)" scripts/bootstrap.sh --dev
	.venv/bin/python -m pytest -m verify
	.venv/bin/python -m helmctl.cli.main bench node
	.venv/bin/python -m helmctl.cli.main bench route
	.venv/bin/python -m helmctl.cli.main bench sim
	.venv/bin/python -m helmctl.cli.main bench decision
	.venv/bin/python -m helmctl.cli.main bench live
	.venv/bin/python -m helmctl.cli.main eval --suite routing --seeds 1
	for seed in 2 3; do .venv/bin/python -m helmctl.cli.main policy train --config helm --seed $$seed --out "$${HELM_STATE_DIR:-.helm}/verify/seed-$$seed" || exit 1; done

clean:
	if [ -x .venv/bin/python ]; then .venv/bin/python -m helmctl.cli.main down >/dev/null; fi
	rm -rf -- "$${HELM_STATE_DIR:-.helm}"
