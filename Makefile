# `make demo` and `make test` need Python 3.11 or newer and nothing else: no compiler, no model hub. The first target
# that needs it makes .venv and installs; a stamp named after this folder and pyproject.toml makes later runs instant.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# The first interpreter that is new enough and can make an environment; `make PYTHON=/path/to/python3.12 test` chooses.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
KEY := $(shell { pwd; cat pyproject.toml; } | cksum | cut -d' ' -f1)
BIN := .venv/bin
REF := .venv-reference/bin
ORACLES := .venv-oracles/bin
STAMP := .venv/.installed-$(KEY)
REF_STAMP := .venv-reference/.installed-$(KEY)
ORACLES_STAMP := .venv-oracles/.installed-$(KEY)
QWEN := qwen2.5-coder-0.5b-instruct:q4_k_m
SMOLLM2 := smollm2-135m-instruct:q4_1
GEMMA := gemma-3-270m:q4_k_m

.PHONY: help install demo test test-all test-reference test-oracles lint format bench bench-engines llamacpp clean

help: ## what can be made
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

install: $(STAMP) ## .venv with perjoule and what its tests need

define make_environment
	@test -n "$(PYTHON)" || { echo "perjoule needs Python 3.11 or newer with its venv module, and none is on PATH." >&2; \
	  echo "hint: apt-get install python3-venv, or make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	@$(1)/python -m pip --version >/dev/null 2>&1 || { echo "setting up $(dir $(1)) with $(PYTHON)"; \
	  "$(PYTHON)" -m venv --clear "$(dir $(1))"; }
	@$(1)/python -m pip install -q 'pip>=25.1'
endef

$(STAMP): pyproject.toml
	$(call make_environment,$(BIN))
	$(BIN)/python -m pip install -q -e '.[cpu]' --group dev
	@touch $@

demo: $(STAMP) ## measure Qwen2.5-Coder-0.5B and SmolLM2-135M on this machine, then judge the claim qwen-low-power
	@out=perjoule-results/demo-$$(date -u +%Y%m%d-%H%M%S); \
	$(BIN)/perjoule run quickstart --model $(QWEN) --model $(SMOLLM2) --out "$$out" --html "$$out/report.html" && \
	{ $(BIN)/perjoule claim qwen-low-power --quick --out "$$out/claim" --html "$$out/claim.html"; test $$? -le 3; } && \
	echo "open in a browser: $$PWD/$$out/claim.html and $$PWD/$$out/report.html" && \
	echo "next: .venv/bin/perjoule show $$out     .venv/bin/perjoule verify $$out     .venv/bin/perjoule doctor"

test: $(STAMP) ## the tests, with one small real checkpoint (98 MB)
	$(BIN)/perjoule models pull $(SMOLLM2)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m 'not extras and not all_checkpoints'

test-all: $(STAMP) ## all tests, all checkpoints, and the reference engines and readers in environments of their own
	$(BIN)/perjoule models pull $(SMOLLM2) $(QWEN) $(GEMMA)
	$(BIN)/python -m pytest -q -m 'not extras'
	$(MAKE) --no-print-directory test-reference
	$(MAKE) --no-print-directory test-oracles

test-reference: $(REF_STAMP) llamacpp
	$(BIN)/perjoule models pull $(SMOLLM2) $(QWEN) $(GEMMA)
	$(REF)/python -m pytest -q -m extras

$(REF_STAMP): pyproject.toml $(STAMP)
	$(call make_environment,$(REF))
	$(REF)/python -m pip install -q -e '.[cpu,genai,openvino,optimum,transformers]' --group dev --group reference
	@touch $@

# Other tools' sensor readers on our made-up sensors, and MLCommons LoadGen beside our load generator; their environment
# (580 MB) has no engine in it.
test-oracles: $(ORACLES_STAMP)
	$(ORACLES)/python -m pytest -q -m extras tests/integration/test_rapl_oracles.py tests/integration/test_loadgen_oracle.py

$(ORACLES_STAMP): pyproject.toml
	$(call make_environment,$(ORACLES))
	$(ORACLES)/python -m pip install -q -e . --group oracles
	@touch $@

# llama.cpp is compiled here, so it is left out, aloud, where there is no compiler; pip keeps the wheel it built.
llamacpp: $(REF_STAMP)
	@if $(REF)/python -c 'import llama_cpp' 2>/dev/null; then :; \
	elif command -v c++ >/dev/null && command -v cmake >/dev/null; then \
	  echo "compiling llama-cpp-python: 5 to 10 minutes, once"; $(REF)/python -m pip install -q --group llamacpp; \
	else echo "SKIPPED: everything that compares with llama.cpp, since c++ or cmake is not on PATH"; fi

lint: $(STAMP) ## ruff (rules and format) and mypy; all must be clean
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## let ruff fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: ## the speed tables that can be made
	@echo "make bench-engines   every engine on two checkpoints, interleaved, into docs/engines-table.md: half an hour, nothing else running"
	@echo "make bench-meters    import time of the meter layer, and time to read a two-socket tree: some seconds"
	@echo "make bench-harness   CPU time of parent and worker beside a bare sleep loop: 3 minutes with nothing else running"
	@echo "make bench-load      what the load generator costs a request, and how late it begins one: 2 minutes, nothing else running"
	@echo "make bench-scale     verify, publish, query and compare over 10,000 result files (4 GB of disk): 5 minutes, nothing else running"
	@echo "make bench-coverage  how often intervals and verdicts hold on simulated machines: some minutes of one core"

bench-engines: $(REF_STAMP) llamacpp ## every engine on the same two checkpoints; writes docs/engines-table.md
	$(REF)/python benchmarks/engines.py $(SMOLLM2) $(QWEN) --write docs/engines-table.md

.PHONY: bench-meters bench-harness
bench-meters: $(STAMP) ## what importing and reading meters costs
	$(BIN)/python benchmarks/meters.py

bench-harness: $(STAMP) ## what the harness costs beside a bare sleep loop
	$(BIN)/python benchmarks/harness_overhead.py

.PHONY: bench-load
bench-load: $(STAMP) ## what the load generator costs a request, and how late it begins one
	$(BIN)/python benchmarks/load_generator.py

.PHONY: bench-coverage
bench-coverage: $(STAMP) ## how often intervals hold the truth, on machines simulated from recorded noise
	$(BIN)/python benchmarks/coverage.py

.PHONY: bench-scale
bench-scale: $(STAMP) ## verify, publish, query and compare over 10,000 result files
	$(BIN)/python benchmarks/scale.py

clean: ## remove environments, builds and caches of this folder (not results, not the model cache)
	rm -rf .venv .venv-reference .venv-oracles dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
