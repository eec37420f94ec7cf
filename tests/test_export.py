"""A model leaves JAX's process as a file, for every platform and any batch size."""

import jax
from jax import export
import numpy as np
import pytest

import perceiver_jax

FOURIER = {"kind": "fourier", "num_bands": 2}
ARRAY = {"kind": "array", "position_encoding": FOURIER}
PATCHES = {"patch_size": (3,), "mean": (0.1,) * 3, "std": (2.0,) * 3, "mask_channels": True}
AUDIO = {"kind": "audio", "patch_size": 5, "position_encoding": FOURIER}


def make_batch(size):
    rng = np.random.default_rng(size)
    return {
        "x": rng.normal(size=(size, 11, 3)).astype(np.float32),
        "x_mask": rng.random((size, 11)) > 0.3,
        "y": rng.normal(size=(size, 35)).astype(np.float32),
    }


@pytest.mark.parametrize(
    "keys",
    [
        {"inputs": {"x": ARRAY}},
        {"inputs": {"x": ARRAY | PATCHES}},
        {
            "inputs": {"x": ARRAY, "y": AUDIO},
            "fusion": {"modality_channels": 2, "dropout_rates": {}},
        },
    ],
)
def test_an_exported_model_equals_the_model_for_any_batch_size(keys):
    encoder = {
        "num_latents": 3,
        "latent_channels": 8,
        "layers": perceiver_jax.make_layers(2, 2),
        "num_self_attends": 1,
    }
    model = perceiver_jax.build_model(
        {"outputs": {"label": {"kind": "mean_pool", "size": 4}}, "encoder": encoder, **keys}
    )
    rng = np.random.default_rng(0)  # Fresh parameters have a head of zeros.
    params = jax.tree.map(
        lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32),
        jax.eval_shape(model.init, jax.random.key(0), make_batch(2)),
    )
    (size,) = export.symbolic_shape("b")
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), make_batch(2)
    )
    apply = jax.jit(lambda params, batch: model.apply(params, None, batch)["label"])
    exported = export.export(apply, platforms=("cpu", "cuda", "tpu"))(params, shapes)
    loaded = export.deserialize(exported.serialize())
    for batch in (make_batch(3), make_batch(5)):
        expected = apply(params, batch)
        assert np.ptp(expected) > 1e-3
        np.testing.assert_allclose(loaded.call(params, batch), expected, atol=1e-5)
