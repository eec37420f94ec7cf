"""Directories of any name, for a library that takes some names for patterns."""

import os
import pathlib
import re
from typing import Any

from perceiver_jax import config

# What Orbax takes for a pattern of file names, and what its store can't hold.
_SPECIAL = re.compile(r"[][*?{}\\\x00-\x1f\x7f\ud800-\udfff]")


class PlainPath:
    """Another path of a directory whose own has what Orbax does not take as it is.

    Orbax looks for its files with glob and names them in JSON: below a directory such as `[v2]` it
    would not find what it wrote. An open directory has a name in /proc that is numbers only.

    Attributes:
      path: For Orbax.
    """

    def __init__(self, directory: pathlib.Path):
        """Opens the directory if need be.

        Raises:
          config.UserError: If it can't be named in another way here.
        """
        self._directory, self._descriptor, self.path = directory, None, directory
        if not _SPECIAL.search(str(directory)):
            return
        self._descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        self.path = pathlib.Path(f"/proc/self/fd/{self._descriptor}")
        if not self.path.is_dir():
            self.close()
            raise config.UserError(
                f"{directory} has one of the characters [ ] {{ }} * ? \\ or one that can't be "
                "printed, with which checkpoints can be kept only where there is /proc (Linux). "
                "Choose a workdir without them."
            )

    def unplain(self, message: Any) -> str:
        """Returns a message with the directory's own name."""
        return str(message).replace(str(self.path), str(self._directory))

    def close(self) -> None:
        """Closes the directory."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
