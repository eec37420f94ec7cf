"""The numbers do not depend on how many devices there are, nor on what each of them keeps."""

import jax
import numpy as np
import pytest

from perceiver_jax.training import devices


@pytest.fixture(scope="module")
def toy(make_toy):
    return make_toy()


@pytest.fixture(scope="module")
def batch(toy_batch):
    batch = toy_batch(20)
    batch["mask"][[3, 5, 6, 7, 8, 9, 13]] = 0.0  # The second of four devices has none that counts.
    return batch


@pytest.fixture(scope="module")
def expected(toy, batch):
    """State and metrics after three updates by plain `jax.jit`."""
    update, state = jax.jit(toy.update()), toy.state
    for _ in range(3):
        state, metrics = update(state, batch, jax.random.key(3))
    return jax.device_get((state, metrics))


def _update_three_times(toy, batch, sharding, accumulate_steps=1):
    state = sharding.create_state(lambda: toy.state)
    placed, rng = sharding.place_batch(batch), sharding.place_key(jax.random.key(3))
    update = sharding.compile_update(toy.update(sharding, accumulate_steps), state, placed, rng)
    for _ in range(3):
        state, metrics = update(state, placed, rng)
    return state, metrics


def _assert_close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), a, b)


def _build(kind, num_devices):
    return devices.build_sharding(kind, jax.devices()[:num_devices])


@pytest.fixture(scope="module")
def fsdp_results(toy, batch):
    """State, as it is on four devices, and metrics."""
    return _update_three_times(toy, batch, _build("fsdp", 4))


@pytest.mark.parametrize(("num_devices", "accumulate_steps"), [(4, 1), (2, 5)])
def test_pmap_gives_what_one_device_gives_random_dropping_included(
    toy, batch, expected, num_devices, accumulate_steps
):
    sharding = _build("pmap", num_devices)
    state, metrics = _update_three_times(toy, batch, sharding, accumulate_steps)
    _assert_close((sharding.fetch_state(state), jax.device_get(metrics)), expected)


def test_fsdp_gives_what_one_device_gives_random_dropping_included(fsdp_results, expected):
    state, metrics = fsdp_results
    _assert_close((_build("fsdp", 4).fetch_state(state), jax.device_get(metrics)), expected)


def test_fsdp_keeps_a_fourth_of_the_state_on_each_of_four_devices(fsdp_results):
    state, _ = fsdp_results
    hidden = state.params["hidden"]["w"]
    assert [x.data.shape for x in hidden.addressable_shards] == [(5, 3)] * 4
    # Parameters, two moments, and the average; each device has the 7 biases and the counters.
    divided, whole = 5 * 12 + 12 + 12 * 7, 7
    on_each = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(state))
    assert on_each == 4 * (4 * (divided // 4 + whole) + 3)


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((), ()),
        ((7,), ()),
        ((8,), ("devices",)),
        ((3, 8), (None, "devices")),
        ((16, 8), ("devices",)),
        ((17, 8), (None, "devices")),
        ((0, 3), ()),
    ],
)
def test_the_longest_axis_that_can_be_is_divided(shape, spec):
    assert devices.state_spec(shape, 4) == spec


@pytest.mark.parametrize("kind", ["pmap", "fsdp"])
def test_batch_that_does_not_divide_says_what_does(toy_batch, kind):
    with pytest.raises(ValueError, match="10 examples .* 4 devices; .* batch_size to 8 or 12"):
        devices.build_sharding(kind).place_batch(toy_batch(10))


def test_unknown_parallelism_says_what_there_is():
    with pytest.raises(ValueError, match="parallelism 'fspd'; expected one of .*mean 'fsdp'"):
        devices.build_sharding("fspd")


@pytest.mark.parametrize("kind", ["pmap", "fsdp"])
def test_placing_and_fetching_a_state_changes_nothing(toy, kind):
    sharding = devices.build_sharding(kind)
    fetched = sharding.fetch_state(sharding.place_state(toy.state))
    jax.tree.map(np.testing.assert_array_equal, fetched, jax.device_get(toy.state))
