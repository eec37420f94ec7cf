"""Data sets and input pipelines: host side, numpy; knows nothing of models.

Names below are imported when they are first asked for: TFDS and Grain take seconds, and the
processes that read files for builders need neither.
"""

import importlib
from typing import TYPE_CHECKING, Any

# ruff: noqa: F401
if TYPE_CHECKING:  # What editors follow.
    from perceiver_jax.data.arrays import from_arrays
    from perceiver_jax.data.errors import AugmentError, BadDataError, DatasetNotFoundError
    from perceiver_jax.data.fake import fake_batches
    from perceiver_jax.data.inference import Example, Reader, make_reader, prepare
    from perceiver_jax.data.pipeline import Data, build_data
    from perceiver_jax.data.streams import read_parts
    from perceiver_jax.data.written import write_clip

_MODULES = {
    "AugmentError": "errors",
    "BadDataError": "errors",
    "Data": "pipeline",
    "DatasetNotFoundError": "errors",
    "Example": "inference",
    "Reader": "inference",
    "build_data": "pipeline",
    "fake_batches": "fake",
    "from_arrays": "arrays",
    "make_reader": "inference",
    "read_parts": "streams",
    "prepare": "inference",
    "write_clip": "written",
}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    globals()[name] = getattr(module, name)
    return globals()[name]


def __dir__() -> list[str]:
    return [*globals(), *__all__]
