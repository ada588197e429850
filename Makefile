# `make demo` and `make test` set up .venv on first use and reuse it afterwards.
PYTHON ?= python3
BIN := .venv/bin
DEVICE ?= cpu
SMALL := dpcn_small baseline_small pfenet_small pfenet_small_dcm canet_small canet_small_dcm panet_small

.PHONY: demo test test-lowest lint types bench clean

demo: .venv/.installed
	$(BIN)/python examples/demo.py

test: .venv/.installed lint types
	$(BIN)/python -m pytest -n 2

# The functional and module tests on the lowest torch that pyproject.toml allows, in an environment of its own.
LOWEST := $(shell sed -n 's/.*"torch>=\([0-9.]*\)".*/\1/p' pyproject.toml)
# Left out: Triton's tests, since the interpreter that came with that torch fails with current numpy; and errors for
# deprecations, since its compiler warns about its own code.
test-lowest: .venv-lowest/.installed
	PYTHONPATH=src:tests .venv-lowest/bin/python -m pytest -q -p no:cacheprovider tests/functional tests/modules \
		--ignore=tests/functional/test_triton_backend.py -W ignore::DeprecationWarning

.venv-lowest/.installed: pyproject.toml
	$(PYTHON) -m venv --clear .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet "torch==$(LOWEST)" einops numpy pytest hypothesis
	touch $@

lint: .venv/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/.installed
	$(BIN)/mypy

# Every speed benchmark at a small size; the results that are published need the commands in benchmarks/README.md.
bench: BENCH = $(BIN)/python benchmarks/$(1).py --device $(DEVICE) --out runs/bench/$(1)_$(DEVICE).json
bench: .venv/.installed
	$(call BENCH,dynamic_conv) --batch 1 4 --channels 64 --sizes 40 --kernels dpcn 5 --repeats 3
	$(call BENCH,region_matching) --sizes 20 30 --channels 256 --repeats 3
	$(call BENCH,episode) --size 97 --shots 1 --repeats 3 --models $(SMALL)
	$(call BENCH,evaluation) --model dpcn_small --size 64 --episodes 40
	$(call BENCH,loader) --model dpcn_small --size 64 --batch 4 --count 2 --repeats 3
	$(call BENCH,feature_store) --model dpcn_small --size 65 --channels 16 --batch 4 --repeats 3
	mkdir -p runs/bench && $(BIN)/python benchmarks/plots.py --results runs/bench --out runs/bench

.venv/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("dpcn_modules needs Python >= 3.11, and $(PYTHON) is " + sys.version.split()[0] + "; name a newer one: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv .venv-lowest runs build dist .pytest_cache .mypy_cache .ruff_cache
