"""The outputs of a model, one file a kind: latents -> array. One line a kind."""

from perceiver_jax.outputs import base as base
from perceiver_jax.outputs import flow, grid, mean_pool, query, text

OUTPUTS = {
    "flow": flow.FlowDecoder,
    "grid": grid.GridDecoder,
    "mean_pool": mean_pool.MeanPoolDecoder,
    "query": query.QueryDecoder,
    "text": text.TextDecoder,
}
