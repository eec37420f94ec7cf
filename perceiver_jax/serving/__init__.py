"""A server of a trained model: HTTP in front of `Run.prepare`, batches and `Run.predict`'s answers.

    limits     what a request may cost
    decoding   files and arrays -> rows of a batch, in processes with limits
    batching   rows of many requests -> batches of few sizes, computed by one thread
    bodies     a request's body -> examples as of `Run.prepare`
    parameters what is behind the `?` of its address, as far as the model has a use for it
    answers    what is predicted -> JSON
    service    all of them together; app has the routes, running the server itself

Processes that decode import this: it needs neither JAX nor TFDS.
"""

import importlib.util

from perceiver_jax import config

for _package in ("fastapi", "prometheus_client", "python_multipart", "uvicorn"):
    if importlib.util.find_spec(_package) is None:
        raise config.MissingPackageError(
            f"Serving needs the package {_package}, which is not installed; install it with: "
            "pip install perceiver-haiku[serve]"
        )
