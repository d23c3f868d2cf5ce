PYTHON ?= python3
BIN := .venv/bin

.PHONY: install dev demo check test bench chaos fuzz lock clean
install: .venv/.installed

.venv/.python:
	$(PYTHON) -m venv .venv
	touch $@

.venv/.installed: .venv/.python requirements.lock pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation -e .
	touch $@

dev: .venv/.dev
.venv/.dev: .venv/.installed requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	touch $@

demo: install
	$(BIN)/relay demo $(if $(ONCE),--once)

check: dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

test: dev
	scripts/test-servers
	$(BIN)/pytest -n 2 --dist worksteal $(PYTEST)

bench: dev
	scripts/test-servers
	$(BIN)/python -m bench
	$(BIN)/python -m bench.directory

chaos: dev
	scripts/test-servers
	RELAIS_CHAOS=$(or $(SEEDS),20) $(BIN)/pytest -n 2 --timeout 600 tests/test_crash.py

fuzz: dev
	RELAIS_FUZZ=$(or $(TIMES),50) $(BIN)/pytest -n 2 --timeout 3600 -m hypothesis

lock: .venv/.python
	scripts/lock

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
