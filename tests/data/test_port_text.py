"""Texts are prepared as by Hugging Face's tokenizer of the released language model."""

import pathlib

import numpy as np
import pytest

from perceiver_jax import config, data
from perceiver_jax.data import errors
from perceiver_jax.data.fields import text

FIELD = text.MaskedText(max_length=2048, cls_sep=True)
TEXTS = (
    "This is an incomplete sentence where some words are missing.",
    "This is an incomplete sentence where some words are" + 9 * "[MASK]",
    "",
    " ",
    "[MASK]",
    "[MASK][MASK] two, and \t white\r\n\n space ",
    "æøå, 中文, कि, e\u0301, 👩‍👩‍👧‍👦, \0, \x7f, \ufeff",
    "ascii " * 500,
    "é" * 1_500,
    "👍" * 511 + "é.",
)


def prepare(*texts, field=FIELD):
    return data.prepare(texts, {"text": field})


def test_bytes_follow_six_others_between_cls_and_sep():
    batch = prepare("aÿ [MASK]!")
    expected = [4, 97 + 6, 0xC3 + 6, 0xBF + 6, 32 + 6, 3, 33 + 6, 5]
    np.testing.assert_array_equal(batch["text"][0, :9], [*expected, 0])
    np.testing.assert_array_equal(batch["text_mask"][0], np.arange(2048) < 8)


@pytest.mark.parametrize("number", range(len(TEXTS)))
def test_ids_and_masks_are_those_of_the_port(number):
    transformers = pytest.importorskip("transformers")
    expected = transformers.PerceiverTokenizer()(
        TEXTS[number], padding="max_length", truncation=True, return_tensors="np"
    )
    batch = prepare(TEXTS[number])
    np.testing.assert_array_equal(batch["text"], expected["input_ids"])
    np.testing.assert_array_equal(batch["text_mask"], expected["attention_mask"])


@pytest.mark.parametrize("text_of", [str.encode, lambda x: x])
def test_no_word_is_masked_but_what_the_user_says(text_of):
    batch = prepare(text_of(TEXTS[1]))
    assert (batch["text"] == text.MASK).sum() == 9
    np.testing.assert_array_equal(batch["text_weights"] > 0, batch["text"] == text.MASK)


def test_a_gap_beyond_what_is_read_is_refused():
    field = text.MaskedText(max_length=9, cls_sep=True)
    assert (prepare("1234567 and so on", field=field)["text"] > 0).all()
    (ids,) = prepare("123456[MASK]", field=field)["text"]
    assert ids[7] == text.MASK
    with pytest.raises(config.UserError, match="gap beyond what is read: the first 7 bytes"):
        prepare("1234567[MASK]", field=field)


def test_files_have_texts_and_strings_are_texts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "text.txt"
    path.write_text("\n Grüße \n", encoding="utf-8-sig")  # As prepare_data reads files.
    (from_file,), (from_string,) = (prepare(x)["text"] for x in (path, "Grüße"))
    np.testing.assert_array_equal(from_file, from_string)
    (name,) = prepare("text.txt")["text"]
    assert text.decode(name) == "text.txt"


def test_what_is_no_text_is_refused():
    with pytest.raises(config.UserError, match="example 1: not UTF-8.*Expected a string, the path"):
        prepare("a", b"\xff")
    with pytest.raises(config.UserError, match="wrong type: int"):
        prepare(3)
    with pytest.raises(config.UserError, match="no such file"):
        prepare(pathlib.Path("nowhere.txt"))


def test_what_is_not_between_letters_is_marked():
    assert text.decode(text.with_gaps("aé")[:2]) == "a\ufffd"
    assert text.decode(np.array([4, 103, 3, 0, 5])) == "a"
    with pytest.raises(errors.BadDataError, match="not UTF-8"):
        text.with_gaps("\ud800")
