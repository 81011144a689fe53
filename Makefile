# Everything a person or CI runs. The environment is made when it is missing or out of date.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lab check lint fix bench clean

demo: .venv/ready      ## train the main job on generated images, score it, draw it (about 3 minutes)
	$(BIN)/camoxpert demo

test: .venv/ready      ## all tests
	$(BIN)/pytest

check: lint test       ## what CI runs: lint, types, tests

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix: .venv/ready       ## what can be mended by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lab: .venv/ready       ## JupyterLab
	$(BIN)/pip install --quiet --editable ".[notebook]"
	$(BIN)/jupyter lab

bench: .venv/ready     ## speed against others, as ratios in one run (about 10 minutes)
	$(BIN)/python benchmarks/bench_model.py
	$(BIN)/python benchmarks/bench_loader.py
	$(BIN)/python benchmarks/bench_fit.py
	$(BIN)/python benchmarks/bench_metrics.py

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch .venv/ready

clean:                 ## remove the environment and caches, never runs
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
