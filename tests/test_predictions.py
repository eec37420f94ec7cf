"""What a run predicts of files, texts, frames and clips, for people."""

import dataclasses
import itertools
import types

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import PIL.Image
import pytest

import perceiver_jax
from perceiver_jax import config as config_lib
from perceiver_jax import data, predictions, tiles
from perceiver_jax.data.builders import isolated
from perceiver_jax.data.fields import text
from perceiver_jax.tasks import flow_colours
from tests import random_runs
from tests.data import media
from tests.data.photographs import photograph


@pytest.fixture(scope="module")
def classifier():
    return random_runs.classifier()


@pytest.fixture(scope="module")
def language():
    return random_runs.language()


@pytest.fixture(scope="module")
def flow():
    return random_runs.flow()


@pytest.fixture(scope="module")
def clips():
    return random_runs.clips()


def test_pictures_become_the_names_of_the_likeliest_classes(classifier):
    pictures = [photograph(number) for number in range(3)]
    answers = classifier.predict(*pictures, k=2, batch_size=2)
    batch = classifier.prepare(*pictures)
    probabilities = jax.nn.softmax(classifier(batch)["label"])
    names = classifier.class_names["label"]
    for answer, expected in zip(answers, probabilities, strict=True):
        (first, p), (second, q) = answer["label"]
        order = np.argsort(-expected)
        assert [first, second] == [names[order[0]], names[order[1]]]
        np.testing.assert_allclose([p, q], expected[order[:2]], rtol=1e-5)


def test_messages_count_examples_over_batches(classifier):
    with pytest.raises(config_lib.UserError, match="Can't read example 2: empty"):
        classifier.predict(photograph(0), photograph(1), b"", batch_size=2)
    with pytest.raises(config_lib.UserError, match="Can't read example 0: no pixels: 0 x 3"):
        classifier.predict(PIL.Image.new("L", (0, 3)))
    with pytest.raises(config_lib.UserError, match="k is 0; expected at least 1"):
        classifier.predict(photograph(0), k=0)


def test_what_can_not_be_read_has_an_error_in_its_place_and_the_others_go_on(classifier, tmp_path):
    (tmp_path / "dog.jpg").write_bytes(photograph(0)[:700])
    refused = config_lib.UserError("line 5 is no JSON")
    given = [b"", photograph(0), tmp_path / "dog.jpg", data.Example("cat", photograph(1))]
    given += [data.Example("lines:5", refused), photograph(2), b"", b"", b"", b"", b""]
    found = list(classifier.predict_each(iter(given), k=1, batch_size=2))
    names = ["example 0", "example 1", str(tmp_path / "dog.jpg"), "cat", "lines:5", "example 5"]
    assert [one.name for one in found] == [*names, *(f"example {i}" for i in range(6, 11))]
    assert [i for i, one in enumerate(found) if one.error is None] == [1, 3, 5]
    assert [one.answer for one in found if one.answer] == classifier.predict(
        *(photograph(i) for i in range(3)), k=1, batch_size=2
    )
    messages = [str(one.error) for one in found if one.error]
    assert messages[0].startswith("Can't read example 0: empty. Expected an image file")
    assert messages[1].startswith(f"Can't read example 2 ({tmp_path}/dog.jpg): truncated")
    assert messages[2] == "line 5 is no JSON"


def test_examples_are_taken_as_they_are_needed(classifier):
    taken = []

    def endless():
        for i in itertools.count():
            taken.append(i)
            yield photograph(0)

    answers = classifier.predict_each(endless(), batch_size=2)
    for _ in range(5):
        next(answers)
    assert len(taken) <= 5 + 3 * 2 + 2 * isolated.num_cores()
    answers.close()


@pytest.mark.parametrize("latents", ["pooled", "whole"])
def test_latents_come_with_the_answers_they_gave(classifier, latents):
    pictures = [photograph(number) for number in range(3)]
    expected = classifier.model.latents(
        classifier.params, classifier.prepare(*pictures), pooled=latents == "pooled"
    )
    found = list(classifier.predict_each(pictures, k=3, batch_size=2, latents=latents))
    np.testing.assert_allclose([one.latents for one in found], expected, rtol=1e-4, atol=1e-5)
    for one, answer in zip(found, classifier.predict(*pictures, k=3), strict=True):
        assert [name for name, _ in one.answer["label"]] == [name for name, _ in answer["label"]]
        probabilities = [[p for _, p in x["label"]] for x in (one.answer, answer)]
        np.testing.assert_allclose(*probabilities, atol=1e-6)


def test_numbers_that_are_not_finite_are_no_answer(classifier):
    broken = dataclasses.replace(
        classifier, params=jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), classifier.params)
    )
    (one,) = broken.predict_each([data.Example("a cat", photograph(0))])
    assert one.answer is None and "a cat: What comes out of the model is NaN" in str(one.error)


@pytest.mark.parametrize("kind", ["flow", "language", "clips"])
def test_nor_are_bytes_pixels_and_tiles_of_them(kind):
    run = getattr(random_runs, kind)()
    broken = dataclasses.replace(
        run, params=jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), run.params)
    )
    frames = np.zeros((2, 7, 11, 3), np.uint8)
    example = {
        "flow": frames,
        "language": "a [MASK]",
        "clips": {
            "video": (np.zeros((2, 8, 8, 3), np.uint8), 25),
            "audio": (np.ones(3_840, np.float32), 48_000),
        },
    }[kind]
    (one,) = broken.predict_each([example])
    assert one.answer is None and "What comes out of the model is NaN" in str(one.error)


class Number:
    """A kind of input of one's own: a number, of which each window is a little higher."""

    feature, has_windows, is_target = "number", True, False

    def zeros(self):
        return np.zeros(1, np.float32)

    def read(self, value, window, rng):
        return np.array([value + window / 4], np.float32)


def test_windows_are_averaged_and_batches_have_one_size():
    sizes = []

    class Stub:
        config = ml_collections.ConfigDict(
            {"model": {"inputs": {"x": {}}, "outputs": {"label": {"kind": "mean_pool"}}}}
        )
        task = types.SimpleNamespace(predict=lambda outputs: outputs, outputs={"label": 2})
        fields, class_names = {"x": Number()}, {"label": ("a", "b")}

        def reader(self, num_windows, up):
            return data.make_reader(self.fields, num_windows=num_windows, up=up)

        def __call__(self, batch):
            sizes.append(len(batch["x"]))
            return {"label": jnp.concatenate([batch["x"], 1 - batch["x"]], axis=1)}

    answers = predictions.predict(Stub(), [0.5, 0.25, 0.0], num_windows=3, batch_size=2)
    assert sizes == [6, 6]  # The last is filled up: nothing is compiled for it.
    assert [dict(answer["label"])["a"] for answer in answers] == [0.625, 0.375, 0.125]


def test_at_most_all_classes_are_named_and_equal_ones_in_their_order():
    best = predictions.likeliest(np.array([0.25, 0.5, 0.25]), ("a", "b", "c"), k=7)
    assert best == [("b", 0.5), ("a", 0.25), ("c", 0.25)]


def test_gaps_are_filled_and_the_rest_of_a_text_stays(language):
    (answer, whole) = language.predict("Was is[MASK][MASK]? ä", "no gaps")
    batch = language.prepare("Was is[MASK][MASK]? ä")
    best = np.asarray(language(batch)["text"])[0].argmax(axis=-1)  # CLS is at 0.
    ids = np.concatenate([text.encode(b"Was is"), best[7:9], text.encode("? ä".encode())])
    assert answer == {"text": text.decode(ids)}
    assert whole == {"text": "no gaps"}


def test_a_text_that_can_not_be_read_is_not_taken_for_the_name_of_a_file():
    fields = {"letter": text.Text(5)}
    with pytest.raises(config_lib.UserError, match="^Can't read example 0: not UTF-8") as raised:
        data.prepare(["\ud800 " + 99 * "x"], fields)
    assert str(raised.value).isascii()


def test_frames_of_a_tile_are_what_the_model_says(flow):
    frames = np.random.default_rng(0).integers(256, size=(2, 7, 11, 3), dtype=np.uint8)
    (answer,) = flow.predict(frames)
    expected = flow({"frames": frames[None]})["flow"][0]
    np.testing.assert_allclose(answer["flow"], expected, rtol=1e-4, atol=1e-5)


def test_large_frames_are_computed_in_tiles_and_small_ones_continued(flow):
    large = np.random.default_rng(0).integers(256, size=(2, 13, 17, 3), dtype=np.uint8)
    files = tuple(PIL.Image.fromarray(x) for x in large)
    small = large[:, :5, :8]
    for answer, pair in zip(flow.predict(files, {"frames": small}), (large, small), strict=True):
        expected = tiles.blend(
            lambda tile: np.asarray(flow({"frames": tile[None]})["flow"][0]), pair, (7, 11), 3
        )
        assert answer["flow"].shape == (*pair.shape[1:3], 2)
        np.testing.assert_allclose(answer["flow"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (photograph(0), "not a pair: one bytes"),
        ([photograph(0)] * 3, "not a pair: 3 images"),
        ((photograph(0), photograph(0, (30, 20))), "two sizes: 75 x 50 and 30 x 20 pixels"),
        (np.zeros((2, 7, 11, 3)), "wrong form: float64"),
        ({"frame": 1}, "expected one of \\['frames'\\]"),
        ({}, "not a pair"),
    ],
)
def test_what_is_no_pair_is_refused(flow, pair, message):
    with pytest.raises(config_lib.UserError, match=message):
        flow.predict(pair)


def test_flows_become_pictures(flow, tmp_path):
    field = np.zeros((3, 5, 2), np.float32)
    field[1, 2] = 3, 0
    picture = np.asarray(perceiver_jax.flow_picture(field))
    assert picture.shape == (3, 5, 3)
    assert picture[1, 2].tolist() == [255, 0, 0] and picture[0, 0].tolist() == [255] * 3
    half = np.asarray(flow_colours.flow_picture(field, longest=6.0))
    assert half[1, 2].tolist() == [255, 128, 128]


def test_a_clip_is_reconstructed_without_its_label(clips, tmp_path):
    media.write_clip(tmp_path / "clip.mp4", seconds=0.5)
    (answer,) = clips.predict(tmp_path / "clip.mp4", k=1)
    assert sorted(answer) == ["audio", "label", "video"]
    assert (answer["video"].shape, answer["video"].dtype) == ((2, 8, 8, 3), np.uint8)
    assert answer["audio"].shape == (3_840,) and np.abs(answer["audio"]).max() <= 1
    assert answer["label"][0][0] in clips.class_names["label"]
    batch = clips.prepare(tmp_path / "clip.mp4")
    known = clips(batch | {"label": batch["label"] + 2})
    for name, output in clips(batch).items():
        np.testing.assert_array_equal(output, known[name])
    with pytest.raises(config_lib.UserError, match="num_windows is 2; expected 1"):
        clips.predict(tmp_path / "clip.mp4", num_windows=2)


@pytest.mark.parametrize(
    "examples, arguments, message",
    [
        ((), {}, "Got no example"),
        (((photograph(0), photograph(0)),), {"num_windows": 2}, "num_windows is 2"),
        (((photograph(0), photograph(0)),), {"up": "q"}, "Unknown axis in up 'q'"),
    ],
)
def test_arguments_that_frames_have_no_use_for_are_refused(flow, examples, arguments, message):
    with pytest.raises(config_lib.UserError, match=message):
        flow.predict(*examples, **arguments)


def test_frames_of_any_size_have_no_latents(flow):
    with pytest.raises(config_lib.UserError, match="latents is 'whole', but frames of any size"):
        flow.predict_each([], latents="whole")
    with pytest.raises(config_lib.UserError, match="Unknown latents 'pool'.*Did you mean 'pooled'"):
        flow.predict_each([], latents="pool")
