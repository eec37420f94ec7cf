"""Batches of a user's own examples: what a model gets of them in evaluation, without a data set."""

import collections
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
import dataclasses
from typing import Any, NamedTuple

import numpy as np

from perceiver_jax import config
from perceiver_jax.data import errors, raw
from perceiver_jax.data import fields as fields_lib
from perceiver_jax.data.builders import isolated
from perceiver_jax.data.fields import array as array_field

Values = dict[str, Any]  # What is stored of an example, by name of the input; those it has.

_CLIP = ("audio", "video")  # Features that a file of one kind gives.


class Example(NamedTuple):
    """An example with a name, by which messages call it.

    Attributes:
        name: such as 'lines.txt:17'.
        value: as of `prepare`; or the `config.UserError` that there is instead of it.
    """

    name: str
    value: Any


def prepare(
    examples: Iterable[Any],
    fields: Mapping[str, fields_lib.Field],
    *,
    num_windows: int = 1,
    may_lack: Collection[str] = (),
    hidden: Collection[str] = (),
    up: str = "y",
    first: int = 0,
) -> dict[str, np.ndarray]:
    """Prepares examples of a user as those of the test split are; needs no data set.

    Each example is a file (its path, or its bytes), which gives all inputs that it holds, or by
    name of the input what it is made of: files, or

    - of images: Pillow's, or uint8 [H, W, 3], [H, W, 4] (colours and opacity) or [H, W];
    - of audio: (samples, rate in Hz), samples [S] or [S, channels]: floats in [-1, 1] or integers
      of 16 or 32 bits;
    - of video: uint8 [T, H, W, 3], 25 frames a second, or (frames, frames a second);
    - of points: numbers [points, 3 or more];
    - of text: a string; `[MASK]` in it is a byte that is not known, as many as are wanted. A path
      (`pathlib.Path`) or bytes are of a file that has it;
    - of frames: a pair of images, as above, or uint8 [2, H, W, 3];
    - of arrays: as in training. Without its `<name>_mask`, all of one counts;
    - of fields of one's own: what a record holds.

    If there is one input, what is not a file need not be named.

    Clips are stored as of `prepare_data video_folder`, their first 60 s; AudioSet's segments end
    after 10 s. Of clouds of more than 2,048 points (or those of the field, if these are more) and
    of meshes, so many are drawn at random, by the file's name without its suffix: those of the
    official ModelNet40, with `up='z'`. `prepare_data mesh_folder` draws by the whole path in its
    source, and so other points of the same surfaces.

    Args:
        examples: of the user.
        fields: what the model was trained on, by name; targets are left out.
        num_windows: of each example, evenly spaced from its begin to its end; 1: the middle.
        may_lack: inputs that an example may lack, such as the audio of a silent film: those with
            masks in training.
        hidden: targets that the model reads in training and not in evaluation; it gets zeros.
        up: the vertical axis of files and arrays of points, 'y' or 'z'; z is turned to y.
        first: number of the first example, by which messages and `example_id` call it.

    Returns:
        Arrays by name of the input, [B * num_windows, ...]; `<name>_mask`, whether it is there, of
        those that may be lacking; and `example_id`, the place among the examples.

    Raises:
        config.UserError: an example, the first that is wrong, can't be read, or lacks an input.
    """
    reader = make_reader(fields, num_windows=num_windows, may_lack=may_lack, hidden=hidden, up=up)
    return reader.prepare(examples, first)


def make_reader(
    fields: Mapping[str, fields_lib.Field],
    *,
    num_windows: int = 1,
    may_lack: Collection[str] = (),
    hidden: Collection[str] = (),
    up: str = "y",
) -> "Reader":
    """Returns what reads examples one by one; arguments as of `prepare`.

    Raises:
        config.UserError: they don't fit each other.
    """
    inputs = {name: field for name, field in fields.items() if not field.is_target}
    for name in may_lack:
        config.check_known("input in may_lack", name, sorted(inputs))
    config.check_known("axis in up", up, ["y", "z"])
    fields_lib.check_windows(num_windows, inputs)
    windows = fields_lib.windows(num_windows)
    zeros = {name: fields[name] for name in hidden}
    return Reader(inputs, zeros, frozenset(may_lack), up == "z", windows)


def check_list(examples: Iterable[Any]) -> list[Any]:
    """Returns a list of the examples; refuses what is one example itself, and none."""
    if raw.is_file(examples) or isinstance(examples, Mapping):
        raise config.UserError(
            f"Got examples of type {type(examples).__name__}; expected a list of them. Give a "
            "list, of one if there is one."
        )
    given = list(examples)
    if not given:
        raise config.UserError(
            "Got no example; expected at least one file, or one by its inputs. Give it."
        )
    return given


def read_pairs(examples: Iterable[Any], name: str) -> list[np.ndarray]:
    """Reads pairs of frames one after the other, see `read_pair`."""
    return [read_pair(i, given, name) for i, given in enumerate(examples)]


def read_pair(number: int, given: Any, name: str) -> np.ndarray:
    """Reads a pair of frames whole, uint8 [2, H, W, 3], as `prepare` does before it cuts them.

    Args:
        number: of the example.
        given: the example, as of `prepare`.
        name: of the input.

    Raises:
        config.UserError: it can't be read.
    """
    what, given = _taken(number, given)
    if isinstance(given, Mapping):
        for key in given:
            config.check_known(f"input of {what}", key, [name])
        given = given.get(name)
    with raw.refusing(what, "frames"):
        return raw.read_frames(given)


def read_ahead(
    read: Callable[[int, Any], Any], examples: Iterable[Any], ahead: int, first: int = 0
) -> Iterator[tuple[Any, Any]]:
    """Reads examples in threads, a few of them before they are asked for.

    Args:
        read: what is done with the number and the value of each.
        examples: any number of them; they are taken one by one.
        ahead: how many of those that are read may wait in memory; a few more are being read.
        first: number of the first.

    Yields:
        Each example, in their order, and what `read` returned, or the `config.UserError` that it
        raised.
    """
    num_threads = isolated.num_cores()
    threads = futures.ThreadPoolExecutor(num_threads)
    waiting: collections.deque[tuple[Any, futures.Future]] = collections.deque()
    numbered = enumerate(examples, start=first)
    try:
        while True:
            for number, given in numbered:
                waiting.append((given, threads.submit(read, number, given)))
                if len(waiting) >= ahead + num_threads:
                    break
            if not waiting:
                return
            given, future = waiting.popleft()
            try:
                found = future.result()
            except config.UserError as error:
                found = error
            yield given, found
    except BaseException as error:
        threads.shutdown(wait=False, cancel_futures=True)
        if isinstance(error, KeyboardInterrupt):  # Not after minutes.
            isolated.interrupt_kept()
        raise
    finally:
        threads.shutdown(wait=not waiting, cancel_futures=True)


@dataclasses.dataclass(frozen=True)
class Reader:
    """Makes what a model gets of what a user gives.

    Attributes:
        inputs: fields by name.
        hidden: fields of targets that a model reads in training alone; it gets zeros of them.
        may_lack: names of those that may be lacking.
        z_up: whether the z axis of points is the vertical one.
        windows: their places in each example.
    """

    inputs: Mapping[str, fields_lib.Field]
    hidden: Mapping[str, fields_lib.Field]
    may_lack: frozenset[str]
    z_up: bool
    windows: Sequence[float]

    def prepare(self, examples: Iterable[Any], first: int = 0) -> dict[str, np.ndarray]:
        """Returns a batch of examples, see `prepare`."""
        given = check_list(examples)
        read = [self.read(first, given[0])] if len(given) == 1 else []  # Which needs no thread.
        for _, rows in () if read else read_ahead(self.read, given, len(given), first):
            if isinstance(rows, Exception):
                raise rows
            read.append(rows)
        return self.batch([row for rows in read for row in rows])

    def name_of(self, number: int, given: Any) -> str:
        """Returns how an example is called: its own name, its file's, or 'example 17'."""
        if isinstance(given, Example):
            return given.name
        name = self._file_name(given, self.inputs)
        return name[2:-1] or f"example {number}"

    def batch(self, rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Returns windows of examples, one or more, as arrays [B, ...] by name."""
        batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        for name, field in self.hidden.items():
            for key, zeros in fields_lib.named(name, field.zeros()).items():
                batch[key] = np.stack([zeros] * len(rows))
        return batch

    def read(self, number: int, given: Any) -> list[dict[str, np.ndarray]]:
        """Returns the windows of example `number`.

        Raises:
            config.UserError: it can't be read, or lacks an input.
        """
        what, value = _taken(number, given)
        if value is given:
            what += self._file_name(given, self.inputs)
        given = value
        if isinstance(given, Mapping):
            for name in given:
                config.check_known(f"input of {what}", name, sorted(self.inputs))
            whats = {n: f"{what}, input {n!r}{self._file_name(x, [n])}" for n, x in given.items()}
            values = self._by_name(given, whats)
        else:
            whats = dict.fromkeys(self.inputs, what)
            values = self._whole(given, what)
        self._complete(values, what)
        return [self._window(number, values, position, whats) for position in self.windows]

    def _file_name(self, given: Any, names: Collection[str]) -> str:
        """The file that inputs of these names are read from; a string can be a text itself."""
        is_text = any(self.inputs[name].feature == "text" for name in names)
        return "" if is_text and isinstance(given, str) else raw.file_name(given)

    def _whole(self, given: Any, what: str) -> Values:
        """Reads all inputs of a file, or the only one."""
        names = [name for name in self.inputs if not self._is_mask(name)]
        features = {self.inputs[name].feature for name in names}
        is_clip = features <= set(_CLIP)
        is_shared = is_clip or features in ({"image"}, {"points"})
        if len(names) > 1 and not (is_shared and raw.is_file(given)):
            raise config.UserError(
                f"Got {what} as one {type(given).__name__} for the inputs {sorted(names)}; "
                "expected each by its name. Give {'name': ...}."
            )
        if not (raw.is_file(given) and is_clip):
            return self._by_name(dict.fromkeys(names, given), dict.fromkeys(names, what))
        with raw.refusing(what, "clip"):
            clip = raw.read_clip(given, self._with_video, what)
        values = {name: clip[self.inputs[name].feature] for name in names}
        return {name: value for name, value in values.items() if value}

    def _by_name(self, given: Mapping[str, Any], whats: Mapping[str, str]) -> Values:
        """Reads inputs, each of a file or an array of its own."""
        values = {}
        for name, one in given.items():
            with raw.refusing(whats[name], self.inputs[name].feature):
                values[name] = self._value(name, one, whats[name])
        tracks = [n for n in values if self.inputs[n].feature in _CLIP and values[n]]
        if len(tracks) > 1:
            from perceiver_jax.data.builders.clips import storage

            aligned = storage.align([values[name] for name in tracks])
            values |= dict(zip(tracks, aligned, strict=True))
        lacking = [n for n in values if self.inputs[n].feature in _CLIP and not values[n]]
        return {name: value for name, value in values.items() if name not in lacking}

    def _value(self, name: str, given: Any, what: str) -> Any:
        field = self.inputs[name]
        match field.feature:
            case "array":
                return raw.read_array(given, field, what)
            case "audio":
                return raw.read_audio(given, self._with_video, what)
            case "frames":
                return raw.read_frames(given)
            case "image":
                return raw.read_image(given)
            case "points":
                return raw.read_points(given, self._num_points, self.z_up)
            case "text":
                return raw.read_text(given)
            case "video":
                return raw.read_video(given, what)
        return given  # Of a kind of the user's own: what a record holds.

    @property
    def _with_video(self) -> bool:
        # A set whose audio may be lacking holds videos too, and its audio is as long as they are.
        return any(
            field.feature == "video" or (field.feature == "audio" and name in self.may_lack)
            for name, field in self.inputs.items()
        )

    @property
    def _num_points(self) -> int:
        """How many points are stored of a mesh, and at most of a cloud."""
        from perceiver_jax.data.builders.shapes import clouds

        wanted = [field.num_points for field in self.inputs.values() if field.feature == "points"]
        return max(clouds.NUM_POINTS, *wanted)

    def _is_mask(self, name: str) -> bool:
        """Whether an input is the mask of another, which is an array."""
        return name.removesuffix(array_field.MASK) in self.inputs.keys() - {name}

    def _complete(self, values: Values, what: str) -> None:
        """Adds masks that are not given; refuses an example that lacks what the model needs."""
        for name, field in self.inputs.items():
            if self._is_mask(name) and name.removesuffix(array_field.MASK) in values:
                values.setdefault(name, np.ones(field.shape, bool))
            if name not in values and name not in self.may_lack:
                silence = ", or with silence alone" if field.feature == "audio" else ""
                raise config.UserError(
                    f"Got {what} without {name!r}{silence}; expected all of {sorted(self.inputs)}, "
                    "for in training none was lacking. Add it, or leave out the example."
                )
        if not values:
            raise config.UserError(
                f"Got {what} without any of the inputs {sorted(self.inputs)}; expected at least "
                "one. Add it, or leave out the example."
            )
        for name, value in values.items():
            if isinstance(self.inputs[name], array_field.Array):
                mask = values.get(name + array_field.MASK)
                batched = None if mask is None else mask[None]
                if not array_field.is_finite(value[None], batched, name).all():
                    raise config.UserError(
                        f"Got NaN, infinity or more than float32 can hold in {name!r} of {what}; "
                        "expected finite numbers. Fill them in."
                    )

    def _window(
        self, number: int, values: Values, position: float, whats: Mapping[str, str]
    ) -> dict[str, np.ndarray]:
        example = {}
        for name, field in self.inputs.items():
            example |= fields_lib.named(name, field.zeros())
        for name, value in values.items():
            field = self.inputs[name]
            with raw.refusing(whats.get(name, ""), field.feature), errors.of_bad_data():
                example |= fields_lib.named(name, field.read(value, position, None))
        masks = {f"{name}_mask": np.bool_(name in values) for name in sorted(self.may_lack)}
        return example | masks | {"example_id": np.int32(number)}


def _taken(number: int, given: Any) -> tuple[str, Any]:
    """Returns how messages call an example, and its value; raises what there is instead of one."""
    if not isinstance(given, Example):
        return f"example {number}", given
    if isinstance(given.value, config.UserError):
        raise given.value
    return given.name, given.value
