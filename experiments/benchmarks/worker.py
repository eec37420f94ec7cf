"""The worker in JAX: a training or inference step of a config, in a process.

Started by `step` and `growth` with the settings of `step.start`.
"""

from collections.abc import Callable, Sequence
import functools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments.benchmarks import protocol
import perceiver_jax
from perceiver_jax import data as data_lib
from perceiver_jax import flops, layers, summary, tasks
from perceiver_jax import workdir as workdir_lib
from perceiver_jax.data import fake
from perceiver_jax.data.fields import label
from perceiver_jax.training import devices, optimizers, state, steps

# Rows and columns of the matrices whose product gives the peak.
_PEAK_SIZE = 3072 if jax.default_backend() == "cpu" else 8192
_BACKWARD = 3  # A training step has about three times the operations of a forward pass.


def prepare(settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compiles the step; see `protocol.serve`."""
    config = workdir_lib.from_json(settings["config"])
    size, training = settings["batch_size"], settings["mode"] == "train"
    batch = make_noise(config, size, settings["tokens"])
    model = perceiver_jax.build_model(config.model)
    params = jax.jit(model.init)(jax.random.key(0), batch)
    num_params = perceiver_jax.param_count(params)
    forward = summary.describe_model(config, batch)["flops"]["paper"] * size
    try:
        if training:
            step = make_training_step(config, params, batch, jax.devices()[:1])  # As the peers.
        else:
            step = _make_inference_step(model, params, batch)
        begin = time.perf_counter()
        compiled = step.compile()
    except ValueError as error:  # Such as: a batch that can't be divided.
        raise protocol.WorkerError(f"ended with: {error}") from error
    memory = compiled.memory_analysis()
    facts = {
        "parameters": num_params,
        "model_flops": forward * (_BACKWARD if training else 1),
        "executed_flops": step.flops,
        "device": f"1 x {jax.devices()[0].device_kind}",
        "peak_operations": 2 * _PEAK_SIZE**3,
        "versions": {"jax": jax.__version__},
        "compile_seconds": time.perf_counter() - begin,
        "temporary_megabytes": memory.temp_size_in_bytes / 2**20 if memory else None,
    }
    held = list(step.arguments)

    def run() -> None:
        out = jax.block_until_ready(compiled(*held))
        if training:
            held[0] = out[0]  # The step uses up its state.

    return facts, {"step": run, "peak": _make_product(config.model.dtype)}


class Step(NamedTuple):
    """A step that is ready to be compiled, its arguments on the devices, and its operations."""

    compile: Callable[[], Callable[..., Any]]
    arguments: tuple
    flops: int


def make_training_step(
    config: ml_collections.ConfigDict,
    params: Any,
    batch: dict[str, np.ndarray],
    on: Sequence[jax.Device] | None = None,
) -> Step:
    """The step of `perceiver_jax.train`; its arguments are state, batch and key.

    Args:
      config: the whole config.
      params: the model's, used up.
      batch: as on the host.
      on: devices; None: all.
    """
    keys = config.train
    sharding = devices.build_sharding(keys.parallelism, on)
    apply = sharding.with_whole_params(perceiver_jax.build_model(config.model).apply_training)
    field = label.Label(config.model.outputs.label.size, config.task.loss == "sigmoid")
    task = tasks.build_task(config.task, {"label": field})
    encoder = config.model.encoder
    optimizer = optimizers.build_optimizer(
        **config.optimizer,
        total_steps=keys.steps,
        distance=layers.distance_to_outputs(
            encoder.get("layers", ()), encoder.get("num_self_attends", 0)
        ),
    )
    options = {"ema_decay": keys.ema_decay, "accumulate_steps": keys.accumulate_steps}
    make_update = functools.partial(steps.make_update, apply, task, optimizer, **options)
    train_state = state.create_state(params, optimizer, keys.ema_decay)
    key = jax.random.key(1)
    operations = flops.count_flops(make_update(), train_state, batch, key)
    held = sharding.place_state(train_state), sharding.place_batch(batch), sharding.place_key(key)
    update = make_update(axis_name=sharding.axis_name)
    return Step(functools.partial(sharding.compile_update, update, *held), held, operations)


def make_noise(
    config: ml_collections.ConfigDict, batch_size: int, tokens: Sequence[int] | None = None
) -> dict[str, np.ndarray]:
    """A batch of random numbers, for a model of the config's data or of arrays of `tokens`."""
    if tokens is None:
        keys = config.data.to_dict() | {"batch_size": batch_size, "num_workers": 0}
        return next(fake.fake_batches(data_lib.build_data(**keys), seed=0))
    (name,) = config.model.inputs
    rng = np.random.default_rng(0)
    return {
        name: rng.standard_normal((batch_size, *tokens), np.float32),
        "label": rng.integers(config.model.outputs.label.size, size=batch_size, dtype=np.int32),
    }


def _make_inference_step(model, params, batch) -> Step:
    def infer(params, batch):
        return model.apply(params, None, batch)

    held = params, jax.device_put(batch)
    return Step(
        lambda: jax.jit(infer).lower(*held).compile(), held, flops.count_flops(infer, *held)
    )


def _make_product(dtype: str) -> Callable[[], Any]:
    """One product of square matrices, of `peak_operations`."""
    a = jax.random.normal(jax.random.key(2), (_PEAK_SIZE, _PEAK_SIZE), jnp.dtype(dtype))
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(a, a))
    return lambda: jax.block_until_ready(product(a, a))


if __name__ == "__main__":
    protocol.serve(prepare)
