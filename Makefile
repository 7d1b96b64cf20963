# Everything a newcomer needs: `make demo` and `make test`. All set-up lives in .venv and the user's cache.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
COMPILE := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-annotate --quiet --upgrade --custom-compile-command "make requirements"

.DEFAULT_GOAL := help
.PHONY: help demo demo-kube test test-long check format bench soak generate docs crds golden requirements clean

help: ## Say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 16

$(VENV)/ready: pyproject.toml requirements/dev.txt
	@PYTHON="$(PYTHON)" VENV="$(VENV)" tools/setup

demo: $(VENV)/ready ## Run the demo: three gateways, edited and broken live (ARGS="--plain --seconds 3")
	@$(BIN)/xdserve demo $(ARGS)

demo-kube: $(VENV)/ready ## Run the demo on a real kube-apiserver, edited with kubectl (ARGS="--plain --seconds 1")
	@$(BIN)/python -m tests.kube.demo $(ARGS)

test: $(VENV)/ready check ## Run the linters and all tests (ARGS="-k name" for some)
	$(BIN)/pytest $(ARGS)

test-long: $(VENV)/ready ## Try ten thousand random lives of a gateway and its Envoys (half an hour or so)
	$(BIN)/pytest tests/session/test_machine.py --hypothesis-profile=long $(ARGS)

check: $(VENV)/ready ## Run the linters alone
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/hadolint Dockerfile
	$(BIN)/python tools/generate.py --check
	$(BIN)/python tools/docs.py --check
	$(BIN)/python tools/crds.py --check

format: $(VENV)/ready ## Format the code and mend what the linter can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/ready ## Run the benchmarks and print their table
	$(BIN)/python -m benchmarks $(ARGS)

soak: $(VENV)/ready ## Let 20,000 connections come and go, and print what the server's memory does
	$(BIN)/python -m tests.fuzz.soak $(ARGS)

generate: $(VENV)/ready ## Make the message classes again from tools/wanted*.txt
	$(BIN)/python tools/generate.py

docs: $(VENV)/ready ## Write the made parts of docs/ again from the code
	$(BIN)/python tools/docs.py

crds: $(VENV)/ready ## Write the chart's CRDs again from the models
	$(BIN)/python tools/crds.py

golden: $(VENV)/ready ## Write the golden files again from what translation gives now
	$(BIN)/pytest tests/golden --update-golden

requirements: $(VENV)/ready ## Pin the dependencies again, with hashes
	$(COMPILE) pyproject.toml -o requirements/runtime.txt
	$(COMPILE) pyproject.toml --extra demo --group dev -o requirements/dev.txt
	$(COMPILE) --group go -o requirements/go.txt
	$(COMPILE) --group build -o requirements/build.txt
	$(COMPILE) --group generate -o requirements/generate.txt

clean: ## Remove the environment
	rm -rf $(VENV)
