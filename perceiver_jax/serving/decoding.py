"""Bodies of requests -> rows of a batch, in processes whose time and memory are limited.

Those processes import this module: it needs neither TFDS nor JAX, which take seconds.
"""

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import importlib
import math
import pathlib
import tempfile
import traceback
from typing import Any, NamedTuple

import numpy as np

from perceiver_jax import config
from perceiver_jax.data import errors, inference, raw, streams
from perceiver_jax.data import fields as fields_lib
from perceiver_jax.data.builders import isolated
from perceiver_jax.data.fields import image as image_field
from perceiver_jax.serving import bodies
from perceiver_jax.serving import limits as limits_lib

Rows = dict[str, np.ndarray]

CLIP = frozenset(("audio", "video"))  # Features that a recording gives.
MAX_POINTS = 100  # In time, of a recording.
_OVERLAP = 4  # Windows that a point in time is in.
_IN_FILES = CLIP | {"points"}  # Their readers write bytes to a file.


class RefusedError(Exception):
    """The client has to send something else.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, message: str, status: int = 422):
        """Keeps what to say, and how."""
        super().__init__(message)
        self.status = status


class BrokenError(Exception):
    """Reading fails by a bug; the message is a traceback."""


class OverTime(NamedTuple):
    """A recording for answers over time.

    Attributes:
        seconds: where in it each row is: where a part ends, or the middle of a window.
        rows: parts that follow each other, or windows that overlap.
        are_parts: which of both.
    """

    seconds: list[float]
    rows: Rows
    are_parts: bool


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a process does: reads what a client sent as a model takes it.

    Attributes:
        fields: of the model, by name.
        may_lack: inputs that an example may lack.
        hidden: targets that the model gets zeros for.
        limits: of the server.
    """

    fields: Mapping[str, fields_lib.Field]
    may_lack: tuple[str, ...]
    hidden: tuple[str, ...]
    limits: limits_lib.Limits

    def __call__(self, request: Mapping[str, Any]) -> tuple[Any, ...]:
        """Returns 'read' and what, 'refused', why and a status, or 'broken' and a traceback."""
        tempfile.tempdir = request["scratch"]  # The server empties it if this process is ended.
        try:
            examples = bodies.read(
                request["content_type"], request["body"], self.inputs, self.limits.rows
            )
            return "read", getattr(self, request["what"])(examples, **request["options"])
        except RefusedError as error:
            return "refused", str(error), error.status
        except bodies.UnsupportedTypeError as error:
            return "refused", str(error), 415
        except bodies.TooLargeError as error:
            return "refused", str(error), 413
        except config.UserError as error:
            return "refused", str(error).replace(request["scratch"], ""), 422
        except MemoryError:
            size = self.limits.decode_mb
            return "refused", f"Reading it takes more than {size} MiB of memory. Send less.", 413
        except Exception:  # As text: not every error can travel.
            return "broken", traceback.format_exc()

    @property
    def inputs(self) -> dict[str, fields_lib.Field]:
        """What examples are made of, by name."""
        return {name: field for name, field in self.fields.items() if not field.is_target}

    def examples(self, examples: list[Any], num_windows: int, up: str) -> Rows:
        """Reads examples as `Run.prepare` does."""
        self._check(examples, len(examples) * num_windows)
        return self._rows(examples, num_windows, up)

    def pairs(self, examples: list[Any], name: str, num_windows: int) -> list[np.ndarray]:
        """Reads pairs of frames whole, uint8 [2, H, W, 3], which have one window."""
        self._check(examples, len(examples))
        fields_lib.check_windows(num_windows, self.inputs)
        return inference.read_pairs(examples, name)

    def over_time(self, examples: list[Any], num_parts: int) -> OverTime:
        """Reads a recording.

        Args:
            examples: one, a file of video or audio.
            num_parts: that the model reads one after the other; 1: all at once.
        """
        lengths = self._check(examples, 1)
        contents = [content for example in examples for content in _contents(example)]
        if len(lengths) != 1 or len(contents) != 1:
            raise config.UserError("Got no recording; expected one file of video or audio.")
        (seconds,), (content,) = lengths, contents
        if num_parts > 1:
            with _file(content) as path:
                parts = streams.read_parts(path, self.fields, num_parts, may_lack=self.may_lack)
                found = [part for part, _ in zip(parts, range(MAX_POINTS), strict=False)]
            if found:
                ends, rows = zip(*found, strict=True)
                rows = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
                return OverTime(list(ends), rows, True)
        from perceiver_jax.data.builders.clips import storage

        seconds = min(seconds, storage.MAX_SECONDS)
        window = min(seconds, *map(streams.seconds_of, self.inputs.values()))
        count = 1 + math.ceil((seconds - window) / (window / _OVERLAP) - 1e-6)
        places = fields_lib.windows(min(count, MAX_POINTS))
        middles = [window / 2 + (seconds - window) * place for place in places]
        return OverTime(middles, self._rows(examples, len(places)), False)

    def initialise(self) -> None:
        """Prepares a process: imports what is large, and sets its limits."""
        from python_multipart import multipart  # noqa: F401

        features = {field.feature for field in self.inputs.values()}
        image_field.MAX_PIXELS = self.limits.pixels
        if features & CLIP:
            from perceiver_jax.data.builders.clips import decode, storage

            storage.MAX_PIXELS = min(storage.MAX_PIXELS, self.limits.pixels)
            decode.initialise()
        if "points" in features:
            from perceiver_jax.data.builders.shapes import reading

            with contextlib.suppress(ImportError):  # Of meshes; arrays need none.
                reading.initialise()
        for name in ("librosa.filters", "scipy.signal") if "audio" in features else ():
            importlib.import_module(name)

    def _rows(self, examples: list[Any], num_windows: int, up: str = "y") -> Rows:
        kept = {"may_lack": self.may_lack, "hidden": self.hidden}
        reader = inference.make_reader(self.fields, num_windows=num_windows, up=up, **kept)
        # Here, one after the other: other processes read other requests.
        return reader.batch([row for i, x in enumerate(examples) for row in reader.read(i, x)])

    def _check(self, examples: list[Any], num_rows: int) -> list[float]:
        """Refuses too many rows, and recordings that are too long; returns their seconds."""
        bodies.check_count(num_rows, self.limits.rows)
        found = []
        for content in (x for example in examples for x in _contents(example, self._is_clip)):
            with _file(content) as path, raw.refusing("the recording", "clip"):
                found.append(self._seconds(path))
        return found

    def _is_clip(self, name: str | None) -> bool:
        fields = self.inputs.values() if name is None else [self.inputs[name]]
        return {field.feature for field in fields} <= CLIP

    def _seconds(self, path: pathlib.Path) -> float:
        from perceiver_jax.data.builders.clips import decode

        found = decode.seconds(str(path))
        if "error" in found:
            raise errors.BadDataError(*found["error"])
        if found["seconds"] > self.limits.clip_seconds:
            most = f"expected at most {self.limits.clip_seconds:g} s"
            raise errors.BadDataError("too long", f"{found['seconds']:.1f} s; {most}")
        return found["seconds"]


def _contents(example: Any, is_wanted=lambda name: True) -> list[bytes]:
    """The files of an example, whole or by names that are wanted."""
    given = example.items() if isinstance(example, dict) else [(None, example)]
    return [value for name, value in given if isinstance(value, bytes) and is_wanted(name)]


@contextlib.contextmanager
def _file(content: bytes) -> Iterator[pathlib.Path]:
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory, "file")
        path.write_bytes(content)
        yield path


class Decoder:
    """The processes, seen from the server."""

    def __init__(self, run: Any, limits: limits_lib.Limits, num_processes: int):
        """Starts none yet.

        Args:
            run: the model.
            limits: of the server.
            num_processes: how many bodies are read side by side.

        Raises:
            config.MissingPackageError: what reads the model's inputs is not installed.
        """
        reading = Reading(dict(run.fields), tuple(run.may_lack), tuple(run.hidden), limits)
        self._pool = isolated.Pool(
            reading,
            num_processes,
            reading.initialise,
            time_limit=limits.decode_seconds,
            max_memory=limits.decode_mb << 20,
        )
        self._limits = limits
        features = {field.feature for field in reading.inputs.values()}
        if features & CLIP:
            importlib.import_module("perceiver_jax.data.builders.clips")
        self._writes = bool(features & _IN_FILES)
        self._scratch = tempfile.TemporaryDirectory(prefix="perceiver_serve_")

    def read(self, what: str, content_type: str, body: bytes, **options: Any) -> Any:
        """Returns what a method of `Reading` makes of a body; waits for a free process.

        Args:
            what: name of the method.
            content_type: header of the body.
            body: as it came.
            **options: arguments of the method.

        Raises:
            RefusedError: the client has to send something else.
            BrokenError: by a bug.
        """
        request = {"what": what, "content_type": content_type, "body": body, "options": options}
        with self._directory() as scratch:
            try:
                result = self._pool.run(request | {"scratch": scratch})
            except isolated.BrokenError as error:
                raise BrokenError(str(error)) from error
        match result:
            case isolated.Ended("took too long", _):
                most = self._limits.decode_seconds
                raise RefusedError(f"Reading it takes more than {most:g} s. Send less.")
            case isolated.Ended():
                raise RefusedError("It can't be read: what reads it crashed. Send another file.")
            case "refused", message, status:
                raise RefusedError(message, status)
            case "broken", message:
                raise BrokenError(message)
        return result[1]

    def stop(self) -> None:
        """Has those `read` that other threads are in come to an end soon."""
        self._pool.stop()

    def end(self) -> None:
        """Ends the processes, when nothing is read any more."""
        self._pool.end()
        self._scratch.cleanup()

    def _directory(self) -> contextlib.AbstractContextManager[str]:
        """Where a process may write while it reads one body."""
        if not self._writes:
            return contextlib.nullcontext(self._scratch.name)
        return tempfile.TemporaryDirectory(dir=self._scratch.name, ignore_cleanup_errors=True)
