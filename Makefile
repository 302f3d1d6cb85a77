# Each target installs what it needs, from nothing but Python 3.11 or newer, make, and the package registries.
# Only lint runs without root; it says which of Debian's packages are missing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# To build pymilter and a virtual environment; what the mail tests and the demo start; what the benchmarks compare with.
BUILD_PACKAGES := gcc libc6-dev libmilter-dev libmilter1.0.1
MAIL_PACKAGES := postfix dovecot-core dovecot-imapd dovecot-lmtpd dovecot-sieve nsd opendkim redis-server postgrey db5.3-util iproute2 openssl
BENCH_PACKAGES := opendkim opendmarc rspamd dkimpy-milter policyd-rate-limit
DEBIAN_PYTHON_PACKAGES := python3-milter python3-dkim python3-spf python3-authres python3-dnspython python3-cryptography python3-click \
	python3-prometheus-client python3-redis python3-aiohttp python3-structlog python3-attr python3-cattr python3-pytest python3-hypothesis python3-nacl python3-yaml

# Test suites of others, in the packages they come in.
SUITES := $(VENV)/fixtures/pyspf-2.0.14.tar.gz

.PHONY: demo test lint bench test-debian clean mail-packages debian-packages suites root
.NOTPARALLEL:

demo: mail-packages $(VENV)/test
	@KEEP=$(KEEP) $(BIN)/python -m tests.mail.demo

test: mail-packages $(VENV)/test suites
	$(BIN)/python -m pytest -q

lint: $(VENV)/lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: mail-packages $(VENV)/test
	@tools/need $(BENCH_PACKAGES)
	$(BIN)/python -m bench.run

# The same tests with Debian's own Python and its versions of every library.
test-debian: debian-packages suites
	/usr/bin/python3 -m pytest -q -p no:cacheprovider

debian-packages: root
	@tools/need $(MAIL_PACKAGES) $(DEBIAN_PYTHON_PACKAGES)

root:
	@[ "$$(id -u)" -eq 0 ] || { echo "run this as root: it starts real mail servers, and their ports belong to root" >&2; exit 1; }

# In one go with what $(VENV) will need.
mail-packages: root
	@tools/need $(MAIL_PACKAGES) $(if $(wildcard $(VENV)/pip),,$(BUILD_PACKAGES) $$(tools/venv --lacks $(PYTHON)))

$(VENV)/pip: tools/venv
	@tools/need $(BUILD_PACKAGES) $$(tools/venv --lacks $(PYTHON))
	@tools/venv $(PYTHON) $(VENV)
	@touch $@

$(VENV)/test: $(VENV)/pip pyproject.toml
	$(BIN)/pip install -qq --editable '.[test]'
	@touch $@

suites: $(SUITES)

# Without isolation pip reads the package's name with the venv's own setuptools and downloads no other.
$(SUITES): $(VENV)/pip tools/suites.txt
	$(BIN)/pip download -qq --dest $(@D) --no-deps --no-binary pyspf --no-build-isolation --require-hashes -r tools/suites.txt
	@touch $@

$(VENV)/lint: $(VENV)/test
	$(BIN)/pip install -qq --editable '.[lint]'
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
