# Edge Pilot. `make demo` and `make test` do their own set-up on a fresh Debian 12 machine.
# Needed beforehand: python3, python3-venv, make, git.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo-out
FAULT ?= node
DB ?= sqlite
SEED ?= 1
STAMP := $(VENV)/.installed-$(shell sha256sum pyproject.toml 2>/dev/null | cut -c1-16)
export PYTHONDONTWRITEBYTECODE := 1

.PHONY: demo test test-long lint format mutants bench sim sim-long clean help

help:           ## what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 14

demo: $(STAMP) debian-demo  ## the whole chain on this machine (FAULT=node|none, DB=sqlite|mariadb, OUT=directory)
	@$(BIN)/python -m simulators.cli demo --out $(OUT) --fault $(FAULT) --db $(DB)

test: $(STAMP) debian-test  ## lint and every test that fits into 18 minutes on 2 cores
	@.ci/parts $(BIN)

test-long: $(STAMP) debian-test  ## the tests that do not fit into `make test`
	$(BIN)/python -m pytest -q -m long tests

lint: $(STAMP)  ## format, style, types, directions of imports
	$(BIN)/ruff format --check -q .
	$(BIN)/ruff check -q .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/purity.py

format: $(STAMP)  ## format the code
	$(BIN)/ruff format -q .
	$(BIN)/ruff check -q --fix .

mutants: $(STAMP)  ## brings each known flaw back and wants its test to fail
	$(BIN)/python tests/run_mutants.py $(ONLY)

sim: $(STAMP)       ## one seed of the virtual world, with its story if it fails (SEED=17)
	@$(BIN)/python -m simulators.cli fuzz --seeds $(SEED)

sim-long: $(STAMP)  ## 2,000 fresh seeds (the first one is derived from the commit); totals into docs/reliability
	@.ci/sim-long $(BIN)

bench: $(STAMP) debian-bench  ## measures the figures of bench/goals.yaml into bench/results.json (ONLY=prefix)
	@$(BIN)/python -m bench --only "$(ONLY)"

clean:          ## end and remove what a demo of this clone left
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m simulators.cli demo --out $(OUT) --clean; fi
	@rm -rf build dist

$(STAMP):
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "make: python3-venv is missing (apt-get install python3-venv)"; exit 1; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@echo "installing Python packages into $(VENV)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[ops,prodsys,demo,test]'
	@rm -f $(VENV)/.installed-*
	@touch $@

.PHONY: debian-demo debian-test debian-bench
debian-demo:
	@.ci/debian mariadb-server-core:/usr/sbin/mariadbd

debian-test:
	@.ci/debian mariadb-server-core:/usr/sbin/mariadbd chromium:/usr/bin/chromium openssl:/usr/bin/openssl \
		slurm-wlm:/usr/sbin/slurmctld-wlm slurm-wlm-torque:/usr/bin/qsub munge:/usr/sbin/munged

debian-bench:
	@.ci/debian mariadb-server-core:/usr/sbin/mariadbd strace:/usr/bin/strace mariadb-client-core:/usr/bin/mariadb
