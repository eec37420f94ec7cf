"""Checkpoints give back what was saved, to the bit, or say why they cannot."""

import itertools
import pathlib
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_jax.training import checkpoints, devices


def _load(directory, like):
    """Reads the newest checkpoint, and writes nothing."""
    with checkpoints.Checkpointer(directory, read_only=True) as checkpointer:
        return checkpointer.restore(like)


def _saved(
    directory, state, iterator_state=b"place", metadata=None, num_checkpoints=1, max_checkpoints=3
):
    with checkpoints.Checkpointer(directory, max_checkpoints) as checkpointer:
        for step in range(num_checkpoints):
            numbered = state._replace(step=np.int32(step))
            checkpointer.save(numbered, iterator_state, metadata or {})
    return directory


@pytest.mark.parametrize("iterator_state", [b"\x00\xff not text", {"next_index": 7}])
def test_restored_checkpoint_equals_the_saved_one(tmp_path, make_toy, iterator_state):
    state, metadata = jax.device_get(make_toy().state), {"best": None, "sums": {"loss": 0.1}}
    directory = _saved(tmp_path / "c", state, iterator_state, metadata)
    restored = _load(directory, jax.eval_shape(lambda: make_toy().state))
    jax.tree.map(np.testing.assert_array_equal, restored.state, state)
    assert jax.tree.structure(restored.state) == jax.tree.structure(state)
    assert restored.iterator_state == iterator_state
    assert restored.metadata == metadata


def test_only_the_newest_checkpoints_are_kept(tmp_path, make_toy):
    _saved(tmp_path, jax.device_get(make_toy().state), num_checkpoints=5, max_checkpoints=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "4"]


def test_checkpoint_of_another_shape_names_the_first_parameter_that_differs(tmp_path, make_toy):
    state = jax.device_get(make_toy().state)
    _saved(tmp_path, state)
    state.params["logits"]["w"] = np.zeros((12, 5), np.float32)
    message = (
        r"params/logits/w is float32\[12, 7\] there, expected float32\[12, 5\]. Use the config"
    )
    with pytest.raises(ValueError, match=message):
        _load(tmp_path, state)


def test_checkpoint_without_a_parameter_names_it(tmp_path, make_toy):
    state = jax.device_get(make_toy().state)
    _saved(tmp_path, state)
    state.params["head"] = {"w": np.zeros(3, np.float32)}
    with pytest.raises(ValueError, match=r"params/head/w is absent there, expected float32\[3\]"):
        _load(tmp_path, state)


def test_checkpoint_of_another_optimizer_is_an_error(tmp_path, make_toy):
    _saved(tmp_path, jax.device_get(make_toy(ema_decay=0.0).state))
    with pytest.raises(ValueError, match="another model or optimizer: ema_params/.* is absent"):
        _load(tmp_path, make_toy().state)


def test_directory_without_checkpoints_is_left_alone_and_named(tmp_path, make_toy):
    for directory in (tmp_path, tmp_path / "missing"):
        with pytest.raises(FileNotFoundError, match=f"no checkpoint in {directory} yet; expected"):
            checkpoints.load_params(directory, make_toy().state.params)
    assert not list(tmp_path.iterdir())


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 4
    path.write_bytes(data)


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {"flip": _flip, "cut": _cut, "delete": pathlib.Path.unlink}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_to_any_file_changes_nothing_or_is_reported(tmp_path, make_toy, damage):
    state = jax.device_get(make_toy().state)
    original, damaged = _saved(tmp_path / "a", state, num_checkpoints=2), tmp_path / "b"
    files = [path.relative_to(original) for path in (original / "1").rglob("*") if path.is_file()]
    num_reported = 0
    for path in files:
        shutil.copytree(original, damaged)
        damage(damaged / path)
        found = _load(damaged, state)
        if found.notes:
            assert "the checkpoint of step 1 is damaged: " in found.notes[0]
            num_reported += 1
        expected = state._replace(step=np.int32(not found.notes))
        jax.tree.map(np.testing.assert_array_equal, found.state, expected)
        shutil.rmtree(damaged)
    assert num_reported >= 3  # Metadata, manifest and values at the least.


def _damage_values(checkpoint):
    """Gives a checkpoint the values of another one: a change that Orbax can't notice."""
    shutil.rmtree(checkpoint / "state")
    shutil.copytree(checkpoint.with_name("2") / "state", checkpoint / "state")


def test_damaged_checkpoint_makes_way_for_a_new_one_and_is_kept(tmp_path, make_toy):
    state = jax.device_get(make_toy().state)
    directory = _saved(tmp_path / "checkpoints", state, num_checkpoints=3)
    _damage_values(directory / "1")
    shutil.rmtree(directory / "2")
    with checkpoints.Checkpointer(directory, 2) as checkpointer:
        found = checkpointer.restore(state)
        assert found.state.step == 0
        checkpointer.save(state._replace(step=np.int32(1)), b"", {})
    assert _load(directory, state).state.step == 1
    place = tmp_path / "damaged_checkpoints" / "1"
    assert found.notes[0].endswith(f": step is not as it was saved; moved to {place}")
    assert (place / "state").is_dir()


def test_nothing_but_damaged_checkpoints_is_an_error_that_leaves_them_alone(tmp_path, make_toy):
    state = jax.device_get(make_toy().state)
    directory = _saved(tmp_path / "checkpoints", state, num_checkpoints=3)
    for step in "01":
        _damage_values(directory / step)
    shutil.rmtree(directory / "2")
    with (
        checkpoints.Checkpointer(directory) as checkpointer,
        pytest.raises(ValueError, match="All checkpoints in .* step 1: .* step 0: .* begin anew"),
    ):
        checkpointer.restore(state)
    assert sorted(path.name for path in directory.iterdir()) == ["0", "1"]


def test_directory_that_cannot_be_made_is_explained(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(checkpoints.SaveError, match="file/c cannot be made: Not a directory"):
        checkpoints.Checkpointer(tmp_path / "file" / "c")


def test_save_that_fails_is_an_error_and_leaves_earlier_checkpoints_alone(tmp_path, make_toy):
    state = jax.device_get(make_toy().state)
    directory = _saved(tmp_path / "checkpoints", state)
    with (
        pytest.raises(checkpoints.SaveError, match="step 1 could not .* Earlier ones are intact"),
        checkpoints.Checkpointer(directory, 1) as checkpointer,
    ):
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, limit[1]))  # As a full disk.
        try:
            checkpointer.save(state._replace(step=np.int32(1)), b"", {})
            checkpointer.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert _load(directory, state).state.step == 0


@pytest.mark.parametrize("kind", ["pmap", "fsdp"])
def test_saved_state_is_a_copy_and_stays_when_the_buffers_are_donated(make_toy, kind):
    sharding = devices.build_sharding(kind, jax.devices()[:1])
    state = sharding.place_state(make_toy().state)
    fetched = sharding.fetch_state(state)
    for copy, array in zip(jax.tree.leaves(fetched), jax.tree.leaves(state), strict=True):
        # A view of a buffer can't be written to, and some platforms overwrite it.
        assert copy.flags.writeable
        for part in array.addressable_shards:
            assert not np.shares_memory(copy, np.asarray(part.data))
    before = jax.tree.map(np.copy, fetched)
    jax.jit(lambda s: jax.tree.map(jnp.add, s, s), donate_argnums=0)(state)
    jax.tree.map(np.testing.assert_array_equal, fetched, before)


@pytest.mark.parametrize("name", ["[v2]", "a\\b", "**", "{x}?*", "a\nb", "\udcff", "%20#: "])
def test_directories_of_any_name_keep_checkpoints(tmp_path, make_toy, name):
    state = jax.device_get(make_toy().state)
    directory = _saved(tmp_path / name / "checkpoints", state, num_checkpoints=2)
    assert _load(directory, state).state.step == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_first_save_that_cannot_be_read_back_ends_the_run(tmp_path, make_toy, monkeypatch):
    state = jax.device_get(make_toy().state)
    numbers = itertools.count()
    monkeypatch.setattr(checkpoints, "_checksum", lambda x: next(numbers))
    message = f"written to {tmp_path}/c, but can't be read back"
    with (
        checkpoints.Checkpointer(tmp_path / "c") as checkpointer,
        pytest.raises(checkpoints.SaveError, match=message),
    ):
        checkpointer.save(state, b"", {})


@pytest.mark.parametrize(("ema_decay", "name"), [(0.0, "params"), (0.9, "ema_params")])
def test_a_model_is_evaluated_with_the_moving_average_where_there_is_one(
    tmp_path, make_toy, ema_decay, name
):
    state = jax.device_get(make_toy(ema_decay=ema_decay).state)
    if ema_decay:
        state = state._replace(ema_params=jax.tree.map(lambda x: x + 1, state.params))
    _saved(tmp_path, state)
    found = checkpoints.load_params(tmp_path, jax.eval_shape(lambda: state.params))
    jax.tree.map(np.testing.assert_array_equal, found.params, getattr(state, name))
    assert (found.step, found.notes) == (0, ())


def test_parameters_are_read_without_what_the_optimizer_keeps(tmp_path, make_toy):
    state = jax.device_get(make_toy().state)
    other = state._replace(opt_state={"of another optimizer": np.zeros(3)})
    found = checkpoints.load_params(_saved(tmp_path, other), state.params)
    jax.tree.map(np.testing.assert_array_equal, found.params, state.ema_params)


def test_checkpoints_are_chosen_by_their_step(tmp_path, make_toy):
    state = jax.device_get(make_toy().state)
    _saved(tmp_path, state, num_checkpoints=3)
    assert checkpoints.load_params(tmp_path, state.params, 1).step == 1
    with pytest.raises(FileNotFoundError, match=r"of step 7 in .*; expected one of \[0, 1, 2\]"):
        checkpoints.load_params(tmp_path, state.params, 7)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_to_any_file_changes_no_parameter_or_is_reported(tmp_path, make_toy, damage):
    state = jax.device_get(make_toy(ema_decay=0.0).state)
    original, damaged = _saved(tmp_path / "a", state), tmp_path / "b"
    files = [path.relative_to(original) for path in (original / "0").rglob("*") if path.is_file()]
    num_reported = 0
    for path in files:
        shutil.copytree(original, damaged)
        damage(damaged / path)
        try:
            found = checkpoints.load_params(damaged, state.params)
        except ValueError as error:
            assert f"All checkpoints in {damaged} are damaged: step 0: " in str(error)
            assert "\n" not in str(error)
            num_reported += 1
        else:
            jax.tree.map(np.testing.assert_array_equal, found.params, state.params)
        shutil.rmtree(damaged)
    assert num_reported >= 3  # Metadata, manifest and values at the least.


def test_parameters_of_another_checkpoint_are_told_from_those_that_were_saved(tmp_path, make_toy):
    state = jax.device_get(make_toy(ema_decay=0.0).state)
    other = state._replace(step=np.int32(1), params=jax.tree.map(lambda x: x + 1, state.params))
    with checkpoints.Checkpointer(tmp_path) as checkpointer:
        for each in (state, other):
            checkpointer.save(each, b"", {})
    shutil.rmtree(tmp_path / "1/state")
    shutil.copytree(tmp_path / "0/state", tmp_path / "1/state")
    found = checkpoints.load_params(tmp_path, state.params)
    assert found.step == 0 and found.notes[0].endswith(" is not as it was saved")
