import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_jax import perceiver

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
    assert perceiver.make_layers(3, 6) == (c0, t, t, c1, t, t, c1, t, t)


def test_cross_attends_at_the_start_come_first():
    c0, c1, t = "cross_attend_0", "cross_attend_1", "latent_transformer_0"
    assert perceiver.make_layers(3, 2, "start") == (c0, c1, c1, t, t)


def test_unshared_layers_have_names_of_their_own():
    layers = perceiver.make_layers(2, 2, sharing="none")
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
        ((0, 8), "0 cross-attends; a Perceiver needs at least one"),
        ((1, 1, "middle"), "Unknown placement 'middle'; expected one of"),
        ((1, 1, "start", "some"), "Unknown sharing 'some'; expected one of"),
    ],
)
def test_impossible_layers_are_an_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        perceiver.make_layers(*arguments)


@pytest.mark.parametrize("pattern", PAPER)
def test_runs_put_together_give_the_layers_again(pattern):
    layers = perceiver.make_layers(*PAPER[pattern])
    runs = perceiver.find_runs(layers)
    again = [
        names[i % len(names)] for run in runs for i in range(run.repeats) for names in run.pattern
    ]
    assert again == list(layers)
    assert sum(len(run.pattern) for run in runs) <= 5  # so few layers are compiled


def encode(layers, rng=None, **keys):
    encoder = hk.without_apply_rng(
        hk.transform(
            lambda x, rng: perceiver.PerceiverEncoder(
                5, 12, layers, 2, num_self_attend_heads=3, name="encoder", **keys
            )(x, rng=rng)
        )
    )
    inputs = jax.random.normal(jax.random.key(1), (2, 23, 7))
    params = jax.jit(encoder.init)(jax.random.key(0), inputs, None)
    return params, jax.jit(encoder.apply)(params, inputs, rng)


@pytest.mark.parametrize("sharing", ["all_but_first", "none"])
def test_scanned_layers_draw_the_same_dropout_as_unrolled_ones(sharing):
    layers = perceiver.make_layers(2, 4, sharing=sharing)
    keys = jax.random.split(jax.random.key(3), 2)
    (_, fast), (_, plain), (_, undropped) = (
        encode(layers, rng, dropout_rate=0.2, scan=scan, streaming=scan)
        for rng, scan in ((keys, True), (keys, False), (None, True))
    )
    np.testing.assert_allclose(fast, plain, atol=1e-5)
    assert jnp.abs(fast - undropped).max() > 0.1


def test_parameters_are_named_after_the_layers_that_use_them():
    params, _ = encode(perceiver.make_layers(2, 2))
    modules = {path.removeprefix("encoder/").rsplit("/", 1)[0] for path in params if "/" in path}
    assert modules == {
        "cross_attend_0",
        "cross_attend_1",
        "latent_transformer_0/self_attend_0",
        "latent_transformer_0/self_attend_1",
    }


def test_an_unknown_layer_is_an_error():
    with pytest.raises(ValueError, match="Unknown layer 'self_attend_0'; a layer's name begins"):
        encode(("cross_attend_0", "self_attend_0"))
