"""What tests have processes do that read files: to die, to hang, to fail, to take memory."""

import dataclasses
import os
import sys
import time

import filelock

from perceiver_jax.data.builders import isolated


def act(task):
    """Does what a task says; 'fine' is what comes of any other."""
    name, number = task
    if name == "die":
        os._exit(number)
    if name == "hang":
        time.sleep(number)
    if name == "fail":
        raise ValueError(f"a bug, {number}")
    if name == "allocate":
        try:
            return len(bytearray(number))
        except MemoryError:
            return "out of memory"
    if name == "print":
        print("x" * number, flush=True)
        os.write(2, b"x" * number)
    if name == "lock":
        with filelock.FileLock(number):
            time.sleep(60)
    if name == "nested":
        return os.getpid(), isolated.kept_pool(process_of).run(number)
    if name == "modules":
        return sorted(sys.modules)
    return "fine", number


def process_of(number):
    """Returns the process that it is called in, and what it was called with."""
    return os.getpid(), number


@dataclasses.dataclass(frozen=True)
class Adding:
    """An object that can be called."""

    number: int

    def __call__(self, number):
        """Returns the sum; of 0, raises what a bug may."""
        return self.number + number if number else 1 / 0


def fail_to_start():
    """Raises what tells of a broken installation."""
    raise ImportError("no such library")
