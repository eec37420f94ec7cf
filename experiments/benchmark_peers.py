"""The benchmark's subjects in PyTorch; runs in the peers' own environment, without JAX.

Started by `experiments.benchmark`, with the settings `peer` and the sizes of `benchmark.sizes`. All
peers get the inputs with their position encodings already made, as random numbers.
"""

import contextlib
from typing import Any

from experiments import benchmark_protocol

try:
    import torch
except ImportError as error:
    torch, _MISSING = None, error


def prepare(settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Builds the peer's model and step; see `benchmark_protocol.serve`."""
    if torch is None:
        raise benchmark_protocol.SubjectError(f"not installed: {_MISSING}")
    sizes, peer = settings["sizes"], settings["peer"]
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        model, differences, version = PEERS[peer](sizes)
    except ImportError as error:
        raise benchmark_protocol.SubjectError(f"not installed: {error}") from error
    model = model.to(device)
    inputs = torch.randn(settings["batch_size"], *sizes["tokens"], device=device)
    labels = torch.randint(sizes["num_classes"], (settings["batch_size"],), device=device)
    run = torch.compile(model) if peer.endswith("_compile") else model
    # Half precision as PyTorch's users have it: float32 parameters, products under autocast.
    half = sizes["dtype"] == "bfloat16"
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def precision():
        return torch.autocast(device.type, torch.bfloat16) if half else contextlib.nullcontext()

    def train() -> None:
        with precision():
            loss = torch.nn.functional.cross_entropy(run(inputs).float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        _synchronize(device)

    def infer() -> None:
        with torch.no_grad(), precision():
            run(inputs)
        _synchronize(device)

    step = {"train": train, "inference": infer}[settings["mode"]]
    facts = {
        "compile_seconds": None,  # What the first step takes longer.
        "temporary_megabytes": None,
        "parameters": sum(p.numel() for p in model.parameters()),
        "executed_flops": None,
        "versions": {"torch": torch.__version__, **version},
        "differences": differences,
    }
    return facts, {"step": step}


def _hugging_face(sizes: dict[str, Any]):
    import transformers

    if sizes["num_cross_attends"] != 1:
        raise benchmark_protocol.SubjectError(
            f"has one cross-attend only, the config has {sizes['num_cross_attends']}; "
            "use imagenet.py:cross_attends=1"
        )
    num_blocks = sizes["num_latent_transformers"]
    config = transformers.PerceiverConfig(
        num_latents=sizes["num_latents"],
        d_latents=sizes["latent_channels"],
        d_model=sizes["tokens"][1],
        num_blocks=num_blocks,
        num_self_attends_per_block=sizes["num_self_attends"] if num_blocks else 0,
        num_self_attention_heads=sizes["num_self_attend_heads"],
        num_cross_attention_heads=1,
        self_attention_widening_factor=1,
        cross_attention_widening_factor=1,
        cross_attention_shape_for_attention="kv",
        attention_probs_dropout_prob=0.0,
        hidden_act="gelu_pytorch_tanh",
    )
    encoder = transformers.PerceiverModel(config)

    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = encoder
            self.head = torch.nn.Linear(sizes["latent_channels"], sizes["num_classes"])

        def forward(self, inputs):
            return self.head(self.encoder(inputs).last_hidden_state.mean(dim=1))

    differences = ["our mean-pool head around its encoder"]
    if num_blocks and sizes["num_weight_sets"] != 2:
        differences.append("its latent Transformers share their weights, the config's do not")
    return Classifier(), differences, {"transformers": transformers.__version__}


def _perceiver_pytorch(sizes: dict[str, Any]):
    import importlib.metadata

    import perceiver_pytorch

    _check_alternates(sizes)
    model = perceiver_pytorch.Perceiver(
        num_freq_bands=1,  # Not used: the inputs have their encodings.
        max_freq=2.0,
        fourier_encode_data=False,
        input_axis=1,
        input_channels=sizes["tokens"][1],
        depth=sizes["num_cross_attends"],
        num_latents=sizes["num_latents"],
        latent_dim=sizes["latent_channels"],
        cross_heads=1,
        cross_dim_head=sizes["tokens"][1],
        latent_heads=sizes["num_self_attend_heads"],
        latent_dim_head=sizes["latent_channels"] // sizes["num_self_attend_heads"],
        self_per_cross_attn=sizes["num_self_attends"],
        weight_tie_layers=True,
        num_classes=sizes["num_classes"],
    )
    differences = [
        "its MLPs are gated and four times as wide (12 D^2 weights instead of 2 D^2)",
        "its first latent Transformer has weights of its own",
    ]
    return (
        model,
        differences,
        {"perceiver-pytorch": importlib.metadata.version("perceiver-pytorch")},
    )


def _flash_perceiver(sizes: dict[str, Any]):
    """Written from its documentation (flash-perceiver 0.2.0); we have not run it on a GPU."""
    import importlib.metadata

    if not torch.cuda.is_available():
        raise benchmark_protocol.SubjectError("needs a CUDA device, which PyTorch finds none of")
    if sizes["dtype"] != "bfloat16":
        raise benchmark_protocol.SubjectError(
            f"computes in half precision only, the config in {sizes['dtype']}; "
            "use --config.model.dtype=bfloat16"
        )
    import flash_perceiver

    _check_alternates(sizes)
    # FlashAttention's limit, and of what the number has to be a multiple.
    cross_channels = min(256, -(-sizes["tokens"][1] // 8) * 8)
    model = flash_perceiver.Perceiver(
        input_dim=sizes["tokens"][1],
        depth=sizes["num_cross_attends"],
        output_dim=sizes["num_classes"],
        output_mode="average",  # The default, 'mean', is not one that it knows.
        num_latents=sizes["num_latents"],
        latent_dim=sizes["latent_channels"],
        cross_heads=1,
        cross_head_dim=cross_channels,
        latent_heads=sizes["num_self_attend_heads"],
        latent_head_dim=sizes["latent_channels"] // sizes["num_self_attend_heads"],
        self_per_cross_attn=sizes["num_self_attends"],
        weight_tie_layers=True,
        gated_mlp=False,
    )
    differences = [
        "its MLPs are four times as wide (8 D^2 weights instead of 2 D^2)",
        "its first latent Transformer has weights of its own",
        f"its cross-attends have {cross_channels} channels a head, for {sizes['tokens'][1]} inputs",
    ]
    names = ("flash-perceiver", "flash-attn")
    return model, differences, {name: importlib.metadata.version(name) for name in names}


def _check_alternates(sizes: dict[str, Any]) -> None:
    if sizes["num_latent_transformers"] != sizes["num_cross_attends"]:
        raise benchmark_protocol.SubjectError(
            "has one latent Transformer after each cross-attend; the config has "
            f"{sizes['num_cross_attends']} cross-attends and "
            f"{sizes['num_latent_transformers']} latent Transformers"
        )


PEERS = {
    "hf": _hugging_face,
    "hf_compile": _hugging_face,
    "perceiver_pytorch": _perceiver_pytorch,
    "flash_perceiver": _flash_perceiver,
}


def _synchronize(device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    benchmark_protocol.serve(prepare)
