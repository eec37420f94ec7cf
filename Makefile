# make install | train | test | test-faults | install-peers | clean. Needs make and Python >= 3.11,
# nothing else.
#
#   PYTHON=/path/to/python3      the Python to build .venv with (default: the first one that fits)
#   ACCELERATOR=cuda12|cuda13|tpu   install JAX for it (default: CPU)
#   ARGS="--config.train.steps=9"   more flags for `make train`, more options for `make test`

PYTHON =
ACCELERATOR =
ARGS =
CONFIG = experiments/configs/audioset.py:mini
WORKDIR = runs/audioset_mini
TEST_PROCESSES = 2

VENV = .venv
EXTRAS = atari,test$(if $(ACCELERATOR),$(comma)$(ACCELERATOR))
STAMP = $(VENV)/installed$(if $(ACCELERATOR),-$(ACCELERATOR))
comma = ,
PEERS = .venv-peers

.PHONY: install train test test-faults install-peers clean

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
	rm -rf $(VENV) $(PEERS) build dist *.egg-info .pytest_cache .ruff_cache

# PyTorch and its Perceivers, which `python -m experiments.benchmark --peers=...` compares with.
install-peers: $(PEERS)/installed
	@if nvidia-smi >/dev/null 2>&1; then $(MAKE) --no-print-directory $(PEERS)/installed-flash; fi
	@echo 'Installed in $(PEERS); next: $(VENV)/bin/python -m experiments.benchmark --help'

$(STAMP): setup.py
	$(call make_venv,$(VENV))
	$(call pip_install,$(VENV),$(EXTRAS))

$(PEERS)/installed: setup.py
	$(call make_venv,$(PEERS))
	$(call pip_install,$(PEERS),peers)

# Minutes to hours where flash-attn has no wheel for the torch that is there.
$(PEERS)/installed-flash: $(PEERS)/installed
	$(call pip_install,$(PEERS),flash_peer,--no-build-isolation)

# A candidate has to run (a version manager's shim may exist and fail), to be new enough, and to be
# able to make environments (some systems package ensurepip apart).
define make_venv
	@if [ ! -x $(1)/bin/python ]; then \
	  for python in $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3 python); do \
	    if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
	        >/dev/null 2>&1; then found=$$python; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "No usable Python: looked for $(if $(PYTHON),$(PYTHON),python3.13 python3.12 python3.11 python3 python)," >&2; \
	    echo "need 3.11 or newer that can make environments (on Debian and Ubuntu: package python3-venv)." >&2; \
	    echo "Install one, or name yours: make install PYTHON=/path/to/python3" >&2; \
	    exit 1; \
	  fi; \
	  echo "Making $(1) with $$found ($$("$$found" --version))"; \
	  rm -rf $(1); "$$found" -m venv $(1) || exit 1; \
	fi
endef

# Installs this project's extras into an environment; a dot for each package.
define pip_install
	@printf 'Installing perceiver-haiku[$(2)], a minute or two '
	@rm -f $@; \
	{ $(1)/bin/python -m pip install --disable-pip-version-check $(3) -e '.[$(2)]' && touch $@; } \
	  | while read -r word rest; do case $$word in Collecting|Installing) printf '.';; esac; done; \
	if [ -f $@ ]; then echo ' done'; else echo ' failed, see above' >&2; exit 1; fi
endef
