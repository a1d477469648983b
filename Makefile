PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test quick coverage minimal setup lint docs container slurm audit lock clean

# the stamp is renewed when the dependencies change
$(VENV)/.app: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.app
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable '.[dev,docs,test,train]'
	touch $@

setup: $(VENV)/.dev

# builds a small dataset and runs the participant level on it, offline
demo: $(VENV)/.app
	$(BIN)/python -m bids_inpaint.demo demo

# a file's fixtures are made once, by the worker that has the file
test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

# without real data, without torch, in less than a minute
quick: $(VENV)/.app
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not real" --ignore bids_inpaint/training

# the share of lines that the quick tests run, but for training
coverage: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not real" --ignore bids_inpaint/training \
	  --cov --cov-report term:skip-covered

# with the oldest versions that pyproject.toml allows
minimal: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv venv --quiet --allow-existing --seed --python $(BIN)/python .venv-minimal
	.venv-minimal/bin/python -m pip install --quiet torch==2.13.0
	$(BIN)/uv pip install --quiet --python .venv-minimal/bin/python --resolution lowest-direct \
	  --editable '.[test,train]'
	.venv-minimal/bin/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/lint-imports

# the site, in site/
docs: $(VENV)/.dev
	$(BIN)/mkdocs build --strict

container:
	tests/container.sh

slurm: $(VENV)/.app
	tests/slurm.sh

# known vulnerabilities of what the image installs; it asks the Python Package Index
audit: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet 'pip-audit >=2.10,<3'
	$(BIN)/pip-audit --require-hashes --disable-pip --requirement docker/requirements.txt

# everything the image installs, with hashes
lock: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
	  --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' \
	  --output-file docker/requirements.txt pyproject.toml

clean:
	rm -rf $(VENV) .venv-minimal demo build dist site *.egg-info
