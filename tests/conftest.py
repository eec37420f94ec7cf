"""What holds for every test: four fake devices, shapes checked, ranks never promoted silently."""

import collections.abc
import importlib.metadata
import os
import platform
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Every test compiles what it runs; those that restart real runs turn it on for them.
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")
# Half the time goes into compiling. `.ci/run` has some tests compiled as for users, too.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)

import jax
import jaxtyping
import ml_collections
import pytest

# A ConfigDict is a mapping in all but name; signatures say Mapping.
collections.abc.Mapping.register(ml_collections.ConfigDict)

# Checks the shapes in the signatures of public functions at run time. Held for the whole session.
_SHAPE_CHECKS = jaxtyping.install_import_hook("perceiver_jax", "beartype.beartype")
_DATA_DIR = pytest.StashKey[tempfile.TemporaryDirectory]()


def pytest_configure(config):
    """Gives the session one empty place for data sets, shared by pytest-xdist's processes."""
    if not hasattr(config, "workerinput"):
        config.stash[_DATA_DIR] = tempfile.TemporaryDirectory(prefix="perceiver_data_")
        os.environ["TFDS_DATA_DIR"] = config.stash[_DATA_DIR].name


def pytest_unconfigure(config):
    """Removes the data sets that the session built."""
    if not hasattr(config, "workerinput"):
        config.stash[_DATA_DIR].cleanup()


def pytest_terminal_summary(terminalreporter):
    """Says which versions ran."""
    packages = ("jax", "dm-haiku", "numpy", "optax", "orbax-checkpoint", "grain", "pillow", "av")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in packages]
    terminalreporter.write_line(
        f"Versions: {', '.join([f'Python {platform.python_version()}', *versions])}"
    )


@pytest.fixture(autouse=True)
def _rank_promotion_raises():
    with jax.numpy_rank_promotion("raise"):
        yield
