# Everything a newcomer needs: `make run`, then `make test`. `make help` lists the rest.
PYTHON ?= python3
PYTHONS ?= 3.11 3.12 3.13
BIN := .venv/bin
DONE := .venv/.installed
PYTEST := $(BIN)/pytest -n 2 --dist loadfile
export PYTHONDONTWRITEBYTECODE =
# threads without work sleep instead of spinning: several processes share the cores
export OMP_WAIT_POLICY ?= PASSIVE
export OPENBLAS_THREAD_TIMEOUT ?= 12

.PHONY: help setup run test sample test-notebooks test-quick test-slow test-deep test-pythons bench bench-serve bench-monitor bench-live bench-quality bench-data app lab prepare notebooks readme lock lint clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# nbdev-export touches pyproject.toml each time; what changes there goes into the lock by `make lock`
$(DONE): requirements.lock setup.py
	@echo "Setting up .venv: about 900 MB of packages are downloaded once (Python 3.11 or newer; uses uv)."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}; set PYTHON=python3.12 or the like")'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv  # a half-made one is made anew
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@$(BIN)/python -c "from mlops_nb.pipeline.kernel import install_kernelspec; install_kernelspec()"
	@$(BIN)/python -m compileall -q mlops_nb
	@if git rev-parse --git-dir >/dev/null 2>&1; then HOME=$(CURDIR)/.venv $(BIN)/nbdev-install-hooks >/dev/null && sed -i.old 's#= nbdev-#= .venv/bin/nbdev-#' .gitconfig && rm -f .gitconfig.old; fi
	@touch $(DONE)

setup: $(DONE) ## install everything into .venv

run: $(DONE) ## the main job: raw data -> a registered model and a report
	@$(BIN)/mlops-nb run

test: lint test-notebooks test-quick ## lint, nbdev-test and the quick part of pytest; make -k goes on to the end

test-notebooks: sample # the notebooks' own tests, on what `sample` made
	@$(BIN)/nbdev-test --n-workers 2

test-quick: $(DONE) # the quick part of pytest
	@$(PYTEST) -m "not slow and not deep"

sample: $(DONE) # the run on few rows that the notebooks' own tests read
	@$(BIN)/mlops-nb run --sample 2000

test-slow: $(DONE) ## the long tests: whole journeys, faults, simulations
	@$(PYTEST) -m "slow and not deep"

test-deep: $(DONE) ## everything, with full counts and the longest journeys
	@$(MAKE) --no-print-directory test
	@$(PYTEST) -m "slow or deep"

test-pythons: $(DONE) ## a sample run and the contracts with other Pythons (PYTHONS="3.12 3.13"); installs them under .bench/
	@for python in $(PYTHONS); do scripts/test_python $$python || exit 1; done

bench: $(DONE) ## the benchmarks; each figure ends as: bench NAME VALUE GOAL holds|short
	@for bench in tests/bench/[a-z]*.py; do $(BIN)/python $$bench || exit 1; done

bench-serve: $(DONE) ## our service beside others, under load; installs them under .bench/
	@$(BIN)/python tests/bench/serve/run.py

bench-monitor: $(DONE) ## our drift figures, false alarms and delays beside Evidently's and NannyML's; installs them under .bench/
	@$(BIN)/python tests/bench/monitor.py --peers
	@$(BIN)/python tests/bench/alarms/run.py --peers

bench-live: $(DONE) ## monitor and log query over many live rows, beside an older commit checked out under .bench/: ROWS="250000 1000000 4000000", a window of WINDOW=10000000
	@test -f .mlops/sample/mlflow.db || $(MAKE) --no-print-directory sample
	@$(BIN)/python tests/bench/live/run.py --peers $(if $(ROWS),--rows $(ROWS)) $(if $(WINDOW),--window $(WINDOW))

bench-data: $(DONE) ## data checkout beside plain dvc checkout; memory of ingest, validate and split over large Parquet files: ROWS="100000 1000000 10000000"
	@$(BIN)/python tests/bench/versions.py
	@$(BIN)/python tests/bench/large/run.py $(if $(ROWS),--rows $(ROWS))

bench-quality: $(DONE) ## our default models beside HGB, FLAML, AutoGluon: TABLES=folder of CSVs, GROWTH=1, BENCH="--budget 20"
	@$(BIN)/python tests/bench/quality/run.py $(if $(TABLES),--tables "$(TABLES)") $(if $(GROWTH),--growth) $(BENCH)

app: $(DONE) ## the app for people who don't code, http://127.0.0.1:8501
	@$(BIN)/mlops-nb app

lab: $(DONE) ## JupyterLab
	@$(BIN)/mlops-nb lab

prepare: $(DONE) ## after editing notebooks: export, clean, lint
	@$(BIN)/nbdev-export
	@$(BIN)/nbdev-clean
	@$(MAKE) --no-print-directory readme lint

notebooks: $(DONE) ## run the notebooks (stages on the sample store) and keep their outputs
	@$(BIN)/nbdev-test --save --n-workers 2
	@$(BIN)/nbdev-clean

lock: $(DONE) ## renew requirements.lock from pyproject.toml; pip takes it as constraints, too
	@$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --upgrade --no-header --no-annotate --quiet -o requirements.lock

readme: $(DONE) ## README.md from nbs/index.ipynb, the table of tasks from the tasks
	@$(BIN)/python scripts/build_tasks.py
	@$(BIN)/jupyter nbconvert --log-level ERROR --to markdown nbs/index.ipynb --output-dir . --output README
	@sed -i.old 's#](images/#](nbs/images/#' README.md && rm README.md.old

lint: $(DONE) ## ruff and mypy on the generated package, the app and the tests
	@$(BIN)/ruff check mlops_nb app tests scripts
	@$(BIN)/mypy

clean: ## remove the store, the reports and caches; the environment stays
	@rm -rf .mlops build dist .pytest_cache .mypy_cache .ruff_cache
	@find reports -mindepth 1 ! -name README.md -delete
