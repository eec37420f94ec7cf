# make install | train | test | test-faults | clean. Needs make and Python >= 3.11, nothing else.
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

.PHONY: install train test test-faults clean

install: $(STAMP)
	@echo 'Installed in $(VENV); next: make train, make test'

train: $(STAMP)
	$(VENV)/bin/python -m experiments.train --config=$(CONFIG) --workdir=$(WORKDIR) $(ARGS)

test: $(STAMP)
	$(VENV)/bin/python -m pytest -n $(TEST_PROCESSES) --dist loadgroup $(ARGS)

# Training runs killed at random, some ten minutes; KILLS=9 for fewer.
KILLS = 50
test-faults: $(STAMP)
	PERCEIVER_RANDOM_KILLS=$(KILLS) $(VENV)/bin/python -m pytest -s -n 0 tests/experiments/test_faults.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache

# A candidate has to run (a version manager's shim may exist and fail), to be new enough, and to be
# able to make environments (some systems package ensurepip apart).
$(STAMP): setup.py
	@if [ ! -x $(VENV)/bin/python ]; then \
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
	  echo "Making $(VENV) with $$found ($$("$$found" --version))"; \
	  rm -rf $(VENV); "$$found" -m venv $(VENV) || exit 1; \
	fi
	@printf 'Installing perceiver-haiku[$(EXTRAS)], a minute or two '
	@rm -f $@; \
	{ $(VENV)/bin/python -m pip install --disable-pip-version-check -e '.[$(EXTRAS)]' && touch $@; } \
	  | while read -r word rest; do case $$word in Collecting|Installing) printf '.';; esac; done; \
	if [ -f $@ ]; then echo ' done'; else echo ' failed, see above' >&2; exit 1; fi
