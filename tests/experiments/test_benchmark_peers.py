"""What the peers are given, and the reasons that they have for not being measured."""

import importlib.metadata
import sys
import types

import pytest

from experiments import benchmark, benchmark_peers, benchmark_protocol

SIZES = {
    "tokens": [31, 13],
    "num_classes": 11,
    "dtype": "bfloat16",
    "num_latents": 7,
    "latent_channels": 24,
    "num_self_attends": 5,
    "num_self_attend_heads": 3,
    "num_cross_attends": 2,
    "num_latent_transformers": 2,
    "num_weight_sets": 3,
}


@pytest.fixture
def cuda(monkeypatch):
    """Whether the PyTorch that the peers see has a CUDA device."""
    present = [True]
    torch = types.SimpleNamespace(cuda=types.SimpleNamespace(is_available=lambda: present[0]))
    monkeypatch.setattr(benchmark_peers, "torch", torch)
    return present


@pytest.fixture
def flash_perceiver(monkeypatch):
    """A package that keeps what its model is made of."""
    monkeypatch.setattr(importlib.metadata, "version", lambda name: f"{name} 1")
    package = types.SimpleNamespace(Perceiver=lambda **keys: keys)
    monkeypatch.setitem(sys.modules, "flash_perceiver", package)


def build(**changes):
    return benchmark_peers.PEERS["flash_perceiver"](SIZES | changes)


def test_every_peer_can_be_built():
    assert set(benchmark_peers.PEERS) == set(benchmark.TORCH_PEERS)


def test_flash_perceiver_has_the_sizes_of_the_config(cuda, flash_perceiver):
    model, differences, versions = build()
    sizes = {"input_dim": 13, "output_dim": 11, "num_latents": 7, "latent_dim": 24, "depth": 2}
    heads = {"latent_heads": 3, "latent_head_dim": 8, "self_per_cross_attn": 5}
    assert model | sizes | heads == model
    assert model["cross_head_dim"] == 16  # The next multiple of 8.
    assert any("16 channels a head, for 13 inputs" in text for text in differences)
    assert set(versions) == {"flash-perceiver", "flash-attn"}


def test_flash_perceiver_has_no_more_channels_a_head_than_flash_attention_can(
    cuda, flash_perceiver
):
    assert build(tokens=[31, 261])[0]["cross_head_dim"] == 256


def test_flash_perceiver_without_a_gpu_says_so(cuda, flash_perceiver):
    cuda[0] = False
    with pytest.raises(benchmark_protocol.SubjectError, match="needs a CUDA device"):
        build()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "float32"}, "half precision only, the config in float32; use --config.model"),
        ({"num_latent_transformers": 3}, "2 cross-attends and 3 latent Transformers"),
    ],
)
def test_flash_perceiver_refuses_what_it_can_not_do(changes, message, cuda, flash_perceiver):
    with pytest.raises(benchmark_protocol.SubjectError, match=message):
        build(**changes)


def test_package_that_is_not_installed_is_named(cuda, monkeypatch):
    monkeypatch.setitem(sys.modules, "flash_perceiver", None)
    monkeypatch.setattr(benchmark_peers.torch, "manual_seed", lambda seed: None, raising=False)
    monkeypatch.setattr(benchmark_peers.torch, "device", lambda name: name, raising=False)
    settings = {"peer": "flash_perceiver", "sizes": SIZES, "mode": "train", "batch_size": 2}
    with pytest.raises(benchmark_protocol.SubjectError, match="not installed: .*flash_perceiver"):
        benchmark_peers.prepare(settings)
