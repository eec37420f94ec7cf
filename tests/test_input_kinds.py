"""Inputs of Perceiver IO: pairs of frames, texts, labels; stems have their own tests."""

import pathlib

import haiku as hk
import jax
from jax import export
import jax.numpy as jnp
import numpy as np
import pytest

import perceiver_jax
from perceiver_jax import config, position_encoding
from perceiver_jax.inputs import frames, label, text

GOLDEN = pathlib.Path(__file__).parent / "golden"
FOURIER = {"kind": "fourier", "num_bands": 2}
PIXELS = {"mean": (0.5,) * 3, "std": (0.5,) * 3}


def golden(name):
    return np.load(GOLDEN / f"io_{name}.npz")


def run(make, params, *inputs):
    """What the module that `make()` returns does of inputs in float64, with those parameters."""
    function = hk.without_apply_rng(hk.transform(lambda *args: make()(*args)))
    shapes = jax.eval_shape(function.init, jax.random.key(0), *inputs)
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(np.shape, params)
    with jax.enable_x64(True):
        params, inputs = jax.tree.map(jnp.asarray, (params, inputs))
        return jax.tree.map(np.asarray, jax.jit(function.apply)(params, *inputs))


def assert_golden(got, expected):
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())


def transform(make):
    """Pure functions of arrays, NumPy's too."""
    pure = hk.without_apply_rng(hk.transform(make))
    return hk.Transformed(
        lambda *inputs: pure.init(jax.random.key(0), *map(jnp.asarray, inputs)),
        lambda params, *inputs: jax.jit(pure.apply)(params, *map(jnp.asarray, inputs)),
    )


def make_params(function, *inputs):
    """Random ones, so that scales, offsets and averages matter."""
    shapes = jax.eval_shape(function.init, *inputs)
    values = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(values.uniform(0.5, 1, x.shape), x.dtype), shapes)


def make_images(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def build(inputs, **keys):
    return perceiver_jax.build_model(
        {
            "inputs": inputs,
            "encoder": {
                "num_latents": 3,
                "latent_channels": 8,
                "layers": ("cross_attend_0",),
            },
            "outputs": {"label": {"kind": "mean_pool", "size": 2}},
        }
        | keys
    )


# ------------------------------------------------------------------ frames
def test_surroundings_of_pixels_equal_the_authors():
    data = golden("flow")
    with jax.enable_x64(True):
        pixels = jnp.asarray(data["in:images"])
        found = [frames.surroundings(pixels[:, i], (3, 3)) for i in range(2)]
        np.testing.assert_allclose(np.stack(found, axis=1), data["mid:patches"], atol=1e-12)


def test_pairs_of_frames_equal_the_authors():
    data = golden("flow")
    linear = {k: data[f"param:image_preprocessor/patches_linear/{k}"] for k in "wb"}

    def make():
        encoding = position_encoding.FourierEncoding(3, (8, 12), name="frames_position_encoding")
        return frames.FramesPreprocessor(
            **PIXELS, num_channels=8, position_encoding=encoding, name="frames"
        )

    found = run(make, {"frames/projection": linear}, data["in:images"]).values
    # Frames follow each other in the 54 numbers of a pixel.
    patches = data["mid:patches"].transpose(0, 2, 3, 1, 4).reshape(2, 96, 54)
    assert_golden(found[..., :8], patches @ linear["w"] + linear["b"])
    assert_golden(found[..., 8:], np.stack([data["mid:position_features"]] * 2))


def test_embedded_texts_equal_the_authors():
    data = golden("mlm_text")
    params = {
        "text": {"token_embedding": data["param:embed/embeddings"]},
        "text_position_encoding": {
            "position_embedding": data["param:trainable_position_encoding/pos_embs"]
        },
    }

    def make():
        encoding = position_encoding.LearnedEncoding(12, name="text_position_encoding")
        return text.TextPreprocessor(40, 12, 24, position_encoding=encoding, name="text")

    found = run(make, params, data["in:inputs"])
    assert_golden(found.values, data["mid:embedded"])


def frames_module(**keys):
    def make(pairs, mask=None):
        return frames.FramesPreprocessor(**PIXELS, name="frames", **keys)(pairs, mask)

    return transform(make)


def test_whole_numbers_in_frames_are_normalised_before_zeros_are_put_around():
    pairs = np.full((1, 2, 3, 5, 3), 255, np.uint8)
    found = frames_module(num_channels=0).apply({}, pairs).values.reshape(3, 5, 54)
    np.testing.assert_allclose(found[1, 2], 1, atol=1e-6)
    np.testing.assert_allclose(
        found[0, 0].reshape(2, 3, 3, 3)[:, 0], 0, atol=1e-6
    )  # Above the first row.


def test_masked_pixels_of_frames_count_as_outside():
    pairs, mask = make_images(2, 2, 5, 7, 3), np.ones((2, 5, 7), bool)
    mask[1, :, 5:] = False
    pairs[1, :, :, 5:] = np.nan
    found = frames_module(num_channels=0).apply({}, pairs, mask)
    alone = frames_module(num_channels=0).apply({}, pairs[1:, :, :, :5])
    expected = alone.values.reshape(5, 5, 54)
    np.testing.assert_array_equal(found.values[1].reshape(5, 7, 54)[:, :5], expected)
    np.testing.assert_array_equal(found.mask, mask.reshape(2, 35))


@pytest.mark.parametrize("size", [(2, 3), (3, 4)])
def test_patches_without_a_middle_are_refused(size):
    with pytest.raises(config.UserError, match="patch_size is .*; expected odd numbers"):
        frames_module(patch_size=size).init(make_images(1, 2, 5, 7, 3))


def test_other_numbers_of_frames_than_two_are_refused():
    with pytest.raises(config.UserError, match="There are 3 frames; expected 2"):
        frames_module().init(make_images(1, 3, 5, 7, 3))


# ------------------------------------------------------------------ texts


def text_module(encoding=True, **keys):
    def make(ids, mask=None):
        positions = position_encoding.LearnedEncoding(5, name="text_position_encoding")
        return text.TextPreprocessor(
            13, 5, 11, position_encoding=positions if encoding else None, name="text", **keys
        )(ids, mask)

    return transform(make)


IDS = np.array([[3, 12, 0], [7, 7, 1]], np.int32)


def test_shorter_texts_have_the_first_positions():
    module = text_module()
    params = make_params(module, IDS)
    assert params["text_position_encoding"]["position_embedding"].shape == (11, 5)
    longer = np.pad(IDS, ((0, 0), (0, 8)))
    np.testing.assert_array_equal(
        module.apply(params, IDS).values, module.apply(params, longer).values[:, :3]
    )


@pytest.mark.parametrize("wrong", [13, -1])
def test_tokens_that_do_not_exist_give_nan_but_not_under_a_mask(wrong):
    module, ids = text_module(), IDS.copy()
    params = make_params(module, ids)
    ids[1, 2] = wrong
    found = module.apply(params, ids).values
    assert np.isnan(found[1, 2]).all() and np.isfinite(found[0]).all()
    mask = np.array([[True] * 3, [True, True, False]])
    assert np.isfinite(module.apply(params, ids, mask).values).all()


def test_embedding_can_be_used_again():
    def tied(ids):
        module = text.TextPreprocessor(13, 5, 11, name="text")
        first = module.embedding()
        return module(ids).values, first, module.embedding()

    function = transform(tied)
    params = make_params(function, IDS)
    assert jax.tree.map(jnp.shape, params) == {"text": {"token_embedding": (13, 5)}}
    values, first, second = function.apply(params, IDS)
    np.testing.assert_array_equal(first[IDS], values)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (IDS.astype(np.float32), "Tokens are float32; expected integers of 0 to 12"),
        (IDS > 3, "Tokens are bool; expected integers of 0 to 12"),
        (np.zeros((1, 12), np.int32), "There are 12 tokens; expected max_length, 11, at most"),
    ],
)
def test_what_is_no_text_is_refused(ids, message):
    with pytest.raises(config.UserError, match=message):
        text_module().init(ids)


def test_positions_of_other_channels_than_tokens_are_refused():
    def make(ids):
        encoding = position_encoding.FourierEncoding(2, name="text_position_encoding")
        return text.TextPreprocessor(13, 7, position_encoding=encoding, name="text")(ids)

    with pytest.raises(config.UserError, match="has 5 channels; expected 7, as many as num_chan"):
        transform(make).init(IDS)


# ------------------------------------------------------------------ labels


def encode_label(labels, mask=None):
    module = hk.transform(lambda: label.LabelPreprocessor(5, name="label")(labels, mask))
    return module.apply({}, None)


def test_a_label_is_one_input_of_a_channel_a_class():
    shares = np.array([[0, 0, 0, 1, 0], [0.25, 0, 0.75, 0, 0]], np.float32)
    classes = encode_label(jnp.array([3, 2]))
    np.testing.assert_array_equal(classes.values[0], [[0, 0, 0, 1, 0]])
    found = encode_label(jnp.asarray(shares), jnp.array([True, False]))
    np.testing.assert_array_equal(found.values[:, 0], shares)
    np.testing.assert_array_equal(found.mask, [[True], [False]])


@pytest.mark.parametrize("labels", [np.zeros((2, 4)), np.zeros(2), np.zeros((2, 1, 5))])
def test_labels_of_other_classes_are_refused(labels):
    with pytest.raises(config.UserError, match=r"shares of the 5 classes \[B, 5\]"):
        encode_label(jnp.asarray(labels))


def test_learned_positions_are_projected_by_a_layer_of_their_own():
    def encode():
        return position_encoding.LearnedEncoding(3, project_to=7, name="x")((2, 5))

    function = transform(encode)
    params = make_params(function)
    linear = params["x/projection"]
    np.testing.assert_allclose(
        function.apply(params),
        params["x"]["position_embedding"] @ linear["w"] + linear["b"][None],
        rtol=1e-6,
    )


def all_kinds():
    """A model of all these kinds, and a function that makes batches."""
    inputs = {
        "image": {"kind": "image", **PIXELS, "stem": {"kind": "conv", "num_channels": 4}},
        "frames": {"kind": "frames", **PIXELS, "num_channels": 3, "position_encoding": FOURIER},
        "text": {
            "kind": "text",
            "num_channels": 7,
            "max_length": 11,
            "position_encoding": {"kind": "learned", "num_channels": 5, "project_to": 7},
        },
        "label": {"kind": "label", "num_classes": 5},
    }

    def make_batch(size):
        return {
            "image": make_images(size, 8, 8, 3),
            "frames": make_images(size, 2, 3, 5, 3),
            "text": np.arange(3 * size, dtype=np.int32).reshape(size, 3),
            "label": np.arange(size, dtype=np.int32),
        }

    return build(inputs, fusion={"modality_channels": 2}), make_batch


def test_all_kinds_are_read_by_a_model():
    model, make_batch = all_kinds()
    params = jax.eval_shape(model.init, jax.random.key(0), make_batch(2))
    found = jax.eval_shape(lambda p: model.tokens(p, None, make_batch(2)), params)
    assert found.values.shape == (2, 4 + 15 + 3 + 1, 13 + 2)


def test_all_kinds_can_be_mapped_differentiated_and_exported():
    model, make_batch = all_kinds()
    shapes = jax.eval_shape(model.init, jax.random.key(0), make_batch(2))
    values = np.random.default_rng(0)
    params = jax.tree.map(lambda x: jnp.asarray(values.uniform(0.5, 1, x.shape), x.dtype), shapes)

    def encode(batch):
        return model.tokens(params, None, batch).values

    (size,) = export.symbolic_shape("b")
    symbolic = {
        name: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype)
        for name, x in make_batch(2).items()
    }
    exported = export.export(jax.jit(encode), platforms=("cpu", "cuda", "tpu"))(symbolic)

    def total(image, batch):
        return jnp.sum(jnp.sin(encode(batch | {"image": image})))

    @jax.jit  # All at once: to compile takes longer than to run.
    def transformed(batch):
        image = jnp.asarray(batch["image"])
        _, along = jax.jvp(lambda x: total(x, batch), (image,), (jnp.ones_like(image),))
        one_by_one = jax.vmap(lambda b: encode({k: x[None] for k, x in b.items()})[0])(batch)
        return encode(batch), one_by_one, along, jax.grad(total)(image, batch).sum()

    expected, one_by_one, along, gradient = transformed(make_batch(3))
    np.testing.assert_allclose(exported.call(make_batch(3)), expected, atol=1e-5)
    np.testing.assert_allclose(one_by_one, expected, atol=1e-5)
    np.testing.assert_allclose(along, gradient, rtol=1e-3)
