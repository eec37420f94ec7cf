"""What the paper compares a Perceiver with, each in the place of its encoder (tables 1, 2 and 4).

Tokens `[B, M, C]` become features `[B, N, D]`, which an output averages as it does latents. So
data, positions, permutation of pixels, training and evaluation are those of a Perceiver.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any, ClassVar

import haiku as hk
import jax
from jaxtyping import Array, Float, Key
import numpy as np

from perceiver_jax import attention, batch_norm, config, layers, padded, stems, tokens


@dataclasses.dataclass
class _Baseline(hk.Module):
    """An encoder of all inputs, fused, without latents."""

    name: str | None = None

    streaming: ClassVar[bool] = True  # What outputs that have queries do.

    @property
    def resolved(self) -> tuple[layers.Layer, ...]:
        """What is read: everything, once."""
        return (layers.Layer("baseline", layers.ALL),)

    def __call__(
        self,
        inputs: Mapping[str, tokens.Tokens | padded.Fused],
        rng: Key[Array, " B"] | None = None,
    ) -> Float[Array, "B N D"]:
        """Encodes; there is no dropout, so that `rng` is of no use.

        Raises:
          UserError: if inputs are masked.
        """
        del rng
        if inputs[layers.ALL].mask is not None:
            raise config.UserError(
                "A baseline's inputs have a mask; expected none, for only a Perceiver leaves "
                "inputs out. Give examples that have all inputs, or remove "
                "config.model.encoder.kind."
            )
        return self.encode(inputs[layers.ALL].values)


@dataclasses.dataclass
class Transformer(_Baseline):
    """Every input a token: a linear map to D channels, then layers as of a latent Transformer.

    Attributes:
      channels: D.
      num_layers: self-attends, each with weights of its own.
      num_heads: attention heads.
    """

    channels: int = 64
    num_layers: int = 4
    num_heads: int = 4

    def __post_init__(self):
        """Checks the numbers."""
        super().__post_init__()
        numbers = ("channels", "num_layers", "num_heads")
        config.check(vars(self), **dict.fromkeys(numbers, config.AT_LEAST_ONE))
        if self.channels % self.num_heads:
            raise config.UserError(
                f"channels is {self.channels}, which num_heads = {self.num_heads} does not divide; "
                "expected a multiple. Change one of the two."
            )

    @hk.name_like("__call__")
    def encode(self, values: Float[Array, "B M C"]) -> Float[Array, "B M D"]:
        """Returns a vector an input."""
        return self._attend(stems.project(values, self.channels))

    def _attend(self, x):
        for index in range(self.num_layers):
            block = attention.SelfAttention(self.num_heads, name=f"self_attend_{index}")
            x = attention.self_attend(block.parameters(self.channels), x, num_heads=self.num_heads)
        return x


@dataclasses.dataclass
class VisionTransformer(Transformer):
    """ViT: patches of a grid are the tokens, with learned positions.

    The mean of all tokens is classified, not a token of its own.

    Attributes:
      grid: rows and columns of the inputs.
      patch_size: rows and columns of a patch.

    References:
      Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929
    """

    grid: Sequence[int] = (28, 28)
    patch_size: Sequence[int] = (4, 4)

    def __post_init__(self):
        """Checks the patches."""
        super().__post_init__()
        config.check(vars(self), grid=config.AT_LEAST_ONE)
        tokens.check_patches(self.patch_size, "B H W C")

    @hk.name_like("__call__")
    def encode(self, values: Float[Array, "B M C"]) -> Float[Array, "B N D"]:
        """Returns a vector a patch."""
        patches = tokens.to_patches(_on_grid(values, self.grid), self.patch_size)
        x = stems.project(patches.reshape(len(patches), -1, patches.shape[-1]), self.channels)
        init = hk.initializers.TruncatedNormal(0.02)
        positions = hk.get_parameter("position_embedding", x.shape[1:], init=init)
        return self._attend(x + positions[None].astype(x.dtype))


@dataclasses.dataclass
class ResNet(_Baseline):
    """Haiku's residual blocks on a grid after a 3x3 convolution, with our batch norm.

    Each group but the first halves rows and columns. As small images have it: without the stride
    and the maximum that ResNet-50 begins with.

    Attributes:
      grid: rows and columns of the inputs.
      channels: of each group of blocks.
      blocks: how many blocks each group has, of two 3x3 convolutions each.

    References:
      He et al. 2015, https://arxiv.org/abs/1512.03385 (section 4.2 for small images)
    """

    grid: Sequence[int] = (28, 28)
    channels: Sequence[int] = (16, 32, 64)
    blocks: Sequence[int] = (1, 1, 1)

    def __post_init__(self):
        """Checks the groups."""
        super().__post_init__()
        keys = ("grid", "channels", "blocks")
        config.check(vars(self), **dict.fromkeys(keys, config.AT_LEAST_ONE))
        if len(self.blocks) != len(self.channels):
            raise config.UserError(
                f"blocks has {len(self.blocks)} numbers for {len(self.channels)} of channels; "
                "expected one a group in both. Correct one of them."
            )

    @hk.name_like("__call__")
    def encode(self, values: Float[Array, "B M C"]) -> Float[Array, "B N D"]:
        """Returns a vector a place of the last group."""
        x = _on_grid(values, self.grid)
        with hk.intercept_methods(_our_batch_norm):
            x = stems.Convolution(self.channels[0], 3, with_bias=False, name="conv")(x)
            x = jax.nn.relu(batch_norm.BatchNorm(name="batch_norm")(x))
            for index, (channels, blocks) in enumerate(
                zip(self.channels, self.blocks, strict=True)
            ):
                group = hk.nets.ResNet.BlockGroup(
                    channels,
                    blocks,
                    stride=2 if index else 1,
                    bn_config={},  # Not used.
                    resnet_v2=False,
                    bottleneck=False,
                    use_projection=index > 0,
                    name=f"group_{index}",
                )
                x = group(x, True, False)  # Not looked at: `batch_norm.training` says it.
        return x.reshape(x.shape[0], -1, x.shape[-1])


@dataclasses.dataclass
class PointNet(_Baseline):
    """PointNet without its transforms: an MLP for each input, the maximum over all, an MLP.

    Each layer but the last of both has a batch norm and a ReLU, as has the last of the first MLP.

    Attributes:
      channels: of each layer before the maximum.
      head_channels: of each layer after it; the last is D.

    References:
      Qi et al. 2016, https://arxiv.org/abs/1612.00593
    """

    channels: Sequence[int] = (64, 64, 256)
    head_channels: Sequence[int] = (128,)

    def __post_init__(self):
        """Checks the layers."""
        super().__post_init__()
        keys = ("channels", "head_channels")
        config.check(vars(self), **dict.fromkeys(keys, config.AT_LEAST_ONE))

    @hk.name_like("__call__")
    def encode(self, values: Float[Array, "B M C"]) -> Float[Array, "B 1 D"]:
        """Returns a vector an example."""
        x = _dense(values, self.channels, "point")
        return _dense(x.max(axis=1, keepdims=True), self.head_channels, "head")


BASELINES: dict[str, Callable] = {
    "point_net": PointNet,
    "resnet": ResNet,
    "transformer": Transformer,
    "vit": VisionTransformer,
}


def check_perceiver(encoder: Mapping[str, Any], what: str) -> None:
    """Raises a UserError that says what only a Perceiver has, if an encoder is another."""
    if "kind" in encoder:
        raise config.UserError(
            f"{what} is of a Perceiver's latents; config.model.encoder.kind is "
            f"{encoder['kind']!r}, a baseline, which has none. Take a run of a Perceiver."
        )


def refusing(encoder: Mapping[str, Any], what: str) -> Callable[..., Any]:
    """Returns a function that does nothing but what `check_perceiver` does with a baseline."""

    def refuse(*args: Any, **options: Any) -> Any:
        del args, options
        check_perceiver(encoder, what)

    return refuse


def _dense(x, channels, name):
    for index, size in enumerate(channels):
        with hk.name_scope(f"{name}_{index}"):
            x = batch_norm.BatchNorm(name="batch_norm")(stems.project(x, size))
        x = jax.nn.relu(x)
    return x


def _on_grid(values, grid):
    """Inputs `[B, M, C]` as `[B, *grid, C]`."""
    if values.shape[1] != np.prod(grid):
        raise config.UserError(
            f"config.model.encoder.grid is {tuple(grid)}, {np.prod(grid)} places, for "
            f"{values.shape[1]} inputs; expected as many. Change it."
        )
    return values.reshape(len(values), *grid, values.shape[-1])


def _our_batch_norm(call, args, options, context):
    """Haiku's keeps its averages in a state, ours among the parameters, as all of this package."""
    if type(context.module) is hk.BatchNorm and context.method_name == "__call__":
        return batch_norm.BatchNorm(name="batch_norm")(args[0])
    return call(*args, **options)
