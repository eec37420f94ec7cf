"""One run at a time in a workdir: a lock of the operating system, gone with its process.

It holds between the processes of a machine, and between machines whose shared file system has
`flock` (NFS 4; Lustre if mounted so). Where there is none, nothing is locked.
"""

from collections.abc import Iterator
import contextlib
import errno
import fcntl
import os
import pathlib
import socket

from perceiver_jax import config

FILE = ".lock"
_TAKEN = (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK)


class InUseError(OSError, config.UserError):
    """Another run has the workdir."""


@contextlib.contextmanager
def held(workdir: pathlib.Path) -> Iterator[None]:
    """Keeps other runs out of a workdir, which is made if need be.

    Raises:
      InUseError: If another one is in it.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    # The file stays: if it were removed, two could each lock a file of this name.
    descriptor = os.open(workdir / FILE, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _lock(descriptor, fcntl.LOCK_EX, workdir)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        os.close(descriptor)


def check(workdir: pathlib.Path) -> None:
    """Raises what `held` would, and neither locks nor makes anything."""
    try:
        descriptor = os.open(workdir / FILE, os.O_RDONLY)
    except OSError:
        return
    try:
        _lock(descriptor, fcntl.LOCK_SH, workdir)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, kind: int, workdir: pathlib.Path) -> None:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _TAKEN:
            return  # The file system has no locks.
        holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "process"
        raise InUseError(
            f"Another run is training in {workdir}: {holder}; expected a workdir that nothing else "
            "writes to. Wait for its end (after a signal it still has to save), or use another "
            "workdir."
        ) from error
