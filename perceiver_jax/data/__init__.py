"""Data sets and input pipelines: host side, numpy; knows nothing of models."""

from perceiver_jax.data.arrays import from_arrays as from_arrays
from perceiver_jax.data.errors import AugmentError as AugmentError
from perceiver_jax.data.errors import BadDataError as BadDataError
from perceiver_jax.data.errors import DatasetNotFoundError as DatasetNotFoundError
from perceiver_jax.data.fake import fake_batches as fake_batches
from perceiver_jax.data.pipeline import Data as Data
from perceiver_jax.data.pipeline import build_data as build_data
