"""Perceiver (Jaegle et al. 2021) in JAX and Haiku.

Letters of shapes, everywhere in this package (M, C, N, D, K are the paper's):
B batch · M inputs · C input channels · N latents · D latent channels · H heads · P channels per
head (V for values) · K Fourier bands · X position dimensions or axes of a grid · F features ·
L classes.
"""

from perceiver_jax.attention import CrossAttention
from perceiver_jax.attention import SelfAttention
from perceiver_jax.decoders import MeanPoolDecoder
from perceiver_jax.decoders import QueryDecoder
from perceiver_jax.model import build_model
from perceiver_jax.model import Model
from perceiver_jax.model import param_count
from perceiver_jax.perceiver import make_layers
from perceiver_jax.perceiver import PerceiverEncoder
from perceiver_jax.position_encoding import fourier_features
from perceiver_jax.position_encoding import FourierEncoding
from perceiver_jax.position_encoding import LearnedEncoding
from perceiver_jax.position_encoding import linear_positions
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
