# Each target installs what it needs, from nothing but Python 3.11 or newer, make, and the package registries.
# Only lint runs without root; it says which of Debian's packages are missing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# To build pymilter and a virtual environment; what the mail tests and the demo start; what the benchmarks compare with.
BUILD_PACKAGES := gcc libc6-dev libmilter-dev libmilter1.0.1
MAIL_PACKAGES := postfix dovecot-core dovecot-imapd dovecot-lmtpd dovecot-sieve nsd opendkim redis-server postgrey db5.3-util iproute2 openssl
# What the tests want beside that: the operator's side of it, the units, and roots of Debian 12 and 13 to install packages in.
TEST_PACKAGES := $(MAIL_PACKAGES) prometheus chromium mandoc man-db strace systemd dpkg-dev debootstrap
DEB_PACKAGES := dpkg-dev debhelper dh-python
BENCH_PACKAGES := opendkim opendmarc rspamd dkimpy-milter policyd-rate-limit postfix-policyd-spf-python
DEBIAN_PYTHON_PACKAGES := python3-milter python3-dkim python3-spf python3-authres python3-dnspython python3-cryptography python3-click \
	python3-prometheus-client python3-redis python3-aiohttp python3-structlog python3-attr python3-cattr python3-pytest python3-hypothesis python3-nacl python3-yaml

# Test suites of others, in the packages they come in.
SUITES := $(VENV)/fixtures/pyspf-2.0.14.tar.gz

.PHONY: demo test lint deb bench test-debian clean mail-packages test-packages debian-packages suites roots root
.NOTPARALLEL:

demo: mail-packages $(VENV)/test
	@KEEP=$(KEEP) $(BIN)/python -m tests.mail.demo

# Beside the others those that install the packages, which have time: the others must not wait for them.
test: test-packages $(VENV)/test suites
	tools/beside "$(BIN)/python -m pytest -q --ignore tests/packages" "nice $(BIN)/python -m pytest -q tests/packages"

lint: $(VENV)/lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The packages, into build/deb/.
deb:
	@tools/need $(DEB_PACKAGES) $(DEBIAN_PYTHON_PACKAGES)
	@tools/deb

bench: mail-packages $(VENV)/test
	@tools/need $(BENCH_PACKAGES) $(DEBIAN_PYTHON_PACKAGES)
	$(BIN)/python -m tests.packages.roots
	$(BIN)/python -m bench.run

# The same tests with Debian's own Python and its versions of every library; but not those of the packages, which bring both
# Debians' Pythons themselves.
test-debian: debian-packages suites
	/usr/bin/python3 -m pytest -q -p no:cacheprovider --ignore tests/packages

debian-packages: root
	@tools/need $(TEST_PACKAGES) $(DEBIAN_PYTHON_PACKAGES)

# What the tests install packages in. They make it themselves; this is for whoever has no network later.
roots: test-packages $(VENV)/test
	$(BIN)/python -m tests.packages.roots

root:
	@[ "$$(id -u)" -eq 0 ] || { echo "run this as root: it starts real mail servers, and their ports belong to root" >&2; exit 1; }

# In one go with what $(VENV) will need.
test-packages: MAIL_PACKAGES := $(TEST_PACKAGES)
mail-packages test-packages: root
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
