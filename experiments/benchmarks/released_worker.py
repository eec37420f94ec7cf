"""The worker of `released` in JAX: a step of a released model, with random weights."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks import protocol
import perceiver_jax
from perceiver_jax.pretrained import configs

NUM_CHOSEN = 512  # Of the multimodal model's outputs in training, of sound and of pixels.


def prepare(settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compiles the step; see `protocol.serve`."""
    section = configs.released(settings["model"])
    model = perceiver_jax.build_model(section)
    training = settings["mode"] == "train"
    batch = make_noise(section, settings["batch_size"], training)
    params = jax.jit(model.init)(jax.random.key(0), batch)
    if not training:
        apply = jax.jit(model.apply).lower(params, None, batch).compile()
        facts = {"parameters": perceiver_jax.param_count(params)}
        return facts, {"step": lambda: jax.block_until_ready(apply(params, None, batch))}

    optimizer = optax.adamw(1e-4)

    def update(params, state, batch):
        def loss(params):
            out, _ = model.apply_training(params, jax.random.key(1), batch)
            return sum(jnp.mean(jnp.square(x)) for x in out.values())

        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    init = jax.jit(optimizer.init).lower(params).compile()
    shapes = params, jax.eval_shape(optimizer.init, params)
    run = jax.jit(update, donate_argnums=(0, 1)).lower(*shapes, batch).compile()
    held = []

    def step() -> None:
        if not held:  # PyTorch's optimizer, too, makes its state in the first step.
            held[:] = params, init(params)
        held[:] = jax.block_until_ready(run(*held, batch))

    return {"parameters": perceiver_jax.param_count(params)}, {"step": step}


def make_noise(section: dict[str, Any], size: int, training: bool) -> dict[str, np.ndarray]:
    """A batch of random numbers, of the sizes that a released model was trained on."""
    rng, inputs = np.random.default_rng(0), section["inputs"]
    batch = {}
    for name, keys in inputs.items():
        match keys["kind"]:
            case "image":
                batch[name] = rng.standard_normal((size, 224, 224, 3), np.float32)
            case "frames":
                frames = keys["position_encoding"]["max_resolution"]
                batch[name] = rng.standard_normal((size, 2, *frames, 3), np.float32)
            case "text":
                shape = (size, keys["max_length"])
                batch[name] = rng.integers(keys["vocab_size"], size=shape, dtype=np.int32)
            case "video":
                shape = (size, *section["outputs"][name]["index_dims"], 3)
                batch[name] = rng.standard_normal(shape, np.float32)
            case "audio":
                length = section["outputs"][name]["index_dims"][0] * keys["patch_size"]
                batch[name] = rng.standard_normal((size, length), np.float32)
            case "label":
                batch[name] = rng.integers(keys["num_classes"], size=size, dtype=np.int32)
    if training and "decoder" in section:
        for name in ("audio", "video"):
            number = np.prod(section["outputs"][name]["index_dims"])
            batch[f"{name}_indices"] = rng.integers(number, size=NUM_CHOSEN, dtype=np.int32)
    return batch


if __name__ == "__main__":
    protocol.serve(prepare)
