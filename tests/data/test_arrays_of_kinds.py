"""Texts, frames and flow in memory are read as those on disk."""

import contextlib

import numpy as np
import pytest

from perceiver_jax import data as data_lib
from perceiver_jax.data import description
from perceiver_jax.data.fields import text

TEXTS = [f"this is text number {i}" for i in range(13)]
MASKED = {"text": {"kind": "masked_text", "max_length": 29}}


def build(texts=TEXTS, targets=None, test=TEXTS[:3], test_targets=None, fields=MASKED):
    return data_lib.from_arrays(
        {"text": texts}, targets or {}, {"text": test}, test_targets or {}, batch_size=3,
        fields=fields,
    )  # fmt: skip


def first(data):
    with contextlib.closing(data.train_batches(0)) as batches:
        return next(batches)


def test_texts_alone_have_gaps_to_fill():
    data = build()
    batch = first(data)
    given = {text.decode(ids) for ids in batch["text_targets"]}
    assert given < set(TEXTS)
    assert (batch["text_weights"].sum(axis=1) > 0).all()
    assert (data.num_train, data.num_test) == (13, 3)


def test_texts_have_classes_as_arrays_do():
    fields = {"text": {"kind": "text", "max_length": 29}}
    labels = [i % 2 for i in range(13)]
    batch = first(build(TEXTS, {"kind": labels}, TEXTS[:3], {"kind": [0, 1, 0]}, fields))
    for ids, label in zip(batch["text"], batch["kind"], strict=True):
        assert TEXTS.index(text.decode(ids)) % 2 == label


def test_frames_and_their_flow_are_cut_in_step():
    flow = np.stack(np.meshgrid(np.arange(13.0), np.arange(11.0)), axis=-1)[None].repeat(4, 0)
    frames = flow[:, None].repeat(2, 1)[..., [0, 1, 1]].astype(np.uint8)
    fields = {name: {"kind": name, "image_size": (5, 7)} for name in ("frames", "flow")}
    data = data_lib.from_arrays(
        {"frames": frames}, {"flow": flow}, {"frames": frames}, {"flow": flow}, batch_size=4,
        fields=fields,
    )  # fmt: skip
    batch = first(data)
    np.testing.assert_array_equal(batch["frames"][:, 0, ..., :2], batch["flow"])
    assert len({tuple(x[0, 0]) for x in batch["flow"]}) > 1


def test_other_texts_are_other_data():
    assert build().fingerprint() == build().fingerprint()
    assert build().fingerprint() != build(TEXTS[::-1]).fingerprint()


def test_what_a_run_keeps_of_them_reads_the_same():
    data = build()
    kept = description.from_json(description.describe(data).to_json(), "data.json")
    assert kept.fields == data.fields


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"texts": "one text"}, "inputs.'text'. of type str; expected a list"),
        ({"texts": ["fine", " "]}, "inputs.'text'. whose example 1 can't be read: empty text"),
        ({"fields": {"txt": MASKED["text"]}}, "Got fields.'txt'. and no such input or target"),
        ({"fields": {"text": {"kind": "txt"}}}, "Unknown fields.'text'..kind 'txt'"),
        ({"targets": {"kind": [0, 1]}, "test_targets": {"kind": [0] * 3}}, "2 of 'kind'"),
    ],
)
def test_what_does_not_fit_says_why(change, message):
    with pytest.raises(ValueError, match=message):
        build(**change)
