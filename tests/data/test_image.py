import numpy as np
import PIL.Image
import PIL.ImageEnhance
import pytest

from perceiver_jax import config
from perceiver_jax.data import augment, rand_augment
from perceiver_jax.data.fields import image
from tests.data.conftest import encode_picture


@pytest.fixture
def photo(rng):
    coarse = PIL.Image.fromarray(rng.integers(256, size=(5, 7, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((71, 53), PIL.Image.Resampling.BICUBIC))


def test_evaluation_is_the_resized_centre(photo):
    read = image.Image(image_size=46).read(encode_picture(photo), 0.5, None)
    np.testing.assert_array_equal(read, photo[4:50, 13:59])  # side 46 = floor(53 * 224 / 256)


def test_without_crop_a_picture_of_the_right_size_is_untouched(photo):
    read = image.Image(image_size=53, crop="none").read(encode_picture(photo[:, :53]), 0.5, None)
    np.testing.assert_array_equal(read, photo[:, :53])


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_and_colour_become_the_channels_that_are_asked_for(photo, channels):
    settings = image.Image(image_size=31, channels=channels)
    for pixels in (photo, photo[..., 0]):
        read = settings.read(encode_picture(pixels), 0.5, None)
        assert (read.shape, read.dtype) == (settings.zeros().shape, np.uint8)


@pytest.mark.parametrize(
    "settings",
    [
        {"crop": "inception"},
        {"flip": True},
        {"rand_augment_layers": 4},
        {"rotation_degrees": 30.0},
        {"scale": 0.3},
        {"shift": 0.2},
    ],
)
def test_every_augmentation_changes_training_and_spares_evaluation(photo, rng, settings):
    plain = image.Image(image_size=53, crop="none")
    augmented = image.Image(**{"image_size": 53, "crop": "none"} | settings)
    value = encode_picture(photo)
    expected = plain.read(value, 0.5, None)
    assert any((augmented.read(value, 0.5, rng) != expected).any() for _ in range(5))
    if settings != {"crop": "inception"}:
        np.testing.assert_array_equal(augmented.read(value, 0.5, None), expected)


def test_flip_mirrors_the_crop(photo):
    settings = image.Image(image_size=53, crop="none", flip=True)
    value = encode_picture(photo)
    upright = settings.read(value, 0.5, None)
    read = [settings.read(value, 0.5, np.random.default_rng(seed)) for seed in range(9)]
    mirrored = [(r != upright).any() for r in read]
    assert 0 < sum(mirrored) < 9
    np.testing.assert_array_equal(read[mirrored.index(True)], upright[:, ::-1])


def test_crops_keep_to_the_ranges(rng):
    for _ in range(200):
        left, upper, right, lower = augment.random_box(rng, (211, 157), (0.2, 0.5), (0.7, 1.5))
        assert 0 <= left < right <= 211
        assert 0 <= upper < lower <= 157
        assert 0.19 < (right - left) * (lower - upper) / (211 * 157) < 0.51
        assert 0.68 < (right - left) / (lower - upper) < 1.53


def test_a_crop_that_never_fits_is_the_centre(rng):
    box = augment.random_box(rng, (512, 256), (1.0, 1.0), (1.0, 1.0))
    assert box == augment.centre_box((512, 256)) == (144, 16, 368, 240)


def test_jitter_by_nothing_changes_nothing(photo, rng):
    same = augment.jitter(rng, PIL.Image.fromarray(photo), 0, 0, 0)
    np.testing.assert_array_equal(np.asarray(same), photo)


def test_jitter_shifts_both_ways_by_at_most_the_fraction(rng):
    pixels = np.zeros((41, 41), np.uint8)
    pixels[18:23, 18:23] = 255
    centres = []
    for _ in range(200):
        moved = np.asarray(augment.jitter(rng, PIL.Image.fromarray(pixels), 0, 0, 0.2), float)
        centres.append([np.average(np.arange(41), weights=moved.sum(axis=a)) for a in (0, 1)])
    offsets = np.array(centres) - 20
    assert np.abs(offsets).max() <= 0.2 * 41 + 0.1
    assert offsets.min() < -6 and offsets.max() > 6


def test_colour_jitter_by_nothing_changes_nothing(photo, rng):
    (same,) = augment.colour_jitter(rng, [PIL.Image.fromarray(photo)], 0, 0, 0)
    np.testing.assert_array_equal(np.asarray(same), photo)


def test_brightness_scales_all_pixels_alike(rng):
    pixels = rng.integers(50, 150, (5, 7, 3), dtype=np.uint8)
    (bright,) = augment.colour_jitter(rng, [PIL.Image.fromarray(pixels)], 0.3, 0, 0)
    ratio = np.asarray(bright) / pixels
    assert 0.69 < ratio.min() and ratio.max() < 1.31
    assert np.ptp(ratio) < 0.03


def test_pictures_of_a_clip_change_contrast_about_their_common_mean(rng):
    dark, bright = (PIL.Image.new("RGB", (7, 5), (level,) * 3) for level in (100, 120))
    changed = augment.colour_jitter(rng, [dark, bright], 0, 0.5, 0)
    levels = [np.asarray(picture, float).mean() for picture in changed]
    assert abs(np.mean(levels) - 110) <= 1
    assert abs(levels[1] - levels[0] - 20) > 1


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_every_rand_augment_operation_keeps_size_and_mode(photo, rng, mode):
    picture = PIL.Image.fromarray(photo).convert(mode)
    assert len(rand_augment.OPERATIONS) == 16
    for operation in rand_augment.OPERATIONS:
        changed = operation(rng, picture, 0.7)
        assert (changed.size, changed.mode) == (picture.size, mode)


def test_rand_augment_operations_change_a_colour_picture(photo, rng):
    picture = PIL.Image.fromarray(photo)
    for operation in rand_augment.OPERATIONS:
        assert (np.asarray(operation(rng, picture, 0.7)) != photo).any()


def test_rand_augment_enhances_as_pillow_does_and_nothing_in_the_middle(photo, rng):
    picture = PIL.Image.fromarray(photo)
    enhancers = ("Color", "Contrast", "Brightness", "Sharpness")
    operations = rand_augment.OPERATIONS[6:10]
    for name, operation in zip(enhancers, operations, strict=True):
        enhance = getattr(PIL.ImageEnhance, name)(picture).enhance
        assert operation(rng, picture, 0.5) == enhance(1.0) == picture
        assert operation(rng, picture, 0.7) == enhance(0.1 + 1.8 * 0.7) != picture


def test_a_picture_is_square():
    field = object.__new__(image.Image)  # Tests check types of arguments, users' programs don't.
    vars(field).update(vars(image.Image(3)) | {"image_size": (20, 30)})
    with pytest.raises(config.UserError, match=r"image_size is \(20, 30\); expected a whole"):
        field.__post_init__()


def test_unknown_crop_and_channels_are_errors():
    with pytest.raises(ValueError, match="'incepton'.*Did you mean 'inception'"):
        image.Image(image_size=3, crop="incepton")
    with pytest.raises(ValueError, match="channels is 2; expected 1"):
        image.Image(image_size=3, channels=2)
