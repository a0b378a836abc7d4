# Everything that a fresh clone needs: python3 (3.11 or newer) and make.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# A process a core, a thread each: threads of several processes on the same cores slow each other down many times.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

DOCS_READY := .venv/.docs-ready

RUN_NOTEBOOKS = $(BIN)/python docs/run_notebooks.py build/notebooks docs/notebooks && touch docs/notebooks/.ready

.PHONY: train test test-all coverage surface lint types docs notebooks bench-synthetic bench-plain bench-data bench-eval \
	bench-localisation bench-kills bench-train bench-predict bench-gpu

train: $(READY)  ## train on the embedded data and evaluate
	$(BIN)/python train.py evaluate=true

test: $(READY)  ## the tests, without the slow ones
	$(PYTEST)

test-all: $(READY)  ## the slow tests
	$(PYTEST) -m slow

coverage: $(READY)  ## lines of the package that no fast test runs
	$(PYTEST) --cov=cxrlit --cov-report=term-missing:skip-covered

surface: $(READY)  ## rewrite tests/surface.txt, what a user can see
	OMP_NUM_THREADS=1 $(BIN)/python tests/surface.py

lint: $(READY)  ## style, and that imports go down the floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(READY)
	$(BIN)/mypy

docs: $(DOCS_READY) docs/notebooks/.ready  ## the documentation site, in build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --clean

notebooks: $(DOCS_READY)  ## run the notebooks: four minutes; make docs shows their outputs
	$(RUN_NOTEBOOKS)

bench-synthetic: $(READY)  ## how hard the synthetic data are
	$(BIN)/python benchmarks/synthetic_difficulty.py

bench-plain: $(READY)  ## against a plain training loop, on real images: make bench-plain ROOT=PATH
	$(BIN)/python benchmarks/plain_loop.py --root $(ROOT)

bench-data: $(READY)  ## the data layer against the plain way to do the same
	$(BIN)/python benchmarks/data.py $(KEEP)

bench-eval: $(READY)  ## the statistics of an evaluation against loops over scikit-learn
	$(BIN)/python benchmarks/evaluation.py $(KEEP)

bench-localisation: $(READY)  ## heatmaps of all labels against the forward pass alone
	$(BIN)/python benchmarks/localisation.py $(KEEP)

bench-train: $(READY)  ## the recipe against a plain script, the Trainer against bare PyTorch: make bench-train ROOT=PATH
	$(BIN)/python benchmarks/trainer.py $(KEEP)
	$(BIN)/python benchmarks/recipe.py --root $(ROOT) --seeds 0 1 2 $(KEEP)
	$(BIN)/python benchmarks/folds.py --root $(ROOT) $(KEEP)

bench-predict: $(READY)  ## a bundle on files against the plain way to do the same, its start, its page
	$(BIN)/python benchmarks/predict.py $(KEEP)
	$(BIN)/python benchmarks/demo.py $(KEEP)

bench-gpu: $(READY)  ## what needs a GPU: tests, the CPU beside it, images a second
	benchmarks/gpu.sh $(BIN)/python $(KEEP)

bench-kills: $(READY)  ## kill a training at random moments and compare with one that was not
	$(BIN)/python benchmarks/kills.py $(KEEP)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev]'
	touch $@

$(DOCS_READY): $(READY)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[docs]'
	touch $@

# The pages of the notebooks: made where there are none, or where a notebook is newer.
docs/notebooks/.ready: $(DOCS_READY) $(wildcard notebooks/*.ipynb)
	$(RUN_NOTEBOOKS)
