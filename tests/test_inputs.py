import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perceiver_jax
from perceiver_jax import config, tokens

FOURIER = dict(kind="fourier", num_bands=2)


def encode(inputs, batch, rng=None, fusion=None, **keys):
    """The tokens of a batch, and the parameters that made them."""
    model = perceiver_jax.build_model(
        dict(
            outputs=dict(label=dict(kind="mean_pool", size=3)),
            inputs=inputs,
            fusion=fusion,
            encoder=dict(num_latents=2, latent_channels=8, layers=("cross_attend_0",)),
        )
    )
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
    values = np.random.default_rng(0)
    params = jax.tree.map(lambda x: values.normal(size=x.shape).astype(np.float32), shapes)
    make_tokens = jax.jit(model.tokens, static_argnames="is_training")
    return make_tokens(params, rng, batch, is_training=rng is not None), params


def test_patches_of_a_video_hold_neighbouring_pixels():
    video = np.arange(2 * 4 * 6 * 10 * 3).reshape(2, 4, 6, 10, 3)
    patches = tokens.to_patches(jnp.asarray(video), (2, 3, 5))
    assert patches.shape == (2, 2, 2, 2, 90)
    np.testing.assert_array_equal(patches[1, 0, 1, 1], video[1, :2, 3:, 5:].reshape(-1))


def test_patches_that_do_not_tile_are_an_error():
    with pytest.raises(ValueError, match=r"patch_size is \(3,\), which doesn't tile .* \(10,\)"):
        tokens.to_patches(jnp.zeros((1, 10, 1)), (3,))


def test_pixels_are_normalised_by_channel_and_followed_by_their_positions():
    image = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 3), np.uint8)
    keys = dict(kind="image", mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 1.0), position_encoding=FOURIER)
    (values, mask), _ = encode(dict(image=keys), dict(image=image))
    assert values.shape == (2, 15, 3 + 2 * (2 * 2 + 1)) and mask is None
    expected = (image.reshape(2, 15, 3) / 255 - keys["mean"]) / keys["std"]
    np.testing.assert_allclose(values[..., :3], expected, atol=1e-5)
    np.testing.assert_allclose(values[0, :, 3:5], perceiver_jax.linear_positions((3, 5)))


def test_pixels_of_other_channels_than_means_are_refused():
    keys = dict(kind="image", mean=(0.5,), std=(0.2,), position_encoding=FOURIER)
    message = r"mean is \(0.5,\) and std \(0.2,\); expected one of each for the 3 channels"
    with pytest.raises(config.UserError, match=message):
        encode(dict(image=keys), dict(image=np.zeros((1, 3, 5, 3), np.uint8)))


def test_permutation_moves_inputs_together_with_their_positions():
    image = np.random.default_rng(0).integers(0, 256, (1, 3, 5, 3), np.uint8)
    keys = dict(kind="image", mean=(0,) * 3, std=(1,) * 3, position_encoding=FOURIER)
    plain, permuted, again = (
        encode(dict(image=dict(keys, permutation_seed=seed)), dict(image=image))[0].values[0]
        for seed in (-1, 4, 4)
    )
    assert (plain != permuted).any()
    np.testing.assert_array_equal(permuted, again)
    assert sorted(map(tuple, plain.tolist())) == sorted(map(tuple, permuted.tolist()))


def test_points_are_encoded_by_their_coordinates_alone():
    points = jax.random.uniform(jax.random.key(0), (2, 7, 3), minval=-1)
    encoding = dict(FOURIER, max_resolution=(10, 10, 10))
    (values, mask), _ = encode(
        dict(points=dict(kind="point_cloud", position_encoding=encoding)),
        dict(points=points, points_mask=np.arange(14).reshape(2, 7) < 9),
    )
    expected = perceiver_jax.fourier_features(points, 2, (10, 10, 10))
    np.testing.assert_allclose(values[mask], expected[mask])
    assert mask.sum() == 9


def test_samples_are_normalised_before_their_positions_are_attached():
    samples = np.random.default_rng(0).normal(0.3, 0.1, (2, 35)).astype(np.float32)
    keys = dict(kind="audio", patch_size=5, position_encoding=FOURIER)
    as_they_are, normalised = (
        encode(dict(audio=keys | scale), dict(audio=samples))[0].values
        for scale in ({}, dict(mean=0.3, std=0.1))
    )
    np.testing.assert_array_equal(as_they_are[..., :5], samples.reshape(2, 7, 5))
    np.testing.assert_allclose(normalised[..., :5] * 0.1 + 0.3, as_they_are[..., :5], rtol=1e-5)
    np.testing.assert_array_equal(normalised[..., 5:], as_they_are[..., 5:])


def array(shape, mask=None, seed=0, **keys):
    """The array, and its tokens."""
    x = np.random.default_rng(seed).normal(3, 5, shape).astype(np.float32)
    batch = dict(x=x) if mask is None else dict(x=x, x_mask=mask)
    (values, found), _ = encode(dict(x=dict(kind="array", **keys)), batch)
    return x, values, found


def test_a_series_in_patches_is_normalised_by_channel_and_filled_up():
    mean, std = (1.0, -2.0), (5.0, 0.5)
    x, values, mask = array((3, 11, 2), patch_size=(4,), mean=mean, std=std)
    assert mask is None
    filled = np.pad((x - np.array(mean)) / std, [(0, 0), (0, 1), (0, 0)])
    np.testing.assert_allclose(values, filled.reshape(3, 3, 8), atol=1e-5)


def test_patches_of_a_picture_hold_neighbours_and_have_positions():
    x, values, _ = array((2, 5, 7, 3), patch_size=(2, 3), position_encoding=FOURIER)
    assert values.shape == (2, 9, 18 + 2 * (2 * 2 + 1))
    np.testing.assert_array_equal(values[1, 4, :18], x[1, 2:4, 3:6].ravel())
    np.testing.assert_allclose(values[0, :, 18:20], perceiver_jax.linear_positions((3, 3)))


@pytest.mark.parametrize("flat", [False, True])
def test_a_patch_is_read_if_any_of_its_elements_is_real_and_says_which(flat):
    real = np.random.default_rng(1).random((2, 5, 3)) < 0.4
    real[0, 2:4] = False
    keys = dict(patch_size=(2, 3), mean=(1,), std=(2,), mask_channels=True)
    x, values, mask = array((2, 5, 3, 1), real.reshape(2, -1) if flat else real, **keys)
    normed = np.pad(np.where(real, (x[..., 0] - 1) / 2, 0), [(0, 0), (0, 1), (0, 0)])
    there = np.pad(real, [(0, 0), (0, 1), (0, 0)]).reshape(2, 3, 6)
    np.testing.assert_array_equal(mask, there.any(-1))
    assert not mask[0, 1] and mask.sum() > 3
    np.testing.assert_allclose(values[..., :6], normed.reshape(2, 3, 6), atol=1e-6)
    np.testing.assert_array_equal(values[..., 6:], there)


def test_without_a_mask_all_is_real_but_what_fills_the_last_patch():
    _, values, mask = array((2, 5, 1), patch_size=(3,), mask_channels=True)
    assert mask is None
    np.testing.assert_array_equal(values[:, :, 3:], [[[1, 1, 1], [1, 1, 0]]] * 2)
    _, values, mask = array((2, 5, 1), np.array([True, False]), patch_size=(3,))
    assert not values[1].any() and mask.tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            dict(patch_size=(2,)),
            r"patch_size is \(2,\) for an array of \(5, 7\) .*expected 2",
        ),
        (dict(patch_size=(2, 0)), "patch_size is .*; expected at least 1"),
        (dict(mean=(0,), std=(1,)), r"mean is \(0,\) and std \(1,\); expected .* the 3 channels"),
        (dict(mean=(0,) * 3), "mean is .* and std None; expected one of each a channel"),
        (dict(mean=(0,) * 3, std=(1, 0, 1)), "std is .*; expected more than 0"),
        (dict(mask_channels=True), "mask_channels is True.*expected a patch_size"),
        (dict(num_channels=-1), "num_channels is -1; expected"),
    ],
)
def test_keys_of_an_array_that_do_not_fit_are_refused(keys, message):
    with pytest.raises(config.UserError, match=message):
        array((2, 5, 7, 3), **keys)


def multimodal(batch_size=2, rng=None, **fusion):
    inputs = dict(
        video=dict(
            kind="video",
            mean=(0.5,) * 3,
            std=(0.2,) * 3,
            patch_size=(2, 2, 2),
            position_encoding=FOURIER,
        ),
        audio=dict(kind="audio", patch_size=5, position_encoding=FOURIER),
    )
    batch = dict(
        video=np.full((batch_size, 4, 4, 6, 3), 200, np.uint8),
        audio=np.ones((batch_size, 35), np.float32),
        audio_mask=np.arange(batch_size) > 0,
    )
    return encode(inputs, batch, rng, fusion=dict(modality_channels=4, **fusion))


def test_modalities_are_filled_up_with_learned_embeddings():
    (values, mask), params = multimodal()
    assert values.shape == (2, 7 + 2 * 2 * 3, 24 + 15 + 4)  # the audio comes first
    np.testing.assert_array_equal(values[0, 0, 5 + 5 :], params["inputs"]["audio_embedding"])
    np.testing.assert_array_equal(values[1, 9, 24 + 15 :], params["inputs"]["video_embedding"])
    assert params["inputs"]["audio_embedding"].any()
    np.testing.assert_array_equal(mask[:, [0, 6, 7, 18]], [[0, 0, 1, 1], [1, 1, 1, 1]])


def test_modality_dropout_zeroes_whole_streams_at_its_rate_in_training_only():
    keys = jax.random.split(jax.random.key(1), 200)
    (values, _), _ = multimodal(200, keys, dropout_rates=dict(video=0.3))
    video, audio = values[:, 7:, :39], values[:, :7, :10]
    dropped = ~video.any((1, 2))
    assert audio.any((1, 2)).all()
    assert 35 <= dropped.sum() <= 85
    assert video[~dropped].any((2,)).all()
    (values, _), _ = multimodal(200, None, dropout_rates=dict(video=0.3))
    assert values[:, 7:, :39].any((1, 2)).all()


def test_dropout_of_an_unknown_modality_is_an_error():
    with pytest.raises(ValueError, match="dropout_rates names 'vdeo'.*'video'"):
        multimodal(dropout_rates=dict(vdeo=0.3))


def test_a_convolution_tells_texts_of_the_same_bytes_apart_and_sees_nothing_masked():
    def tokens_of(ids, width, mask=None):
        keys = dict(kind="text", vocab_size=11, num_channels=6, max_length=9, conv_width=width)
        batch = dict(text=np.array([ids])) | ({} if mask is None else dict(text_mask=mask))
        return encode(dict(text=keys), batch)[0].values[0]

    ids, other = [1, 2, 3, 4, 5], [3, 1, 5, 2, 4]
    for width, same in ((0, True), (3, False)):
        found = [np.array(sorted(map(tuple, tokens_of(x, width).tolist()))) for x in (ids, other)]
        assert np.allclose(*found, atol=1e-6) == same
    mask = np.array([[True, True, True, False, False]])
    shown, hidden = (tokens_of([1, 2, 3, *rest], 3, mask)[:3] for rest in ((4, 5), (7, 7)))
    np.testing.assert_array_equal(shown, hidden)
    np.testing.assert_allclose(shown[:2], tokens_of(ids, 3)[:2], rtol=1e-6)  # Three places each.
    assert (np.abs(shown[2] - tokens_of(ids, 3)[2]) > 1e-4).any()
    with pytest.raises(ValueError, match="conv_width is 4; expected an odd number"):
        tokens_of(ids, 4)
