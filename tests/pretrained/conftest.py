import json
import pathlib

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import safetensors.numpy

from experiments.benchmarks import port as port_lib
import perceiver_jax
from perceiver_jax import runs, tasks
from perceiver_jax.data.fields import image, label

FIXTURES = pathlib.Path(__file__).parent / "fixtures"


class Fixture:
    """A small model of the port: its config, tensors, and batches with the logits it made."""

    def __init__(self, kind):
        saved = np.load(FIXTURES / f"port_{kind}.npz")
        self.config = json.loads(str(saved["config"])) | {"model_type": "perceiver"}
        self.tensors = port_lib.weights(json.loads(str(saved["shapes"])))
        self.cases = []
        while any(key.startswith(f"in{len(self.cases)}:") for key in saved.files):
            begins = (f"{x}{len(self.cases)}:" for x in ("in", "out"))
            self.cases.append(
                tuple(
                    {key.removeprefix(x): saved[key] for key in saved.files if key.startswith(x)}
                    for x in begins
                )
            )

    def write(self, folder):
        """Writes config and weights as the port does."""
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config))
        safetensors.numpy.save_file(self.tensors, folder / "model.safetensors", {"format": "pt"})
        return folder


@pytest.fixture
def fixture():
    """Returns the `Fixture` of a kind."""
    return Fixture


@pytest.fixture
def own_run():
    """Returns a run of a model of one's own that the port can compute, with random weights."""

    def make(gelu="tanh", **changes):
        encoding = {"kind": "fourier", "num_bands": 64, "max_resolution": (224, 224)}
        encoder = {
            "num_latents": 5,
            "latent_channels": 24,
            "num_self_attends": 2,
            "num_self_attend_heads": 3,
            "layers": ("cross_attend_0", "latent_transformer_0", "latent_transformer_1"),
        }
        picture = {"kind": "image", "mean": (0.5,) * 3, "std": (0.25,) * 3}
        model = {
            "inputs": {"picture": picture | {"position_encoding": encoding}},
            "encoder": encoder,
            "outputs": {"species": {"kind": "query", "size": 3, "query_channels": 24}},
            "gelu": gelu,
        }
        config = ml_collections.ConfigDict(
            {
                "experiment": "newts",
                "seed": 0,
                "data": {},
                "model": model,
                "task": {"kind": "classification", "target": "species"},
            }
        )
        with config.ignore_type():
            config.update_from_flattened_dict(changes)
        fields = {
            "picture": image.Image(13, crop="centre"),
            "species": label.Label(3, multi_label=False),
        }
        built = perceiver_jax.build_model(config.model)
        example = {"picture": np.zeros((1, 13, 13, 3), np.uint8)}
        rng = np.random.default_rng(0)
        params = jax.tree.map(
            lambda x: jnp.asarray(0.1 * rng.standard_normal(x.shape, np.float32)),
            jax.eval_shape(built.init, jax.random.key(0), example),
        )
        task = tasks.build_task(config.task, fields)
        names = {"species": ("cat", "dog", "newt")}
        return runs.Run(pathlib.Path("newts"), 7, config, built, params, task, fields, names, ())

    return make
