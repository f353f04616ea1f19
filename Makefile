# make demo   train digits at 16x16 on this machine (a few minutes, no download) and draw samples
# make test   run the test suite          make lint   check style
# make test-full   the suite with its longer tests and XLA's default optimization, then the suite
#                  once more as a processor without AVX-512 compiles it (the instructions make hardly any
#                  difference at the level of make test)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: .venv demo test test-full lint clean

# uv installs the same packages in a fraction of the time; where it cannot, pip does.
$(VENV)/installed: setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "biggan_jax needs Python 3.11 or newer; $$($(PYTHON) --version) is $(PYTHON): make PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv && \
	  $(BIN)/python -m uv pip install --quiet --compile-bytecode --python $(BIN)/python -e '.[dev]' || \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

.venv: $(VENV)/installed

demo: $(VENV)/installed
	$(BIN)/biggan train --config configs/digits.py --workdir runs/digits
	$(BIN)/biggan sample --from runs/digits --out runs/digits/samples.png

test: $(VENV)/installed
	$(BIN)/python -m pytest

test-full: $(VENV)/installed
	BIGGAN_FULL_TESTS=1 $(BIN)/python -m pytest
	BIGGAN_FULL_TESTS=1 XLA_FLAGS=--xla_cpu_max_isa=AVX2 $(BIN)/python -m pytest -m "not full"

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python --level error
	$(BIN)/shellcheck launch/*.sh launch/*.sbatch .ci/run

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .ruff_cache
