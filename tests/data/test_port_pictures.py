"""Pictures are prepared as Hugging Face's processor of the released models does it."""

import io
import pathlib

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import sklearn.datasets

from perceiver_jax.data.fields import image

# Files, and what `PerceiverImageProcessorPil(size=35, crop_size=40)` gave of them, as 0 to 255.
EXPECTED = np.load(pathlib.Path(__file__).with_name("port_pictures.npz"))
NAMES = sorted(name.partition("/")[2] for name in EXPECTED if name.startswith("file/"))
ORIENTATION = 274  # In EXIF.


@pytest.mark.parametrize("name", NAMES)
def test_pictures_of_any_kind_are_those_of_the_port(name):
    file = EXPECTED[f"file/{name}"].tobytes()
    read = image.Image(image_size=35, crop="centre").read(file, 0.5, None)
    difference = read.astype(int) - EXPECTED[f"pixels/{name}"]
    assert np.abs(difference).max() <= 1


def test_the_centre_is_cut_in_training_too():
    field = image.Image(image_size=35, crop="centre")
    file = EXPECTED["file/portrait"].tobytes()
    trained = field.read(file, 0.5, np.random.default_rng(0))
    np.testing.assert_array_equal(trained, field.read(file, 0.5, None))


def test_a_single_pixel_is_a_picture():
    single = PIL.Image.new("RGB", (1, 9), "red")
    read = image.Image(image_size=3, crop="centre").read(single, 0.5, None)
    np.testing.assert_array_equal(read, np.full((3, 3, 3), [255, 0, 0]))


def test_the_expected_pictures_are_the_ports():
    pytest.importorskip("transformers")
    for name in NAMES:
        made = port_pixels(EXPECTED[f"file/{name}"].tobytes(), 35, 40)
        np.testing.assert_array_equal(made, EXPECTED[f"pixels/{name}"])


@pytest.mark.parametrize(
    "size", [(640, 427), (427, 639), (3, 5), (225, 223), (1999, 37), (2999, 2001)]
)
def test_pictures_of_any_size_are_those_of_the_port(size):
    pytest.importorskip("transformers")
    picture = picture_of(size)
    read = image.Image(image_size=224, crop="centre").read(picture, 0.5, None)
    difference = read.astype(int) - port_pixels(picture, 224, 256)
    assert np.abs(difference).max() <= 1


def picture_of(size, mode="RGB"):
    pixels = sklearn.datasets.load_sample_images().images[0]
    return PIL.Image.fromarray(pixels).resize(size).convert(mode)


def port_pixels(picture, size, crop_size):
    """What the port's processor gives, before it normalises."""
    from transformers.models.perceiver import image_processing_pil_perceiver as port

    if isinstance(picture, bytes):  # As the port's `load_image` opens a file.
        picture = PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(picture)))
    processor = port.PerceiverImageProcessorPil(
        size={"height": size, "width": size}, crop_size={"height": crop_size, "width": crop_size}
    )
    values = processor(picture, do_convert_rgb=True, return_tensors="np")["pixel_values"][0]
    pixels = np.moveaxis(np.asarray(values), 0, -1) * processor.image_std + processor.image_mean
    return np.round(pixels * 255).astype(np.uint8)


def make_expected(path):
    """Writes `EXPECTED`; needs the port."""
    sizes = {"landscape": (61, 43), "portrait": (43, 62), "tiny": (3, 5), "right": (40, 40)}
    pictures = {name: (picture_of(size), "png", {}) for name, size in sizes.items()}
    for mode, kind in {
        "L": "png",
        "LA": "png",
        "RGBA": "png",
        "P": "png",
        "1": "png",
        "CMYK": "tiff",
    }.items():
        picture = picture_of((47, 37), "RGB" if mode in ("RGBA", "LA") else mode)
        if mode in ("RGBA", "LA"):
            picture.putalpha(picture_of((47, 37), "L"))
            picture = picture.convert(mode)
        pictures[mode] = (picture, kind, {})
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = 6
    pictures["turned"] = (picture_of((53, 37)), "png", {"exif": exif})
    arrays = {}
    for name, (picture, kind, more) in pictures.items():
        buffer = io.BytesIO()
        picture.save(buffer, kind, **more)
        arrays[f"file/{name}"] = np.frombuffer(buffer.getvalue(), np.uint8)
        arrays[f"pixels/{name}"] = port_pixels(buffer.getvalue(), 35, 40)
    np.savez_compressed(path, **arrays)
