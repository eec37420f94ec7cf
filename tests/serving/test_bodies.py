"""Bodies of requests become examples, and nothing that they name is opened."""

import base64
import json
import pathlib

import numpy as np
import pytest

from perceiver_jax import config
from perceiver_jax.data import fields as fields_lib
from perceiver_jax.data.fields import array
from perceiver_jax.serving import bodies

FIELDS = {
    "audio": fields_lib.FIELDS["audio"](7),
    "frames": fields_lib.FIELDS["frames"]((3, 5)),
    "image": fields_lib.FIELDS["image"](7),
    "numbers": array.Array("numbers", (3,), np.dtype("float32")),
    "text": fields_lib.FIELDS["text"](11),
    "video": fields_lib.FIELDS["video"](2, 7),
}
HOSTILE = (
    "/etc/passwd",
    "file:///etc/passwd",
    "http://127.0.0.1/x",
    "../x",
    str(pathlib.Path(__file__)),
)


def only(*names):
    return {name: FIELDS[name] for name in names}


def form(*parts, end=b"--b--\r\n"):
    """A form of (name, content) or (name, content, file name)."""
    body = b""
    for name, content, *file in parts:
        filename = f'; filename="{file[0]}"' if file else ""
        head = f'--b\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    return "multipart/form-data; boundary=b", body + end


def as_json(*examples):
    return "application/json", json.dumps({"examples": examples}).encode()


def read(body, *names):
    return bodies.read(*body, only(*names), max_examples=3)


def encoded(content):
    return {"base64": base64.b64encode(content).decode()}


def test_files_by_name_are_examples_in_their_order():
    body = form(
        ("image", b"1", "a"), ("text", b"x"), ("image", b"2", "/etc/passwd"), ("text", b"y")
    )
    assert read(body, "image", "text") == [
        {"image": b"1", "text": b"x"},
        {"image": b"2", "text": b"y"},
    ]


def test_a_whole_example_is_called_file():
    assert read(form(("file", b"\0\r\n--c", "a"), ("file", b"", "b")), "audio", "video") == [
        b"\0\r\n--c",
        b"",
    ]


def test_two_pictures_are_a_pair_of_frames():
    parts = [("frames", bytes([i]), "a") for i in range(4)]
    expected = [{"frames": (b"\0", b"\1")}, {"frames": (b"\2", b"\3")}]
    assert read(form(*parts), "frames") == expected
    assert read(as_json([encoded(b"\0"), encoded(b"\1")]), "frames") == expected[:1]


def test_json_has_values_by_name_or_the_only_one():
    assert read(as_json("a text", {"text": "another"}), "text") == [
        {"text": "a text"},
        {"text": "another"},
    ]
    assert read(as_json({"image": encoded(b"\xff"), "text": "x"}), "image", "text") == [
        {"image": b"\xff", "text": "x"}
    ]
    assert read(as_json(encoded(b"clip")), "audio", "video") == [b"clip"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (as_json(*range(4)), "Got 4 examples or windows; expected at most 3. Send them in several"),
        (form(*[("image", b"x", "a")] * 7), "Got a form of more than 6 parts"),
        (
            as_json([0] * 2**22),
            "Got JSON of 4,194,343 numbers, .* at most 4,194,304",
        ),
        (as_json([[0]] * 400_000), "Got JSON of 4,400,039 numbers, with 10 for each list and key"),
        (as_json({str(i): 0 for i in range(400_000)}), "Got JSON of 4,400,039 numbers"),
        (form(*[("image", b"[" + b"0," * 2**21 + b"0]")] * 2), "Got JSON of 4,194,324 numbers"),
    ],
)
def test_more_than_the_model_has_a_use_for_is_refused_before_it_is_read(body, message, monkeypatch):
    monkeypatch.setattr(bodies, "_value", lambda *args: pytest.fail("reads it"))
    with pytest.raises(bodies.TooLargeError, match=message):
        read(body, "image")


def test_as_many_numbers_as_the_examples_need_are_read(monkeypatch):
    monkeypatch.setattr(bodies, "_MANY", 0)
    picture = np.zeros((7, 7, 3), int).tolist()
    assert len(read(as_json(picture, picture, picture), "image")) == 3


def test_numbers_are_arrays_of_the_types_that_are_read():
    ((pixels,), (numbers,), (sound,), (film,)) = (
        read(as_json(value), name)
        for name, value in (
            ("image", [[[0, 255, 7]]]),
            ("numbers", [1, 2.5, 3]),
            ("audio", {"samples": [0, 0.5], "rate": 8000}),
            ("video", {"frames": [[[[1, 2, 3]]]], "rate": 5}),
        )
    )
    assert pixels["image"].dtype == np.uint8 and pixels["image"].tolist() == [[[0, 255, 7]]]
    assert numbers["numbers"].tolist() == [1, 2.5, 3]
    assert sound["audio"][0].dtype == np.float32 and sound["audio"][1] == 8000
    assert film["video"][0].shape == (1, 1, 1, 3) and film["video"][1] == 5
    (part,) = read(form(("numbers", b"[1, 2, 4]")), "numbers")
    assert part["numbers"].tolist() == [1, 2, 4]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("name", ["audio", "frames", "image", "numbers", "video"])
def test_a_string_is_never_the_name_of_a_file(name, value):
    for body in (
        as_json(value),
        as_json({name: value}),
        form((name, value.encode())),
        form((name, json.dumps(value).encode())),
    ):
        with pytest.raises(config.UserError, match="Names of files and addresses are never opened"):
            read(body, name)


@pytest.mark.parametrize("value", HOSTILE)
def test_a_string_for_a_text_is_that_text(value):
    assert read(as_json(value), "text") == [{"text": value}]
    assert read(form(("text", value.encode())), "text") == [{"text": value.encode()}]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (as_json(), "Got no example"),
        (form(), "Got no example"),
        (form(("images", b"1", "a")), "Unknown part of the form 'images'.*Did you mean 'image'"),
        (form(("image", b"1", "a"), end=b""), "a form without its end"),
        (("multipart/form-data", b"--b"), "a damaged form"),
        (("multipart/form-data; boundary=b", b"\0" * 99), "a damaged form"),
        (form(("image", b"\xff\xfe")), "Got a string for 'image'"),
        (form(("file", b"1", "a"), ("image", b"1", "a")), "'file' alone"),
        (("application/json", b"[" * 100_000), "what is no JSON"),
        (("application/json", b'{"examples": [1e999, NaN]}'), "NaN is no number"),
        (("application/json", b'{"examples": [' + b"9" * 9999 + b"]}"), "what is no JSON"),
        (("application/json", b"\xff"), "what is no JSON"),
        (("application/json", b"{}"), "JSON with the keys"),
        (("application/json", b'{"examples": {}}'), "examples that are a dict"),
        (as_json({"base64": "?"}), "no base64"),
        (as_json({"base64": 3}), "no base64"),
        (as_json({"path": "/etc/passwd"}), "'image' with the keys"),
        (as_json({"image": {"path": "x"}}), "'image' with the keys"),
        (as_json({"image": [[0, 1], [2]]}), "make no array"),
        (as_json({"image": [[0, 256]]}), "whole numbers from 0 to 255"),
        (as_json({"image": [[0, 0.5]]}), "whole numbers from 0 to 255"),
        (as_json({"image": [["0"]]}), "no numbers for 'image'"),
        (as_json({"image": []}), "no numbers for 'image'"),
        (as_json({"image": None}), "'image' with NoneType"),
        (as_json({"image": True}), "'image' with bool"),
        (as_json({"image": [[0]], "label": 3}), "Unknown input 'label'"),
    ],
)
def test_what_is_no_example_is_refused_in_one_line(body, message):
    with pytest.raises(config.UserError, match=message) as raised:
        read(body, "image")
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 600


def test_as_many_parts_of_each_input_are_needed():
    with pytest.raises(config.UserError, match="{'image': 2, 'text': 1}; expected as many of each"):
        read(form(("image", b"", "a"), ("text", b"x"), ("image", b"", "a")), "image", "text")
    with pytest.raises(config.UserError, match="1 pictures of 'frames'; expected two"):
        read(form(("frames", b"1", "a")), "frames")


@pytest.mark.parametrize("kind", ["", "text/plain", "application/octet-stream", "\xff" * 200])
def test_other_types_of_bodies_are_refused(kind):
    with pytest.raises(bodies.UnsupportedTypeError, match="expected multipart/form-data"):
        read((kind, b"x"), "image")
