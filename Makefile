# make install | train | test | test-faults | install-peers | lock | clean. Needs make and Python 3.11,
# 3.12 or 3.13, nothing else.
#
#   PYTHON=/path/to/python3      the Python to build .venv with (default: the first one that fits)
#   ACCELERATOR=cuda12|cuda13|tpu   install JAX for it (default: CPU)
#   NEWEST=1                     the newest packages, on any Python >= 3.11, instead of those of
#                                requirements.lock; see docs/versions.md
#   ARGS="--config.train.steps=9"   more flags for `make train`, more options for `make test`

PYTHON =
ACCELERATOR =
NEWEST =
ARGS =
LOCK = $(if $(NEWEST),,requirements.lock)
CONFIG = experiments/configs/audioset.py:mini
WORKDIR = runs/audioset_mini
TEST_PROCESSES = 2

VENV = .venv
EXTRAS = atari,test$(if $(ACCELERATOR),$(comma)$(ACCELERATOR))
STAMP = $(VENV)/installed-$(or $(notdir $(LOCK)),newest)$(if $(ACCELERATOR),-$(ACCELERATOR))
comma = ,
PEERS = .venv-peers

.PHONY: install train test test-faults install-peers lock clean

install: $(STAMP)
	@echo 'Installed in $(VENV); next: make train, make test'

# Huge pages for large arrays (glibc >= 2.35, else ignored): on a CPU a step takes up to a fifth less time.
train: $(STAMP)
	GLIBC_TUNABLES=$${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1} \
	  $(VENV)/bin/python -m experiments.train --config=$(CONFIG) --workdir=$(WORKDIR) $(ARGS)

test: $(STAMP)
	$(VENV)/bin/python -m pytest -n $(TEST_PROCESSES) --dist loadgroup $(ARGS)

# Training runs killed at random, some ten minutes; KILLS=9 for fewer.
KILLS = 50
test-faults: $(STAMP)
	PERCEIVER_RANDOM_KILLS=$(KILLS) $(VENV)/bin/python -m pytest -s -n 0 tests/experiments/test_faults.py

clean:
	rm -rf $(VENV) .venv-newest $(PEERS) build dist *.egg-info .pytest_cache .ruff_cache

# PyTorch and its Perceivers, which `python -m experiments.benchmarks.step --peers=...` compares with.
install-peers: $(PEERS)/installed
	@if nvidia-smi >/dev/null 2>&1; then $(MAKE) --no-print-directory $(PEERS)/installed-flash; fi
	@echo 'Installed in $(PEERS); next: $(VENV)/bin/python -m experiments.benchmarks.step --help'

$(STAMP): setup.py $(LOCK)
	$(call make_venv,$(VENV))
	$(call pip_install,$(VENV),$(EXTRAS),$(if $(LOCK),--constraint $(LOCK),--upgrade --upgrade-strategy eager))

$(PEERS)/installed: setup.py
	$(call make_venv,$(PEERS))
	$(call pip_install,$(PEERS),peers)

# One file of exact versions for all Pythons and accelerators, and one of the oldest that setup.py
# allows. setuptools is in it for what is built here: this project, and packages without a wheel.
LOCKED_EXTRAS = --extra atari --extra test --extra cuda12 --extra cuda13 --extra tpu
COMPILE = $(VENV)/bin/python -m uv pip compile --quiet --python-version 3.11 --no-annotate \
  --custom-compile-command 'make lock' $(LOCKED_EXTRAS) setup.py -
lock:
	$(call make_venv,$(VENV))
	$(VENV)/bin/python -m pip install --quiet --upgrade uv
	printf 'setuptools>=64\nwheel>=0.40\n' | $(COMPILE) --universal --upgrade --output-file requirements.lock
	printf 'setuptools>=64\nwheel>=0.40\n' | $(COMPILE) --resolution lowest-direct --upgrade --output-file requirements-oldest.lock

# Minutes to hours where flash-attn has no wheel for the torch that is there.
$(PEERS)/installed-flash: $(PEERS)/installed
	$(call pip_install,$(PEERS),flash_peer)

# A candidate has to run (a version manager's shim may exist and fail), to be one that the lock holds
# for, and to be able to make environments (some systems package ensurepip apart).
PYTHONS = $(if $(PYTHON),"$(PYTHON)",python3 python3.13 python3.12 python3.11 python)
FITS = (3, 11) <= sys.version_info$(if $(LOCK), < (3, 14))
define make_venv
	@if [ ! -x $(1)/bin/python ]; then \
	  for python in $(PYTHONS); do \
	    if "$$python" -c 'import sys, venv, ensurepip; sys.exit(not $(FITS))' \
	        >/dev/null 2>&1; then found=$$python; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo 'No usable Python: looked for $(PYTHONS),' >&2; \
	    echo 'need 3.11, 3.12 or 3.13 that can make environments (on Debian and Ubuntu: package python3-venv).' >&2; \
	    echo 'Install one, or name yours: make install PYTHON=/path/to/python3' >&2; \
	    echo 'A newer Python gets the newest packages, which we may not have tried: make install NEWEST=1' >&2; \
	    exit 1; \
	  fi; \
	  echo "Making $(1) with $$found ($$("$$found" --version))"; \
	  rm -rf $(1); "$$found" -m venv $(1) || exit 1; \
	fi
endef

# Installs this project's extras into an environment; a dot for each package. What has to be built is
# built by the setuptools of the same lock.
define pip_install
	@printf 'Installing perceiver-haiku[$(2)]$(if $(3), ($(strip $(3)))), a minute or two '
	@rm -f $(1)/installed*; \
	{ $(1)/bin/python -m pip install --disable-pip-version-check $(3) setuptools wheel && \
	  $(1)/bin/python -m pip install --disable-pip-version-check --no-build-isolation $(3) \
	    -e '.[$(2)]' && touch $@; } \
	  | while read -r word rest; do case $$word in Collecting|Installing) printf '.';; esac; done; \
	if [ -f $@ ]; then echo ' done'; else echo ' failed, see above' >&2; exit 1; fi
endef
