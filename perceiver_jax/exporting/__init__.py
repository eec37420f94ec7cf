"""A model as a folder that runs elsewhere: programs, weights, and how inputs are prepared."""

from perceiver_jax.exporting.folder import export as export
