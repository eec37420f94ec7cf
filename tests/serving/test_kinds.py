"""Every kind of input is answered as `Run.predict` answers it, and recordings over time."""

import asyncio
import base64
import contextlib
import io
import json

import jax
import numpy as np
import PIL.Image
import pytest

from perceiver_jax.serving import about, answers, decoding, limits, service
from perceiver_jax.tasks import flow_colours
from tests.data import media, shape_files
from tests.serving import small
from tests.serving.test_bodies import as_json, form

MEAN = (0.5, 0.5, 0.5)
CLASSES = ("walking", "running", "sitting")
MEASURED = [
    f"perceiver_{name}_count"
    for name in ("batch_rows", "batch_wait_seconds", "decode_seconds", "model_seconds")
]


@contextlib.contextmanager
def service_of(run, **given):
    """Gives what answers for a model, without a server."""
    served = service.Service(run, limits.Limits(**given), batch_sizes=(1,))
    try:
        yield served
    finally:
        served.end()


def ask(run, *bodies, **options):
    """Returns the answers to each body."""
    with service_of(run) as served:
        return [asyncio.run(served.predict(*body, **options)) for body in bodies]


def as_sent(predicted):
    return [json.loads(json.dumps(answers.to_json(x))) for x in predicted]


def encode(pixels):
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, format="png")
    return file.getvalue()


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A second of it, as a file."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    media.write_clip(path, 1.0)
    return path.read_bytes()


def test_texts_are_read_from_json_and_forms():
    run = small.Stub(small.three_classes, CLASSES, text={"kind": "text", "max_length": 11})
    expected = as_sent(run.predict("Was ist das?", "/etc/passwd"))
    body = form(("text", b"Was ist das?"), ("text", b"/etc/passwd", "x"))
    assert ask(run, as_json("Was ist das?", "/etc/passwd"), body) == [expected, expected]
    with service_of(run) as served:
        with pytest.raises(decoding.RefusedError, match="none of the inputs"):
            asyncio.run(served.predict(*as_json("x"), num_windows=2))


def test_flow_of_frames_larger_than_the_model_is_computed_in_tiles():
    def compute(batch):
        return {"flow": batch["frames"][:, 0, ..., :2] / 32 - batch["frames"][:, 1, ..., :2] / 7}

    section = {"kind": "frames", "image_size": (7, 11)}
    run = small.Stub(compute, frames=section, flow=section | {"kind": "flow"})
    frames = np.random.default_rng(0).integers(256, size=(2, 9, 13, 3), dtype=np.uint8)
    pair = form(*(("frames", encode(frame), "x") for frame in frames))
    (expected,) = run.predict(frames)
    with service_of(run) as served:
        ((lists,), (npy,), (png,)) = (
            asyncio.run(served.predict(*pair, arrays=arrays)) for arrays in answers.ARRAYS
        )
        with pytest.raises(decoding.RefusedError, match="none of the inputs"):
            asyncio.run(served.predict(*pair, num_windows=2))
    assert [lists] == as_sent([expected])
    found = np.load(io.BytesIO(base64.b64decode(npy["flow"]["npy"])))
    np.testing.assert_array_equal(found, expected["flow"])
    shown = PIL.Image.open(io.BytesIO(base64.b64decode(png["flow"]["png"])))
    np.testing.assert_array_equal(shown, flow_colours.flow_picture(expected["flow"]))


def test_clips_and_their_arrays_in_json_are_read(clip):
    audio, video = {"kind": "audio", "num_samples": 3_840}, {"kind": "video", "num_frames": 2}
    run = small.Stub(small.three_classes, CLASSES, audio=audio, video=video | {"image_size": 8})
    rng = np.random.default_rng(0)
    samples = rng.uniform(-0.5, 0.5, 5_000).astype(np.float32)
    frames = rng.integers(256, size=(7, 9, 11, 3), dtype=np.uint8)
    body = as_json(
        {
            "audio": {"samples": samples.tolist(), "rate": 48_000},
            "video": {"frames": frames.tolist(), "rate": 25},
        }
    )
    given = {"audio": (samples, 48_000), "video": (frames, 25)}
    assert ask(run, body, form(("file", clip, "x")), num_windows=3) == [
        as_sent(run.predict(given, num_windows=3)),
        as_sent(run.predict(clip, num_windows=3)),
    ]


def test_what_is_measured_is_of_requests_alone():
    run = small.Stub(small.three_classes, CLASSES, text={"kind": "text", "max_length": 11})

    def measured(served):
        lines = (line.split() for line in served.metrics.text().decode().splitlines())
        return {name: float(x) for name, x, *_ in lines if name in MEASURED}

    with service_of(run) as served:
        served.warm_up()
        assert measured(served) == dict.fromkeys(MEASURED, 0)
        asyncio.run(served.predict(*as_json("x")))
        assert measured(served) == dict.fromkeys(MEASURED, 1)


def test_shapes_are_read():
    run = small.Stub(small.three_classes, CLASSES, points={"kind": "point_cloud", "num_points": 17})
    points, mesh = np.random.default_rng(0).normal(size=(31, 3)), shape_files.box_off((1, 2, 3))
    assert ask(run, as_json(points.tolist()), form(("points", mesh, "x")), up="z") == [
        as_sent(run.predict(points, up="z")),
        as_sent(run.predict(mesh, up="z")),
    ]


def test_pictures_are_sent_as_png_and_what_is_no_number_as_null():
    frames = np.random.default_rng(0).integers(256, size=(3, 5, 7, 3), dtype=np.uint8)
    found = answers.to_json({"video": frames, "x": np.array([1.5, np.nan])}, "png")
    shown = np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(found["video"]["png"]))))
    np.testing.assert_array_equal(shown, np.concatenate(list(frames), axis=1))
    assert found["x"] == [1.5, None]


# ---------------------------------------------------------------- over time


@pytest.fixture(scope="module")
def film():
    """A model of frames that reads two parts, one after the other."""
    return small.classifier(
        "video",
        {"kind": "video", "num_frames": 2, "image_size": 8},
        {"kind": "video", "patch_size": (1, 4, 4), "mean": MEAN, "std": MEAN}
        | {"position_encoding": small.fourier(2, 2, 2)},
        CLASSES,
        layers=("cross_attend_0", "latent_transformer_0") * 2,
        reads=("video[0]", "video[1]"),
    )


def test_after_each_part_the_answer_is_that_of_the_last_few(film, clip):
    with service_of(film) as served:
        found = asyncio.run(served.over_time(*form(("file", clip, "clip.mp4"))))
        rows = served._decoder.read("over_time", *form(("file", clip, "x")), num_parts=2).rows
    np.testing.assert_allclose(found["seconds"], np.arange(1, 26) / 25, atol=1e-3)
    assert found["reads"] == "parts"
    by_name = {x["name"]: x["probabilities"] for x in found["classes"]}
    last = np.array([1, 2, 11, 24])
    pairs = {name: np.concatenate([x[last - 1], x[last]], axis=1) for name, x in rows.items()}
    expected = jax.nn.softmax(film(pairs)["label"])
    for number, name in enumerate(CLASSES):
        np.testing.assert_allclose(
            np.array(by_name[name])[last], expected[:, number], rtol=1e-4, atol=1e-5
        )


def test_other_models_answer_for_windows_that_overlap(clip):
    run = small.Stub(
        small.three_classes, CLASSES, video={"kind": "video", "num_frames": 5, "image_size": 8}
    )
    with service_of(run) as served:
        found = asyncio.run(served.over_time(*form(("video", clip, "clip.mp4"))))
    assert found["reads"] == "windows" and len(found["seconds"]) == 17
    np.testing.assert_allclose(found["seconds"], 0.1 + 0.05 * np.arange(17), atol=1e-3)
    probabilities = np.array([x["probabilities"] for x in found["classes"]])
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-5)
    (expected,) = run.predict(clip, num_windows=17, k=3)
    for each in found["classes"]:
        mean = np.mean(each["probabilities"])
        assert dict(expected["label"])[each["name"]] == pytest.approx(mean, abs=1e-5)


def test_what_is_no_recording_has_no_answer_over_time(clip):
    audio, video = {"kind": "audio", "num_samples": 3_840}, {"kind": "video", "num_frames": 2}
    run = small.Stub(small.three_classes, CLASSES, audio=audio, video=video | {"image_size": 8})
    with service_of(run) as served:
        for body in (
            as_json({"audio": {"samples": [0.1] * 99, "rate": 8000}}),
            form(("audio", clip, "x"), ("video", clip, "y")),
            form(("file", clip, "x"), ("file", clip, "y")),
        ):
            with pytest.raises(decoding.RefusedError, match="expected one file of video or audio"):
                asyncio.run(served.over_time(*body))
    with service_of(run, clip_seconds=0.5) as served:
        for answer in (served.over_time, served.predict):
            with pytest.raises(decoding.RefusedError, match="long: 1.0 s; expected at most 0.5"):
                asyncio.run(answer(*form(("file", clip, "x"))))


def test_a_model_is_described(film):
    described = about.describe(film, limits.Limits(), ["a.mp4"])
    assert json.dumps(described)
    assert described["over_time"] == "parts" and described["one_file"] and described["windows"]
    assert [x["reads"] for x in described["layers"]] == ["video[0]", "video[1]"]
    assert [(x["name"], x["seconds"]) for x in described["inputs"]] == [("video", 0.08)]
