"""Outputs that are decoded from queries: of grids, of texts, several by one decoder."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perceiver_jax
from perceiver_jax import config

ENCODER = {
    "num_latents": 5,
    "latent_channels": 12,
    "layers": ("cross_attend_0", "latent_transformer_0"),
    "num_self_attends": 1,
    "num_self_attend_heads": 3,
}
FOURIER = {"kind": "fourier", "num_bands": 2}
RNG = np.random.default_rng(0)
BATCH = {
    "sound": RNG.standard_normal((2, 22)).astype(np.float32),
    "label": np.array([1, 2], np.int32),
}


def sections(**changes):
    """A model of sound and a label, which gives both back, and a picture of 5 x 7."""
    grid = {"kind": "grid", "position_encoding": FOURIER}
    return {
        "inputs": {
            "sound": {"kind": "audio", "patch_size": 2, "position_encoding": FOURIER},
            "label": {"kind": "label", "num_classes": 3},
        },
        "fusion": {"mask_rates": {"label": 0.5}, "masked_in_evaluation": ("label",)},
        "encoder": ENCODER,
        "decoder": {"channels": 13},
        "outputs": {
            "sound": grid | {"size": 2, "index_dims": (11,)},
            "picture": grid | {"size": 3, "index_dims": (5, 7)},
            "label": {"kind": "query", "size": 3, "query_channels": 6},
        },
    } | changes


@functools.cache
def shared():
    """The model, its parameters and outputs."""
    model = perceiver_jax.build_model(sections())
    params = jax.jit(model.init)(jax.random.key(0), BATCH)
    return model, params, jax.jit(model.apply)(params, None, BATCH)


def test_outputs_have_the_form_of_their_grids():
    shapes = {name: x.shape for name, x in shared()[2].items()}
    assert shapes == {"sound": (2, 11, 2), "picture": (2, 5, 7, 3), "label": (2, 3)}


def test_chosen_elements_are_those_of_all():
    model, params, out = shared()
    chosen = np.array([[0, 34, 8], [3, 3, 7]])
    some = jax.jit(model.apply)(params, None, BATCH | {"picture_indices": chosen})
    everything = out["picture"].reshape(2, 35, 3)
    expected = np.stack([everything[i, chosen[i]] for i in range(2)])
    np.testing.assert_allclose(some["picture"], expected, atol=1e-5)
    np.testing.assert_allclose(some["sound"], out["sound"], atol=1e-5)


def test_chunks_change_neither_outputs_nor_gradients():
    # 35 pixels in three chunks of 12, the last of which repeats one; 11 patches of sound in one.
    decoder = {"channels": 13, "chunk_size": 12}
    in_chunks = perceiver_jax.build_model(sections(decoder=decoder))
    model, params, _ = shared()

    @functools.partial(jax.jit, static_argnums=0)
    @functools.partial(jax.grad, argnums=1, has_aux=True)
    def gradients(apply, params):
        out = apply(params, None, BATCH)
        return sum(jnp.sum(jnp.sin(x)) for x in out.values()), out

    got, expected = (gradients(x.apply, params) for x in (in_chunks, model))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, 1e-4, 1e-4), got, expected)


def test_memory_does_not_grow_with_what_is_decoded():
    def temporaries(side):
        grid = {"kind": "grid", "size": 1, "index_dims": (side, side), "chunk_size": 256}
        outputs = {"picture": grid | {"position_encoding": FOURIER}}
        model = perceiver_jax.build_model(
            sections(
                inputs={"sound": sections()["inputs"]["sound"]}, fusion=None, decoder=None,
                outputs=outputs,
            )
        )  # fmt: skip
        params = jax.eval_shape(model.init, jax.random.key(0), BATCH)
        compiled = jax.jit(model.apply).lower(params, None, BATCH).compile()
        return compiled.memory_analysis().temp_size_in_bytes - 2 * 4 * 2 * side**2

    # Of 16,384 and 262,144 pixels; less the outputs themselves, which are brought into order.
    assert temporaries(512) < 1.2 * temporaries(128)


def test_a_hidden_label_changes_nothing_in_evaluation():
    model, params, out = shared()
    other = jax.jit(model.apply)(params, None, BATCH | {"label": np.array([0, 0], np.int32)})
    for name, x in other.items():
        np.testing.assert_array_equal(x, out[name])


def test_half_of_the_labels_are_hidden_in_training():
    model, params, _ = shared()
    labels = np.arange(64, dtype=np.int32) % 3
    batch = {"sound": np.zeros((64, 22), np.float32), "label": labels}
    find = jax.jit(model.tokens, static_argnames="is_training")
    found = find(params, jax.random.key(1), batch, is_training=True)
    token = params["inputs"]["label_mask_token"]
    hidden = (found.values[:, 0] == token[None]).all(axis=-1)  # The label comes first, by name.
    assert 20 < hidden.sum() < 44


def test_a_stream_of_latents_is_decoded_with_what_outputs_read():
    frames = {"kind": "frames", "mean": (0.5,), "std": (0.5,), "position_encoding": FOURIER}
    section = {
        "inputs": {"frames": frames},
        "encoder": ENCODER,
        "outputs": {"flow": {"kind": "flow"}},
    }
    model = perceiver_jax.build_model(section)
    batch = {"frames": RNG.standard_normal((1, 2, 5, 7, 1)).astype(np.float32)}
    params = jax.jit(model.init)(jax.random.key(0), batch)
    out = jax.jit(model.apply)(params, None, batch)["flow"]
    assert out.shape == (1, 5, 7, 2)
    latents = jax.jit(model.latents)(params, batch)
    found = jax.jit(model.decode)(params, latents, batch)["flow"]
    np.testing.assert_allclose(found, out, atol=1e-5)
    with pytest.raises(config.UserError, match="batch is None; expected .'frames'."):
        model.decode(params, latents)


def test_bfloat16_gives_finite_outputs_of_float32():
    model = perceiver_jax.build_model(sections(dtype="bfloat16"))
    out = jax.jit(model.apply)(shared()[1], None, BATCH)
    for x in out.values():
        assert x.dtype == jnp.float32
        assert np.isfinite(x).all()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"gelu": "erf"}, "Unknown config.model.gelu 'erf'; expected one of"),
        ({"decoder": {"channels": 0}}, "config.model.decoder.channels is 0; expected at least 1"),
        ({"decoder": {}}, "Missing key config.model.decoder.channels"),
        (
            {"fusion": {"mask_rates": {"sond": 0.5}}},
            "names 'sond'.*Did you mean 'sound'",
        ),
        (
            {"fusion": {"masked_in_evaluation": ("label",)}},
            "masked_in_evaluation names 'label'; expected some of",
        ),
        (
            {"outputs": {"label": {"kind": "mean_pool", "size": 3}}},
            "label.kind is 'mean_pool', which has no queries",
        ),
        (
            {"outputs": {"label": {"kind": "query", "size": 3, "num_heads": 2}}},
            "label.num_heads is set beside config.model.decoder",
        ),
        (
            {"outputs": {"x": {"kind": "grid", "size": 3, "index_dims": (3,)}}},
            "position_encoding is None; expected a section",
        ),
        (
            {"outputs": {"x": {"kind": "flow", "reads": "sond"}}},
            "Unknown config.model.outputs.x.reads 'sond'.*Did you mean 'sound'",
        ),
        (
            {"encoder": ENCODER | {"qk_channels": 7}},
            "qk_channels is 7, which num_self_attend_heads = 3 does not divide",
        ),
    ],
)
def test_a_wrong_output_is_refused_when_the_model_is_built(change, message):
    with pytest.raises(config.UserError, match=message):
        perceiver_jax.build_model(sections(**change))


@pytest.mark.parametrize(
    "name, indices, message",
    [
        ("picture", np.zeros((2, 3), np.float32), "is float32; expected whole numbers"),
        ("picture", np.zeros((2, 3, 1), int), r"shape \(2, 3, 1\)"),
        ("picture", np.zeros((3, 5), int), "of 2 examples"),
        ("label", np.array([[0], [0]]), None),
    ],
)
def test_indices_are_whole_numbers(name, indices, message):
    model, params, out = shared()
    batch = BATCH | {f"{name}_indices": indices}
    if message is None:
        np.testing.assert_allclose(
            jax.jit(model.apply)(params, None, batch)[name][:, 0], out[name], atol=1e-5
        )
        return
    with pytest.raises(config.UserError, match=message):
        model.apply(params, None, batch)


def test_an_element_that_there_is_not_is_nan_and_no_other():
    model, params, out = shared()
    batch = BATCH | {"picture_indices": np.array([35, 34, -1])}
    some = jax.jit(model.apply)(params, None, batch)["picture"]
    assert np.isnan(some[:, [0, 2]]).all()
    np.testing.assert_allclose(some[:, 1], out["picture"][:, 4, 6], atol=1e-5)
