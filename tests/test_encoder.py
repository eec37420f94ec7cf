import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perceiver_jax
from perceiver_jax import encoder as encoder_lib
from perceiver_jax import layers as layers_lib

PAPER = {  # Tables 5, 6 and 7: (cross-attends, latent Transformers, placement, sharing)
    "interleaved": (8, 8),
    "two interleaved": (2, 8),
    "four interleaved": (4, 8),
    "at start": (8, 8, "start"),
    "one": (1, 8),
    "all shared": (8, 8, "interleaved", "all"),
    "nothing shared": (8, 8, "interleaved", "none"),
    "cross-attends only": (12, 0, "start", "none"),
}


def test_interleaved_layers_share_all_but_the_first_cross_attend():
    c0, c1, t = "cross_attend_0", "cross_attend_1", "latent_transformer_0"
    assert layers_lib.make_layers(3, 6) == (c0, t, t, c1, t, t, c1, t, t)


def test_cross_attends_at_the_start_come_first():
    c0, c1, t = "cross_attend_0", "cross_attend_1", "latent_transformer_0"
    assert layers_lib.make_layers(3, 2, "start") == (c0, c1, c1, t, t)


def test_unshared_layers_have_names_of_their_own():
    layers = layers_lib.make_layers(2, 2, sharing="none")
    assert layers == (
        "cross_attend_0",
        "latent_transformer_0",
        "cross_attend_1",
        "latent_transformer_1",
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((3, 8), "3 cross-attends can't be spaced evenly among 8"),
        ((0, 8), "num_cross_attends is 0; expected at least 1"),
        ((1, 1, "middle"), "Unknown placement 'middle'; expected one of"),
        ((1, 1, "start", "some"), "Unknown sharing 'some'; expected one of"),
    ],
)
def test_impossible_layers_are_an_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        layers_lib.make_layers(*arguments)


@pytest.mark.parametrize("pattern", PAPER)
def test_runs_put_together_give_the_layers_again(pattern):
    layers = layers_lib.resolve(layers_lib.make_layers(*PAPER[pattern]))
    runs = layers_lib.find_runs(layers)
    again = [repeats[i] for run in runs for i in range(run.repeats) for repeats in run.pattern]
    assert again == list(layers)
    assert sum(len(run.pattern) for run in runs) <= 5  # so few layers are compiled


def make_encoder(layers, **keys):
    """An encoder as `apply(params, inputs, rng)`, and parameters and inputs for it."""
    encoder = hk.without_apply_rng(
        hk.transform(
            lambda x, rng: encoder_lib.PerceiverEncoder(
                5, 12, layers, 2, num_self_attend_heads=3, name="encoder", **keys
            )(x, rng=rng)
        )
    )
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(2, 23, 7)).astype(np.float32)
    shapes = jax.eval_shape(encoder.init, jax.random.key(0), inputs, None)
    params = jax.tree.map(lambda x: rng.normal(0, 0.4, x.shape).astype(np.float32), shapes)
    return jax.jit(encoder.apply), params, inputs


@pytest.mark.parametrize("sharing", ["all_but_first", "none"])
def test_scanned_layers_draw_the_same_dropout_as_unrolled_ones(sharing):
    layers = layers_lib.make_layers(2, 2, sharing=sharing)
    streaming, params, inputs = make_encoder(layers, dropout_rate=0.2)
    plain, _, _ = make_encoder(layers, dropout_rate=0.2, scan=False, streaming=False)
    keys = jax.random.split(jax.random.key(3), 4).reshape(2, 2)
    out = streaming(params, inputs, keys[0])
    np.testing.assert_allclose(out, plain(params, inputs, keys[0]), atol=1e-5)
    assert jnp.abs(out - streaming(params, inputs, keys[1])).max() > 0.1


def test_parameters_are_named_after_the_layers_that_use_them():
    _, params, _ = make_encoder(layers_lib.make_layers(2, 2))
    modules = {path.removeprefix("encoder/").rsplit("/", 1)[0] for path in params if "/" in path}
    assert modules == {
        "cross_attend_0",
        "cross_attend_1",
        "latent_transformer_0/self_attend_0",
        "latent_transformer_0/self_attend_1",
    }


def test_an_unknown_layer_is_an_error():
    with pytest.raises(ValueError, match="layers names 'self_attend_0'; a layer's name begins"):
        make_encoder(("cross_attend_0", "self_attend_0"))


def test_a_size_below_one_is_an_error():
    with pytest.raises(ValueError, match="num_self_attends is 0; expected at least 1"):
        perceiver_jax.build_model(
            dict(
                outputs=dict(label=dict(kind="mean_pool", size=2)),
                inputs=dict(x=dict(kind="array")),
                encoder=dict(
                    num_latents=3, latent_channels=8, layers=("cross_attend_0",), num_self_attends=0
                ),
            )
        ).init(jax.random.key(0), dict(x=np.ones((1, 5, 2), np.float32)))


def kept_for_the_backward_pass(**keys):
    """Numbers that `jax.vjp` of an encoder keeps for each example, by shape alone."""

    def encode(inputs):
        layers = layers_lib.make_layers(1, 3)
        return encoder_lib.PerceiverEncoder(53, 32, layers, num_self_attends=2, **keys)(inputs)

    encoder = hk.without_apply_rng(hk.transform(encode))

    def kept(batch_size):
        inputs = jax.ShapeDtypeStruct((batch_size, 61, 7), jnp.float32)
        params = jax.eval_shape(encoder.init, jax.random.key(0), inputs)
        backward = jax.eval_shape(
            lambda p, x: jax.vjp(lambda p: encoder.apply(p, x), p)[1], params, inputs
        )
        return sum(x.size for x in jax.tree.leaves(backward))

    return kept(2) - kept(1)


def test_a_scan_keeps_half_of_what_unrolled_layers_do_and_remat_still_less():
    unrolled = kept_for_the_backward_pass(scan=False)
    scanned = kept_for_the_backward_pass(scan=True)
    assert scanned < 0.5 * unrolled
    assert kept_for_the_backward_pass(scan=True, remat=True) < 0.5 * scanned


def test_layers_are_counted_from_the_outputs_in_the_order_of_their_first_use():
    names = layers_lib.make_layers(2, 4)  # Which share latent_transformer_0.
    distance = layers_lib.distance_to_outputs(names, num_self_attends=2)
    paths = {
        "decoder/logits/w": 0,
        "decoder_position_encoding/position_embedding": 0,
        "encoder/cross_attend_1/query/w": 1,
        "encoder/latent_transformer_0/self_attend_1/mlp_norm/scale": 2,
        "encoder/latent_transformer_0/self_attend_0/key/b": 3,
        "encoder/cross_attend_0/key/b": 4,
        "encoder/latents": 5,
        "image_position_encoding/position_embedding": 5,
    }
    assert {path: distance(path) for path in paths} == paths
