r"""Measures time and peak memory of what has most outputs: a clip's reconstruction, and a flow.

    python -m experiments.benchmarks.dense [--model=multimodal-perceiver|optical-flow-perceiver]
        [--size=1920x1080] [--repeats=2] [--json=FILE]

A released model at full size, with random weights, as a user runs it: `run.predict`. A clip of 16
frames of 224 x 224 pixels with its sound and class has 16 * 50,176 + 1,920 + 1 = 804,737 outputs.
Frames of the given size are computed in tiles. The first time includes compilation.
"""

import pathlib
import sys
import tempfile
import time
from typing import Any

import numpy as np

from experiments import cli
from experiments.benchmarks import command, protocol, random_weights
import perceiver_jax
from perceiver_jax import config as config_lib
from perceiver_jax.pretrained import configs

_MODELS = ("multimodal-perceiver", "optical-flow-perceiver")


def main(argv: list[str]) -> None:
    """Runs the command."""
    parser = command.make_parser("dense", __doc__, repeats=2)
    parser.add_argument("--model", default=_MODELS[0], help=f"one of {', '.join(_MODELS)}")
    parser.add_argument("--size", default="1920x1080", metavar="WIDTHxHEIGHT", help="of the frames")
    with cli.user_errors_end_the_program():
        flags = parser.parse_args(argv)
        config_lib.check_known("model", flags.model, _MODELS)
        width, _, height = flags.size.partition("x")
        if not (width.isdecimal() and height.isdecimal()):
            raise config_lib.UserError(f"size is {flags.size!r}; expected such as 1920x1080.")
        result = measure(configs.RELEASED[flags.model], (int(height), int(width)), flags.repeats)
        command.write(result, flags.json)
    rows = [(name.replace("_", " "), command.number(x)) for name, x in result.items()]
    command.print_table((flags.model, ""), rows)


def measure(port: dict[str, Any], size: tuple[int, int], repeats: int) -> dict[str, float | None]:
    """Predicts an example several times.

    Args:
      port: the model, as in a `config.json` of the port.
      size: rows and columns of frames.
      repeats: how often.

    Returns:
      Figures by name; memory is the peak above what was resident with the model loaded.
    """
    with tempfile.TemporaryDirectory(prefix="perceiver_") as folder:
        random_weights.write(port, pathlib.Path(folder))
        run = perceiver_jax.load_pretrained(folder)
    rng = np.random.default_rng(0)
    if "frames" in run.fields:
        example = {"frames": rng.integers(256, size=(2, *size, 3), dtype=np.uint8)}
    else:
        video, audio = run.fields["video"].zeros(), run.fields["audio"]
        samples = rng.uniform(-0.5, 0.5, audio.num_samples).astype(np.float32)
        frames = rng.integers(256, size=video.shape, dtype=np.uint8)
        example = {"video": frames, "audio": (samples, audio.sample_rate)}
    ready = protocol.resident("VmRSS")
    protocol.forget_peak()
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run.predict(example)
        seconds.append(time.perf_counter() - begin)
    peak = protocol.resident("VmHWM")
    return {
        "parameters": perceiver_jax.param_count(run.params),
        "seconds_of_the_first": seconds[0],
        "seconds_of_the_last": seconds[-1],
        "peak_megabytes": None if peak is None else peak - ready,
    }


if __name__ == "__main__":
    main(sys.argv[1:])
