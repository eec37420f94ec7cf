"""TFDS's builder of ImageNet, from small tars made like the official ones."""

import importlib.util
import io
import tarfile

import numpy as np
import PIL.Image
import pytest

from experiments import prepare_data
from perceiver_jax.data import datasets, sources
from tests.data.photographs import SYNSETS, photograph

# As published: classes of validation pictures 1, 2, 3 and 50,000.
VALIDATION = {1: 65, 2: 970, 3: 230, 50_000: 355}
# TFDS knows these two by name: the one is CMYK, the other a PNG.
CMYK, PNG = "n01739381_1309.JPEG", "n02105855_2933.JPEG"
IMAGE = {"image": {"kind": "image", "image_size": 31}}


def tar(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    source = tmp_path_factory.mktemp("tars")
    train = {}
    for i, synset in enumerate(SYNSETS):
        pictures = {f"{synset}_{j}.JPEG": photograph(5 * i + j) for j in range(3)}
        train[synset] = pictures
    train["n01739381"][CMYK] = photograph(0, mode="CMYK")
    train["n02105855"][PNG] = photograph(0, file_format="png")
    tars = tar({f"{synset}.tar": tar(pictures) for synset, pictures in train.items()})
    (source / "ILSVRC2012_img_train.tar").write_bytes(tars)
    validation = {f"ILSVRC2012_val_{number:08d}.JPEG": photograph(number) for number in VALIDATION}
    (source / "ILSVRC2012_img_val.tar").write_bytes(tar(validation))
    return source


@pytest.fixture(scope="module")
def data_dir(tars, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("imagenet")
    prepare_data.main(["imagenet2012", f"--source={tars}", f"--data_dir={data_dir}"])
    return str(data_dir)


@pytest.fixture(scope="module")
def records(data_dir):
    builder = datasets.prepared_builder("imagenet2012", data_dir)
    features = ("file_name", "image", "label")
    splits = {}
    for split in ("train", "validation"):
        rows = sources.TfdsRecords(str(builder.data_dir), split, features)
        splits[split] = {rows[i]["file_name"].decode(): rows[i] for i in range(len(rows))}
    return builder, splits


def test_the_builder_is_tfdss_own_at_its_version(records):
    builder, _ = records
    assert builder.info.full_name == "imagenet2012/5.1.0"
    assert builder.info.features["label"].num_classes == 1_000
    assert builder.info.file_format.value == "array_record"


def test_training_pictures_have_the_label_of_their_synset(records):
    builder, splits = records
    assert len(splits["train"]) == 11
    for name, row in splits["train"].items():
        assert builder.info.features["label"].int2str(row["label"]) == name.partition("_")[0]


def test_training_pictures_are_kept_as_encoded(records):
    _, splits = records
    assert splits["train"]["n01440764_2.JPEG"]["image"] == photograph(2)


def test_validation_pictures_have_the_published_labels(records):
    _, splits = records
    labels = {int(name[-10:-5]): row["label"] for name, row in splits["validation"].items()}
    assert labels == VALIDATION


@pytest.mark.parametrize("name", [CMYK, PNG])
def test_the_odd_pictures_become_rgb_jpegs_of_the_same_content(records, name):
    _, splits = records
    fixed = PIL.Image.open(io.BytesIO(splits["train"][name]["image"]))
    assert (fixed.format, fixed.mode) == ("JPEG", "RGB")
    original = PIL.Image.open(io.BytesIO(photograph(0, file_format="png")))
    difference = np.asarray(fixed, float) - np.asarray(original, float)
    assert np.abs(difference).mean() < 6


def test_the_recipe_reads_it(make_data, data_dir):
    imagenet = make_data("imagenet2012", data_dir=data_dir, test_split="validation", fields=IMAGE)
    assert (imagenet.num_train, imagenet.num_test) == (11, 4)
    batch = next(imagenet.train_batches(seed=0))
    assert batch["image"].shape == (6, 31, 31, 3)
    assert set(batch["label"]) <= {0, 59, 230}


def test_a_directory_without_tars_is_explained(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        prepare_data.main(["imagenet2012", f"--source={tmp_path}", f"--data_dir={tmp_path}"])
    assert exit_.value.code == 2
    assert "There is no ILSVRC2012_img_train.tar" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is not None, reason="it is installed")
def test_a_builder_that_needs_tensorflow_says_what_to_do(tars, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        prepare_data.main(
            ["tfds", "--name=imagenet2012", f"--source={tars}", f"--data_dir={tmp_path}"]
        )
    assert exit_.value.code == 2
    assert "perceiver-haiku[tensorflow]" in capsys.readouterr().err
