"""Training: losses, metrics, optimizers, steps, checkpoints and the loop that joins them.

Nothing here knows of models or data sets. A model is a function that gives logits,
`apply(params, rng, batch, is_training)`; data are iterators of `dict[str, np.ndarray]`.
`loop.train` is where they meet.
"""
