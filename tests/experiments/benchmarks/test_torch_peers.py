"""What the peers are given, and the reasons that they have for not being measured."""

import sys
import types

import pytest

from experiments.benchmarks import protocol, step, torch_peers

ENCODER = {
    "layers": ["cross_attend_0", "latent_transformer_0"] * 2,
    "num_latents": 7,
    "latent_channels": 24,
    "num_self_attends": 5,
    "num_self_attend_heads": 3,
}


@pytest.fixture
def build(monkeypatch):
    """Builds flash-perceiver, without PyTorch; returns what its model is made of."""

    def build(num_channels=13, dtype="bfloat16", gpu=True, **changes):
        cuda = types.SimpleNamespace(is_available=lambda: gpu)
        monkeypatch.setattr(torch_peers, "torch", types.SimpleNamespace(cuda=cuda))
        package = types.SimpleNamespace(Perceiver=lambda **keys: keys)
        monkeypatch.setitem(sys.modules, "flash_perceiver", package)
        keys = {"outputs": {"label": {"size": 11}}, "dtype": dtype, "encoder": ENCODER | changes}
        return torch_peers.PEERS["flash_perceiver"](keys, num_channels)

    return build


def test_every_peer_can_be_built():
    assert set(torch_peers.PEERS) == set(step.TORCH_PEERS)


def test_flash_perceiver_has_the_sizes_of_the_config(build):
    model, _, differences = build()
    sizes = {"input_dim": 13, "output_dim": 11, "num_latents": 7, "latent_dim": 24, "depth": 2}
    heads = {"latent_heads": 3, "latent_head_dim": 8, "self_per_cross_attn": 5}
    assert model | sizes | heads == model
    assert model["cross_head_dim"] == 16  # The next multiple of 8.
    assert any("16 channels a head, for 13 inputs" in text for text in differences)


def test_flash_perceiver_has_no_more_channels_a_head_than_flash_attention_can(build):
    assert build(261)[0]["cross_head_dim"] == 256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpu": False}, "needs a CUDA device"),
        ({"dtype": "float32"}, "half precision only, the config in float32; use --config.model"),
        ({"layers": ["cross_attend_0"]}, "1 cross-attends and 0 latent Transformers"),
    ],
)
def test_flash_perceiver_refuses_what_it_can_not_do(changes, message, build):
    with pytest.raises(protocol.WorkerError, match=message):
        build(**changes)
