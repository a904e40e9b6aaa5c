.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin

help: ## this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: install ## see the loop learn in about a minute; OPEN=1: in a browser too; DATA=DIR takes a MovieLens folder
	$(BIN)/marquee demo $(if $(DATA),--data "$(DATA)") $(if $(OPEN),--open)

up: install ## start the platform and keep it up; Ctrl-C stops it
	$(BIN)/marquee up

# Threads that wait for others sleep: four processes share the cores here.
test: export OMP_WAIT_POLICY := passive
test: lint ## lint, then every test; Kafka's are skipped where there is no broker (make kafka)
	$(BIN)/pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder

install: .venv/installed ## make .venv with the locked dependencies, once (the others call it)

lint: install ## ruff, mypy strict, import-linter
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: install ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench-quality: install ## quality of the models on the data sets in DATA, bench/results/quality.json
	$(BIN)/python -m bench.quality "$(or $(DATA),../shared/data/benchmarks)"

bench-training: install ## speed and memory of training, bench/results/training.json; LARGE=1: at 50M interactions too
	$(BIN)/python -m bench.training $(if $(LARGE),--with-50m)

bench-scale: spark ## one process against Spark at 1M, 10M, 50M interactions, bench/results/scale.json; SIZES="1M 10M": some
	$(BIN)/python -m bench.scale $(if $(SIZES),--sizes $(SIZES))

bench-serving: install ## the hot path beside a bare server and the plain way, bench/results/serving.json, and a verdict
	$(BIN)/python -m bench.serving
	$(BIN)/python -m bench.service_levels bench/results/serving.json

bench-ingest: install ## how fast events are taken, beside a bare route, bench/results/ingest.json, and a verdict; needs wrk
	$(BIN)/python -m bench.ingest

loadtest: install ## viewers by Locust, report and verdict; UI=1: its page; HOST= INGEST=: another platform; USERS= SECONDS=
	$(BIN)/python -m bench.loadtest $(if $(UI),--ui) $(if $(HOST),--host "$(HOST)") $(if $(INGEST),--ingest "$(INGEST)") \
		$(if $(USERS),--users $(USERS)) $(if $(SECONDS),--seconds $(SECONDS))

drill: install ## break something while viewers ask, and a verdict; NAMES="redis-down publish": some drills only
	$(BIN)/python -m bench.drill $(NAMES)

security: install ## the APIs against their documents, bandit, pip-audit, a bill of materials; EXAMPLES=1000
	$(BIN)/python -m bench.security $(if $(EXAMPLES),--examples $(EXAMPLES))

chaos: install ## strike a platform while 1,000,000 events come in, twice 15 minutes: LOG=redis, kafka, kafka-cluster; EVENTS= FAULTS= SEED=
	$(BIN)/python -m tests.chaos $(if $(LOG),--log "$(LOG)") $(if $(EVENTS),--events $(EVENTS)) \
		$(if $(FAULTS),--faults $(FAULTS)) $(if $(SEED),--seed $(SEED))

docs: install ## the documents as a site in var/site, links checked; SERVE=1: on http://127.0.0.1:8010
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs $(if $(SERVE),serve --dev-addr 127.0.0.1:8010,build) --strict

kafka: ## fetch Apache Kafka for the tests (needs Java 17 and Maven)
	infra/deploy/kafka/kafka.sh fetch

spark: install ## install Apache Spark into .venv, for training on it (half a gigabyte; needs Java 17)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --system-certs --require-hashes -r requirements-spark.lock || \
		$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-spark.lock

lock: install ## pin the newest dependencies that pyproject.toml allows, with hashes
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --no-annotate --extra all --group dev pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --constraints requirements.lock \
		--no-emit-index-url --no-header --no-annotate --extra spark pyproject.toml -o requirements-spark.lock

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else \
		"Marquee needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	@echo "Installing the locked dependencies into .venv (once, about a minute) ..."
	@awk '/^uv==/ { on = 1 } on { print } on && !/\\$$/ { exit }' requirements.lock > .venv/uv.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.lock
	# Compiled here, as pip does it: where PYTHONDONTWRITEBYTECODE is set, every start of a process would do it anew.
	$(BIN)/uv pip install --quiet --python $(BIN)/python --system-certs --compile-bytecode --require-hashes -r requirements.lock || \
		$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock  # Its own settings of an index.
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: help demo up test install lint format bench-quality bench-training bench-scale bench-serving bench-ingest loadtest drill security chaos docs kafka spark lock
