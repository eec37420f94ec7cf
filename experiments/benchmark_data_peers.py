"""Input pipelines written with other libraries, to time beside ours; runs in an own environment.

    PYTHON -m experiments.benchmark_data_peers SETTINGS

Run by `benchmark_data`. SETTINGS is JSON: `peer`, `modalities` as in `config.data.modalities`,
`directory` with `*.jpg` or `*.mp4`, and how many `examples` a round has.

Every peer does what our pipeline does, in the same order: decode, Inception crop, flip, RandAugment
of 16 operations on the crop, bicubic resize; or a random window of a clip, its frames cropped,
flipped, coloured and resized, and its mel spectrogram with masks. What differs is said beside it.
"""

from collections.abc import Callable
import importlib.metadata
import pathlib
from typing import Any

from experiments import (
    benchmark_peer_clips,
    benchmark_peer_pictures,
    benchmark_peer_tf,
    benchmark_protocol,
)

PEERS = {
    "torchvision": (benchmark_peer_pictures.make_torchvision, ("torchvision", "torch", "pillow")),
    "torchvision_usual": (
        benchmark_peer_pictures.make_torchvision_usual,
        ("torchvision", "torch", "pillow"),
    ),
    "albumentations": (
        benchmark_peer_pictures.make_albumentations,
        ("albumentations", "opencv-python-headless"),
    ),
    "tf.data": (benchmark_peer_tf.make_tf_data, ("tensorflow-cpu",)),
    "pyav": (benchmark_peer_clips.make_pyav, ("av", "librosa", "pillow")),
}

CLIP_PEERS = ("pyav",)


def prepare(settings: dict[str, Any]) -> tuple[dict, dict[str, Callable[[], None]]]:
    """Makes the pipeline, and tries it."""
    make, packages = PEERS[settings["peer"]]
    suffix = "*.mp4" if settings["peer"] in CLIP_PEERS else "*.jpg"
    files = sorted(pathlib.Path(settings["directory"]).glob(suffix))
    try:
        read_next = make(settings["modalities"], files)
        versions = {name: importlib.metadata.version(name) for name in packages}
    except ImportError as error:
        raise benchmark_protocol.SubjectError(f"not installed: {error}") from error
    read_next()

    def run() -> None:
        for _ in range(settings["examples"]):
            read_next()

    return {"versions": versions}, {"read": run}


if __name__ == "__main__":
    benchmark_protocol.serve(prepare)
