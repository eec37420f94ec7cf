"""The workers in PyTorch; run in the peers' own environment, without JAX.

Started by `step` and `growth` with the settings of `step.start`. All get the inputs with their
position encodings already made, as random numbers.
"""

import importlib.metadata
from typing import Any

from experiments.benchmarks import protocol

try:
    import torch
except ImportError as error:
    torch, _MISSING = None, error


def prepare(settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Builds the peer's model and step; see `protocol.serve`."""
    if torch is None:
        raise protocol.WorkerError(f"not installed: {_MISSING}")
    keys, tokens = settings["config"]["model"], settings["tokens"]
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        model, packages, differences = PEERS[settings["peer"]](keys, tokens[1])
    except ImportError as error:
        raise protocol.WorkerError(f"not installed: {error}") from error
    model = model.to(device)
    size = settings["batch_size"]
    inputs = torch.randn(size, *tokens, device=device)
    labels = torch.randint(keys["outputs"]["label"]["size"], (size,), device=device)
    run = torch.compile(model) if settings["peer"].endswith("_compile") else model
    # Half precision as PyTorch's users have it: float32 parameters, products under autocast.
    half, training = keys["dtype"] == "bfloat16", settings["mode"] == "train"
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step() -> None:
        with (
            torch.set_grad_enabled(training),
            torch.autocast(device.type, torch.bfloat16, enabled=half),
        ):
            logits = run(inputs)
            if training:
                loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        if training:
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    facts = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", *packages)},
        "differences": differences,
    }
    return facts, {"step": step}


def _hugging_face(keys: dict[str, Any], num_channels: int):
    import transformers

    encoder = keys["encoder"]
    cross_attends, blocks = _count(encoder["layers"])
    if cross_attends != 1:
        raise protocol.WorkerError(
            f"has one cross-attend only, the config has {cross_attends}; "
            "use imagenet.py:cross_attends=1"
        )
    config = transformers.PerceiverConfig(
        num_latents=encoder["num_latents"],
        d_latents=encoder["latent_channels"],
        d_model=num_channels,
        num_blocks=blocks,
        num_self_attends_per_block=encoder["num_self_attends"] if blocks else 0,
        num_self_attention_heads=encoder["num_self_attend_heads"],
        num_cross_attention_heads=1,
        self_attention_widening_factor=1,
        cross_attention_widening_factor=1,
        cross_attention_shape_for_attention="kv",
        attention_probs_dropout_prob=0.0,
        hidden_act="gelu_pytorch_tanh",
    )

    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = transformers.PerceiverModel(config)
            self.head = torch.nn.Linear(config.d_latents, keys["outputs"]["label"]["size"])

        def forward(self, inputs):
            return self.head(self.encoder(inputs).last_hidden_state.mean(dim=1))

    differences = ["our mean-pool head around its encoder"]
    if blocks and len(set(encoder["layers"])) != 2:
        differences.append("its latent Transformers share their weights, the config's do not")
    return Classifier(), ["transformers"], differences


def _perceiver_pytorch(keys: dict[str, Any], num_channels: int):
    import perceiver_pytorch

    model = perceiver_pytorch.Perceiver(
        fourier_encode_data=False,  # The inputs have their encodings.
        num_freq_bands=1,
        max_freq=2.0,
        input_axis=1,
        input_channels=num_channels,
        cross_dim_head=num_channels,
        latent_dim_head=_head_channels(keys),
        num_classes=keys["outputs"]["label"]["size"],
        **_alternating(keys),
    )
    differences = [
        "its MLPs are gated and four times as wide (12 D^2 weights instead of 2 D^2)",
        "its first latent Transformer has weights of its own",
    ]
    return model, ["perceiver-pytorch"], differences


def _flash_perceiver(keys: dict[str, Any], num_channels: int):
    """Written from its documentation (flash-perceiver 0.2.0); we have not run it on a GPU."""
    if not torch.cuda.is_available():
        raise protocol.WorkerError("needs a CUDA device, which PyTorch finds none of")
    if keys["dtype"] != "bfloat16":
        raise protocol.WorkerError(
            f"computes in half precision only, the config in {keys['dtype']}; "
            "use --config.model.dtype=bfloat16"
        )
    import flash_perceiver

    # FlashAttention's limit, and of what the number has to be a multiple.
    cross_channels = min(256, -(-num_channels // 8) * 8)
    model = flash_perceiver.Perceiver(
        input_dim=num_channels,
        output_dim=keys["outputs"]["label"]["size"],
        output_mode="average",  # The default, 'mean', is not one that it knows.
        cross_head_dim=cross_channels,
        latent_head_dim=_head_channels(keys),
        gated_mlp=False,
        **_alternating(keys),
    )
    differences = [
        "its MLPs are four times as wide (8 D^2 weights instead of 2 D^2)",
        "its first latent Transformer has weights of its own",
        f"its cross-attends have {cross_channels} channels a head, for {num_channels} inputs",
    ]
    return model, ["flash-perceiver", "flash-attn"], differences


def _alternating(keys: dict[str, Any]) -> dict[str, Any]:
    """Arguments of models that have one latent Transformer after each cross-attend."""
    encoder = keys["encoder"]
    cross_attends, latent_transformers = _count(encoder["layers"])
    if latent_transformers != cross_attends:
        raise protocol.WorkerError(
            "has one latent Transformer after each cross-attend; the config has "
            f"{cross_attends} cross-attends and {latent_transformers} latent Transformers"
        )
    return {
        "depth": cross_attends,
        "num_latents": encoder["num_latents"],
        "latent_dim": encoder["latent_channels"],
        "cross_heads": 1,
        "latent_heads": encoder["num_self_attend_heads"],
        "self_per_cross_attn": encoder["num_self_attends"],
        "weight_tie_layers": True,
    }


def _head_channels(keys: dict[str, Any]) -> int:
    return keys["encoder"]["latent_channels"] // keys["encoder"]["num_self_attend_heads"]


def _count(layers: list[str]) -> tuple[int, int]:
    """Number of cross-attends and of latent Transformers."""
    cross_attends = sum(name.startswith("cross") for name in layers)
    return cross_attends, len(layers) - cross_attends


PEERS = {
    "hf": _hugging_face,
    "hf_compile": _hugging_face,
    "perceiver_pytorch": _perceiver_pytorch,
    "flash_perceiver": _flash_perceiver,
}


if __name__ == "__main__":
    protocol.serve(prepare)
