import concurrent.futures
import multiprocessing
import subprocess
import sys

import pytest

from perceiver_jax import data
from perceiver_jax.data import datasets


def test_unknown_data_set_lists_the_known_and_the_nearest(make_data):
    with pytest.raises(ValueError, match="'mnist'.*expected one of.*Did you mean 'mnist5k'"):
        datasets.lookup("mnist")


@pytest.mark.parametrize("dataset", ["imagenet2012", "audioset", "modelnet40"])
def test_missing_full_set_says_where_it_was_looked_for_and_what_to_do(make_data, dataset, tmp_path):
    wanted = make_data(dataset, data_dir=str(tmp_path))
    with pytest.raises(data.DatasetNotFoundError) as error:
        wanted.train_batches(seed=0)
    assert str(tmp_path / dataset) in str(error.value)
    assert "Prepare it" in str(error.value)
    assert ":mini" in str(error.value)


def test_sizes_of_parts_of_splits_are_known_before_anything_is_read(tmp_path):
    assert datasets.num_examples("imagenet2012", str(tmp_path), "train[10000:]") == 1_271_167
    assert datasets.num_examples("modelnet40", str(tmp_path), "test") == 2_468


def test_two_builds_at_once_make_one_data_set(tmp_path):
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, context) as pool:
        both = pool.map(_build_and_count, [str(tmp_path)] * 2)
        assert list(both) == [(318, 73)] * 2
    assert [path.name for path in (tmp_path / "furniture11").iterdir() if path.is_dir()] == [
        "1.0.0"
    ]


def test_what_a_killed_build_left_is_removed_and_never_read(tmp_path):
    left = tmp_path / "furniture11" / "incomplete.ABC123_1.0.0"
    left.mkdir(parents=True)
    (left / "dataset_info.json").write_text("{")
    assert _build_and_count(str(tmp_path)) == (318, 73)
    assert not left.exists()


def test_tensorflow_is_never_imported(tmp_path):
    code = f"""
import sys
from perceiver_jax import data
built = data.build_data(
    dataset="mnist5k", data_dir={str(tmp_path)!r}, train_split="train", test_split="test",
    batch_size=2, num_workers=0, feature_names="",
    max_bad_records=0, mixup_alpha=0.0, cutmix_alpha=0.0,
    fields={{"image": {{"kind": "image", "image_size": 28}}, "label": {{"kind": "label"}}}},
)
next(built.train_batches(0))
assert built.class_names("label")[3] == "3"
sys.exit("tensorflow" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "TensorFlow" not in result.stderr


def _build_and_count(data_dir):
    splits = datasets.prepared_builder("furniture11", data_dir).info.splits
    return splits["train"].num_examples, splits["test"].num_examples
