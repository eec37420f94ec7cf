"""Checkpoints by Orbax: written in the background, whole or not at all, and checked when read.

A checkpoint holds the training state as one device has it, so that it does not depend on how many
there were, the state of the data iterator, and a dictionary of JSON values. Checksums of all of it
are saved with it: Orbax reads many a flipped bit without noticing.
"""

import base64
from collections.abc import Callable, Iterator
import contextlib
import json
import pathlib
import sys
from typing import Any, NamedTuple, TypeVar
import zlib

import jax
from jax.experimental import multihost_utils
import numpy as np

from perceiver_jax import config
from perceiver_jax.training import plain_path
from perceiver_jax.training.state import TrainState

T = TypeVar("T")

# Directory beside that of the checkpoints, for those that can't be read.
DAMAGED = "damaged_checkpoints"
_PARAMS, _EMA_PARAMS = "params", "ema_params"  # Of the TrainState.


class SaveError(OSError, config.UserError):
    """A checkpoint could not be written, or can't be read back."""


class _DamagedError(Exception):
    """A checkpoint can't be read, or is not what was saved."""


class Checkpoint(NamedTuple):
    """What was saved.

    Attributes:
      state: Training state, as numpy arrays.
      iterator_state: What the training iterator's `get_state()` gave.
      metadata: JSON values.
      notes: What to tell the user: which newer checkpoints are damaged, and what became of them.
    """

    state: TrainState
    iterator_state: bytes | dict[str, Any]
    metadata: dict[str, Any]
    notes: tuple[str, ...] = ()


class TrainedParams(NamedTuple):
    """What a model is evaluated with.

    Attributes:
      params: The moving average of the parameters where there is one, else the parameters; numpy
        arrays.
      step: After so many updates.
      notes: As of `Checkpoint`.
    """

    params: Any
    step: int
    notes: tuple[str, ...] = ()


class Checkpointer:
    """Saves and restores the checkpoints of a directory.

    Args:
      directory: Where the checkpoints are; made if need be.
      max_checkpoints: How many to keep, the newest.
      read_only: Restore only, and write nothing.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        max_checkpoints: int | None = None,
        *,
        read_only: bool = False,
    ):
        """Opens the directory.

        Raises:
          SaveError: If it cannot be made.
        """
        import orbax.checkpoint as ocp  # Here, for it takes a while.

        if not read_only:
            _make(pathlib.Path(directory))
        self._ocp = ocp
        self._directory = pathlib.Path(directory).absolute()
        self._read_only = read_only
        self._saving: int | None = None  # The step of the save that may be under way.
        self._proven = False  # Whether a checkpoint of this process has been read back.
        self._plain_path = plain_path.PlainPath(self._directory)
        self._manager = ocp.CheckpointManager(
            self._plain_path.path,
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "metadata": ocp.JsonCheckpointHandler(),
            },
            options=ocp.CheckpointManagerOptions(
                max_to_keep=max_checkpoints,
                create=not read_only,
                cleanup_tmp_directories=not read_only,
            ),
        )

    def __enter__(self) -> "Checkpointer":
        """Returns itself."""
        _ignore_late_io()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        """Waits until what was begun is written."""
        # An error that is on its way already says why the run ends; the disk may be full for both.
        with contextlib.suppress(SaveError) if error else contextlib.nullcontext():
            self.wait()
        with contextlib.suppress(Exception):  # It waits once more.
            self._manager.close()
        self._plain_path.close()

    def latest_step(self) -> int | None:
        """Returns the step of the newest checkpoint; None if there is none."""
        return self._manager.latest_step()

    def wait(self) -> None:
        """Waits until the last save is written.

        Raises:
          SaveError: If it could not be.
        """
        with self._explained():
            self._manager.wait_until_finished()
        self._saving = None

    def check(self) -> None:
        """Raises the `SaveError` of the last save if that has failed; does not wait for it."""
        if self._saving is not None and not self._manager.is_saving_in_progress():
            self.wait()

    def save(self, state: TrainState, iterator_state: Any, metadata: dict[str, Any]) -> None:
        """Begins to write a checkpoint and returns; waits for the previous one first.

        The first of a process is waited for and read back: what can't be read would not be noticed
        before the run has to resume from it.

        Args:
          state: Of one device, as numpy arrays, to be left unchanged while it is written.
          iterator_state: What the training iterator's `get_state()` gave.
          metadata: JSON values.

        Raises:
          SaveError: If this or the previous checkpoint could not be written, or not be read back.
        """
        self.wait()
        self._saving = int(state.step)
        content = {
            "arrays": {name: [_shape(x), _checksum(x)] for name, x in named(state).items()},
            "iterator_state": _encode(iterator_state),
            "metadata": metadata,
        }
        content = json.loads(json.dumps(content))  # A copy, for it is written later.
        args = self._ocp.args
        with self._explained():
            self._manager.save(
                self._saving,
                args=args.Composite(
                    state=args.StandardSave(state),
                    metadata=args.JsonSave(content | {"checksum": _json_checksum(content)}),
                ),
            )
        if not self._proven:
            self.wait()
            self._read_back(int(state.step), state)

    def _read_back(self, step: int, state: TrainState) -> None:
        try:
            self._read(step, state)
        except _DamagedError as error:
            raise SaveError(
                f"The checkpoint of step {step} was written to {self._directory}, but can't be "
                f"read back: {self._plain_path.unplain(error)}. The run would be lost. Choose "
                "another workdir, on another disk if need be; earlier checkpoints are as they were."
            ) from error
        self._proven = True

    def restore(self, like: TrainState) -> Checkpoint:
        """Reads the newest checkpoint that is not damaged.

        Newer ones are moved to the directory `DAMAGED` beside this one, if that may be written.

        Args:
          like: A state of the same shapes; arrays or `jax.ShapeDtypeStruct`s.

        Raises:
          FileNotFoundError: If there is none.
          ValueError: If its arrays have other names or shapes, or if all are damaged.
        """
        return self._newest(self._steps(), lambda step: self._read(step, like))

    def restore_params(self, like: Any, step: int | None = None) -> TrainedParams:
        """Reads what a model is evaluated with, and nothing else of a checkpoint.

        Args:
          like: Parameters of the same shapes; arrays or `jax.ShapeDtypeStruct`s.
          step: Which checkpoint; None: the newest that is not damaged.

        Raises:
          FileNotFoundError: If there is none, or none of that step.
          ValueError: If its parameters have other names or shapes, or if all are damaged.
        """
        steps = self._steps()
        if step is not None and step not in steps:
            raise config.MissingFileError(
                f"No checkpoint of step {step} in {self._directory}; expected one of "
                f"{sorted(steps)}. Choose one of them."
            )
        return self._newest(
            steps if step is None else [step], lambda step: self._read_params(step, like)
        )

    def _steps(self) -> list[int]:
        """Returns the steps of the checkpoints, the newest first."""
        steps = sorted(self._manager.all_steps(), reverse=True)
        if not steps:
            raise _none_yet(self._directory)
        return steps

    def _newest(self, steps: list[int], read: Callable[[int], T]) -> T:
        """Returns what is read of the first checkpoint that is not damaged, with its notes."""
        damaged: dict[int, str] = {}
        for step in steps:
            try:
                checkpoint = read(step)
            except _DamagedError as error:
                damaged[step] = self._plain_path.unplain(error)
            else:
                return checkpoint._replace(notes=self._set_aside(damaged))
        reasons = "; ".join(f"step {step}: {reason}" for step, reason in damaged.items())
        what = "All checkpoints" if steps == self._steps() else "Checkpoints"
        raise config.UserError(
            f"{what} in {self._directory} are damaged: {reasons}. Bring them back from a "
            "copy, or begin anew in another workdir."
        )

    def _read(self, step: int, like: TrainState) -> Checkpoint:
        args = self._ocp.args
        content = self._read_metadata(step)
        template = self._template(step, content["arrays"], like)
        with _damage():
            restored = self._manager.restore(
                step, args=args.Composite(state=args.StandardRestore(template))
            )["state"]
            _check_sums(restored, content["arrays"])
        return Checkpoint(restored, _decode(content["iterator_state"]), content["metadata"])

    def _read_params(self, step: int, like: Any) -> TrainedParams:
        saved = self._read_metadata(step)["arrays"]
        averaged = any(name.startswith(f"{_EMA_PARAMS}/") for name in saved)
        key = _EMA_PARAMS if averaged else _PARAMS
        saved = {name: x for name, x in saved.items() if name.startswith(f"{key}/")}
        item = self._template(step, saved, {key: like})
        place = self._plain_path.path / str(step) / "state"
        with _damage(), self._ocp.PyTreeCheckpointer() as reader:
            args = self._ocp.args.PyTreeRestore(item=item, partial_restore=True)
            restored = reader.restore(place, args=args)
            _check_sums(restored, saved)
        return TrainedParams(restored[key], step)

    def _read_metadata(self, step: int) -> dict[str, Any]:
        args = self._ocp.args
        with _damage():
            content = self._manager.restore(step, args=args.Composite(metadata=args.JsonRestore()))
            content = dict(content["metadata"])
            if content.pop("checksum", None) != _json_checksum(content):
                raise _DamagedError("its metadata are not as they were saved")
            return {key: content[key] for key in ("arrays", "iterator_state", "metadata")}

    def _template(self, step: int, saved: dict[str, Any], like: T) -> T:
        """Returns arrays to restore to, if those that are saved have their names and shapes."""
        found = {name: shape for name, (shape, _) in saved.items()}
        expected = {name: _shape(x) for name, x in named(like).items()}
        for path in dict.fromkeys([*expected, *found]):
            if found.get(path) != expected.get(path):
                raise config.UserError(
                    f"The checkpoint of step {step} in {self._directory} is of another model or "
                    f"optimizer: {path} is {found.get(path, 'absent')} there, expected "
                    f"{expected.get(path, 'absent')}. Use the config that it was trained with "
                    "(config.json in the workdir), or another workdir."
                )
        return jax.tree.map(lambda x: np.empty(x.shape, x.dtype), like)

    def _set_aside(self, damaged: dict[int, str]) -> tuple[str, ...]:
        """Moves damaged checkpoints out of the way of new ones; returns what to say of each."""
        if not damaged or self._read_only:
            return tuple(
                f"the checkpoint of step {step} is damaged: {reason}"
                for step, reason in damaged.items()
            )
        notes = []
        for step, reason in damaged.items():
            place = _unused(self._directory.with_name(DAMAGED) / str(step))
            notes.append(f"the checkpoint of step {step} is damaged: {reason}; moved to {place}")
            if jax.process_index() == 0:
                place.parent.mkdir(exist_ok=True)
                (self._directory / str(step)).rename(place)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(DAMAGED)
        self._manager.reload()
        return tuple(notes)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns any error of a save into one kind: libraries raise many for a full disk."""
        try:
            yield
        except Exception as error:
            step, self._saving = self._saving, None
            reason = self._plain_path.unplain(_one_line(error))
            raise SaveError(
                f"The checkpoint of step {step} could not be written to {self._directory}: "
                f"{reason}. Earlier ones are intact. Make room, "
                "or the directory writable; the same command then resumes."
            ) from error


def load_params(directory: pathlib.Path, like: Any, step: int | None = None) -> TrainedParams:
    """Reads what a model is evaluated with from a directory, and writes nothing.

    Args:
      directory: Where the checkpoints are.
      like: Parameters of the same shapes; arrays or `jax.ShapeDtypeStruct`s.
      step: Which checkpoint; None: the newest that is not damaged.

    Raises:
      FileNotFoundError: If there is none.
      ValueError: If its parameters have other names or shapes, or if all are damaged.
    """
    if not pathlib.Path(directory).is_dir():
        raise _none_yet(directory)
    with Checkpointer(directory, read_only=True) as checkpointer:
        return checkpointer.restore_params(like, step)


def _none_yet(directory: pathlib.Path) -> config.MissingFileError:
    return config.MissingFileError(
        f"There is no checkpoint in {directory} yet; expected at least one, which training saves "
        "every config.train.checkpoint_every steps and at its end. Wait for it, or give the "
        "command that trains once more: it resumes."
    )


def _make(directory: pathlib.Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(
            f"{directory} cannot be made: {error.strerror}. Checkpoints need a directory that may "
            "be written; choose another workdir."
        ) from error


def _ignore_late_io() -> None:
    """Silences the errors that come after Orbax has given up at the first of several.

    The other reads or writes then find no one to report to, and Python prints a traceback of each:
    when their threads end, which may be long after the `Checkpointer` was left. So this lasts.
    """
    hook = sys.unraisablehook
    if getattr(hook, "ignores_late_io", False):
        return

    def ignore_late_io(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    ignore_late_io.ignores_late_io = True
    sys.unraisablehook = ignore_late_io


@contextlib.contextmanager
def _damage() -> Iterator[None]:
    """Turns whatever goes wrong in reading a checkpoint into one kind of error."""
    try:
        yield
    except (_DamagedError, PermissionError, MemoryError):
        raise
    except Exception as error:
        raise _DamagedError(_one_line(error)) from error


def _one_line(error: Exception) -> str:
    """The first line of an error's message, its middle left out: some hold whole trees."""
    text = config.said((str(error).strip().splitlines() or [type(error).__name__])[0])
    return text if len(text) <= 200 else f"{text[:60]} ... {text[-140:]}"


def named(tree: Any) -> dict[str, Any]:
    """Returns the arrays of a tree by their paths, parameters first."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    names = {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves}
    return dict(sorted(names.items(), key=lambda item: not item[0].startswith("params/")))


def _shape(x: Any) -> str:
    return f"{x.dtype}{list(x.shape)}"


def _checksum(x: np.ndarray | np.generic) -> int:
    return zlib.crc32(np.ascontiguousarray(x).view(np.uint8))


def _check_sums(restored: Any, saved: dict[str, Any]) -> None:
    for name, x in named(restored).items():
        if _checksum(x) != saved[name][1]:
            raise _DamagedError(f"{name} is not as it was saved")


def _json_checksum(content: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def _unused(path: pathlib.Path) -> pathlib.Path:
    """Returns a path that does not exist: this one, or it with a number."""
    candidates = (path.with_name(f"{path.name}.{i}") for i in range(1, 1000))
    return next(p for p in (path, *candidates) if not p.exists())


def _encode(iterator_state: bytes | dict[str, Any]) -> dict[str, Any]:
    """Makes JSON of an iterator's state, which Grain gives as bytes or as a dictionary."""
    if isinstance(iterator_state, bytes):
        return {"base64": base64.b64encode(iterator_state).decode()}
    return {"json": iterator_state}


def _decode(encoded: dict[str, Any]) -> bytes | dict[str, Any]:
    return base64.b64decode(encoded["base64"]) if "base64" in encoded else encoded["json"]
