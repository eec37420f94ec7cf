"""What models predict, as files: tables, latents, and a folder of arrays as others open them."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import csv
import fractions
import json
import os
import pathlib
import re
import shutil
import tempfile
from typing import Any, NamedTuple
import uuid
import zipfile

import jax
import numpy as np

from perceiver_jax import config as config_lib
from perceiver_jax import predictions
from perceiver_jax.data import fields as fields_lib
from perceiver_jax.data import written
from perceiver_jax.tasks import flow_colours

TABLES = (".jsonl", ".csv", ".parquet")
MAX_NUMBERS = 64  # Of an output that has a place in a table; more go to a file.

_AAC_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)  # In Hz.
_ROWS = 1_000  # Of a Parquet file that are written at once.
_NAME, _ERROR = "name", "error"  # Columns of all tables.

Record = dict[str, Any]


class Output(NamedTuple):
    """An output of a model, as tables have it.

    Attributes:
      name: of the output.
      kind: 'classes', 'numbers', 'text', or 'array', which goes to a file.
      size: how many classes are named, or numbers there are.
    """

    name: str
    kind: str
    size: int


def outputs_of(run: Any, k: int) -> list[Output]:
    """Returns what a model predicts; computes nothing.

    Args:
      run: what `load_run` or `load_pretrained` returned.
      k: how many classes are named.

    Raises:
      UserError: an output is called as a column of all tables.
    """
    read = {
        name: field
        for name, field in run.fields.items()
        if name in run.config.model.inputs or not field.is_target
    }

    def predict(params, batch):
        return run.task.predict(run.model.apply(params, None, batch))

    shapes = jax.eval_shape(predict, run.params, fields_lib.zero_batch(read))
    found = [_output(run, name, x.shape[1:], k) for name, x in sorted(shapes.items())]
    for output in found:
        if output.name in (_NAME, _ERROR):
            raise config_lib.UserError(
                f"An output is called {output.name!r}, which is a column of its own in tables; "
                "expected another name. Use it from Python: run.predict."
            )
    return found


def _output(run: Any, name: str, shape: Sequence[int], k: int) -> Output:
    field = run.fields.get(name)
    if name in run.class_names:
        return Output(name, "classes", min(k, len(run.class_names[name])))
    feature = getattr(field, "feature", "")
    if feature == "text":
        return Output(name, "text", 1)
    size = int(np.prod(shape))
    is_row = len(shape) <= 1 and size <= MAX_NUMBERS and feature != "audio"
    return Output(name, "numbers" if is_row else "array", size)


def check_table(path: pathlib.Path | None) -> None:
    """Refuses a table of an unknown form, or one whose package is not installed.

    Raises:
      UserError: it is.
    """
    if path is None:
        return
    if path.suffix.lower() not in TABLES:
        raise config_lib.UserError(
            f"Got --output={path}; expected a name that ends in one of {', '.join(TABLES)}. Change "
            "it."
        )
    if path.suffix.lower() == ".parquet":
        _pyarrow()


class Writer:
    """Writes what became of examples, one by one.

    Files have a name of their own until they are finished, so that what is there is whole.

    Args:
      run: that predicted.
      outputs: what `outputs_of` returned.
      table: where the table goes, which is of the form that its suffix says; None: nowhere.
      embeddings: where latents go, a `.npz` file with `name` [E] and `latents` [E, D] or [E, N, D].
      folder: where arrays go, a file for each example and output.
      mark: what files are called by behind their names until they are finished.
    """

    def __init__(
        self,
        run: Any,
        outputs: Sequence[Output],
        *,
        table: pathlib.Path | None = None,
        embeddings: pathlib.Path | None = None,
        folder: pathlib.Path | None = None,
        mark: str = ".partial",
    ):
        """Opens the files.

        Raises:
          UserError: if they can't be written.
        """
        self._run, self._outputs, self._folder = run, outputs, folder
        self._finished = {x: x.with_name(x.name + mark) for x in (table, embeddings) if x}
        self._table: _JsonLines | _Csv | _Parquet | None = None
        self._latents: _Latents | None = None
        kinds = {".jsonl": _JsonLines, ".csv": _Csv, ".parquet": _Parquet}
        try:
            for path in filter(None, (table, embeddings, folder and folder / "any")):
                path.parent.mkdir(parents=True, exist_ok=True)
            if table:
                self._table = kinds[table.suffix.lower()](self._finished[table], outputs)
            if embeddings:
                self._latents = _Latents(self._finished[embeddings])
        except OSError as error:
            where = ", ".join(str(x) for x in (table, embeddings, folder) if x)
            raise config_lib.UserError(
                f"Can't write {where}: {config_lib.said(error)}. Choose another place."
            ) from error

    def write(self, number: int, predicted: predictions.Predicted) -> Record:
        """Writes what became of an example, and returns it as JSON Lines have it.

        Args:
          number: of the example, by which its files are told from others of the same name.
          predicted: what became of it.
        """
        record: Record = {_NAME: predicted.name}
        if predicted.answer is None:
            record[_ERROR] = str(predicted.error)
        else:
            arrays = {x.name for x in self._outputs if x.kind == "array"}
            paths = {}
            if self._folder is not None:
                stem = f"{number:06d}_{_plain(predicted.name)}"
                found = {
                    name: predicted.answer[name] for name in predicted.answer if name in arrays
                }
                paths = write_arrays(self._folder, stem, found, self._run.fields)
            for name, x in predicted.answer.items():
                record[name] = paths.get(name) if name in arrays else _as_json(x)
            if self._latents is not None:
                self._latents.write(predicted.name, predicted.latents)
        if self._table is not None:
            self._table.write(record)
        return record

    def close(self) -> list[pathlib.Path]:
        """Closes the files as they are; returns those that are not finished."""
        for file in (self._table, self._latents):
            if file is not None:
                file.close()
        return list(self._finished.values())

    def finish(self) -> None:
        """Closes the files, and gives them their names."""
        self.close()
        for path, partial in self._finished.items():
            os.replace(partial, path)


def write_arrays(
    folder: pathlib.Path,
    stem: str,
    arrays: Mapping[str, np.ndarray],
    fields: Mapping[str, fields_lib.Field],
) -> dict[str, str]:
    """Writes arrays of an example as files that other programs open.

    - Video, and the sound that belongs to it: `STEM.mp4`. Sound alone, or of a rate that no such
      file has: `STEM.wav`.
    - Pictures: `STEM.png`.
    - Flow: `STEM.npy`, float32 [H, W, 2], and its colours, `STEM.png`.
    - Others: `STEM.npy`.

    Of several, the output's name is behind the stem.

    Args:
      folder: where, it is there.
      stem: what the files' names begin with.
      arrays: by name of the output.
      fields: of the model.

    Returns:
      The path of each output's file.
    """
    kinds = {name: getattr(fields.get(name), "feature", "") for name in arrays}
    videos = [n for n, x in arrays.items() if kinds[n] == "video" and _is_pictures(x, 4)]
    sounds = [n for n, x in arrays.items() if kinds[n] == "audio" and x.ndim == 1]
    together = len(videos) == len(sounds) == 1 and fields[sounds[0]].sample_rate in _AAC_RATES
    several = len(arrays) > 1 + together
    paths = {}
    for name, array in arrays.items():
        end = (
            f"_{_plain(name)}" if several and not (together and name in (*videos, *sounds)) else ""
        )
        path = folder / f"{stem}{end}"
        if name in videos:
            sound = sounds[0] if together else None
            paths[name] = _write_clip(path, name, sound, arrays, fields)
        elif name in sounds:
            if not together:
                paths[name] = _write_sound(path, array, fields[name].sample_rate)
        elif kinds[name] == "flow":
            with _new(path.with_name(f"{path.name}.png")) as new:
                flow_colours.flow_picture(array).save(new)
            paths[name] = _write_numbers(path, array)
        elif _is_pictures(array, 3):
            paths[name] = _write_picture(path, array)
        else:
            paths[name] = _write_numbers(path, array)
    if together:
        paths[sounds[0]] = paths[videos[0]]
    return {name: str(path) for name, path in paths.items()}


def _is_pictures(array: np.ndarray, ndim: int) -> bool:
    channels = (3,) if ndim == 4 else (1, 3)
    return array.ndim == ndim and array.dtype == np.uint8 and array.shape[-1] in channels


def _write_clip(path, name, sound, arrays, fields):
    path = path.with_name(f"{path.name}.mp4")
    rate = fractions.Fraction(fields[name].frames_per_second).limit_denominator(1_000)
    with _new(path) as new:
        if sound is None:
            written.write_clip(new, arrays[name], frame_rate=rate)
        else:
            hertz = fields[sound].sample_rate
            written.write_clip(new, arrays[name], arrays[sound], rate, hertz)
    return path


def _write_sound(path, samples, rate):
    import soundfile  # Here, for it takes a while.

    path = path.with_name(f"{path.name}.wav")
    with _new(path) as new:
        soundfile.write(new, samples, rate, subtype="FLOAT")
    return path


def _write_picture(path, pixels):
    import PIL.Image

    path = path.with_name(f"{path.name}.png")
    with _new(path) as new:
        PIL.Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(new)
    return path


def _write_numbers(path, array):
    path = path.with_name(f"{path.name}.npy")
    with _new(path) as new:
        np.save(new, array)
    return path


@contextlib.contextmanager
def _new(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a name to write to, of the same suffix; the file gets its own when it is whole."""
    new = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        yield new
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def _plain(name: str) -> str:
    """What a file may be called after an example: the end of its path, or of a pair's first."""
    last = re.split(r"[/\\]", name.partition(" -> ")[0].rstrip("/\\"))[-1]
    return re.sub(r"[^\w.-]+", "_", re.sub(r"\.\w{1,5}$", "", last))[:60].strip("_") or "example"


def _as_json(x: Any) -> Any:
    if isinstance(x, str):
        return x
    if isinstance(x, list):  # Of classes.
        return [{"class": name, "probability": probability} for name, probability in x]
    return np.asarray(x).tolist()


class _JsonLines:
    """An object a line; bytes of names that are not UTF-8 are escaped."""

    def __init__(self, path: pathlib.Path, outputs: Sequence[Output]):
        del outputs
        self._file = open(path, "w", encoding="utf-8", errors="backslashreplace")

    def write(self, record: Record) -> None:
        self._file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def close(self) -> None:
        self._file.close()


class _Csv:
    """Columns: k classes and their probabilities, numbers, texts, files."""

    def __init__(self, path: pathlib.Path, outputs: Sequence[Output]):
        self._outputs = outputs
        self._file = open(path, "w", encoding="utf-8", errors="backslashreplace", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow(_columns(outputs))

    def write(self, record: Record) -> None:
        self._writer.writerow(_cells(record, self._outputs).values())

    def close(self) -> None:
        self._file.close()


class _Parquet:
    """The same columns, with their types."""

    def __init__(self, path: pathlib.Path, outputs: Sequence[Output]):
        arrow, parquet = _pyarrow()
        types = {str: arrow.string(), float: arrow.float64()}
        columns = {name: types[kind] for name, kind in _columns(outputs).items()}
        self._outputs, self._schema, self._rows = outputs, arrow.schema(columns), []
        self._table, self._writer = arrow.Table, parquet.ParquetWriter(path, self._schema)

    def write(self, record: Record) -> None:
        cells = _cells(record, self._outputs)
        self._rows.append({name: _utf8(x) for name, x in cells.items()})
        if len(self._rows) >= _ROWS:
            self._flush()

    def close(self) -> None:
        if self._rows:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        self._writer.write_table(self._table.from_pylist(self._rows, self._schema))
        self._rows = []


class _Latents:
    """Latents of any number of examples in an `.npz` file, which are not kept in memory."""

    def __init__(self, path: pathlib.Path):
        self._path, self._names, self._form = path, [], None
        self._rows = tempfile.TemporaryFile(dir=path.parent)

    def write(self, name: str, latents: np.ndarray) -> None:
        self._names.append(_utf8(name))
        self._form = latents.dtype, latents.shape
        self._rows.write(np.ascontiguousarray(latents).tobytes())

    def close(self) -> None:
        dtype, shape = self._form or (np.dtype(np.float32), (0,))
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False}
        header["shape"] = (len(self._names), *shape)
        self._rows.seek(0)
        with self._rows, zipfile.ZipFile(self._path, "w") as archive:
            with archive.open("latents.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array_header_1_0(file, header)
                shutil.copyfileobj(self._rows, file)
            with archive.open("name.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.array(self._names, str), allow_pickle=False)


def _columns(outputs: Sequence[Output]) -> dict[str, type]:
    """Names and types of the columns of a table."""
    columns: dict[str, type] = {_NAME: str}
    for name, kind, size in outputs:
        if kind == "classes":
            for i in range(1, size + 1):
                columns |= {f"{name}_{i}": str, f"{name}_{i}_probability": float}
        elif kind == "numbers":
            columns |= {f"{name}_{i}": float for i in range(size)} if size > 1 else {name: float}
        else:
            columns[name] = str
    return columns | {_ERROR: str}


def _cells(record: Record, outputs: Sequence[Output]) -> dict[str, Any]:
    """Returns a record by the names of the columns."""
    cells: dict[str, Any] = dict.fromkeys(_columns(outputs))
    cells |= {name: record.get(name) for name in (_NAME, _ERROR)}
    for name, kind, size in outputs:
        if name not in record:
            continue  # Of an error.
        if kind == "classes":
            for i, one in enumerate(record[name], start=1):
                cells[f"{name}_{i}"] = one["class"]
                cells[f"{name}_{i}_probability"] = one["probability"]
        elif kind == "numbers":
            numbers = np.ravel(record[name]).tolist()
            for i, x in enumerate(numbers):
                cells[f"{name}_{i}" if size > 1 else name] = float(x)
        else:
            cells[name] = record[name]
    return cells


def _utf8(x: Any) -> Any:
    return x.encode(errors="backslashreplace").decode() if isinstance(x, str) else x


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow  # An extra, and large.
        import pyarrow.parquet
    except ImportError as error:
        raise config_lib.MissingPackageError(
            "Parquet files are written by the package pyarrow, which is not installed. Install "
            "it: pip install perceiver-haiku[parquet]; or write .jsonl or .csv."
        ) from error
    return pyarrow, pyarrow.parquet
