"""What is under a mask reaches nothing, and what does not fit a model is said in our words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perceiver_jax
from perceiver_jax import config

B, M, C = 3, 11, 3
FOURIER = dict(kind="fourier", num_bands=2)
LAYERS = perceiver_jax.make_layers(2, 2)


def build(encoder=None, dtype="float32", inputs=None, **keys):
    small = dict(num_latents=3, latent_channels=8, layers=LAYERS, num_self_attends=1)
    return perceiver_jax.build_model(
        dict(
            outputs=dict(label=dict(kind="mean_pool", size=4)),
            inputs=inputs or dict(x=dict(kind="array", position_encoding=FOURIER)),
            encoder=small | (encoder or {}),
            dtype=dtype,
            **keys,
        )
    )


def make_params(model, batch):
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32), shapes)


def array_batch(seed=0):
    x = np.random.default_rng(seed).normal(size=(B, M, C)).astype(np.float32)
    mask = np.arange(M)[None] < np.array([[M], [7], [0]])
    return dict(x=x, x_mask=mask)


@pytest.mark.parametrize("junk", [np.nan, np.inf, 3e38])
@pytest.mark.parametrize(
    "encoder, dtype, keys",
    [
        ({}, "float32", {}),
        (dict(chunk_size=4), "bfloat16", {}),
        (dict(streaming=False, scan=False), "float32", dict(num_channels=4)),
        (dict(num_cross_attend_heads=4, remat=True), "float32", {}),
    ],
)
def test_nothing_under_a_mask_reaches_outputs_or_gradients(encoder, dtype, keys, junk):
    inputs = dict(x=dict(kind="array", position_encoding=FOURIER, **keys))
    model, batch = build(encoder, dtype, inputs), array_batch()
    params = make_params(model, batch)

    def loss(params, x):
        out = model.apply(params, None, dict(batch, x=x))["label"]
        return jnp.sum(out**2), out

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (_, expected), gradients = run(params, batch["x"])
    dirty = np.where(batch["x_mask"][..., None], batch["x"], np.float32(junk))
    (_, got), dirty_gradients = run(params, dirty)
    np.testing.assert_array_equal(got, expected)
    jax.tree.map(np.testing.assert_array_equal, dirty_gradients, gradients)
    assert not np.asarray(dirty_gradients[1])[~batch["x_mask"]].any()


KINDS = dict(
    image=(dict(kind="image", mean=(0.5,), std=(0.2,), position_encoding=FOURIER), (4, 6, 1)),
    video=(
        dict(
            kind="video",
            mean=(0.5,),
            std=(0.2,),
            patch_size=(1, 2, 2),
            position_encoding=FOURIER,
        ),
        (2, 4, 4, 1),
    ),
    audio=(dict(kind="audio", patch_size=5, position_encoding=FOURIER), (35,)),
    mel=(dict(kind="mel", patch_size=(1, 3), position_encoding=FOURIER), (4, 6)),
    series=(
        dict(kind="array", patch_size=(3,), mean=(1.0,), std=(2.0,), mask_channels=True),
        (8, 1),
    ),
    points=(
        dict(kind="point_cloud", position_encoding=dict(FOURIER, max_resolution=(9, 9))),
        (7, 2),
    ),
)


@pytest.mark.parametrize("by_element", [False, True])
def test_a_mask_of_any_kind_of_input_hides_nan(by_element):
    rng = np.random.default_rng(0)
    inputs = {name: keys for name, (keys, _) in KINDS.items()}
    model = build(inputs=inputs, fusion=dict(modality_channels=2))
    batch = {n: rng.normal(size=(2, *s)).astype(np.float32) for n, (_, s) in KINDS.items()}
    sizes = dict(image=24, video=8, audio=7, mel=8, series=8, points=7)
    for name in sizes if by_element else KINDS:
        shape = (2, sizes[name]) if by_element else (2,)
        batch[f"{name}_mask"] = np.broadcast_to(np.arange(2) < 1, shape[::-1]).T
    params = make_params(model, batch)
    dirty = {n: np.where(np.arange(len(a)).reshape(-1, *[1] * (a.ndim - 1)) < 1, a, np.nan)
             for n, a in batch.items() if n in KINDS}  # fmt: skip

    def loss(params, arrays):
        return jnp.sum(model.apply(params, None, batch | arrays)["label"] ** 2)

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    clean = {name: batch[name] for name in KINDS}
    dirty = {name: a.astype(np.float32) for name, a in dirty.items()}
    got, expected = run(params, dirty), run(params, clean)
    jax.tree.map(np.testing.assert_array_equal, got, expected)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "bool", "float16"])
def test_whole_numbers_count_as_the_same_floats(dtype):
    values = np.random.default_rng(0).integers(0, 5, (2, 8, 8, 1)).astype(dtype)
    model = build()
    params = make_params(model, dict(x=values))
    values_of = jax.jit(lambda x: model.tokens(params, None, dict(x=x)).values)
    got = values_of(values)
    np.testing.assert_array_equal(got, values_of(values.astype(np.float32)))
    assert len(np.unique(got[0, :, 1:], axis=0)) == 64


def test_whole_numbers_beyond_32_bits_are_not_cut_off():
    values = np.full((1, 2, 1), 2**40)
    model = build()
    got = model.tokens(make_params(model, dict(x=values)), None, dict(x=values)).values
    assert got[0, 0, 0] == 2.0**40


def test_points_on_whole_numbers_are_encoded_as_floats():
    points = np.array([[-1, 0], [1, 1]])
    got = perceiver_jax.fourier_features(points, 3, (7, 9))
    expected = perceiver_jax.fourier_features(points.astype(np.float32), 3, (7, 9))
    np.testing.assert_array_equal(got, expected)


def error_of(model, batch, params=None):
    """The message of `init`, or of `apply` and `tokens` where there are parameters."""
    with pytest.raises(ValueError) as caught:
        if params is None:
            jax.eval_shape(model.init, jax.random.key(0), batch)
        else:
            jax.jit(model.apply)(params, None, batch)
    return str(caught.value)


X = np.ones((B, M, C), np.float32)
LEARNED = dict(x=dict(kind="array", position_encoding=dict(kind="learned", num_channels=2)))


@pytest.mark.parametrize(
    "batch, message",
    [
        (dict(x=X[0]), "Input 'x' has shape (11, 3), 2 axes; expected 3 or more, [B, *X, C]"),
        (dict(x=X[:0]), "Input 'x' has shape (0, 11, 3), no elements"),
        (dict(y=X), "The batch has no 'x'; it has ['y']"),
        (dict(x=X + 1j), "Input 'x' is complex64; expected real numbers"),
        (dict(x=X, x_mask=np.ones((B, M))), "x_mask is float32; expected bool"),
        (dict(x=X, x_mask=np.ones((B, M - 1), bool)), "mask has shape (3, 10); expected (3,) or"),
        (dict(x=X, x_mask=np.ones(B + 1, bool)), "x_mask has shape (4,); expected 3 examples"),
    ],
)
def test_a_batch_that_fits_no_parameters_is_an_error_that_names_the_input(batch, message):
    model = build()
    assert message in error_of(model, batch)
    assert message in error_of(model, batch, make_params(model, dict(x=X)))


@pytest.mark.parametrize(
    "value", [np.full((B, M, C), "a"), np.full((B, M, C), None), [[1], [1, 2]]]
)
def test_what_holds_no_numbers_is_an_error_that_names_the_input(value):
    with pytest.raises(ValueError, match="Input 'x' is no array of numbers"):
        build().init(jax.random.key(0), dict(x=value))


def test_pixels_of_another_range_are_an_error():
    model = build(inputs=dict(image=KINDS["image"][0]))
    message = error_of(model, dict(image=np.ones((2, 4, 6, 1), np.uint16)))
    assert "Input 'image' of shape (2, 4, 6, 1): Pixels are uint16; expected integers" in message


def test_inputs_of_different_batch_sizes_are_an_error():
    inputs = {name: KINDS[name][0] for name in ("audio", "points")}
    model = build(inputs=inputs, fusion={})
    batch = dict(audio=np.ones((2, 35), np.float32), points=np.ones((3, 7, 2), np.float32))
    assert "Input 'points' has 3 examples, 'audio' has 2" in error_of(model, batch)


@pytest.mark.parametrize(
    "inputs, shape, message",
    [
        (None, (B, M, C + 1), "Input 'x' of shape (3, 11, 4) gives 9 channels with its positions"),
        (None, (B, M, M, C), "Input 'x' of shape (3, 11, 11, 3) gives"),
        (LEARNED, (B, M + 1, C), "gives 12 positions; the learned ones of the parameters are 11"),
    ],
)
def test_a_batch_that_the_parameters_were_not_made_for_is_an_error(inputs, shape, message):
    model = build(inputs=inputs)
    params = make_params(model, dict(x=X))
    assert message in error_of(model, dict(x=np.ones(shape, np.float32)), params)


def test_parameters_of_another_model_are_an_error():
    model, batch = build(), dict(x=X)
    params = make_params(model, batch)
    larger = make_params(build(dict(layers=perceiver_jax.make_layers(2, 2, sharing="none"))), batch)
    wider = make_params(build(dict(latent_channels=16)), batch)
    assert "they hold 'encoder/latent_transformer_1" in error_of(model, batch, larger)
    assert "expected (8, 4)" in error_of(model, batch, wider)
    short = {k: v for k, v in params.items() if k != "encoder/cross_attend_1/key"}
    assert "they lack 'encoder/cross_attend_1/key/" in error_of(model, batch, short)


def test_inputs_of_one_channel_which_a_norm_makes_zero_are_refused():
    batch = dict(x=array_batch()["x"][..., :1])
    for keys in (dict(num_channels=4), dict(position_encoding=FOURIER)):
        build(inputs=dict(x=dict(kind="array", **keys))).init(jax.random.key(0), batch)
    with pytest.raises(config.UserError, match="Inputs 'all' have 1 channel.*expected at least 2"):
        build(inputs=dict(x=dict(kind="array"))).init(jax.random.key(0), batch)
