"""Running a step on many devices, of one process or of several: where state and batches are.

Both kinds of `config.train.parallelism` divide each batch over all devices and give the same
numbers: `Pmap` keeps a copy of the state on every device, `Fsdp` a part of it. States on the host,
and so in checkpoints, are the same for both and for any number of devices.

With several processes (`jax.distributed`) all of them run the same program; each gives the part of
a batch that is for its own devices.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import itertools
from typing import Any

import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np

from perceiver_jax import config

AXIS = "devices"

# If a process has not been heard of for so long, the others end with an error.
HEARTBEAT_SECONDS = 30


def join_processes(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Makes this one of several processes; to be called before JAX does anything.

    Args:
      coordinator_address: Host and port of the first process. None, as for the others: what Slurm,
        Kubernetes, a TPU pod or Open MPI says.
      num_processes: How many processes there are.
      process_id: Which one this is, from 0.

    Raises:
      ValueError: If something is None that nothing else says, or out of range.
    """
    jax.distributed.initialize(
        coordinator_address,
        num_processes,
        process_id,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=HEARTBEAT_SECONDS,  # One that failed waits in vain for the others.
    )


def is_first_of_several() -> bool:
    """Whether the others depend on this process: it brings them together."""
    return jax.process_count() > 1 and jax.process_index() == 0


def wait_for_processes(name: str) -> None:
    """Waits until all processes are here; `name` may be used once in a run.

    Elsewhere they need not be patient: gloo, which connects CPUs, gives up after 30 seconds, and so
    does the end of a process. Here it may take hours; heartbeats tell if one dies.
    """
    if jax.process_count() > 1:
        import orbax.checkpoint as ocp  # Here, for it takes a while.

        ocp.multihost.get_barrier_sync_fn()(key=name, timeout_ms=10 * 3600 * 1000)


@dataclasses.dataclass(frozen=True)
class _Sharding:
    """What the two kinds have in common.

    Attributes:
      devices: Those of all processes, the first process's first.
    """

    devices: tuple[jax.Device, ...]

    @property
    def _local_count(self) -> int:
        return sum(device.process_index == jax.process_index() for device in self.devices)

    def _named(self, *axes: str | None) -> NamedSharding:
        return NamedSharding(Mesh(np.array(self.devices), (AXIS,)), PartitionSpec(*axes))

    def _put(self, x: np.ndarray, global_shape: tuple[int, ...] | None = None) -> jax.Array:
        """Sends each device its part of the first axis."""
        return jax.make_array_from_process_local_data(self._named(AXIS), x, global_shape)

    def place_key(self, rng: jax.Array) -> jax.Array:
        """Sends a random key to all devices."""
        data = np.asarray(jax.random.key_data(rng))
        placed = jax.make_array_from_process_local_data(self._named(), data, data.shape)
        return jax.random.wrap_key_data(placed, impl=jax.random.key_impl(rng))

    def any_process(self, flag: bool) -> jax.Array:
        """Returns whether `flag` is true in any process; all have to ask, none has to wait."""
        flags = self._put(np.full(self._local_count, flag), (len(self.devices),))
        return self._any(flags)

    @functools.cached_property
    def _any(self) -> Callable[[jax.Array], jax.Array]:
        return jax.jit(jnp.any, out_shardings=self._named())

    def place_batch(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """Sends each device its part of this process's part of a batch.

        Raises:
          UserError: If it cannot be divided equally.
        """
        size, count = len(next(iter(batch.values()))), self._local_count
        if size % count:
            below, above = size // count * count, -(-size // count) * count
            choices = f"{below} or {above}" if below else f"{above}"
            raise config.UserError(
                f"A batch of {size} examples cannot be divided over {count} devices; expected a "
                f"multiple of {count}. Set batch_size to {choices}."
            )
        return {name: self._put(self._by_device(x)) for name, x in batch.items()}

    def _by_device(self, x: np.ndarray) -> np.ndarray:
        return x


class Pmap(_Sharding):
    """A copy of the state on each device; `jax.pmap` divides the batch.

    What it takes has a leading axis of devices: [...] becomes [devices, ...], a batch [B, ...]
    becomes [devices, B / devices, ...].
    """

    axis_name = AXIS

    def with_whole_params(self, apply: Callable[..., Any]) -> Callable[..., Any]:
        """Returns `apply(params, ...)` itself: every device has all parameters."""
        return apply

    def create_state(self, create: Callable[[], Any]) -> Any:
        """Returns what `create()` does, on the devices."""
        return self.place_state(jax.jit(create)())

    def place_state(self, tree: Any) -> Any:
        """Sends a tree of arrays to the devices."""

        def put(x: jax.typing.ArrayLike) -> jax.Array:
            x = np.asarray(x)
            copies = np.broadcast_to(x, (self._local_count, *x.shape))
            return self._put(copies, (len(self.devices), *x.shape))

        return jax.tree.map(put, tree)

    def fetch_state(self, tree: Any) -> Any:
        """Returns what `place_state` was given, as numpy arrays.

        They are copies, and stay as they are when the devices' buffers are donated.
        """
        local = jax.device_get(jax.tree.map(lambda x: x.addressable_shards[0].data, tree))
        return jax.tree.map(lambda x: np.array(x[0]), local)

    def _by_device(self, x: np.ndarray) -> np.ndarray:
        count = self._local_count
        return x.reshape(count, len(x) // count, *x.shape[1:])

    def compile_update(
        self, update: Callable[..., Any], state: Any, batch: Any, rng: jax.Array
    ) -> jax.stages.Compiled:
        """Compiles `update(state, batch, rng) -> (state, metrics)`; it uses up its state."""
        mapped = jax.pmap(
            update,
            axis_name=AXIS,
            in_axes=(0, 0, None),
            out_axes=(0, None),
            donate_argnums=0,
            devices=self.devices,
        )
        return mapped.lower(state, batch, rng).compile()

    def over_batch(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns `function(params, batch)` with the results of all devices in every process."""

        def gathered(params: Any, batch: Any) -> Any:
            return jax.lax.all_gather(function(params, batch), AXIS, tiled=True)

        return jax.pmap(gathered, axis_name=AXIS, out_axes=None, devices=self.devices)


class Fsdp(_Sharding):
    """A part of the state on each device, for models larger than one; `jax.jit` does the rest.

    Parameters, and so gradients, the optimizer's moments and the moving average, are divided along
    one axis each (`state_spec`). A step gathers the parameters for as long as it needs them.
    """

    axis_name = None

    def with_whole_params(self, apply: Callable[..., Any]) -> Callable[..., Any]:
        """Returns `apply(params, ...)` that gathers the parameters, and divides their gradients.

        Left to itself XLA would rather gather activations here and there, of the whole batch.
        """
        constrain = jax.lax.with_sharding_constraint

        @jax.custom_vjp
        def gather(params: Any) -> Any:
            return constrain(params, self._named())

        gather.defvjp(
            lambda params: (gather(params), None),
            lambda _, grads: (constrain(grads, self._state_shardings(grads)),),
        )
        return lambda params, *args, **kwargs: apply(gather(params), *args, **kwargs)

    def create_state(self, create: Callable[[], Any]) -> Any:
        """Returns what `create()` does, on the devices; it is never whole on one of them."""
        return jax.jit(create, out_shardings=self._state_shardings(jax.eval_shape(create)))()

    def place_state(self, tree: Any) -> Any:
        """Sends each device its parts of a tree of arrays."""

        def put(x: jax.typing.ArrayLike) -> jax.Array:
            x = np.asarray(x)
            sharding = self._state_shardings(x)
            return jax.make_array_from_callback(x.shape, sharding, lambda part: x[part])

        return jax.tree.map(put, tree)

    def fetch_state(self, tree: Any) -> Any:
        """Returns what `place_state` was given, as numpy arrays, copies."""

        def fetch(x: jax.Array) -> np.ndarray:  # One by one: all of them may not fit a device.
            if x.is_fully_addressable:
                return np.array(x)
            return np.array(multihost_utils.process_allgather(x, tiled=True))

        return jax.tree.map(fetch, tree)

    def compile_update(
        self, update: Callable[..., Any], state: Any, batch: Any, rng: jax.Array
    ) -> jax.stages.Compiled:
        """Compiles `update(state, batch, rng) -> (state, metrics)`; it uses up its state."""
        shardings = self._state_shardings(state)
        compiled = jax.jit(
            update,
            in_shardings=(shardings, self._named(AXIS), self._named()),
            out_shardings=(shardings, self._named()),
            donate_argnums=0,
        )
        return compiled.lower(state, batch, rng).compile()

    def over_batch(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns `function(params, batch)` with the results of all devices in every process."""
        return jax.jit(function, out_shardings=self._named())

    def _state_shardings(self, tree: Any) -> Any:
        count = len(self.devices)
        return jax.tree.map(lambda x: self._named(*state_spec(x.shape, count)), tree)


SHARDINGS = {"pmap": Pmap, "fsdp": Fsdp}
Sharding = Pmap | Fsdp


def build_sharding(kind: str, devices: Sequence[jax.Device] | None = None) -> Sharding:
    """Returns the functions by which training runs on the devices.

    Args:
      kind: 'pmap' keeps a copy of the state on every device, 'fsdp' a part of it, for models that
        are larger than a device.
      devices: None is all devices of all processes.

    Raises:
      ValueError: If there is no such kind.
    """
    config.check_known("config.train.parallelism", kind, SHARDINGS)
    devices = tuple(jax.devices() if devices is None else devices)
    # Consecutive parts of a batch come from consecutive processes.
    return SHARDINGS[kind](tuple(sorted(devices, key=lambda d: (d.process_index, d.id))))


def state_spec(shape: tuple[int, ...], num_devices: int) -> tuple[str | None, ...]:
    """Returns which axis `Fsdp` divides: the longest that can be; none in most small arrays."""
    divisible = [size if size % num_devices == 0 else 0 for size in shape]
    if not any(divisible):
        return ()
    return (*itertools.repeat(None, divisible.index(max(divisible))), AXIS)
