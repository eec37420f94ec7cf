"""One recipe a file: `get_config(arg)` returns everything that an experiment is made of."""
