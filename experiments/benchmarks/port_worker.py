"""The worker of `released` in PyTorch: a step of Hugging Face's port, with random weights.

Run in the peers' environment, without JAX.
"""

from typing import Any

from experiments.benchmarks import protocol

try:
    import torch
    import transformers
except ImportError as error:
    torch, _MISSING = None, error

NUM_CHUNKS = 128  # As in the port's documentation.
NUM_CHOSEN = 512  # Of the multimodal model's outputs in training, of sound and of pixels.


def prepare(settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Builds the model; see `protocol.serve`."""
    if torch is None:
        raise protocol.WorkerError(f"not installed: {_MISSING}")
    torch.manual_seed(0)
    keys = settings["port"]
    (architecture,) = keys["architectures"]
    config = transformers.PerceiverConfig(**keys, attention_probs_dropout_prob=0.0)
    model = getattr(transformers, architecture)(config)
    inputs = make_noise(config, architecture, settings["batch_size"])
    training = settings["mode"] == "train"
    run = {True: _chosen, False: _all_outputs} if "image" in inputs else {}
    forward = run.get(training, lambda model, inputs: [model(**inputs).logits])
    facts = {"parameters": sum(p.numel() for p in model.parameters())}
    if not training:
        model.eval()

        @torch.inference_mode()
        def step() -> None:
            forward(model, inputs)

        return facts, {"step": step}

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        sum(x.square().mean() for x in forward(model, inputs)).backward()
        optimizer.step()

    return facts, {"step": step}


def make_noise(config, architecture: str, size: int) -> dict[str, Any]:
    """Random inputs of the sizes that a released model was trained on."""
    if architecture.startswith("PerceiverForImageClassification"):
        return {"inputs": torch.randn(size, 3, config.image_size, config.image_size)}
    if architecture == "PerceiverForOpticalFlow":
        return {"inputs": torch.randn(size, 2, 27, *config.train_size)}
    if architecture == "PerceiverForMaskedLM":
        shape = (size, config.max_position_embeddings)
        return {"inputs": torch.randint(config.vocab_size, shape)}
    side, samples = config.image_size * 4, config.num_frames * config.audio_samples_per_frame
    return {
        "image": torch.randn(size, config.num_frames, 3, side, side),
        "audio": torch.randn(size, samples, 1),
        "label": torch.zeros(size, config.num_labels),
    }


def _chosen(model, inputs):
    points = {
        "image": torch.randint(16 * 224 * 224, (NUM_CHOSEN,)),
        "audio": torch.randint(1920, (NUM_CHOSEN,)),
        "label": None,
    }
    return list(model(inputs=inputs, subsampled_output_points=points).logits.values())


def _all_outputs(model, inputs):
    """What the port's documentation does by calling the model for each chunk, encoded once."""
    perceiver = model.perceiver
    found, sizes, without_positions = perceiver.input_preprocessor(inputs)
    latents = perceiver.encoder(
        perceiver.embeddings(batch_size=found.shape[0]), inputs=found
    ).last_hidden_state
    outputs = []
    for places in zip(
        torch.arange(16 * 224 * 224).chunk(NUM_CHUNKS),
        torch.arange(1920).chunk(NUM_CHUNKS),
        strict=True,
    ):
        points = {"image": places[0], "audio": places[1], "label": None}
        query = perceiver.decoder.decoder_query(found, sizes, without_positions, points)
        decoded = perceiver.decoder(query, z=latents).logits
        taken = {"audio": len(places[1]), "image": len(places[0]), "label": 1}
        outputs.append(perceiver.output_postprocessor(decoded, modality_sizes=taken))
    return outputs


if __name__ == "__main__":
    protocol.serve(prepare)
