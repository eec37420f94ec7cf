"""What `prepare_data` prints at its end: the command that trains on the result."""

import shlex

import ml_collections

from perceiver_jax import config_file


def config(out: str) -> ml_collections.ConfigDict:
    """Returns the config of the command in the last line, as `experiments.train` loads it."""
    words = shlex.split(out.splitlines()[-1].partition(": ")[2])
    assert words[:3] == ["python", "-m", "experiments.train"]
    flags = dict(word.split("=", 1) for word in words[3:])
    overrides = {k.removeprefix("--config."): x for k, x in flags.items() if "config." in k[:9]}
    return config_file.load_config(flags["--config"], overrides)
