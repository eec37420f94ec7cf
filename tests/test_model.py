"""Properties of whole models, on one small audio-visual Perceiver that all tests share."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perceiver_jax
from perceiver_jax import config

FOURIER = dict(kind="fourier", num_bands=3)
CONFIG = dict(
    outputs=dict(label=dict(kind="mean_pool", size=7)),
    inputs=dict(
        video=dict(
            kind="video",
            mean=(0.5,) * 3,
            std=(0.2,) * 3,
            patch_size=(1, 2, 2),
            position_encoding=FOURIER,
        ),
        points=dict(kind="point_cloud", position_encoding=dict(FOURIER, max_resolution=(9, 9, 9))),
    ),
    fusion=dict(modality_channels=2, dropout_rates=dict(video=0.5)),
    encoder=dict(
        num_latents=5,
        latent_channels=12,
        layers=perceiver_jax.make_layers(2, 2),
        num_self_attends=2,
        num_self_attend_heads=3,
        chunk_size=16,
    ),
)


def make_batch(seed=0):
    rng = np.random.default_rng(seed)
    return dict(
        video=rng.integers(0, 256, (2, 3, 4, 6, 3), np.uint8),
        points=rng.uniform(-1, 1, (2, 23, 3)).astype(np.float32),
        points_mask=rng.random((2, 23)) < 0.7,
    )


def make_params(model, batch):
    """Parameters away from their start, where the head is zero and so is every gradient."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32), shapes)


# One process of pytest-xdist compiles what the tests share.
pytestmark = pytest.mark.xdist_group("model")


@pytest.fixture(scope="module")
def model():
    return perceiver_jax.build_model(CONFIG)


@pytest.fixture(scope="module")
def params(model):
    return make_params(model, make_batch())


@pytest.fixture(scope="module")
def apply(model):
    return jax.jit(lambda params, batch: model.apply(params, None, batch)["label"])


@pytest.fixture(scope="module")
def gradients(model, params):
    """Of the logits' squares, for the parameters and the points."""

    def loss(params, points):
        return jnp.sum(model.apply(params, None, dict(make_batch(), points=points))["label"] ** 2)

    return jax.jit(jax.grad(loss, argnums=(0, 1)))(params, make_batch()["points"])


@pytest.fixture(scope="module")
def new_params(model):
    return jax.jit(model.init)(jax.random.key(0), make_batch())


def test_a_new_model_gives_every_class_the_same_score(apply, new_params):
    assert {x.dtype for x in jax.tree.leaves(new_params)} == {jnp.dtype("float32")}
    np.testing.assert_array_equal(apply(new_params, make_batch()), np.zeros((2, 7)))


def test_latents_and_embeddings_start_as_truncated_normals_of_the_given_scale(new_params):
    latents = new_params["encoder"]["latents"]
    assert 0.01 < latents.std() < 0.03 and jnp.abs(latents).max() <= 0.04 + 1e-6
    assert 0 < jnp.abs(new_params["inputs"]["video_embedding"]).max() <= 0.04 + 1e-6


def test_output_depends_on_every_modality(apply, params):
    out = apply(params, make_batch())
    assert jnp.abs(out[0] - out[1]).max() > 1e-3
    for name in ("video", "points"):
        changed = make_batch() | {name: make_batch(1)[name]}
        assert jnp.abs(apply(params, changed) - out).max() > 1e-3


def test_order_of_the_inputs_does_not_matter_if_positions_move_along(apply, params):
    batch = make_batch()
    order = np.random.default_rng(1).permutation(23)
    moved = batch | {name: batch[name][:, order] for name in ("points", "points_mask")}
    np.testing.assert_allclose(apply(params, moved), apply(params, batch), atol=1e-5)


def test_a_fixed_permutation_of_pixels_and_positions_changes_nothing():
    images = dict(image=np.random.default_rng(0).integers(0, 256, (2, 5, 7, 1), np.uint8))
    out = []
    for seed in (-1, 3):
        image = dict(
            kind="image", mean=(0.1,), std=(0.3,), position_encoding=FOURIER, permutation_seed=seed
        )
        model = perceiver_jax.build_model(dict(CONFIG, inputs=dict(image=image), fusion=None))
        out.append(jax.jit(model.apply)(make_params(model, images), None, images)["label"])
    assert jnp.abs(out[0][0] - out[0][1]).max() > 1e-3
    np.testing.assert_allclose(*out, atol=1e-5)


def test_masked_inputs_have_no_influence(apply, params):
    batch = make_batch()
    other = np.where(batch["points_mask"][..., None], batch["points"], make_batch(1)["points"])
    assert (other != batch["points"]).any()
    np.testing.assert_array_equal(apply(params, batch | dict(points=other)), apply(params, batch))


def test_masked_inputs_get_no_gradient_and_real_ones_do(gradients):
    by_point = np.abs(gradients[1]).sum(-1)
    mask = make_batch()["points_mask"]
    assert not by_point[~mask].any() and by_point[mask].all()


def test_masking_equals_leaving_out(model, apply, params):
    batch = make_batch()
    batch["points_mask"][:] = np.arange(23) < 17
    left_out = dict(video=batch["video"], points=batch["points"][:, :17])
    got = jax.jit(model.apply)(params, None, left_out)["label"]
    np.testing.assert_allclose(got, apply(params, batch), atol=1e-5)


def test_an_example_without_any_input_stays_finite(apply, params):
    batch = make_batch() | dict(video_mask=np.zeros(2, bool), points_mask=np.zeros((2, 23), bool))
    assert jnp.isfinite(apply(params, batch)).all()


def test_every_parameter_gets_a_gradient_but_the_key_biases(gradients):
    without = {
        f"{module}/{name}"
        for module, leaves in gradients[0].items()
        for name, leaf in leaves.items()
        if not np.abs(leaf).max() > 1e-7
    }
    assert without == {"encoder/cross_attend_0/key/b", "encoder/cross_attend_1/key/b"}


def test_plain_and_streaming_forms_agree(apply, params):
    plain = CONFIG | dict(encoder=CONFIG["encoder"] | dict(streaming=False, scan=False))
    got = jax.jit(perceiver_jax.build_model(plain).apply)(params, None, make_batch())["label"]
    np.testing.assert_allclose(got, apply(params, make_batch()), rtol=1e-5, atol=1e-5)


def test_bfloat16_gives_finite_float32_logits_near_those_of_float32(apply, params):
    model = perceiver_jax.build_model(CONFIG | dict(dtype="bfloat16"))
    out = jax.jit(model.apply)(params, None, make_batch())["label"]
    expected = apply(params, make_batch())
    assert out.dtype == jnp.float32 and jnp.isfinite(out).all()
    assert jnp.abs(out - expected).max() < 0.1 * jnp.abs(expected).max()


def test_training_draws_one_modality_dropout_an_example_key(model, params):
    apply = jax.jit(lambda keys, batch: model.apply(params, keys, batch, is_training=True)["label"])
    keys = jax.random.split(jax.random.key(5), 8)
    batch = {k: np.repeat(v[:1], 8, axis=0) for k, v in make_batch().items()}
    out = apply(keys, batch)
    assert len(np.unique(np.round(out[:, 0], 3))) == 2  # with and without the video
    np.testing.assert_allclose(apply(keys[::-1], batch), out[::-1], atol=1e-5)


def test_five_lines_make_a_model_of_any_array():
    batch = dict(signal=np.ones((2, 29, 3), np.float32))
    model = perceiver_jax.build_model(
        dict(
            outputs=dict(label=dict(kind="mean_pool", size=5)),
            inputs=dict(signal=dict(kind="array", position_encoding=FOURIER)),
            encoder=dict(num_latents=4, latent_channels=8, layers=perceiver_jax.make_layers(1, 1)),
        )
    )
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
    assert jax.eval_shape(model.apply, shapes, None, batch)["label"].shape == (2, 5)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(dtype="float16"), "Unknown config.model.dtype 'float16'; expected one of"),
        (dict(encodr={}), "Unknown key config.model.encodr;.* Did you mean 'encoder'?"),
        (dict(inputs={}), "model.inputs is empty"),
        (dict(fusion=None), "2 inputs .points, video. and no config.model.fusion"),
        (dict(inputs=dict(video=CONFIG["inputs"]["video"])), "model.fusion is set for one input"),
        (dict(encoder=dict(num_latents=4)), "Missing key config.model.encoder.latent_channels"),
        (dict(encoder=CONFIG["encoder"] | dict(num_latent=4)), "Did you mean 'num_latents'?"),
        (dict(outputs=dict(y=dict(kind="max"))), "Unknown config.model.outputs.y.kind 'max'"),
        (dict(inputs=CONFIG["inputs"] | dict(video=dict(kind="vdeo"))), "Did you mean 'video'?"),
        (dict(outputs={}), "model.outputs is empty"),
        (dict(outputs=dict(y=dict(kind="query"))), "Missing key config.model.outputs.y.size"),
        (dict(outputs="y"), "config.model.outputs is 'y'; expected at least one, by name"),
        (dict(inputs=5), "config.model.inputs is 5; expected at least one, by name"),
        (dict(inputs=dict(x=5), fusion=None), "config.model.inputs.x is 5; expected a section"),
        (dict(outputs={"a b": {}, "c": {}}), "config.model.outputs has the name 'a b'; expected a"),
        (dict(inputs={3: {}}, fusion=None), "config.model.inputs has the name 3; expected a word"),
        (
            dict(outputs=dict(y=dict(kind="mean_pool", size=(2,)))),
            r"config.model.outputs.y.size is \(2,\); expected a single number",
        ),
    ],
)
def test_a_wrong_config_is_refused_when_the_model_is_built(change, message):
    with pytest.raises(ValueError, match=message):
        perceiver_jax.build_model(CONFIG | change)


ENCODER = "config.model.encoder"
X = "config.model.inputs.x"


@pytest.mark.parametrize(
    "keys, message",
    [
        (dict(num_latents=0), f"{ENCODER}.num_latents is 0; expected at least 1"),
        (dict(num_self_attend_heads=5), f"{ENCODER}.latent_channels is 12, .* = 5 does not div"),
        (dict(layers=()), f"{ENCODER}.layers is empty"),
        (dict(layers=("cross_attend", "mlp")), f"{ENCODER}.layers names 'mlp'"),
        (dict(dropout_rate=1.0), f"{ENCODER}.dropout_rate is 1.0; .* and less than 1"),
        (dict(latent_init_scale=0.0), f"{ENCODER}.latent_init_scale is 0.0; expected more th"),
        (dict(chunk_size=-1), f"{ENCODER}.chunk_size is -1; expected at least 0"),
        (dict(streaming="no"), f"{ENCODER}.streaming is 'no'; expected True or False"),
        (dict(layers=5), f"{ENCODER}.layers is 5; expected a list"),
        (dict(layers=["latent_transformer"]), f"{ENCODER}.layers is .*; expected at least one cro"),
    ],
)
def test_an_encoder_that_can_not_be_is_refused_when_the_model_is_built(keys, message):
    with pytest.raises(config.UserError, match=message):
        perceiver_jax.build_model(CONFIG | dict(encoder=CONFIG["encoder"] | keys))


VIDEO = CONFIG["inputs"]["video"]


@pytest.mark.parametrize(
    "keys, message",
    [
        (dict(VIDEO, patch_size=(2, 8)), rf"{X}.patch_size is \(2, 8\); expected 3 .* of T H W"),
        (dict(VIDEO, patch_size=(2, 0, 8)), f"{X}.patch_size is .*; expected at least 1"),
        (dict(VIDEO, std=(0.2, 0, 0.2)), f"{X}.std is .*; expected at least 1e-06"),
        (dict(VIDEO, std=(0.2, 0.2, 58.0)), f"{X}.std is .*; expected .* and at most 1"),
        (dict(VIDEO, mean=(0.2, 124.0, 0.2)), f"{X}.mean is .*; expected .* and at most 1"),
        (dict(VIDEO, mean=(0.2, 0.1)), f"{X}.mean is .* and std .*; expected one of each"),
        (dict(kind="image", mean=(0,), std=(1,), permutation_seed=-2), "permutation_seed is -2; "),
        (dict(kind="mel", patch_size=(2,)), rf"{X}.patch_size is \(2,\); expected 2 numbers, of T"),
        (dict(kind="audio", patch_size=0), f"{X}.patch_size is 0; expected at least 1"),
        (
            dict(kind="array", position_encoding=dict(kind="fourier", num_bands=0)),
            f"{X}.position_encoding.num_bands is 0; expected at least 1",
        ),
        (
            dict(kind="array", position_encoding=dict(kind="learned", num_channels=0)),
            f"{X}.position_encoding.num_channels is 0; expected at least 1",
        ),
        (
            dict(kind="point_cloud", position_encoding=FOURIER),
            f"{X}.position_encoding is .*; expected kind 'fourier' with max_resolution",
        ),
    ],
)
def test_an_input_that_can_not_be_is_refused_when_the_model_is_built(keys, message):
    with pytest.raises(config.UserError, match=message):
        perceiver_jax.build_model(CONFIG | dict(inputs=dict(x=keys), fusion=None))


@pytest.mark.parametrize(
    "keys, message",
    [
        (dict(modality_channels=0), "fusion.modality_channels is 0; expected at least 1"),
        (dict(dropout_rates=dict(video=1.0)), "fusion.dropout_rates.video is 1.0; .* less than 1"),
        (dict(dropout_rates=0.5), "fusion.dropout_rates is 0.5; expected a section"),
        (dict(dropout_rates=dict(vdeo=0.5)), "fusion.dropout_rates names 'vdeo'; .*mean 'video'"),
    ],
)
def test_a_fusion_that_can_not_be_is_refused_when_the_model_is_built(keys, message):
    with pytest.raises(config.UserError, match=f"config.model.{message}"):
        perceiver_jax.build_model(CONFIG | dict(fusion=keys))


def test_several_outputs_have_parameters_of_their_own_and_agree_with_one_alone(model, params):
    outputs = CONFIG["outputs"] | dict(size=dict(kind="query", size=3, query_channels=11))
    both = perceiver_jax.build_model(CONFIG | dict(outputs=outputs))
    shapes = jax.eval_shape(both.init, jax.random.key(0), make_batch())
    assert {"decoder/label/logits", "decoder/size/logits", "decoder/size/cross_attend/query"} <= (
        shapes.keys()
    )
    own = jax.tree.map(lambda x: jnp.full(x.shape, 0.1), shapes)
    shared = {path: params[path] for path in shapes if path in params}
    label = {"decoder/label/logits": params["decoder/logits"]}
    got = jax.jit(both.apply)(own | shared | label, None, make_batch())
    assert {name: x.shape for name, x in got.items()} == {"label": (2, 7), "size": (2, 3)}
    alone = jax.jit(model.apply)(params, None, make_batch())["label"]
    np.testing.assert_allclose(got["label"], alone, atol=1e-5)


def test_training_without_keys_is_an_error(model, params):
    with pytest.raises(ValueError, match="rng is None in training"):
        jax.eval_shape(lambda: model.apply(params, None, make_batch(), is_training=True))


def test_parameters_of_an_output_that_do_not_fit_are_named_and_no_input(params):
    outputs = dict(a=dict(kind="query", size=3, query_channels=11))
    model = perceiver_jax.build_model(CONFIG | dict(outputs=outputs))
    shapes = jax.eval_shape(model.init, jax.random.key(0), make_batch())
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape), shapes) | {
        "decoder/logits": params["decoder/logits"]  # Of another size.
    }
    other = {path: zeros[path] for path in sorted(zeros, reverse=True)}  # Any order: encoder first.
    with pytest.raises(config.UserError, match="'decoder/logits/.' has shape .*; expected"):
        model.apply(other, None, make_batch())


def test_a_model_stays_what_it_was_built_as():
    keys = copy.deepcopy(CONFIG)
    model = perceiver_jax.build_model(keys)
    keys["encoder"]["num_latents"] = 17
    shapes = jax.eval_shape(model.init, jax.random.key(0), make_batch())
    assert shapes["encoder"]["latents"].shape == (5, 12)
