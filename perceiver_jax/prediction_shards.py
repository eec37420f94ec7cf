"""Predictions of millions of examples, in parts that are each made once: here, or by Apache Beam.

A folder beside the table holds the plan: which examples are in each part, and which parts are done.
A part is made under another name and gets its own when it is whole, so that the same command, given
again after a kill, makes those that are missing. Of Beam, only numbers of parts travel.
"""

from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import functools
import glob
import itertools
import json
import os
import pathlib
import re
import threading
from typing import Any
import uuid
import zlib

import jax
import numpy as np

from perceiver_jax import config as config_lib
from perceiver_jax import prediction_files, predictions
from perceiver_jax.data import description, inference, raw

SIZE = 1_024  # Examples of a part.

_JOB = "job.json"
_UNFINISHED = re.compile(r"\.[0-9a-f]{32}")
_LOADING = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Job:
    """What is to be done, the same for all parts.

    Attributes:
      model: what `load_pretrained` loads: an absolute path, or a name.
      checksum: of what is loaded.
      table: where the table would go: parts are called `NAME-00000-of-00016.jsonl`.
      embeddings: where latents would go; '' for nowhere.
      folder: where arrays go; '' for nowhere.
      options: those of `predictions.predict_each`.
      size: examples of a part.
    """

    model: str
    checksum: str
    table: str
    embeddings: str
    folder: str
    options: dict[str, Any]
    size: int = SIZE

    @property
    def plan(self) -> pathlib.Path:
        """The folder of the plan."""
        return pathlib.Path(self.table).with_suffix(".parts")


@dataclasses.dataclass(frozen=True)
class Done:
    """What became of a part.

    Attributes:
      num: how many examples it has.
      errors: name of each that has no answer, and why.
      arrays: paths of the files that its table names.
    """

    num: int
    errors: list[list[str]]
    arrays: list[str]


def checksum(run: Any) -> str:
    """Returns what tells a model from another one, as it reads and answers."""
    read = description.Description(dict(run.fields), dict(run.class_names), run.may_lack)
    said = run.config.model.to_json_best_effort(sort_keys=True) + json.dumps(read.to_json())
    crc = zlib.crc32(said.encode(errors="replace"))
    for x in jax.tree.leaves(run.params):
        crc = zlib.crc32(np.ascontiguousarray(x).tobytes(), crc)
    return f"{crc:08x}"


def plan(job: Job, examples: Iterable[inference.Example]) -> int:
    """Writes which examples are in which part, or checks that it is the plan that is there.

    Args:
      job: what is to be done.
      examples: all of them, as of `listing`; they are not kept in memory.

    Returns:
      The number of parts.

    Raises:
      UserError: there is a plan of something else, or a damaged one, or there are no examples.
    """
    folder = job.plan
    folder.mkdir(parents=True, exist_ok=True)
    known = _read_job(job)
    if known is None:
        for path in folder.glob("*.done"):  # Of a plan that is gone: they say nothing of this one.
            path.unlink()
    else:
        wanted = json.loads(json.dumps(dataclasses.asdict(job)))
        before, now = _flags(known["job"]), _flags(wanted)
        changed = [
            f"{flag} was {before.get(flag)}" for flag, x in now.items() if before.get(flag) != x
        ]
        if changed:
            _refuse(job, ", ".join(changed))
        if known["job"] != wanted:
            _refuse(job, "what --workdir holds has changed")
    lines = (json.dumps(_described(example)) + "\n" for example in examples)
    num = 0
    while part := "".join(itertools.islice(lines, job.size)):
        path = folder / f"{num:05d}.examples"
        if known is None:
            _write(path, part)
        elif num >= known["num_parts"] or path.read_text() != part:
            _refuse(job, f"other files, or some that have changed, from number {num * job.size}")
        num += 1
    if known is not None and num != known["num_parts"]:
        _refuse(job, f"there were {known['num_parts']} parts, there are {num}")
    if not num:
        raise config_lib.UserError("Got no example; expected at least one. Name files.")
    if known is None:  # Comes last, and says that the plan is whole.
        _write(folder / _JOB, json.dumps({"job": dataclasses.asdict(job), "num_parts": num}))
    return num


def missing(job: Job, num_parts: int) -> list[int]:
    """Returns the numbers of the parts that are not done."""
    return [i for i in range(num_parts) if _read_done(job, i, num_parts) is None]


def done(job: Job, num_parts: int) -> Iterator[Done]:
    """Yields what became of each part.

    Raises:
      UserError: one is not done.
    """
    for i in range(num_parts):
        found = _read_done(job, i, num_parts)
        if found is None:
            raise config_lib.UserError(
                f"Beam's workers left no part {i} in {job.plan}; expected a folder that all of "
                "them share with this machine. Write to a shared file system."
            )
        yield found


def make(folder: str, number: int, run: Any = None) -> None:
    """Makes a part, unless it is done.

    Args:
      folder: of the plan.
      number: of the part.
      run: the model, if it is loaded already.

    Raises:
      UserError: the model is another one than that of the plan.
    """
    plan_folder = pathlib.Path(folder)
    found = json.loads((plan_folder / _JOB).read_text())
    job = Job(**found["job"])
    if _read_done(job, number, found["num_parts"]) is not None:
        return
    table, embeddings = _files(job, number, found["num_parts"])
    if run is None:
        run = _load(job.model)
        if _checksum(job.model) != job.checksum:
            _refuse(job, "what --workdir holds is another model on this machine")
    lines = (plan_folder / f"{number:05d}.examples").read_text().splitlines()
    outputs = prediction_files.outputs_of(run, job.options["k"])
    writer = prediction_files.Writer(
        run,
        outputs,
        table=table,
        embeddings=embeddings,
        folder=pathlib.Path(job.folder) if job.folder else None,
        mark=f".{uuid.uuid4().hex}",
    )
    files = prediction_files.arrays_of(outputs)
    errors, arrays = [], []
    try:
        examples = map(_example, map(json.loads, lines))
        for i, one in enumerate(predictions.predict_each(run, examples, **job.options)):
            record = writer.write(number * job.size + i, one)
            arrays += filter(None, map(record.get, files))
            if one.error is not None:
                errors.append([one.name, str(one.error)])
        writer.finish()
    except BaseException:
        for path in writer.close():
            path.unlink(missing_ok=True)
        raise
    # Comes last, and says that the part is whole.
    done_part = Done(len(lines), errors, arrays)
    _write(plan_folder / f"{number:05d}.done", json.dumps(dataclasses.asdict(done_part)))


def make_with_beam(job: Job, numbers: Sequence[int], options: Any) -> None:
    """Has an Apache Beam runner make parts.

    Args:
      job: that is planned.
      numbers: of the parts.
      options: Beam's.
    """
    import apache_beam as beam  # Who has options has it.

    with beam.Pipeline(options=options) as pipeline:
        created = pipeline | beam.Create(list(numbers)) | beam.Reshuffle()
        _ = created | beam.Map(functools.partial(make, str(job.plan)))


def tidy(job: Job) -> None:
    """Removes what killed workers left unfinished; to be called when all parts are done."""
    for whole in (job.table, job.embeddings):
        path = pathlib.Path(whole)
        for left in path.parent.glob(f"{glob.escape(path.stem)}-*") if whole else ():
            if _UNFINISHED.fullmatch(left.suffix):
                left.unlink(missing_ok=True)
    for left in job.plan.glob(".*"):
        left.unlink(missing_ok=True)


def remove(job: Job) -> None:
    """Removes the plan and all that was made by it, but arrays."""
    found = _read(job.plan / _JOB, {"job", "num_parts"})
    if found:
        before = Job(**found["job"])
        for i in range(found["num_parts"]):
            for part in filter(None, _files(before, i, found["num_parts"])):
                part.unlink(missing_ok=True)
    for pattern in (_JOB, "*.examples", "*.done"):
        for path in job.plan.glob(pattern):
            path.unlink()


def part_of(path: str, name: str) -> pathlib.Path | None:
    """Returns what a part of a file is called."""
    whole = pathlib.Path(path)
    return whole.with_name(f"{whole.stem}-{name}{whole.suffix}") if path else None


def _files(job: Job, number: int, num_parts: int) -> list[pathlib.Path | None]:
    """Returns what a part of the table, and of the embeddings, are called; None if not wanted."""
    name = f"{number:05d}-of-{num_parts:05d}"
    return [part_of(path, name) for path in (job.table, job.embeddings)]


def _load(model: str) -> Any:
    """The model, loaded once in each process, whose threads share it."""
    with _LOADING:
        return _loaded(model)


@functools.lru_cache(maxsize=1)
def _loaded(model: str) -> Any:
    from perceiver_jax.pretrained import load

    return load.load_pretrained(model)


@functools.lru_cache(maxsize=1)
def _checksum(model: str) -> str:
    return checksum(_load(model))


def _described(example: inference.Example) -> dict[str, Any]:
    """An example as JSON, with what tells whether its files have changed."""
    return {"name": example.name, "value": _plain(example.value)}


def _plain(value: Any) -> Any:
    if isinstance(value, raw.Row):
        return {"row": [_plain(pathlib.Path(value.path)), value.index]}
    if isinstance(value, pathlib.Path):
        try:
            found = value.stat()
        except (OSError, ValueError):
            return {"path": str(value.absolute())}
        return {"path": str(value.absolute()), "bytes": found.st_size, "time": found.st_mtime_ns}
    if isinstance(value, tuple):
        return {"pair": [_plain(one) for one in value]}
    if isinstance(value, dict):
        return {"inputs": {name: _plain(one) for name, one in value.items()}}
    if isinstance(value, config_lib.UserError):
        return {"error": str(value)}
    return {"value": value}


def _example(found: dict[str, Any]) -> inference.Example:
    return inference.Example(found["name"], _value(found["value"]))


def _value(found: dict[str, Any]) -> Any:
    match next(iter(found)):
        case "row":
            return raw.Row(_value(found["row"][0]), found["row"][1])
        case "path":
            return pathlib.Path(found["path"])
        case "pair":
            return tuple(map(_value, found["pair"]))
        case "inputs":
            return {name: _value(one) for name, one in found["inputs"].items()}
        case "error":
            return config_lib.UserError(found["error"])
    return found["value"]


def _flags(job: dict[str, Any]) -> dict[str, str]:
    """Returns what `experiments.predict` was given, by flag, of a job as it is written."""
    options = job["options"]
    given = {"--workdir": job["model"], "--output": job["table"], "--part_size": job["size"]}
    given |= {"--embeddings": job["embeddings"], "--output_dir": job["folder"]}
    given |= {f"--{name}": x for name, x in options.items() if name != "latents"}
    given["--whole_latents"] = "given" if options["latents"] == "whole" else ""
    return {flag: str(x) or "not given" for flag, x in given.items()}


def _refuse(job: Job, what: str) -> None:
    raise config_lib.UserError(
        f"{job.plan} is the plan of something else: {what}. Choose another --output, or begin "
        "anew with --overwrite."
    )


def _read_job(job: Job) -> dict[str, Any] | None:
    """Returns what the plan says of itself; None if there is none.

    Raises:
      UserError: it is damaged.
    """
    found = _read(job.plan / _JOB, {"job", "num_parts"})
    if found is None and (job.plan / _JOB).exists():
        raise config_lib.UserError(
            f"{job.plan / _JOB} is damaged, so that what is done is not known. Choose another "
            "--output, or begin anew with --overwrite."
        )
    return found


def _read_done(job: Job, number: int, num_parts: int) -> Done | None:
    """Returns what became of a part; None if it is not done, or its files are gone since."""
    keys = {field.name for field in dataclasses.fields(Done)}
    found = _read(job.plan / f"{number:05d}.done", keys)  # None if not written whole.
    if found is None:
        return None
    files = [*filter(None, _files(job, number, num_parts)), *found["arrays"]]
    return Done(**found) if all(map(os.path.exists, files)) else None


def _read(path: pathlib.Path, keys: set[str]) -> dict[str, Any] | None:
    """Returns what a file of these keys holds; None if there is none, or another one."""
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):  # Empty after the power failed, say.
        return None
    return found if isinstance(found, dict) and found.keys() == keys else None


def _write(path: pathlib.Path, text: str) -> None:
    new = path.with_name(f".{uuid.uuid4().hex}")
    new.write_text(text)
    os.replace(new, path)
