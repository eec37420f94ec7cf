"""A run that an earlier version began resumes as that version would have.

`run.tar.xz` is a workdir of commit 78a44ac after four steps of a tiny audio-video Perceiver, with
LAMB and a moving average; `run_next.json` is what is logged in the next three steps, and on what
machine: by the same version at first, and with other last bits since latents stay a matrix from one
self-attend to the next (gradients are summed up in another order). To be made anew only where a
change of results is meant: python -m tests.experiments.test_golden_run
"""

import hashlib
import json
import pathlib
import platform
import tarfile
import tempfile

import jax
import numpy as np
import pytest

from experiments.configs import audioset
import perceiver_jax
from perceiver_jax import config_file
from perceiver_jax import data as data_lib

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
BEFORE, AFTER = 4, 7  # Steps.
FLAGS = {
    "model.encoder.layers": (
        "('cross_attend_0','latent_transformer_0','cross_attend_1','latent_transformer_0')"
    ),
    "model.encoder.num_self_attends": "1",
    "model.encoder.num_latents": "5",
    "model.encoder.latent_channels": "24",
    "model.outputs.label.size": "3",
    "model.inputs.video.position_encoding.max_resolution": "(4,4,4)",
    "model.inputs.video.position_encoding.num_bands": "2",
    "model.inputs.video.patch_size": "(1,2,2)",
    "model.inputs.audio.position_encoding.num_bands": "4",
    "model.inputs.audio.patch_size": "16",
    "task.loss": "softmax",
    "train.log_every": "1",
    "train.eval_every": "100",
    "train.checkpoint_every": str(BEFORE),
    "optimizer.name": "lamb",
    "optimizer.schedule.warmup_steps": "2",
    "train.ema_decay": "0.9",
    "train.steps": str(AFTER),
    "eval.batch_size": "4",
    "eval.num_windows": "1",
}
pytestmark = pytest.mark.xdist_group("train")


@pytest.fixture(autouse=True)
def _compiled_as_for_users():
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def make_data():
    """Noise as sound and pictures of three classes."""
    rng = np.random.RandomState(0)
    inputs = {
        "audio": rng.normal(size=(22, 256)).astype(np.float32),
        "video": rng.randint(256, size=(22, 4, 8, 8, 3)).astype(np.uint8),
    }
    labels = rng.randint(3, size=22)
    return data_lib.from_arrays(inputs, labels, inputs, labels, batch_size=8)


def train_on(workdir):
    """Trains to the last step; returns what training logged in the steps after `BEFORE`."""
    config = audioset.get_config("mini")
    for key, text in FLAGS.items():
        config_file.override(config, key, text)
    perceiver_jax.train(config, workdir, data=make_data())
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    names = ("step", "loss", "top1", "learning_rate", "grad_norm")
    return [{name: line[name] for name in names} for line in lines if line["split"] == "train"][
        BEFORE:
    ]


def machine():
    """What the bits of a float depend on: the compiler and the processor."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    flags = next((line for line in lines if line.startswith("flags")), platform.processor())
    return (
        f"JAX {jax.__version__}, {platform.machine()} {hashlib.sha256(flags.encode()).hexdigest()}"
    )


def test_a_run_of_an_earlier_version_is_resumed_to_the_bit(tmp_path):
    with tarfile.open(GOLDEN / "run.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    expected = json.loads((GOLDEN / "run_next.json").read_text())
    lines = train_on(tmp_path)
    if machine() == expected["machine"]:
        assert lines == expected["lines"]
    for line, golden in zip(lines, expected["lines"], strict=True):
        # Compilers for other processors round otherwise.
        assert line == pytest.approx(golden, rel=1e-4)


def _record(workdir):
    with tarfile.open(GOLDEN / "run.tar.xz") as archive:
        archive.extractall(workdir, filter="data")
    lines = train_on(workdir)
    (GOLDEN / "run_next.json").write_text(json.dumps({"machine": machine(), "lines": lines}))


if __name__ == "__main__":
    import tests.conftest  # noqa: F401 - as many devices as tests have.

    with tempfile.TemporaryDirectory() as directory:
        _record(pathlib.Path(directory))
