"""The benchmark's subject in JAX: a training or inference step of a config, in a process.

Started by `experiments.benchmark`, with the settings `config` (a dictionary), `mode` and
`batch_size`. Where the config's model takes an input of kind `array`, `num_inputs` and
`num_channels` give its size (`experiments.benchmark_growth`).
"""

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import benchmark_protocol, saved_config
import perceiver_jax
from perceiver_jax import data as data_lib
from perceiver_jax import flops
from perceiver_jax.data import fake
from perceiver_jax.training import devices, losses, optimizers, state, steps

_PEAK_SIZES = {"cpu": 3072}  # Of the square matrices whose product gives the peak.
_LARGE_PEAK_SIZE = 8192


def prepare(settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compiles the step; see `benchmark_protocol.serve`."""
    config = saved_config.from_json(settings["config"])
    batch = _noise(config, settings)
    model = perceiver_jax.build_model(config.model)
    params = jax.jit(model.init)(jax.random.key(0), batch)
    make = {"train": _train_step, "inference": _inference_step}[settings["mode"]]
    try:
        compile_step, held, executed_flops = make(config, model, params, batch)
    except ValueError as error:  # Such as: a batch that can't be divided.
        raise benchmark_protocol.SubjectError(f"ended with: {error}") from error

    begin = time.perf_counter()
    compiled = compile_step(*held)
    memory = compiled.memory_analysis()
    facts = {
        "compile_seconds": time.perf_counter() - begin,
        "temporary_megabytes": memory.temp_size_in_bytes / 2**20 if memory else None,
        "parameters": perceiver_jax.param_count(params),
        "executed_flops": executed_flops,
        "device": f"1 x {jax.devices()[0].device_kind}",
        "peak_size": peak_size(),
        "versions": {"jax": jax.__version__},
        "differences": [],
    }
    held = list(held)
    del params

    def step() -> None:
        out = jax.block_until_ready(compiled(*held))
        if settings["mode"] == "train":
            held[0] = out[0]  # The step uses up its state.

    return facts, {"step": step, "peak": _matrix_product(config.model.dtype)}


def _noise(config, settings):
    size = settings["batch_size"]
    if "num_inputs" in settings:
        ((name, _),) = config.model.inputs.items()
        rng = np.random.default_rng(0)
        shape = (size, settings["num_inputs"], settings["num_channels"])
        return {
            name: rng.standard_normal(shape, np.float32),
            "label": rng.integers(config.model.num_classes, size=size, dtype=np.int32),
        }
    keys = config.data.to_dict() | {"batch_size": size, "num_workers": 0}
    return next(fake.fake_batches(data_lib.build_data(**keys), seed=0))


def _train_step(config, model, params, batch):
    """How `experiments.train` compiles its step, the step's arguments, and its operations."""
    keys = config.train
    loss = losses.build_loss(keys.loss, keys.label_smoothing)
    optimizer, schedule = optimizers.build_optimizer(**config.optimizer, total_steps=keys.steps)
    parallelism = devices.build_parallelism(keys.parallelism, jax.devices()[:1])  # As the peers.

    def make_update(axis_name=None):
        return steps.make_update(
            parallelism.with_whole_params(model.apply),
            loss,
            optimizer,
            schedule,
            ema_decay=keys.ema_decay,
            accumulate_steps=keys.accumulate_steps,
            axis_name=axis_name,
        )

    train_state = state.create_state(params, optimizer, keys.ema_decay)
    executed_flops = flops.count_flops(make_update(), train_state, batch, jax.random.key(1))
    held = (
        parallelism.place_state(train_state),
        parallelism.place_batch(batch),
        parallelism.place_key(jax.random.key(1)),
    )
    update = make_update(parallelism.axis_name)
    return functools.partial(parallelism.compile_update, update), held, executed_flops


def _inference_step(config, model, params, batch):
    del config

    def infer(params, batch):
        return model.apply(params, None, batch)

    def compile_step(*held):
        return jax.jit(infer).lower(*held).compile()

    held = params, jax.device_put(batch)
    return compile_step, held, flops.count_flops(infer, *held)


def _matrix_product(dtype: str):
    """One product of square matrices, of `benchmark.peak_flops` operations."""
    size = peak_size()
    a = jax.random.normal(jax.random.key(2), (size, size), jnp.dtype(dtype))
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(a, a))
    return lambda: jax.block_until_ready(product(a, a))


def peak_size() -> int:
    """Rows and columns of the matrices that the peak is measured with."""
    return _PEAK_SIZES.get(jax.devices()[0].platform, _LARGE_PEAK_SIZE)


if __name__ == "__main__":
    benchmark_protocol.serve(prepare)
