"""Moving state and batches between the host and the local devices.

What `jax.pmap` takes has a leading axis of devices. State is the same on all of them; a batch is
cut into equal, consecutive parts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np

AXIS = "devices"


def replicate(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """Returns a copy of a tree of arrays for each device, [...] -> [devices, ...]."""
    sharding = _sharding(devices)

    def put(x: jax.typing.ArrayLike) -> jax.Array:
        x = np.asarray(x)
        return jax.device_put(np.broadcast_to(x, (len(devices), *x.shape)), sharding)

    return jax.tree.map(put, tree)


def fetch(tree: Any) -> Any:
    """Returns the first device's copy of a replicated tree, as numpy arrays.

    They are copies, and stay as they are when the device's buffers are donated to the next step.
    """
    local = jax.device_get(jax.tree.map(lambda x: x.addressable_shards[0].data, tree))
    return jax.tree.map(lambda x: np.array(x[0]), local)


def shard(batch: Mapping[str, np.ndarray], devices: Sequence[jax.Device]) -> dict[str, jax.Array]:
    """Sends each device its part of a batch, [B, ...] -> [devices, B / devices, ...].

    Raises:
      ValueError: If the batch cannot be divided equally.
    """
    size, count = len(next(iter(batch.values()))), len(devices)
    if size % count:
        below, above = size // count * count, -(-size // count) * count
        choices = f"{below} or {above}" if below else f"{above}"
        raise ValueError(
            f"A batch of {size} examples cannot be divided over {count} devices; expected a "
            f"multiple of {count}. Set batch_size to {choices}."
        )
    cut = {name: x.reshape(count, size // count, *x.shape[1:]) for name, x in batch.items()}
    return jax.device_put(cut, _sharding(devices))


def _sharding(devices: Sequence[jax.Device]) -> NamedSharding:
    return NamedSharding(Mesh(np.array(devices), (AXIS,)), PartitionSpec(AXIS))
