# Everything a person or CI runs. The environment is made when it is missing or out of date.
PYTHON ?= python3
BIN := .venv/bin
# Notebooks start processes; one thread each, or they fight for the cores.
QUIET := OMP_NUM_THREADS=1 PYDEVD_DISABLE_FILE_VALIDATION=1 CAMOXPERT_CACHE=$(CURDIR)/build/cache
NBVAL := -p no:cacheprovider --nbval-lax --nbval-current-env --nbval-cell-timeout=180

.PHONY: demo test faults mutants notebooks browser gallery kaggle kaggle-notebooks kaggle-check all-check ready-check lab check lint fix bench gpu clean

demo: .venv/ready      ## train the main job on generated images, score it, draw it (4 to 8 minutes)
	$(BIN)/camoxpert demo

test: .venv/ready      ## all tests, then the notebooks from top to bottom (25 to 40 minutes on two cores)
	$(BIN)/pytest -n logical --dist loadfile
	$(MAKE) notebooks

faults: .venv/ready    ## break it on purpose and print what became of it (about an hour); NAMES="kill disk" for some
	PYTHONPATH=tests $(BIN)/python -m faults $(NAMES)

mutants: .venv/ready   ## change the code a little, many times, and count what the tests notice (hours); ROOMS="data runs" for some
	$(BIN)/pip install --quiet --editable ".[mutants]"
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutants.py $(ROOMS)

notebooks: .venv/ready ## every notebook, in a scratch folder where they hand over to each other
	rm -rf build/notebooks && mkdir -p build/notebooks && cp notebooks/*.ipynb build/notebooks
	$(QUIET) $(BIN)/pytest $(NBVAL) build/notebooks

browser: .venv/ready   ## the notebooks in a real browser, Debian's chromium (about a minute)
	$(BIN)/pip install --quiet --editable ".[browser]"
	CAMOXPERT_BROWSER=1 OMP_NUM_THREADS=1 $(BIN)/pytest tests/test_browser.py

gallery: .venv/ready   ## run every notebook in a browser and picture it (about 10 minutes)
	$(BIN)/pip install --quiet --editable ".[browser]"
	OMP_NUM_THREADS=1 $(BIN)/python tests/screenshots.py

kaggle: .venv/ready    ## what to upload to Kaggle, into kaggle/build; KAGGLE_USER=name, yours
	$(BIN)/camoxpert kaggle build kaggle/build --user "$(KAGGLE_USER)"

kaggle-notebooks: .venv/ready ## the code in kaggle/*.ipynb, made anew after a change of the package
	$(BIN)/camoxpert kaggle renew

kaggle-check: all-check ready-check   ## every notebook in Kaggle's older Jupyter, as HTML

all-check: build/venv-kaggle/ready     ## those that hand over to each other
	rm -rf build/kaggle && mkdir -p build/kaggle && cp notebooks/*.ipynb build/kaggle
	cd build/kaggle && $(QUIET) ../venv-kaggle/bin/python -m nbconvert --log-level WARN --to html \
	  --execute --ExecutePreprocessor.timeout=180 0*.ipynb

ready-check: build/venv-kaggle/ready   ## the two ready ones, one after the other
	rm -rf build/ready && mkdir -p build/ready && cp kaggle/camoxpert_*.ipynb build/ready
	$(BIN)/python -c "from camoxpert_nb import make_synthetic as make; make('build/ready/input/zoo', size=96)"
	cd build/ready && for name in train predict; do $(QUIET) ../venv-kaggle/bin/python -m nbconvert \
	  --log-level WARN --to html --execute --ExecutePreprocessor.timeout=600 camoxpert_$$name.ipynb \
	  || exit 1; export CAMOXPERT_INPUT=$(CURDIR)/build/ready/input; done

# Kaggle's Jupyter over this environment's PyTorch: one download less.
build/venv-kaggle/ready: kaggle/constraints.txt .venv/ready
	$(PYTHON) -m venv build/venv-kaggle
	build/venv-kaggle/bin/pip install --quiet --constraint kaggle/constraints.txt ipykernel ipython \
	  ipywidgets traitlets jupyter_client nbconvert nbclient
	(ls -d $(CURDIR)/.venv/lib/python3*/site-packages; echo $(CURDIR)) \
	  > $$(ls -d build/venv-kaggle/lib/python3*/site-packages)/camoxpert.pth
	touch $@

check: lint test       ## what CI runs: lint, types, tests

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix: .venv/ready       ## what can be mended by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lab: .venv/ready       ## JupyterLab; the notebooks work in this folder, so runs/ is everybody's
	$(BIN)/pip install --quiet --editable ".[notebook]"
	$(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb

bench: .venv/ready     ## speed against others, as ratios in one run (about 10 minutes)
	$(BIN)/python benchmarks/bench_model.py
	$(BIN)/python benchmarks/bench_step.py
	$(BIN)/python benchmarks/bench_loader.py
	$(BIN)/python benchmarks/bench_fit.py
	$(BIN)/python benchmarks/bench_cost.py
	$(BIN)/python benchmarks/bench_metrics.py
	$(BIN)/python benchmarks/bench_export.py
	$(BIN)/python benchmarks/bench_dashboard.py

gpu: .venv/ready       ## what only a GPU shows, in phases that are not done twice (about 8 minutes)
	$(BIN)/python benchmarks/gpu.py --out build/gpu

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch .venv/ready

clean:                 ## remove the environment and caches, never runs
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
