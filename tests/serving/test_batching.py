"""Rows of many callers, computed together: each gets its own back."""

from concurrent import futures
import random
import threading
import time

import numpy as np
import pytest

from perceiver_jax.serving import batching


def rows(*values):
    return {"x": np.array(values, np.int64)}


class Doubling:
    """Doubles rows, and notes the sizes of its batches; can be held back."""

    def __init__(self):
        self.sizes, self.go = [], threading.Event()
        self.go.set()

    def __call__(self, batch):
        self.go.wait()
        self.sizes.append(len(batch["x"]))
        if -1 in batch["x"]:
            raise ValueError("minus one")
        return {"y": 2 * batch["x"]}


@pytest.fixture
def doubling():
    return Doubling()


@pytest.fixture
def batcher(doubling):
    made = batching.Batcher(doubling, (1, 3, 7), wait=0.05)
    yield made
    doubling.go.set()
    made.stop()


def wait_for(condition):
    while not condition():
        time.sleep(0.001)


def hold(batcher, doubling):
    """Has the thread wait in a batch of its own, so that what follows waits together."""
    doubling.go.clear()
    future = batcher.submit(rows(0))
    wait_for(lambda: not batcher.waiting())
    return future


def test_no_row_is_lost_or_mixed_up_among_many_threads(batcher, doubling):
    def ask(seed):
        rng = random.Random(seed)
        for _ in range(20):
            values = [rng.randrange(10**9) for _ in range(rng.randrange(1, 12))]
            with batcher.announced():
                future = batcher.submit(rows(*values))
            assert future.result(30)["y"].tolist() == [2 * x for x in values]
        return True

    with futures.ThreadPoolExecutor(13) as threads:
        assert all(threads.map(ask, range(13)))
    assert set(doubling.sizes) <= {1, 3, 7}


def test_rows_that_wait_are_computed_together_in_few_sizes(batcher, doubling):
    first = hold(batcher, doubling)
    waiting = [batcher.submit(rows(i, -2 - i)) for i in range(4)]
    doubling.go.set()
    assert [future.result(9)["y"].tolist() for future in waiting] == [
        [2 * i, -4 - 2 * i] for i in range(4)
    ]
    assert first.result()["y"].tolist() == [0]
    assert doubling.sizes == [1, 7, 1]


def test_more_rows_than_a_batch_has_are_split(batcher, doubling):
    assert batcher.submit(rows(*range(16))).result(9)["y"].tolist() == list(range(0, 32, 2))
    assert doubling.sizes == [7, 7, 3]


def test_a_batch_waits_for_rows_that_are_announced_but_not_for_long(batcher):
    batcher.submit(rows(3)).result(9)
    begun = time.monotonic()
    batcher.submit(rows(3)).result(9)
    alone = time.monotonic() - begun
    with batcher.announced():
        begun = time.monotonic()
        batcher.submit(rows(3)).result(9)
        announced = time.monotonic() - begun
    assert alone < 0.05 <= announced < 5


def test_an_error_is_of_those_in_the_batch_alone(batcher, doubling):
    hold(batcher, doubling)
    bad = [batcher.submit(rows(-1, *range(9))), batcher.submit(rows(4))]
    doubling.go.set()
    with pytest.raises(ValueError, match="minus one"):
        bad[0].result(9)
    assert bad[1].result(9)["y"].tolist() == [8]
    assert batcher.submit(rows(5)).result(9)["y"].tolist() == [10]


def test_what_waits_for_too_long_is_given_up(batcher, doubling):
    hold(batcher, doubling)
    late = batcher.submit(rows(3), deadline=time.monotonic() + 0.01)
    others = batcher.submit(rows(4), deadline=time.monotonic() + 60)
    time.sleep(0.02)
    doubling.go.set()
    with pytest.raises(batching.ExpiredError):
        late.result(9)
    assert others.result(9)["y"].tolist() == [8]


def test_other_computations_take_their_turn(batcher, doubling):
    hold(batcher, doubling)
    found = [batcher.submit(rows(3)), batcher.call(lambda: tuple(doubling.sizes))]
    found.append(batcher.submit(rows(4)))
    failed = batcher.call(lambda: 1 / 0)
    doubling.go.set()
    assert [future.result(9) for future in found[::2]] == [{"y": [6]}, {"y": [8]}]
    assert found[1].result() == (1, 1)
    with pytest.raises(ZeroDivisionError):
        failed.result(9)


def test_at_the_end_what_waits_is_computed_and_no_more_taken(doubling):
    batcher = batching.Batcher(doubling, (3,))
    hold(batcher, doubling)
    waiting = [batcher.submit(rows(i)) for i in range(5)]
    threading.Timer(0.05, doubling.go.set).start()
    batcher.stop()
    assert [future.result(0)["y"].tolist() for future in waiting] == [[2 * i] for i in range(5)]
    with pytest.raises(batching.StoppedError):
        batcher.submit(rows(1))


@pytest.mark.parametrize(
    ("ready", "expected"), [(1, 1), (2, 4), (3, 4), (4, 4), (5, 4), (7, 4), (8, 16), (17, 16)]
)
def test_half_of_a_batch_is_filled_at_least(ready, expected):
    assert batching.best_size(ready, (1, 4, 16)) == expected
    assert batching.best_size(3, (8, 16)) == 8
