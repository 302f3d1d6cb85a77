# Each target installs what it needs, from nothing but Python 3.11 or newer, make, and the package registries.
# Debian's packages need root; without it a target says what to install.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# To build pymilter and a virtual environment; what the mail tests and the demo start; what the benchmarks compare with.
BUILD_PACKAGES := gcc libc6-dev libmilter-dev libmilter1.0.1
MAIL_PACKAGES := postfix dovecot-core nsd opendkim
BENCH_PACKAGES := opendkim rspamd dkimpy-milter openssl
DEBIAN_PYTHON_PACKAGES := python3-milter python3-dkim python3-dnspython python3-cryptography python3-click \
	python3-prometheus-client python3-structlog python3-attr python3-cattr python3-pytest python3-hypothesis python3-nacl

.PHONY: demo test lint types bench test-debian clean

demo: $(VENV)/test
	@tools/need $(MAIL_PACKAGES)
	@KEEP=$(KEEP) $(BIN)/python -m tests.mail.demo

test: $(VENV)/test
	@tools/need $(MAIL_PACKAGES)
	$(BIN)/python -m pytest -q

lint: $(VENV)/lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/test
	@tools/need $(MAIL_PACKAGES) $(BENCH_PACKAGES)
	$(BIN)/python -m bench.run

# The same tests with Debian's own Python and its versions of every library.
test-debian:
	@tools/need $(MAIL_PACKAGES) $(DEBIAN_PYTHON_PACKAGES)
	/usr/bin/python3 -m pytest -q -p no:cacheprovider

$(VENV)/pip: pyproject.toml tools/need tools/venv
	@tools/need $(BUILD_PACKAGES)
	@tools/venv $(PYTHON) $(VENV)
	@touch $@

$(VENV)/test: $(VENV)/pip
	$(BIN)/pip install -qq --editable '.[test]'
	@touch $@

$(VENV)/lint: $(VENV)/test
	$(BIN)/pip install -qq --editable '.[lint]'
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info
