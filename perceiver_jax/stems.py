"""Stems: what an image goes through before its positions are attached (Perceiver IO, appendix A).

Each has a `grid`, the inputs along each axis for an image of so many rows and columns, and is
called on pixels within the scope of its input.
"""

from collections.abc import Callable, Sequence
import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float
import numpy as np

from perceiver_jax import attention, batch_norm, config, tokens

PADDINGS = ("same", "port")


@dataclasses.dataclass(frozen=True)
class Conv1x1:
    """A linear map of each pixel's channels.

    Attributes:
      num_channels: of what it gives; 256 for ImageNet with learned positions.
    """

    num_channels: int

    def __post_init__(self):
        """Checks the number."""
        config.check(vars(self), num_channels=config.AT_LEAST_ONE)

    def grid(self, rows: int, columns: int) -> tuple[int, int]:
        """As many inputs as pixels."""
        return rows, columns

    def __call__(
        self, pixels: Float[Array, "B H W C"], mask: Bool[Array, " B"] | None = None
    ) -> Float[Array, "B H W F"]:
        """Maps the channels."""
        del mask
        return Convolution(self.num_channels, 1, name="conv")(pixels)


@dataclasses.dataclass(frozen=True)
class Conv:
    """A 7x7 convolution of stride 2, batch norm, ReLU, and a 3x3 maximum of stride 2.

    Attributes:
      num_channels: of what it gives.
      batch_norm: whether there is a batch norm.
      padding: 'same' as in the authors' code: of 224 x 224 pixels 56 x 56 inputs; 'port' as in
        Hugging Face's: three zeros on each side of the image and none around the maximum, 55 x 55.
    """

    num_channels: int = 64
    batch_norm: bool = True
    padding: str = "same"

    def __post_init__(self):
        """Checks the number and the name."""
        config.check(vars(self), num_channels=config.AT_LEAST_ONE)
        config.check_known("padding", self.padding, PADDINGS)

    def grid(self, rows: int, columns: int) -> tuple[int, int]:
        """About a fourth along each axis."""
        halves = (-(-rows // 2), -(-columns // 2))
        if self.padding == "same":
            return -(-halves[0] // 2), -(-halves[1] // 2)
        if min(halves) < 3:
            raise config.UserError(
                f"An image of {rows} x {columns} pixels leaves nothing to take a 3x3 maximum of; "
                "expected at least 5 x 5. Give larger ones, or set the stem's padding to 'same'."
            )
        return (halves[0] - 3) // 2 + 1, (halves[1] - 3) // 2 + 1

    def __call__(
        self, pixels: Float[Array, "B H W C"], mask: Bool[Array, " B"] | None = None
    ) -> Float[Array, "B h w F"]:
        """Takes features of the image."""
        same = self.padding == "same"
        x = Convolution(
            self.num_channels, 7, 2, "SAME" if same else ((3, 3), (3, 3)), False, name="conv"
        )(pixels)
        if self.batch_norm:
            x = batch_norm.BatchNorm(name="batch_norm")(x, mask)
        return hk.max_pool(jax.nn.relu(x), (1, 3, 3, 1), (1, 2, 2, 1), "SAME" if same else "VALID")


@dataclasses.dataclass(frozen=True)
class Patches:
    """Patches of pixels, and optionally a linear map of each.

    Attributes:
      patch_size: rows and columns of a patch.
      num_channels: of the linear map; 0: there is none.
    """

    patch_size: Sequence[int]
    num_channels: int = 0

    def __post_init__(self):
        """Checks the numbers."""
        tokens.check_patches(self.patch_size, "B H W C")
        config.check(vars(self), num_channels=config.COUNT)

    def grid(self, rows: int, columns: int) -> tuple[int, int]:
        """The patches."""
        return rows // self.patch_size[0], columns // self.patch_size[1]

    def __call__(
        self, pixels: Float[Array, "B H W C"], mask: Bool[Array, " B"] | None = None
    ) -> Float[Array, "B h w F"]:
        """Cuts the image into patches."""
        del mask
        patches = tokens.to_patches(pixels, self.patch_size)
        return project(patches, self.num_channels) if self.num_channels else patches


STEMS: dict[str, Callable] = {"conv": Conv, "conv1x1": Conv1x1, "patches": Patches}


def spread(mask: Bool[Array, "B h w"], size: Sequence[int]) -> Bool[Array, "B H W"]:
    """A truth value a pixel of an image of that size: that of the input that stands for it."""
    for axis, (inputs, pixels) in enumerate(zip(mask.shape[1:], size, strict=True), start=1):
        mask = jnp.take(mask, np.arange(pixels) * inputs // pixels, axis=axis)
    return mask


def project(x: Float[Array, "B *X C"], num_channels: int) -> Float[Array, "B *X F"]:
    """A linear map of the channels, its parameters called `projection`."""
    params = attention.Linear("projection").parameters(x.shape[-1], num_channels)
    return attention.linear(params, x.astype(params["w"].dtype))


@dataclasses.dataclass
class Convolution(hk.Module):
    """A convolution, computed in the dtype of its parameters.

    Attributes:
      num_channels: of what it gives.
      size: rows and columns of the kernel.
      stride: in both directions.
      padding: 'SAME', or zeros before and after, of rows and of columns.
      with_bias: whether it adds one.
    """

    num_channels: int
    size: int
    stride: int = 1
    padding: str | Sequence[tuple[int, int]] = "SAME"
    with_bias: bool = True
    name: str | None = None

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w F"]:
        """Convolves."""
        shape = [self.size, self.size, x.shape[-1], self.num_channels]
        init = hk.initializers.TruncatedNormal((self.size * self.size * x.shape[-1]) ** -0.5)
        w = hk.get_parameter("w", shape, init=init)
        x = jax.lax.conv_general_dilated(
            x.astype(w.dtype),
            w,
            (self.stride, self.stride),
            self.padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        if not self.with_bias:
            return x
        bias = hk.get_parameter("b", [self.num_channels], init=jnp.zeros)
        return x + jnp.expand_dims(bias, (0, 1, 2))
