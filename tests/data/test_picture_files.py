"""What a picture file means: which way is up, how bright it is, what is behind it."""

import io
import struct
import sys
import zlib

import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pytest

from perceiver_jax import data
from perceiver_jax.data.builders import image_folder
from perceiver_jax.data.fields import image
from tests.data.photographs import photograph

# What a camera that is held so does to a picture, by EXIF's number for it.
STORED = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: pixels.transpose(1, 0, 2)[::-1],
    7: lambda pixels: pixels.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda pixels: pixels.transpose(1, 0, 2)[:, ::-1],
}
RAMP = np.linspace(0, 65_535, 256).astype(np.uint16).reshape(2, 128)
LONG = 4  # A TIFF field of 32 bits.


@pytest.fixture
def upright(rng):
    """40 wide, 24 high, of blocks that lossy formats keep."""
    return rng.integers(256, size=(3, 5, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)


def encode(pixels, file_format, **settings):
    buffer = io.BytesIO()
    picture = pixels if isinstance(pixels, PIL.Image.Image) else PIL.Image.fromarray(pixels)
    picture.save(buffer, file_format, **settings)
    return buffer.getvalue()


def orientation(number):
    exif = PIL.Image.Exif()
    exif[0x0112] = number
    return exif


def png(pixels, depth, colour_type, transparent=()):
    """A PNG of a kind that Pillow doesn't write; pixels are [H, bytes of a row]."""

    def chunk(kind, content):
        whole = kind + content
        return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))

    samples = {0: 1, 2: 3, 4: 2, 6: 4}[colour_type]
    width = pixels.shape[1] * 8 // depth // samples
    header = struct.pack(">IIBBBBB", width, len(pixels), depth, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    hidden = struct.pack(f">{len(transparent)}H", *transparent)
    chunks = [(b"IHDR", header), (b"tRNS", hidden), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in chunks if c[1] or c[0] == b"IEND")


def tiff(pixels, bits, sample_format=1, photometric=1, shape=None, more=()):
    """A TIFF of a kind that Pillow doesn't write, grey but for what `more` tags say."""
    height, width = shape or pixels.shape
    content = pixels.tobytes()
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8)]
    tags += [(277, 1), (278, height), (279, len(content)), (339, sample_format)]
    entries, lists = b"", b""
    tags = dict(tags) | dict(more)
    for tag, value in sorted(tags.items()):
        values = np.atleast_1d(value).astype("<u4")
        at = 8 + len(content) + 2 + 12 * len(tags) + 4 + len(lists)
        lists += values.tobytes() if len(values) > 1 else b""
        entries += struct.pack(
            "<HHII", tag, LONG, len(values), values[0] if len(values) == 1 else at
        )
    start = struct.pack("<2sHI", b"II", 42, 8 + len(content))
    return start + content + struct.pack("<H", len(tags)) + entries + bytes(4) + lists


def packed_12_bits(pixels):
    first, second = pixels.reshape(-1, 2).astype(int).T
    parts = [first >> 4, (first & 15) << 4 | second >> 8, second & 255]
    return np.stack(parts, 1).astype(np.uint8)


@pytest.mark.parametrize("number", STORED)
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "MPO"])
def test_pictures_are_upright_as_viewers_show_them(upright, file_format, number):
    stored = np.ascontiguousarray(STORED[number](upright))
    lossless = {"lossless": True} if file_format == "WEBP" else {}
    decoded = image.decode(encode(stored, file_format, exif=orientation(number), **lossless))
    assert decoded.size == (40, 24)
    difference = np.abs(np.asarray(decoded, float) - upright)
    assert np.median(difference) < 8


def test_where_exif_says_nothing_of_it_xmp_says_which_way_is_up(upright):
    stored = np.ascontiguousarray(STORED[6](upright))
    for exif, size in ((PIL.Image.Exif(), (40, 24)), (orientation(1), (24, 40))):
        xmp = b"<x:xmpmeta><tiff:Orientation>6</tiff:Orientation></x:xmpmeta>"
        assert image.decode(encode(stored, "JPEG", xmp=xmp, exif=exif)).size == size


def test_where_orientation_does_not_count_pictures_are_as_stored(upright):
    encoded = encode(upright, "PNG", exif=orientation(6))
    settings = {"image_size": 24, "crop": "none"}
    stored = image.Image(**settings, upright=False).read(encoded, 0.5, None)
    turned = image.Image(**settings).read(encoded, 0.5, None)
    np.testing.assert_array_equal(
        stored, image.Image(**settings).read(encode(upright, "PNG"), 0.5, None)
    )
    assert (stored != turned).any()


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow tells of it.
def test_a_picture_is_not_lost_by_damaged_exif(upright):
    damaged = b"Exif\0\0no TIFF header"
    for file_format in ("JPEG", "PNG", "WEBP"):
        assert image.decode(encode(upright, file_format, exif=damaged)).size == (40, 24)


@pytest.mark.parametrize(
    "encoded",
    [
        png(RAMP.astype(">u2").view(np.uint8), 16, 0),
        png(RAMP.repeat(3).reshape(2, -1).astype(">u2").view(np.uint8), 16, 2),
        encode(RAMP, "TIFF"),
        encode(RAMP, "TIFF", compression="tiff_lzw"),
        encode(PIL.Image.frombytes("I;16B", (128, 2), RAMP.astype(">u2").tobytes()), "TIFF"),
        encode(RAMP, "JPEG2000"),
        encode(RAMP.astype(np.int32), "TIFF"),
        encode((RAMP / np.float32(65_535)).astype(np.float32), "TIFF"),
        b"P5 128 2 65535\n" + RAMP.astype(">u2").tobytes(),
        b"P5 128 2 4095\n" + (RAMP // 16).astype(">u2").tobytes(),
        b"Pf 128 2 -1.0\n" + (RAMP[::-1] / 65_535).astype("<f4").tobytes(),
        tiff(packed_12_bits(RAMP // 16), 12, shape=RAMP.shape),
        tiff(RAMP.max() - RAMP, 16, photometric=0),
        tiff(RAMP.astype(np.uint32), 32),
        tiff((RAMP // 2).astype(np.int16), 16, sample_format=2),
        tiff((RAMP >> 9).astype(np.int8), 8, sample_format=2),
    ],
    ids=[
        *("png", "png, colour", "tiff", "tiff, lzw", "tiff, big-endian", "jpeg2000", "int32"),
        *("float", "pgm", "pgm, 12 bits", "pfm", "tiff, 12 bits", "tiff, white is 0", "uint32"),
        *("int16", "int8"),
    ],
)
def test_grey_of_more_than_8_bits_is_scaled(encoded):
    decoded = np.asarray(image.decode(encoded, "L"))
    np.testing.assert_allclose(decoded, np.arange(256).reshape(2, 128), atol=1.01)
    assert abs(decoded.mean() - 127.5) < 0.5


def test_the_scale_of_brightness_is_that_of_the_type_and_not_of_the_picture():
    decoded = np.asarray(image.decode(encode(RAMP // 16, "PNG"), "L"))
    np.testing.assert_array_equal(decoded, np.round(RAMP // 16 / 257))


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (encode(np.float32([[0, 4000]]), "TIFF"), "unknown scale: 0.0 to 4000.0; expected 0.*1 "),
        (encode(np.float32([[-0.5, 1]]), "TIFF"), "unknown scale: -0.5 to 1.0"),
        (encode(np.float32([[0.5, np.nan]]), "TIFF"), "no number"),
        (encode(np.int32([[0, 70_000]]), "TIFF"), "unknown scale: 0 to 70000; .*65535"),
        (tiff(np.int16([[-999, 9]]), 16, sample_format=2), "unknown scale: -999 to 9"),
        (tiff(np.int8([[-5, 5]]), 8, sample_format=2), "unknown scale: -5 to 5"),
        (tiff(np.uint32([[0, 2**32 - 1]]), 32), "unknown scale: 0 to 4294967295"),
        (tiff(np.float64([[0, 1]]), 64, sample_format=3), "begins as TIFF, but Pillow can't"),
    ],
)
def test_brightness_of_unknown_scale_is_refused(encoded, message):
    with pytest.raises(data.BadDataError, match=message):
        image.decode(encoded)


def planes(pixels, compress=bytes):
    """A TIFF whose samples are in a plane for each channel."""
    parts = [compress(plane.tobytes()) for plane in np.moveaxis(pixels, -1, 0)]
    sizes = [len(part) for part in parts]
    channels = len(parts)
    more = {258: [8 * pixels.itemsize] * channels, 277: channels, 284: 2, 279: sizes}
    more |= {273: 8 + np.cumsum([0, *sizes[:-1]]), 339: [1] * channels}
    more |= {259: 1 if compress is bytes else 8, 262: 2 if channels == 3 else 1}
    more |= {} if channels == 3 else {338: 2}
    content = np.frombuffer(b"".join(parts), np.uint8)
    return tiff(content, 8, shape=pixels.shape[:2], more=more)


def test_tiffs_in_planes_are_right_or_refused(upright):
    np.testing.assert_array_equal(np.asarray(image.decode(planes(upright))), upright)
    wide = upright.astype(np.uint16) * 257
    np.testing.assert_array_equal(np.asarray(image.decode(planes(wide, zlib.compress))), upright)
    for encoded in (planes(wide), planes(upright[..., :2], zlib.compress)):
        with pytest.raises(data.BadDataError, match="unsupported: a TIFF of (RGB|LA) in planes"):
            image.decode(encoded)


@pytest.mark.parametrize("unit", [1, 257])
def test_colours_of_a_tiff_palette_may_have_8_or_16_bits(unit):
    palette = np.stack([np.arange(256), np.arange(256)[::-1], np.full(256, 7)])
    encoded = tiff(np.uint8([[0, 200]]), 8, photometric=3, more={320: palette.ravel() * unit})
    np.testing.assert_array_equal(np.asarray(image.decode(encoded)), [[(0, 255, 7), (200, 55, 7)]])


def test_a_picture_is_not_lost_by_a_long_comment(upright):
    comments = PIL.PngImagePlugin.PngInfo()
    comments.add_text("history", "a" * (3 << 20), zip=True)
    assert image.decode(encode(upright, "PNG", pnginfo=comments)).size == (40, 24)


def discs(rng, channels):
    """A disc on transparent ground, hidden beneath which is noise, black or white."""
    y, x = np.ogrid[:32, :32]
    alpha = np.where((y - 16) ** 2 + (x - 16) ** 2 < 100, 255, 0).astype(np.uint8)
    for hidden in (rng.integers(256, size=(32, 32, channels)), 0, 255):
        pixels = np.where(alpha[..., None] == 0, hidden, 90).astype(np.uint8)
        yield np.dstack([pixels, alpha]).squeeze()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("file_format", "settings"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True, "exact": True}),
        ("AVIF", {"quality": 100, "subsampling": "4:4:4"}),
        ("TIFF", {}),
        ("JPEG2000", {}),
    ],
)
def test_transparent_parts_are_white_whatever_is_hidden_there(rng, file_format, settings, channels):
    for pixels in discs(rng, channels):
        for mode in ("L", "RGB"):
            decoded = np.asarray(image.decode(encode(pixels, file_format, **settings), mode), int)
            assert np.abs(decoded[0, 0] - 255).max() < 3
            assert np.abs(decoded[16, 16] - 90).max() < 3


def test_half_transparent_parts_are_mixed_with_white():
    pixels = np.array([[[100, 50, 0, 102]]], np.uint8)
    assert image.decode(encode(pixels, "PNG")).getpixel((0, 0)) == (193, 173, 153)


@pytest.mark.parametrize("file_format", ["PNG", "GIF"])
def test_transparent_colours_of_a_palette_are_white(file_format):
    picture = PIL.Image.new("P", (3, 1))
    picture.putpalette([0, 0, 0, 200, 30, 40, 0, 0, 255])
    picture.putdata([0, 1, 2])
    decoded = image.decode(encode(picture, file_format, transparency=0))
    assert [decoded.getpixel((i, 0)) for i in range(3)] == [(255,) * 3, (200, 30, 40), (0, 0, 255)]


@pytest.mark.parametrize(
    ("row", "depth", "colour_type", "transparent", "expected"),
    [
        ([0b01_01_01_01], 1, 0, [0], [255] * 8),
        ([0b01_01_01_01], 1, 0, [1], [0, 255] * 4),
        ([0b00_01_10_11], 2, 0, [1], [0, 255, 170, 255]),
        ([0x05, 0x1F], 4, 0, [1], [0, 85, 255, 255]),
        ([0, 17, 34], 8, 0, [17], [0, 255, 34]),
        ([0, 0, 0x12, 0x34, 0x12, 0x35], 16, 0, [0x1234], [0, 255, 18]),
        ([0, 0] * 3 + [0x12, 0x34] * 3, 16, 2, [0x1234] * 3, [0, 255]),
    ],
)
def test_the_transparent_colour_of_a_png_is_of_its_own_depth(
    row, depth, colour_type, transparent, expected
):
    encoded = png(np.array([row], np.uint8), depth, colour_type, transparent)
    np.testing.assert_array_equal(np.asarray(image.decode(encoded, "L")), [expected])


def test_all_suffixes_of_what_can_be_read_are_taken():
    formats = PIL.Image.registered_extensions()
    suffixes = {suffix for suffix, name in formats.items() if name in image.FORMATS}
    assert suffixes <= image_folder.SUFFIXES
    assert {".avif", ".heic", ".jfif", ".jp2", ".jpe", ".pnm"} <= image_folder.SUFFIXES


def test_heic_without_its_package_is_no_bad_file_and_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    image._register_heic.cache_clear()  # Another test may have registered it.
    with pytest.raises(ImportError, match=r"HEIC.*pip install perceiver-haiku\[heif\]"):
        image.decode(b"\0\0\0\x1cftypmif1\0\0\0\0mif1heicmiaf" + bytes(9))


def test_heic_is_read_with_its_package(upright):
    pillow_heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    stored = PIL.Image.fromarray(np.ascontiguousarray(STORED[6](upright)))
    pillow_heif.from_pillow(stored).save(buffer, exif=orientation(6).tobytes(), quality=95)
    decoded = image.decode(buffer.getvalue())
    assert decoded.size == (40, 24)
    assert np.median(np.abs(np.asarray(decoded, float) - upright)) < 8
    with pytest.raises(data.BadDataError):
        image.decode(buffer.getvalue()[:-50])


def test_a_call_of_ours_that_pillow_does_not_take_is_no_bad_file(monkeypatch):
    encoded = photograph(0)
    monkeypatch.setattr(PIL.Image, "open", lambda file: None)
    with pytest.raises(TypeError, match="formats"):
        image.decode(encoded)
