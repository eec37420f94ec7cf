"""What models predict, as files: tables, latents, and a folder of arrays."""

from collections.abc import Sequence
import csv
import json
import os
import pathlib
import shutil
import tempfile
from typing import Any, NamedTuple
import zipfile

import jax
import numpy as np

from perceiver_jax import config as config_lib
from perceiver_jax import prediction_arrays, predictions
from perceiver_jax.data import fields as fields_lib

TABLES = (".jsonl", ".csv", ".parquet")
MAX_NUMBERS = 64  # Of an output that has a place in a table; more go to a file.

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


def arrays_of(outputs: Sequence[Output]) -> list[str]:
    """Returns the names of the outputs that go to files of their own."""
    return [output.name for output in outputs if output.kind == "array"]


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
            arrays = {name: predicted.answer[name] for name in arrays_of(self._outputs)}
            paths = {}
            if self._folder is not None:
                stem = f"{number:06d}_{prediction_arrays.plain(predicted.name)}"
                paths = prediction_arrays.write(self._folder, stem, arrays, self._run.fields)
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
