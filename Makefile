# Everything works from a fresh clone: the first target that needs it makes .venv and fetches models by hash.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
REF := .venv-reference/bin
QWEN := qwen2.5-coder-0.5b-instruct:q4_k_m
SMOLLM2 := smollm2-135m-instruct:q4_1
GEMMA := gemma-3-270m:q4_k_m
STAMP := .venv/.installed

.PHONY: help demo test test-all test-reference lint bench bench-engines clean install

help: ## what can be made
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

install: $(STAMP) ## .venv with perjoule and what its tests need

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "perjoule needs Python 3.11 or newer; none was found on PATH"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -e '.[cpu]' --group dev
	@touch $@

demo: $(STAMP) ## measure Qwen2.5-Coder-0.5B and SmolLM2-135M on this machine, side by side
	@out=perjoule-results/demo-$$(date -u +%Y%m%d-%H%M%S); \
	$(BIN)/perjoule run quickstart --model $(QWEN) --model $(SMOLLM2) --out "$$out" --html "$$out/report.html"

test: $(STAMP) ## the tests, with one small real checkpoint (93 MB)
	$(BIN)/perjoule models pull $(SMOLLM2)
	$(BIN)/python -m pytest -q -m 'not extras and not all_checkpoints'

test-all: $(STAMP) ## all checkpoints, and the reference engines in an environment of their own
	$(BIN)/perjoule models pull $(SMOLLM2) $(QWEN) $(GEMMA)
	$(BIN)/python -m pytest -q -m 'not extras'
	$(MAKE) test-reference

test-reference: .venv-reference/.installed
	$(REF)/python -m pytest -q -m extras

.venv-reference/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-reference
	$(REF)/python -m pip install -q --upgrade pip
	$(REF)/python -m pip install -q torch==2.13.0 'transformers<4.58' accelerate
	$(REF)/python -m pip install -q llama-cpp-python==0.3.36
	$(REF)/python -m pip install -q -e '.[cpu]' --group dev
	@touch $@

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: ## the speed tables that can be made
	@echo "make bench-engines   our engine against llama.cpp, interleaved (about 15 minutes, nothing else running)"

bench-engines: $(STAMP) .venv-reference/.installed ## our engine against llama.cpp on the same files
	for model in $(SMOLLM2) $(QWEN); do \
	  $(BIN)/python benchmarks/engines_vs_llamacpp.py "$$($(BIN)/perjoule models pull $$model)" \
	    --ours-python $(BIN)/python --theirs-python $(REF)/python --threads 2; \
	done

clean: ## remove environments and caches of this folder (not the model cache)
	rm -rf .venv .venv-reference dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
