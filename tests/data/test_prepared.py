"""Data sets of a user, prepared with TFDS, are used by name."""

import importlib.util
import io
import json

import numpy as np
import pytest
import tensorflow_datasets as tfds

from experiments import cli, prepare_data
from perceiver_jax import data
from perceiver_jax.data import datasets, features
from perceiver_jax.data.fields import label
from tests.data.conftest import encode_picture

IMAGE = {"image": {"kind": "image", "image_size": 11, "crop": "none"}}


class Flowers(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A set of a user, whose features have names of their own."""

    VERSION = tfds.core.Version("1.0.0")
    tags = False

    def _info(self):
        species = tfds.features.ClassLabel(names=["daisy", "rose", "tulip"])
        features = {
            "photo": tfds.features.Image(encoding_format="png"),
            "species": tfds.features.Sequence(species) if self.tags else species,
            "colour": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(7), "validation": self._generate_examples(5)}

    def _generate_examples(self, count):
        for i in range(count):
            photo = encode_picture(np.full((13, 11, 3), 10 * i, np.uint8))
            label = [i % 3, 0] if self.tags else i % 3
            yield i, {"photo": photo, "species": label, "colour": "red"}


class Sorted(Flowers, skip_registration=True):
    """With two features that are classes."""

    def _info(self):
        info = super()._info()
        seasons = tfds.features.ClassLabel(names=["spring", "summer"])
        features = dict(info.features.items()) | {"season": seasons}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _generate_examples(self, count):
        for key, example in super()._generate_examples(count):
            yield key, example | {"season": key % 2}


class Tagged(Flowers, skip_registration=True):
    tags = True


class ImagenetOfFlowers(Flowers, skip_registration=True):
    pass


class Deep(Flowers, skip_registration=True):
    """Pictures of 16 bits."""

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 1), dtype=np.uint16),
            "label": tfds.features.ClassLabel(num_classes=2),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _generate_examples(self, count):
        for i in range(count):
            pixels = np.full((13, 11), 9_000 * (i + 1), np.uint16)
            yield i, {"image": io.BytesIO(encode_picture(pixels)), "label": i % 2}


class Weighed(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Pictures without a class, of things that are measured."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "photo": tfds.features.Image(encoding_format="png"),
            "grams": tfds.features.Scalar(dtype=np.int64),
            "sides": tfds.features.Tensor(shape=(3,), dtype=np.float64),
            "seen": tfds.features.Sequence(tfds.features.Scalar(dtype=np.int64)),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(7), "validation": self._generate_examples(5)}

    def _generate_examples(self, count):
        for i in range(count):
            photo = encode_picture(np.full((13, 11, 3), 10 * i, np.uint8))
            sides = [i, np.nan if i == 6 else 0.5, 2.0]
            yield i, {"photo": photo, "grams": 100 + i, "sides": sides, "seen": [i] * i}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("prepared")
    for builder in (Flowers, Sorted, Tagged, ImagenetOfFlowers, Deep, Weighed):
        datasets.build(builder(data_dir=path))
    return str(path)


def flowers(make_data, data_dir, **changes):
    settings = {"data_dir": data_dir, "test_split": "validation", "fields": IMAGE}
    return make_data(**{"dataset": "flowers"} | settings | changes)


def test_a_set_on_disk_is_known_by_its_name_alone(make_data, data_dir):
    known = flowers(make_data, data_dir)
    assert known.fields["label"] == label.Label(3, multi_label=False)
    assert known.class_names("label") == ("daisy", "rose", "tulip")
    assert (known.num_train, known.num_test) == (7, 5)


def test_features_are_found_by_their_types(make_data, data_dir):
    (batch,) = flowers(make_data, data_dir).test_batches(5, 1)
    shown = batch["image"][:, 5, 5, 0] // 10
    assert sorted(shown) == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(batch["label"], shown % 3)


def test_pictures_of_16_bits_are_scaled(make_data, data_dir):
    settings = {"image": IMAGE["image"] | {"channels": 1}}
    (batch,) = flowers(make_data, data_dir, dataset="deep", fields=settings).test_batches(5, 1)
    assert sorted(batch["image"][:, 5, 5, 0]) == [35, 70, 105, 140, 175]  # A 257th.


@pytest.mark.parametrize(
    ("dataset", "upright"),
    [("flowers", True), ("imagenet_of_flowers", False), ("imagenet2012", False)],
)
def test_pictures_are_turned_upright_but_for_those_of_imagenet(
    make_data, data_dir, dataset, upright
):
    wanted = flowers(make_data, data_dir, dataset=dataset)
    assert wanted.fields["image"].upright is upright


def test_a_list_of_classes_makes_several_labels(make_data, data_dir):
    (batch,) = flowers(make_data, data_dir, dataset="tagged").test_batches(5, 1)
    shown = batch["image"][:, 5, 5, 0] // 10
    expected = np.eye(3)[shown % 3]
    expected[:, 0] = 1
    np.testing.assert_array_equal(batch["label"], expected)


@pytest.fixture
def weighed(data_dir):
    def make(number=None, **changes):
        fields = IMAGE | {"y": {"kind": "number"} | (number or {})}
        settings = {"dataset": "weighed", "data_dir": data_dir, "feature_names": "y=sides"}
        fixed = {"train_split": "train", "test_split": "validation", "batch_size": 7}
        off = {"num_workers": 0, "max_bad_records": 1, "mixup_alpha": 0.0, "cutmix_alpha": 0.0}
        return data.build_data(**settings | fixed | off | {"fields": fields} | changes)

    return make


@pytest.mark.parametrize(("feature", "least"), [("grams", [100.0]), ("sides", [0.0, 0.5, 2.0])])
def test_numbers_are_read_for_a_regression(weighed, feature, least):
    made = weighed(feature_names=f"y={feature}")
    (batch,) = made.test_batches(5, 1)
    assert batch["y"].dtype == np.float32
    np.testing.assert_array_equal(batch["y"].min(axis=0), least)
    assert made.zero_batch()["y"].shape == (7, len(least))
    made.check_labels()
    assert made.fingerprint()["classes"] == []


@pytest.mark.parametrize(("feature", "size"), [("species", 3), ("season", 2)])
def test_the_output_gets_the_size_of_the_label_that_is_named(data_dir, feature, size):
    _, config = cli.parse_command_line(
        cli.Parser(),
        [
            "--config=experiments/configs/imagenet.py:mini",
            "--config.data.dataset=sorted",
            f"--config.data.data_dir={data_dir}",
            f"--config.data.feature_names=label={feature}",
        ],
    )
    assert config.model.outputs.label.size == size
    assert config.data.test_split == "validation"


def test_an_embedded_set_tells_how_many_numbers_there_are(make_data):
    fields = {"points": {"kind": "point_cloud", "num_points": 101}, "size_cm": {"kind": "number"}}
    (batch,) = make_data("furniture11", fields=fields, test_split="test[:7]").test_batches(7, 1)
    assert batch["size_cm"].shape == (7, 3) and batch["size_cm"].min() > 1


def test_a_number_of_the_fields_own_name_comes_first(weighed):
    made = weighed(feature_names="", fields=IMAGE | {"grams": {"kind": "number"}})
    (batch,) = made.test_batches(5, 1)
    assert sorted(batch["grams"][:, 0]) == [100, 101, 102, 103, 104]


@pytest.mark.parametrize(("name", "told"), [("weighed", "no classes"), ("tagged", "Train on it")])
def test_a_set_without_classes_is_sent_to_other_tasks(data_dir, capsys, name, told):
    prepare_data.main(["tfds", f"--name={name}", f"--data_dir={data_dir}"])
    assert told in capsys.readouterr().out.splitlines()[-1]


def test_a_value_that_is_no_number_makes_a_bad_record(weighed):
    batches = weighed().train_batches(seed=0)
    next(batches)
    assert [record.cause for record in batches.bad_records.values()] == [
        "value that is no number: NaN, infinite or too large; expected finite ones"
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feature_names": ""}, "2 features for 'number'; expected one of .* to be 'y'"),
        ({"feature_names": "y=photo"}, "'photo'.*a Image of files; expected one of which 'y'"),
        ({"feature_names": "y=seen"}, r"numbers \[None\]; expected as many in each record"),
        ({"fields": {"label": {"kind": "label"}}, "feature_names": ""}, "no features of classes"),
        (
            {"dataset": "mnist5k"},
            "no feature 'sides'; expected one of .'image', 'label'. to be 'y'",
        ),
        ({"dataset": "imagenet2012"}, "Missing key config.data.fields.y.size"),
        ({"mixup_alpha": 0.2}, "target 'y' is no label; expected 0"),
    ],
)
def test_what_can_be_no_number_is_explained(weighed, changes, message):
    with pytest.raises(ValueError, match=message):
        weighed(**changes)


def test_a_label_may_have_any_name_and_be_one_of_several(make_data, data_dir):
    fields = IMAGE | {"kind_of_flower": {"kind": "label"}}
    made = flowers(make_data, data_dir, fields=fields)
    assert made.labels.keys() == {"kind_of_flower", "label"}
    assert made.class_names("kind_of_flower") == ("daisy", "rose", "tulip")
    (batch,) = made.test_batches(5, 1)
    np.testing.assert_array_equal(batch["kind_of_flower"], batch["label"])


def test_feature_names_of_the_config_come_first(make_data, data_dir):
    named = flowers(make_data, data_dir, feature_names="image=colour")
    with pytest.raises(data.BadDataError, match="colour red.*not an image"):
        next(named.test_batches(5, 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feature_names": "image=picture"}, r"no feature 'picture'.*\['colour', 'photo'"),
        ({"feature_names": "picture=photo"}, r"Unknown name.*'picture'.*\['image', 'label'\]"),
        ({"feature_names": "image"}, "expected pairs such as"),
        ({"feature_names": "label=colours"}, r"no feature 'colours'.*feature_names=label=FEATURE"),
        (
            {"fields": {"points": {"kind": "point_cloud", "num_points": 3}}},
            "no features for 'points'.*feature_names=points=FEATURE",
        ),
        ({"train_split": "training"}, r"no split 'training'.*\['train', 'validation'\]"),
        ({"dataset": "flower"}, "Did you mean 'flowers'"),
        ({"feature_names": "image=species"}, "'species'.*a ClassLabel of numbers; expected one"),
    ],
)
def test_what_a_set_does_not_have_is_explained(make_data, data_dir, changes, message):
    with pytest.raises(ValueError, match=message):
        wanted = flowers(make_data, data_dir, **changes)
        assert wanted.num_train and wanted.train_batches(seed=0)


def test_pictures_of_floats_which_tfds_stores_as_bits_are_refused():
    picture = tfds.features.Image(shape=(None, None, 1), dtype=np.float32)
    with pytest.raises(ValueError, match="'depth'.*an? Image of floats"):
        features.find(tfds.features.FeaturesDict({"depth": picture}), "x", "image")


def test_a_set_without_random_access_says_how_to_prepare_it_again(tmp_path):
    Flowers(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    info = tmp_path / "flowers" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(ValueError, match="stored as tfrecord.*experiments.prepare_data tfds"):
        datasets.lookup("flowers", str(tmp_path))


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is not None, reason="it is installed")
def test_a_feature_that_needs_tensorflow_is_explained(tmp_path):
    datasets.build(Flowers(data_dir=tmp_path))
    path = tmp_path / "flowers/1.0.0/features.json"
    features = json.loads(path.read_text())
    sound = {"pythonClassName": "tensorflow_datasets.core.features.audio_feature.Audio"}
    sound["audio"] = {"shape": {"dimensions": ["-1"]}, "dtype": "int64", "encoding": "none"}
    features["featuresDict"]["features"]["colour"] = sound
    path.write_text(json.dumps(features))
    with pytest.raises(ValueError, match="reads with TensorFlow, such as its Audio"):
        datasets.lookup("flowers", str(tmp_path))


def test_names_lists_what_is_on_disk(data_dir):
    assert datasets.names_on_disk(data_dir) == [
        "deep",
        "flowers",
        "imagenet_of_flowers",
        "sorted",
        "tagged",
        "weighed",
    ]


@pytest.mark.parametrize("version, found", [("1.0.0", True), ("1.*.*", True), ("[1].0.?", False)])
def test_a_version_is_no_pattern_of_files(data_dir, version, found):
    assert (datasets.find(f"flowers:{version}", data_dir) is not None) == found
