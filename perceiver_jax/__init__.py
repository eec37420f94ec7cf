"""Perceiver (Jaegle et al. 2021) in JAX and Haiku.

Letters of shapes, everywhere in this package (M, C, N, D, K are the paper's):
B batch · M inputs · C input channels · N latents · D latent channels · H heads · P channels per
head (V for values) · K Fourier bands · X position dimensions or axes of a grid · F features ·
L classes.
"""

from perceiver_jax.attention import CrossAttention, SelfAttention
from perceiver_jax.decoders import MeanPoolDecoder, QueryDecoder
from perceiver_jax.model import Model, build_model, param_count
from perceiver_jax.perceiver import PerceiverEncoder, make_layers
from perceiver_jax.position_encoding import (
    FourierEncoding,
    LearnedEncoding,
    fourier_features,
    linear_positions,
)
from perceiver_jax.tokens import Tokens

__version__ = "0.1.0"

__all__ = [
    "CrossAttention",
    "FourierEncoding",
    "LearnedEncoding",
    "MeanPoolDecoder",
    "Model",
    "PerceiverEncoder",
    "QueryDecoder",
    "SelfAttention",
    "Tokens",
    "build_model",
    "fourier_features",
    "linear_positions",
    "make_layers",
    "param_count",
]
