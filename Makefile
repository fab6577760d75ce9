# make help: what there is. Each target installs what it needs into .venv first (PYTHON chooses the interpreter, 3.11 or newer).
PYTHON ?= python3
RUN := .venv/bin/python
# a process a core, up to four, of one thread each; the tests of a file stay together
TESTS := OMP_NUM_THREADS=1 $(RUN) -m pytest -q -n auto --maxprocesses 4 --dist loadfile

.PHONY: help demo test test-all bench docs lint format samples clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*##/\t/' | expand -t 12

.venv/ready: pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'error: $(PYTHON) is older than Python 3.11; name a newer one: make PYTHON=python3.12'; exit 2; }
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check uv==0.13.9
	.venv/bin/uv sync --frozen --inexact --compile-bytecode --quiet
	@touch .venv/ready

demo: .venv/ready  ## the whole pipeline on the samples, ending in two tables and a page (about 10 minutes on 2 cores)
	$(RUN) -m datasets.make_samples --output runs/demo/phantoms --volumes 400 --images 400 --labelled 80
	$(RUN) run_pipeline.py --config configs/demo.yaml

test: .venv/ready  ## the fast tests
	$(TESTS) -m "not slow"

test-all: .venv/ready  ## all tests (under an hour)
	$(TESTS)

bench: .venv/ready  ## ours against other libraries, side by side (half an hour)
	$(RUN) benchmarks/run.py

docs: .venv/ready  ## the pages of README.md and docs/ as a site, in site/ (open site/index.html; its search needs a server: python3 -m http.server -d site)
	.venv/bin/uv sync --frozen --inexact --quiet --group docs
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet

lint: .venv/ready  ## ruff: lint and format
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

format: .venv/ready  ## let ruff format the code
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

samples: .venv/ready  ## make the sample data anew (the same, but for the rounding of a processor)
	$(RUN) -m datasets.make_samples

clean:  ## remove what runs and tools left
	rm -rf runs site build *.egg-info .pytest_cache .hypothesis .ruff_cache
