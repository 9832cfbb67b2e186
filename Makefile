# Every target sets up what it needs; `make help` lists them. The work is done by scripts/.
.DEFAULT_GOAL := help
.PHONY: help setup demo test campaigns quick contract lint format simulate chaos fuzz bench kafka clean

SEEDS ?= 2000
MINUTES ?= 3
RATE ?= 150
GUARANTEE ?= at_least_once
python := .venv/bin/python

help: ## say what can be made
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 16

setup: ## make .venv with the library and the development tools
	@scripts/setup.sh

demo: setup ## the main job on an embedded broker, with a live view
	@.venv/bin/rkc demo

test: setup ## lint and all tests but the campaigns, real Kafka included
	@scripts/test.sh

campaigns: setup ## the tests that are minutes of work by several processes
	@scripts/campaigns.sh

quick: setup ## the tests that need no real Kafka
	@$(python) -m pytest -q -m "not kafka"

contract: setup ## what consumers promise, on another Kafka: make contract KAFKA_VERSION=3.9.1
	@scripts/contract.sh

lint: setup ## ruff and mypy
	@scripts/lint.sh

format: setup ## let ruff order imports and format the code
	@.venv/bin/ruff check --fix-only --select I . && .venv/bin/ruff format .

simulate: setup ## the simulation of whole consumers: make simulate SEEDS=50000
	@$(python) -m tests.simulation --seeds $(SEEDS)

chaos: setup ## minutes of faults on three brokers, judged: make chaos MINUTES=30 RATE=600 SEED=7 GUARANTEE=exactly_once
	@scripts/java.sh
	@$(python) -m tests.chaos --minutes $(MINUTES) --guarantee $(GUARANTEE) --rate $(RATE) $(if $(SEED),--seed $(SEED))

fuzz: ## any bytes for what parses them: make fuzz RUNS=1000000 TARGET=headers
	@scripts/fuzz.sh

bench: setup ## the benchmarks
	@scripts/bench.sh

kafka: setup ## a real Kafka until Ctrl-C, for KAFKA_BOOTSTRAP_SERVERS
	@scripts/java.sh
	@$(python) -m tests.support.kafka

clean: ## remove what the other targets made in the checkout
	@scripts/clean.sh
