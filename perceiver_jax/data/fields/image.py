"""Images: encoded bytes -> uint8 [H, W, channels]."""

from collections.abc import Mapping
import dataclasses
import functools
import io
from typing import Any, ClassVar

from jaxtyping import UInt8
import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.PngImagePlugin

from perceiver_jax import config
from perceiver_jax.data import augment, errors, rand_augment

MAX_PIXELS = 2**26  # 67 million; decoded to RGB, 200 MB.

_MODES = {1: "L", 3: "RGB"}
# Not all that Pillow knows: it hands EPS to another program, for instance.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM", "TIFF", "AVIF", "JPEG2000")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")
_PNG_DEPTH = 24  # Where a PNG says how many bits a sample has.
_TIFF_BITS, _TIFF_COMPRESSION, _TIFF_PHOTOMETRIC, _TIFF_PLANES = 258, 259, 262, 284
_TIFF_PALETTE, _TIFF_SAMPLE_FORMAT = 320, 339
_SIGNED = (2,)  # The sample format of whole numbers that may be below 0.
# Of comments in a PNG; Pillow refuses images with more than 1 MiB, which editors' metadata has.
PIL.PngImagePlugin.MAX_TEXT_CHUNK = PIL.PngImagePlugin.MAX_TEXT_MEMORY
# How an image is turned, by its orientation in EXIF. Pillow turns TIFFs by itself, and says so.
_UPRIGHT = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}


@dataclasses.dataclass(frozen=True)
class Image:
    """An image, cropped and augmented in training, cropped at the centre in evaluation.

    Paper: section 4.1 (Inception-style crops, RandAugment). In its order: crop, flip, RandAugment
    at the crop's own size, bicubic resize. Pillow's resize filters when it shrinks, and clamps.

    Attributes:
        image_size: side of the square output, in pixels.
        channels: 3 (colour) or 1 (grey).
        crop: 'inception'; 'none' (the whole image, in evaluation too); or 'centre' (the middle of
            224/256 of the shorter side, in training too), as in Hugging Face's processor of the
            released models: it lies up to a pixel further to the left and up than in evaluation
            of 'inception', and is cut before it is resized, so that nothing outside counts.
        crop_area: range of a training crop's area, as a fraction of the image's.
        crop_aspect: range of its width : height.
        flip: whether half of the training images are mirrored left to right.
        rand_augment_layers: number of RandAugment's operations; 0 is off.
        rand_augment_magnitude: their strength, 0 to 10.
        rotation_degrees: largest random rotation either way, last of all, on the resized image.
        scale: random scale factors come from [1 - scale, 1 + scale].
        shift: largest random shift either way, as a fraction of the side.
        upright: whether images are turned as their EXIF says; the default is that of the data
            set, see `datasets.Dataset.upright`.
    """

    image_size: int
    channels: int = 3
    crop: str = "inception"
    crop_area: augment.Range = (0.08, 1.0)
    crop_aspect: augment.Range = (3 / 4, 4 / 3)
    flip: bool = False
    rand_augment_layers: int = 0
    rand_augment_magnitude: augment.Number = 5
    rotation_degrees: augment.Number = 0.0
    scale: augment.Number = 0.0
    shift: augment.Number = 0.0
    upright: bool = True

    feature: ClassVar[str] = "image"
    has_windows: ClassVar[bool] = False
    is_target: ClassVar[bool] = False

    def __post_init__(self):
        """Checks numbers and choices."""
        config.AT_LEAST_ONE.check("image_size", self.image_size, self.image_size)
        config.check(
            vars(self),
            rand_augment_layers=config.COUNT,
            rand_augment_magnitude=config.Range(0, rand_augment.MAX_MAGNITUDE),
            rotation_degrees=config.NOT_NEGATIVE,
            scale=config.NOT_NEGATIVE,
            shift=config.NOT_NEGATIVE,
        )
        augment.check_crop(self)
        config.check_known("crop", self.crop, ["centre", "inception", "none"])
        if self.channels not in _MODES:
            raise config.UserError(
                f"channels is {self.channels!r}; expected 1 (grey) or 3 (colour). Change it."
            )

    def zeros(self) -> UInt8[np.ndarray, "H W channels"]:
        """Returns zeros of the output's shape and type."""
        return np.zeros((self.image_size, self.image_size, self.channels), np.uint8)

    def read(
        self, value: bytes | PIL.Image.Image, window: float, rng: np.random.Generator | None
    ) -> UInt8[np.ndarray, "H W channels"]:
        """Decodes an image.

        Args:
            value: an encoded image, or one that is opened.
            window: not used, an image has no time.
            rng: source of randomness in training; None in evaluation.
        """
        del window
        image = decode(value, _MODES[self.channels], self.upright)
        if self.crop == "centre":
            image = image.crop(augment.centre_box(image.size, before_middle=True))
        if rng is None:
            image = self._resize(image, self._box(image, rng))
        else:
            image = self._augment(image, rng)
        return np.asarray(image).reshape(self.image_size, self.image_size, self.channels)

    def _augment(self, image: PIL.Image.Image, rng: np.random.Generator) -> PIL.Image.Image:
        box = self._box(image, rng)
        mirrored = self.flip and rng.integers(2)
        if mirrored or self.rand_augment_layers:
            image = image.crop(box)
            box = (0, 0, *image.size)
        if mirrored:
            image = image.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
        if self.rand_augment_layers:
            image = rand_augment.rand_augment(
                rng, image, self.rand_augment_layers, self.rand_augment_magnitude
            )
        image = self._resize(image, box)
        if self.rotation_degrees or self.scale or self.shift:
            image = augment.jitter(rng, image, self.rotation_degrees, self.scale, self.shift)
        return image

    def _box(self, image: PIL.Image.Image, rng: np.random.Generator | None) -> augment.Box:
        if self.crop != "inception":
            return (0, 0, *image.size)
        if rng is None:
            return augment.centre_box(image.size)
        return augment.random_box(rng, image.size, self.crop_area, self.crop_aspect)

    def _resize(self, image: PIL.Image.Image, box: augment.Box) -> PIL.Image.Image:
        size = (self.image_size, self.image_size)
        return image.resize(size, PIL.Image.Resampling.BICUBIC, box=box)


def decode(
    value: bytes | PIL.Image.Image, mode: str = "RGB", upright: bool = True
) -> PIL.Image.Image:
    """Decodes an image as viewers show it; the first one of an animation.

    It is turned as its EXIF says. Transparent parts are white, whatever is hidden there. Grey of
    more than 8 bits is scaled: white is 65,535 of whole numbers (4,095 in a TIFF of 12 bits), 1 of
    floats, the same for all images.

    Args:
        value: an encoded image, or one that is opened.
        mode: Pillow's name of the wanted colours, 'L' or 'RGB'.
        upright: whether EXIF's orientation counts.

    Raises:
        errors.BadDataError: it can't be decoded, or has more than `MAX_PIXELS`, which is seen
            before it takes memory, or brightness that is not between black and white.
        ImportError: it is HEIC, and pillow-heif is not installed.
    """
    try:
        image = _open(value) if isinstance(value, bytes) else value
        if image.width * image.height > MAX_PIXELS:
            raise errors.BadDataError("too large", f"{image.width} x {image.height} pixels")
        image.load()
        tags = getattr(image, "tag_v2", {})
        _check_tiff(image, tags)
        turn = _UPRIGHT.get(_orientation(image)) if upright else None
        transparent = image.has_transparency_data
        if transparent and image.format == "PNG" and isinstance(value, bytes):
            _correct_transparency(image, value[_PNG_DEPTH])
        if image.mode.startswith(("I", "F")) or tags.get(_TIFF_SAMPLE_FORMAT) == _SIGNED:
            image = _to_grey(image, tags)
        elif transparent:
            image = _on_white(image)
        image = image if image.mode == mode else image.convert(mode)  # convert() always copies.
        return image if turn is None else image.transpose(turn)
    except (errors.BadDataError, MemoryError):
        raise
    except PIL.UnidentifiedImageError as error:
        raise errors.BadDataError(*_unidentified(value)) from error
    except PIL.Image.DecompressionBombError as error:
        raise errors.BadDataError("too large", str(error)) from error
    except Exception as error:  # Pillow's decoders raise whatever they stumble over.
        if errors.means_broken_program(error):
            raise
        cause = "truncated" if "truncated" in str(error).lower() else "damaged"
        raise errors.BadDataError(cause, f"{type(error).__name__}: {error}") from error


def _open(value: bytes) -> PIL.Image.Image:
    file, formats = io.BytesIO(value), FORMATS
    if value[4:8] == b"ftyp":
        brands = value[8 : int.from_bytes(value[:4])]
        if any(brand in brands for brand in _HEIC_BRANDS):
            _register_heic()
            formats = ("HEIF",)
    return PIL.Image.open(file, formats=formats)


@functools.cache
def _register_heic() -> None:
    try:
        import pillow_heif
    except ImportError as error:
        raise config.MissingPackageError(
            "Got a HEIC image, which Pillow can't read by itself; expected the package "
            "pillow-heif. Install it: pip install perceiver-haiku[heif]"
        ) from error
    pillow_heif.register_heif_opener()


def _orientation(image: PIL.Image.Image) -> int:
    try:
        return image.getexif().get(PIL.ExifTags.Base.Orientation, 1)
    except Exception as error:  # Damaged EXIF; viewers show such images as they are stored.
        if errors.means_broken_program(error):
            raise
        return 1


def _correct_transparency(image: PIL.Image.Image, depth: int) -> None:
    """Scales the transparent colour of a PNG as Pillow has scaled its pixels, to 8 bits."""
    colour = image.info.get("transparency")
    if image.mode == "RGB" and depth == 16:
        image.info["transparency"] = tuple(level >> 8 for level in colour)
    elif image.mode in ("1", "L") and colour < 2**depth:
        image.info["transparency"] = colour * 255 // (2**depth - 1)


def _check_tiff(image: PIL.Image.Image, tags: Mapping[int, Any]) -> None:
    """Mends, or refuses, the TIFFs that Pillow decodes to something else without a word."""
    if tags.get(_TIFF_PLANES) == 2 and len(image.getbands()) > 1:
        wide = 16 in tags[_TIFF_BITS] and tags.get(_TIFF_COMPRESSION) == 1
        if wide or image.mode == "LA":
            detail = f"a TIFF of {image.mode} in planes; expected the samples of a pixel together"
            raise errors.BadDataError("unsupported", detail)
    palette = tags.get(_TIFF_PALETTE, ())
    if image.mode == "P" and palette and max(palette) < 256:  # Of 8 bits, where 16 are the rule.
        image.putpalette(np.reshape(palette, (3, -1)).T.astype(np.uint8).tobytes())


def _to_grey(image: PIL.Image.Image, tags: Mapping[int, Any]) -> PIL.Image.Image:
    """Scales whole numbers of more than 8 bits, signed ones, or floats, to 8 bits."""
    bits = tags.get(_TIFF_BITS, (16,))[0]
    signed = tags.get(_TIFF_SAMPLE_FORMAT) == _SIGNED
    white = 1.0 if image.mode == "F" else 2.0 ** min(bits - signed, 16) - 1
    pixels = np.asarray(image)
    if signed and bits == 8:
        pixels = pixels.view(np.int8)  # Pillow has no mode for signed ones.
    if image.mode == "I" and tags.get(_TIFF_SAMPLE_FORMAT, (1,)) == (1,):
        pixels = pixels.view(np.uint32)  # Pillow has no mode for unsigned ones.
    levels = pixels.astype(np.float32) * np.float32(255 / white)
    if not np.isfinite(levels).all():
        raise errors.BadDataError("brightness that is no number", "NaN or infinite")
    np.round(levels, out=levels)
    if levels.min() < 0 or levels.max() > 255:
        raise errors.BadDataError(
            "brightness of unknown scale",
            f"{pixels.min()} to {pixels.max()}; expected 0 (black) to {white:g} (white)",
        )
    if tags.get(_TIFF_PHOTOMETRIC) == 0:  # White is zero; Pillow heeds it up to 8 bits.
        levels = 255 - levels
    if "transparency" in image.info:
        levels[pixels == image.info["transparency"]] = 255
    return PIL.Image.fromarray(levels.astype(np.uint8))


def _on_white(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode == "La":
        image = image.convert("LA")  # There is no other way from it.
    image = image.convert("RGBA")
    white = PIL.Image.new("RGB", image.size, "white")
    white.paste(image, mask=image)
    return white


def _unidentified(value: bytes) -> tuple[str, str]:
    """Cause and detail of a file that Pillow opens by none of the formats."""
    if not value:
        return "empty", ""
    PIL.Image.init()  # Until then, Pillow knows but the commonest formats.
    for name in (*FORMATS, "HEIF"):
        accepts = PIL.Image.OPEN.get(name, (None, None))[1]
        if accepts is not None and accepts(value[:16]):
            return "unsupported or damaged", f"begins as {name}, but Pillow can't read it"
    return "not an image", ""
