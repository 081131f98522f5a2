# Every target works on a fresh machine: what it needs is installed first.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed-$(shell cat pyproject.toml | sha256sum | cut -c1-12)
TESTS ?= tests
PROCESSES ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo sweep test test-slow check format tables results notebooks bench bench-gpu gpu-hour clean

help: ## explain every target
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(INSTALLED) ## create .venv and install the project with its development tools

$(INSTALLED): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	rm -f .venv/installed-*
	touch $@

demo: $(INSTALLED) ## the canonical sweep at scale=smoke on real text, ending with its table
	$(BIN)/python train.py -m balancer=aux,lossfree aux.coef=0.1,0.2,0.6 scale=smoke

sweep: $(INSTALLED) ## run sweeps/NAME.yaml: make sweep NAME=aux_coef [ARGS="scale=smoke"]
	@test -n "$(NAME)" || { echo 'which one? make sweep NAME=aux_coef; there are: $(basename $(notdir $(wildcard sweeps/*.yaml)))'; exit 2; }
	$(BIN)/python train.py -m sweep=$(NAME) $(ARGS)

test: $(INSTALLED) ## run the test suite
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadgroup $(TESTS)

test-slow: $(INSTALLED) ## the tests that take minutes, which `make test` leaves out: more ways to kill, share and edit a sweep
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadgroup -m slow $(TESTS)

check: $(INSTALLED) ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(INSTALLED) ## rewrite the sources in the project's format, docs/knobs.md and docs/json.md from the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/moe-sweeps knobs --markdown > docs/.knobs.new && mv docs/.knobs.new docs/knobs.md
	$(BIN)/python -m moe_sweeps.cli.documents.page > docs/.json.new && mv docs/.json.new docs/json.md

tables: $(INSTALLED) ## write reports/ from the run folders and print the tables
	$(BIN)/python -m moe_sweeps.cli.tables

INTO ?= results/suite
results: $(INSTALLED) ## put finished runs of SWEEPS="aux_coef gating" into INTO=results/suite, and write its tables and the notebooks anew
	@test -n "$(SWEEPS)" || { echo 'which sweeps? make results SWEEPS="aux_coef gating"'; exit 2; }
	$(BIN)/moe-sweeps archive $(INTO)/runs $(SWEEPS)
	MOE_SWEEPS_RUNS=$(INTO)/runs ALLOW_PARTIAL=1 $(BIN)/python -m moe_sweeps.cli.tables --reports $(INTO)/tables
	$(MAKE) notebooks

notebooks: $(INSTALLED) ## execute analysis/*.ipynb in place, on $$MOE_SWEEPS_RUNS or the committed runs
	$(BIN)/python analysis/execute.py

bench: $(INSTALLED) ## measure all CPU cases in under 10 minutes and render docs/performance.md; NAME=start_up: one of them
	$(BIN)/python benchmarks/run.py $(NAME)

gpu-hour: $(INSTALLED) ## measure on a CUDA device in three calls of ten minutes: PART=1, 2, 3; DEVICE=cpu rehearses it
	@case "$(PART)" in 1|2|3) ;; *) echo 'which part? make gpu-hour PART=1 (tests), 2 (training steps) or 3 (sweeps)'; exit 2;; esac
	@$(BIN)/python benchmarks/gpu_hour.py $(PART) $(if $(DEVICE),--device=$(DEVICE)) $(if $(LIMIT),--seconds=$(LIMIT)); \
	code=$$?; test "$(DEVICE)" = cpu -o $$code = 2 || $(BIN)/python benchmarks/render.py; exit $$code

bench-gpu: ## the training steps of it: gpu-hour PART=2
	@$(MAKE) --no-print-directory gpu-hour PART=2

clean: ## remove .venv and caches; run folders, data and reports stay
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache build src/*.egg-info
