"""The body of a request -> examples as `Run.prepare` takes them; nothing it names is opened.

A form (`multipart/form-data`) has a part for each input of each example, by the input's name; the
second parts of all names are of the second example, and so on. A part called `file` is an example
whole. JSON is `{"examples": [...]}`, each a value, or values by name of the input:

- `{"base64": "..."}`: the contents of a file;
- a string, of a text;
- lists of numbers: an array; pixels are whole numbers from 0 to 255;
- `{"samples": [...], "rate": 16000}`, `{"frames": [...], "rate": 25}`: of sound and video;
- two of these in a list, of a pair of frames.
"""

import base64
import collections
from collections.abc import Mapping
import itertools
import json
from typing import Any, NoReturn

import numpy as np

from perceiver_jax import config
from perceiver_jax.data import fields as fields_lib

FILE = "file"  # The part of a form that is an example whole.
FORM, JSON = "multipart/form-data", "application/json"

_PIXELS = ("frames", "image", "video")  # Features whose arrays are of bytes.
_WITH_RATE = {"audio": "samples", "video": "frames"}  # What an array with a rate is called.
_EXPECTED = {
    "audio": 'a file, or {"samples": [...], "rate": samples a second}',
    "frames": "two pictures",
    "text": "a text",
    "video": 'a file, or {"frames": [...], "rate": frames a second}',
}

# JSON may have so many numbers, which take a second to be read; or so many times what the model
# reads of all examples that there may be, where each three numbers are a list.
_MANY, _TIMES = 2**22, 5
_LIST = 10  # Numbers that take as long as a list, or a key.

Fields = Mapping[str, fields_lib.Field]  # Of the inputs, by name.


class TooLargeError(config.UserError):
    """A body with more than the model has a use for."""


class UnsupportedTypeError(config.UserError):
    """A body of a type that is not read."""


def read(content_type: str, body: bytes, fields: Fields, max_examples: int) -> list[Any]:
    """Returns the examples of a body.

    Args:
        content_type: the header.
        body: what came with it.
        fields: of the inputs, by name.
        max_examples: that it may have.

    Raises:
        UnsupportedTypeError: it is neither a form nor JSON.
        TooLargeError: it has more examples, or JSON with many more numbers than they need.
        config.UserError: it can't be read, or has not what the inputs need.
    """
    from python_multipart import multipart  # Here: only processes that read bodies need it.

    kind, options = multipart.parse_options_header(content_type)
    if kind == FORM.encode():
        examples = _of_form(body, options.get(b"boundary", b""), fields, max_examples)
    elif kind == JSON.encode():
        examples = _of_json(body, fields, max_examples)
    else:
        raise UnsupportedTypeError(
            f"Got a body of type {content_type[:80]!r}; expected {FORM} (files) or {JSON}. Set the "
            "header Content-Type."
        )
    if not examples:
        _refuse("no example", "at least one, such as a part with a file")
    return examples


def _of_form(body: bytes, boundary: bytes, fields: Fields, max_examples: int) -> list[Any]:
    parts = collections.defaultdict(list)
    split = _split(body, boundary, 2 * len(fields) * max_examples)
    typed = b"".join(content for _, is_file, content in split if not is_file)
    _check_numbers(typed, fields, max_examples)
    for name, is_file, content in split:
        config.check_known("part of the form", name, dict.fromkeys([*fields, FILE]))
        field = fields.get(name)
        if not is_file and name in fields:
            content = _of_text(name, field, content)
        parts[name].append(content)
    if FILE in parts and FILE not in fields:
        if len(parts) > 1:
            _refuse(f"parts {sorted(parts)}", f"{FILE!r} alone, or inputs by their names")
        return parts[FILE]
    for name, values in parts.items():
        if fields[name].feature == "frames":
            if len(values) % 2:
                _refuse(f"{len(values)} pictures of {name!r}", "two of each example")
            parts[name] = list(zip(values[::2], values[1::2], strict=True))
    counts = {name: len(values) for name, values in parts.items()}
    if len(set(counts.values())) > 1:
        _refuse(f"so many parts by name: {counts}", "as many of each, one an example")
    return [dict(zip(parts, values, strict=True)) for values in zip(*parts.values(), strict=True)]


def _split(body: bytes, boundary: bytes, most: int) -> list[tuple[str, bool, bytes]]:
    """Returns the name of each part, whether it is a file, and its content."""
    from python_multipart import exceptions, multipart

    parts, ended = [], []

    def add(name: bytes | None, is_file: bool, content: bytes) -> None:
        if len(parts) == most:
            raise TooLargeError(
                f"Got a form of more than {most} parts; expected at most so many, for the examples "
                "of a request. Send them in several."
            )
        parts.append(((name or b"").decode(errors="replace"), is_file, content))

    def add_file(file: Any) -> None:
        file.file_object.seek(0)
        add(file.field_name, True, file.file_object.read())

    def add_field(field: Any) -> None:
        add(field.field_name, False, field.value or b"")

    try:
        parser = multipart.FormParser(
            FORM,
            add_field,
            add_file,
            on_end=lambda: ended.append(True),
            boundary=boundary,
            config={"MAX_MEMORY_FILE_SIZE": len(body) + 1},  # No files.
        )
        parser.write(body)
        parser.finalize()
    except exceptions.FormParserError as error:
        _refuse(f"a damaged form ({error})", "one as of a browser or of curl")
    if not ended:
        _refuse("a form without its end", "all of it")
    return parts


def _of_text(name: str, field: fields_lib.Field, content: bytes) -> Any:
    """The value of a part that is no file: a text, or else JSON."""
    if field.feature == "text":
        return content
    try:
        return _value(name, field, _loads(content))
    except config.UserError:
        _refuse_string(name, field)


def _of_json(body: bytes, fields: Fields, max_examples: int) -> list[Any]:
    _check_numbers(body, fields, max_examples)
    given = _loads(body)
    if not isinstance(given, dict) or list(given) != ["examples"]:
        found = _keys(given) if isinstance(given, dict) else type(given).__name__
        _refuse(f"JSON with {found[:200]}", '{"examples": [...]}')
    examples = given["examples"]
    if not isinstance(examples, list):
        _refuse(f"examples that are a {type(examples).__name__}", "a list of them")
    check_count(len(examples), max_examples)
    return [_example(example, fields) for example in examples]


def check_count(number: int, most: int) -> None:
    """Refuses too many examples, or windows of them.

    Raises:
        TooLargeError: there are more.
    """
    if number > most:
        raise TooLargeError(
            f"Got {number} examples or windows; expected at most {most}. Send them in several "
            "requests."
        )


def _check_numbers(text: bytes, fields: Fields, max_examples: int) -> None:
    """Refuses JSON that takes long to read, before it is read.

    Raises:
        TooLargeError: it has many more numbers and lists than the model has a use for.
    """
    size = sum(np.asarray(field.zeros()).size for field in fields.values())
    most = max(_MANY, _TIMES * size * max_examples)
    # Those within texts are counted as well, of which a model reads few.
    found = text.count(b",") + _LIST * sum(map(text.count, (b"[", b"{", b":")))
    if found > most:
        raise TooLargeError(
            f"Got JSON of {found:,} numbers, with {_LIST} for each list and key; expected at most "
            f"{most:,}, for the model reads far less. Send files, as a form or in base64, or "
            "smaller arrays."
        )


def _keys(given: dict[str, Any]) -> str:
    return f"the keys {sorted(itertools.islice(given, 9))}"


def _loads(text: bytes) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise config.UserError(
            f"Got what is no JSON: {type(error).__name__}: {config.said(error)}. Correct it."
        ) from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _example(given: Any, fields: Fields) -> Any:
    """An example: its values by name, or the only one."""
    names = list(fields)
    if isinstance(given, dict) and set(given) & set(names):
        for name in given:
            config.check_known("input", name, names)
        return {name: _value(name, fields[name], value) for name, value in given.items()}
    if isinstance(given, dict) and list(given) == ["base64"]:
        return _decoded(FILE, given["base64"])
    if len(names) == 1:
        return {names[0]: _value(names[0], fields[names[0]], given)}
    found = _keys(given) if isinstance(given, dict) else type(given).__name__
    _refuse(f"an example with {found}", f"values by the names of the inputs, {sorted(fields)}")


def _value(name: str, field: fields_lib.Field, given: Any) -> Any:
    feature = field.feature
    if isinstance(given, dict):
        key = _WITH_RATE.get(feature)
        if list(given) == ["base64"]:
            return _decoded(name, given["base64"])
        if key and set(given) == {key, "rate"}:
            return _array(name, feature, given[key]), given["rate"]
        _refuse_form(name, feature, _keys(given))
    if isinstance(given, str):
        return given if feature == "text" else _refuse_string(name, field)
    if feature == "frames" and isinstance(given, list) and any(isinstance(x, dict) for x in given):
        return tuple(
            _decoded(name, x["base64"])
            if isinstance(x, dict) and list(x) == ["base64"]
            else _refuse_form(name, feature, "another form of a picture")
            for x in given
        )
    if not isinstance(given, list | int | float) or isinstance(given, bool):
        _refuse_form(name, feature, type(given).__name__)
    return _array(name, feature, given)


def _decoded(name: str, given: Any) -> bytes:
    try:
        return base64.b64decode(given, validate=True)
    except (TypeError, ValueError) as error:
        raise config.UserError(
            f"Got no base64 for {name!r}: {config.said(error)}. Correct it."
        ) from error


def _array(name: str, feature: str, given: Any) -> np.ndarray:
    try:
        array = np.asarray(given)
    except (OverflowError, ValueError) as error:  # Of lists of different lengths, for instance.
        raise config.UserError(
            f"Got lists for {name!r} that make no array: {config.said(error)}. Make all rows alike."
        ) from error
    if array.dtype.kind not in "biuf" or not array.size:
        _refuse(f"no numbers for {name!r}", "lists of numbers")
    if feature == "audio":
        return array.astype(np.float32)
    if feature not in _PIXELS:
        return array
    if array.dtype.kind not in "iu" or array.min() < 0 or array.max() > 255:
        found = f"{array.dtype} from {array.min()} to {array.max()}"
        _refuse(f"{found} for {name!r}", "whole numbers from 0 to 255")
    return array.astype(np.uint8)


def _refuse_string(name: str, field: fields_lib.Field) -> NoReturn:
    expected = _EXPECTED.get(field.feature, "the contents of a file, or numbers")
    raise config.UserError(
        f"Got a string for {name!r}; expected {expected}. Names of files and addresses are never "
        'opened: send the contents, as a part with a filename, or as {"base64": "..."}.'
    )


def _refuse_form(name: str, feature: str, found: str) -> NoReturn:
    _refuse(f"{name!r} with {found}", _EXPECTED.get(feature, "a file, or lists of numbers"))


def _refuse(found: str, expected: str) -> NoReturn:
    raise config.UserError(f"Got {found}; expected {expected}. Correct the request.")
