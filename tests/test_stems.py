"""What images go through before their positions are attached, beside the authors' values."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_jax import config, position_encoding, stems
from perceiver_jax.inputs import image
from tests.test_input_kinds import (
    FOURIER,
    PIXELS,
    assert_golden,
    build,
    golden,
    make_images,
    make_params,
    run,
    transform,
)


def image_module(stem=None, encoding=FOURIER, **keys):
    """A function of images [B, H, W, C] and masks."""

    def make(images, mask=None):
        positions = None
        if encoding is not None:
            positions = config.build_from_table(
                position_encoding.ENCODINGS, encoding, "", name="image_position_encoding"
            )
        return image.ImagePreprocessor(
            **PIXELS, stem=stem, position_encoding=positions, name="image", **keys
        )(images, mask)

    return transform(make)


def test_pixels_after_1x1_convolution_and_projected_learned_positions_equal_the_authors():
    data = golden("classifier_learned")
    theirs = "param:image_preprocessor/~"
    positions = f"{theirs}_build_network_inputs/"
    params = {
        "image/stem/conv": {k: data[f"{theirs}/conv2_d/{k}"] for k in "wb"},
        "image_position_encoding": {
            "position_embedding": data[f"{positions}trainable_position_encoding/pos_embs"]
        },
        "image_position_encoding/projection": {
            k: data[f"{positions}position_encoding_projector/linear/{k}"] for k in "wb"
        },
    }

    def make():
        encoding = position_encoding.LearnedEncoding(
            10, project_to=10, name="image_position_encoding"
        )
        stem = {"kind": "conv1x1", "num_channels": 10}
        return image.ImagePreprocessor(
            **PIXELS, stem=stem, position_encoding=encoding, name="image"
        )

    found = run(make, params, data["in:images"])
    assert_golden(found.values, data["mid:preprocessed"])


def test_convolution_with_batch_norm_and_pooling_equals_the_authors():
    data = golden("classifier_conv")
    theirs = "image_preprocessor/~/conv2_d_downsample/~/"
    norm = {k: data[f"param:{theirs}batchnorm/{k}"].ravel() for k in ("scale", "offset")}
    for ours, name in (("mean", "mean_ema"), ("variance", "var_ema")):
        norm[ours] = data[f"state:{theirs}batchnorm/~/{name}/average"].ravel()
    params = {
        "image/stem/conv": {"w": data[f"param:{theirs}conv/w"]},
        "image/stem/batch_norm": norm,
    }

    def make():
        encoding = position_encoding.FourierEncoding(3, (5, 6), name="image_position_encoding")
        stem = {"kind": "conv", "num_channels": 8}
        return image.ImagePreprocessor(
            **PIXELS, stem=stem, position_encoding=encoding, name="image"
        )

    found = run(make, params, data["in:images"])
    assert_golden(found.values, data["mid:preprocessed"])


@pytest.mark.parametrize(
    ("stem", "size"),
    [
        ({"kind": "conv1x1", "num_channels": 5}, (13, 23)),
        ({"kind": "conv", "num_channels": 5}, (13, 23)),
        ({"kind": "conv", "num_channels": 5}, (1, 2)),
        ({"kind": "conv", "num_channels": 5, "padding": "port"}, (13, 23)),
        ({"kind": "conv", "num_channels": 5, "batch_norm": False}, (14, 21)),
        ({"kind": "patches", "patch_size": (2, 3)}, (14, 21)),
        ({"kind": "patches", "patch_size": (2, 3), "num_channels": 5}, (14, 21)),
    ],
)
def test_grid_is_that_of_what_a_stem_gives(stem, size):
    def grid():
        return image.ImagePreprocessor(**PIXELS, stem=stem, name="image").grid((*size, 3))

    rows, columns = hk.transform(grid).apply({}, None)
    module = image_module(stem)
    images = make_images(2, *size, 3)
    params = jax.eval_shape(module.init, images)
    found = jax.eval_shape(module.apply, params, images)
    features = 18 if len(stem) == 2 and stem["kind"] == "patches" else 5
    assert found.values.shape == (2, rows * columns, features + 10)


def test_port_padding_is_that_of_hugging_face():
    """224 pixels give 55 positions; three zeros before the first pixel."""
    stem = stems.Conv(1, batch_norm=False, padding="port")
    assert stem.grid(224, 224) == (55, 55)
    x = make_images(1, 10, 12, 1)  # Even, or "same" would be the same before the pooling.
    function = transform(lambda x: stem(x))
    w = make_images(7, 7, 1, 1, seed=1)
    padded = np.pad(x[0, ..., 0], 3)
    conv = np.array(
        [[np.sum(padded[i : i + 7, j : j + 7] * w[..., 0, 0]) for j in range(0, 12, 2)]
         for i in range(0, 10, 2)]
    )  # fmt: skip
    expected = [
        [max(conv[i : i + 3, j : j + 3].max(), 0) for j in range(0, 4, 2)] for i in range(0, 3, 2)
    ]
    found = function.apply({"conv": {"w": w}}, x)
    np.testing.assert_allclose(found[0, ..., 0], expected, atol=1e-5)


def test_patches_of_an_image_are_its_pixels_by_row_column_and_channel():
    images = make_images(2, 4, 6, 3)
    module = image_module({"kind": "patches", "patch_size": (2, 3)}, encoding=None)
    found = module.apply({}, images).values
    np.testing.assert_array_equal(found[1, 3], images[1, 2:, 3:].reshape(-1))


@pytest.mark.parametrize(
    ("stem", "message"),
    [
        ({"kind": "conv2x2"}, "Unknown config.model.inputs.image.stem.kind 'conv2x2'"),
        ({"kind": "conv1x1"}, "Missing key config.model.inputs.image.stem.num_channels"),
        ({"kind": "conv", "padding": "valid"}, "padding 'valid'; expected one of .'same', 'port'"),
        ({"kind": "conv", "patch_size": (2, 2)}, "'patch_size' is for 'patches'"),
        ({"kind": "conv", "num_channels": 0}, "image.stem.num_channels is 0; expected at least 1"),
        ({"kind": "patches", "patch_size": (2,)}, "patch_size is .2,.; expected 2 numbers, of H W"),
        ("conv", "config.model.inputs.image.stem is 'conv'; expected a section, or None"),
    ],
)
def test_wrong_stems_are_refused_when_a_model_is_built(stem, message):
    with pytest.raises(config.UserError, match=message):
        build({"image": {"kind": "image", **PIXELS, "stem": stem}})


def test_image_that_leaves_nothing_to_pool_is_refused():
    module = image_module({"kind": "conv", "padding": "port"})
    with pytest.raises(config.UserError, match="image of 4 x 9 pixels .* at least 5 x 5"):
        module.init(make_images(1, 4, 9, 3))


@pytest.mark.parametrize(
    "stem",
    [
        {"kind": "conv", "num_channels": 4},
        {"kind": "patches", "patch_size": (4, 4), "num_channels": 4},
    ],
)
def test_nothing_of_masked_inputs_goes_through_a_stem(stem):
    module, images = image_module(stem), make_images(2, 12, 20, 3)
    params = make_params(module, images)
    mask = np.ones((2, 3, 5), bool)
    mask[0, 1, 2] = False
    expected = module.apply(params, images, mask)
    images[0, 4:8, 8:12] = np.nan
    found = module.apply(params, images, mask)
    np.testing.assert_array_equal(found.values, expected.values)
    np.testing.assert_array_equal(found.mask, mask.reshape(2, 15))


def test_permutation_moves_what_a_stem_gives_together_with_its_mask():
    stem = {"kind": "patches", "patch_size": (2, 2)}
    images, mask = make_images(1, 6, 10, 3), np.arange(15)[None] % 4 > 0
    plain, permuted = (
        image_module(stem, permutation_seed=seed).apply({}, images, mask) for seed in (-1, 4)
    )
    order = np.random.default_rng(4).permutation(15)
    np.testing.assert_array_equal(permuted.values, plain.values[:, order])
    np.testing.assert_array_equal(permuted.mask, plain.mask[:, order])


def test_a_stem_is_one_however_often_it_is_called():
    def twice(images):
        module = image.ImagePreprocessor(
            **PIXELS, stem={"kind": "conv", "num_channels": 4}, name="image"
        )
        return module(images), module(images)

    params = jax.eval_shape(transform(twice).init, make_images(1, 8, 8, 3))
    assert sorted(params) == ["image/stem/batch_norm", "image/stem/conv"]


def test_attention_maps_are_over_what_a_stem_gives():
    stem = {"kind": "conv", "num_channels": 4}
    model = build({"image": {"kind": "image", **PIXELS, "stem": stem}})
    batch = {"image": make_images(2, 12, 19, 3)}
    params = jax.eval_shape(model.init, jax.random.key(0), batch)
    maps = jax.eval_shape(lambda p: model.attention_maps(p, batch, (0,)), params)
    assert maps[0]["image"]["weights"].shape == (2, 1, 3, 3, 5)


def test_tokens_in_training_are_those_that_training_sees():
    stem = {"kind": "conv", "num_channels": 4}
    model = build({"image": {"kind": "image", **PIXELS, "stem": stem}})
    batch = {"image": make_images(2, 12, 19, 3) * np.reshape([1, 3], (2, 1, 1, 1))}
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
    params = jax.tree.map(lambda x: jnp.ones(x.shape), shapes)
    make = jax.jit(model.tokens, static_argnames="is_training")
    found, alone = (
        make(params, jax.random.key(0), {"image": batch["image"][:n]}, is_training=True).values
        for n in (2, 1)
    )
    assert np.abs(found[:1] - alone).max() > 0.1  # Batches of one have other statistics.


def test_stem_is_computed_in_the_dtype_of_its_parameters():
    images = make_images(2, 12, 20, 3)
    module = image_module({"kind": "conv", "num_channels": 4}, encoding=None)
    params = make_params(module, images)
    exact = module.apply(params, images).values
    params["image/stem/conv"] = {"w": params["image/stem/conv"]["w"].astype(jnp.bfloat16)}
    found = module.apply(params, images).values
    assert found.dtype == jnp.float32 and (found != exact).any()
    np.testing.assert_allclose(found, exact, atol=0.05 * np.abs(exact).max())
