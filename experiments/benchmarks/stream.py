r"""Measures streaming: time and memory of an unrolled model that reads part after part.

    python -m experiments.benchmarks.stream [--config=experiments/configs/audioset.py:mini,unrolled]
        [--parts=10000] [--film=FILE] [--json=FILE]

Without a film, the parts are random arrays, and what is timed is `model.step`. With one, parts are
decoded as they are read, each is followed by a prediction, and the film's length counts. The
parameters are those of a new model.
"""

import itertools
import pathlib
import sys
import time

import jax
import ml_collections
import numpy as np

from experiments import cli
from experiments.benchmarks import command, protocol
import perceiver_jax
from perceiver_jax import data as data_lib
from perceiver_jax import layers as layers_lib

_CONFIG = "experiments/configs/audioset.py:mini,unrolled"
_MEASURED = (100, 1_000, 5_000, 10_000)  # Parts after which memory is looked at.


def main(argv: list[str]) -> None:
    """Runs the command."""
    parser = command.make_parser("stream", __doc__, repeats=1)
    parser.add_argument("--parts", type=command.positive, default=_MEASURED[-1], help="of a stream")
    parser.add_argument("--film", type=pathlib.Path, help="read this file instead of random parts")
    if not any(word.startswith("--config=") for word in argv):
        argv = [f"--config={command.ROOT / _CONFIG}", *argv]
    with cli.user_errors_end_the_program():
        flags, config = cli.parse_command_line(parser, argv)
        result = measure(config, flags.parts, flags.film)
        command.write(result, flags.json)
    rows = [(name.replace("_", " "), command.number(x)) for name, x in result.items()]
    command.print_table(("a stream", ""), rows)


def measure(
    config: ml_collections.ConfigDict, num_parts: int, film: pathlib.Path | None
) -> dict[str, float | None]:
    """Reads a stream; returns figures by name.

    Raises:
      UserError: if the config has no step, or the film can't be read.
    """
    data = data_lib.build_data(**config.data.to_dict() | {"batch_size": 1})
    model, encoder = perceiver_jax.build_model(config.model), config.model.encoder
    layers = layers_lib.resolve(encoder.layers, encoder.reads)
    layers_lib.find_step(layers)
    params = model.init(jax.random.key(0), data.zero_batch())
    size = layers_lib.num_parts(layers)
    compiled = []

    @jax.jit
    def read(latents, part):
        compiled.append(part)
        latents = model.step(params, latents, part)
        return latents, model.decode(params, latents) if film else None

    if film:
        read_parts = data_lib.read_parts(film, data.fields, size)
    else:
        rng = np.random.default_rng(0)
        shapes = {name: field.zeros().shape for name, field in data.inputs.items()}
        part = {
            name: rng.normal(size=(1, shape[0] // size, *shape[1:])).astype(np.float32)
            for name, shape in shapes.items()
        }
        read_parts = itertools.repeat((0.0, part), num_parts)

    latents, result = model.initial_latents(params, 1), {}
    for count, (end, part) in enumerate(read_parts, 1):  # noqa: B007
        latents, _ = jax.block_until_ready(read(latents, part))
        if count == 1:  # Has been compiled.
            begin = time.perf_counter()
        if count in _MEASURED:
            result[f"megabytes_after_{count}_parts"] = protocol.resident("VmRSS")
    taken = time.perf_counter() - begin
    result |= {"parts": count, "compilations": len(compiled)}
    result["milliseconds_a_part"] = 1e3 * taken / max(count - 1, 1)
    if film:
        result["times_real_time"] = end / taken
    return result


if __name__ == "__main__":
    main(sys.argv[1:])
