# `make` alone says what there is. Needs make and Python 3.11 or newer with venv; everything else is set up here.
.DEFAULT_GOAL := help
.PHONY: help demo box test test-quick bench-update bench-gap bench-sources bench-kd bench-merge bench-cost bench-parking bench-real bench-sites bench-edge bench-drift bench-simulation bench-peers bench-studies proof up up-peers down logs docs lint format starter stubs setup clean

# The newest-named Python that will do, else whatever is called python3, which then says what is wrong with it.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
BIN := .venv/bin
DEMO_ARGS ?= --out demo-out
BOX_ARGS ?=
TEST_ARGS ?=
BENCH_ARGS ?=
COMPOSE := deploy/compose.sh --profile peers
export PYTHON
# Set-up leaves modules to be compiled when they are first imported. Where that is forbidden, as in many containers, each of
# the hundreds of processes of a test run compiles torch again, which takes longer than most of them run.
unexport PYTHONDONTWRITEBYTECODE

help:  ## this list
	@echo "DiReDi: updates the detectors of a fleet of cameras; private images never leave their site."
	@echo
	@sed -nE 's/^([a-z-]+):.*  ## (.*)/  make \1@\2/p' Makefile | awk -F@ '{printf "%-18s %s\n", $$1, $$2}'

demo: .runtime  ## one whole update cycle on this machine, in less than five minutes; DEMO_ARGS="--out DIR --keep" passes flags
	@$(BIN)/diredi demo $(DEMO_ARGS)

box: .runtime  ## cloud, site, pages and your cameras on this machine; BOX_ARGS="--camera rtsp://10.0.0.7/stream1"
	@$(BIN)/diredi box $(BOX_ARGS)

test: .python  ## all checks and all tests, containers too, on every core; TEST_ARGS="-k gap" passes flags to pytest
	@deploy/test.sh $(TEST_ARGS)

test-quick: .python  ## the tests that need neither containers nor a browser, and do not take long
	@deploy/test.sh --quick $(TEST_ARGS)

bench-update: .runtime  ## update cycles beside other methods, on scenes and real images, two hours; QUICK=1: three minutes
	@QUICK=$(QUICK) FULL=$(FULL) $(BIN)/python bench/update.py $(BENCH_ARGS)

bench-sources: .runtime  ## measure what the cloud may teach the next student on, twenty minutes; QUICK=1: three minutes
	@QUICK=$(QUICK) FULL=$(FULL) $(BIN)/python bench/sources.py $(BENCH_ARGS)

bench-gap: .runtime  ## measure the tables of docs/decisions/0010-gap.md, an hour; QUICK=1: two minutes, BENCH_ARGS="--seeds 2"
	@QUICK=$(QUICK) FULL=$(FULL) $(BIN)/python bench/gap_forms.py $(BENCH_ARGS)
	@QUICK=$(QUICK) FULL=$(FULL) $(BIN)/python bench/second_reverse_distillation.py $(BENCH_ARGS)

bench-kd: setup  ## distillation against direct training and Ultralytics' own, three students, most of an hour; QUICK=1: a minute
	@QUICK=$(QUICK) FULL=$(FULL) $(BIN)/python bench/kd.py $(BENCH_ARGS)

bench-merge: .runtime  ## merge the gaps of two sites with a new class each, by every method, twenty minutes; QUICK=1: two minutes
	@QUICK=$(QUICK) FULL=$(FULL) $(BIN)/python bench/merging.py $(BENCH_ARGS)

bench-cost: .runtime  ## measure what an update costs a site and what it buys, by tutor and epochs; QUICK=1: two minutes
	@QUICK=$(QUICK) FULL=$(FULL) $(BIN)/python bench/cost.py $(BENCH_ARGS)

bench-parking: .runtime  ## students of fixed cameras without one label, beside labels, two hours; QUICK=1: two minutes
	@QUICK=$(QUICK) FULL=$(FULL) $(BIN)/python bench/parking.py $(BENCH_ARGS)

bench-edge: setup  ## an edge node beside the network alone and Ultralytics, fp32 and INT8, ten minutes; QUICK=1: a minute
	@QUICK=$(QUICK) FULL=$(FULL) $(BIN)/python bench/edge.py $(BENCH_ARGS)

bench-drift: setup  ## changes of a camera that an edge node notices, and alarms without one, ten minutes; QUICK=1: two
	@QUICK=$(QUICK) FULL=$(FULL) $(BIN)/python bench/drift.py $(BENCH_ARGS)

proof: setup  ## try what is promised about trust again and again, docs/proof.md, 45 minutes on two idle cores; QUICK=1: three
	@QUICK=$(QUICK) $(BIN)/python bench/proof.py $(BENCH_ARGS)

bench-sites: .runtime  ## what sites need: few labels or none, faults in labels, scopes, peers; hours; QUICK=1: minutes
	@QUICK=$(QUICK) FULL=$(FULL) $(BIN)/python bench/sites.py $(BENCH_ARGS)

bench-real: .runtime  ## the default cycle on real detectors and images, beside its rivals, days; QUICK=1: two minutes
	@QUICK=$(QUICK) FULL=$(FULL) $(BIN)/python bench/real.py $(BENCH_ARGS)

bench-simulation: setup  ## many clients on one machine, beside Flower's simulation, which it installs apart; QUICK=1: fewer clients
	@QUICK=$(QUICK) FULL=$(FULL) $(BIN)/python bench/simulation.py $(BENCH_ARGS)

bench-peers: setup  ## real peers over gRPC, predictions beside weights and ours beside Flower, half an hour; QUICK=1: a minute
	@QUICK=$(QUICK) FULL=$(FULL) $(BIN)/python bench/peers.py $(BENCH_ARGS)

bench-studies: setup  ## the studies of learning without a cloud, two to three hours; QUICK=1: minutes, BENCH_ARGS="multihead"
	@QUICK=$(QUICK) FULL=$(FULL) $(BIN)/python bench/studies.py $(BENCH_ARGS)

up: .runtime  ## build the images and start the deployment of docker-compose.yml
	@deploy/up.sh

up-peers: .python  ## run three peers in containers, which learn from each other without a cloud, to the end of their rounds
	@deploy/up-peers.sh

down:  ## stop the deployment and the peers; VOLUMES=1 also forgets their data, ENGINE=1 also stops the engine that `make up` started
	@$(COMPOSE) down --remove-orphans $(if $(VOLUMES),--volumes)
	@$(if $(ENGINE),deploy/docker-engine.sh down)

logs:  ## follow the logs of the deployment
	@$(COMPOSE) logs --follow --tail 100

docs: setup  ## build the documentation as a site into build/site; a broken link or an undocumented public name is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "build/site/index.html; with search: $(BIN)/python -m http.server --directory build/site --bind 127.0.0.1"

lint: setup  ## ruff and mypy, as in `make test`
	@deploy/lint.sh

format: setup  ## let ruff put the code in order
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

starter: .runtime  ## train the starter release that clouds begin with, ten minutes; CHECK=1 compares it with the one in the tree
	@$(BIN)/python -m cloud_server.starter.train $(if $(CHECK),--check)

stubs: setup  ## generate the gRPC stubs from proto/
	@$(BIN)/python proto/generate.py

setup: .python  ## .venv with everything that work on the project needs
	@$(PYTHON) deploy/setup.py

clean:  ## remove what was made here: .venv, caches, the demo's output
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist demo-out *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Less than `setup`: no tools of development.
.PHONY: .runtime .python
.runtime: .python
	@$(PYTHON) deploy/setup.py --groups core,video,outputs,learning,cloud,ultralytics

.python:
	@[ -n "$(PYTHON)" ] || { echo "setup: Python 3.11 or newer is needed and none is on the path:" \
	  "apt-get install python3 python3-venv, or set PYTHON" >&2; exit 1; }
