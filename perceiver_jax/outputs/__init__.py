"""The outputs of a model, one file a kind: latents -> array. One line a kind."""

from perceiver_jax.outputs import mean_pool, query

OUTPUTS = {"mean_pool": mean_pool.MeanPoolDecoder, "query": query.QueryDecoder}
