# Two commands do everything: `make demo` and `make test`. Both make the virtual environment first.
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers
NPM_PEERS := .npm-peers
export CI
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# With it every process compiles the agent anew, as at no site: tests take longer, and a start is measured wrong.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo drill test soak lint docs bench lock debian-peers clean

help:
	@echo "make demo    one simulated ATM, an agent, a broker and a subscriber, for 45 seconds"
	@echo "             make demo ARGS=--serve leaves them running and says what to try"
	@echo "make drill   two people practise a key ceremony, step by step; ARGS=--auto plays both"
	@echo "make test    all checks and tests; installs the Debian packages of the peers when it may"
	@echo "make soak    the long forms of the tests: power cuts, for ten minutes"
	@echo "             make soak SOAK=kills kills the agent a thousand times while the broker comes and goes"
	@echo "make bench   the figures that README quotes"
	@echo "make docs    write docs/points.md and docs/asyncapi.yaml again"
	@echo "make lock    write the lock files again"

setup: $(VENV)/installed

$(VENV)/installed: requirements/lock.txt pyproject.toml
	python3 -m venv $(VENV)
	$(BIN)/pip install --quiet --no-deps --require-hashes --requirement requirements/lock.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(PEERS)/installed: requirements/peers.lock.txt
	python3 -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --require-hashes --requirement requirements/peers.lock.txt
	touch $@

# Without npm this is left out, and the tests that need it are skipped by name.
$(NPM_PEERS)/installed: tests/peers/ssp/package.json tests/peers/ssp/package-lock.json | debian-peers
	@mkdir -p $(NPM_PEERS)
	cp tests/peers/ssp/package.json tests/peers/ssp/package-lock.json $(NPM_PEERS)/
	if command -v npm >/dev/null; then \
	    npm ci --ignore-scripts --no-audit --no-fund --silent --prefix $(NPM_PEERS) && touch $@; fi

debian-peers:
	@tests/install-debian-peers

demo: setup
	$(BIN)/python -m hwsim.demo deploy/demo $(ARGS)

drill: setup
	$(BIN)/python -m hwsim.drill deploy/drill $(ARGS)

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: setup $(PEERS)/installed debian-peers $(NPM_PEERS)/installed lint
	$(BIN)/pytest $(ARGS)

soak: setup debian-peers
	$(BIN)/python -m tests.$(or $(SOAK),powercut) $(ARGS)

docs: setup
	$(BIN)/python docs/generate.py

bench: setup debian-peers
	$(BIN)/python -m bench $(ARGS)

lock: setup
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra demo --universal --python-version 3.11 \
	    --generate-hashes --no-header --quiet --output-file requirements/lock.txt
	$(BIN)/uv pip compile requirements/peers.in --universal --python-version 3.11 \
	    --generate-hashes --no-header --quiet --output-file requirements/peers.lock.txt

clean:
	rm -rf $(VENV) $(PEERS) $(NPM_PEERS) run build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
