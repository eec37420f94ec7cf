"""Looking into a model: embeddings and attention maps, and all of its functions transformed."""

import jax
from jax import export
import jax.numpy as jnp
import numpy as np
import pytest

import perceiver_jax
from perceiver_jax import attention, config
from tests.test_reads import (
    FOURIER,
    block,
    make_batch,
    make_params,
    params_of,
    part_of,
    run,
    sequential,
    unrolled,
)

pytestmark = pytest.mark.xdist_group("reads")  # One process compiles what the tests share.


def softmax(x):
    weights = np.exp(x - x.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def normed(params, x):
    x = np.asarray(x)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * np.asarray(params["scale"]) + np.asarray(params["offset"])


def scores(params, query_norm, key_norm, latents, inputs, heads):
    params = jax.tree.map(np.asarray, params)
    query = normed(params[query_norm], latents) @ params["query"]["w"] + params["query"]["b"]
    key = normed(params[key_norm], inputs) @ params["key"]["w"] + params["key"]["b"]
    query, key = (x.reshape(*x.shape[:2], heads, -1) for x in (query, key))
    return np.einsum("bnhp,bmhp->bhnm", query, key) / np.sqrt(query.shape[-1])


def test_attention_maps_equal_a_direct_computation():
    model, params, batch = unrolled(), params_of(unrolled), make_batch()
    maps = jax.jit(lambda b: model.attention_maps(params, b, (0, 1)))(batch)
    latents = np.broadcast_to(params["encoder"]["latents"], (2, 5, 12))
    inputs = model.tokens(params, None, batch, reads="all[0]").values
    expected = scores(
        block(params, "cross_attend_0"), "query_norm", "input_norm", latents, inputs, 1
    )
    audio, video = maps[0]["audio"], maps[0]["video"]
    assert audio["scores"].shape == (2, 1, 5, 7) and video["scores"].shape == (2, 1, 5, 2, 2, 3)
    np.testing.assert_allclose(audio["scores"], expected[..., :7], atol=1e-5)
    np.testing.assert_allclose(
        video["weights"].reshape(2, 1, 5, 12), softmax(expected)[..., 7:], atol=1e-5
    )
    # The latent Transformer after it.
    latents = attention.cross_attend(block(params, "cross_attend_0"), jnp.asarray(latents), inputs)
    path = "latent_transformer_0/self_attend_0"
    expected = scores(block(params, path), "norm", "norm", latents, latents, 3)
    np.testing.assert_allclose(maps[1]["self_attend_0"]["scores"], expected, atol=1e-5)
    np.testing.assert_allclose(maps[1]["self_attend_0"]["weights"], softmax(expected), atol=1e-5)


def test_masked_inputs_have_no_weight_in_attention_maps():
    model, params = sequential(), params_of(sequential)
    mask = np.random.default_rng(1).random((2, 21)) < 0.5
    mask[1] = False
    maps = model.attention_maps(params, make_batch() | {"audio_mask": mask}, (4,))[0]["audio"]
    for b in range(2):
        np.testing.assert_array_equal(
            np.isneginf(maps["scores"][b]), np.broadcast_to(~mask[b], (1, 5, 21))
        )
    np.testing.assert_allclose(
        maps["weights"].sum(-1), np.broadcast_to([[[1]], [[0]]], (2, 1, 5)), atol=1e-6
    )


def test_maps_of_permuted_pixels_are_in_the_order_of_the_image():
    def maps(seed):
        image = {"kind": "image", "mean": (0.5,), "std": (0.2,), "position_encoding": FOURIER}
        model = perceiver_jax.build_model(
            {
                "inputs": {"image": image | {"permutation_seed": seed}},
                "encoder": {
                    "num_latents": 3,
                    "latent_channels": 8,
                    "layers": ("cross_attend_0",),
                },
                "outputs": {"label": {"kind": "mean_pool", "size": 2}},
            }
        )
        batch = {"image": np.random.default_rng(0).integers(0, 256, (1, 3, 5, 1), np.uint8)}
        return model.attention_maps(make_params(model, batch), batch, [0])[0]["image"]

    assert np.ptp(maps(-1)["scores"]) > 0.1
    np.testing.assert_allclose(maps(4)["scores"], maps(-1)["scores"], atol=1e-5)


def test_maps_of_chosen_latents_are_those_of_all_latents_in_that_order():
    model, params, batch = unrolled(), params_of(unrolled), make_batch()
    chosen = [3, 0]
    everything = model.attention_maps(params, batch, (0, 1))
    some = jax.jit(lambda x: model.attention_maps(params, batch, (0, 1), x))(np.array(chosen))
    for whole, part in zip(jax.tree.leaves(everything), jax.tree.leaves(some), strict=True):
        np.testing.assert_allclose(part, whole[:, :, np.array(chosen)], atol=1e-6)


@pytest.mark.parametrize("latents", [[5], [-1], [], [[0]], 0, [0.5]])
def test_latents_that_there_are_not_are_an_error(latents):
    with pytest.raises(config.UserError, match="expected a list of whole numbers from 0 to 4"):
        unrolled().attention_maps(params_of(unrolled), make_batch(), [0], latents)


@pytest.mark.parametrize("indices", [[6], [], [[0]], np.array(0), [0.0], 0])
def test_indices_of_no_layer_are_an_error(indices):
    with pytest.raises(
        config.UserError, match="expected a list of layers, whole numbers from 0 to 5"
    ):
        unrolled().attention_maps(params_of(unrolled), make_batch(), indices)


def test_embeddings_are_what_the_output_is_made_of():
    model, params, batch = unrolled(), params_of(unrolled), make_batch()
    pooled = model.latents(params, batch, pooled=True)
    head = jax.tree.map(np.asarray, params["decoder/logits"])
    logits = np.asarray(pooled) @ head["w"] + head["b"]
    np.testing.assert_allclose(logits, run(model, params, batch), atol=1e-5)
    assert model.latents(params, batch).shape == (2, 5, 12)


def test_all_functions_can_be_mapped_differentiated_and_exported():
    model, params = unrolled(), params_of(unrolled)
    latents = model.initial_latents(params, 2)
    part = part_of(make_batch(), 0)
    functions = {
        "latents": (lambda b, _: model.latents(params, b), make_batch()),
        "maps": (lambda b, _: model.attention_maps(params, b, (0, 1)), make_batch()),
        "step": (lambda b, x: model.step(params, x, b), part),
        "decode": (lambda b, x: model.decode(params, x), part),
        "begin": (lambda b, x: model.initial_latents(params, x.shape[0]) + x, part),
    }
    (size,) = export.symbolic_shape("b")

    def symbolic(x):
        return jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype)

    for name, (function, batch) in functions.items():
        expected = jax.jit(function)(batch, latents)
        one_by_one = jax.vmap(
            lambda b, x, f=function: jax.tree.map(
                lambda y: y[0], f(jax.tree.map(lambda y: y[None], b), x[None])
            )
        )(batch, latents)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one_by_one, expected)
        shapes = jax.tree.map(symbolic, (batch, latents))
        exported = export.export(jax.jit(function), platforms=("cpu", "cuda", "tpu"))(*shapes)
        loaded = export.deserialize(exported.serialize()).call(batch, latents)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), loaded, expected)

        def total(latents, audio, f=function, b=batch):
            return sum(
                jnp.sum(jnp.square(x)) for x in jax.tree.leaves(f(b | {"audio": audio}, latents))
            )

        gradients = jax.jit(jax.grad(total, argnums=(0, 1)))(latents, batch["audio"])
        moved = gradients[0] if name in ("decode", "begin") else gradients[1]
        assert np.isfinite(moved).all() and np.abs(moved).max() > 1e-4, name


def test_maps_of_an_array_are_over_its_patches():
    array = {"kind": "array", "patch_size": (2, 3), "position_encoding": FOURIER}
    encoder = {"num_latents": 5, "latent_channels": 8, "layers": ("cross_attend_0",)}
    outputs = {"label": {"kind": "mean_pool", "size": 2}}
    model = perceiver_jax.build_model(
        {"inputs": {"x": array}, "encoder": encoder, "outputs": outputs}
    )
    real = np.ones((2, 5, 7), bool)
    real[1, :4, 6] = False  # All that the last patches of two rows of patches hold.
    x = np.random.default_rng(0).normal(size=(2, 5, 7, 1)).astype(np.float32)
    batch = {"x": x, "x_mask": real}
    (maps,) = model.attention_maps(make_params(model, batch), batch, (0,))
    assert maps["x"]["scores"].shape == (2, 1, 5, 3, 3)
    gone = np.zeros((2, 3, 3), bool)
    gone[1, :2, 2] = True
    np.testing.assert_array_equal(np.isneginf(maps["x"]["scores"])[:, 0, 0], gone)
