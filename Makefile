# The commands of this repository. `make quickstart` and `make test` need only Python >= 3.11.
#
# PYTHON=python3.12   which Python makes the environment
# JOBS=4              how many processes run the tests
# PIP_FLAGS=...       passed to every `pip install` (a build of torch without CUDA, a mirror)

PYTHON ?= python3
JOBS ?= 2
PIP_FLAGS ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt
TREE := workbench adaptors policies tracing cli examples tests benchmarks

# An environment is up to date when it was made from these bytes, whatever the files' dates.
KEY := $(shell cat pyproject.toml constraints.txt | cksum | cut -d ' ' -f 1)
CREATED := .venv/.created
RUNS := .venv/.runs-$(KEY)
TESTS := .venv/.tests-$(KEY)
DOCS := .venv/.docs-$(KEY)

# The monitors of others, in an environment of their own: never among the project's dependencies.
PEERS_BIN := .venv-peers/bin
PEERS_PIP := $(PEERS_BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS)
PEERS_PINS := benchmarks/peers/requirements.txt
PEERS_KEY := $(shell cat pyproject.toml constraints.txt $(PEERS_PINS) | cksum | cut -d ' ' -f 1)
PEERS := .venv-peers/.peers-$(PEERS_KEY)

.DELETE_ON_ERROR:
.PHONY: help quickstart install test lint types docs wheel bench bench-peers campaign clean clean-venv

help:
	@echo "make quickstart   install into .venv and run the digits example, from data to deployment"
	@echo "make test         install what tests need and pass them (coverage of the core >= 90 %)"
	@echo "make lint         ruff, mypy strict"
	@echo "make docs         build the site into site/, strict"
	@echo "make wheel        build sdist and wheel, run the tests against the wheel outside the checkout"
	@echo "make bench        run every benchmark, one JSON object a line"
	@echo "make bench-peers  the monitors' benchmarks beside AdaptDL, BackPACK and Cockpit, in .venv-peers"
	@echo "make campaign     the long statistical and fault campaigns"
	@echo "make clean        remove what was built (clean-venv: the environment too)"

quickstart: $(RUNS)
	$(BIN)/wb run

install: $(RUNS)

test: $(TESTS)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup --durations 15 --cov --cov-report=
	$(BIN)/python -m coverage report --include='workbench/*' --fail-under=90

lint: $(TESTS) types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy that silently missed the linked folders would be happy with three files.
types: $(TESTS)
	@said=$$($(BIN)/mypy) || { echo "$$said"; exit 1; }; echo "$$said"; \
	files=$$(find $(TREE) -name '*.py' -type f | wc -l | tr -d ' '); \
	case "$$said" in \
	  *" in $$files source files"*) ;; \
	  *) echo "mypy did not see the $$files Python files of $(TREE)" >&2; exit 1;; \
	esac

docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir site

wheel: $(TESTS)
	rm -rf dist build
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m build --quiet --outdir dist .
	JOBS=$(JOBS) sh .ci/wheel

bench: $(TESTS)
	@for file in benchmarks/*.py; do $(BIN)/python "$$file" || exit 1; done

bench-peers: $(PEERS)
	@for name in monitor_overhead noise_scale_accuracy; do \
	  $(PEERS_BIN)/python "benchmarks/$$name.py" || exit 1; done

campaign: $(TESTS)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -m campaign tests

clean:
	rm -rf build dist site htmlcov .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache *.egg-info
	find $(TREE) -name __pycache__ -type d -prune -exec rm -rf {} +

clean-venv: clean
	rm -rf .venv .venv-peers

$(CREATED):
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "make: there is no $(PYTHON); needed: Python 3.11 or newer; install it, or give make PYTHON=..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: $(PYTHON) is $$("$(PYTHON)" -V 2>&1); needed: Python 3.11 or newer; give make PYTHON=..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' || { \
	  echo "make: $(PYTHON) cannot make environments; on Debian install python3-venv" >&2; exit 1; }
	"$(PYTHON)" -m venv .venv
	@touch $@

# torch first, alone: nothing after it may choose another one.
$(RUNS): $(CREATED)
	$(PIP) torch
	$(PIP) -e .
	@touch $@

$(TESTS): $(RUNS)
	$(PIP) -e '.[dev]'
	@touch $@

$(DOCS): $(RUNS)
	$(PIP) -e '.[docs]'
	@touch $@

# torch first here too. What cannot be installed is left out: the benchmark then says so for its arms.
$(PEERS): $(CREATED)
	$(BIN)/python -m venv .venv-peers
	$(PEERS_PIP) -c constraints.txt torch
	$(PEERS_PIP) -c constraints.txt -e .
	@grep -v '^#' $(PEERS_PINS) | while read -r pin; do \
	  $(PEERS_PIP) --no-deps "$$pin" \
	  || echo "skipped: $$pin cannot be installed here; to try again: rm -r .venv-peers" >&2; done
	@touch $@
