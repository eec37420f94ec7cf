"""Checkpoints by Orbax: written in the background, whole or not at all.

A checkpoint holds the training state of one device, so that it does not depend on how many there
were, the state of the data iterator, and a dictionary of JSON values.
"""

import base64
import pathlib
from types import TracebackType
from typing import Any, NamedTuple

import jax
import numpy as np

from perceiver_jax.training.state import TrainState


class Checkpoint(NamedTuple):
    """What was saved.

    Attributes:
      state: Training state, as numpy arrays.
      iterator_state: What the training iterator's `get_state()` gave.
      metadata: JSON values.
    """

    state: TrainState
    iterator_state: bytes | dict[str, Any]
    metadata: dict[str, Any]


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
        """Opens the directory."""
        import orbax.checkpoint as ocp  # Here, for it takes a while.

        self._ocp = ocp
        self._directory = pathlib.Path(directory).absolute()
        self._manager = ocp.CheckpointManager(
            self._directory,
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
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Waits until what was begun is written."""
        self._manager.close()

    def latest_step(self) -> int | None:
        """Returns the step of the newest checkpoint; None if there is none."""
        return self._manager.latest_step()

    def save(self, state: TrainState, iterator_state: Any, metadata: dict[str, Any]) -> None:
        """Begins to write a checkpoint and returns; waits for the previous one first.

        Args:
          state: Of one device, as numpy arrays, to be left unchanged while it is written.
          iterator_state: What the training iterator's `get_state()` gave.
          metadata: JSON values.
        """
        metadata = {"iterator_state": _encode(iterator_state), "metadata": metadata}
        args = self._ocp.args
        self._manager.save(
            int(state.step),
            args=args.Composite(state=args.StandardSave(state), metadata=args.JsonSave(metadata)),
        )

    def restore(self, like: TrainState) -> Checkpoint:
        """Reads the newest checkpoint.

        Args:
          like: A state of the same shapes; arrays or `jax.ShapeDtypeStruct`s.

        Raises:
          FileNotFoundError: If there is none.
          ValueError: If its arrays have other names or shapes.
        """
        step = self.latest_step()
        if step is None:
            raise FileNotFoundError(
                f"No checkpoint in {self._directory}; expected the workdir of a training run. "
                "Train first, or check the path."
            )
        self._check_shapes(step, like)
        args = self._ocp.args
        template = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), like)
        restored = self._manager.restore(
            step,
            args=args.Composite(state=args.StandardRestore(template), metadata=args.JsonRestore()),
        )
        return Checkpoint(
            state=restored["state"],
            iterator_state=_decode(restored["metadata"]["iterator_state"]),
            metadata=restored["metadata"]["metadata"],
        )

    def _check_shapes(self, step: int, like: TrainState) -> None:
        found = _describe(self._manager.item_metadata(step)["state"])
        expected = _describe(like)
        for path in dict.fromkeys([*expected, *found]):
            if found.get(path) != expected.get(path):
                raise ValueError(
                    f"The checkpoint of step {step} in {self._directory} is of another model or "
                    f"optimizer: {path} is {found.get(path, 'absent')} there, expected "
                    f"{expected.get(path, 'absent')}. Use the config that it was trained with "
                    "(config.json in the workdir), or another workdir."
                )


def load(directory: pathlib.Path, like: TrainState) -> Checkpoint:
    """Reads the newest checkpoint of a directory, and writes nothing.

    Args:
      directory: Where the checkpoints are.
      like: A state of the same shapes; arrays or `jax.ShapeDtypeStruct`s.

    Raises:
      FileNotFoundError: If there is none.
      ValueError: If its arrays have other names or shapes.
    """
    if not pathlib.Path(directory).is_dir():
        raise FileNotFoundError(
            f"There is no directory {directory}; expected the checkpoints of a training run. "
            "Train first, or check the path."
        )
    with Checkpointer(directory, read_only=True) as checkpointer:
        return checkpointer.restore(like)


def _describe(tree: Any) -> dict[str, str]:
    """Returns `{path: dtype[shape]}` of every array, parameters first."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    names = {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{x.dtype}{list(x.shape)}"
        for path, x in leaves
    }
    return dict(sorted(names.items(), key=lambda item: not item[0].startswith("params/")))


def _encode(iterator_state: bytes | dict[str, Any]) -> dict[str, Any]:
    """Makes JSON of an iterator's state, which Grain gives as bytes or as a dictionary."""
    if isinstance(iterator_state, bytes):
        return {"base64": base64.b64encode(iterator_state).decode()}
    return {"json": iterator_state}


def _decode(encoded: dict[str, Any]) -> bytes | dict[str, Any]:
    return base64.b64decode(encoded["base64"]) if "base64" in encoded else encoded["json"]
