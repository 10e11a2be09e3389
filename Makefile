# The front door. Every target does its own set-up on a fresh clone; all it needs is Python 3.11 or later, pip/venv and make.
#   make demo    a message from a client through the relay to a SparkPost stand-in, all on this machine
#   make test    every test
#   make fuzz    a million odd inputs to everything that reads what others have written
#   make lint types docs-check bench    see below

PYTHON ?= python3
UV     := .uv/bin/uv
RUN    := .venv/bin
export UV_PYTHON_DOWNLOADS = never
export UV_PYTHON = $(PYTHON)
# Trust what the system trusts, as pip does: some companies reach the package index through an authority of their own.
export UV_SYSTEM_CERTS = 1

# The program as it is compiled (hatch_build.py), in place of its sources.
COMPILED := env PYTHONPATH=$(CURDIR)/build/compiled:$(CURDIR) PYTHONSAFEPATH=1

.PHONY: demo test test-compiled fuzz lint types docs-check bench coverage with-pip clean

demo: .venv/ready
	@$(RUN)/sparkpost-relay demo

test: .venv/ready
	$(RUN)/pytest

# What is compiled is tested as it is compiled, and so is the program where it matters most. All other tests can be named:
#   make test-compiled COMPILED_TESTS=tests/e2e
COMPILED_TESTS := tests/unit tests/dialog tests/property tests/upstream tests/spool \
  $(patsubst %,tests/e2e/test_%.py,answers clients commands identities kill limits memory smuggling spooled tolerances)
test-compiled: build/compiled/ready
	$(COMPILED) $(RUN)/pytest -o pythonpath= $(COMPILED_TESTS)

fuzz: .venv/ready
	$(RUN)/python -m tests.fuzz

lint: .venv/ready
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/lint-imports

types: .venv/ready
	$(RUN)/mypy

docs-check: .venv/ready
	$(RUN)/pytest tests/docs

# All of them, whatever one of them finds.
bench: .venv/ready
	@$(MAKE) --no-print-directory build/compiled/ready || echo "not compiled: the relay is measured as its sources run" >&2
	@status=0; for part in 'benchmarks --quick' 'benchmarks.ingress --quick' benchmarks.scenarios 'benchmarks.spool --quick'; do \
	  echo "== python -m $$part"; $(COMPILED) $(RUN)/python -m $$part || status=1; echo; done; exit $$status

coverage: .venv/ready
	$(RUN)/coverage run -m pytest
	$(RUN)/coverage combine --quiet
	$(RUN)/coverage report

# uv lives in an environment of its own: `uv sync` makes .venv exactly what uv.lock says, and would remove itself from it.
$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or later is needed; name one with: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "setting up (once) ..."
	@$(PYTHON) -m venv .uv
	@.uv/bin/pip install --quiet --disable-pip-version-check 'uv>=0.5'

.venv/ready: $(UV) pyproject.toml uv.lock
	@$(UV) sync --frozen --all-groups --quiet || $(MAKE) --no-print-directory with-pip
	@touch $@

# Where only pip is told the way to the packages (a mirror in pip.conf, a proxy): the same versions, the same hashes.
with-pip:
	@echo "uv did not get the packages; trying pip ..." >&2
	@$(PYTHON) -m venv --clear .venv
	@$(UV) export --frozen --all-groups --no-emit-project --quiet --output-file .venv/requirements.txt
	@$(RUN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement .venv/requirements.txt
	@$(RUN)/pip install --quiet --disable-pip-version-check --no-deps --editable .

build/compiled/ready: .venv/ready hatch_build.py pyproject.toml $(shell find relay -name '*.py')
	@rm -rf build/compiled build/wheel
	@HATCH_BUILD_HOOKS_ENABLE=1 $(UV) build --quiet --wheel --out-dir build/wheel
	@$(RUN)/python -m zipfile --extract build/wheel/*.whl build/compiled
	@touch $@

clean:
	rm -rf build .venv .uv .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage* benchmarks/build
