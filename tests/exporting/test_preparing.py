"""What `export.json` says of preprocessing is enough to do it again: here in NumPy."""

import io
import json

import numpy as np
import PIL.Image
import pytest

from perceiver_jax import config, data
from perceiver_jax.data import fields as fields_lib
from perceiver_jax.data.builders.clips import storage
from perceiver_jax.data.builders.shapes import clouds
from perceiver_jax.data.fields import array as array_field
from perceiver_jax.exporting import preparing
from tests.data.photographs import photograph

PIXELS = {"mean": (0.2, 0.3, 0.5), "std": (0.25, 0.5, 0.125)}


def described(field, keys=None):
    """What goes to the file, as another program reads it."""
    return json.loads(json.dumps(preparing.describe("x", field, keys or {}).numbers))


def bicubic(x):
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def bilinear(x):
    return np.maximum(1 - np.abs(x), 0)


FILTERS = {"bicubic": (bicubic, 2), "bilinear": (bilinear, 1)}


def resize_rows(pixels, begin, end, size, kind):
    """Resizes the first axis of [n, ...] from begin to end."""
    function, support = FILTERS[kind]
    step = (end - begin) / size
    wide = max(step, 1)
    centres = begin + (np.arange(size) + 0.5) * step
    distances = (np.arange(len(pixels)) + 0.5 - centres[:, None]) / wide  # [size, n]
    weights = np.where(np.abs(distances) <= support, function(distances), 0)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.clip(np.floor(np.tensordot(weights, pixels, 1) + 0.5), 0, 255)


def crop_and_resize(pixels, numbers):
    height, width = pixels.shape[:2]
    box = (0, 0, width, height)
    if numbers["crop"]:
        side = max(1, int(numbers["crop"]["fraction"] * min(height, width)))
        before = numbers["crop"]["odd_pixel"] == "before"
        left, upper = ((n - side + before) // 2 for n in (width, height))
        box = (left, upper, left + side, upper + side)
    if numbers.get("crop_before_resize"):
        pixels = pixels[box[1] : box[3], box[0] : box[2]]
        box = (0, 0, *pixels.shape[1::-1])
    rows, columns = numbers["size"]
    pixels = np.swapaxes(pixels.astype(float), 0, 1)
    pixels = np.swapaxes(resize_rows(pixels, box[0], box[2], columns, numbers["resize"]), 0, 1)
    return resize_rows(pixels, box[1], box[3], rows, numbers["resize"])


def assert_same_pixels(found, expected):
    difference = np.abs(found - expected)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01  # Where a half is rounded.


@pytest.mark.parametrize("crop", ["inception", "centre", "none"])
@pytest.mark.parametrize("channels", [1, 3])
def test_images(crop, channels):
    field = fields_lib.FIELDS["image"](image_size=23, crop=crop, channels=channels)
    numbers = described(field, {"mean": PIXELS["mean"][:channels], "std": PIXELS["std"][:channels]})
    content = photograph(3)
    pixels = np.asarray(PIL.Image.open(io.BytesIO(content)).convert("RGB")).astype(float)
    if numbers["colours"] == "grey":
        pixels = np.floor(pixels @ np.array([0.299, 0.587, 0.114]) + 0.5)[..., None]
    batch = data.prepare([content], {"x": field})
    assert_same_pixels(crop_and_resize(pixels, numbers), batch["x"][0].astype(float))
    assert numbers["in_program"]["std"] == list(PIXELS["std"][:channels])


def test_videos():
    field = fields_lib.FIELDS["video"](num_frames=5, image_size=17, frames_per_second=12.5)
    numbers = described(field, PIXELS)
    stored = numbers["stored"]
    rng = np.random.default_rng(0)
    frames = rng.integers(256, size=(31, 9, 11, 1, 3), dtype=np.uint8)
    frames = np.ascontiguousarray(np.broadcast_to(frames, (31, 9, 11, 5, 3))).reshape(31, 9, 55, 3)
    kept = storage.encode_frames(frames, stored["frames_per_second"])["video"]
    step = stored["frames_per_second"] / numbers["frames_per_second"]
    start = numbers["window"] * max(0, len(kept) - numbers["num_frames"] * step)
    chosen = [min(round(start + i * step), len(kept) - 1) for i in range(numbers["num_frames"])]
    made = [
        crop_and_resize(np.asarray(PIL.Image.open(io.BytesIO(kept[i]))), numbers) for i in chosen
    ]
    batch = data.prepare([frames], {"x": field})
    assert_same_pixels(np.stack(made), batch["x"][0].astype(float))


def test_what_is_stored_of_films_sounds_and_meshes_is_said_as_it_is():
    assert described(fields_lib.FIELDS["video"](1, 8))["stored"] == {
        "frames_per_second": storage.FRAME_RATE,
        "short_side": storage.SHORT_SIDE,
        "jpeg_quality": storage._JPEG_QUALITY,
        "max_seconds": storage.MAX_SECONDS,
    }
    sound = described(fields_lib.FIELDS["audio"](7))["stored"]
    assert sound["sample_rate"] == storage.SAMPLE_RATE
    assert sound["max_seconds"] == storage.MAX_SECONDS
    assert sound["pieces_per_second"] == storage.FRAME_RATE
    points = described(fields_lib.FIELDS["point_cloud"](7))
    assert points["stored_points"] == clouds.NUM_POINTS


def window_of(samples, numbers):
    begin = round(numbers["window"] * max(0, len(samples) - numbers["num_samples"]))
    found = np.zeros(numbers["num_samples"], np.float32)
    part = samples[begin : begin + numbers["num_samples"]]
    found[: len(part)] = part
    return found


def test_audio_and_mel_spectrograms():
    fields = {
        "raw": fields_lib.FIELDS["audio"](num_samples=3_001),
        "mel": fields_lib.FIELDS["mel"](num_samples=3_072, num_bins=11, hop=256, window=512),
    }
    rng = np.random.default_rng(0)
    channels = rng.uniform(-0.9, 0.9, (9_001, 2))
    raw = described(fields["raw"])
    kept = raw["stored"]
    sound = (channels, kept["sample_rate"])
    batch = data.prepare([{"raw": sound, "mel": sound}], fields)
    piece = kept["sample_rate"] // kept["pieces_per_second"]
    stored = np.zeros(round(len(channels) / piece) * piece)  # Longer than the sound.
    steps = 2 ** (kept["bits"] - 1)
    stored[: len(channels)] = np.round(channels.mean(axis=1) * steps) / steps
    np.testing.assert_allclose(window_of(stored, raw), batch["raw"][0], atol=1e-4)

    numbers = described(fields["mel"])
    mel = numbers["mel"]
    padded = np.pad(window_of(stored, numbers), mel["padding"])
    count = numbers["num_samples"] // mel["hop"]
    cut = np.stack([padded[i * mel["hop"] :][: mel["frame"]] for i in range(count)])
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(mel["frame"]) / mel["frame"])
    power = np.abs(np.fft.rfft(cut * hann)) ** 2
    ends = [2595 * np.log10(1 + f / 700) for f in (mel["lowest_hz"], mel["highest_hz"])]
    places = 700 * (10 ** (np.linspace(*ends, mel["num_bins"] + 2) / 2595) - 1)
    frequencies = np.linspace(0, numbers["sample_rate"] / 2, mel["frame"] // 2 + 1)
    bins = [
        power @ np.interp(frequencies, places[b : b + 3], [0, 1, 0]) for b in range(mel["num_bins"])
    ]
    values = (np.log(np.stack(bins, axis=1) + mel["log_offset"]) - mel["mean"]) / mel["std"]
    np.testing.assert_allclose(values, batch["mel"][0], atol=2e-3)


def test_points():
    field = fields_lib.FIELDS["point_cloud"](num_points=101)
    numbers = described(field)
    points = np.random.default_rng(0).normal(2, 3, (1_009, 3)).astype(np.float32)
    batch = data.prepare([points], {"x": field})
    n, count = len(points), numbers["num_points"]
    assert n <= numbers["stored_points"]
    points = points - points.mean(axis=0)
    points /= np.sqrt((points**2).sum(axis=1)).max()
    chosen = np.arange(count) * n // count + round(numbers["window"] * (n / count - 1))
    points = points[chosen % n]
    points = points - points.mean(axis=0)
    np.testing.assert_allclose(points / np.abs(points).max(), batch["x"][0], atol=1e-6)


@pytest.mark.parametrize("cls_sep", [False, True])
@pytest.mark.parametrize(
    "given", ["Where is[MASK][MASK]? ä", "a longer text than there is room for"]
)
def test_texts(cls_sep, given):
    field = fields_lib.FIELDS["masked_text"](max_length=23, cls_sep=cls_sep)
    numbers = described(field)
    ids = []
    for i, part in enumerate(given.split(numbers["gap"])):
        ids += [numbers["mask"]] * (i > 0)
        ids += [byte + numbers["byte_offset"] for byte in part.encode(numbers["encoding"])]
    first, last = ([] if numbers[x] is None else [numbers[x]] for x in ("first", "last"))
    ids = [*first, *ids[: numbers["max_length"] - len(first) - len(last)], *last]
    batch = data.prepare([given], {"x": field})
    assert batch["x_mask"][0].sum() == len(ids)
    ids += [numbers["pad"]] * (numbers["max_length"] - len(ids))
    assert batch["x"][0].tolist() == ids


def test_frames_of_one_tile_are_taken_as_they_are():
    field = fields_lib.FIELDS["frames"](image_size=(7, 11))
    assert described(field)["size"] == [7, 11]
    pair = np.random.default_rng(0).integers(256, size=(2, 7, 11, 3), dtype=np.uint8)
    np.testing.assert_array_equal(data.prepare([pair], {"x": field})["x"][0], pair)


def test_of_arrays_and_sound_the_program_takes_what_it_normalises_as_it_is():
    sound = fields_lib.FIELDS["audio"](num_samples=3, sample_rate=8000)
    numbers = described(sound, {"mean": 0.5, "std": 0.1})
    assert numbers["in_program"] == {"mean": 0.5, "std": 0.1}
    field = array_field.Array("x", (3, 2), np.dtype(np.float32))
    keys = {"mean": (1.0, 2.0), "std": (3.0, 4.0)}
    assert described(field, keys) == {"in_program": {"mean": [1, 2], "std": [3, 4]}}
    assert described(field, {"mean": None, "std": None}) == {}


def test_every_kind_that_can_be_an_input_is_described():
    from perceiver_jax.data import description

    targets = {"flow", "indices", "number"}
    described_kinds = {
        kind for kind, known in description._kinds().items() if known in preparing._KINDS
    }
    assert described_kinds == description._kinds().keys() - targets


def test_a_kind_that_is_not_known_is_refused():
    with pytest.raises(config.UserError, match="Field 'x' is a object, which is no kind"):
        preparing.describe("x", object(), {})
