"""Records that can't be decoded are left out, counted and named; too many end the run."""

import dataclasses
import io
import logging
import struct
import zlib

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from perceiver_jax import data
from perceiver_jax.data import datasets
from perceiver_jax.data.fields import image
from tests.data.photographs import photograph
from tests.data.test_pipeline import assert_same, take

IMAGE = {"image": {"kind": "image", "image_size": 23, "flip": True}}
SIZE, BAD = 12, {"p03", "p08"}


class Damaged(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(num_classes=3),
            "file_name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(SIZE):
            name, encoded = f"p{i:02d}", photograph(i)
            encoded = encoded[: len(encoded) // 2] if name in BAD else encoded
            yield i, {"image": encoded, "label": i % 3, "file_name": name}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("damaged")
    datasets.build(Damaged(data_dir=path))
    return str(path)


@pytest.fixture
def damaged(make_data, data_dir):
    def make(**changes):
        settings = {"data_dir": data_dir, "fields": IMAGE, "max_bad_records": 2}
        return make_data(**{"dataset": "damaged", "test_split": "train"} | settings | changes)

    return make


def png_that_claims(width, height):
    def chunk(kind, content):
        whole = kind + content
        return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    )


def names(batches):
    return {record.name.rpartition(" ")[2].strip(")") for record in batches.bad_records.values()}


def test_in_training_other_examples_take_their_place(damaged):
    batches = damaged().train_batches(seed=0)
    seen = [next(batches) for _ in range(6)]  # Three epochs.
    assert names(batches) == BAD
    index = np.concatenate([batch["example_id"] for batch in seen])
    assert not set(index) & set(batches.bad_records)
    assert all((batch["mask"] == 1).all() for batch in seen)
    replaced = {(i, int(j)) for i, j in enumerate(index)}
    again = damaged().train_batches(seed=0)
    repeated = np.concatenate([next(again)["example_id"] for _ in range(6)])
    assert replaced == {(i, int(j)) for i, j in enumerate(repeated)}


def test_in_evaluation_they_have_no_weight(damaged):
    batches = damaged().test_batches(6, 1)
    seen = list(batches)
    weights = {
        int(i): float(w)
        for batch in seen
        for i, w in zip(batch["example_id"], batch["mask"], strict=True)
    }
    assert weights == {i: float(i not in batches.bad_records) for i in range(SIZE)}
    assert names(batches) == BAD


def test_worker_processes_change_nothing(damaged):
    settings = {"mixup_alpha": 0.2, "cutmix_alpha": 1.0}
    first, *others = (
        take(damaged(num_workers=workers, **settings).train_batches(seed=3), 5)
        for workers in (0, 1, 2)
    )
    for other in others:
        assert_same(first, other)


def test_each_is_named_once_with_its_cause(damaged, caplog):
    with caplog.at_level(logging.WARNING):
        batches = damaged().train_batches(seed=0)
        for _ in range(6):
            next(batches)
    assert len(caplog.messages) == 2
    assert all("truncated" in message for message in caplog.messages)
    assert {name for name in BAD for message in caplog.messages if name in message} == BAD


def test_more_than_the_limit_end_the_run(damaged):
    batches = damaged(max_bad_records=1).train_batches(seed=0)
    with pytest.raises(
        data.BadDataError, match="That makes 2; expected at most 1.*max_bad_records"
    ):
        for _ in range(6):
            next(batches)


def test_a_continued_run_knows_them(damaged, caplog):
    first = damaged().train_batches(seed=0)
    for _ in range(4):
        next(first)
    resumed = damaged(max_bad_records=1).train_batches(seed=0)
    resumed.set_state(first.get_state())
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(next(first)["image"], next(resumed)["image"])
    assert resumed.bad_records == first.bad_records
    assert not caplog.messages


def test_a_config_that_reads_nothing_ends_the_run(damaged):
    broken = damaged(max_bad_records=10**6, feature_names="image=file_name")
    with pytest.raises(data.BadDataError, match="A whole batch.*Check config.data"):
        next(broken.train_batches(seed=0))


class Broken(image.Image):
    """Our own code calls it with an argument that it doesn't take, as of a library of today."""

    def _resize(self, picture):
        return picture


@pytest.mark.parametrize("workers", [0, 1])
def test_a_fault_of_the_program_is_no_bad_record_and_ends_the_run(damaged, workers):
    faulty = damaged(num_workers=workers, max_bad_records=10**6)
    faulty = dataclasses.replace(faulty, fields={"image": Broken(image_size=23)})
    with pytest.raises(TypeError, match="_resize.* takes 2 positional arguments but 3 were given"):
        next(faulty.train_batches(seed=0))


@pytest.mark.parametrize(
    ("encoded", "cause"),
    [
        (png_that_claims(50_000, 50_000), "too large"),
        (png_that_claims(8_200, 8_200), "too large"),
        (b"", "empty"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (photograph(1)[:1_000], "truncated"),
    ],
    ids=["huge", "large", "empty", "eps", "half"],
)
def test_pictures_are_refused_with_their_cause(encoded, cause):
    with pytest.raises(data.BadDataError) as error:
        image.decode(encoded)
    assert error.value.cause == cause


def test_mutated_pictures_are_read_or_refused(rng):
    refused = 0
    originals = [photograph(0), photograph(1, file_format="png"), photograph(2, mode="L")]
    for i in range(150):
        encoded = bytearray(originals[i % 3])
        for _ in range(rng.integers(1, 20)):
            encoded[rng.integers(len(encoded))] = rng.integers(256)
        start = rng.integers(len(encoded))
        del encoded[start : start + int(rng.integers(0, 50))]
        try:
            assert image.decode(bytes(encoded)).mode == "RGB"
        except data.BadDataError as error:
            refused += 1
            assert error.cause
    assert refused > 20


def test_an_animation_gives_its_first_picture():
    buffer = io.BytesIO()
    frames = [PIL.Image.new("L", (5, 7), level) for level in (50, 200)]
    frames[0].save(buffer, format="gif", save_all=True, append_images=frames[1:])
    assert image.decode(buffer.getvalue()).getpixel((2, 3)) == (50, 50, 50)
