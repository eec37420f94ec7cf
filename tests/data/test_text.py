"""Texts as ids of bytes, with and without gaps."""

import dataclasses

import numpy as np
import pytest

from perceiver_jax.data import errors, examples
from perceiver_jax.data import fields as fields_lib
from perceiver_jax.data.fields import text


def read(field, value, rng=None):
    return fields_lib.named("text", field.read(value, 0.5, rng))


def test_ids_are_bytes_plus_6_and_come_back_as_the_text():
    arrays = read(text.Text(11), "añ\n")
    assert arrays["text"].tolist() == [103, 201, 183, 16] + 7 * [0]
    assert arrays["text_mask"].tolist() == 4 * [True] + 7 * [False]
    assert text.decode(arrays["text"]) == "añ\n"


def test_cls_and_sep_are_around_the_bytes_and_count():
    arrays = read(text.Text(5, cls_sep=True), b"abcdef")
    assert arrays["text"].tolist() == [4, 103, 104, 105, 5]
    assert arrays["text_mask"].all()


def test_a_text_is_cut_between_letters():
    assert text.decode(read(text.Text(3), "aéé")["text"]) == "aé"
    assert text.decode(read(text.Text(2), "aéé")["text"]) == "a"


@pytest.mark.parametrize(("value", "cause"), [(b" \n", "empty text"), (b"\xff", "not UTF-8")])
def test_what_is_no_text_is_a_bad_record(value, cause):
    with pytest.raises(errors.BadDataError) as raised:
        read(text.Text(5), value)
    assert raised.value.cause == cause


def test_gaps_are_whole_words_of_mask_and_targets_have_what_was_there():
    value = " ".join(f"w{i}ö" for i in range(20)).encode()
    arrays = read(text.MaskedText(131), value, np.random.default_rng(0))
    plain = read(text.Text(131), value)
    np.testing.assert_array_equal(arrays["text_targets"], plain["text"])
    np.testing.assert_array_equal(arrays["text_mask"], plain["text_mask"])
    gaps = arrays["text_weights"] == 1
    assert (arrays["text"][gaps] == text.MASK).all()
    np.testing.assert_array_equal(arrays["text"][~gaps], plain["text"][~gaps])
    words = text.decode(np.where(gaps, ord("_") + 6, plain["text"])).split()
    assert sum(set(word) == {"_"} for word in words) == 3  # 15 % of 20.
    assert all(set(word) == {"_"} or "_" not in word for word in words)


def test_a_text_of_one_word_has_a_gap():
    arrays = read(text.MaskedText(7, cls_sep=True), b"word")
    assert arrays["text_weights"].tolist() == [0, 1, 1, 1, 1, 0, 0]


def make_reader(values):
    records = _Records([{"text": value} for value in values])
    return examples.Reader(records, {"text": text.MaskedText(101)}, {"text": "text"})


@dataclasses.dataclass
class _Records:
    records: list

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        return self.records[index]

    def describe(self, index):
        return f"record {index}"


def test_gaps_depend_on_seed_epoch_and_example_alone():
    value = " ".join(f"word{i}" for i in range(13)).encode()

    def weights(seed, step, index):
        return make_reader([value] * 3).read_to_train(seed, step, index)["text_weights"].tolist()

    assert weights(7, 4, 2) == weights(7, 4, 2) == weights(7, 3, 2)  # Steps 3 to 5: epoch 1.
    others = [weights(7, 1, 2), weights(8, 4, 2), weights(7, 4, 1)]
    assert weights(7, 4, 2) not in others


def test_in_evaluation_a_text_has_the_same_gaps_each_time_and_others_other_ones():
    values = [f"one two three four five six {i}".encode() for i in range(11)]
    reader = make_reader(values)
    first = [reader.read_to_test(1, i)["text_weights"] for i in range(11)]
    again = [reader.read_to_test(1, i)["text_weights"] for i in range(11)]
    np.testing.assert_array_equal(first, again)
    assert len({x.tobytes() for x in first}) > 2


def test_examples_of_padding_have_all_arrays():
    reader = make_reader([b"one two"])
    padding, real = reader.read_to_test(1, 5), reader.read_to_test(1, 0)
    assert {n: np.shape(x) for n, x in padding.items() if n != examples.BAD_RECORDS} == {
        n: np.shape(x) for n, x in real.items() if n != examples.BAD_RECORDS
    }
    assert not padding["text_mask"].any()
    assert not padding["text_weights"].any()
