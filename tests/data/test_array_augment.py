"""What an `augment` of arrays may return, and that what is stored stays as it is."""

import numpy as np
import pytest

from perceiver_jax import data
from tests.data.test_pipeline import take


def batches(x, augment, count=1, num_workers=0):
    labels = np.arange(len(x)) % 2
    made = data.from_arrays(
        {"x": x},
        labels,
        {"x": x},
        labels,
        batch_size=4,
        augment={"x": augment},
        num_workers=num_workers,
    )
    return take(made.train_batches(seed=0), count)


def cut_out(x, rng):
    x[rng.integers(len(x))] = 0
    return x


class Unusual(Exception):
    """Can't be sent from one process to another."""

    def __init__(self, first, second):
        super().__init__(f"{first} {second}")


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_writing_in_place_changes_neither_the_callers_array_nor_the_next_epoch(dtype):
    x = np.full((8, 5, 3), 200, dtype)
    seen = batches(x, cut_out, 10)
    assert (x == 200).all()
    assert all(((batch["x"] == 0).all(axis=2).sum(axis=1) == 1).all() for batch in seen)


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (lambda x, rng: None, r"returned None; expected uint8 \[5, 3\], as it was given"),
        (lambda x, rng: x[1:], r"returned uint8 \[4, 3\]; expected"),
        (lambda x, rng: 0, r"returned int64 \[\]; expected"),
        (lambda x, rng: x.astype(str), r"returned <U3 \[5, 3\]; expected"),
        (lambda x, rng: x / 255, "returned float64 for uint8.*Round and clip.*as float32"),
        (lambda x, rng: x + rng.integers(-9, 9, x.shape), "returned int64 for uint8"),
        (lambda x: x, "raised TypeError: .*takes 1 positional argument"),
    ],
)
def test_what_cannot_take_the_examples_place_names_augment_and_input(augment, message):
    with pytest.raises(data.AugmentError, match=f"augment of input 'x' {message}"):
        batches(np.full((8, 5, 3), 200, np.uint8), augment)


def test_numbers_of_any_type_become_float32_again():
    (batch,) = batches(np.full((8, 5, 3), 2.5), lambda x, rng: x > rng.integers(2))
    assert batch["x"].dtype == np.float32
    assert (batch["x"] == 1).all()


@pytest.mark.parametrize("factor", [np.nan, 1e300])
def test_numbers_that_are_not_finite_are_refused(factor):
    with pytest.raises(data.AugmentError, match="input 'x' returned NaN or infinity"):
        batches(np.ones((8, 5)), lambda x, rng: x.astype(float) * factor)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_of_the_function_is_the_users_and_no_bad_record(num_workers):
    def fail(x, rng):
        raise Unusual("much", "went wrong")

    with pytest.raises(data.AugmentError, match="raised Unusual: much went wrong") as error:
        batches(np.ones((8, 5)), fail, num_workers=num_workers)
    assert "Unusual: much went wrong" in error.value.__notes__[0]
    assert "in fail" in error.value.__notes__[0]
