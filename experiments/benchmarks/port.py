"""Checks that models equal Hugging Face's port of them, weights in and out, at any size.

    python -m experiments.benchmarks.port --check [NAME ...]
    python -m experiments.benchmarks.port --fixtures=tests/pretrained/fixtures

Needs transformers and torch in the same environment, and no network: weights are random. `--check`
takes released models at their full size (all six by default; 16 GB and some minutes of two cores),
writes each as the port does, loads it here, compares the logits, writes it from here and compares
what the port makes of that.
"""

from collections.abc import Callable, Mapping, Sequence
import gc
import json
import pathlib
import sys
import tempfile
from typing import Any

import numpy as np

from experiments import cli
from perceiver_jax import config as config_lib

TOLERANCE = 1e-4  # Of logits of about 1, in float32.

Arrays = dict[str, np.ndarray]

# Small ones of each kind. Sizes are primes where the port leaves them free.
_SMALL = {
    "num_latents": 7,
    "d_latents": 24,
    "num_blocks": 2,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 4,
    "num_cross_attention_heads": 1,
}
SMALL = {
    "fourier": {"architectures": ["PerceiverForImageClassificationFourier"], "num_labels": 5},
    "learned": {
        "architectures": ["PerceiverForImageClassificationLearned"],
        "num_labels": 5,
        "image_size": 11,
        "cross_attention_widening_factor": 2,
        "cross_attention_shape_for_attention": "q",
    },
    "conv": {
        "architectures": ["PerceiverForImageClassificationConvProcessing"],
        "num_labels": 5,
        "num_cross_attention_heads": 2,
    },
    "masked_text": {
        "architectures": ["PerceiverForMaskedLM"],
        "d_model": 16,
        "qk_channels": 8,
        "v_channels": 24,
        "max_position_embeddings": 19,
        "self_attention_widening_factor": 3,
    },
    "text_classes": {
        "architectures": ["PerceiverForSequenceClassification"],
        "d_model": 20,
        "num_labels": 3,
        "num_cross_attention_heads": 4,
        "max_position_embeddings": 19,
        "hidden_act": "gelu_new",
    },
    "flow": {"architectures": ["PerceiverForOpticalFlow"], "train_size": [11, 13]},
    "multimodal": {
        "architectures": ["PerceiverForMultimodalAutoencoding"],
        "num_labels": 5,
        "num_frames": 3,
        "image_size": 5,
        "audio_samples_per_frame": 32,
        "samples_per_patch": 8,
        "output_shape": [1, 3, 20, 20],
        "output_num_channels": 17,
        "_label_trainable_num_channels": 29,
    },
}


def weights(shapes: Mapping[str, Sequence[int]], seed: int = 0) -> Arrays:
    """Random tensors of the port, so that every part of a model counts; the same for all time.

    Args:
      shapes: by name.
      seed: of the random numbers.
    """
    rng = np.random.RandomState(seed)  # The legacy generator: its numbers never change.
    tensors = {}
    for name in sorted(shapes):
        x = rng.standard_normal(shapes[name])
        if name.endswith("num_batches_tracked"):
            tensors[name] = np.zeros((), np.int64)
            continue
        if name.endswith("running_var"):
            x = 0.5 + np.abs(x)
        elif x.ndim == 1:
            x = (1.0 if name.endswith("weight") else 0.0) + 0.1 * x
        elif "embeddings" in name or ".padding." in name or ".mask." in name:
            x = 0.3 * x
        else:
            x = x / np.sqrt(np.prod(x.shape[1:]))
        tensors[name] = x.astype(np.float32)
    return tensors


def batch(port: Mapping[str, Any], batch_size: int, seed: int = 1, **sizes: Any) -> Arrays:
    """A random batch as models here take it.

    Args:
      port: the config of the port, all of its keys.
      batch_size: B.
      seed: of the random numbers.
      **sizes: `image_size` of pictures with Fourier positions; `length` of texts; whether texts
        are `masked`.
    """
    rng = np.random.RandomState(seed)

    def normal(*shape):
        return rng.standard_normal((batch_size, *shape)).astype(np.float32)

    match port["architectures"][0].removeprefix("PerceiverFor"):
        case "ImageClassificationFourier" | "ImageClassificationConvProcessing":
            return {"image": normal(*sizes.get("image_size", (224, 224)), 3)}
        case "ImageClassificationLearned":
            return {"image": normal(port["image_size"], port["image_size"], 3)}
        case "MaskedLM" | "SequenceClassification":
            length = sizes.get("length", port["max_position_embeddings"])
            ids = rng.randint(0, port["vocab_size"], (batch_size, length)).astype(np.int32)
            if not sizes.get("masked", True):
                return {"text": ids}
            mask = np.arange(length) < length - np.arange(batch_size)[:, None] - 1
            mask[:, 3:5] = False  # And a hole.
            return {"text": ids, "text_mask": mask}
        case "OpticalFlow":
            return {"frames": normal(2, *port["train_size"], 3)}
        case "MultimodalAutoencoding":
            num_frames, rows, columns = port["output_shape"][1:]
            num_samples = num_frames * port["audio_samples_per_frame"]
            num_patches = num_samples // port["samples_per_patch"]
            return {
                "audio": normal(num_samples),
                "video": normal(num_frames, rows, columns, 3),
                "label": np.zeros((batch_size, port["num_labels"]), np.float32),
                "audio_indices": rng.permutation(num_patches)[:23].astype(np.int32),
                "video_indices": rng.permutation(num_frames * rows * columns)[:29].astype(np.int32),
            }
    raise AssertionError(port["architectures"])


def of_port(model: Any, given: Mapping[str, np.ndarray]) -> Arrays:
    """The logits of the port, by the names and in the shapes of the outputs here.

    Args:
      model: of the port, in evaluation.
      given: what `batch` returned.
    """
    import torch

    tensors = {name: torch.from_numpy(np.asarray(x)) for name, x in given.items()}
    with torch.no_grad():
        if "image" in given:
            out = model(inputs=tensors["image"].permute(0, 3, 1, 2))
            return {"label": out.logits.numpy()}
        if "text" in given:
            mask = tensors.get("text_mask")
            out = model(inputs=tensors["text"].long(), attention_mask=mask)
            logits = out.logits.numpy()
            if logits.ndim == 2:
                return {"label": logits}
            return {"text": logits[:, : given["text"].shape[1]]}
        if "frames" in given:
            out = model(inputs=torch.from_numpy(_surroundings(given["frames"])))
            return {"flow": out.logits.numpy() * 20}  # Pixels, as the authors have them.
        points = {
            "audio": tensors["audio_indices"].long(),
            "image": tensors["video_indices"].long(),
            "label": None,
        }
        inputs = {
            "audio": tensors["audio"][..., None],
            "image": tensors["video"].permute(0, 1, 4, 2, 3),
            "label": tensors["label"],
        }
        out = model(inputs=inputs, subsampled_output_points=points).logits
    audio = out["audio"].numpy().reshape(len(given["audio"]), len(points["audio"]), -1)
    return {"audio": audio, "label": out["label"].numpy(), "video": out["image"].numpy()}


def build(port: Mapping[str, Any]) -> Any:
    """A model of the port with random weights, in evaluation."""
    import torch
    import transformers

    keys = {key: x for key, x in port.items() if key != "architectures"}
    config = transformers.PerceiverConfig(**keys)
    model = getattr(transformers, port["architectures"][0])(config).eval()
    tensors = weights({name: tuple(x.shape) for name, x in model.state_dict().items()})
    model.load_state_dict({name: torch.from_numpy(x) for name, x in tensors.items()})
    return model


def write_fixtures(folder: pathlib.Path) -> None:
    """Writes of each small model its config, the shapes of its tensors, batches and logits."""
    for name, keys in SMALL.items():
        port = _SMALL | keys
        model = build(port)
        known = {**model.config.to_dict(), **port}
        arrays = {
            "config": np.array(json.dumps(port)),
            "shapes": np.array(
                json.dumps({key: list(x.shape) for key, x in model.state_dict().items()})
            ),
        }
        for i, given in enumerate(batches(known)):
            arrays |= {f"in{i}:{key}": x for key, x in given.items()}
            arrays |= {f"out{i}:{key}": x for key, x in of_port(model, given).items()}
        np.savez_compressed(folder / f"port_{name}.npz", **arrays)


def batches(port: Mapping[str, Any]) -> list[Arrays]:
    """Batches of one or two sizes; small pictures, and texts with and without masks."""
    kind = port["architectures"][0]
    if kind.endswith("Fourier"):
        return [batch(port, 2, image_size=(17, 23)), batch(port, 1, seed=2, image_size=(13, 13))]
    if kind.endswith("ConvProcessing"):
        return [batch(port, 2, image_size=(17, 23))]
    if kind.endswith("MaskedLM"):
        return [batch(port, 2), batch(port, 1, seed=2, length=13, masked=False)]
    return [batch(port, 3)]


def check(name: str, say: Callable[[str], None]) -> bool:
    """Compares a released model at its full size, with random weights, both ways.

    Args:
      name: one of `perceiver_jax.pretrained.configs.RELEASED`.
      say: prints a line.

    Returns:
      Whether all logits are equal to 1e-4.
    """
    import jax
    import transformers

    import perceiver_jax
    from perceiver_jax.pretrained import configs, write

    port = configs.RELEASED[name]
    model = build(port)
    known = {**configs.DEFAULTS, **model.config.to_dict(), **port}
    sizes = (1,) if name in ("optical-flow-perceiver", "multimodal-perceiver") else (1, 3)
    expected = {}
    for size in sizes:
        expected[size] = of_port(model, batch(known, size))
    good = True
    with tempfile.TemporaryDirectory() as folder:
        there, back = pathlib.Path(folder, "there"), pathlib.Path(folder, "back")
        model.save_pretrained(there)
        del model
        gc.collect()
        run = perceiver_jax.load_pretrained(there)
        count = perceiver_jax.param_count(run.params)
        for size in sizes:
            good &= _compare(f"{name} B={size}", run(batch(known, size)), expected[size], say)
        write.write_port(run, back)
        del run
        jax.clear_caches()
        gc.collect()
        again = getattr(transformers, port["architectures"][0]).from_pretrained(back).eval()
        out = of_port(again, batch(known, sizes[0]))
        good &= _compare(f"{name} back in the port", out, expected[sizes[0]], say)
    say(f"{name}: {count:,} parameters")
    return good


def _compare(what: str, got: Mapping[str, Any], expected: Arrays, say: Callable) -> bool:
    good = set(got) == set(expected)
    for key, x in expected.items():
        difference = float(np.abs(np.asarray(got[key]) - x).max())
        good &= difference <= TOLERANCE
        say(f"{what} {key} {x.shape}: {difference:.1e} apart, deviation {x.std():.2f}")
    return good


def _surroundings(frames: np.ndarray) -> np.ndarray:
    """The 3x3 patch around each pixel as the port takes it: [B, 2, 27, H, W], zeros outside."""
    rows, columns = frames.shape[2:4]
    padded = np.pad(frames, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
    patches = [padded[:, :, i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
    return np.ascontiguousarray(np.concatenate(patches, axis=-1).transpose(0, 1, 4, 2, 3))


def main(argv: list[str]) -> None:
    """Runs the command."""
    parser = cli.Parser(
        "python -m experiments.benchmarks.port", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--check", nargs="*", metavar="NAME", help="released models, at full size")
    parser.add_argument("--fixtures", type=pathlib.Path, help="write those of the tests here")
    with cli.user_errors_end_the_program():
        flags = parser.parse_args(argv)
        cli.check_place("fixtures", flags.fixtures)
        try:
            import transformers
        except ImportError as error:
            raise config_lib.MissingPackageError(
                "The port is not there; expected the packages transformers and torch. Install "
                "them: pip install transformers torch"
            ) from error
        transformers.logging.set_verbosity_error()
        if flags.fixtures is not None:
            write_fixtures(flags.fixtures)
        if flags.check is not None:
            from perceiver_jax.pretrained import configs

            for name in flags.check:
                config_lib.check_known("released model", name, configs.RELEASED)
            names = flags.check or list(configs.RELEASED)
            if not all([check(name, print) for name in names]):
                sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
