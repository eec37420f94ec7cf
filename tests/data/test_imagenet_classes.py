import pathlib

import tensorflow_datasets as tfds

from perceiver_jax.data import imagenet_classes


def test_the_classes_are_in_the_order_of_imagenet():
    path = pathlib.Path(tfds.core.tfds_path("datasets/imagenet2012/labels.txt"))
    assert imagenet_classes.synsets() == tuple(path.read_text().split())


def test_every_class_has_a_name_and_those_that_everybody_knows_are_where_they_are():
    names = imagenet_classes.names()
    assert len(names) == 1000 and all(name == name.strip() != "" for name in names)
    known = {0: "tench", 1: "goldfish", 281: "tabby", 388: "giant panda", 999: "toilet tissue"}
    assert {place: names[place].split(",")[0] for place in known} == known
    assert [place for place, name in enumerate(names) if name == "crane"] == [134, 517]
