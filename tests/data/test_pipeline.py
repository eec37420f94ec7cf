import collections
import contextlib
import dataclasses
import itertools

import numpy as np
import pytest

JITTER = {
    "image": {
        "kind": "image",
        "image_size": 28,
        "channels": 1,
        "crop": "none",
        "rotation_degrees": 10.0,
    }
}


@dataclasses.dataclass(frozen=True)
class Window:
    """An input that shows which window it was asked for."""

    feature: str = "image"
    has_windows: bool = True
    is_target: bool = False

    def zeros(self):
        return np.zeros((), np.float32)

    def read(self, value, window, rng):
        return np.array(window, np.float32)


def take(iterator, count=None):
    with contextlib.closing(iterator):
        return list(itertools.islice(iterator, count))


def indices(batches):
    return np.concatenate([batch["example_id"] for batch in batches])


def assert_same(batches, others):
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for name in batch:
            np.testing.assert_array_equal(batch[name], other[name])


def with_inputs(data, **inputs):
    return dataclasses.replace(data, fields=inputs)


@pytest.mark.parametrize(
    "dataset", ["mnist5k", "furniture11", "atari_clips/tiny", "imagenet2012", "audioset"]
)
def test_spec_needs_no_data_on_disk(make_data, dataset, tmp_path):
    data = make_data(dataset, data_dir=str(tmp_path))
    spec = data.zero_batch()
    assert all(len(array) == 6 for array in spec.values())
    assert data.num_train > 0
    assert data.fields["label"].num_classes > 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dataset", ["mnist5k", "furniture11", "atari_clips/tiny"])
def test_batches_have_the_form_of_the_spec(make_data, dataset):
    data = make_data(dataset)
    expected = {name: (array.shape, array.dtype) for name, array in data.zero_batch().items()}
    for batches in (data.train_batches(seed=0), data.test_batches(6, 1)):
        (batch,) = take(batches, 1)
        assert {name: (array.shape, array.dtype) for name, array in batch.items()} == expected


def test_an_epoch_has_every_example_once_and_the_next_another_order(make_data):
    data = make_data("furniture11", batch_size=53)  # 6 x 53 = 318
    order = indices(take(data.train_batches(seed=0), 12))
    assert sorted(order[:318]) == sorted(order[318:]) == list(range(318))
    assert (order[:318] != order[318:]).mean() > 0.9


def test_the_next_seed_does_not_start_with_the_second_epoch(make_data):
    data = make_data("furniture11", batch_size=53)
    first = indices(take(data.train_batches(seed=0), 12))[318:]
    assert (first != indices(take(data.train_batches(seed=1), 6))).mean() > 0.9


def test_an_example_is_augmented_anew_in_every_epoch_and_seed(make_data):
    data = make_data("mnist5k", train_split="train[:6]", fields=JITTER)
    epochs = [*take(data.train_batches(seed=0), 2), *take(data.train_batches(seed=1), 1)]
    first, second, third = (batch["image"][np.argsort(batch["example_id"])] for batch in epochs)
    assert (first != second).any(axis=(1, 2, 3)).all()
    assert (first != third).any(axis=(1, 2, 3)).all()


def test_processes_share_the_global_batch(make_data):
    data = make_data(fields=JITTER)
    whole = take(data.train_batches(seed=3), 3)
    shares = [take(data.train_batches(3, process, 3), 3) for process in range(3)]
    union = [
        {name: np.concatenate([share[name] for share in step]) for name in step[0]}
        for step in zip(*shares, strict=True)
    ]
    assert_same(whole, union)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_resumes_exactly(make_data, num_workers):
    data = make_data(fields=JITTER, num_workers=num_workers)
    iterator = data.train_batches(seed=5)
    for _ in range(3):
        next(iterator)
    state = iterator.get_state()
    expected = take(iterator, 3)
    resumed = data.train_batches(seed=5)
    resumed.set_state(state)
    assert_same(expected, take(resumed, 3))


def test_resumes_in_the_millionth_step_without_reading_what_came_before(make_data):
    iterator = make_data().train_batches(seed=5)
    state = iterator.get_state()
    (key,) = state
    iterator.set_state({key: 1_000_000})
    assert len(take(iterator, 1)[0]["example_id"]) == 6


@pytest.mark.parametrize("process_count", [1, 2])
def test_evaluation_has_every_pair_of_example_and_window_once(make_data, process_count):
    data = with_inputs(make_data("mnist5k", test_split="test[:7]"), window=Window())
    batches = []
    for process in range(process_count):
        batches += take(data.test_batches(4, 5, process, process_count))
    assert all(len(batch["example_id"]) == 4 // process_count for batch in batches)
    pairs = collections.Counter(
        (int(index), round(float(window), 3))
        for batch in batches
        for index, window, mask in zip(
            batch["example_id"], batch["window"], batch["mask"], strict=True
        )
        if mask
    )
    assert pairs == dict.fromkeys(itertools.product(range(7), [0, 0.25, 0.5, 0.75, 1]), 1)
    assert indices(batches).tolist().count(-1) == 1  # 9 batches of 4 for 35 pairs


def test_one_window_is_the_middle(make_data):
    data = with_inputs(make_data("mnist5k", test_split="test[:3]"), window=Window())
    (batch,) = take(data.test_batches(3, 1))
    np.testing.assert_array_equal(batch["window"], 0.5)


def test_all_inputs_of_an_example_see_the_same_window(make_data):
    data = with_inputs(make_data("mnist5k"), one=Window(), other=Window())
    (batch,) = take(data.train_batches(seed=0), 1)
    np.testing.assert_array_equal(batch["one"], batch["other"])
    assert len(np.unique(batch["one"])) == 6


def test_unaugmented_examples_see_the_windows_of_training(make_data):
    data = with_inputs(make_data("mnist5k"), window=Window())
    (batch,) = take(data.train_batches(seed=3), 1)
    assert_same([batch], [data.read_train(batch["example_id"], 3, augmented=False)])


def test_training_examples_can_be_read_by_index(make_data):
    data = make_data(fields=JITTER)
    (batch,) = take(data.train_batches(seed=3), 1)
    assert_same([batch], [data.read_train(batch["example_id"], 3, augmented=True)])


def test_unaugmented_examples_are_those_of_evaluation(make_data):
    data = make_data(fields=JITTER, test_split="train[:6]")
    (evaluated,) = take(data.test_batches(6, 1))
    assert_same([evaluated], [data.read_train(range(6), 3, augmented=False)])


def test_evaluation_is_the_same_every_time(make_data):
    data = make_data("mnist5k", test_split="test[:9]", fields=JITTER)
    assert_same(take(data.test_batches(6, 1)), take(data.test_batches(6, 1)))


def test_several_labels_are_marked_with_ones(make_data):
    data = make_data("atari_clips/tiny", test_split="test[:1]")
    (batch,) = take(data.test_batches(1, 1))
    assert data.fields["label"].multi_label
    assert sorted(batch["label"][0]) == [0.0] * 15 + [1.0]


def test_targets_draw_no_randomness(make_data):
    data = make_data(fields=JITTER)
    label = data.fields["label"]
    (last,) = take(data.train_batches(seed=3), 1)
    first = dataclasses.replace(data, fields={"label": label, **data.fields})
    assert list(first.fields) == ["label", "image"]
    assert_same([last], take(first.train_batches(seed=3), 1))


def test_several_windows_of_inputs_that_have_one_are_an_error(make_data):
    with pytest.raises(
        ValueError, match="num_windows is 3.*has several windows.*Set config.eval.num_windows=1"
    ):
        make_data("mnist5k").test_batches(4, 3)


def test_a_batch_that_does_not_divide_is_an_error(make_data):
    with pytest.raises(ValueError, match="batch of 6 examples for 4 processes"):
        make_data("mnist5k").train_batches(0, 0, 4)
