"""Checkpoints give back what was saved, or say why they cannot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_jax.training import checkpoints, devices


def _saved(directory, state, iterator_state=b"place", metadata=None, num_checkpoints=1):
    with checkpoints.Checkpointer(directory, 2) as checkpointer:
        for step in range(num_checkpoints):
            numbered = state._replace(step=np.int32(step))
            checkpointer.save(numbered, iterator_state, metadata or {})
    return directory


@pytest.mark.parametrize("iterator_state", [b"\x00\xff not text", {"next_index": 7}])
def test_restored_checkpoint_equals_the_saved_one(tmp_path, make_toy, iterator_state):
    state, metadata = jax.device_get(make_toy().state), {"best": None, "sums": {"loss": 0.1}}
    directory = _saved(tmp_path / "c", state, iterator_state, metadata)
    restored = checkpoints.load(directory, jax.eval_shape(lambda: make_toy().state))
    jax.tree.map(np.testing.assert_array_equal, restored.state, state)
    assert jax.tree.structure(restored.state) == jax.tree.structure(state)
    assert restored.iterator_state == iterator_state
    assert restored.metadata == metadata


def test_only_the_newest_checkpoints_are_kept(tmp_path, make_toy):
    _saved(tmp_path, jax.device_get(make_toy().state), num_checkpoints=5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "4"]


def test_checkpoint_of_another_shape_names_the_first_parameter_that_differs(tmp_path, make_toy):
    state = jax.device_get(make_toy().state)
    _saved(tmp_path, state)
    state.params["logits"]["w"] = np.zeros((12, 5), np.float32)
    message = (
        r"params/logits/w is float32\[12, 7\] there, expected float32\[12, 5\]. Use the config"
    )
    with pytest.raises(ValueError, match=message):
        checkpoints.load(tmp_path, state)


def test_checkpoint_without_a_parameter_names_it(tmp_path, make_toy):
    state = jax.device_get(make_toy().state)
    _saved(tmp_path, state)
    state.params["head"] = {"w": np.zeros(3, np.float32)}
    with pytest.raises(ValueError, match=r"params/head/w is absent there, expected float32\[3\]"):
        checkpoints.load(tmp_path, state)


def test_checkpoint_of_another_optimizer_is_an_error(tmp_path, make_toy):
    _saved(tmp_path, jax.device_get(make_toy(ema_decay=0.0).state))
    with pytest.raises(ValueError, match="another model or optimizer: ema_params/.* is absent"):
        checkpoints.load(tmp_path, make_toy().state)


def test_directory_without_checkpoints_is_left_alone_and_named(tmp_path, make_toy):
    for directory in (tmp_path, tmp_path / "missing"):
        with pytest.raises(FileNotFoundError, match=f"{directory}; expected .* Train first"):
            checkpoints.load(directory, make_toy().state)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["pmap", "fsdp"])
def test_saved_state_is_not_changed_by_donating_the_buffers(make_toy, kind):
    parallelism = devices.build_parallelism(kind, jax.devices()[:1])
    state = parallelism.place_state(make_toy().state)
    fetched = parallelism.fetch_state(state)
    before = jax.tree.map(np.copy, fetched)
    jax.jit(lambda s: jax.tree.map(jnp.add, s, s), donate_argnums=0)(state)
    jax.tree.map(np.testing.assert_array_equal, fetched, before)
